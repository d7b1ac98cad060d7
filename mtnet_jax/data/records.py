"""Files that hold many videos: ArrayRecord, one encoded video a record.

Training reads records in any order, so each stands in a group of its own, and
they are not compressed, since videos are. A record's content is msgpack: other
programs can read it and, unlike pickle, it runs no code.
"""

import contextlib
import copy
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import msgpack
from array_record.python import array_record_data_source, array_record_module

from mtnet_jax import files
from mtnet_jax.data.video import VideoError
from mtnet_jax.errors import UserError

SUFFIX = '.array_record'

_OPTIONS = 'group_size:1,uncompressed'
# The errors of the library for a file that is not whole, or not its own.
_ERRORS = (OSError, RuntimeError, ValueError)
# The library's message for such a file; a failing disk gives another.
_DAMAGE = 'Riegeli/records file'


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
  """One labeled video.

  Attributes:
    id: names the video; unique in its data set.
    label: the class's number.
    video: the path of a video file or of a folder of images, or a file's
      contents; or, of some sources, its frames as image files. Records hold
      contents.
    start: seconds from which the video counts; None: from its first frame.
    end: seconds before which it counts; None: to its last frame.
    fps: the frames per second of a folder of images; None: not known. Files
      tell their own rate, and records do not hold it.
  """

  id: str
  label: int
  video: str | bytes | tuple[bytes, ...]
  start: float | None = None
  end: float | None = None
  fps: float | None = None


def shard_name(split: str, shard: int, num_shards: int) -> str:
  """Returns the name of a split's record file, `shard` counted from 0."""
  return f'{split}-{shard:05}-of-{num_shards:05}{SUFFIX}'


def write(path: str | os.PathLike, examples: Iterable[Example]) -> None:
  """Writes a record file, replacing one of that name.

  The file gets its name when all of it is on the disk, so that what stands
  under the name is whole: a writer that is killed leaves at most a file of
  another name, which ends in `.partial`.

  Args:
    path: the file to write.
    examples: the examples in the order of the file; may be a generator.

  Raises:
    OSError: the file cannot be written.
  """
  with files.replacing(pathlib.Path(path)) as partial:
    with _disk_errors(partial):
      writer = array_record_module.ArrayRecordWriter(str(partial), _OPTIONS)
    try:
      for example in examples:
        with _disk_errors(partial):
          content = dataclasses.asdict(example)
          del content['fps']
          writer.write(msgpack.packb(content))
    finally:
      with _disk_errors(partial):
        writer.close()


@contextlib.contextmanager
def _disk_errors(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except RuntimeError as error:  # so the library reports a full disk
    code = files.no_room(error)
    if code is None:
      raise OSError(f'{path}: {error}') from error
    raise OSError(code, os.strerror(code), str(path)) from error


class Reader(Sequence[Example]):
  """Record files as one sequence, read at random; picklable.

  Files are opened on first use, in each process anew. A record that cannot be
  read raises a `VideoError`, and the others can still be.
  """

  def __init__(self, paths: Sequence[str | os.PathLike]):
    """Counts the records.

    Args:
      paths: one file or more.

    Raises:
      UserError: a file is not a whole record file.
    """
    self._paths = paths = [os.fspath(path) for path in paths]
    try:
      self._source = array_record_data_source.ArrayRecordDataSource(paths)
    except _ERRORS as error:
      raise UserError(
        f'{_first_damaged(paths)} is no whole record file. Delete it and '
        'prepare the data again: only missing files are made.'
      ) from error

  def __len__(self) -> int:
    return len(self._source)

  def file_names(self) -> list[str]:
    """Returns the names of the files, with their sizes in bytes."""
    return sized_names(self._paths)

  def __getitem__(self, index: int) -> Example:
    if not 0 <= index < len(self):
      raise IndexError(f'Record {index} of {len(self)}')
    try:
      return Example(**msgpack.unpackb(self._source[index]))
    except (*_ERRORS, TypeError) as error:  # the last of another program's
      damaged = isinstance(error, ValueError | TypeError) or _DAMAGE in str(
        error
      )
      if not damaged:
        # A file that could not be read once fails for ever; a copy of the
        # reader opens it again.
        self._source = copy.copy(self._source)
      first = os.path.basename(self._paths[0])
      raise VideoError(
        f'record {index} from {first} on', str(error), passing=not damaged
      ) from error


def sized_names(paths: Sequence[str]) -> list[str]:
  """Returns files' names without their folders, with their sizes."""
  return [
    f'{os.path.basename(path)} of {os.path.getsize(path)} bytes'
    for path in paths
  ]


def _first_damaged(paths: Sequence[str]) -> str:
  for path in paths:
    try:
      array_record_data_source.ArrayRecordDataSource([path])
    except _ERRORS:
      return path
  return paths[0]
