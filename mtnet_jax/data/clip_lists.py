"""Reads a CSV file as a list of labeled videos, or of parts of videos."""

import collections
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

from absl import logging

from mtnet_jax.data import class_names, dividing, frame_folders, tables
from mtnet_jax.data.dividing import SPLITS
from mtnet_jax.data.records import Example
from mtnet_jax.errors import UserError, printable

_REQUIRED_COLUMNS = ('path', 'label')

# Words in a column's name: which end of a part it gives, and whether it is in
# seconds, in another unit, or no time of a video.
_WORDS = {
  'start': set('start starts begin begins onset tstart from'.split()),
  'end': set('end ends stop tend until to'.split()),
}
_SECONDS = set(
  'time times t sec secs second seconds s in at timestamp clip segment seg '
  'action event video trim label annotation'.split()
)
_OTHER_UNITS = set(
  'frame frames ms msec msecs millis millisecond milliseconds us ns index idx '
  'number num no nr tick ticks pts sample samples position pos offset minute '
  'minutes min hour hours hms tc timecode percent'.split()
)
_NO_TIMES = set('date day month year page line id name place url'.split())
_LENGTHS = {'duration', 'length', 'dur', 'len'}


def read(
  path: pathlib.Path, fps: float | None = None
) -> tuple[tuple[str, ...], dict[str, tuple[Example, ...]]]:
  """Reads a list of clips.

  Args:
    path: the CSV file; its folder may hold a labels.txt.
    fps: images per second of folders of images whose row does not say it.

  Returns:
    The names of the classes, and the videos of every split that has any.
    Whether the files exist is not checked.

  Raises:
    UserError: a mistake in the file.
  """
  rows = _read_rows(path)
  if 'split' not in rows[0][1]:
    rows = _divide(rows, path)
  labels_path = path.parent / class_names.LABELS_NAME
  if labels_path.is_file():
    labels = class_names.read(labels_path)
  else:
    labels = tuple(sorted({row['label'] for _, row in rows}))
    labels_path = path
  numbers = class_names.number_labels(labels, labels_path)
  clips_of = collections.Counter(row['path'] for _, row in rows)
  splits = {split: [] for split in SPLITS}
  line_of = {}
  for line, row in rows:
    where = f'{path}, line {line}'
    if row['label'] not in numbers:
      raise UserError(
        f'{where}: the label {row["label"]!r} is not in {labels_path}.'
      )
    if row['split'] not in SPLITS:
      raise UserError(
        f'{where}: unknown split {row["split"]!r}; allowed: '
        f'{", ".join(SPLITS)}.'
      )
    start, end = _seconds(row, where)
    clip = (os.path.normpath(row['path']), start or 0.0, end)
    if clip in line_of:
      raise UserError(
        f'{where}: {row["path"]!r} is there already, in line {line_of[clip]}. '
        'Remove one, or tell the clips apart by start and end.'
      )
    line_of[clip] = line
    splits[row['split']].append(
      Example(
        _clip_id(row['path'], start, end)
        if clips_of[row['path']] > 1
        else row['path'],
        numbers[row['label']],
        str(path.parent / row['path']),
        start,
        end,
        _rate(row, where) or fps,
      )
    )
  return labels, {k: tuple(v) for k, v in splits.items() if v}


def _divide(rows, path):
  """Gives rows a split, the same to all parts of a video."""
  logging.warning(
    '%s has no column split: the videos of each class are divided by their '
    'names, 80 : 10 : 10.',
    path,
    extra={'once': True},
  )
  videos = collections.defaultdict(dict)
  for _, row in rows:
    videos[row['label']].setdefault(row['path'])
  split_of = {
    (label, video): split
    for label, of_label in videos.items()
    for split, chosen in dividing.divide(list(of_label)).items()
    for video in chosen
  }
  return [
    (line, row | {'split': split_of[row['label'], row['path']]})
    for line, row in rows
  ]


