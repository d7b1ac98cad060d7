"""Codes videos frame by frame, in files as TensorFlow Datasets builds them.

From such a video only the frames of the clip are read. From a video file the
frames between them are decoded too, so that four frames cost nearly as much as
sixteen.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Sequence

import cv2
from array_record.python import array_record_module

from mtnet_jax.data import batches, sources

# TFDS's name of our splits, where it is another.
_SPLITS = {'val': 'validation'}
_KIND = 'tensorflow_datasets.core.features.{}_feature.{}'


def write(data: str, splits: Sequence[str], folder: pathlib.Path) -> str:
  """Codes each frame of a data set as JPEG, unless that is done already.

  Args:
    data: the videos, as `config.data.dir` names them.
    splits: which of them.
    folder: a folder, which is made.

  Returns:
    The new data set, as `config.data.dir` names it.
  """
  name = f'tfds:{folder.resolve()}'
  if folder.exists():
    return name
  unfinished = folder.with_name(f'{folder.name}.unfinished')
  shutil.rmtree(unfinished, ignore_errors=True)
  unfinished.mkdir(parents=True)
  found = {split: sources.open_source(data, split) for split in splits}
  for split, source in found.items():
    file = f'frames-{_SPLITS.get(split, split)}.array_record-00000-of-00001'
    writer = array_record_module.ArrayRecordWriter(
      str(unfinished / file), 'group_size:1'
    )
    for example in source:
      writer.write(_record(_frames(example), example.label))
    writer.close()
  sizes = {split: len(source) for split, source in found.items()}
  _describe(unfinished, source.labels, sizes)
  os.rename(unfinished, folder)
  return name


def _frames(example):
  with batches.open_clip(example) as video:
    images = video.read(range(video.num_frames))
  return [
    cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    for image in images
  ]


def _describe(folder, labels, sizes):
  splits = [
    {'name': _SPLITS.get(split, split), 'shardLengths': [str(size)]}
    for split, size in sizes.items()
  ]
  info = {'fileFormat': 'array_record', 'name': 'frames', 'splits': splits}
  kinds = {
    'label': _KIND.format('class_label', 'ClassLabel'),
    'video': _KIND.format('video', 'Video'),
  }
  features = {name: {'pythonClassName': kind} for name, kind in kinds.items()}
  files = {
    'dataset_info.json': json.dumps(info),
    'features.json': json.dumps({'featuresDict': {'features': features}}),
    'label.labels.txt': '\n'.join(labels),
  }
  for file, text in files.items():
    (folder / file).write_text(text)


# A tf.train.Example, by protobuf's rules.


def _record(frames, label):
  video = _field(1, b''.join(_field(1, frame) for frame in frames))
  number = _field(3, _field(1, _varint(label)))
  entries = [
    _field(1, _field(1, name) + _field(2, feature))
    for name, feature in ((b'video', video), (b'label', number))
  ]
  return _field(1, b''.join(entries))


def _field(number, contents):
  return _varint(number << 3 | 2) + _varint(len(contents)) + contents


def _varint(value):
  low, rest = value & 127, value >> 7
  return bytes([low | 128]) + _varint(rest) if rest else bytes([low])
