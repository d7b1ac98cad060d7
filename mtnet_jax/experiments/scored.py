"""Finds finished runs: trained to their end, scored, and all files written.

A run's `scored.json` is written last and names its predictions by their digest.
A run that was interrupted before, or overwritten since, by `mtnet eval` with
another checkpoint for instance, does not count.
"""

import hashlib
import json
import pathlib
from typing import Any

from mtnet_jax import files
from mtnet_jax.evaluation import predictions_file
from mtnet_jax.evaluation.predictions import Predictions


def mark(workdir: pathlib.Path, step: int) -> None:
  """Notes that a run is finished, its evaluation written.

  Args:
    workdir: the run's folder.
    step: the step of its last checkpoint, which was scored.
  """
  finished = {'step': step, 'checkpoint': 'last', 'sha256': _digest(workdir)}
  files.write_text(_path(workdir), json.dumps(finished, indent=2) + '\n')


def unmark(workdir: pathlib.Path) -> None:
  """Removes the note, before the evaluation is written again."""
  _path(workdir).unlink(missing_ok=True)


def read_step(workdir: pathlib.Path) -> int | None:
  """Returns the step at which a run was scored; None if it is unfinished."""
  found = _read_mark(workdir)
  return found['step'] if found else None


def read(workdir: pathlib.Path) -> Predictions | None:
  """Returns the predictions of a run; None if it is unfinished."""
  if _read_mark(workdir) is None:
    return None
  return predictions_file.read(_predictions(workdir))


def _read_mark(workdir: pathlib.Path) -> dict[str, Any] | None:
  try:
    found = files.parse_json(_path(workdir).read_text('utf-8'))
    return found if found['sha256'] == _digest(workdir) else None
  except (FileNotFoundError, LookupError, TypeError, ValueError):
    # missing, or torn by a disk
    return None


def _digest(workdir: pathlib.Path) -> str:
  return hashlib.sha256(_predictions(workdir).read_bytes()).hexdigest()


def _predictions(workdir: pathlib.Path) -> pathlib.Path:
  return workdir / 'evaluation' / 'predictions.npz'


def _path(workdir: pathlib.Path) -> pathlib.Path:
  return workdir / 'scored.json'
