"""The figures of a few steps, and the time that they take."""

import collections
import contextlib
import itertools
import math
import time
from collections.abc import Iterator

import jax
import numpy as np

from mtnet_jax.errors import UserError
from mtnet_jax.train_step import Metrics
from mtnet_jax.typing import Batch
from mtnet_jax.watch import LOADER, Watch

# Steps that the host may be ahead of the device.
_IN_FLIGHT = 2
_MIN_LOSS_SCALE = 1e-3
_NOTES = ('stop', 'broken')


class Window:
  """The figures between two lines of the log, on the device until then."""

  def __init__(self, watch: Watch):
    self._watch = watch
    self._recent = collections.deque(maxlen=_IN_FLIGHT)
    self._agreed: dict[str, float] = {}
    self._open()

  def _open(self) -> None:
    self._values: dict[int, Metrics] = {}
    self._checked: dict[int, dict[str, float]] = {}
    self._clips = 0
    self._started = time.monotonic()
    self._waited = 0.0

  def wait_for(self, step: int, batches: Iterator[Batch]) -> Batch:
    """The batch of `step`; the time that it takes is the host's share."""
    # The device must not be far behind, or waiting for it would look like
    # waiting for the loader.
    if len(self._recent) == _IN_FLIGHT:
      self._watch.note('waiting for the devices', step)
      oldest = self._recent.popleft()
      self._agreed = {name: float(oldest[name]) for name in _NOTES}
    self._watch.note(LOADER, step)
    before = time.monotonic()
    batch = next(batches)
    self._waited += time.monotonic() - before
    self._watch.note('training', step)
    return batch

  def agreed(self, note: str) -> float:
    """The sum of a note over all processes, some steps ago."""
    return self._agreed.get(note, 0.0)

  def add(self, step: int, values: Metrics, clips: int) -> None:
    self._recent.append(values)
    self._values[step] = values
    self._clips += clips

  @contextlib.contextmanager
  def paused(
    self, step: int, stage: str, limit: float | None = math.inf
  ) -> Iterator[None]:
    """What happens inside does not count as time of training.

    Args:
      step: of the training.
      stage: for people.
      limit: see `Watch.note`.
    """
    jax.block_until_ready(self._values)
    before = time.monotonic()
    self._watch.note(stage, step, limit)
    yield
    self._watch.note('training', step)
    self._started += time.monotonic() - before

  def check_finite(self) -> None:
    """Fetches the figures; raises a UserError that names the first bad step."""
    fetched = jax.device_get(self._values)
    self._values = {}
    self._checked |= fetched
    for step, figures in fetched.items():
      for name in ('loss', 'gradient_norm', 'parameter_norm'):
        if not np.isfinite(figures[name]):
          raise UserError(
            f'The {name.replace("_", " ")} at step {step} is {figures[name]}. '
            'The last good checkpoint is kept. Lower optim.learning_rate, '
            'lengthen optim.warmup_steps or look at the data.'
          )
      if figures.get('loss_scale', 1) < _MIN_LOSS_SCALE:
        raise UserError(
          f'At step {step} the gradients are not finite however small the loss '
          'is scaled. The last good checkpoint is kept. Use '
          '--config.model.dtype=bfloat16 or float32.'
        )

  def close(self) -> dict[str, float]:
    """The means over the window and its speed; a new window begins."""
    self.check_finite()
    seconds = time.monotonic() - self._started
    values = list(self._checked.values())
    # Short clips have no gates where a single frame is left of them.
    names = dict.fromkeys(itertools.chain(*values))
    figures = {
      f'train/{name}': float(np.mean([v[name] for v in values if name in v]))
      for name in names
      if name not in _NOTES
    }
    for name in ('learning_rate', 'broken'):
      figures[f'train/{name}'] = float(values[-1][name])
    figures['train/seconds'] = seconds
    figures['train/clips_per_second'] = self._clips / seconds
    figures['train/host_waiting'] = self._waited / seconds
    self._open()
    return figures
