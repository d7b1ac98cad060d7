"""Reads data sets that TensorFlow Datasets has built, without TensorFlow.

TFDS codes the frames of a video one by one, as JPEG or PNG, in a list of a
`tf.train.Example`. Its own `tfds.data_source` needs TensorFlow for every data
set with a video in it, and decodes all frames. Hence its files are read here:
ArrayRecord, with `dataset_info.json` and `features.json` beside them.
"""

import copy
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from array_record.python import array_record_data_source
from jaxtyping import Float, UInt8

from mtnet_jax.data import pictures
from mtnet_jax.data.records import Example, sized_names
from mtnet_jax.data.video import VideoError
from mtnet_jax.errors import UserError

T = TypeVar('T')

PREFIX = 'tfds:'

_INFO, _FEATURES = 'dataset_info.json', 'features.json'
_SPLITS = {'val': 'validation'}  # TFDS's names, where they are not ours
# The errors that broken files of TFDS raise.
_ERRORS = (
  AttributeError,
  LookupError,
  OSError,
  RuntimeError,
  TypeError,
  ValueError,
)


class FramesReader:
  """Reads frames that are coded one by one, as `video.VideoReader` does."""

  def __init__(self, frames: Sequence[bytes], name: str = 'frames in memory'):
    """Takes the frames; nothing is decoded yet.

    Args:
      frames: JPEG or PNG files, at least one.
      name: the video's name, for messages.

    Raises:
      VideoError: there is no frame.
    """
    self._frames, self.name = frames, name
    if not frames:
      raise VideoError(name, 'there is no frame in it')

  @property
  def num_frames(self) -> int:
    """The number of frames in the video."""
    return len(self._frames)

  @property
  def fps(self) -> float:
    """Frames per second: NaN, since TFDS does not keep it."""
    return float('nan')

  @property
  def times(self) -> Float[np.ndarray, ' n_plus_1']:
    """Seconds of the frames and of the end: NaN, since TFDS keeps none."""
    return np.full(self.num_frames + 1, np.nan)

  @property
  def width(self) -> int:
    """The width of the first frame in pixels."""
    return self._decode(0).shape[1]

  @property
  def height(self) -> int:
    """The height of the first frame in pixels."""
    return self._decode(0).shape[0]

  def read(
    self, indices: Sequence[int], short_side: int | None = None
  ) -> UInt8[np.ndarray, 'n h w 3']:
    """Decodes frames.

    Args:
      indices: (n,) numbers in [0, num_frames).
      short_side: pixels. Frames are resized so that the shorter side has this
        length: bilinear, and averaging over what a pixel covers.

    Returns:
      uint8 (n, height, width, 3), RGB.

    Raises:
      VideoError: a frame cannot be decoded, or is of another size.
      IndexError: a number is outside the video.
    """
    count = self.num_frames
    if not all(0 <= i < count for i in indices):
      raise IndexError(f'Frames {indices} of {self.name}, which has {count}.')
    images = {i: self._image(i, short_side) for i in {*map(int, indices)}}
    try:
      return np.stack([images[i] for i in indices])
    except ValueError as error:
      raise VideoError(self.name, 'its frames differ in size') from error

  def close(self) -> None:
    """Does nothing: no file is open."""

  def __enter__(self) -> 'FramesReader':
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def _image(self, index: int, short_side: int | None) -> np.ndarray:
    try:
      return pictures.resize(self._decode(index), short_side)
    except ValueError as error:  # of absurd sides
      raise VideoError(self.name, str(error)) from error

  def _decode(self, index: int) -> np.ndarray:
    try:
      return pictures.decode(self._frames[index])
    except (TypeError, ValueError) as error:
      cause = f'frame {index} of {self.num_frames} cannot be decoded'
      raise VideoError(self.name, cause) from error


