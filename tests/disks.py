"""Disks that are full."""

import pathlib

import pytest


def fill(disk: pathlib.Path, leave: int = 0) -> pathlib.Path:
  """Writes a file that takes what is left of a disk, but for `leave` bytes."""
  filler = disk / 'filler'
  with pytest.raises(OSError), filler.open('wb') as file:
    for size in (2**16, 2**10, 1):  # to the last byte of the last page
      with pytest.raises(OSError):
        while True:
          file.write(bytes(size))
          file.flush()
      file.seek(0, 2)
    raise OSError
  with filler.open('r+b') as file:
    file.truncate(filler.stat().st_size - leave)
  return filler
