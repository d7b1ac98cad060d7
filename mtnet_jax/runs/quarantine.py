"""The videos that training had to leave out, in `WORKDIR/quarantine.csv`."""

import csv
import io
import os
from collections.abc import Iterable

import msgpack
from absl import logging

from mtnet_jax import files, locations
from mtnet_jax.devices import processes
from mtnet_jax.errors import UserError, first_causes, printable
from mtnet_jax.locations import Path

_COLUMNS = ('id', 'cause')


class Quarantine:
  """Counts, names and records the broken videos that a process has met.

  Only videos that failed since this start of the run count, as others may have
  been mended.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    num_videos: int,
    max_share: float,
    process_index: int = 0,
  ):
    """Reads what is in the list already.

    Args:
      workdir: the run's folder, which exists.
      num_videos: the number of training videos.
      max_share: the share of the videos, more than which must not be broken.
      process_index: the index of this process; where there are several, each
        writes a list of its own.
    """
    name = f'-{process_index}' if process_index else ''
    self._path = locations.as_path(workdir) / f'quarantine{name}.csv'
    self._num_videos, self._max_share = num_videos, max_share
    self._listed = {name for name, _ in _read(self._path)}
    self._cause_of: dict[str, str] = {}
    self._checked = 0

  def __len__(self) -> int:
    return len(self._cause_of)

  def add(self, broken: Iterable[tuple[str, str]]) -> None:
    """Records what is new of `(id, cause)`, and names it in the log."""
    rows = [(printable(i), printable(cause)) for i, cause in broken]
    new = {i: cause for i, cause in rows if i not in self._cause_of}
    self._cause_of |= new
    for name, cause in new.items():
      logging.warning('Left out of training: %s: %s', name, cause)
    rows = [row for row in new.items() if row[0] not in self._listed]
    if not rows:
      return
    self._listed |= new.keys()
    text = io.StringIO(newline='')
    header = [] if _contents(self._path) else [_COLUMNS]
    csv.writer(text).writerows(header + rows)
    files.append(self._path, text.getvalue().encode())

  def check(self, total: int) -> None:
    """Raises a UserError where too many are broken.

    Args:
      total: the sum of all processes' numbers, which all of them know in the
        same step: they ask each other where it is large, since they may have
        met the same videos.
    """
    limit = self._max_share * self._num_videos
    if total <= max(limit, self._checked):
      return
    self._checked = total
    parts = processes.gather(msgpack.packb([*self._cause_of.items()]))
    cause_of = dict(row for part in parts for row in msgpack.unpackb(part))
    if len(cause_of) > limit:
      causes = first_causes(cause_of.items())
      raise UserError(
        f'{len(cause_of)} of {self._num_videos} training videos cannot be '
        f'read, more than data.max_broken_share (={self._max_share:.2%}): '
        f'{causes}. quarantine*.csv in {self._path.parent} list '
        'them. Mend or remove them, or raise the share.'
      )


def _contents(path: Path) -> str:
  if not path.exists():
    return ''
  return path.read_bytes().decode(errors='backslashreplace')


def _read(path: Path) -> list[tuple[str, str]]:
  text = io.StringIO(_contents(path), newline='')
  try:
    rows = [row for row in csv.reader(text) if len(row) == len(_COLUMNS)]
  except csv.Error as error:
    raise UserError(
      f'{path} is not the list of broken videos that training writes: {error}. '
      'Move it elsewhere.'
    ) from error
  return [(i, cause) for i, cause in rows[1:]]
