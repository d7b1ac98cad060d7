"""Prints compilers' estimates for accelerators that are not at hand.

  python -m benchmarks.accelerators [--target=v5e:2x2,h100]
  python -m benchmarks.accelerators --network=x3d_m,mtnet_m --target=v5e:2x2
      --clips=16 --rematerialize --program=train

Compiles train steps and inference ahead of time, each in a process of its own,
and prints what the compiler estimates, beside a floor: docs/accelerators.md
explains the figures. None of them is measured on a device. Without --network it
takes a standard table of programs, the smallest first.

A row is written to `OUT/estimates-TARGET.json` as soon as it is known; a row of
the same sources and versions is not compiled again unless --again is given. A
program that cannot be compiled is a row too, with the compiler's reason; the
command ends with code 1 if --network named it. Compiled programs and the
compilers' messages stay in `.cache/accelerators`.

It needs libtpu for TPUs and jax-cuda13-plugin for GPUs: `make accelerators`
installs both in an environment of their own, .venv-aot, and runs the table.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from absl import flags

from benchmarks import estimates_table
from benchmarks.estimates import PROGRAMS, Row
from mtnet_jax import cli, files, models
from mtnet_jax.devices import targets
from mtnet_jax.errors import UserError

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_RESULTS = 'benchmarks/results'
_KEPT = _ROOT / '.cache/accelerators'
_TARGETS = ('v5e:2x2', 'h100')
_CLIPS = 16
_FEW_CLIPS = (1, 2, 3)
# Network, program, clips of a device, whether blocks are computed again.
STANDARD = (
  *(('mtnet_xs', 'train', clips, False) for clips in _FEW_CLIPS),
  *(('x3d_s', 'train', clips, False) for clips in _FEW_CLIPS),
  *(('srtg_r3d_18', 'train', clips, False) for clips in _FEW_CLIPS),
  ('x3d_m', 'infer', _CLIPS, False),
  ('x3d_m', 'train', _CLIPS, False),
  ('srtg_r3d_50', 'train', _CLIPS, False),
  ('r2plus1d_34', 'train', _CLIPS, False),
  ('mt_r3d_50', 'train', _CLIPS, False),
  ('wide_r3d_50', 'train', _CLIPS, False),
  *(
    (network, 'train', 8, False)
    for network in ('slow_r50', 'slowfast_r50_8x8', 'tsm_r50', 'tanet_r50_8')
  ),
  ('resnext3d_101', 'train', 8, False),
  ('ir_csn_101', 'train', 8, True),
  ('mtnet_m', 'infer', _CLIPS, False),
  ('mtnet_m', 'train', _CLIPS, False),
  ('mtnet_l', 'train', 8, True),
)
# Files that the programs depend on, and files that the figures depend on too.
_PROGRAM_SOURCES = (
  *('mtnet_jax/**/*.py', 'configs/base.py', 'benchmarks/ahead_of_time.py'),
)
_FIGURE_SOURCES = (
  *('benchmarks/communication.py', 'benchmarks/estimates.py'),
  'benchmarks/hlo*.py',
)
# No compiler takes a program of yesterday's.
_ENVIRONMENT = {**targets.ENVIRONMENT, 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
_MAX_REASON = 300  # characters


def hash_of(patterns: Iterable[str], *more: Any) -> str:
  """Returns a hash of the files of our tree that patterns name, and of more."""
  digest = hashlib.sha256(json.dumps(more).encode())
  for path in sorted(p for pattern in patterns for p in _ROOT.glob(pattern)):
    digest.update(str(path.relative_to(_ROOT)).encode() + path.read_bytes())
  return digest.hexdigest()[:12]


def estimate(row: Row, again: bool = False) -> dict[str, Any]:
  """Compiles a row's program in a process of its own.

  Args:
    row: what to compile.
    again: compile it even if the compiled program of the same sources and
      versions has been kept.

  Returns:
    The figures of `estimates.figures`; or an `error`, why there are none.
  """
  versions = targets.compiler_versions(row.target)
  slug = _slug(row)
  own = hash_of(_PROGRAM_SOURCES, versions, row.xla_flags)
  kept = _KEPT / f'{slug}-{own}.gz'
  for old in _KEPT.glob(f'{slug}-*.gz'):
    if again or old != kept:
      old.unlink()
  _KEPT.mkdir(parents=True, exist_ok=True)
  log = _KEPT / f'{slug}.log'
  command = [sys.executable, '-m', 'benchmarks.ahead_of_time']
  with log.open('w') as messages:
    done = subprocess.run(
      [*command, json.dumps(dataclasses.asdict(row)), str(kept)],
      cwd=_ROOT,
      env=os.environ | _ENVIRONMENT,
      stdout=subprocess.PIPE,
      stderr=messages,
      text=True,
    )
  if done.returncode:
    return {'error': reason(log.read_text(errors='replace'), done.returncode)}
  return json.loads(done.stdout.splitlines()[-1])


def _slug(row: Row) -> str:
  again = ('rematerialized',) * row.rematerialize
  words = (row.network, row.program, row.clips, *again, row.target)
  return '-'.join(map(str, words)).replace(':', '-')


def reason(log: str, code: int) -> str:
  """Returns the first informative line of a process that failed.

  Args:
    log: what it wrote to stderr.
    code: the compiling process's exit code, below 0 if a signal ended it.
  """
  lines = [line.strip() for line in log.splitlines() if line.strip()]
  telling = [
    line for line in lines if re.search(r'^F\d{4} |Check failed', line)
  ]
  raised = [line for line in lines if re.match(r'[\w.]+(Error|Exit)\b', line)]
  ended = (
    f'signal {-code} ended it' if code < 0 else f'it ended with code {code}'
  )
  line = (telling[:1] or raised[-1:] or [ended])[0]
  # What comes before the name of the compiler's source says when and where.
  line = re.sub(r'^[A-Z]\d{4} .*?(\S+:\d+\])', r'\1', line)
  return line[:_MAX_REASON]


def record(row: Row, out: pathlib.Path, again: bool = False) -> dict[str, Any]:
  """Returns a row's record, and stores it in its target's file.

  Args:
    row: what to estimate.
    out: folder of the file, made if need be.
    again: whether a record of the same sources and versions is made anew.
  """
  path = results_path(row.target, out)
  content = {'target': row.target, 'rows': []}
  if path.exists():
    content = json.loads(path.read_text())
  key = dataclasses.asdict(row)
  versions = targets.compiler_versions(row.target)
  sources = hash_of((*_PROGRAM_SOURCES, *_FIGURE_SOURCES))
  made_of = {'sources': sources, 'versions': versions}
  records = content['rows']
  places = [i for i, r in enumerate(records) if key.items() <= r.items()]
  if places and not again and made_of.items() <= records[places[0]].items():
    return records[places[0]]
  today = datetime.date.today().isoformat()
  new = {**key, **made_of, 'date': today, **estimate(row, again)}
  if places:
    records[places[0]] = new
  else:
    records.append(new)
  path.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
  files.write_text(path, text + '\n')
  return new


def results_path(target: str, out: pathlib.Path) -> pathlib.Path:
  """Returns the file of a target's records."""
  return out / f'estimates-{target.replace(":", "-")}.json'