class Examples(Sequence[Example]):
  """A split's videos in random access, read when asked for; picklable.

  An example's `video` is a tuple of coded frames, for `FramesReader`. TFDS
  keeps no names: `id` is the place in the split, such as 'train/12'. A record
  that cannot be read raises a `VideoError`, and the others can still be.
  """

  def __init__(self, paths: Sequence[str], split: str, video: str, label: str):
    """Opens the files.

    Args:
      paths: ArrayRecord files.
      split: TFDS's name of it.
      video: the name of the feature with the frames.
      label: the name of the feature with the class's number.

    Raises:
      UserError: a file is not whole, or missing.
    """
    self._split, self._video, self._label = split, video, label
    self._paths = paths
    try:
      self._source = array_record_data_source.ArrayRecordDataSource(paths)
    except _ERRORS as error:
      raise UserError(
        f'The files from {paths[0]} on are no whole record files: {error}. '
        'Have TFDS build the data set again.'
      ) from error

  def __len__(self) -> int:
    return len(self._source)

  def file_names(self) -> list[str]:
    """Returns the names of the files, with their sizes in bytes."""
    return sized_names(self._paths)

  def __getitem__(self, index: int) -> Example:
    if not 0 <= index < len(self):
      raise IndexError(f'Video {index} of {len(self)}')
    name = f'{self._split}/{index}'
    try:
      features = _parse_example(self._source[int(index)])
      frames = tuple(features[self._video])
      (label,) = features[self._label]
    except _ERRORS as error:
      passing = isinstance(error, RuntimeError)  # of the disk, perhaps
      if passing:  # else a file that failed once would fail for ever
        self._source = copy.copy(self._source)
      raise VideoError(name, f'damaged: {error!r}', passing) from error
    return Example(name, label, frames)


def open_split(name: str, split: str) -> tuple[tuple[str, ...], Examples]:
  """Opens a split of a data set that TFDS has built.

  Args:
    name: 'tfds:NAME', 'tfds:NAME/CONFIG' or 'tfds:NAME/CONFIG/VERSION', below
      $TFDS_DATA_DIR or ~/tensorflow_datasets; or 'tfds:' and a folder's whole
      path. Left out are the only configuration, or else TFDS's default, and the
      newest version.
    split: 'train', 'val' (which TFDS calls 'validation') or 'test'.

  Returns:
    The classes' names, and the videos.

  Raises:
    UserError: the data set is not built, not as ArrayRecord, is damaged, has no
      such split, or not one video and one class an example.
  """
  folder = _find(name)
  dataset, shards = _read(folder / _INFO, _name_and_shards)
  own = _SPLITS.get(split, split)
  if own not in shards:
    raise UserError(
      f'{folder} has no videos of split {own!r}; it has: '
      f'{", ".join(sorted(shards))}.'
    )
  video, label = _video_and_label(_read(folder / _FEATURES, _kinds), folder)
  labels = _read(folder / f'{label}.labels.txt', str.splitlines)
  count = shards[own]
  stem = f'{dataset}-{own}.array_record'
  paths = [folder / f'{stem}-{i:05}-of-{count:05}' for i in range(count)]
  missing = [path for path in paths if not path.exists()]
  if missing:
    raise UserError(
      f'{missing[0]} is missing, of {count} files. Only ArrayRecord can be '
      f'read at random: {_how_to_build(name)}'
    )
  examples = Examples([*map(str, paths)], own, video, label)
  return tuple(line.strip() for line in labels if line.strip()), examples


def _find(name: str) -> pathlib.Path:
  """Returns the folder of a data set's configuration and version."""
  given = name.removeprefix(PREFIX)
  home = os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')
  folder = pathlib.Path(home).expanduser() / given  # of two paths, the second
  while given and folder.is_dir():
    if (folder / _INFO).exists():
      return folder
    below = [path for path in folder.iterdir() if path.name[0] != '.']
    versions = [path for path in below if _version(path.name)]
    if versions:
      folder = max(versions, key=lambda path: _version(path.name))
      continue
    default = folder / '.config/metadata.json'
    if len(below) == 1:
      folder = below[0]
    elif default.exists():
      folder /= _read(default, _default_configuration)
    else:
      break
  raise UserError(
    f'TFDS has not built {name}: there is no {_INFO} in {folder}. '
    f'{_how_to_build(name)}'
  )


