"""Lets only one training at a time write to a run's folder.

The file `training.lock` names the training that holds the folder. On a disk the
system locks the file, and lets it go however its process ends. Buckets have no
such locks: there the file is a lease, which its training writes anew again and
again. One that stays as it is belongs to a training that is gone.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Self, TextIO

from absl import logging

from mtnet_jax import files, locations
from mtnet_jax.errors import USER_ERROR, UserError, printable

NAME = 'training.lock'


@contextlib.contextmanager
def hold(
  workdir: locations.Path,
  *,
  every: float = 15.0,
  patience: float = 60.0,
  end: Callable[[str], None] | None = None,
) -> Iterator[None]:
  """Holds a run's folder, alone.

  Args:
    workdir: the folder, which exists.
    every: seconds between two signs of life on a bucket.
    patience: seconds after which a training on a bucket that gave no sign of
      life is taken for gone; several times `every`.
    end: ends this process, with a sentence, where another training has taken
      the bucket's folder over; None: at once, with code 2.

  Raises:
    UserError: another training holds it.
  """
  if not locations.on_bucket(workdir):
    with _locked(workdir):
      yield
    return
  lease = _Lease(workdir)
  with locations.telling_refusal(workdir):
    lease.take(patience)
  finished = threading.Event()
  keeper = threading.Thread(
    target=lease.keep, args=(finished, every, end or _end), daemon=True
  )
  keeper.start()
  try:
    yield
  finally:
    finished.set()
    keeper.join()
    lease.give_up()


@dataclasses.dataclass(frozen=True)
class _Holder:
  """The training that holds a folder."""

  id: str
  host: str
  process: int
  since: str

  @classmethod
  def this(cls) -> Self:
    now = datetime.datetime.now().astimezone().isoformat(' ', 'seconds')
    return cls(uuid.uuid4().hex, socket.gethostname(), os.getpid(), now)

  @classmethod
  def read(cls, text: str) -> Self:
    """Reads a lock's file; one that is not whole has a nameless holder."""
    try:
      return cls(**files.parse_json(text))
    except (TypeError, ValueError):
      return cls('', 'a machine without a name', 0, 'a time that is not known')

  def text(self) -> str:
    return json.dumps(dataclasses.asdict(self))

  def is_dead(self) -> bool:
    """Returns whether the holder was a process of this machine and ended."""
    if self.host != socket.gethostname() or not self.process:
      return False
    try:
      os.kill(self.process, 0)
    except ProcessLookupError:
      return True
    except PermissionError:
      pass
    return False


def _taken(workdir: locations.Path, holder: _Holder) -> UserError:
  return UserError(
    f'{workdir} is held by another training, process {holder.process} on '
    f'{holder.host} since {holder.since}: the two would overwrite each '
    "other's checkpoints. Let it finish, stop it (SIGTERM saves and ends it), "
    'or give another --workdir.'
  )


@contextlib.contextmanager
def _locked(workdir: locations.Path) -> Iterator[None]:
  """Holds a folder of a disk."""
  path = workdir / NAME
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(path.open('a+'))
    _lock(file, workdir)
    while not _is_named(file, path):  # who held it has removed it meanwhile
      file = stack.enter_context(path.open('a+'))
      _lock(file, workdir)
    try:
      file.truncate(0)
      with files.naming(path):  # unbuffered: closing would try it again
        os.write(file.fileno(), _Holder.this().text().encode())
      yield
    finally:
      path.unlink(missing_ok=True)


def _lock(file: TextIO, workdir: locations.Path) -> None:
  # flock would not do: a loader's process that outlives ours would keep the
  # lock.
  try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in (errno.EACCES, errno.EAGAIN):
      file.seek(0)
      raise _taken(workdir, _Holder.read(file.read())) from error
    logging.warning(
      '%s cannot be locked (%s): see that no other training writes to it.',
      workdir,
      error.strerror,
    )


def _is_named(file: TextIO, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(file.fileno()), path.stat())
  except FileNotFoundError:
    return False


class _Lease:
  """Holds a folder of a bucket, as long as it is renewed."""

  def __init__(self, workdir: locations.Path):
    # Needs the extra `gcs`.
    from google.cloud import storage

    _, _, bucket, *names = (workdir / NAME).parts
    self._workdir, self._me = workdir, _Holder.this()
    self._bucket, self._name = storage.Client().bucket(bucket), '/'.join(names)
    self._generation = 0

  def take(self, patience: float) -> None:
    """Takes the folder, after `patience` seconds if somebody seems to hold it.

    Raises:
      UserError: somebody holds it.
    """
    while not self._write(self._generation):
      holder, generation = self._read()
      if generation and not holder.is_dead():
        logging.warning(
          '%s was held by process %s on %s; waiting %.0f s for a sign of it.',
          self._workdir,
          holder.process,
          holder.host,
          patience,
        )
        time.sleep(patience)
        if self._read()[1] not in (generation, 0):
          raise _taken(self._workdir, self._read()[0])
      self._generation = generation

  def keep(
    self,
    finished: threading.Event,
    every: float,
    end: Callable[[str], None],
  ) -> None:
    """Gives a sign of life every few seconds, until `finished` is set."""
    while not finished.wait(every):
      try:
        if self._write(self._generation):
          continue
        holder, _ = self._read()
      except Exception as error:  # the network's; the next may get through
        logging.warning('%s: %s', self._workdir, error)
        continue
      end(
        f'{self._workdir} was taken over by process {holder.process} on '
        f'{holder.host}, since this one had given no sign of life.'
      )
      return

  def give_up(self) -> None:
    """Lets the folder go."""
    try:
      self._bucket.blob(self._name).delete(if_generation_match=self._generation)
    except Exception as error:
      logging.warning('%s stays locked: %s', self._workdir, error)

  def _write(self, generation: int) -> bool:
    """Replaces the file of that generation; 0: writes it if there is none."""
    from google.api_core import exceptions

    blob = self._bucket.blob(self._name)
    try:
      blob.upload_from_string(self._me.text(), if_generation_match=generation)
    except exceptions.PreconditionFailed:
      # The file may be from this very call, whose answer was lost.
      holder, current = self._read()
      if holder != self._me:
        return False
      self._generation = current
    else:
      self._generation = blob.generation
    return True

  def _read(self) -> tuple[_Holder, int]:
    """Returns the holder, and the file's generation, 0 if there is none."""
    from google.api_core import exceptions

    while blob := self._bucket.get_blob(self._name):
      with contextlib.suppress(exceptions.NotFound):  # written anew meanwhile
        return _Holder.read(blob.download_as_text()), blob.generation
    return _Holder.read(''), 0


def _end(sentence: str) -> None:
  # The process ends at once: the folder belongs to another training.
  print(f'error: {printable(sentence)}', file=sys.stderr, flush=True)
  os._exit(USER_ERROR)
