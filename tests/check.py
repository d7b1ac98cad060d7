"""What takes hours, and is run before a release: `make check`.

Each row is a command in an environment of its own. Its result is written as it
ends, to `.cache/check/rows.jsonl`; a run that was stopped goes on there, and
what has passed on the same tree of files is not run again.

  python -m tests.check              all rows that have not passed
  python -m tests.check --list       what they are, and how they stand
  python -m tests.check NAME...      those whose names begin so, in any case
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_FOLDER = _ROOT / '.cache/check'
_OLDEST = _ROOT / 'tests/constraints-oldest.txt'
_ROWS = _FOLDER / 'rows.jsonl'
_LIMIT = 4 * 3600  # seconds, for a row
_FAST = (
  '-m',
  'pytest',
  '--numprocesses=2',
  '--dist=loadfile',
  '--no-loadscope-reorder',
)
_LONG_ELSEWHERE = (
  *('tests/analysis', 'tests/benchmarks', 'tests/experiments'),
  *('tests/models', 'tests/ops', 'tests/test_notebook.py'),
)
_NETWORKS = (
  'x3d_m',
  'mtnet_xs',
  'mtnet_m',
  'mtnet_l',
  'srtg_r3d_34',
  'srtg_r2plus1d_34',
  'mt_r3d_50',
  'slow_r50',
  'slowfast_r50_8x8',
  'tsm_r50',
  'tanet_r50_8',
  'ir_csn_50',
  'ptv_r2plus1d_r50',
  'hara_r3d_50',
  'resnext3d_50',
  'i3d_inception',
  'mfnet',
)


@dataclasses.dataclass(frozen=True)
class Row:
  """What is run: python's arguments, in the environment of that name."""

  name: str
  environment: str
  arguments: tuple[str, ...]


def rows() -> list[Row]:
  """Returns all rows, the shortest first."""
  fast = (*_FAST, '-m', 'not slow and not check')
  check = ('-m', 'pytest', '-m', 'check', '-o', 'faulthandler_timeout=9000')
  return [
    Row('damaged videos', 'newest', (*check, 'tests/data')),
    Row('long trainings', 'newest', (*check, 'tests/runs', 'tests/training')),
    Row('other long tests', 'newest', (*check, *_LONG_ELSEWHERE)),
    Row('PyTorch parity', 'torch', (*check, 'tests/convert')),
    Row('oldest stack', 'oldest', fast),
    Row('newest stack', 'newest', fast),
    *(
      Row(
        f'{platform}: {network}',
        'accelerators',
        (
          *('-m', 'benchmarks.accelerators', f'--out={_FOLDER}'),
          *(f'--network={network}', f'--target={target}', '--clips=8'),
        ),
      )
      for network in _NETWORKS
      for platform, target in (('tpu', 'v5e:2x2'), ('cuda', 'h100'))
    ),
  ]


def python_of(environment: str) -> pathlib.Path:
  """Returns the interpreter of an environment, which is made where it is not.

  Args:
    environment: 'oldest': Python 3.11 with the versions of
      tests/constraints-oldest.txt; 'torch': the same Python with the newest,
      and PyTorch; 'newest': the newest packages, with Dask, on Python 3.12
      where it is here; 'accelerators': those with compilers for TPU and GPU, as
      `make accelerators` makes it.
  """
  if environment == 'accelerators':
    made = ['make', '.venv-aot/installed', f'AOT_PYTHON={_interpreter(False)}']
    subprocess.run(made, cwd=_ROOT, check=True)
    return _ROOT / '.venv-aot/bin/python'
  folder = _FOLDER / environment
  python, ready = folder / 'bin/python', folder / 'ready'
  wanted = (_ROOT / 'pyproject.toml').read_text() + _OLDEST.read_text()
  if ready.exists() and ready.read_text() == wanted:
    return python
  shutil.rmtree(folder, ignore_errors=True)
  old = environment in ('oldest', 'torch')
  subprocess.run([_interpreter(old), '-m', 'venv', folder], check=True)
  arguments = ['-e', '.[dev,dask]' if environment == 'newest' else '.[dev]']
  if environment == 'oldest':
    # Apache Beam asks for newer versions; its tests are skipped.
    arguments = ['-e', '.[test]', '--constraint', str(_OLDEST)]
  elif environment == 'torch':
    arguments += ['torch==2.13.0']
  pip = [python, '-m', 'pip', '--disable-pip-version-check', 'install', '-q']
  subprocess.run([*pip, *arguments], cwd=_ROOT, check=True)
  ready.write_text(wanted)
  return python