def _version(name: str) -> tuple[int, ...]:
  """Returns the numbers of '2.0.0'; () if the name is no version."""
  parts = name.split('.')
  return tuple(map(int, parts)) if all(p.isdecimal() for p in parts) else ()


def _how_to_build(name: str) -> str:
  given = name.removeprefix(PREFIX)
  which = 'NAME' if not given or os.path.isabs(given) else given
  return (
    f'Build it with `tfds build {which} --file_format=array_record`, where '
    'TensorFlow is installed; $TFDS_DATA_DIR says where data sets are.'
  )


def _read(path: pathlib.Path, parse: Callable[[str], T]) -> T:
  """Returns what `parse` makes of a text file."""
  try:
    return parse(path.read_text('utf-8'))
  except _ERRORS as error:
    raise UserError(
      f'{path} cannot be read: {error!r}. Where it is missing or damaged, have '
      'TFDS build the data set again.'
    ) from error


def _default_configuration(text: str) -> str:
  return json.loads(text)['default_config_name']


def _name_and_shards(text: str) -> tuple[str, dict[str, int]]:
  """Returns a data set's name, and the number of files of each split."""
  info = json.loads(text)
  shards = {s['name']: len(s['shardLengths']) for s in info['splits']}
  return info['name'], shards


def _kinds(text: str) -> dict[str, str]:
  """Returns the kind of each feature, such as 'Video', by its name."""
  return {
    name: feature['pythonClassName'].rpartition('.')[2]
    for name, feature in json.loads(text)['featuresDict']['features'].items()
  }


def _video_and_label(
  kinds: Mapping[str, str], folder: pathlib.Path
) -> tuple[str, str]:
  """Returns the names of the features with the frames and with the class."""
  names = [
    [name for name, found in kinds.items() if found == kind]
    for kind in ('Video', 'ClassLabel')
  ]
  if [*map(len, names)] != [1, 1]:
    raise UserError(
      f'{folder} must have one Video and one ClassLabel an example; it has: '
      f'{", ".join(f"{name} ({kind})" for name, kind in kinds.items())}.'
    )
  return names[0][0], names[1][0]


# tf.train.Example, by the numbers of its fields in example.proto and
# feature.proto: Example {1: Features {1: an entry of a map {1: the name,
# 2: Feature {1: BytesList, 2: FloatList, 3: Int64List}}}}, and a list's values
# in 1. Everything else is skipped.


def _parse_example(record: bytes) -> dict[str, list[bytes] | list[int]]:
  """Returns the features of bytes and of integers, by name."""
  parsed = {}
  for _, features in _fields(record, 1):
    for _, entry in _fields(features, 1):
      ((_, name),) = _fields(entry, 1)
      for _, feature in _fields(entry, 2):
        for kind, values in _fields(feature, 1, 3):
          items = [value for _, value in _fields(values, 1)]
          parsed[name.decode()] = items if kind == 1 else _integers(items)
  return parsed


def _integers(items: list[bytes | int]) -> list[int]:
  """Returns integers that stand one by one, or packed together."""
  values = []
  for item in items:
    place = 0
    if isinstance(item, int):
      values.append(item)
    else:
      while place < len(item):
        value, place = _varint(item, place)
        values.append(value)
  return values


def _fields(message: bytes, *wanted: int) -> Iterator[tuple[int, bytes | int]]:
  """Yields number and contents of the wanted fields of a protobuf message."""
  place = 0
  while place < len(message):
    tag, place = _varint(message, place)
    number, kind = tag >> 3, tag & 7
    if kind == 0:
      value, place = _varint(message, place)
    elif kind == 2:
      length, place = _varint(message, place)
      value, place = message[place : place + length], place + length
    else:
      raise ValueError(f'field {number} of an unknown kind {kind}')
    if number in wanted:
      yield number, value


def _varint(message: bytes, place: int) -> tuple[int, int]:
  """Returns a number of seven bits a byte, and the place behind it."""
  value = shift = 0
  while True:
    byte = message[place]
    place += 1
    value |= (byte & 127) << shift
    shift += 7
    if byte < 128:
      return value, place
