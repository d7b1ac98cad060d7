"""How is a file written that is always whole, and read that may be anything?"""

import contextlib
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

from mtnet_jax.locations import Path, on_bucket, telling_refusal

# Ends the names of files that are not whole.
PARTIAL = '.partial'


def check_writable(folder: Path) -> None:
  """Sees that files can be made in a folder and be removed.

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
    # As Orbax will, but with the first checkpoint.
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
    may make the same file. An exception removes what was written.

  Raises:
    OSError: the disk refuses it.
  """
  partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}{PARTIAL}')
  try:
    yield partial
    if durable:
      with partial.open('rb') as file:
        os.fsync(file.fileno())
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
  """Writes a text in UTF-8; otherwise as `write_bytes`."""
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
  """Returns what JSON says.

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
  with path.open('ab') as file:
    file.write(content)


@contextlib.contextmanager
def writing_folder(folder: Path) -> Iterator[pathlib.Path]:
  """Lets libraries that know local files only write into a folder.

  Args:
    folder: where the files go, those of folders below it too.

  Yields:
    The folder itself; for one on a bucket a temporary one, whose files are
    uploaded at the end.

  Raises:
    OSError: the bucket refuses them.
  """
  if not on_bucket(folder):
    yield folder
    return
  with tempfile.TemporaryDirectory() as temporary:
    yield pathlib.Path(temporary)
    for path in sorted(pathlib.Path(temporary).rglob('*')):
      if path.is_file():
        write_bytes(folder / path.relative_to(temporary), path.read_bytes())


def move_folder(source: Path, target: Path) -> None:
  """Gives a folder another name; the one above that is made if need be.

  On a bucket, which cannot do so, all files are copied before the first is
  deleted: if it is interrupted, none is lost.

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
