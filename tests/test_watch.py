"""Who is told what when something stands still, by a clock that we turn."""

import json
import os
import subprocess
import sys

import jax
import pytest

from mtnet_jax import watch
from mtnet_jax.watch import Watch


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


class _Group:
  """Watches of several processes with one clock, and what ended them."""

  def __init__(self, count, stall_seconds=100.0):
    self.clock, self.lines = _Clock(), {}
    self.boards = [_Board(self.lines, i) for i in range(count)]
    self.ended = [[] for _ in range(count)]
    self.watches = [
      Watch(
        stall_seconds,
        board,
        index=index,
        clock=self.clock,
        end=self.ended[index].append,
      )
      for index, board in enumerate(self.boards)
    ]

  def look(self, *indices, times=1, every=2.0):
    for _ in range(times):
      self.clock.now += every
      for index in indices:
        self.watches[index].look()


def _name(index):
  return f'process {index} on '


def test_a_stage_that_takes_too_long():
  clock, ended = _Clock(), []
  own = Watch(100.0, index=3, clock=clock, end=ended.append)
  own.note('waiting for its loader', 17)
  clock.now += 100
  own.look()
  assert not ended
  clock.now += 0.5
  own.look()
  (reason,) = ended
  assert reason.startswith(_name(3)) and f'({os.getpid()})' in reason
  assert reason.endswith(
    'has been waiting for its loader for 100 s at step 17, longer than '
    'train.stall_timeout (=100).'
  )


def test_each_stage_has_its_own_time():
  clock, ended = _Clock(), []
  own = Watch(10.0, clock=clock, end=ended.append)
  for step in range(5):
    for stage in ('waiting for its loader', 'training'):
      own.note(stage, step)
      clock.now += 9
      own.look()
  assert not ended


def test_some_stages_may_take_long():
  clock, ended = _Clock(), []
  own = Watch(10.0, clock=clock, end=ended.append)
  clock.now += 1e6  # from the start on: checkpoints are read
  own.look()
  with own.unlimited('saving', 4):
    clock.now += 1e6
    own.look()
  assert not ended
  clock.now += 11
  own.look()  # and from here on it is training again
  assert len(ended) == 1 and 'training for 11 s at step 4' in ended[0]


def test_processes_that_go_on_leave_each_other_alone():
  group = _Group(3)
  for step in range(200):
    for own in group.watches:
      own.note('training', step)
    group.look(0, 1, 2)
  assert group.ended == [[], [], []]


def test_a_silent_process_is_named_with_what_it_did():
  group = _Group(3)
  group.watches[1].note('waiting for its loader', 41)
  group.look(1, 0, 2)  # who looks later hears of it
  group.look(0, 2, times=30)  # a minute
  assert group.ended == [[], [], []]
  group.look(0, 2)
  for reasons in (group.ended[0], group.ended[2]):
    assert reasons[0].startswith(_name(1))
    assert 'is gone: nothing heard of it for 62 s' in reasons[0]
    assert reasons[0].endswith('it was waiting for its loader at step 41.')
  assert not group.ended[1]


def test_what_one_gives_up_for_is_what_the_others_say():
  group = _Group(3, stall_seconds=20)
  for own in group.watches:
    own.note('training', 5)
  group.watches[2].note('waiting for its loader', 6)
  group.look(0, 1, 2, times=10)
  group.watches[0].note('waiting for the devices', 6)  # later than process 2
  group.watches[1].note('waiting for the devices', 6)
  group.look(2)
  (reason,) = group.ended[2]
  assert reason.startswith(_name(2)) and 'waiting for its loader' in reason
  group.look(0)
  group.look(1)
  assert group.ended[0] == [reason]
  assert set(group.ended[1]) == {reason}


def test_a_process_that_fails_says_why():
  group = _Group(2)
  error = ValueError('The batch is odd.\nAnd more.')
  group.look(0, 1)
  group.watches[1].__exit__(ValueError, error, None)
  group.look(0)
  (reason,) = group.ended[0]
  assert reason.startswith(_name(1))
  assert reason.endswith('has stopped: The batch is odd.')


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
  group.watches[1].note('training', 8)
  group.look(1, 0)

  def look_meanwhile(seconds):  # what the thread does in that time
    assert seconds > 10
    group.look(0, times=6)

  monkeypatch.setattr(watch.time, 'sleep', look_meanwhile)
  error = jax.errors.JaxRuntimeError('Connection reset by peer')
  group.watches[0].note('training', 8)
  group.watches[0].__exit__(type(error), error, None)
  assert _name(1) in group.ended[0][0] and 'for 12 s' in group.ended[0][0]


def test_our_own_failing_device_goes_its_way(monkeypatch):
  group = _Group(2)
  group.look(0, 1)
  monkeypatch.setattr(watch.time, 'sleep', lambda _: group.look(0, 1, times=8))
  error = jax.errors.JaxRuntimeError('Out of memory')
  group.watches[0].__exit__(type(error), error, None)
  assert group.ended == [[], []]
  group.look(1)
  assert group.ended[1][0].endswith('has stopped: Out of memory')


@pytest.mark.parametrize('kind', [jax.errors.JaxRuntimeError, OSError])
def test_no_board_means_that_process_0_is_gone(kind):
  group = _Group(2)
  group.boards[1].error = kind('deadline exceeded\nand a trace')
  group.look(1)
  assert group.ended[1] == [
    'process 0, through which all others talk, cannot be reached: '
    'deadline exceeded'
  ]


def test_a_process_is_ended_even_if_it_can_tell_nobody():
  group = _Group(2, stall_seconds=10)
  group.watches[1].note('training', 3)
  group.boards[1].error = OSError('gone')
  group.look(1, every=11)
  assert 'training for 11 s at step 3' in group.ended[1][0]


def test_lines_can_be_read_by_people():
  group = _Group(1)
  group.watches[0].note('saving', 12)
  group.look(0)
  told = json.loads(group.lines[0])
  assert told['stage'] == 'saving' and told['step'] == 12
  assert told['over'] == ''


_STALLS = """
import sys, time
import numpy as np
from mtnet_jax import training
from mtnet_jax.data.batches import TrainingBatches
from tests.test_training import _config

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
  _build, training.pipeline.build = training.pipeline.build, build
  training.train(_config(videos, train__stall_timeout=1), workdir)
"""


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
  assert last.endswith('The same command goes on from the last checkpoint.')
