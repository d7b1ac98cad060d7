"""One training at a time writes to a folder, and a dead one holds none."""

import json
import multiprocessing
import os
import signal
import socket
import threading

import pytest

from mtnet_jax import locations
from mtnet_jax.errors import UserError
from mtnet_jax.runs import lock


def _hold(workdir, connection):
  with lock.hold(locations.as_path(workdir)):
    connection.send('held')
    connection.recv()


class _Other:
  """A process that holds a folder until it is told to let go."""

  def __init__(self, workdir):
    spawning = multiprocessing.get_context('spawn')
    self._ours, theirs = spawning.Pipe()
    self.process = spawning.Process(
      target=_hold, args=(str(workdir), theirs), daemon=True
    )
    self.process.start()
    assert self._ours.poll(120) and self._ours.recv() == 'held'

  def let_go(self):
    self._ours.send('')
    self.process.join()
    assert self.process.exitcode == 0

  def kill(self):
    self.process.kill()
    self.process.join()
    assert self.process.exitcode == -signal.SIGKILL


def test_a_folder_is_held_by_one_process(tmp_path):
  other = _Other(tmp_path)
  with pytest.raises(UserError) as raised, lock.hold(tmp_path):
    pass
  assert str(raised.value).startswith(
    f'{tmp_path} is held by another training, process {other.process.pid} on '
    f'{socket.gethostname()} since 20'
  )
  other.let_go()
  assert not list(tmp_path.iterdir())
  with lock.hold(tmp_path):
    assert (tmp_path / lock.NAME).exists()
  assert not list(tmp_path.iterdir())


def test_a_dead_process_holds_nothing(tmp_path):
  _Other(tmp_path).kill()
  assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]
  with lock.hold(tmp_path):
    told = json.loads((tmp_path / lock.NAME).read_text())
    assert told['process'] == os.getpid()


def test_a_file_that_says_nothing_holds_nothing(tmp_path):
  for content in (b'', b'[' * 10**5, b'{"host": 1}', b'\xff\x00'):
    (tmp_path / lock.NAME).write_bytes(content)
    with lock.hold(tmp_path):
      pass


def test_where_files_cannot_be_locked_that_is_told(
  tmp_path, monkeypatch, caplog
):
  def refuse(*_):
    raise OSError(37, 'No locks available')

  monkeypatch.setattr(lock.fcntl, 'lockf', refuse)
  with lock.hold(tmp_path):
    pass
  assert 'cannot be locked (No locks available)' in caplog.text


def _another(path, host='elsewhere'):
  """Writes what another training, of another machine, would."""
  holder = {'id': '1', 'host': host, 'process': 7, 'since': 'today'}
  path.write_text(json.dumps(holder))


@pytest.fixture
def workdir(bucket):
  return locations.as_path(bucket)


def test_a_bucket_is_held_by_who_gives_signs_of_life(workdir):
  path, over = workdir / lock.NAME, threading.Event()

  def live():
    while not over.wait(0.05):
      _another(path)

  _another(path)
  thread = threading.Thread(target=live)
  thread.start()
  try:
    with (
      pytest.raises(UserError, match='process 7 on elsewhere since today'),
      lock.hold(workdir, patience=1.0),
    ):
      pass
  finally:
    over.set()
    thread.join()


def test_a_bucket_is_let_go_by_who_gives_none(workdir, caplog):
  path = workdir / lock.NAME
  _another(path)
  with lock.hold(workdir, every=0.05, patience=0.3):
    assert json.loads(path.read_text())['process'] == os.getpid()
    with (
      pytest.raises(UserError, match=f'process {os.getpid()} on'),
      lock.hold(workdir, patience=0.5),
    ):
      pass
  assert not path.exists()
  assert 'was held by process 7 on elsewhere; waiting' in caplog.text


def test_a_process_of_this_machine_that_is_dead_is_not_waited_for(workdir):
  other = _Other(workdir)
  other.kill()
  assert (workdir / lock.NAME).exists()
  with lock.hold(workdir, patience=10**6):
    pass


def test_who_was_taken_for_dead_ends(workdir):
  told, ended = [], threading.Event()

  def end(sentence):
    told.append(sentence)
    ended.set()

  with lock.hold(workdir, every=0.1, end=end):
    _another(workdir / lock.NAME)
    assert ended.wait(30)
  (sentence,) = told
  assert f'{workdir} was taken over by process 7 on elsewhere' in sentence
  assert (workdir / lock.NAME).exists()  # the other's
