"""Metrics between two lines of the log, by a clock that we turn."""

import math

import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.training.step_metrics import StepMetrics


class _Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


class _Watchdog:
  """Writes down what a watchdog is told."""

  def __init__(self):
    self.told = []

  def heartbeat(self, stage, step, limit=None):
    self.told.append((stage, step, limit))


@pytest.fixture
def clock():
  return _Clock()


def _values(**changes):
  """What a step returns, of float32 as a device gives it."""
  values = {
    'loss': 2.0, 'top1': 0.5, 'learning_rate': 0.1, 'gradient_norm': 1.0,
    'parameter_norm': 3.0, 'stop': 0.0, 'broken': 0.0,
  }  # fmt: skip
  return {k: np.float32(v) for k, v in (values | changes).items()}


def _batches(clock, waits):
  for wait in waits:
    clock.now += wait
    yield {'number': wait}


def _fill(own, clock, *steps):
  """Steps of a second each, 4 clips a step, for which nobody waits."""
  batches = _batches(clock, [0.0] * len(steps))
  for step, values in enumerate(steps, start=1):
    own.wait_for(step, batches)
    own.add(step, values, clips=4)
    clock.now += 1


def test_means_over_the_window(clock):
  own = StepMetrics(_Watchdog(), clock)
  _fill(
    own,
    clock,
    _values(loss=1.0, top1=0.0, learning_rate=0.3, broken=1),
    _values(loss=2.0, top1=0.5, learning_rate=0.2, broken=5),
    _values(loss=6.0, top1=1.0, learning_rate=0.1, broken=7),
  )
  figures = own.summarize()
  assert figures == pytest.approx(
    {
      'train/loss': 3,
      'train/top1': 0.5,
      'train/learning_rate': 0.1,  # as it is now
      'train/gradient_norm': 1,
      'train/parameter_norm': 3,
      'train/broken': 7,  # in all until now
      'train/seconds': 3,
      'train/clips_per_second': 4,
      'train/host_waiting': 0,
    }
  )
  _fill(own, clock, _values(loss=4.0))  # a window knows nothing of others
  assert own.summarize()['train/loss'] == 4


def test_what_only_some_steps_have_is_their_mean():
  own = StepMetrics(_Watchdog())
  gate = 'gate_open/stage_4_block_1'
  own.add(1, _values(), 4)  # a short clip: a single frame is left there
  own.add(2, _values(**{gate: 0.25}), 4)
  own.add(3, _values(**{gate: 0.75}), 4)
  assert own.summarize()[f'train/{gate}'] == 0.5
  own.add(4, _values(**{gate: 1.0}), 4)
  own.add(5, _values(), 4)
  assert own.summarize()[f'train/{gate}'] == 1


def test_speed_and_waiting(clock):
  own = StepMetrics(_Watchdog(), clock)
  batches = _batches(clock, [3.0, 1.0])
  for step in (1, 2):
    assert own.wait_for(step, batches)['number'] == [3.0, 1.0][step - 1]
    own.add(step, _values(), clips=8 * step)
    clock.now += 2
  with own.paused(2, 'validating'):
    clock.now += 1000
  figures = own.summarize()
  # 24 clips in 3 + 2 + 1 + 2 seconds, for half of which it waited.
  assert figures['train/clips_per_second'] == 3
  assert figures['train/host_waiting'] == 0.5


def test_what_all_agree_on_is_known_two_steps_later(clock):
  own = StepMetrics(_Watchdog(), clock)
  seen = []
  batches = _batches(clock, [1.0] * 5)
  for step in range(1, 6):
    own.wait_for(step, batches)
    seen.append((own.total('stop'), own.total('broken')))
    own.add(step, _values(stop=step > 1, broken=10 * step), 4)
  assert seen == [(0, 0), (0, 0), (0, 10), (1, 20), (1, 30)]
  own.summarize()  # does not forget
  assert own.total('broken') == 30


def test_the_watch_hears_what_is_waited_for(clock):
  watch = _Watchdog()
  own = StepMetrics(watch, clock)
  _fill(own, clock, _values(), _values(), _values())
  with own.paused(3, 'saving'):
    pass
  loader, training = 'waiting for its loader', 'training'
  assert watch.told == [
    *[(loader, 1, None), (training, 1, None)],
    *[(loader, 2, None), (training, 2, None)],
    ('waiting for the devices', 3, None),
    *[(loader, 3, None), (training, 3, None)],
    *[('saving', 3, math.inf), (training, 3, None)],
  ]


@pytest.mark.parametrize(
  ('name', 'told'),
  [
    ('loss', 'loss'),
    ('gradient_norm', 'gradient norm'),
    ('parameter_norm', 'parameter norm'),
  ],
)
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_the_first_step_that_is_not_finite_is_named(name, told, value):
  own = StepMetrics(_Watchdog())
  own.add(8, _values(), 4)
  own.check_finite()
  own.add(9, _values(**{name: value}), 4)
  own.add(10, _values(loss=np.nan), 4)
  with pytest.raises(UserError, match=f'The {told} at step 9 is {value}'):
    own.check_finite()


def test_checked_steps_still_count(clock):
  own = StepMetrics(_Watchdog(), clock)
  _fill(own, clock, _values(loss=1.0))
  own.check_finite()
  own.add(2, _values(loss=3.0), 4)
  assert own.summarize()['train/loss'] == 2


def test_a_scale_without_end_is_told():
  own = StepMetrics(_Watchdog())
  own.add(1, _values(loss_scale=0.002), 4)
  own.check_finite()
  own.add(2, _values(loss_scale=0.0009), 4)
  with pytest.raises(UserError, match=r'step 2 .*model\.dtype=bfloat16'):
    own.check_finite()
