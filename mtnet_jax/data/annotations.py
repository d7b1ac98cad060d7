"""Reads annotations of public data sets: lines, classes and files.

A data set's command reads lists of clips; `list_clips` finds their videos,
which may lie anywhere below one folder.
"""

import dataclasses
import itertools
import math
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from absl import logging

from mtnet_jax import locations
from mtnet_jax.data import folders
from mtnet_jax.data.records import Example
from mtnet_jax.data.sources import Listing
from mtnet_jax.errors import UserError

_MAX_NAMED = 5  # files of a folder in a message


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
  """An annotation of a video, or of a part of one.

  Attributes:
    id: names the clip; unique in its data set.
    label: the class's name.
    names: names that the file may have, without its ending; the first that is
      there is taken, wherever it lies: files of one name are taken for copies
      of one video.
    folders: names of folders that the file may lie in, the most telling first.
      They choose among several files of a name; blanks and underscores, upper
      and lower case count as the same.
    start: seconds of that file from which the clip counts; None: all of it.
    end: seconds before which it counts; None: to the file's end.
    cut: name of a file, without its ending, that holds this clip alone, and is
      preferred to `names`; '' for none.
  """

  id: str
  label: str
  names: tuple[str, ...]
  folders: tuple[str, ...] = ()
  start: float | None = None
  end: float | None = None
  cut: str = ''


def check_folder(
  directory: str | os.PathLike, needed: Sequence[str], meaning: str
) -> pathlib.Path:
  """Checks that a folder holds annotation files.

  Args:
    directory: the value of --annotations.
    needed: names of files that must be there.
    meaning: the expected contents, for instance "UCF-101's lists".

  Returns:
    The folder.

  Raises:
    UserError: there is no such folder, or a file is missing.
  """
  directory = locations.local_path(directory)
  if not directory.is_dir():
    raise UserError(
      f'There is no folder --annotations={directory}: give the one that holds '
      f'{meaning}.'
    )
  missing = [name for name in needed if not (directory / name).is_file()]
  if missing:
    raise wrong_folder(directory, missing[0], meaning)
  return directory


def wrong_folder(
  directory: pathlib.Path, needed: str, meaning: str
) -> UserError:
  """Returns the error for a folder of annotations without a file that it needs.

  Args:
    directory: the value of --annotations.
    needed: the missing file's name.
    meaning: the expected contents, for instance "UCF-101's lists".
  """
  there = sorted(path.name for path in directory.iterdir())
  more = len(there) - _MAX_NAMED
  return UserError(
    f'--annotations={directory} has no {needed}: give the folder that holds '
    f'{meaning}. This one holds: {", ".join(there[:_MAX_NAMED]) or "nothing"}'
    f'{f" and {more} more" if more > 0 else ""}.'
  )


def read_lines(
  path: str | os.PathLike, pattern: str, example: str
) -> Iterator[tuple[str, dict[str, str]]]:
  """Reads a text file whose lines all have one form.

  Args:
    path: the file, UTF-8, with any ends of lines.
    pattern: a regular expression with named groups for a whole line without
      blanks at its ends.
    example: a line as it should be, for messages.

  Yields:
    For every line that is not empty, 'FILE, line N' and its groups; '' for
    those that took no part.

  Raises:
    UserError: the file cannot be read or is empty, or a line has another form.
  """
  form, empty = re.compile(pattern), True
  try:
    text = pathlib.Path(path).read_text('utf-8-sig')
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}.') from error
  except UnicodeDecodeError as error:
    raise UserError(f'{path} is not UTF-8: {error}. Save it as such.') from None
  for number, line in enumerate(text.splitlines(), 1):
    if not line.strip():
      continue
    match, empty = form.fullmatch(line.strip()), False
    if not match:
      raise UserError(
        f'{path}, line {number}: {line.strip()!r} cannot be read; expected are '
        f'lines such as {example!r}.'
      )
    yield f'{path}, line {number}', match.groupdict('')
  if empty:
    raise UserError(f'{path} is empty; expected are lines such as {example!r}.')


def read_classes(
  path: str | os.PathLike, pattern: str, example: str
) -> tuple[str, ...]:
  """Reads a list of numbered classes.

  Args:
    path: the list.
    pattern: a pattern as in `read_lines`, with groups `name` and `number`.
    example: a line, for messages.

  Returns:
    The classes' names by rising number.

  Raises:
    UserError: what `read_lines` raises; or the numbers are not 0, 1, 2, … or 1,
      2, 3, …, each once; or a name stands twice.
  """
  names = {}
  for where, line in read_lines(path, pattern, example):
    number, name = int(line['number']), line['name']
    if number in names or name in names.values():
      raise UserError(
        f'{where}: class {name!r} or number {number} is there already. Every '
        'class has one line.'
      )
    names[number] = name
  numbers = sorted(names)
  if numbers[0] > 1 or numbers[-1] - numbers[0] != len(names) - 1:
    raise UserError(
      f'{path} numbers {len(names)} classes from {numbers[0]} to '
      f'{numbers[-1]}. Numbers start at 0 or 1 and none is missing: take the '
      'original file.'
    )
  return tuple(names[number] for number in numbers)


