"""Who is told what when something stands still, by a clock that we turn."""

import json
import math
import os
import subprocess
import sys

import jax
import pytest

from mtnet_jax.devices import watchdog
from mtnet_jax.devices.watchdog import Watchdog
from mtnet_jax.errors import UserError


class _Clock:
  def __init__(self):
    self.now = 1000.0

  def __call__(self):
    return self.now


class _Board:
  """Of one process, on lines that all of them share."""

  def __init__(self, lines, index):
    self._lines, self._index = lines, index
    self.error = None

  def put(self, line):
    if self.error:
      raise self.error
    self._lines[self._index] = line

  def read(self):
    if self.error:
      raise self.error
    return dict(self._lines)


def _append_to(ended):
  """An `end` that ends nothing."""
  return lambda reason, code: ended.append(reason)


class _Group:
  """Watches of several processes with one clock, and what ended them."""

  def __init__(self, count, stall_seconds=100.0):
    self.clock, self.lines = _Clock(), {}
    self.boards = [_Board(self.lines, i) for i in range(count)]
    self.ended = [[] for _ in range(count)]
    self.watches = [
      Watchdog(
        stall_seconds,
        board,
        index=index,
        clock=self.clock,
        end=_append_to(self.ended[index]),
      )
      for index, board in enumerate(self.boards)
    ]

  def look(self, *indices, times=1, every=2.0):
    for _ in range(times):
      self.clock.now += every
      for index in indices:
        self.watches[index].check()


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
  """A process that fails waits whether somebody else is to blame."""
  monkeypatch.setattr(watchdog.time, 'sleep', lambda seconds: None)


def _name(index):
  return f'process {index} on '


def test_a_stage_that_takes_too_long():
  clock, ended = _Clock(), []
  own = Watchdog(100.0, index=3, clock=clock, end=_append_to(ended))
  own.heartbeat('waiting for its loader', 17)
  clock.now += 100
  own.check()
  assert not ended
  clock.now += 0.5
  own.check()
  (reason,) = ended
  assert reason.startswith(_name(3)) and f'({os.getpid()})' in reason
  assert reason.endswith(
    'has been waiting for its loader for 100 s at step 17, longer than '
    'train.stall_timeout (=100).'
  )


def test_each_stage_has_its_own_time():
  clock, ended = _Clock(), []
  own = Watchdog(10.0, clock=clock, end=_append_to(ended))
  for step in range(5):
    for stage in ('waiting for its loader', 'training'):
      own.heartbeat(stage, step)
      clock.now += 9
      own.check()
  assert not ended


def test_some_stages_may_take_long():
  clock, ended = _Clock(), []
  own = Watchdog(10.0, clock=clock, end=_append_to(ended))
  clock.now += 1e6  # from the start on: checkpoints are read
  own.check()
  own.heartbeat('compiling', 4, limit=math.inf)
  clock.now += 1e6
  own.check()
  assert not ended
  own.heartbeat('training', 4)
  clock.now += 21
  own.check()  # and from here on it is training again
  assert len(ended) == 1 and 'training for 21 s at step 4' in ended[0]


def test_a_stage_may_have_a_limit_of_its_own():
  clock, ended = _Clock(), []
  own = Watchdog(600.0, clock=clock, end=_append_to(ended))
  own.heartbeat('writing figures', 9, limit=60.0)
  clock.now += 60
  own.check()
  assert not ended
  clock.now += 1
  own.check()
  (reason,) = ended
  assert reason.endswith(
    'has been writing figures for 61 s at step 9, longer than the 60 s that '
    'it may take.'
  )


def test_batches_to_score_are_waited_for_but_scored_at_leisure():
  clock, ended = _Clock(), []
  own = Watchdog(10.0, clock=clock, end=_append_to(ended))
  batches = own.iterate(iter('abc'), 7)
  for batch in 'ab':
    assert next(batches) == batch
    clock.now += 1e6  # it is scored
    own.check()
  own.heartbeat(watchdog.LOADER, 7)
  assert [*batches] == ['c']
  clock.now += 1e6  # for the others' scores
  own.check()
  assert not ended

  def stalling():
    clock.now += 11
    own.check()
    yield

  next(own.iterate(stalling(), 7))
  assert len(ended) == 1 and 'waiting for its loader for 11 s' in ended[0]


