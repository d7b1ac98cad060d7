"""A directory as a sequence of labeled videos.

What a directory may be is told in docs/data.md: record files, a `clips.csv`, a
folder a class within a folder a split, or a folder a class.
"""

import collections
import dataclasses
import hashlib
import math
import os
import pathlib
import re
from collections.abc import Container, Iterator, Mapping, Sequence

from absl import logging

from mtnet_jax import locations
from mtnet_jax.data import records, tables, tfds_source
from mtnet_jax.data.records import Example
from mtnet_jax.errors import UserError

SPLITS = ('train', 'val', 'test')
CSV_NAME = 'clips.csv'
LABELS_NAME = 'labels.txt'

VIDEO_SUFFIXES = (
  '.3gp',
  '.avi',
  '.flv',
  '.m4v',
  '.mkv',
  '.mov',
  '.mp4',
  '.mpeg',
  '.mpg',
  '.mts',
  '.ogv',
  '.ts',
  '.webm',
  '.wmv',
)
_MAX_NAMED = 10  # classes in a warning
_REQUIRED_COLUMNS = ('path', 'label', 'split')
_SHARD = re.compile(rf'(\w+)-(\d{{5}})-of-(\d{{5}}){re.escape(records.SUFFIX)}')


@dataclasses.dataclass(frozen=True)
class Source:
  """Labeled videos in random access; stateless and picklable.

  Attributes:
    labels: the classes' names; an example's label is an index into them.
    examples: the videos: a tuple, or what reads them of files when asked for.
  """

  labels: tuple[str, ...]
  examples: Sequence[Example]

  def __len__(self) -> int:
    return len(self.examples)

  def __getitem__(self, index: int) -> Example:
    return self.examples[index]

  def names(self) -> Iterator[str]:
    """Yields what tells these videos from others, without reading them.

    Those are their ids, of record files the files' names and sizes.
    """
    if isinstance(self.examples, tuple):
      yield from (example.id for example in self.examples)
    else:
      yield from self.examples.file_names()


@dataclasses.dataclass(frozen=True)
class Listing:
  """The videos that a directory of plain files names.

  Attributes:
    labels: the classes' names.
    splits: the videos of every split that has any. Files may be missing.
    directory: the folder that the videos' ids start from.
  """

  labels: tuple[str, ...]
  splits: Mapping[str, tuple[Example, ...]]
  directory: str


def open_source(directory: str | os.PathLike, split: str) -> Source:
  """Opens a split of a data set.

  Args:
    directory: what docs/data.md describes: a directory, a CSV file or
      'tfds:NAME'.
    split: 'train', 'val' or 'test'.

  Returns:
    The split's videos, at least one. Of plain files, classes that have none for
    training are named in a warning.

  Raises:
    UserError: nothing usable is there, or some of it is missing.
  """
  if os.fspath(directory).startswith(tfds_source.PREFIX):
    return Source(*tfds_source.open_split(os.fspath(directory), split))
  path = _existing(directory)
  if path.is_dir() and any(path.glob(f'*{records.SUFFIX}')):
    return _open_records(path, split)
  listing = list_videos(path)
  _check_split(split, listing.splits, path)
  examples = listing.splits[split]
  missing = [e.video for e in examples if not os.path.isfile(e.video)]
  if missing:
    raise UserError(
      f'{len(missing)} of {len(examples)} videos of split {split!r} that '
      f'{path} names do not exist, the first is {missing[0]}. Put them there, '
      'remove their rows, or make records with data.folder.prepare, which '
      'leaves them out.'
    )
  if split == 'train':
    trained = {listing.labels[example.label] for example in examples}
    warn_of_untrained(listing.labels, trained, path)
  return Source(listing.labels, examples)


def warn_of_untrained(
  labels: Sequence[str], trained: Container[str], where: object
) -> None:
  """Logs a warning that names the classes without a video for training.

  Args:
    labels: the classes' names.
    trained: those that have videos for training.
    where: the data set, as the user knows it.
  """
  missing = [label for label in labels if label not in trained]
  if missing:
    more = len(missing) - _MAX_NAMED
    logging.warning(
      '%s: %d of %d classes have no training video and cannot be learned: %s%s',
      where,
      len(missing),
      len(labels),
      ', '.join(missing[:_MAX_NAMED]),
      f' and {more} more' if more > 0 else '',
    )


