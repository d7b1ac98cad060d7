"""Makes record files of HACS Clips.

  mtnet prepare hacs --videos=DIR --annotations=DIR --out=DIR

A clip lasts two seconds, and several come from one YouTube video. Only the
positive clips, which show their class, are used.
Source: H. Zhao, A. Torralba, L. Torresani and Z. Yan, HACS: Human action clips
and segments dataset for recognition and temporal localization, ICCV 2019.
"""

import collections
import os
import pathlib

from absl import logging

from mtnet_jax import cli
from mtnet_jax.data import annotations, prepare_command, tables
from mtnet_jax.data.annotations import Clip
from mtnet_jax.data.sources import Listing
from mtnet_jax.errors import UserError

_MEANING = 'the list of HACS Clips, HACS_v1.1.1'
_COLUMNS = ('youtube_id', 'subset', 'start', 'end')
_SPLITS = {'training': 'train', 'validation': 'val'}
_UNLABELED = 'testing'
_POSITIVE, _NEGATIVE = '1', '-1'


def list_videos(videos: str | os.PathLike, lists: str | os.PathLike) -> Listing:
  """Lists the positive clips.

  Args:
    videos: holds whole videos, such as `Archery/v_ID.mp4` or `ID.mp4`, at any
      depth.
    lists: holds `HACS_clips_v1.1.1.csv`, or that of another version.

  Returns:
    'train' and 'val'. The classes are in the order of their names.

  Raises:
    UserError: the list is not there or cannot be read, or no video is there.
  """
  lists = annotations.check_folder(lists, (), _MEANING)
  paths = sorted(lists.glob('HACS_clips_*.csv'))
  if not paths:
    raise annotations.wrong_folder(lists, 'HACS_clips_v1.1.1.csv', _MEANING)
  if len(paths) > 1:
    raise UserError(
      f'--annotations={lists} holds {paths[0].name} and {paths[1].name}: give '
      'a folder with one of them.'
    )
  clips = _read(paths[0])
  labels = sorted({clip.label for of in clips.values() for clip in of})
  if not labels:
    raise UserError(f'{paths[0]} lists no positive clip.')
  return annotations.list_clips(videos, labels, clips)


def _read(path: pathlib.Path) -> dict[str, list[Clip]]:
  clips = {split: [] for split in _SPLITS.values()}
  left_out = collections.Counter()
  for line, row in tables.read(path, _COLUMNS):
    subset, name = row['subset'], row['youtube_id']
    label, judgment = row.get('classname'), row.get('label')
    if subset == _UNLABELED or (subset in _SPLITS and judgment == _NEGATIVE):
      left_out[subset] += 1
      continue
    where = f'{path}, line {line}'
    if subset not in _SPLITS or judgment != _POSITIVE or not label:
      raise UserError(
        f'{where}: class {label!r}, subset {subset!r} and label {judgment!r}; '
        f'expected are a class, a subset of {", ".join(_SPLITS)} and '
        f'{_UNLABELED}, and a label of {_POSITIVE} and {_NEGATIVE}.'
      )
    clips[_SPLITS[subset]].append(
      Clip(
        f'{label}/{name}#{row["start"]}-{row["end"]}',
        label,
        (f'v_{name}', name),
        (label,),
        *annotations.seconds(row['start'], row['end'], where),
      )
    )
  logging.info(
    '%s: %d negative clips are left out, and %d of subset %r, which has no '
    'labels',
    path,
    sum(left_out[subset] for subset in _SPLITS),
    left_out[_UNLABELED],
    _UNLABELED,
  )
  return clips


COMMAND = prepare_command.make(
  lambda values: list_videos(values.videos, values.annotations),
  videos='Folder that holds the videos.',
  annotations='Folder that holds HACS_clips_v1.1.1.csv.',
)

if __name__ == '__main__':
  cli.run(COMMAND)