@pytest.mark.parametrize('phases', [(0.0, 1.9), (1.9, 0.0), (1.0, 0.5)])
def test_who_waits_for_another_s_loader_is_not_to_blame(phases):
  """Whichever of the two looks first; a step takes 0.2 s."""
  group = _Group(2, stall_seconds=20)
  start = group.clock.now
  group.watches[1].heartbeat(watchdog.LOADER, 6)
  group.watches[0].heartbeat('waiting for the devices', 7)
  looks = sorted(
    (start + 0.2 + phase + 2 * i, index)
    for index, phase in enumerate(phases)
    for i in range(20)
  )
  for now, index in looks:
    group.clock.now = now
    if not group.ended[index]:
      group.watches[index].check()
  (reason,) = group.ended[1]
  assert reason.startswith(_name(1)) and watchdog.LOADER in reason
  assert group.ended[0] == [reason]


def test_processes_that_go_on_leave_each_other_alone():
  group = _Group(3)
  for step in range(200):
    for own in group.watches:
      own.heartbeat('training', step)
    group.look(0, 1, 2)
  assert group.ended == [[], [], []]


def test_a_silent_process_is_named_with_what_it_did():
  group = _Group(3)
  for own in group.watches:
    own.heartbeat('waiting for its loader', 41)
  group.look(1, 0, 2)  # who looks later hears of it
  group.look(0, 2, times=30)  # a minute
  assert group.ended == [[], [], []]
  group.look(0, 2)
  for reasons in (group.ended[0], group.ended[2]):
    assert reasons[0].startswith(_name(1))
    assert 'is gone: nothing heard of it for 62 s' in reasons[0]
    assert reasons[0].endswith('it was waiting for its loader at step 41.')
  assert not group.ended[1]


def test_a_process_that_fails_says_why():
  group = _Group(2)
  error = ValueError('The batch is odd.\nAnd more.')
  group.look(0, 1)
  group.watches[1].__exit__(ValueError, error, None)
  group.look(0)
  (reason,) = group.ended[0]
  assert reason.startswith(_name(1))
  assert reason.endswith('has stopped: The batch is odd.')
  assert group.ended[1] == [reason]  # at once, rather than waiting for others


@pytest.mark.parametrize(
  ('error', 'code'), [(UserError('No data.'), 2), (TypeError('A defect.'), 1)]
)
def test_all_end_with_the_code_of_who_failed(error, code):
  lines, codes = {}, [[], []]
  first, second = (
    Watchdog(
      10.0,
      _Board(lines, index),
      index=index,
      clock=_Clock(),
      end=lambda reason, code, own=own: own.append(code),
    )
    for index, own in enumerate(codes)
  )
  second.check()
  first.__exit__(type(error), error, None)
  second.check()
  assert codes == [[code], [code]]


def test_an_error_without_a_word_is_told_by_its_kind():
  group = _Group(2)
  group.watches[1].__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
  group.look(0)
  assert group.ended[0][0].endswith('has stopped: KeyboardInterrupt')


@pytest.mark.parametrize('kind', [None, SystemExit])
def test_a_process_that_finished_is_not_missed(kind):
  group = _Group(3)
  group.look(0, 1, 2)
  group.watches[2].__exit__(kind, kind and kind(75), None)
  group.look(0, 1, times=100)
  assert group.ended == [[], [], []]


def test_a_failing_device_makes_silence_suspicious_sooner(monkeypatch):
  """Where a collective fails, most likely somebody else is gone."""
  group = _Group(2)
  group.watches[1].heartbeat('training', 8)
  group.look(1, 0)

  def look_meanwhile(seconds):  # what the thread does in that time
    if seconds > 10:  # not that of process 0 when it ends
      group.look(0, times=6)

  monkeypatch.setattr(watchdog.time, 'sleep', look_meanwhile)
  error = jax.errors.JaxRuntimeError('Connection reset by peer')
  group.watches[0].heartbeat('training', 8)
  with pytest.raises(type(error)), group.watches[0].blaming_others():
    raise error
  assert _name(1) in group.ended[0][0] and 'for 12 s' in group.ended[0][0]