def _read_rows(path: pathlib.Path) -> list[tuple[int, dict[str, str]]]:
  """Returns lines and their values, times under `start` and `end`."""
  rows = tables.read(path, _REQUIRED_COLUMNS)
  given = (*_REQUIRED_COLUMNS, 'split', 'fps')
  columns = [name for name in rows[0][1] if name not in given]
  times = _find_times(columns, path)
  unused = [name for name in columns if name and name not in times.values()]
  if unused:
    logging.warning(
      '%s: columns that are not used are %s',
      path,
      ', '.join(map(printable, unused)),
      extra={'once': True},
    )
  return [
    (line, row | {end: row[column] for end, column in times.items()})
    for line, row in rows
  ]


def _find_times(columns: Sequence[str], path: pathlib.Path) -> dict[str, str]:
  """Returns the columns that give `start` and `end` in seconds.

  Raises:
    UserError: a column gives times in another form, or two give the same.
  """
  found, others_of, lengths = collections.defaultdict(list), {}, []
  for column in columns:
    words = _words(column)
    if words & _LENGTHS and not words & {'video', 'total', 'file'}:
      lengths.append(column)
    ends = [end for end, names in _WORDS.items() if words & names]
    others = frozenset(words.difference(*_WORDS.values()))
    if {'first', 'last'} & others and {'frame', 'frames'} & others:
      ends = ['start']
    if len(ends) != 1 or others & _NO_TIMES:
      continue
    if others & _OTHER_UNITS:
      raise _not_seconds(path, column, others)
    if others <= _SECONDS:
      found[ends[0]].append(column)
    elif others_of.setdefault(others, ends[0]) != ends[0]:
      raise _not_seconds(path, column, others)  # its partner stood before
  for end, names in found.items():
    if len(names) > 1:
      raise UserError(
        f'{path} gives the {end} of a part in several columns, '
        f'{" and ".join(names)}. Keep one of them.'
      )
  if 'start' in found and 'end' not in found and lengths:
    raise _not_seconds(path, lengths[0], frozenset())
  return {end: names[0] for end, names in found.items()}


def _words(column: str) -> set[str]:
  """Returns the words of a column's name, in small letters."""
  column = re.sub(r'(?<=[a-z])(?=[A-Z])', '_', column)
  words = re.split(r'[\W_]+', column.lower())
  glued = re.compile(
    r'(start|begin|end|stop|first|last)(time|sec|secs|seconds?|frames?|ms)'
    r'|(time|sec|frame|clip|t)(start|begin|end|stop)'
  )
  parts = [
    [part for part in match.groups() if part]
    if (match := glued.fullmatch(word))
    else [word]
    for word in words
  ]
  return {part for some in parts for part in some if part}


def _not_seconds(
  path: pathlib.Path, column: str, words: frozenset[str]
) -> UserError:
  what = (
    'to be numbers of frames, and nothing says how many frames a second has'
    if words & {'frame', 'frames'}
    else 'to be times in another form than seconds from start to end'
  )
  return UserError(
    f'{path}: the column {column!r} seems {what}. Give the seconds at which a '
    'part begins and ends in columns start and end, or rename the column if it '
    'says something else.'
  )


def _seconds(
  row: Mapping[str, str], where: str
) -> tuple[float | None, float | None]:
  texts = row.get('start', ''), row.get('end', '')
  try:
    start, end = (float(text) if text else None for text in texts)
    valid = 0 <= (start or 0) < (math.inf if end is None else end)
  except ValueError:
    valid = False
  if not valid:
    raise UserError(
      f'{where}: start {texts[0]!r} and end {texts[1]!r} must be seconds with '
      '0 ≤ start < end, or empty.'
    )
  return start, end


def _rate(row: Mapping[str, str], where: str) -> float | None:
  """Returns the images per second that a row gives."""
  text = row.get('fps', '')
  if not text:
    return None
  try:
    rate = float(text)
  except ValueError:
    rate = text
  frame_folders.check_rate(rate, f'{where}: fps')
  return rate


def _clip_id(path: str, start: float | None, end: float | None) -> str:
  return f'{path}#{start or 0.0}-{"" if end is None else end}'
