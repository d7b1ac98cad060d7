r"""Makes record files of Moments in Time.

  mtnet prepare moments_in_time --videos=DIR --annotations=DIR \
    --out=DIR

A video shows three seconds of people, animals, things or nature.
Source: M. Monfort et al., Moments in Time dataset: one million videos for event
understanding, PAMI, 2019.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence

from mtnet_jax import cli
from mtnet_jax.data import annotations, prepare_command
from mtnet_jax.data.annotations import Clip
from mtnet_jax.data.sources import Listing
from mtnet_jax.errors import UserError

_MEANING = "Moments in Time's lists"
_CLASSES = 'moments_categories.txt'
_CLASS = r'(?P<name>\S.*?)\s*,\s*(?P<number>\d+)'
# The last two are how many people agreed and disagreed with the label.
_LINE = r'(?P<path>.*?(?P<name>[^/]+)\.\w+),(?P<label>[^,]+),\d+,\d+'
_EXAMPLE = 'dancing/yt-5of6ffo6-Bw_205.mp4,dancing,3,0'
_LISTS = {  # by split: the list, and the folder of its videos
  'train': ('trainingSet.csv', 'training'),
  'val': ('validationSet.csv', 'validation'),
}


def list_videos(videos: str | os.PathLike, lists: str | os.PathLike) -> Listing:
  """Lists the videos.

  Args:
    videos: holds files such as `training/dancing/NAME.mp4`, at any depth.
    lists: holds `trainingSet.csv`, `validationSet.csv` and
      `moments_categories.txt`.

  Returns:
    'train' and 'val'. The classes are in the order of their numbers.

  Raises:
    UserError: the lists are not there or cannot be read, or no video is there.
  """
  needed = (_CLASSES, *(name for name, _ in _LISTS.values()))
  lists = annotations.check_folder(lists, needed, _MEANING)
  labels = annotations.read_classes(lists / _CLASSES, _CLASS, 'dancing,71')
  clips = {
    split: _read(lists / name, folder, labels)
    for split, (name, folder) in _LISTS.items()
  }
  return annotations.list_clips(videos, labels, clips)


def _read(
  path: pathlib.Path, folder: str, labels: Sequence[str]
) -> Iterator[Clip]:
  known = set(labels)
  for where, line in annotations.read_lines(path, _LINE, _EXAMPLE):
    label, name = line['label'], line['name']
    if label not in known:
      raise UserError(
        f'{where}: the class {label!r} is not in {path.parent / _CLASSES}.'
      )
    yield Clip(f'{folder}/{line["path"]}', label, (name,), (label, folder))


COMMAND = prepare_command.make(
  lambda values: list_videos(values.videos, values.annotations),
  videos='Folder that holds the videos.',
  annotations='Folder that holds trainingSet.csv and the other lists.',
)

if __name__ == '__main__':
  cli.run(COMMAND)
