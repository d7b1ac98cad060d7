r"""Makes record files of Kinetics-400, -700 or -700-2020.

  mtnet prepare kinetics --videos=DIR --annotations=DIR --out=DIR \
    [--trimmed]

A clip is ten seconds of a YouTube video.
Sources: W. Kay et al., The Kinetics human action video dataset, 2017;
J. Carreira, E. Noland, C. Hillier and A. Zisserman, A short note on the
Kinetics-700 human action dataset, 2019; L. Smaira et al., A short note on the
Kinetics-700-2020 human action dataset, 2020.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

from absl import flags, logging

from mtnet_jax import cli
from mtnet_jax.data import annotations, prepare_command, tables
from mtnet_jax.data.annotations import Clip
from mtnet_jax.data.batches import open_clip
from mtnet_jax.data.records import Example
from mtnet_jax.data.sources import Listing
from mtnet_jax.data.video import VideoError
from mtnet_jax.errors import UserError

_MEANING = "Kinetics's lists"
_NAME = re.compile(r'(.*[-_])?(train|val|validate|validation|test)\.csv')
_SPLITS = {
  'train': 'train',
  'val': 'val',
  'validate': 'val',
  'validation': 'val',
  'test': 'test',
}
_COLUMNS = ('youtube_id', 'time_start', 'time_end', 'split')
# Whole copies of damaged files, in what the CVD Foundation gives out.
_REPLACEMENTS = 'replacement_for_corrupted_k400'

_MAX_OPENED = 8  # to see whether files are whole videos


def list_videos(
  videos: str | os.PathLike, lists: str | os.PathLike, trimmed: bool = False
) -> Listing:
  """Lists the clips of an edition.

  Args:
    videos: holds, at any depth, clips such as `ID_000010_000020.mp4`, or whole
      videos such as `ID.mp4`, of which the listed seconds count.
    lists: holds `train.csv`, `val.csv` or `validate.csv`, and `test.csv`, or
      some of them; something such as `kinetics-400_` may stand before.
    trimmed: files such as `ID.mp4` are clips, too, and all of them counts.

  Returns:
    'train' and 'val', and 'test' if its list has labels. The classes are in the
    order of their names.

  Raises:
    UserError: the lists are not there or cannot be read, or no video is there;
      or files are too short for whole videos.
  """
  paths = _find_lists(annotations.check_folder(lists, (), _MEANING))
  clips = {split: [] for split in ('train', 'val', 'test')}
  for path in paths:
    for split, clip in _read(path, trimmed):
      clips[split].append(clip)
  labels = sorted({clip.label for of in clips.values() for clip in of})
  if not labels:
    raise UserError(
      f'--annotations={lists}: no list has labels. Give one that has.'
    )
  listing = annotations.list_clips(
    videos, labels, {split: of for split, of in clips.items() if of}
  )
  _check_lengths(listing)
  return listing


def _find_lists(directory: pathlib.Path) -> list[pathlib.Path]:
  paths = {}
  for path in sorted(directory.iterdir()):
    if match := _NAME.fullmatch(path.name):
      split = _SPLITS[match[2]]
      if split in paths:
        raise UserError(
          f'--annotations={directory} holds two lists for split {split!r}, '
          f'{paths[split].name} and {path.name}. Give a folder for each '
          'edition.'
        )
      paths[split] = path
  if not paths:
    raise annotations.wrong_folder(directory, 'train.csv', _MEANING)
  return [*paths.values()]


def _read(path: pathlib.Path, trimmed: bool) -> Iterator[tuple[str, Clip]]:
  """Yields a list's clips with their splits; none of a list without labels."""
  rows = tables.read(path, _COLUMNS)
  if not any(row.get('label') for _, row in rows):
    logging.warning(
      '%s has no labels: its %d clips are left out', path, len(rows)
    )
    return
  for line, row in rows:
    where, name = f'{path}, line {line}', row['youtube_id']
    if not row['label'] or row['split'] not in _SPLITS:
      raise UserError(
        f'{where}: a label is needed and a split of {", ".join(_SPLITS)}; '
        f'there are {row["label"]!r} and {row["split"]!r}.'
      )
    start, end = annotations.seconds(row['time_start'], row['time_end'], where)
    cut = f'{name}_{round(start):06}_{round(end):06}'
    yield (
      _SPLITS[row['split']],
      Clip(
        f'{row["label"]}/{cut}',
        row['label'],
        (name,),
        (_REPLACEMENTS, row['label'], _SPLITS[row['split']]),
        None if trimmed else start,
        None if trimmed else end,
        cut,
      ),
    )


def _check_lengths(listing: Listing):
  """Raises a UserError where most of some files end before their clips begin.

  They hold the clips alone, then: in many copies of the data set, those are
  named `ID.mp4`, as whole videos are.
  """
  late = [
    example
    for example in itertools.chain(*listing.splits.values())
    # Even if it is cut loosely, a clip ends before.
    if example.start is not None
    and example.start >= 2 * (example.end - example.start)
  ]
  opened = [*_lengths(late[:: len(late) // _MAX_OPENED + 1])]
  short = [one for one in opened if one[1] <= one[0].start]
  if len(short) > len(opened) / 2:
    example, seconds = short[0]
    raise UserError(
      f'{example.video} has {seconds:.1f} s, and its clip would begin at '
      f'{example.start:g} s; so it is with {len(short)} of {len(opened)} files '
      'that were opened. If they are cut already, give --trimmed: then they '
      'are used whole. If not, get the whole videos again.'
    )


def _lengths(examples: Iterable[Example]) -> Iterator[tuple[Example, float]]:
  """Yields the examples whose files can be read, with the files' seconds."""
  for example in examples:
    with (
      contextlib.suppress(VideoError),  # told when it is recorded
      open_clip(dataclasses.replace(example, start=None, end=None)) as video,
    ):
      yield example, video.times[-1]


def _define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_bool(
    'trimmed',
    False,
    'The files, such as ID.mp4, are cut to their clips already and are used '
    'whole; without it the times of the lists are cut out.',
    flag_values=values,
  )


COMMAND = prepare_command.make(
  lambda values: list_videos(values.videos, values.annotations, values.trimmed),
  videos='Folder that holds the videos.',
  annotations='Folder that holds train.csv, val.csv and test.csv.',
  define_flags=_define_flags,
)

if __name__ == '__main__':
  cli.run(COMMAND)
