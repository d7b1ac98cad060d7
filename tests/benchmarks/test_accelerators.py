"""Compilers' estimates: what is compiled, read, kept and told."""

import dataclasses
import importlib.metadata
import json
import subprocess
import types

import pytest
from absl import flags

from benchmarks import (
  accelerators,
  communication,
  estimates,
  estimates_table,
)
from benchmarks.estimates import Compiled, Row
from mtnet_jax import cli, models
from mtnet_jax.devices import targets
from mtnet_jax.errors import UserError

_ROW = Row('mtnet_xs', 'train', 8, False, 'v5e:2x2')
_TEXT = """\
ENTRY %main (p: f32[1000]) -> f32[1000] {
  %p = f32[1000]{0} parameter(0)
  %r = f32[1000]{0} all-reduce(%p), to_apply=%add
  %c = f32[1000]{0} copy(%r), backend_config={"estimated_cycles":"3000000"}
  ROOT %n = f32[1000]{0} negate(%c), metadata={op_name="jit(train_step)/neg"}, \
backend_config={"estimated_cycles":"1000000"}
}
"""
_COMPILED = Compiled(
  _TEXT,
  {'lower': 4.2, 'compile': 90.4, 'compile_cpu': 1234.5},
  {'needed': 2**30, 'peak': 2**29},
)


@pytest.fixture
def work(monkeypatch):
  """What a network needs at least: 197 GFLOP and 0.819 GB a clip."""
  asked = []

  def measure(name, passes):
    asked.append((name, passes))
    return communication.Network(197e9, 0.819e9, 0, 0)

  monkeypatch.setattr(communication, 'measure', measure)
  return asked


@pytest.fixture
def compilers(monkeypatch):
  """Every compiler is here."""
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: f'1-{name}')


def _flags(*argv):
  values = flags.FlagValues()
  accelerators.define_flags(values)
  values(['', *argv])
  return values


# Figures.


def test_figures_of_a_tpu(work):
  found = estimates.figures(_ROW, _COMPILED)
  assert found['cycles'] == 4_000_000
  # 8 clips of a thousandth of the peaks of a second.
  clock = targets.chip('v5e:2x2').clock
  assert found['floor'] == round(8e-3 * clock)
  assert found['estimated_seconds'] == 4e6 / clock
  assert found['memory'] == {
    'needed': 2**30,
    'peak': 2**29,
    'device': 16 * 2**30,
  }
  assert found['parts']['copies and layout changes'] == 3_000_000
  assert found['parts']['optimizer'] == 1_000_000
  assert found['collectives'] == [
    {'kind': 'all-reduce', 'num_bytes': 4000, 'times': 1, 'overlapped': False}
  ]
  assert [row['name'] for row in found['costliest']] == ['c', 'n']
  again = dataclasses.replace(_ROW, rematerialize=True)
  estimates.figures(again, _COMPILED)
  assert work == [('mtnet_xs', 3), ('mtnet_xs', 4)]


def test_figures_of_a_gpu(work):
  row = dataclasses.replace(_ROW, target='h100')
  found = estimates.figures(row, _COMPILED)
  assert found['bytes'] == 3 * 2 * 4000
  assert found['floor'] == 8 * 0.819e9
  assert found['launches'] == {'collectives': 1, 'copies': 1, 'other': 1}
  assert found['parts']['copies and layout changes'] == 8000
  assert 'cycles' not in found


def _record(row=_ROW, **fields):
  versions = {'jax': '1', 'libtpu': '2'}
  own = {**dataclasses.asdict(row), 'versions': versions}
  return own | (fields or estimates.figures(row, _COMPILED))


def test_table_of_a_tpu(work):
  text = estimates_table.text([_record(), _record(error='Check failed: x | y')])
  lines = text.splitlines()
  assert lines[0].startswith(
    "Cycles, bytes, launches and memory are the compiler's estimates (jax 1, "
    'libtpu 2) for one device of v5e:2x2;'
  )
  assert lines[2:5] == [
    '| program | lower, s | compile, CPU s (wall) | estimated memory, peak, '
    'GiB | estimated M cycles | estimated ms | estimated clips/s a chip | '
    'floor, M cycles | times the floor | collectives |',
    '|' + ' --- |' * 10,
    '| mtnet_xs train, 8 clips | 4 | 1,234 (90) | 1.00, 0.500 of 16 | 4.00 | '
    '2.66 | 3,006 | 12.0 | 0.3 | 1 all-reduce, 0.00 MB, 0 asynchronous |',
  ]
  assert lines[6:9] == [
    '| program | no figures |',
    '| --- | --- |',
    '| mtnet_xs train, 8 clips | Check failed: x \\| y |',
  ]
  assert lines[10:] == [
    'mtnet_xs train, 8 clips:',
    '',
    '| part | estimated M cycles | share |',
    '| --- | --- | --- |',
    '| copies and layout changes | 3.00 | 75.0% |',
    '| optimizer | 1.00 | 25.0% |',
  ]


