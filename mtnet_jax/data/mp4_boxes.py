"""Reads what an MP4 file says of its frames, before FFmpeg believes it.

FFmpeg makes room for as many frames as a box says that there are: a file of
some kilobytes can ask for gigabytes.
"""

import dataclasses
import struct
from collections.abc import Iterator
from typing import BinaryIO

_PARENTS = {b'moov', b'trak', b'mdia', b'minf', b'stbl', b'moof', b'traf'}
_MAX_BOXES = 500_000  # of fragmented films of days


def check_counts(file: BinaryIO, size: int, most: int) -> None:
  """Refuses a file that counts more frames than it can hold.

  Args:
    file: any file; one that is no MP4 file passes.
    size: the size of the file in bytes.
    most: frames of a track, at most; in a smaller file there are no more than
      it has bytes.

  Raises:
    ValueError: a box names more frames.
  """
  most = min(size, most)
  tables, fragments = [_Table()], 0
  for number, (kind, start) in enumerate(_boxes(file, size)):
    if number == _MAX_BOXES:
      raise ValueError(f'it has more than {_MAX_BOXES:,} boxes')
    if kind == b'trak':
      tables.append(_Table())
    if kind not in (b'hdlr', b'stts', b'stsz', b'stz2', b'trun'):
      continue
    file.seek(start)
    content = file.read(16).ljust(16, b'\0')
    _, first, second, third = struct.unpack('>4I', content)
    if kind == b'hdlr':
      tables[-1].sound = content[8:12] == b'soun'
    elif kind == b'stts':
      tables[-1].even = (first, third) == (1, 1)
    elif kind == b'trun':
      fragments += first
    else:
      tables[-1].frames = max(tables[-1].frames, second)
  # In uncompressed sound each sample counts, and FFmpeg reads many at once.
  frames = [t.frames for t in tables if not (t.sound and t.even)]
  named = max([*frames, fragments])
  if named > most:
    raise ValueError(
      f'it says that it has {named:,} frames; a file of {size:,} bytes may '
      f'have {most:,}'
    )


@dataclasses.dataclass
class _Table:
  """A track's description of itself."""

  sound: bool = False
  even: bool = False
  frames: int = 0


def _boxes(
  file: BinaryIO, end: int, start: int = 0
) -> Iterator[tuple[bytes, int]]:
  """Yields the kind of each box and where its content begins, depth first."""
  while start + 8 <= end:
    file.seek(start)
    size, kind = struct.unpack('>I4s', file.read(8).ljust(8, b'\0'))
    head = 8
    if size == 1:
      (size,) = struct.unpack('>Q', file.read(8).ljust(8, b'\0'))
      head = 16
    size = size or end - start
    if size < head:
      return
    yield kind, start + head
    if kind in _PARENTS:
      yield from _boxes(file, min(start + size, end), start + head)
    start += size
