"""Finds videos that are in more than one split.

The accuracy on training videos says nothing about other videos.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from absl import logging

from mtnet_jax.data import numbered_images
from mtnet_jax.data.records import Example
from mtnet_jax.errors import printable

_LOOKERS = 32  # threads that ask for files: disks of a network are far
_LOOK_AT = 1000  # files that a thread asks for at once
_SAMPLE = 2**16  # bytes that tell most files of one size apart


def look_at_files(
  splits: Mapping[str, Sequence[Example]],
) -> dict[str, os.stat_result | None]:
  """Returns the status of every video's file; None where there is none."""
  videos = sorted({e.video for e in itertools.chain(*splits.values())})
  parts = [videos[i : i + _LOOK_AT] for i in range(0, len(videos), _LOOK_AT)]
  with concurrent.futures.ThreadPoolExecutor(_LOOKERS) as pool:
    stats = itertools.chain(*pool.map(lambda p: [*map(_stat, p)], parts))
    return dict(zip(videos, stats, strict=True))


def _stat(video: str) -> os.stat_result | None:
  try:
    return os.stat(video)
  except OSError:
    return None


@dataclasses.dataclass(frozen=True)
class Shared:
  """Videos that two splits have in common.

  Attributes:
    one: a split.
    other: another split, which comes after it.
    count: the number of videos of the other split that are in the first too.
    example: the paths of one of them in the two splits; a single one if they
      are the same.
  """

  one: str
  other: str
  count: int
  example: tuple[str, ...]


def find(
  splits: Mapping[str, Sequence[Example]],
  stats: Mapping[str, os.stat_result | None],
) -> list[Shared]:
  """Returns which splits have videos in common, for each two that do.

  Such videos are parts of one file, or files with the same bytes. Only files of
  the same size in different splits are read, and of most of them only a sample.

  Args:
    splits: the videos of each split, by their paths.
    stats: the files' status from `look_at_files`.
  """
  found = collections.defaultdict(list)
  for file in _by_content(splits, stats):
    for pair in itertools.combinations([s for s in splits if s in file], 2):
      found[pair].append(file)
  return [
    Shared(
      one,
      other,
      sum(len(file[other]) for file in files),
      tuple(dict.fromkeys(files[0][split][0] for split in (one, other))),
    )
    for (one, other), files in found.items()
  ]


def warn(
  splits: Mapping[str, Sequence[Example]],
  stats: Mapping[str, os.stat_result | None],
  where: object,
) -> None:
  """Logs a warning for each two splits that have videos in common.

  Args:
    splits: the videos of each split, by their paths.
    stats: the files' status from `look_at_files`.
    where: the data set, as the user knows it.
  """
  for shared in find(splits, stats):
    logging.warning(
      '%s: %d videos of %s are in %s too, as parts of one file or with the '
      'same bytes, such as %s: what is scored on %s was seen before.',
      where,
      shared.count,
      shared.other,
      shared.one,
      ' and '.join(map(printable, shared.example)),
      shared.other,
      extra={'once': True},
    )


# The paths of one file, or of equal ones, by split; one for each video or part.
_File = dict[str, list[str]]


def _by_content(
  splits: Mapping[str, Sequence[Example]],
  stats: Mapping[str, os.stat_result | None],
) -> list[_File]:
  """Returns each file, and those with the same bytes in two splits as one."""
  files, by_size = {}, collections.defaultdict(dict)
  for split, examples in splits.items():
    for example in examples:
      status = stats[example.video]
      if status is None or not status.st_size:
        file = files.setdefault(example.video, {})
      else:  # by several names perhaps
        key = status.st_dev, status.st_ino
        file = files.setdefault(key, {})
        by_size[status.st_size][key] = file
      file.setdefault(split, []).append(example.video)
  groups = [[*of_size.values()] for of_size in by_size.values()]
  with concurrent.futures.ThreadPoolExecutor(_LOOKERS) as pool:
    for digest in (_digest_of_sample, _digest):
      groups = [part for g in groups for part in _divide(g, digest, pool)]
  equal = {id(file) for group in groups for file in group}
  rest = [file for file in files.values() if id(file) not in equal]
  return rest + [_joined(group) for group in groups]


def _divide(
  files: list[_File],
  digest: Callable[[str], str],
  pool: concurrent.futures.Executor,
) -> Iterator[list[_File]]:
  """Yields those of some files that have a digest in common in two splits."""
  if len(files) < 2 or len(_joined(files)) < 2:
    return
  parts = collections.defaultdict(list)
  names = [next(iter(file.values()))[0] for file in files]
  for file, found in zip(files, pool.map(digest, names), strict=True):
    parts[found].append(file)
  for part in parts.values():
    if len(part) > 1 and len(_joined(part)) > 1:
      yield part


def _joined(files: Iterable[_File]) -> _File:
  joined = {}
  for file in files:
    for split, paths in file.items():
      joined.setdefault(split, []).extend(paths)
  return joined


def _digest_of_sample(path: str) -> str:
  """Returns a digest of bytes in the middle, where few files agree."""
  if os.path.isdir(path):
    images = _images(path)
    middle = images[len(images) // 2 :][:1]
    return f'{len(images)} images, {[_digest_of_sample(i) for i in middle]}'
  try:
    with open(path, 'rb') as file:
      file.seek(max(0, os.fstat(file.fileno()).st_size - _SAMPLE) // 2)
      return hashlib.sha256(file.read(_SAMPLE)).hexdigest()
  except OSError:
    return path  # told where it is read


def _digest(path: str) -> str:
  if os.path.isdir(path):
    return str([_digest(image) for image in _images(path)])
  try:
    with open(path, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError:
    return path


def _images(folder: str) -> list[str]:
  """Returns the paths of a video's images, in order."""
  try:
    names = numbered_images.order(os.listdir(folder))
  except (OSError, ValueError):
    return [folder + os.sep]  # told where it is read
  return [os.path.join(folder, name) for name in names]