def test_table_of_a_gpu(work):
  row = dataclasses.replace(
    _ROW, target='h100', clips=1, rematerialize=True, xla_flags='--xla_x=1'
  )
  text = estimates_table.text([_record(row)])
  assert '| mtnet_xs train, 1 clip, rematerialized, --xla_x=1 |' in text
  assert '| 3: 1 collectives, 1 copies, 1 other | 0.0240 | 819 |' in text
  assert '| part | estimated MB | share |' in text


def test_a_record_in_a_line(work):
  line = estimates_table.short(_record())
  assert line.startswith('mtnet_xs train, 8 clips; lower, s 4;')
  assert 'estimated M cycles 4.00' in line
  failed = estimates_table.short(_record(error='why'))
  assert failed == 'mtnet_xs train, 8 clips: why'


def test_loops_of_unknown_length_are_told(work):
  record = _record()
  assert 'unknown' not in estimates_table.text([record])
  record['unknown_loops'] = ['while.1', 'while.2']
  assert '| loops of unknown length |' in estimates_table.text([record])
  assert estimates_table.short(record).endswith('loops of unknown length 2')


# Processes.


@pytest.mark.parametrize(
  ('log', 'code', 'expected'),
  [
    ('W0000 00:00:1 a.cc:1] slow\n'
     'F0000 00:00:17.2   42 fusion_util.cc:39] Check failed: a > 0 (0 vs. 1)\n'
     'F0000 00:00:17.2   42 other.cc:1] Check failed: b\n*** SIGABRT ***\n', -6,
     'fusion_util.cc:39] Check failed: a > 0 (0 vs. 1)'),
    ('E1130 04:17:56.80 14 a.cc:8] late\n'
     'F1130 04:17:56.80 14 flags.cc:2] Unknown flag in XLA_FLAGS: --x=1\n', 1,
     'flags.cc:2] Unknown flag in XLA_FLAGS: --x=1'),
    ('Traceback (most recent call last):\n  File "x"\n'
     'jax.errors.JaxRuntimeError: INTERNAL: no tile\nmore of it\n', 1,
     'jax.errors.JaxRuntimeError: INTERNAL: no tile'),
    ('Warning: slow\n', -9, 'signal 9 ended it'),
    ('', 3, 'it ended with code 3'),
    (f'ValueError: {"x" * 1000}', 1, f'ValueError: {"x" * 288}'),
  ],
)  # fmt: skip
def test_reasons(log, code, expected):
  assert accelerators.reason(log, code) == expected


@pytest.fixture
def children(monkeypatch, tmp_path, compilers):
  """Processes that are asked for; each succeeds unless `fails` says how."""
  asked = types.SimpleNamespace(rows=[], kept=[], fails=None)

  def run(command, cwd, env, stdout, stderr, text):
    assert env['JAX_PLATFORMS'] == 'cpu' and env['CUDA_VISIBLE_DEVICES'] == '-1'
    asked.rows.append(Row(**json.loads(command[3])))
    asked.kept.append(command[4])
    if asked.fails:
      stderr.write(asked.fails)
      return subprocess.CompletedProcess(command, -6, '')
    open(command[4], 'w').close()
    found = estimates.figures(asked.rows[-1], _COMPILED)
    return subprocess.CompletedProcess(command, 0, f'x\n{json.dumps(found)}\n')

  monkeypatch.setattr(subprocess, 'run', run)
  monkeypatch.setattr(accelerators, '_KEPT', tmp_path / 'kept')
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  return asked


def test_a_row_is_written_as_it_is_known(children, work, tmp_path):
  record = accelerators.record(_ROW, tmp_path / 'out')
  path = tmp_path / 'out' / 'estimates-v5e-2x2.json'
  content = json.loads(path.read_text())
  assert content == {'target': 'v5e:2x2', 'rows': [record]}
  assert record['network'] == 'mtnet_xs'
  assert record['cycles'] == 4_000_000
  assert record['versions'] == {
    name: f'1-{name}' for name in ('jax', 'jaxlib', 'libtpu')
  }
  # It is not made again, and another row is added.
  assert accelerators.record(_ROW, tmp_path / 'out') == record
  assert children.rows == [_ROW]
  other = dataclasses.replace(_ROW, clips=1)
  accelerators.record(other, tmp_path / 'out')
  clips = [r['clips'] for r in json.loads(path.read_text())['rows']]
  assert clips == [8, 1]
  assert children.rows == [_ROW, other]