def _interpreter(old: bool) -> str:
  names = ('3.11',) if old else ('3.12', '3.13', '3.14')
  for name in names:
    if f'{sys.version_info[0]}.{sys.version_info[1]}' == name:
      return sys.executable
    found = sorted(pathlib.Path.home().glob(f'.pyenv/versions/{name}.*'))
    if found:
      return str(found[-1] / 'bin/python')
    if path := shutil.which(f'python{name}'):
      return path
  raise SystemExit(f'No Python {" or ".join(names)} is here; install one.')


def _tree() -> str:
  """Names the tree of files as it is, changes included."""

  def git(*arguments):
    done = subprocess.run(
      ['git', *arguments], cwd=_ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()

  return git('rev-parse', f'{git("stash", "create") or "HEAD"}^{{tree}}')


def _passed(tree: str) -> set[str]:
  """Names of the rows that have passed on a tree; a torn last line is none."""
  names = set()
  for line in _ROWS.read_text().splitlines() if _ROWS.exists() else ():
    try:
      record = json.loads(line)
    except ValueError:
      continue
    if record['tree'] == tree and record['passed']:
      names.add(record['row'])
  return names


def _run(row: Row, tree: str) -> bool:
  start = time.time()
  log = _FOLDER / f'{re.sub("[^a-z0-9_]+", "-", row.name)}.log'
  code = None
  try:
    python = python_of(row.environment)
    with log.open('w') as file:
      code = subprocess.run(
        [python, *row.arguments],
        cwd=_ROOT,
        env=os.environ | {'CI': '1'},
        stdout=file,
        stderr=subprocess.STDOUT,
        timeout=_LIMIT,
      ).returncode
    lines = log.read_text().strip().splitlines()
    last = lines[-1] if lines else ''
  except subprocess.CalledProcessError as error:
    last = f'The environment {row.environment!r} cannot be made: {error}'
  except subprocess.TimeoutExpired:
    last = f'It took more than {_LIMIT} s.'
  record = {
    'row': row.name,
    'tree': tree,
    'passed': code == 0,
    'seconds': round(time.time() - start),
    'last line': last,
  }
  with _ROWS.open('a') as file:
    file.write(json.dumps(record) + '\n')
    file.flush()
    os.fsync(file.fileno())
  _print(row.name, 'passed' if code == 0 else f'FAILED, see {log}', last)
  return code == 0


def _print(name: str, state: str, last: str = '') -> None:
  print(f'{name:24} {state}  {last}', flush=True)


def main() -> int:
  """Runs rows, and returns how many have failed."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    'names',
    nargs='*',
    help='beginnings of the names of the rows to run; default: all rows '
    'that have not passed',
  )
  parser.add_argument(
    '--list',
    action='store_true',
    help='list the rows and their state, and run none',
  )
  options = parser.parse_args()
  _FOLDER.mkdir(parents=True, exist_ok=True)
  tree = _tree()
  passed = _passed(tree)
  wanted = [
    row
    for row in rows()
    if not options.names or row.name.startswith(tuple(options.names))
  ]
  if not wanted:
    names = ', '.join(row.name for row in rows())
    print(f'No row begins with {options.names}; there are: {names}.')
    return 1
  failed = 0
  for row in wanted:
    if options.list:
      _print(row.name, 'passed' if row.name in passed else 'to be run')
    elif row.name in passed and not options.names:
      _print(row.name, 'passed before')
    else:
      failed += not _run(row, tree)
  return failed


if __name__ == '__main__':
  sys.exit(main())
