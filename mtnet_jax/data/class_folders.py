"""Which of a data set's folders are splits, and which are classes?

Folders of splits hold folders of classes, or the other way round, or there are
classes alone. `labels.txt` may name the classes instead, at any depth. What can
be read in two ways is refused: a wrong guess would cost a training.
"""

import os
import pathlib
import re
from collections.abc import Sequence

from mtnet_jax.data import folders
from mtnet_jax.data.dividing import SPLITS
from mtnet_jax.data.folders import LeftOut, Place
from mtnet_jax.errors import UserError, printable

# For a split, or undivided videos (''): the videos of each class, with paths
# from the data set's folder on.
Divided = dict[str, dict[str, list[str]]]

_NAMES = {
  'train': 'train|training|trn',
  'val': 'val|valid|validate|validating|validation|dev|devel|development',
  'test': 'test|tests|testing|tst|eval|evaluate|evaluation',
}
_PATTERNS = {
  split: re.compile(rf'({names})[ _.-]*(set|split|data|videos?|clips)?')
  for split, names in _NAMES.items()
}
_MAX_NAMED = 5
_LOOSE = 'videos outside the folders of classes'
_LOOSE_FRAMES = (
  'folders of images outside the folders of classes (a folder of numbered '
  'images is one video)'
)
_UNNAMED = 'videos in no folder that labels.txt names'


def split_of(name: str) -> str:
  """Returns the split that a folder's name stands for, or ''.

  Args:
    name: the name of a folder, in upper or lower case; 'Validation', 'valid',
      'dev' and 'val_set' are all 'val'.
  """
  name = name.strip().casefold()
  matching = (s for s, form in _PATTERNS.items() if form.fullmatch(name))
  return next(matching, '')


def divide(
  root: pathlib.Path,
  videos: Sequence[Place],
  labels: Sequence[str],
  left_out: LeftOut,
) -> Divided:
  """Divides videos by their folders into splits and classes.

  Args:
    root: the data set's folder, for messages.
    videos: their places, as `folders.search` finds them.
    labels: the classes, of `labels.txt`; none: the folders' names decide.
    left_out: gets the videos that belong to no class.

  Returns:
    Splits of ours, in their order, or '' alone where no folder is one.

  Raises:
    UserError: the folders can be read in more than one way.
  """
  if labels:
    placed = _place_by_labels(root, videos, frozenset(labels), left_out)
  else:
    placed = _place_by_depth(root, videos, left_out)
  divided = {}
  for split in ('', *SPLITS):
    classes = {}
    for own, name, place in placed:
      if own == split:
        classes.setdefault(name, []).append('/'.join(place))
    if classes:
      divided[split] = classes
  return divided


# Split ('' for none), class, and the video's place.
_Placed = list[tuple[str, str, Place]]


def _place_by_depth(
  root: pathlib.Path, videos: Sequence[Place], left_out: LeftOut
) -> _Placed:
  for place in videos:
    if len(place) == 1:
      left_out.add(_loose(root, place), place)
  videos = [place for place in videos if len(place) > 1]
  tops = _unique(place[0] for place in videos)
  splits = _name_splits(root, tops)
  if splits:
    _check_splits(root, videos, [top for top in tops if top in splits])
    for place in videos:
      if len(place) == 2:
        left_out.add(_loose(root, place), place)
    videos = [place for place in videos if len(place) > 2]
  elif len(tops) > 1 and all(len(p) == 3 and split_of(p[1]) for p in videos):
    splits = _name_splits(root, _unique(place[1] for place in videos))
    return [(splits[place[1]], place[0], place) for place in videos]
  depth = int(bool(splits))
  _check_classes(root, videos, depth)
  return [(splits.get(p[0], ''), p[depth], p) for p in videos]


def _place_by_labels(
  root: pathlib.Path,
  videos: Sequence[Place],
  labels: frozenset[str],
  left_out: LeftOut,
) -> _Placed:
  placed, without = [], []
  names = (name for place in videos for name in place[:-1])
  splits = _name_splits(root, [n for n in _unique(names) if n not in labels])
  for place in videos:
    above = [folders.decoded(name) for name in place[:-1]]
    name = next((name for name in above if name in labels), None)
    if name is None:
      without.append(place)
      continue
    split = next((splits[name] for name in above if name in splits), '')
    placed.append((split, name, place))
  if without and not placed:
    raise UserError(
      f'{root / "labels.txt"} names the classes {_few(labels)}, and no video '
      f'lies in a folder of such a name; there is {_path(without[0])}. Write '
      'the names of the classes as the folders have them, one a line, or move '
      'labels.txt away.'
    )
  for place in without:
    left_out.add(_UNNAMED, place)
  beside = _unique(name for split, name, _ in placed if not split)
  used = _unique(split for split, _, _ in placed if split)
  if beside and used:
    raise UserError(
      f'{root} has videos of {_few(used)} in folders of their own, and beside '
      f'them classes that are in no split: {_few(beside)}. Move their folders '
      f'into {root / "train"}, if they are for training, or away.'
    )
  return placed


