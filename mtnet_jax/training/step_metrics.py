"""Collects the metrics and the speed of the steps between two log lines."""

import collections
import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from mtnet_jax.data.batches import Batch
from mtnet_jax.devices.watchdog import LOADER, Watchdog
from mtnet_jax.errors import UserError
from mtnet_jax.training.step import Metrics

# Steps that the host may be ahead of the device.
_IN_FLIGHT = 2
_MIN_LOSS_SCALE = 1e-3
# Numbers of single processes; a step's metrics hold their sums.
COUNTERS = ('stop', 'broken')


class StepMetrics:
  """The metrics since the log's last line, on the device until the next."""

  def __init__(
    self, watchdog: Watchdog, clock: Callable[[], float] = time.monotonic
  ):
    """Begins with no metrics.

    Args:
      watchdog: is told what this process waits for.
      clock: seconds, rising.
    """
    self._watchdog, self._clock = watchdog, clock
    self._recent = collections.deque(maxlen=_IN_FLIGHT)
    self._totals: dict[str, float] = {}
    self._reset()

  def _reset(self) -> None:
    self._metrics: dict[int, Metrics] = {}
    self._checked: dict[int, dict[str, float]] = {}
    self._clips = 0
    self._started = self._clock()
    self._waited = 0.0

  def wait_for(self, step: int, batches: Iterator[Batch]) -> Batch:
    """Returns the batch of `step`; the time is counted as the host's."""
    # The device must not be far behind, or waiting for it would look like
    # waiting for the loader.
    if len(self._recent) == _IN_FLIGHT:
      self._watchdog.heartbeat('waiting for the devices', step)
      oldest = self._recent.popleft()
      self._totals = {name: float(oldest[name]) for name in COUNTERS}
    self._watchdog.heartbeat(LOADER, step)
    before = self._clock()
    batch = next(batches)
    self._waited += self._clock() - before
    self._watchdog.heartbeat('training', step)
    return batch

  def total(self, counter: str) -> float:
    """Returns a counter's sum over all processes, as it was two steps ago.

    All processes read it from the same step's metrics, so that all of them
    decide alike.
    """
    return self._totals.get(counter, 0.0)

  def add(self, step: int, metrics: Metrics, clips: int) -> None:
    """Takes the metrics of a step on so many clips, still being computed."""
    self._recent.append(metrics)
    self._metrics[step] = metrics
    self._clips += clips

  @contextlib.contextmanager
  def paused(
    self, step: int, stage: str, limit: float | None = math.inf
  ) -> Iterator[None]:
    """Does not count what happens inside the context as time of training.

    Args:
      step: the training step.
      stage: the name of the stage in messages.
      limit: see `Watchdog.heartbeat`.
    """
    jax.block_until_ready(self._metrics)
    before = self._clock()
    self._watchdog.heartbeat(stage, step, limit)
    yield
    self._watchdog.heartbeat('training', step)
    self._started += self._clock() - before

  def check_finite(self) -> None:
    """Fetches the metrics; raises a UserError that names the first bad step."""
    fetched = jax.device_get(self._metrics)
    self._metrics = {}
    self._checked |= fetched
    for step, metrics in fetched.items():
      for name in ('loss', 'gradient_norm', 'parameter_norm'):
        if not np.isfinite(metrics[name]):
          raise UserError(
            f'The {name.replace("_", " ")} at step {step} is {metrics[name]}. '
            'The last good checkpoint is kept. Lower optim.learning_rate, '
            'lengthen optim.warmup_steps or look at the data.'
          )
      if metrics.get('loss_scale', 1) < _MIN_LOSS_SCALE:
        raise UserError(
          f'At step {step} the gradients are not finite however small the loss '
          'is scaled. The last good checkpoint is kept. Use '
          '--config.model.dtype=bfloat16 or float32.'
        )

  def summarize(self) -> dict[str, float]:
    """Returns the means of the metrics and the speed, and begins anew."""
    self.check_finite()
    seconds = self._clock() - self._started
    steps = list(self._checked.values())
    # Short clips have no gates where only a single frame is left.
    names = dict.fromkeys(itertools.chain(*steps))
    summary = {
      f'train/{name}': float(np.mean([m[name] for m in steps if name in m]))
      for name in names
      if name not in COUNTERS
    }
    for name in ('learning_rate', 'broken'):
      summary[f'train/{name}'] = float(steps[-1][name])
    summary['train/seconds'] = seconds
    summary['train/clips_per_second'] = self._clips / seconds
    summary['train/host_waiting'] = self._waited / seconds
    self._reset()
    return summary
