"""A directory as a sequence of labeled videos.

docs/data.md says what a directory may be: record files, a `clips.csv`, or
folders of classes and splits.
"""

import collections
import dataclasses
import json
import numbers
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from absl import logging

from mtnet_jax import locations
from mtnet_jax.data import (
  class_folders,
  class_names,
  clip_lists,
  dividing,
  folders,
  frame_folders,
  records,
  shared_videos,
  tfds_source,
)
from mtnet_jax.data.class_folders import Divided
from mtnet_jax.data.class_names import LABELS_NAME
from mtnet_jax.data.dividing import SPLITS
from mtnet_jax.data.records import Example
from mtnet_jax.errors import UserError

CSV_NAME = 'clips.csv'
MANIFEST_NAME = 'manifest.json'

_SHARD = re.compile(rf'(\w+)-(\d{{5}})-of-(\d{{5}}){re.escape(records.SUFFIX)}')
# The errors of JSON that is no manifest.
_ILL_FORMED = (AttributeError, LookupError, TypeError, ValueError)


class MissingSplitError(UserError):
  """The data has no videos of the split that was asked for."""


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
    """Returns a video.

    Raises:
      VideoError: its record cannot be read.
      UserError: its label is no class's number.
    """
    example = self.examples[index]
    label, count = example.label, len(self.labels)
    if not isinstance(label, numbers.Integral) or not 0 <= label < count:
      raise UserError(
        f'The video {example.id!r} has the label {label!r}, and there are '
        f'{count} classes, numbered from 0 to {count - 1}. Prepare the records '
        f'again, or bring back the {LABELS_NAME} that was made with them.'
      )
    return example

  def names(self) -> Iterator[str]:
    """Yields names that identify these videos, without reading them.

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


def open_source(
  directory: str | os.PathLike, split: str, fps: float | None = None
) -> Source:
  """Opens a split of a data set.

  Args:
    directory: a data set as in docs/data.md: a directory, a CSV file or
      'tfds:NAME'.
    split: 'train', 'val' or 'test'.
    fps: see `list_videos`.

  Returns:
    The split's videos, at least one. Of plain files, classes that have none for
    training are named in a warning.

  Raises:
    UserError: nothing usable is there, or some of it is missing.
  """
  if os.fspath(directory).startswith(tfds_source.PREFIX):
    source = Source(*tfds_source.open_split(os.fspath(directory), split))
    _tell(source, directory, split, {})
    return source
  path = _existing(directory)
  if path.is_dir() and any(path.glob(f'[!.]*{records.SUFFIX}')):
    return _open_records(path, split)
  listing = list_videos(path, fps)
  _check_split(split, listing.splits, path)
  examples = listing.splits[split]
  missing = [e.video for e in examples if not _is_there(e.video)]
  if missing:
    raise UserError(
      f'{len(missing)} of {len(examples)} videos of split {split!r} that '
      f'{path} names do not exist: {", ".join(missing[:3])}. Put them there, '
      'remove their rows, or make records with mtnet prepare folder, which '
      'leaves them out.'
    )
  source = Source(listing.labels, examples)
  counts = collections.Counter(listing.labels[e.label] for e in examples)
  _tell(source, path, split, counts)
  if split == 'train':
    class_names.warn_of_untrained(listing.labels, counts, path)
    stats = shared_videos.look_at_files(listing.splits)
    shared_videos.warn(listing.splits, stats, path)
  return source


def count_videos(
  source: Source, directory: str | os.PathLike, split: str
) -> dict[str, int]:
  """Counts the videos of each class, without reading them.

  Args:
    source: the split's videos, from `open_source`.
    directory: the data set that the source was opened from.
    split: the split's name.

  Returns:
    The numbers by class, of plain files and of records with a manifest.json;
    nothing where they are not known.

  Raises:
    UserError: the manifest.json is damaged, or of other records.
  """
  if isinstance(source.examples, tuple):
    found = collections.Counter(source.labels[e.label] for e in source.examples)
    return dict.fromkeys(source.labels, 0) | found
  path = pathlib.Path(directory) / MANIFEST_NAME
  if not path.is_file():
    return {}
  try:
    shown = _read_manifest(path)['splits'][split]['classes']
    counts = {str(name): int(count) for name, count in shown.items()}
  except (OSError, *_ILL_FORMED) as error:
    raise UserError(
      f'{path} is damaged, or belongs to other records: {error!r}. Delete it; '
      'classes are then counted over the videos that are looked at.'
    ) from error
  return dict.fromkeys(source.labels, 0) | counts


def relabel(source: Source, labels: Sequence[str]) -> Source:
  """Numbers the classes of a source as in another list.

  Args:
    source: the videos.
    labels: the names of classes, those of the source among them.
  """
  number_of = {name: number for number, name in enumerate(labels)}
  numbers = tuple(number_of[name] for name in source.labels)
  return Source(tuple(labels), _Relabeled(source, numbers))


@dataclasses.dataclass(frozen=True)
class _Relabeled(Sequence[Example]):
  """A source whose labels are the classes' numbers in another list."""

  source: Source
  numbers: tuple[int, ...]

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Example:
    example = self.source[index]
    return dataclasses.replace(example, label=self.numbers[example.label])


