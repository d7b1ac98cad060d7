"""Makes record files of UT-Interaction's segmented videos.

  mtnet prepare ut_interaction --videos=DIR --out=DIR

The videos show six interactions of two people and were filmed in two places:
set 1 (sequences 1 to 10, a parking lot) is for training and set 2 (11 to 20, a
lawn) for the test.
Source: M. S. Ryoo and J. K. Aggarwal, UT-Interaction Dataset, ICPR contest on
Semantic Description of Human Activities, 2010.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

from absl import flags, logging

from mtnet_jax import cli
from mtnet_jax.data import folders, prepare_command, tables
from mtnet_jax.data.records import Example
from mtnet_jax.data.sources import Listing
from mtnet_jax.errors import UserError

# By the number that the official file names give them.
CLASSES = ('shake_hands', 'hug', 'kick', 'point', 'punch', 'push')
LABELS = tuple(sorted(CLASSES))
NUM_CLIPS = 120

_CSV_NAME = 'clips.csv'
_COLUMNS = ('path', 'label', 'set', 'sequence')
_OFFICIAL_NAME = re.compile(r'(\d+)_(\d+)_(\d+)\.avi')
_SEQUENCES = {1: range(1, 11), 2: range(11, 21)}  # by set


@dataclasses.dataclass(frozen=True)
class _Clip:
  """One file: its path from the directory on, and what it shows."""

  path: str
  label: str
  sequence: int


def list_clips(
  directory: str | os.PathLike, validation: Sequence[int] = ()
) -> Listing:
  """Lists the clips with their splits.

  Args:
    directory: holds `clips.csv` with the columns `path,label,set,sequence`, or,
      at any depth, the official files `NUMBER_SEQUENCE_CLASS.avi`.
    validation: sequences of set 1 that are for validation, 1 to 10. If there
      are any, set 2 is left out: choices must not be made by looking at it.

  Returns:
    'train' and 'test', or 'train' and 'val'; clips of other classes are left
    out.

  Raises:
    UserError: there are no clips, a mistake in the CSV file, or a split without
      clips.
  """
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    raise UserError(f'There is no folder --videos={directory}.')
  strange = sorted(set(validation) - set(_SEQUENCES[1]))
  if strange:
    raise UserError(
      f'--validation names sequence {strange[0]}; set 1 has 1 to 10.'
    )
  if (directory / _CSV_NAME).is_file():
    clips = _read_csv(directory / _CSV_NAME)
  else:
    clips = _find_official(directory)
  known = [clip for clip in clips if clip.label in CLASSES]
  logging.info(
    '%s: %d clips of %d; %d of other classes are left out',
    directory,
    len(known),
    NUM_CLIPS,
    len(clips) - len(known),
  )
  splits = _divide(known, directory, validation)
  for split, examples in splits.items():
    if not examples:
      raise UserError(
        f'--videos={directory} has no clips for split {split!r}. Expected are '
        f'{_CSV_NAME}, or the official files, such as 0_1_4.avi, of both sets.'
      )
  return Listing(LABELS, splits, str(directory))


def _divide(
  clips: Sequence[_Clip], directory: pathlib.Path, validation: Sequence[int]
) -> dict[str, tuple[Example, ...]]:
  """Returns the splits; `list_clips` tells which."""
  sequences = {'train': set(_SEQUENCES[1]) - set(validation)}
  if validation:
    sequences['val'] = set(validation)
  else:
    sequences['test'] = set(_SEQUENCES[2])
  return {
    split: tuple(
      Example(clip.path, LABELS.index(clip.label), str(directory / clip.path))
      for clip in clips
      if clip.sequence in chosen
    )
    for split, chosen in sequences.items()
  }


def _read_csv(path: pathlib.Path) -> list[_Clip]:
  clips = []
  for line, row in tables.read(path, _COLUMNS):
    try:
      sequence = int(row['sequence'])
      exists = sequence in _SEQUENCES.get(int(row['set']), ())
    except ValueError:
      exists = False
    if not exists:
      raise UserError(
        f'{path}, line {line}: there is no set {row["set"]!r} with a sequence '
        f'{row["sequence"]!r}. Set 1 has sequences 1 to 10, set 2 has 11 to 20.'
      )
    clips.append(_Clip(row['path'], row['label'], sequence))
  return clips


def _find_official(directory: pathlib.Path) -> list[_Clip]:
  clips, path_of = [], {}
  contents = folders.search(directory)
  contents.check_readable()
  contents.tell(directory)
  for path in (directory.joinpath(*place) for place in contents.videos):
    match = _OFFICIAL_NAME.fullmatch(path.name)
    if not match:
      continue
    if path.name in path_of:
      raise UserError(
        f'--videos={directory} holds {path.name} twice: {path_of[path.name]} '
        f'and {path}. Remove one.'
      )
    path_of[path.name] = path
    _, sequence, number = map(int, match.groups())
    if not 1 <= sequence <= 20:
      raise UserError(
        f'{path} names sequence {sequence}; there are 1 to 20. Remove it.'
      )
    label = CLASSES[number] if number < len(CLASSES) else f'class {number}'
    path_from_directory = path.relative_to(directory).as_posix()
    clips.append(_Clip(path_from_directory, label, sequence))
  return clips


def _list(values: flags.FlagValues) -> Listing:
  try:
    validation = [int(number) for number in values.validation]
  except ValueError:
    raise UserError(
      f'--validation={",".join(values.validation)} must be numbers of '
      'sequences, such as 9,10.'
    ) from None
  return list_clips(values.videos, validation)


def _define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_list(
    'validation',
    [],
    'Sequences of set 1, separated by commas, to use for validation; set 2 is '
    'then left out. Without it all of set 1 is for training and set 2 for the '
    'test.',
    flag_values=values,
  )


COMMAND = prepare_command.make(
  _list,
  videos='Folder that holds the clips.',
  define_flags=_define_flags,
)

if __name__ == '__main__':
  cli.run(COMMAND)