def _loose(root: pathlib.Path, place: Place) -> str:
  return _LOOSE_FRAMES if root.joinpath(*place).is_dir() else _LOOSE


def _name_splits(root: pathlib.Path, names: Sequence[str]) -> dict[str, str]:
  """Returns the split of each name that stands for one."""
  splits = {name: split_of(name) for name in names if split_of(name)}
  found = set(splits.values())
  for name in splits:
    # With both `eval` and `test`, the former is for validation.
    if name.casefold().startswith('eval') and 'val' not in found:
      others = [n for n, s in splits.items() if s == 'test' and n != name]
      if others:
        splits[name] = 'val'
  for split in SPLITS:
    same = [name for name, own in splits.items() if own == split]
    if len(same) > 1:
      raise UserError(
        f'{root} has several folders whose names stand for the split {split}: '
        f'{_few(same)}. Either all of them are {split}: move their videos into '
        f'one. Or one is: rename the others, or move them away.'
      )
  return splits


def _check_splits(
  root: pathlib.Path, videos: Sequence[Place], named: Sequence[str]
) -> None:
  """Raises a UserError where it is unclear which folders are splits.

  Raises:
    UserError: they may be classes, or classes stand beside them.
  """
  deep = {place[0] for place in videos if len(place) > 2}
  flat = [name for name in named if name not in deep]
  others = _unique(p[0] for p in videos if p[0] not in named)
  labels = root / 'labels.txt'
  if flat and (others or len(flat) == len(named)):
    beside = f', beside the folders {_few(others)}' if others else ''
    one = next(p for p in videos if p[0] == flat[0])
    if root.joinpath(*one).is_dir():
      beside += f' ({_path(one)}, a folder of numbered images, is one video)'
    raise UserError(
      f'{root} can be read in two ways: {_few(flat)} holds videos and no '
      f'folders of classes{beside}. Either it is a class of that name, or a '
      f'split whose videos have no class and are left out. To say which, write '
      f'{labels} with the names of the classes, one a line: with {_few(flat)} '
      'among them, or without.'
    )
  if others:
    classes = {place[1] for place in videos if place[0] in deep}
    hint = f', or write {labels} with the names of the classes, one a line'
    raise UserError(
      f'{root} can be read in two ways: splits are in {_few(named)}, and '
      f'beside them {_few(others)} hold videos. Either '
      f'those are classes for training: move them into {root / "train"}. Or '
      f'they are no part of the data: move them out of {root}'
      f'{hint * classes.isdisjoint(others)}.'
    )


def _check_classes(
  root: pathlib.Path, videos: Sequence[Place], depth: int
) -> None:
  """Raises a UserError unless the folders at a depth are classes.

  Raises:
    UserError: those in them may be.
  """
  inner = _unique(p[depth + 1] for p in videos if len(p) > depth + 2)
  if not inner:
    return
  outer = _unique(place[depth] for place in videos)
  splits = [name for name in inner if split_of(name)]
  direct = [place for place in videos if len(place) == depth + 2]
  if splits and direct:
    raise UserError(
      f'{root} can be read in two ways: {_few(splits)}, inside folders of '
      f'classes, are splits, or they are not; {_path(direct[0])} is in none. '
      'Move all videos into folders of splits, or rename these.'
    )
  if direct:
    return  # what is deeper is of the class
  inside = root / videos[0][0] if depth == 0 and len(outer) == 1 else None
  one = next(place for place in videos if len(place) > depth + 2)
  raise UserError(
    f'{root} can be read in two ways: either {_few(outer)} are the classes, or '
    f'{_few(inner)} are. {_path(one)} is then of the class '
    f'{printable(one[depth])}, whatever folders the class has, or of the class '
    f'{printable(one[depth + 1])}, wherever its folders lie. To say which, '
    f'write {root / "labels.txt"} with the names of the classes, one a line: '
    f'{_few(outer)}, or {_few(inner)}'
    + (f'; or give {inside} as the folder of the data.' if inside else '.')
  )


def _unique(names) -> list[str]:
  return list(dict.fromkeys(names))


def _path(place: Place) -> str:
  return printable('/'.join(place))


def _few(names: Sequence[str] | frozenset[str]) -> str:
  names = sorted(map(os.fspath, names))
  more = f' and {len(names) - _MAX_NAMED} more'
  shown = ', '.join(map(printable, names[:_MAX_NAMED]))
  return shown + more * (len(names) > _MAX_NAMED)
