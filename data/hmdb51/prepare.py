"""Makes record files of HMDB-51.

  mtnet prepare hmdb51 --videos=DIR --annotations=DIR --out=DIR

The videos show movements from movies and the web. Three official divisions have
70 videos of a class for training and 30 for the test.
Source: H. Kuehne, H. Jhuang, E. Garrote, T. Poggio and T. Serre, HMDB: A large
video database for human motion recognition, ICCV 2011.
"""

import os

from mtnet_jax import cli
from mtnet_jax.data import annotations, prepare_command
from mtnet_jax.data.annotations import Clip
from mtnet_jax.data.sources import Listing

NUM_SPLITS = 3

_MEANING = "HMDB-51's lists, testTrainMulti_7030_splits"
_LINE = r'(?P<file>\S.*?)\s+(?P<use>[012])'
_EXAMPLE = 'FILE.avi 1'
_USES = {'1': 'train', '2': 'test'}  # 0: in neither


def list_videos(
  videos: str | os.PathLike, lists: str | os.PathLike, split: int = 1
) -> Listing:
  """Lists the videos of an official division.

  Args:
    videos: holds files such as `brush_hair/NAME.avi`, at any depth.
    lists: holds `brush_hair_test_split1.txt` and so on.
    split: which division, 1 to 3.

  Returns:
    'train' and 'test'. The classes are in the order of their names.

  Raises:
    UserError: the lists are not there or cannot be read, or no video is there.
  """
  lists = annotations.check_folder(lists, (), _MEANING)
  ending = f'_test_split{split}.txt'
  labels = sorted(
    path.name.removesuffix(ending) for path in lists.glob(f'[!.]*{ending}')
  )
  if not labels:
    raise annotations.wrong_folder(lists, f'CLASS{ending}', _MEANING)
  clips = {'train': [], 'test': []}
  for label in labels:
    path = lists / f'{label}{ending}'
    for _, line in annotations.read_lines(path, _LINE, _EXAMPLE):
      if line['use'] in _USES:
        name = os.path.splitext(line['file'])[0]
        clip = Clip(f'{label}/{line["file"]}', label, (name,), (label,))
        clips[_USES[line['use']]].append(clip)
  return annotations.list_clips(videos, labels, clips)


COMMAND = prepare_command.make(
  lambda values: list_videos(values.videos, values.annotations, values.split),
  videos='Folder that holds the videos.',
  annotations='Folder testTrainMulti_7030_splits.',
  define_flags=lambda values: prepare_command.define_split(values, NUM_SPLITS),
)

if __name__ == '__main__':
  cli.run(COMMAND)
