"""Divides a user's videos into splits for training and for scoring."""

import collections
import csv
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

from mtnet_jax import files
from mtnet_jax.data import class_names, dividing, sources
from mtnet_jax.data.records import SUFFIX, Example
from mtnet_jax.errors import UserError

# Splits that are made of training videos where they are missing, and their use.
_MADE = {'test': 'testing', 'val': 'validation'}


def divide(
  directory: str | os.PathLike,
  folder: pathlib.Path,
  fps: float | None = None,
) -> tuple[str, list[str]]:
  """Gives a data set all three splits, as far as it has enough videos.

  Where nobody divided the videos, loading does that. Where there are splits,
  but no `val` or no `test`, some of the training videos become one, all parts
  of a video in the same.

  Args:
    directory: a data set as in docs/data.md, or a CSV file. Records stay as
      they are.
    folder: gets a `clips.csv` and a `labels.txt` where a split is made.
    fps: images per second of folders of images; None: it is not known.

  Returns:
    The directory to train on, and in words what was done.

  Raises:
    UserError: nothing usable is there, there are no training videos, or a file
      cannot be named in a CSV file.
  """
  path = pathlib.Path(directory)
  if not path.is_file() and any(path.glob(f'[!.]*{SUFFIX}')):
    return os.fspath(directory), []
  listing = sources.list_videos(directory, fps)
  if 'train' not in listing.splits:
    raise UserError(
      f'{directory} has no videos for training; it has: '
      f'{", ".join(listing.splits)}. Name a folder or rows train.'
    )
  splits, lines = dict(listing.splits), []
  for split, purpose in _MADE.items():
    if split in splits:
      continue
    held_out = _hold_out(splits['train'])
    if held_out:
      splits[split] = tuple(e for e in splits['train'] if e.video in held_out)
      splits['train'] = tuple(
        e for e in splits['train'] if e.video not in held_out
      )
      lines.append(
        f'There is no split {split}: {len(splits[split])} of the training '
        f'videos are held out for {purpose}.'
      )
  if not lines:
    return os.fspath(directory), []
  _write(folder, splits, listing.labels)
  return os.fspath(folder), lines


def _hold_out(examples: Sequence[Example]) -> set[str]:
  """Chooses videos of each class, and none of classes with few."""
  videos = collections.defaultdict(dict)
  for example in examples:
    videos[example.label].setdefault(example.video)
  return {
    video
    for of_class in videos.values()
    for video in dividing.hold_out(list(of_class))
  }


def _write(
  folder: pathlib.Path,
  splits: Mapping[str, Sequence[Example]],
  labels: Sequence[str],
) -> None:
  text = io.StringIO()
  table = csv.writer(text, lineterminator='\n')
  videos = {e.video for own in splits.values() for e in own}
  folders = set(filter(os.path.isdir, videos))
  rates = ('fps',) if folders else ()
  table.writerow(('path', 'label', 'split', 'start', 'end', *rates))
  for split in dividing.SPLITS:
    for example in splits.get(split, ()):
      end = '' if example.end is None else repr(example.end)
      start = repr(example.start) if example.start or end else ''
      video = os.path.abspath(example.video)
      rate = example.fps if example.video in folders else None
      row = video, labels[example.label], split, start, end
      table.writerow((*row, *[repr(rate) if rate else '' for _ in rates]))
  try:
    text.getvalue().encode()
  except UnicodeEncodeError as error:
    raise UserError(
      'The name of a video is not UTF-8, and cannot be written into a list: '
      f'{error.object[error.start - 40 : error.end + 20]!r}. Rename it, or '
      'divide the videos yourself into folders train, val and test.'
    ) from error
  folder.mkdir(parents=True, exist_ok=True)
  files.write_text(
    folder / class_names.LABELS_NAME, ''.join(f'{name}\n' for name in labels)
  )
  files.write_text(folder / sources.CSV_NAME, text.getvalue())
