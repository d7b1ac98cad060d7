"""Writes files that are always whole, and reads JSON that may hold anything."""

import contextlib
import errno
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

from mtnet_jax.locations import Path, on_bucket, telling_refusal

# The suffix of files that are not whole.
PARTIAL = '.partial'
# The error codes of a system without space, and the remedy for each.
NO_ROOM = {
  errno.ENOSPC: 'Free some space',
  errno.EDQUOT: 'Free some space',
  errno.EFBIG: 'Allow larger files (ulimit -f unlimited)',
}


def check_writable(folder: Path) -> None:
  """Raises an OSError unless files can be made in a folder and removed.

  Args:
    folder: exists, if it is not on a bucket.

  Raises:
    OSError: they cannot.
  """
  if not on_bucket(folder):
    with tempfile.TemporaryFile(dir=folder):
      return
  from google.cloud import storage

  probe = folder / f'{uuid.uuid4().hex}{PARTIAL}'
  with telling_refusal(folder):
    # Orbax will do the same, but only with the first checkpoint.
    storage.Client().get_bucket(folder.parts[2])
    probe.write_bytes(b'')
    probe.unlink()


@contextlib.contextmanager
def replacing(
  path: pathlib.Path, durable: bool = True
) -> Iterator[pathlib.Path]:
  """Gives a file its name when it is whole.

  Args:
    path: the file that is to be, in place of one of that name.
    durable: waits until the file is on the disk, so that it is whole after a
      power cut too; some 10 ms a file.

  Yields:
    The path to write to: one that no other process has, since on a cluster two
    may make the same file. An exception removes what was written. What is no
    file, such as /dev/stdout, is written to as it is.

  Raises:
    OSError: the disk refuses it; the error names `path`.
  """
  path = pathlib.Path(path)
  if path.exists() and not path.is_file():
    yield path
    return
  partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}{PARTIAL}')
  try:
    with naming(path, partial):
      yield partial
      if durable:
        _sync(partial)
      partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def _sync(path: pathlib.Path) -> None:
  with path.open('rb') as file:
    os.fsync(file.fileno())


@contextlib.contextmanager
def naming(path: Path, written: Path | None = None) -> Iterator[None]:
  """Names in an `OSError` what could not be written.

  Args:
    path: the path that the user knows.
    written: the path that is written to instead; None: `path` itself.
  """
  try:
    yield
  except OSError as error:
    written = str(path if written is None else written)
    named = str(getattr(error, 'filename', None) or written)
    if not error.errno or not named.startswith(written):
      raise
    # A new error is raised, because libraries' own cannot be changed.
    name = str(path) + named.removeprefix(written)
    raise OSError(error.errno, os.strerror(error.errno), name) from error


def no_room(error: Exception) -> int | None:
  """Returns the code of `NO_ROOM` that a library's error has in its text."""
  codes = (code for code in NO_ROOM if os.strerror(code) in str(error))
  return next(codes, None)


def save_figure(figure: Any, path: str | os.PathLike, dpi: float) -> None:
  """Writes a figure of matplotlib, in place of what the file held.

  Args:
    figure: the figure.
    path: the file, whose ending says which kind of picture it is.
    dpi: pixels an inch.

  Raises:
    OSError: the disk refuses it; the file is as it was.
    ValueError: there is no such kind of picture.
  """
  path = pathlib.Path(path)
  with replacing(path) as partial:
    figure.savefig(partial, format=path.suffix[1:] or 'png', dpi=dpi)


def write_text(path: Path, text: str) -> None:
  """Writes a text in UTF-8, like `write_bytes`."""
  write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
  """Writes a file, in place of what it held.

  Raises:
    OSError: the disk or the bucket refuses it; the file is as it was.
  """
  if on_bucket(path):
    with telling_refusal(path):
      path.write_bytes(content)  # one upload, which replaces the whole file
    return
  with replacing(path) as partial:
    partial.write_bytes(content)


def parse_json(text: str | bytes) -> Any:
  """Parses JSON.

  Raises:
    ValueError: it is none.
  """
  try:
    return json.loads(text)
  except RecursionError as error:
    raise ValueError('its brackets are nested too deeply') from error


def append(path: Path, content: bytes) -> None:
  """Adds to the end of a file, which is made if need be.

  A file on a bucket is read and written whole.

  Raises:
    OSError: the disk or the bucket refuses it.
  """
  if on_bucket(path):
    before = path.read_bytes() if path.exists() else b''
    write_bytes(path, before + content)
    return
  with naming(path), path.open('ab') as file:
    file.write(content)


@contextlib.contextmanager
def writing_folder(folder: Path) -> Iterator[pathlib.Path]:
  """Gives files their names when all of them are whole.

  Args:
    folder: the folder of the files and of folders with files; made if need be.

  Yields:
    A temporary folder of this machine, whose files are moved, or uploaded, at
    the end. After an exception what was there before is there as it was.

  Raises:
    OSError: the disk or the bucket refuses them; the error names `folder`.
  """
  place = None
  if not on_bucket(folder):
    folder = place = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
  temporary = tempfile.TemporaryDirectory(
    prefix='.writing-',
    dir=place,
    # After an error a thread of a library may still write for a moment.
    ignore_cleanup_errors=True,
  )
  with temporary as name, naming(folder, pathlib.Path(name)):
    yield pathlib.Path(name)
    paths = filter(pathlib.Path.is_file, pathlib.Path(name).rglob('*'))
    moves = {path: folder / path.relative_to(name) for path in sorted(paths)}
    if place is None:
      for path, target in moves.items():
        write_bytes(target, path.read_bytes())
      return
    for path, target in moves.items():
      _sync(path)
      target.parent.mkdir(parents=True, exist_ok=True)
    for path, target in moves.items():
      path.replace(target)


def move_folder(source: Path, target: Path) -> None:
  """Renames a folder; the parent of the new name is made if need be.

  Buckets cannot rename, so all files are copied before the first is deleted: an
  interruption loses none.

  Raises:
    OSError: the disk or the bucket refuses it.
  """
  if not on_bucket(source):
    target.parent.mkdir(exist_ok=True)
    source.rename(target)
    return
  with telling_refusal(source):
    _copy_folder(source, target)
    source.rmtree()


def _copy_folder(source: Path, target: Path) -> None:
  for path in source.iterdir():
    if path.is_dir():
      _copy_folder(path, target / path.name)
    else:
      path.copy(target / path.name)
