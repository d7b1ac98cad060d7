"""Reads the published figures of the thesis from `tables/*.csv`.

A file is a table of the thesis, or several with the same rows: a header of
`#` lines that names them, then columns as printed, then four of ours:

* `network`: the row's network here, '' where there is none;
* `overrides`: of its fields, `key=value` each;
* `clip`: `frames x height x width` to count it at, '' where the table has no
  sizes;
* `why`: keys of `results_page.REASONS`, where the figures differ.
"""

import ast
import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtnet_jax.errors import UserError

DIRECTORY = pathlib.Path(__file__).resolve().parent / 'tables'
OURS = ('network', 'overrides', 'clip', 'why')
# The number of classes that networks are counted with: only these give the
# published parameters, also in the tables of HACS, which has 200.
NUM_CLASSES = 400


class Request(NamedTuple):
  """A network to count: hashable, and as `models.build` takes it.

  Attributes:
    network: one of `models.NAMES`.
    overrides: pairs of field and value.
    clip: frames, height, width.
  """

  network: str
  overrides: tuple[tuple[str, Any], ...]
  clip: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table.

  Attributes:
    printed: text by column, '' where nothing is printed.
    network: see the top of this file, as all that follow.
    overrides: pairs of field and value.
    clip: frames, height, width, or None.
    why: keys of reasons.
  """

  printed: Mapping[str, str]
  network: str
  overrides: tuple[tuple[str, Any], ...]
  clip: tuple[int, int, int] | None
  why: tuple[str, ...]

  @property
  def request(self) -> Request | None:
    """The costs to count for the row, if any."""
    if self.clip is None:
      return None
    return Request(self.network, self.overrides, self.clip)

  def number(self, *columns: str) -> float | None:
    """Returns the number in the first of `columns` that is not empty."""
    texts = (self.printed.get(column) for column in columns)
    return next((float(text) for text in texts if text), None)


@dataclasses.dataclass(frozen=True)
class Table:
  """A file.

  Attributes:
    name: the file's name, without `.csv`.
    source: the file's `#` lines, the first says which tables of the thesis it
      is.
    columns: the printed columns, in order.
    rows: the rows, in order.
  """

  name: str
  source: tuple[str, ...]
  columns: tuple[str, ...]
  rows: tuple[Row, ...]


def read(path: pathlib.Path) -> Table:
  """Reads a file of `DIRECTORY`.

  Args:
    path: the CSV file.

  Raises:
    UserError: it is not there.
  """
  source, records = read_csv(path)
  rows = tuple(
    Row(
      {k: v for k, v in record.items() if k not in OURS},
      record['network'],
      _parse_overrides(record['overrides']),
      _parse_clip(record['clip']) if record['clip'] else None,
      tuple(record['why'].split()),
    )
    for record in records
  )
  return Table(path.stem, source, tuple(rows[0].printed), rows)


def read_csv(
  path: pathlib.Path,
) -> tuple[tuple[str, ...], Sequence[dict[str, str]]]:
  """Reads the `#` lines and the records of a CSV.

  Args:
    path: the CSV file.

  Raises:
    UserError: it is not there.
  """
  try:
    lines = path.read_text('utf-8').splitlines()
  except OSError as error:
    raise UserError(
      f'The published figures cannot be read: {path}: {error.strerror}. They '
      'are part of this package: install it again.'
    ) from error
  source = tuple(line[1:].strip() for line in lines if line.startswith('#'))
  return source, list(csv.DictReader(lines[len(source) :]))


def read_all(directory: pathlib.Path = DIRECTORY) -> dict[str, Table]:
  """Reads all tables.

  Args:
    directory: `DIRECTORY`, or a copy.

  Returns:
    The tables by name, in the thesis's order.

  Raises:
    UserError: the directory has none.
  """
  paths = sorted(directory.glob('table_*.csv'))
  if not paths:
    paths = [directory / 'table_*.csv']  # not there, and `read` says so
  return {path.stem: read(path) for path in paths}


def requests(tables: Mapping[str, Table]) -> list[Request]:
  """Returns every network that the tables' sizes are compared with, once."""
  found = (row.request for table in tables.values() for row in table.rows)
  return list(dict.fromkeys(request for request in found if request))


def _parse_overrides(text: str) -> tuple[tuple[str, Any], ...]:
  return tuple(map(_parse_override, text.split()))


def _parse_override(text: str) -> tuple[str, Any]:
  key, _, value = text.partition('=')
  try:
    return key, ast.literal_eval(value)
  except ValueError:
    return key, value  # a word


def _parse_clip(text: str) -> tuple[int, int, int]:
  frames, height, width = map(int, text.split('x'))
  return frames, height, width
