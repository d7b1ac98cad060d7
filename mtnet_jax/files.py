"""How is a file written that is always whole, the old one or the new?"""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator

# Ends the names of files that are not whole.
PARTIAL = '.partial'


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


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text in UTF-8, in place of what the file held.

  Raises:
    OSError: the disk refuses it; the file is as it was.
  """
  with replacing(path) as partial:
    partial.write_text(text, 'utf-8')