def rows(values: flags.FlagValues) -> list[Row]:
  """Returns the rows that the flags ask for, in order.

  Raises:
    UserError: a flag has a value that it cannot have.
  """
  for target in values.target:
    targets.check(target)
  for network in values.network:
    if network not in models.NAMES:
      raise UserError(
        f'Unknown network (={network!r}). There are {", ".join(models.NAMES)}.'
      )
  of_one = ('clips', 'program', 'rematerialize')
  alone = [f'--{name}' for name in of_one if values[name].present]
  if alone and not values.network:
    raise UserError(
      f'{", ".join(alone)} need --network: the standard table has its own.'
    )
  if values.rematerialize and values.program == 'infer':
    raise UserError(
      '--rematerialize needs a train step: inference has no backward pass. '
      'Leave it out, or give --program=train.'
    )
  asked = [
    (network, values.program, values.clips, values.rematerialize)
    for network in values.network
  ]
  return [
    Row(*fields, target, os.environ.get('XLA_FLAGS', ''))
    for fields in asked or STANDARD
    for target in values.target or (_TARGETS[:1] if asked else _TARGETS)
  ]


def main(values: flags.FlagValues) -> int:
  """Estimates all rows, prints them, and returns the exit code."""
  asked = rows(values)
  for row in asked:
    targets.compiler_versions(row.target)
  records = []
  for row in asked:
    records.append(record(row, pathlib.Path(values.out), values.again))
    print(f'{row.target}: {estimates_table.short(records[-1])}', flush=True)
  for target in dict.fromkeys(row.target for row in asked):
    of_target = [r for r in records if r['target'] == target]
    print(f'\n{estimates_table.text(of_target)}')
  failed = any('error' in r for r in records)
  return int(failed and bool(values.network))


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_list(
    'network',
    [],
    'Networks to compile, separated by commas; without it a standard table of '
    'programs.',
    flag_values=values,
  )
  flags.DEFINE_list(
    'target',
    [],
    'Devices to compile for, separated by commas: TPU topologies such as '
    f'v5e:2x2, h100, or h200. Without it {_TARGETS[0]} for --network, '
    f'{" and ".join(_TARGETS)} for the table.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'clips', _CLIPS, 'Number of clips per device.', 1, flag_values=values
  )
  flags.DEFINE_bool(
    'rematerialize',
    False,
    'Recompute the activations of blocks in the backward pass.',
    flag_values=values,
  )
  flags.DEFINE_enum(
    'program',
    PROGRAMS[0],
    PROGRAMS,
    'Program to compile: a train step or inference.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'out', _RESULTS, 'Folder to write the JSON files to.', flag_values=values
  )
  flags.DEFINE_bool(
    'again',
    False,
    'Compile programs again whose estimates are in --out already.',
    flag_values=values,
  )


COMMAND = cli.Command(
  lambda values, _: main(values), define_flags, resumes=True
)


if __name__ == '__main__':
  cli.run(COMMAND)