def seconds(start: str, end: str, where: str) -> tuple[float, float]:
  """Returns a range of times that an annotation gives.

  Args:
    start: seconds, as text.
    end: seconds, as text.
    where: names the line, for messages.

  Raises:
    UserError: not 0 ≤ start < end.
  """
  try:
    times = float(start), float(end)
    valid = 0 <= times[0] < times[1] < math.inf
  except ValueError:
    valid = False
  if not valid:
    raise UserError(
      f'{where}: {start!r} and {end!r} must be seconds with 0 ≤ start < end.'
    )
  return times


def list_clips(
  videos: str | os.PathLike,
  labels: Sequence[str],
  clips: Mapping[str, Iterable[Clip]],
) -> Listing:
  """Finds the clips' videos.

  Args:
    videos: a folder that holds the videos, at any depth.
    labels: the classes' names; all of the clips' are among them.
    clips: the clips by split. A clip that is there twice is taken once, with a
      warning.

  Returns:
    The splits of which at least one video is there; a video that is not there
    gets a path that does not exist.

  Raises:
    UserError: there is no such folder, or no listed video in it.
  """
  clips = _unique(clips)  # before the long search: reading finds mistakes
  if not any(clips.values()):
    raise UserError('The annotations list no clip for any split.')
  index, splits = _Index(videos), {}
  numbers = {label: number for number, label in enumerate(labels)}
  for split, of_split in clips.items():
    paths = [index.find(clip) for clip in of_split]
    logging.info(
      'Split %r: %d of %d clips have their video in %s',
      split,
      sum(map(bool, paths)),
      len(paths),
      videos,
    )
    if any(paths):
      splits[split] = tuple(
        _example(clip, numbers[clip.label], path or _absent(videos, clip))
        for clip, path in zip(of_split, paths, strict=True)
      )
    elif paths:
      logging.warning('Split %r is left out: it has no video.', split)
  if not splits:
    raise index.nothing_found(next(itertools.chain(*clips.values())))
  return Listing(tuple(labels), splits, os.fspath(videos))


def _unique(clips: Mapping[str, Iterable[Clip]]) -> dict[str, list[Clip]]:
  """Returns the clips without those that are listed before already."""
  unique, ids, repeated = {}, set(), []
  for split, of_split in clips.items():
    unique[split] = []
    for clip in of_split:
      (repeated if clip.id in ids else unique[split]).append(clip)
      ids.add(clip.id)
  if repeated:
    logging.warning(
      '%d clips are listed twice and taken where they stand first, such as %s',
      len(repeated),
      repeated[0].id,
    )
  return unique


def _example(clip: Clip, label: int, path: str) -> Example:
  if _stem(path) == clip.cut:
    return Example(clip.id, label, path)
  return Example(clip.id, label, path, clip.start, clip.end)


def _absent(videos: str | os.PathLike, clip: Clip) -> str:
  return os.path.join(videos, clip.id)


class _Index:
  """The video files below a folder, by their names without endings."""

  def __init__(self, directory: str | os.PathLike):
    self._directory = os.fspath(directory)
    if not os.path.isdir(directory):
      raise UserError(f'There is no folder --videos={directory}.')
    logging.info('Looking for videos in %s', directory)
    self._paths = {}
    contents = folders.search(directory)
    contents.check_readable()
    contents.tell(self._directory)
    for place in contents.videos:
      path = os.path.join(directory, *place)
      self._paths.setdefault(_stem(path), []).append(path)

  def find(self, clip: Clip) -> str:
    """Returns the path of a clip's video, or ''."""
    for name in (clip.cut, *clip.names):
      if paths := self._paths.get(name):
        return self._best(paths, clip.folders)
    return ''

  def _best(self, paths: Sequence[str], folders: Sequence[str]) -> str:
    """Returns the path that has the most telling of some folders in it."""
    wanted = [_plain(folder) for folder in folders]

    def told(path: str) -> list[bool]:
      inside = os.path.dirname(path[len(self._directory) :])
      there = _plain(inside).split(os.sep)
      return [folder in there for folder in wanted]

    return max(sorted(paths), key=told) if len(paths) > 1 else paths[0]

  def nothing_found(self, clip: Clip) -> UserError:
    """Returns the error for a folder without any listed video.

    Args:
      clip: one of those that were looked for.
    """
    there = min(itertools.chain(*self._paths.values()), default='no video')
    names = filter(None, (clip.cut, *clip.names))
    return UserError(
      f'--videos={self._directory} holds none of the listed videos at any '
      f'depth, such as {" or ".join(names)} with .mp4 or another suffix of '
      f'videos; it holds {there}.'
    )


def _stem(path: str) -> str:
  return os.path.splitext(os.path.basename(path))[0]


def _plain(folder: str) -> str:
  return folder.casefold().replace('_', ' ')
