"""Races by a clock that only moves where it is told."""

import itertools
import sys
import time

import jax.numpy as jnp
import pytest

from benchmarks import measure


class _Clock:
  def __init__(self):
    self.now = 0.0

  def __call__(self):
    return self.now

  def wait(self, seconds):
    self.now += seconds


def _runner(clock, calls, name, durations):
  def run():
    calls.append(name)
    clock.wait(next(durations))

  return run


def test_contenders_take_turns_and_the_first_round_is_left_out():
  clock, calls = _Clock(), []
  runs = {
    'a': _runner(clock, calls, 'a', iter([100.0, 1, 2, 3, 4, 10])),
    'b': _runner(clock, calls, 'b', iter([100.0, 8, 8, 8, 8, 8])),
  }
  times = measure.race(runs, 0.0, least=5, clock=clock, rest=clock.wait)
  assert calls == ['a', 'b'] * 6
  # Rests are not part of any time.
  assert [round(value, 9) for value in times['a']] == [3, 2, 4, 5]
  assert [round(value, 9) for value in times['b']] == [8, 8, 8, 5]


def test_rounds_go_on_until_the_time_is_up():
  clock, calls = _Clock(), []
  ones = iter([1.0] * 100)
  runs = {name: _runner(clock, calls, name, ones) for name in 'ab'}
  times = measure.race(
    runs, 10.0, least=2, clock=clock, rest=lambda _: clock.wait(1)
  )
  # 20 seconds for both, of which a round takes four.
  assert times['a'].runs == times['b'].runs == 5


def _count_up(start, seconds):
  numbers = itertools.count(start)

  def run():
    time.sleep(seconds)
    return next(numbers) < 100 or sys.exit(1)

  return run


def test_a_contender_apart():
  # It runs in a process of its own, twice a turn where a run takes long.
  with measure.apart(_count_up, 96, 0.1) as contend:
    assert 0.1 <= contend() < 10 and 0.1 <= contend() < 10
    with pytest.raises(EOFError):
      contend()


def test_short_runs_go_on_until_the_processor_is_up_to_speed():
  with measure.apart(_count_up, 0, 0.0) as contend, pytest.raises(EOFError):
    contend()


def test_ready_calls_with_the_arguments():
  seen = []
  measure.ready(lambda x, y: seen.append(x + y), jnp.ones(2), 2)()
  assert seen[0].tolist() == [3, 3]