def list_videos(directory: str | os.PathLike) -> Listing:
  """Lists the videos of a directory of plain files, in a fixed order.

  Args:
    directory: what docs/data.md describes, or a CSV file; not records.

  Returns:
    The videos of every split; whether the files exist is not checked.

  Raises:
    UserError: there is no such directory, no video in it, or a mistake in the
      CSV file.
  """
  path = _existing(directory)
  if path.is_file() or (path / CSV_NAME).is_file():
    return _list_csv(path if path.is_file() else path / CSV_NAME)
  by_split = {split: _class_folders(path / split, path) for split in SPLITS}
  if not any(by_split.values()):
    by_split = _divide_classes(_class_folders(path, path))
  labels = tuple(sorted({name for of in by_split.values() for name in of}))
  if not labels:
    raise UserError(
      f'{path} holds no videos: expected are record files, a {CSV_NAME}, or '
      'folders CLASS/VIDEO or SPLIT/CLASS/VIDEO (docs/data.md).'
    )
  numbers = number_labels(labels, path)
  splits = {
    split: tuple(
      Example(_decoded(video), numbers[name], str(path / video))
      for name, videos in classes.items()
      for video in videos
    )
    for split, classes in by_split.items()
  }
  labels = tuple(map(_decoded, labels))
  return Listing(labels, {k: v for k, v in splits.items() if v}, str(path))


def number_labels(
  labels: Sequence[str], path: str | os.PathLike
) -> dict[str, int]:
  """Returns the classes' numbers.

  Args:
    labels: the classes' names.
    path: the file or folder that names them, for messages.

  Raises:
    UserError: a name cannot stand in a line of labels.txt, or stands twice.
  """
  numbers = {}
  for name in labels:
    if name.splitlines() != [name.strip()]:
      raise UserError(
        f'{path} names the class {name!r}. The name of a class must be one '
        'line without blanks at its ends: rename it.'
      )
    if name in numbers:
      raise UserError(f'{path} names the class {name!r} twice: remove one.')
    numbers[name] = len(numbers)
  return numbers


def _decoded(name: str) -> str:
  """Returns a file's name with bytes that are not UTF-8 written out: \\xe9."""
  return os.fsencode(name).decode('utf-8', 'backslashreplace')


def _existing(directory: str | os.PathLike) -> pathlib.Path:
  if not os.fspath(directory):
    raise UserError('No data is named: give --config.data.dir=DIR.')
  path = locations.local_path(directory)
  if not path.exists():
    raise UserError(f'There is no data at {path}: no such file or directory.')
  return path


def _check_split(split: str, splits: Mapping, path: pathlib.Path):
  if split not in splits:
    raise UserError(
      f'{path} has no videos of split {split!r}; it has: '
      f'{", ".join(sorted(splits))}.'
    )


def _open_records(path: pathlib.Path, split: str) -> Source:
  shards = collections.defaultdict(dict)
  for file in path.iterdir():
    if match := _SHARD.fullmatch(file.name):
      name, number, count = match[1], int(match[2]), int(match[3])
      shards[name].setdefault(count, {})[number] = file
  _check_split(split, shards, path)
  if len(shards[split]) > 1:
    raise UserError(
      f'{path} holds records of split {split!r} in {sorted(shards[split])} '
      'files, of more than one preparation. Delete those that are not wanted.'
    )
  ((count, files),) = shards[split].items()
  missing = sorted(set(range(count)) - set(files))
  if missing or not (path / LABELS_NAME).is_file():
    absent = [records.shard_name(split, number, count) for number in missing]
    raise UserError(
      f'{path} is not complete: {(absent or [LABELS_NAME])[0]} is missing. '
      'Prepare the data again: only missing files are made.'
    )
  reader = records.Reader([files[number] for number in sorted(files)])
  if not len(reader):
    raise UserError(
      f'The records of split {split!r} in {path} are empty: no video could be '
      'read when they were made.'
    )
  return Source(_read_labels(path / LABELS_NAME), reader)


def _read_labels(path: pathlib.Path) -> tuple[str, ...]:
  try:
    lines = path.read_text('utf-8').splitlines()
  except UnicodeDecodeError as error:
    raise UserError(f'{path} is not UTF-8: {error}. Save it as such.') from None
  return tuple(line.strip() for line in lines if line.strip())