def _tell(
  source: Source,
  where: str | os.PathLike,
  split: str,
  counts: Mapping[str, int],
) -> None:
  class_names.tell_videos(where, split, source.labels, counts)
  class_names.warn_of_look_alikes(source.labels, where)


def list_videos(
  directory: str | os.PathLike, fps: float | None = None
) -> Listing:
  """Lists the videos of a directory of plain files, in a fixed order.

  Args:
    directory: a data set as in docs/data.md, or a CSV file; not records.
    fps: images per second of videos that are folders of images, where a CSV
      file does not say it; None: it is not known.

  Returns:
    The videos of every split; whether the files exist is not checked.

  Raises:
    UserError: there is no such directory, no video in it, or a mistake in the
      CSV file.
  """
  if fps is not None:
    frame_folders.check_rate(fps, 'data.frames_per_second')
  path = _existing(directory)
  if path.is_file() or (path / CSV_NAME).is_file():
    path = path if path.is_file() else path / CSV_NAME
    return Listing(*clip_lists.read(path, fps), str(path.parent))
  classes = _divide_classes(_find_classes(path))
  labels_path = path / LABELS_NAME
  labels = class_names.read(labels_path) if labels_path.is_file() else ()
  if not labels:
    found = {name for of in classes.values() for name in of}
    labels = tuple(map(folders.decoded, sorted(found)))
  number_of = class_names.number_labels(labels, path)
  splits = {
    split: tuple(
      Example(
        folders.decoded(video),
        number_of[folders.decoded(name)],
        str(path / video),
        fps=fps,
      )
      for name, videos in of_split.items()
      for video in videos
    )
    for split, of_split in classes.items()
  }
  return Listing(labels, {k: v for k, v in splits.items() if v}, str(path))


def _find_classes(path: pathlib.Path) -> Divided:
  """Returns the videos of a folder by split, or '' for none, and class."""
  contents = folders.search(path, known=(LABELS_NAME,))
  contents.check_readable()
  if () in contents.frame_folders:
    raise UserError(
      f'{path} is a folder of numbered images, that is one video. Give the '
      'folder that the folders of classes are in, CLASS/VIDEO/IMAGE.'
    )
  labels_path, left_out = path / LABELS_NAME, contents.left_out
  labels = class_names.read(labels_path) if labels_path.is_file() else ()
  divided = class_folders.divide(path, contents.videos, labels, left_out)
  if not divided:
    raise UserError(
      f'{path} holds no videos: expected are record files, a {CSV_NAME}, or '
      'folders CLASS/VIDEO or SPLIT/CLASS/VIDEO, where a video may be a folder '
      'of numbered images (docs/data.md).'
      + (f' Left out are {left_out.describe()}.' if left_out else '')
    )
  contents.tell(path)
  return divided


def _is_there(video: str) -> bool:
  """Returns whether there is a file, or a folder, which may hold images."""
  return os.path.isfile(video) or os.path.isdir(video)


def _existing(directory: str | os.PathLike) -> pathlib.Path:
  if not os.fspath(directory):
    raise UserError('No data set is given: give --config.data.dir=DIR.')
  path = locations.local_path(directory)
  if not path.exists():
    raise UserError(f'There is no data at {path}: no such file or directory.')
  return path


def _check_split(split: str, splits: Mapping, path: pathlib.Path):
  if split not in splits:
    raise MissingSplitError(
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
  ((count, of_split),) = shards[split].items()
  missing = sorted(set(range(count)) - set(of_split))
  if missing or not (path / LABELS_NAME).is_file():
    absent = [records.shard_name(split, number, count) for number in missing]
    raise UserError(
      f'{path} is not complete: {(absent or [LABELS_NAME])[0]} is missing. '
      'Prepare the data again: only missing files are made.'
    )
  reader = records.Reader([of_split[number] for number in sorted(of_split)])
  if not len(reader):
    raise UserError(
      f'The records of split {split!r} in {path} are empty: no video could be '
      'read when they were made.'
    )
  source = Source(class_names.read(path / LABELS_NAME), reader)
  _check_labels(source.labels, path)
  try:
    counts = count_videos(source, path, split)
  except UserError as error:
    logging.warning('%s', error)
    counts = {}
  _tell(source, path, split, counts)
  return source


def _check_labels(labels: Sequence[str], path: pathlib.Path):
  """Raises a UserError unless `labels.txt` belongs to the records."""
  try:
    written = tuple(map(str, _read_manifest(path / MANIFEST_NAME)['labels']))
  except (OSError, *_ILL_FORMED):
    return  # nothing to compare with
  if labels != written:
    raise UserError(
      f'{path / LABELS_NAME} is not the one that was made with the records: it '
      f'names {len(labels)} classes, {MANIFEST_NAME} {len(written)}, '
      f'{class_names.differences(written, labels)}. The labels of the records '
      f'are numbers of its lines: write the "labels" of {MANIFEST_NAME} into '
      'it again, one a line.'
    )


def _read_manifest(path: pathlib.Path) -> dict:
  return json.loads(path.read_text('utf-8'))


def _divide_classes(divided: Divided) -> Divided:
  """Returns the splits, of videos without one too."""
  if '' not in divided:
    return divided
  parts = {
    name: dividing.divide(videos) for name, videos in divided[''].items()
  }
  return {
    split: {name: of[split] for name, of in parts.items()} for split in SPLITS
  }
