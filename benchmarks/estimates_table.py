"""Writes records of compilers' estimates as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtnet_jax.devices import targets

Record = Mapping[str, Any]

_NOTE = (
  "Cycles, bytes, launches and memory are the compiler's estimates "
  '({versions}) for one device of {target}; nothing has run on one. Seconds '
  'are those of the machine that compiled. The floor follows from published '
  'peaks.'
)
_GIB = 2**30


def text(records: Sequence[Record]) -> str:
  """Returns a line for each record of one target, then the parts of each.

  Args:
    records: one or more records from `accelerators.record`.
  """
  target = records[0]['target']
  versions = ', '.join(
    f'{name} {version}' for name, version in records[0]['versions'].items()
  )
  note = _NOTE.format(versions=versions, target=target)
  done = [record for record in records if 'error' not in record]
  failed = [record for record in records if 'error' in record]
  blocks = [note, _markdown([_cells(record) for record in done])]
  if failed:
    rows = [{'program': _name(r), 'no figures': r['error']} for r in failed]
    blocks.append(_markdown(rows))
  blocks += [f'{_name(record)}:\n\n{_parts(record)}' for record in done]
  return '\n\n'.join(block for block in blocks if block)


def short(record: Record) -> str:
  """Returns a record in one line."""
  if 'error' in record:
    return f'{_name(record)}: {record["error"]}'
  told = [f'{key} {value}' for key, value in _cells(record).items() if value]
  return '; '.join(told).removeprefix('program ')


def _name(record: Record) -> str:
  again = ', rematerialized' if record['rematerialize'] else ''
  flags = f', {record["xla_flags"]}' if record['xla_flags'] else ''
  clips = f'{record["clips"]} clip{"s" if record["clips"] > 1 else ""}'
  return f'{record["network"]} {record["program"]}, {clips}{again}{flags}'


def _cells(record: Record) -> dict[str, str]:
  is_gpu = targets.is_gpu(record['target'])
  return _gpu_cells(record) if is_gpu else _tpu_cells(record)


def _tpu_cells(record: Record) -> dict[str, str]:
  seconds = record['estimated_seconds']
  return _first_cells(record) | {
    'estimated M cycles': _digits(record['cycles'] / 1e6),
    'estimated ms': _digits(1e3 * seconds),
    'estimated clips/s a chip': _digits(record['clips'] / seconds),
    'floor, M cycles': _digits(record['floor'] / 1e6),
    'times the floor': f'{record["cycles"] / record["floor"]:.1f}',
    **_last_cells(record),
  }


def _gpu_cells(record: Record) -> dict[str, str]:
  launches = record['launches']
  kinds = ', '.join(f'{count} {kind}' for kind, count in launches.items())
  return _first_cells(record) | {
    'launches': f'{sum(launches.values()):,}: {kinds}',
    'estimated MB of operands and results': _digits(record['bytes'] / 1e6),
    'floor, MB': _digits(record['floor'] / 1e6),
    'times the floor': f'{record["bytes"] / record["floor"]:.1f}',
    **_last_cells(record),
  }


def _first_cells(record: Record) -> dict[str, str]:
  seconds, memory = record['seconds'], record['memory']
  needed, peak, device = (
    memory[key] / _GIB for key in ('needed', 'peak', 'device')
  )
  return {
    'program': _name(record),
    'lower, s': f'{seconds["lower"]:.0f}',
    'compile, CPU s (wall)': (
      f'{seconds["compile_cpu"]:,.0f} ({seconds["compile"]:,.0f})'
    ),
    'estimated memory, peak, GiB': (
      f'{_digits(needed)}, {_digits(peak)} of {device:.0f}'
    ),
  }


def _last_cells(record: Record) -> dict[str, str]:
  unknown = len(record['unknown_loops'])
  return {
    'collectives': _collectives(record),
    'loops of unknown length': str(unknown) if unknown else '',
  }


def _collectives(record: Record) -> str:
  """Returns, by kind, the number, the bytes, and how many are overlapped."""
  of_kind: dict[str, list] = {}
  for collective in record['collectives']:
    of_kind.setdefault(collective['kind'], []).append(collective)
  told = []
  for kind, found in of_kind.items():
    count = sum(c['times'] for c in found)
    num_bytes = sum(c['times'] * c['num_bytes'] for c in found)
    overlapped = sum(c['times'] for c in found if c['overlapped'])
    told.append(
      f'{count} {kind}, {num_bytes / 1e6:.2f} MB, {overlapped} asynchronous'
    )
  return '; '.join(told)


def _digits(number: float) -> str:
  return f'{number:,.0f}' if number >= 100 else f'{number:#.3g}'


def _parts(record: Record) -> str:
  unit = 'MB' if targets.is_gpu(record['target']) else 'M cycles'
  total = sum(record['parts'].values())
  rows = [
    {
      'part': part,
      f'estimated {unit}': _digits(value / 1e6),
      'share': f'{value / total:.1%}',
    }
    for part, value in record['parts'].items()
    if value
  ]
  return _markdown(rows)


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
  """Returns a table; columns that are empty in all rows are left out."""
  if not rows:
    return ''
  keys = [key for key in rows[0] if any(row[key] for row in rows)]
  lines = [keys, ['---'] * len(keys)]
  lines += [[row[key].replace('|', '\\|') for key in keys] for row in rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