def _class_folders(
  folder: pathlib.Path, root: pathlib.Path
) -> dict[str, list[str]]:
  """Returns the videos, named from `root` on, of each subfolder with any."""
  if not folder.is_dir():
    return {}
  classes = {}
  for subfolder in sorted(folder.iterdir()):
    videos = [
      file.relative_to(root).as_posix()
      for file in sorted(subfolder.rglob('*'))
      if file.suffix.lower() in VIDEO_SUFFIXES and file.name[0] != '.'
    ]
    if videos:
      classes[subfolder.name] = videos
  return classes


def _divide_classes(
  classes: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, list[str]]]:
  divided = {name: _divide(videos) for name, videos in classes.items()}
  return {
    split: {name: of[split] for name, of in divided.items()} for split in SPLITS
  }


def _divide(videos: Sequence[str]) -> dict[str, list[str]]:
  """Divides a class's videos 80 : 10 : 10, with at least one in each split.

  A video's place follows from its name alone, so that another video more moves
  hardly any of the others. Fewer than three videos are all for training.
  """
  if len(videos) < 3:
    return {'train': list(videos), 'val': [], 'test': []}
  splits = {split: [] for split in SPLITS}
  for place, video in sorted((_place(video), video) for video in videos):
    split = 'train' if place < 0.8 else 'val' if place < 0.9 else 'test'
    splits[split].append(video)
  for split in SPLITS:
    if not splits[split]:
      largest = max(splits.values(), key=len)
      splits[split].append(largest.pop(0 if split == 'train' else -1))
  return {split: sorted(chosen) for split, chosen in splits.items()}


def _place(name: str) -> float:
  """Returns a number in [0, 1), the same on every machine."""
  digest = hashlib.sha256(os.fsencode(name)).digest()
  return int.from_bytes(digest[:6]) / 2**48


def _list_csv(path: pathlib.Path) -> Listing:
  rows = tables.read(path, _REQUIRED_COLUMNS)
  labels_path = path.parent / LABELS_NAME
  if labels_path.is_file():
    labels = _read_labels(labels_path)
  else:
    labels = tuple(sorted({row['label'] for _, row in rows}))
    labels_path = path
  numbers = number_labels(labels, labels_path)
  clips_of = collections.Counter(row['path'] for _, row in rows)
  splits = {split: [] for split in SPLITS}
  line_of = {}
  for line, row in rows:
    where = f'{path}, line {line}'
    if row['label'] not in numbers:
      raise UserError(
        f'{where}: the label {row["label"]!r} is not in {labels_path}.'
      )
    if row['split'] not in SPLITS:
      raise UserError(
        f'{where}: unknown split {row["split"]!r}; allowed: '
        f'{", ".join(SPLITS)}.'
      )
    start, end = _seconds(row, where)
    clip = (os.path.normpath(row['path']), start or 0.0, end)
    if clip in line_of:
      raise UserError(
        f'{where}: {row["path"]!r} is there already, in line {line_of[clip]}. '
        'Remove one, or tell the clips apart by start and end.'
      )
    line_of[clip] = line
    splits[row['split']].append(
      Example(
        _clip_id(row['path'], start, end)
        if clips_of[row['path']] > 1
        else row['path'],
        numbers[row['label']],
        str(path.parent / row['path']),
        start,
        end,
      )
    )
  splits = {k: tuple(v) for k, v in splits.items() if v}
  return Listing(labels, splits, str(path.parent))


def _seconds(
  row: Mapping[str, str], where: str
) -> tuple[float | None, float | None]:
  texts = row.get('start', ''), row.get('end', '')
  try:
    start, end = (float(text) if text else None for text in texts)
    valid = 0 <= (start or 0) < (math.inf if end is None else end)
  except ValueError:
    valid = False
  if not valid:
    raise UserError(
      f'{where}: start {texts[0]!r} and end {texts[1]!r} must be seconds with '
      '0 ≤ start < end, or empty.'
    )
  return start, end


def _clip_id(path: str, start: float | None, end: float | None) -> str:
  return f'{path}#{start or 0.0}-{"" if end is None else end}'