def test_other_sources_and_versions_are_compiled_again(
  children, work, tmp_path, monkeypatch
):
  accelerators.record(_ROW, tmp_path)
  accelerators.record(_ROW, tmp_path, again=True)
  assert len(children.rows) == 2
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: '2')
  accelerators.record(_ROW, tmp_path)
  assert len(children.rows) == 3
  monkeypatch.setattr(accelerators, 'hash_of', lambda *_: 'other')
  record = accelerators.record(_ROW, tmp_path)
  assert len(children.rows) == 4
  content = json.loads((tmp_path / 'estimates-v5e-2x2.json').read_text())
  assert content['rows'] == [record]
  # Of the compiled programs the last is kept.
  (kept,) = (tmp_path / 'kept').glob('*.gz')
  assert str(kept) == children.kept[-1]


def test_hashes_follow_files():
  sources = ('benchmarks/hlo*.py',)
  assert accelerators.hash_of(sources) == accelerators.hash_of(sources)
  others = [
    accelerators.hash_of(('benchmarks/hlo.py',)),
    accelerators.hash_of(sources, {'jax': '1'}),
    accelerators.hash_of(sources, {'jax': '2'}),
  ]
  assert len({accelerators.hash_of(sources), *others}) == 4


def test_an_abort_is_a_row(children, work, tmp_path, capsys):
  children.fails = 'F0000 00:00:1 2 a.cc:3] Check failed: x\n'
  named = [f'--out={tmp_path}', '--network=mtnet_xs,x3d_s', '--target=h100']
  assert cli.call(accelerators.COMMAND, *named) == 1
  rows = json.loads((tmp_path / 'estimates-h100.json').read_text())['rows']
  assert [row['error'] for row in rows] == ['a.cc:3] Check failed: x'] * 2
  out = capsys.readouterr().out
  assert 'h100: mtnet_xs train, 16 clips: a.cc:3] Check failed: x' in out
  assert '| x3d_s train, 16 clips | a.cc:3] Check failed: x |' in out


def test_the_standard_table_is_resumed(children, work, tmp_path, capsys):
  out = f'--out={tmp_path}'
  children.fails = 'Check failed'
  assert cli.call(accelerators.COMMAND, out) == 0
  assert len(children.rows) == 2 * len(accelerators.STANDARD)
  assert {row.target for row in children.rows} == {'v5e:2x2', 'h100'}
  assert cli.call(accelerators.COMMAND, out, '--target=v5e:2x2') == 0
  assert len(children.rows) == 2 * len(accelerators.STANDARD)


# Flags.


def test_rows_of_the_flags(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_x=1')
  argv = '--network=x3d_m,mtnet_m', '--clips=4', '--rematerialize'
  assert accelerators.rows(_flags(*argv, '--target=h100,v5p:2x2x1')) == [
    Row(network, 'train', 4, True, target, '--xla_x=1')
    for network in ('x3d_m', 'mtnet_m')
    for target in ('h100', 'v5p:2x2x1')
  ]
  (row,) = accelerators.rows(_flags('--network=x3d_m', '--program=infer'))
  assert row == Row('x3d_m', 'infer', 16, False, 'v5e:2x2', '--xla_x=1')


def test_networks_of_the_standard_table_are_there():
  for row in accelerators.rows(_flags()):
    assert row.network in models.NAMES
    assert row.program in estimates.PROGRAMS


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    (['--network=x3d'], r"Unknown network \(='x3d'\). There are mtnet_xs"),
    (['--target=v9:1'], r"Unknown target \(='v9:1'\). Give h100"),
    (['--clips=2'], '--clips need --network'),
    (['--program=train', '--rematerialize'], '--program, --rematerialize need'),
    (['--network=x3d_m', '--rematerialize', '--program=infer'], 'no backward'),
  ],
)
def test_mistakes_in_flags(argv, message):
  with pytest.raises(UserError, match=message):
    accelerators.rows(_flags(*argv))


def test_without_a_compiler_it_says_what_to_do(monkeypatch, capsys):
  def version(name):
    if name in ('libtpu', 'jax-cuda13-plugin'):
      error = importlib.metadata.PackageNotFoundError()
      error.args = (name,)
      raise error
    return '1'

  monkeypatch.setattr(importlib.metadata, 'version', version)
  for target, compiler in (
    ('v5e:2x2', 'libtpu'),
    ('h200', 'jax-cuda13-plugin'),
  ):
    argv = '--network=x3d_m', f'--target={target}'
    assert cli.call(accelerators.COMMAND, *argv) == 2
    message = capsys.readouterr().err
    assert f'Compiling for {target} needs {compiler}' in message
    assert 'make accelerators' in message
