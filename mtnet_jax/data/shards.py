"""Writes one record file from its videos, the task that machines share.

Beside a whole record file lies its report, `NAME.json`. A record file is remade
by removing its report first and writing it last. So a report always describes
the record file beside it, whenever a machine died.
"""

import collections
import concurrent.futures
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping

from mtnet_jax import files
from mtnet_jax.data import encoding, records
from mtnet_jax.data.batches import open_clip
from mtnet_jax.data.records import Example
from mtnet_jax.data.video import VideoError, VideoReader
from mtnet_jax.errors import UserError

_MAX_BYTES = 2**32 - 1  # of a video: msgpack counts in 32 bits
MISSING = os.strerror(errno.ENOENT)
"""The reason that a report gives for a video that is not there."""


@dataclasses.dataclass(frozen=True)
class Form:
  """The properties that all record files of a data set share.

  Attributes:
    labels: the classes' names.
    num_frames: videos with fewer frames are named as short.
    short_side: the shorter side in pixels; 0: videos keep their size, and whole
      files every byte.
  """

  labels: tuple[str, ...]
  num_frames: int
  short_side: int


@dataclasses.dataclass(frozen=True)
class Shard:
  """A record file that is to be; picklable.

  Attributes:
    path: the record file.
    examples: the videos that go into it, by their paths.
    form: see there.
    inputs: a hash that changes whenever the file would.
  """

  path: pathlib.Path
  examples: tuple[Example, ...]
  form: Form
  inputs: str

  @property
  def report_path(self) -> pathlib.Path:
    """The file that says what became of each video."""
    return self.path.with_suffix('.json')


def read_report(shard: Shard) -> dict | None:
  """Returns the report of a finished record file, None if it is to be made.

  Returns:
    What `write` returned. A record file that was cut off since, or is of other
    videos or another form, is not finished.
  """
  try:
    report = json.loads(shard.report_path.read_text('utf-8'))
    same = report['inputs'] == shard.inputs
    return report if same and report['bytes'] == _size(shard.path) else None
  except (FileNotFoundError, ValueError, LookupError, TypeError):
    return None


def write(
  shard: Shard,
  advance: Callable[[], None] = lambda: None,
  num_threads: int = 1,
) -> dict:
  """Writes a record file of the videos that can be read, and its report.

  Args:
    shard: the file to write, unless its report is there.
    advance: called after each video.
    num_threads: videos that are read at once.

  Returns:
    The report: `inputs`, as in `shard`; `classes`, the videos written by class;
    `skipped`, why a video was left out, by id; `short`, frames by id; `bytes`
    and `sha256` of the file.

  Raises:
    UserError: the file cannot be written.
  """
  classes, skipped, short = collections.Counter(), {}, {}

  def readable() -> Iterator[Example]:
    for example, frames, problem in _try_all(shard, num_threads):
      advance()
      if problem:
        skipped[example.id] = problem
        continue
      if frames < shard.form.num_frames:
        short[example.id] = frames
      classes[shard.form.labels[example.label]] += 1
      yield example

  try:
    records.write(shard.path, readable())
    report = {
      'inputs': shard.inputs,
      'classes': dict(classes),
      'skipped': skipped,
      'short': short,
      'bytes': _size(shard.path),
      'sha256': _sha256(shard.path),
    }
    write_json(shard.report_path, report)
  except OSError as error:
    raise UserError(
      f'{shard.path} cannot be written: {error.strerror or error}. '
      f'{files.NO_ROOM.get(error.errno, "Mend that")} and give the same '
      'command again: it goes on from here.'
    ) from error
  return report


def write_json(path: pathlib.Path, content: Mapping) -> None:
  """Writes a JSON file that has its name only when it is whole.

  Raises:
    OSError: it cannot be written.
  """
  files.write_text(path, json.dumps(content, indent=1))


def _try_all(
  shard: Shard, num_threads: int
) -> Iterator[tuple[Example, int, str]]:
  # Threads suffice: FFmpeg works without holding Python's lock.
  pool = concurrent.futures.ThreadPoolExecutor(num_threads)
  results = collections.deque()  # a few: they hold the videos' contents
  try:
    for example in shard.examples:
      results.append(pool.submit(_try, example, shard.form.short_side))
      if len(results) > 2 * num_threads:
        yield results.popleft().result()
    while results:
      yield results.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)


def _try(example: Example, short_side: int) -> tuple[Example, int, str]:
  """Returns the bytes to write, the number of frames, and what is wrong."""
  start, end = example.start, example.end
  try:
    parts = start is not None or end is not None
    if short_side or parts or os.path.isdir(example.video):
      with open_clip(example) as video:
        contents, frames = encoding.encode(video, short_side), video.num_frames
    else:
      with VideoReader(example.video) as video:
        frames = video.num_frames
        video.read([0, frames - 1])
      _check_size(example.video)  # which is a video, and a regular file
      contents = pathlib.Path(example.video).read_bytes()
  except OSError as error:
    return example, 0, error.strerror
  except VideoError as error:
    return example, 0, error.cause
  return Example(example.id, example.label, contents), frames, ''


def _check_size(video: str):
  size = os.stat(video).st_size
  if size > _MAX_BYTES:
    raise VideoError(
      video,
      f'it has {size / 1e9:.1f} GB, and a record holds {_MAX_BYTES / 1e9:.1f} '
      'at most: give --short_side, or cut it into parts',
    )


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
