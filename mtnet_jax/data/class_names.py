"""Reads and checks the class names of a data set, and logs their counts."""

import collections
import os
import pathlib
import unicodedata
from collections.abc import Container, Mapping, Sequence

from absl import logging

from mtnet_jax.errors import UserError, printable

LABELS_NAME = 'labels.txt'

_MAX_NAMED = 10  # classes in a warning
_MAX_TOLD = 150  # classes whose videos are counted in the log


def number_labels(
  labels: Sequence[str], path: str | os.PathLike
) -> dict[str, int]:
  """Returns the classes' numbers.

  Args:
    labels: the classes' names.
    path: the file or folder that names them, for messages.

  Raises:
    UserError: a name cannot stand in a line of labels.txt, or stands twice.
  """
  numbers = {}
  for name in labels:
    if name.splitlines() != [name.strip()]:
      raise UserError(
        f'{path} names the class {name!r}. The name of a class must be one '
        'line without blanks at its ends: rename it.'
      )
    if name in numbers:
      raise UserError(f'{path} names the class {name!r} twice: remove one.')
    numbers[name] = len(numbers)
  return numbers


def parse(content: bytes) -> tuple[str, ...]:
  """Returns the lines of a file that names a class a line.

  Args:
    content: UTF-8, with or without a byte order mark, with any ends of lines.

  Raises:
    UnicodeDecodeError: it is not UTF-8.
  """
  return tuple(content.decode('utf-8-sig').splitlines())


def read(path: pathlib.Path) -> tuple[str, ...]:
  """Reads a data set's `labels.txt`; lines without a name do not count.

  Raises:
    UserError: it cannot be read, names no class, or one twice.
  """
  try:
    lines = parse(path.read_bytes())
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}.') from error
  except UnicodeDecodeError as error:
    raise UserError(f'{path} is not UTF-8: {error}. Save it as such.') from None
  labels = tuple(line.strip() for line in lines if line.strip())
  if not labels:
    raise UserError(
      f'{path} names no class: write their names into it, one a line.'
    )
  number_labels(labels, path)
  return labels


def differences(before: Sequence[str], now: Sequence[str]) -> str:
  """Returns in words how two lists of classes differ, three names at most."""
  parts = [
    f'{what} {", ".join(map(printable, sorted(some)[:3]))}'
    for what, some in (
      ('new are', set(now) - set(before)),
      ('missing are', set(before) - set(now)),
    )
    if some
  ]
  return '; '.join(parts) or 'the same in another order'


def tell_videos(
  where: object, split: str, labels: Sequence[str], counts: Mapping[str, int]
) -> None:
  """Logs how many videos of each class a split has; a command shows it once.

  Args:
    where: the data set, as the user knows it.
    split: the split's name.
    labels: the classes' names.
    counts: videos by class; empty where that is not known.
  """
  named = [
    f'{printable(name)} {counts.get(name, 0):,}' if counts else printable(name)
    for name in labels[:_MAX_TOLD]
  ]
  more = len(labels) - len(named)
  logging.info(
    '%s, %s: %s%d classes: %s%s',
    where,
    split,
    f'{sum(counts.values()):,} videos of ' if counts else '',
    len(labels),
    ', '.join(named),
    f' and {more} more' if more > 0 else '',
    extra={'once': True},
  )


def warn_of_untrained(
  labels: Sequence[str], trained: Container[str], where: object
) -> None:
  """Logs a warning that names the classes without a video for training.

  Args:
    labels: the classes' names.
    trained: the classes that have videos for training.
    where: the data set, as the user knows it.
  """
  missing = [label for label in labels if label not in trained]
  if missing:
    more = len(missing) - _MAX_NAMED
    logging.warning(
      '%s: %d of %d classes have no training video and cannot be learned: %s%s',
      where,
      len(missing),
      len(labels),
      ', '.join(map(printable, missing[:_MAX_NAMED])),
      f' and {more} more' if more > 0 else '',
    )


def warn_of_look_alikes(labels: Sequence[str], where: object) -> None:
  """Logs a warning that names classes which may be meant to be one.

  Args:
    labels: the classes' names.
    where: the data set, as the user knows it.
  """
  if groups := look_alikes(labels):
    logging.warning(
      '%s: %d names of classes look alike and count as classes of their own: '
      '%s. Where one class is meant, give it one name.',
      where,
      sum(map(len, groups)),
      '; '.join(' and '.join(map(ascii, g)) for g in groups[:_MAX_NAMED]),
      extra={'once': True},
    )


def look_alikes(labels: Sequence[str]) -> list[list[str]]:
  """Returns names of classes which may be meant to be one, in groups.

  Those are names that differ in case, in blanks and underscores, in characters
  that nobody sees, or in how Unicode composes a letter.

  Args:
    labels: the classes' names.
  """
  alike = collections.defaultdict(list)
  for label in labels:
    alike[_look(label)].append(label)
  return [names for names in alike.values() if len(names) > 1]


def _look(name: str) -> str:
  """Returns what is left of a name for someone who reads it carelessly."""
  name = unicodedata.normalize('NFKD', name).casefold()
  return ''.join(
    c
    for c in unicodedata.normalize('NFKC', name)
    if not c.isspace() and c != '_' and unicodedata.category(c) != 'Cf'
  )
