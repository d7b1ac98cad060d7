"""Reads and writes tables in CSV files."""

import collections
import csv
import io
import os
import pathlib
import unicodedata
from collections.abc import Sequence

from mtnet_jax.errors import UserError

# Characters that begin a formula in spreadsheets, wide ones too.
_FORMULA = tuple('=+-@＝＋－＠')
_APOSTROPHE = "'"


def read(
  path: str | os.PathLike, required: Sequence[str]
) -> list[tuple[int, dict[str, str]]]:
  """Reads a CSV file whose first line names the columns.

  Args:
    path: the file, UTF-8, with or without a byte order mark.
    required: columns that must be there and have a value in every row.

  Returns:
    At least one row; for each, the line on which it begins, from 1, and its
    values by column, without blanks around them. A value that is missing at the
    end of a row is ''. Empty lines are left out.

  Raises:
    UserError: the file cannot be read, or is no such table.
  """
  path = pathlib.Path(path)
  (_, columns), *rows = _read_lines(path) or [(1, [])]
  missing = [name for name in required if name not in columns]
  if missing:
    raise UserError(
      f'{path} has no column {", ".join(missing)}; it has: '
      f'{", ".join(columns) or "none"}. Needed are {", ".join(required)}; '
      'others may stand between them.'
    )
  double = [n for n, count in collections.Counter(columns).items() if count > 1]
  if any(double):
    raise UserError(
      f'{path} has several columns {max(double)!r}: keep one, or rename them.'
    )
  if not rows:
    raise UserError(f'{path} has no rows, a header only.')
  table = []
  for line, values in rows:
    if any(values[len(columns) :]):
      raise UserError(
        f'{path}, line {line}: {len(values)} values for {len(columns)} '
        'columns. Values with commas in them stand between quotation marks.'
      )
    row = dict.fromkeys(columns, '') | dict(zip(columns, values, strict=False))
    empty = [name for name in required if not row[name]]
    if empty:
      raise UserError(f'{path}, line {line}: no {" and no ".join(empty)}.')
    table.append((line, row))
  return table


def cell(text: str) -> str:
  """Returns a text as a cell of a table that people open in a spreadsheet.

  A spreadsheet computes a cell that begins with `=`, `+`, `-` or `@`. An
  apostrophe before it keeps it a text; a text that begins with an apostrophe
  gets one too, so that leaving out one at the beginning gives the text again.
  Control characters, and bytes that are not UTF-8, are written out: `\\n`. A
  row is one line, therefore.

  Args:
    text: the name of a video or a class, or a message; never a number.
  """
  if text.startswith((*_FORMULA, _APOSTROPHE)):
    text = _APOSTROPHE + text
  return ''.join(
    c.encode('unicode_escape').decode()
    if unicodedata.category(c) in ('Cc', 'Cs')
    else c
    for c in text
  )


def _read_lines(path: pathlib.Path) -> list[tuple[int, list[str]]]:
  """Returns the values of every line that has any, and its number."""
  try:
    text = path.read_bytes().decode('utf-8-sig')
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}.') from error
  except UnicodeDecodeError as error:
    line = error.object[: error.start].count(b'\n') + 1
    raise UserError(
      f'{path}, line {line} cannot be read as a CSV file: {error.reason}. Save '
      'it as UTF-8.'
    ) from error
  # The reader is strict: otherwise an extra quotation mark would swallow the
  # following lines.
  reader = csv.reader(
    io.StringIO(text, newline=''), skipinitialspace=True, strict=True
  )
  lines, first = [], 1
  try:
    for values in reader:
      if values:
        lines.append((first, [value.strip() for value in values]))
      first = reader.line_num + 1
  except csv.Error as error:
    raise UserError(
      f'{path}, line {first} cannot be read as a CSV file: {error}.'
    ) from error
  return lines
