"""Makes record files of UCF-101.

  mtnet prepare ucf101 --videos=DIR --annotations=DIR --out=DIR

The videos show actions from YouTube. Three official divisions keep the videos
of a group, which show the same person or place, in one split.
Source: K. Soomro, A. R. Zamir and M. Shah, UCF101: A dataset of 101 human
actions classes from videos in the wild, CRCV-TR-12-01, 2012.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence

from mtnet_jax import cli
from mtnet_jax.data import annotations, prepare_command
from mtnet_jax.data.annotations import Clip
from mtnet_jax.data.sources import Listing
from mtnet_jax.errors import UserError

NUM_SPLITS = 3

_MEANING = "UCF-101's lists, ucfTrainTestlist"
_CLASSES = 'classInd.txt'
_CLASS = r'(?P<number>\d+)\s+(?P<name>\S+)'
_LINE = r'(?P<folder>[^/\s]+)/(?P<name>[^/\s]+)\.\w+(\s+(?P<number>\d+))?'
_EXAMPLE = 'ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1'


def list_videos(
  videos: str | os.PathLike, lists: str | os.PathLike, split: int = 1
) -> Listing:
  """Lists the videos of an official division.

  Args:
    videos: holds files such as `Archery/v_Archery_g01_c01.avi`, at any depth.
    lists: holds `classInd.txt`, `trainlist01.txt`, `testlist01.txt` and so on.
    split: which division, 1 to 3.

  Returns:
    'train' and 'test'. The classes are in the order of `classInd.txt`.

  Raises:
    UserError: the lists are not there or cannot be read, or no video is there.
  """
  names = {part: f'{part}list{split:02}.txt' for part in ('train', 'test')}
  lists = annotations.check_folder(lists, (_CLASSES, *names.values()), _MEANING)
  labels = annotations.read_classes(lists / _CLASSES, _CLASS, '1 Archery')
  clips = {part: _read(lists / name, labels) for part, name in names.items()}
  return annotations.list_clips(videos, labels, clips)


def _read(path: pathlib.Path, labels: Sequence[str]) -> Iterator[Clip]:
  numbers = {label.casefold(): i for i, label in enumerate(labels)}
  for where, line in annotations.read_lines(path, _LINE, _EXAMPLE):
    folder, name = line['folder'], line['name']
    number = numbers.get(folder.casefold())  # HandStandPushups as well
    # Numbers start at 1; lists for the test have none.
    if number is None or line['number'] not in ('', str(number + 1)):
      given = f'{folder} {line["number"]}'.strip()
      raise UserError(
        f'{where}: the class {given!r} is not in {path.parent / _CLASSES}.'
      )
    yield Clip(f'{folder}/{name}', labels[number], _spellings(name), (folder,))


def _spellings(name: str) -> tuple[str, ...]:
  """Returns a file's name as it may be spelled.

  Officially one class is HandstandPushups, but HandStandPushups in its files'
  names; some copies of the files or of the lists have mended that.
  """
  mended = name.replace('HandStand', 'Handstand')
  return name, mended, mended.replace('Handstand', 'HandStand')


COMMAND = prepare_command.make(
  lambda values: list_videos(values.videos, values.annotations, values.split),
  videos='Folder that holds the videos.',
  annotations='Folder ucfTrainTestlist.',
  define_flags=lambda values: prepare_command.define_split(values, NUM_SPLITS),
)

if __name__ == '__main__':
  cli.run(COMMAND)
