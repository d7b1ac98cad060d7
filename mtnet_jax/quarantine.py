"""The videos that training had to leave out, in `WORKDIR/quarantine.csv`."""

import csv
import pathlib
from collections.abc import Iterable
from typing import TextIO

from absl import logging

from mtnet_jax.errors import UserError

_COLUMNS = ('id', 'cause')


class Quarantine:
  """Counts, names and records the broken videos that a process has met.

  A resumed run goes on with the list that it finds.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    num_videos: int,
    max_share: float,
    process_index: int = 0,
  ):
    """Reads the list of an interrupted run.

    Args:
      workdir: the run's folder, which exists.
      num_videos: for training.
      max_share: of them, more than which must not be broken.
      process_index: of several processes, each writes a list of its own.
    """
    name = f'-{process_index}' if process_index else ''
    self._path = pathlib.Path(workdir) / f'quarantine{name}.csv'
    self._num_videos, self._max_share = num_videos, max_share
    self._cause_of = dict(_read(self._path))

  def __len__(self) -> int:
    return len(self._cause_of)

  def add(self, broken: Iterable[tuple[str, str]]) -> None:
    """Records what is new of `(id, cause)`, and names it in the log."""
    new = {i: cause for i, cause in broken if i not in self._cause_of}
    if not new:
      return
    self._cause_of |= new
    for name, cause in new.items():
      logging.warning('Left out of training: %s: %s', name, cause)
    with _open(self._path, 'a') as file:
      writer = csv.writer(file)
      header = [_COLUMNS] if file.tell() == 0 else []
      writer.writerows(header + list(new.items()))

  def check(self, count: int) -> None:
    """Raises a UserError where too many are broken.

    Args:
      count: of all processes together.
    """
    if count > self._max_share * self._num_videos:
      named = [f'{i}: {cause}' for i, cause in self._cause_of.items()][:3]
      some = f': {"; ".join(named)}' if named else ''  # others may have them
      raise UserError(
        f'{count} of {self._num_videos} training videos cannot be read, more '
        f'than data.max_broken_share (={self._max_share:.2%}){some}. '
        f'quarantine*.csv in {self._path.parent} list them. Mend or remove '
        'them, or raise the share.'
      )


def _open(path: pathlib.Path, mode: str) -> TextIO:
  # Names of files need not be UTF-8: their bytes are kept as they are.
  return path.open(mode, newline='', encoding='utf-8', errors='surrogateescape')


def _read(path: pathlib.Path) -> list[tuple[str, str]]:
  if not path.exists():
    return []
  with _open(path, 'r') as file:
    rows = [row for row in csv.reader(file) if len(row) == len(_COLUMNS)]
  return [(i, cause) for i, cause in rows[1:]]
