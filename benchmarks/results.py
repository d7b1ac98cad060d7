"""Writes measurements: a table for people, a file for later."""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.measure import Timing
from mtnet_jax import files

_LIBRARIES = ('jax', 'jaxlib', 'flax', 'torch')


@dataclasses.dataclass(frozen=True)
class Row:
  """One piece of work, ours beside its peers or limits.

  Everything is such that less is better, in one unit. So a peer's value over
  ours is how many times better we are; a limit is a peer with a fixed value,
  kept where that ratio is at least 1.

  Attributes:
    work: what is measured.
    shape: the shape of the clips or of the arrays.
    precision: 'float32' or 'bfloat16'.
    ours: a timing in seconds, or one number.
    unit: the unit of all values: 's', 's/clip' or 'bytes'.
    peers: the values of the peers, by name.
    goals: the ratio that is aimed at, by the peer's name. Not every peer has
      one.
    note: what a reader must know.
  """

  work: str
  shape: str
  precision: str
  ours: Timing | float
  unit: str
  peers: Mapping[str, Timing | float]
  goals: Mapping[str, float] = dataclasses.field(default_factory=dict)
  note: str = ''


def ratios(row: Row) -> dict[str, float]:
  """Each peer's median over ours: above 1, ours is better."""
  ours = _middle(row.ours)
  return {name: _middle(peer) / ours for name, peer in row.peers.items()}


def table(rows: Iterable[Row]) -> str:
  """A Markdown table with a line for each peer of each row."""
  lines = [
    '| work | shape | precision | ours | peer | of the peer | ratio | goal '
    '| note |',
    '|' + ' --- |' * 9,
  ]
  for row in rows:
    first = [row.work, row.shape, row.precision, _text(row.ours, row.unit)]
    note = row.note
    for name, ratio in ratios(row).items():
      goal = row.goals.get(name)
      met = 'met' if goal is None or ratio >= goal else 'missed'
      peer = [
        name,
        _text(row.peers[name], row.unit),
        f'{ratio:.2f}',
        '' if goal is None else f'≥ {goal:.3g}, {met}',
      ]
      lines.append('| ' + ' | '.join([*first, *peer, note]) + ' |')
      first, note = [''] * 4, ''
    if not row.peers:
      lines.append('| ' + ' | '.join([*first, *[''] * 4, note]) + ' |')
  return '\n'.join(lines)


def write(
  rows: Iterable[Row], device: str, command: str, out: str | pathlib.Path
) -> pathlib.Path:
  """Keeps rows in `OUT/YYYY-MM-DD-DEVICE.json` and returns its path.

  A file of this day and device is added to: a row of the same work, shape and
  precision takes the old one's place, and the others stay.

  Args:
    rows: measured on this machine, in this process or its children.
    device: the device, in words.
    command: the command that measured the rows.
    out: folder, made if need be.
  """
  today = datetime.date.today().isoformat()
  slug = re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')
  path = pathlib.Path(out) / f'{today}-{slug}.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  earlier = json.loads(path.read_text()) if path.exists() else {}
  records = {_key(record): record for record in earlier.get('rows', ())}
  for row in rows:
    record = _record(row, command)
    records[_key(record)] = record
  content = {
    'date': today,
    'device': device,
    'cores': len(os.sched_getaffinity(0)),
    'versions': earlier.get('versions', {}) | _versions(),
    'rows': list(records.values()),
  }
  text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
  files.write_text(path, text + '\n')
  return path


def _middle(value: Timing | float) -> float:
  return value.median if isinstance(value, Timing) else value


def _text(value: Timing | float, unit: str) -> str:
  """The value, with a timing's quartiles."""
  if unit == 'bytes':
    return f'{value / 2**20:,.0f} MiB'
  numbers = value[:3] if isinstance(value, Timing) else (value,)
  scale, unit = (1, unit) if numbers[0] >= 1 else (1e3, f'm{unit}')
  first, *quartiles = (_digits(scale * number) for number in numbers)
  between = f' ({"–".join(quartiles)})' if quartiles else ''
  return f'{first} {unit}{between}'


def _digits(number: float) -> str:
  return f'{number:,.0f}' if number >= 100 else f'{number:#.3g}'


def _record(row: Row, command: str) -> dict[str, Any]:
  return {
    **vars(row),
    'ours': _plain(row.ours),
    'peers': {name: _plain(peer) for name, peer in row.peers.items()},
    'goals': dict(row.goals),
    'ratios': ratios(row),
    'command': command,
  }


def _plain(value: Timing | float) -> dict[str, float] | float:
  return value._asdict() if isinstance(value, Timing) else value


def _key(record: Mapping[str, Any]) -> tuple[str, ...]:
  return tuple(record[name] for name in ('work', 'shape', 'precision'))


def _versions() -> dict[str, str]:
  """Returns the versions of Python and of the libraries in use."""
  found = {
    name: str(sys.modules[name].__version__)
    for name in _LIBRARIES
    if name in sys.modules
  }
  return {'python': platform.python_version(), **found}
