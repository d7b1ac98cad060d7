"""Writes a trace of what devices and host do in some of the steps."""

import contextlib
import re
from collections.abc import Iterator

import jax
from absl import logging

from mtnet_jax import files
from mtnet_jax.errors import UserError
from mtnet_jax.locations import Path
from mtnet_jax.training.step import Metrics


def parse(text: str) -> range:
  """Returns the steps that `FROM:TO` names, both of them among them.

  Args:
    text: two step numbers from 1, or '' for no step.

  Raises:
    UserError: it is something else.
  """
  if not text:
    return range(0)
  match = re.fullmatch(r'(\d+):(\d+)', text)
  first, last = map(int, match.groups()) if match else (0, 0)
  if not 1 <= first <= last:
    raise UserError(
      f'--profile={text} must name the first and the last step of a trace, '
      'with 1 ≤ FROM ≤ TO: for instance --profile=20:24.'
    )
  return range(first, last + 1)


class Profiler:
  """Writes a trace of some steps, for TensorBoard, XProf or Perfetto."""

  def __init__(self, steps: range, directory: Path):
    """Traces nothing yet.

    Args:
      steps: the steps from `parse`.
      directory: gets the trace.
    """
    self._steps, self._directory = steps, directory
    self._running = False
    self._writing = contextlib.ExitStack()

  def check(self, start: int, end: int) -> None:
    """Raises a UserError unless the steps are between start and end."""
    if self._steps and not start < self._steps[0] <= self._steps[-1] <= end:
      raise UserError(
        f'--profile={self._steps[0]}:{self._steps[-1]} must lie among the '
        f'steps that are still to come, {start + 1} to {end}.'
      )

  def begin(self, step: int) -> None:
    """Starts the trace, where it begins with this step."""
    if self._steps and step == self._steps[0]:
      folder = self._writing.enter_context(
        files.writing_folder(self._directory)
      )
      jax.profiler.start_trace(folder)
      self._running = True

  def end(self, step: int, metrics: Metrics) -> None:
    """Ends the trace after its last step, when its metrics are there."""
    if self._running and step == self._steps[-1]:
      jax.block_until_ready(metrics)
      self._stop()
      logging.info(
        'A trace of steps %s to %s is in %s: tensorboard --logdir=%s',
        self._steps[0],
        step,
        self._directory,
        self._directory,
      )

  def _stop(self) -> None:
    self._running = False
    with self._writing:
      jax.profiler.stop_trace()

  @contextlib.contextmanager
  def closing(self) -> Iterator[None]:
    """Ends a trace that is cut off inside."""
    try:
      yield
    finally:
      if self._running:
        self._stop()
