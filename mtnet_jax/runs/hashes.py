"""Checks the files of a folder against their SHA-256."""

import hashlib
import json
import pathlib

from mtnet_jax import files

NAME = 'hashes.json'


class ChangedError(Exception):
  """A file is not what was written; the message says which."""


def write(folder: pathlib.Path) -> None:
  """Writes `hashes.json`, with the SHA-256 of each file in its folders.

  Args:
    folder: the folder; files that lie directly in it are left out.

  Raises:
    OSError: a file cannot be read or written.
  """
  paths = sorted(path for path in folder.glob('*/**/*') if path.is_file())
  hashes = {path.relative_to(folder).as_posix(): _hash(path) for path in paths}
  files.write_text(folder / NAME, json.dumps(hashes, indent=1))


def check(folder: pathlib.Path, *parts: str) -> None:
  """Compares files with their hashes; a folder without hashes passes.

  Args:
    folder: the folder, for which `write` was called.
    *parts: names of its folders to which the check is limited; none: all.

  Raises:
    ChangedError: a file is missing or has changed.
    OSError: a file cannot be read.
  """
  path = folder / NAME
  if not path.exists():
    return
  try:
    hashes = dict(files.parse_json(path.read_bytes()))
  except (TypeError, ValueError) as error:
    raise ChangedError(f'its {NAME} is not whole') from error
  for name, wanted in hashes.items():
    file = folder / name
    if parts and name.split('/')[0] not in parts:
      continue
    if not file.is_file():
      raise ChangedError(f'its file {name} is missing')
    if _hash(file) != wanted:
      raise ChangedError(f'its file {name} is not what was written')


def _hash(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
