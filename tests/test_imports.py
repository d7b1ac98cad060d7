"""Imports point one way only: from the shell down to arrays."""

import ast
import pathlib
import subprocess
import sys

import pytest

# Each room may import itself and what stands before it.
_ORDER = [
  ('errors', 'typing', 'progress', 'memory', 'run_exported'),
  ('cli',),
  ('data',),
  ('prepare_command',),
  ('native',),
  ('layers',),
  ('models',),
  ('preprocessing', 'compiler'),
  ('losses', 'metrics', 'optim'),
  ('state', 'distributed', 'metric_writer'),
  (
    *('checkpoints', 'train_step', 'quarantine', 'watch'),
    *('run_folder', 'stepwise'),
  ),
  ('window',),
  ('evaluation', 'transfer'),
  ('inputs', 'export'),
  ('export_onnx',),
  ('prediction',),
  ('timeline', 'explain', 'export_command'),
  ('predict_command',),
  ('training',),
  ('analysis',),
  ('experiments', 'convert'),
]
_RANK = {name: rank for rank, names in enumerate(_ORDER) for name in names}


def _imported(path: pathlib.Path) -> set[str]:
  """Full names of the modules that a file imports, wherever in the file."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def _rooms(names: set[str]) -> set[str]:
  parts = [name.split('.') for name in names]
  return {p[1] for p in parts if p[0] == 'mtnet_jax' and len(p) > 1}


def test_no_file_imports_what_stands_above_it(root):
  for path in (root / 'mtnet_jax').rglob('*.py'):
    room = path.relative_to(root / 'mtnet_jax').parts[0].removesuffix('.py')
    if room == '__init__':
      continue
    assert room in _RANK, f'{path}: give the new room {room} a rank'
    for other in _rooms(_imported(path)):
      assert _RANK[other] <= _RANK[room], f'{path} imports {other}'


def test_configs_import_nothing_of_the_library(root):
  for path in (root / 'configs').glob('*.py'):
    assert not _rooms(_imported(path)), path


def test_nobody_imports_a_data_set(root):
  files = [*(root / 'mtnet_jax').rglob('*.py'), *root.glob('*.py')]
  for path in files:
    assert not any(n.split('.')[0] == 'data' for n in _imported(path)), path


def test_data_sets_do_not_import_each_other(root):
  for path in (root / 'data').rglob('*.py'):
    names = [name.split('.') for name in _imported(path)]
    imported = {p[1] for p in names if p[0] == 'data' and len(p) > 1}
    assert imported <= {path.relative_to(root / 'data').parts[0]}, path


def test_the_loader_knows_no_jax(root):
  for path in (root / 'mtnet_jax/data').rglob('*.py'):
    roots = {name.split('.')[0] for name in _imported(path)}
    assert not roots & {'jax', 'flax', 'optax', 'orbax', 'chex'}, path


def test_entry_points_stay_thin(root):
  for name in ('train', 'eval', 'predict', 'explain', 'export'):
    assert len((root / f'{name}.py').read_text().splitlines()) <= 60


@pytest.mark.parametrize(
  'module',
  [
    'mtnet_jax.training',
    'mtnet_jax.data.pipeline',
    'mtnet_jax.predict_command',
    'mtnet_jax.explain.explainer',
    'mtnet_jax.export_command',
    'mtnet_jax.convert.torch_weights',
    'mtnet_jax.experiments.runner',
  ],
)
def test_tensorflow_never_loads(module, root):
  code = f'import sys, {module}; print("tensorflow" in sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, text=True
  )
  assert done.stdout.strip() == 'False', done.stderr