def test_our_own_failing_device_goes_its_way(monkeypatch):
  group = _Group(2)
  group.look(0, 1)

  def look_meanwhile(seconds):
    if seconds > 10:
      group.look(0, 1, times=8)

  monkeypatch.setattr(watchdog.time, 'sleep', look_meanwhile)
  error = jax.errors.JaxRuntimeError('Out of memory')
  with pytest.raises(type(error)), group.watches[0].blaming_others():
    raise error
  assert group.ended[0][0].endswith('has stopped: Out of memory')
  group.look(1)
  assert group.ended[1] == group.ended[0]


@pytest.mark.parametrize('kind', [jax.errors.JaxRuntimeError, OSError])
def test_no_board_means_that_process_0_is_gone(kind):
  group = _Group(2)
  group.boards[1].error = kind('deadline exceeded\nand a trace')
  group.look(1)
  assert group.ended[1] == [
    'process 0, through which all others talk, cannot be reached: '
    'deadline exceeded.'
  ]


def test_a_look_that_the_end_of_a_run_cuts_off_ends_nothing():
  group = _Group(2)
  with group.watches[1] as watching:
    pass
  group.boards[1].error = jax.errors.JaxRuntimeError('CANCELLED')
  watching.check()  # JAX shuts down while the thread still asks for the lines
  assert group.ended[1] == []


def test_a_process_is_ended_even_if_it_can_tell_nobody():
  group = _Group(2, stall_seconds=10)
  group.watches[1].heartbeat('training', 3)
  group.boards[1].error = OSError('gone')
  group.look(1, every=21)
  assert 'training for 21 s at step 3' in group.ended[1][0]


def test_lines_can_be_read_by_people():
  group = _Group(1)
  group.watches[0].heartbeat('saving', 12)
  group.look(0)
  told = json.loads(group.lines[0])
  assert told['stage'] == 'saving' and told['step'] == 12
  assert told['over'] == ''


_STALLS = """
import sys, time
import numpy as np
from mtnet_jax.data.batches import TrainingBatches
from mtnet_jax.training import loop, setup
from tests.tiny_runs import tiny_config

class Stalling(TrainingBatches):
  def __getitem__(self, step):
    if step == 3:
      time.sleep(600)
    return super().__getitem__(step)

def build(*arguments, **keywords):
  batches = _build(*arguments, **keywords)
  return Stalling(**vars(batches))

if __name__ == '__main__':
  videos, workdir = sys.argv[1:]
  _build, setup.pipeline.build = setup.pipeline.build, build
  loop.train(tiny_config(videos, train__stall_timeout=1), workdir)
"""


@pytest.mark.slow
def test_a_stalled_loader_ends_the_run(root, blinking_videos, tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', _STALLS, str(blinking_videos), str(tmp_path)],
    cwd=root,
    capture_output=True,
    text=True,
    timeout=300,  # the loader sleeps longer
  )
  assert done.returncode == os.EX_TEMPFAIL, done.stderr
  last = done.stderr.splitlines()[-1]
  assert last.startswith('error: process 0 on ')
  assert 'has been waiting for its loader for' in last
  assert 'at step 4, longer than train.stall_timeout (=1).' in last
  assert last.endswith('The same command resumes from the last checkpoint.')


def test_what_else_ails_a_process_ends_it():
  ended = []
  watch = Watchdog(
    100.0,
    ailment=iter(['', 'a loader process was killed.']).__next__,
    clock=_Clock(),
    end=lambda reason, code: ended.append((reason, code)),
  )
  watch.check()
  assert not ended
  watch.check()
  ((reason, code),) = ended
  assert reason.startswith(_name(0)) and code == 75
  assert reason.endswith(': a loader process was killed.')
