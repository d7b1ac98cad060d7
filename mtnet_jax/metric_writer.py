"""Figures of a run: `metrics.jsonl` for programs, TensorBoard for people."""

import json
import os
import pathlib
from collections.abc import Mapping

import tensorboardX
from absl import logging


class MetricWriter:
  """Appends to `WORKDIR/metrics.jsonl` and `WORKDIR/tensorboard`."""

  def __init__(self, workdir: str | pathlib.Path, first_step: int):
    """Opens both for the steps after `first_step`.

    What an interrupted run wrote beyond the checkpoint that it goes on from is
    dropped, so that every step stands there once.

    Args:
      workdir: the run's folder, which exists.
      first_step: the step that the run goes on from; 0 for a new one.
    """
    workdir = pathlib.Path(workdir)
    self._path = workdir / 'metrics.jsonl'
    kept = [r for r in read(self._path) if r['step'] <= first_step]
    partial = self._path.with_suffix('.tmp')
    partial.write_text(''.join(json.dumps(r) + '\n' for r in kept))
    os.replace(partial, self._path)
    self._file = self._path.open('a')
    self._board = tensorboardX.SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=first_step + 1
    )

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes one record, at once visible to readers.

    Args:
      step: updates made so far.
      metrics: names such as `train/loss` and their values.
    """
    values = {name: float(value) for name, value in metrics.items()}
    self._file.write(json.dumps({'step': step, **values}) + '\n')
    self._file.flush()
    for name, value in values.items():
      self._board.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes both."""
    try:
      self._file.close()
      self._board.close()
    except OSError as error:
      # A full disk has been told of where it stopped the run.
      logging.warning('The last figures could not be written: %s', error)


class NoWriter:
  """Writes nothing: that of all processes but one."""

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """As `MetricWriter.write`."""

  def close(self) -> None:
    """As `MetricWriter.close`."""


def read(path: str | pathlib.Path) -> list[dict[str, float]]:
  """The records of a `metrics.jsonl`; [] where there is no file.

  A last line that a killed process left unfinished is left out.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  records = []
  for line in path.read_text().splitlines():
    try:
      records.append(json.loads(line))
    except json.JSONDecodeError:
      continue
  return records
