"""What `import mtnet_jax` gives, and what is installed."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import mtnet_jax
from mtnet_jax import models, prediction
from mtnet_jax.errors import UserError
from tests.prediction_runs import STEP, write_run

# Where packages stand that are not in the folder of their name.
_ELSEWHERE = {'mtnet_jax.configs': 'configs', 'mtnet_jax.datasets': 'data'}


def _setup(root):
  """What setup.py says, without running it."""
  call = ast.parse((root / 'setup.py').read_text()).body[-1].value
  return {k.arg: ast.literal_eval(k.value) for k in call.keywords}


def _folder(root, package):
  name, _, rest = package.partition('.')
  for prefix, folder in _ELSEWHERE.items():
    if package == prefix or package.startswith(f'{prefix}.'):
      name, rest = folder, package.removeprefix(prefix).lstrip('.')
  return root / name / rest.replace('.', '/')


def test_names_that_are_exported():
  assert mtnet_jax.build is models.build
  assert mtnet_jax.Predictor is prediction.Predictor
  assert {'Predictor', 'build', 'load', '__version__'} <= set(dir(mtnet_jax))
  with pytest.raises(AttributeError, match="'mtnet_jax' has no attribute 'x'"):
    mtnet_jax.x  # noqa: B018


def test_loaders_get_no_jax_with_the_package(root):
  code = (
    'import sys, mtnet_jax, mtnet_jax.data.pipeline; '
    'print("jax" in sys.modules); mtnet_jax.build; print("jax" in sys.modules)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, text=True
  )
  assert done.stdout.split() == ['False', 'True'], done.stderr


def test_load_gives_the_predictor_of_a_run(tmp_path):
  write_run(tmp_path / 'run', tmp_path, model__name='mtnet_xs')
  loaded = mtnet_jax.load(tmp_path / 'run', 'last')
  assert isinstance(loaded, mtnet_jax.Predictor) and loaded.step == STEP
  assert loaded.model.num_classes == 2 and 'params' in loaded.variables


def test_load_tells_what_is_no_model(tmp_path):
  with pytest.raises(UserError, match='neither a checkpoint nor an exported'):
    mtnet_jax.load(tmp_path)


def test_all_that_stands_in_the_tree_is_installed(root):
  setup = _setup(root)
  assert setup['package_dir'] == _ELSEWHERE
  found = {
    path.parent
    for top in ('mtnet_jax', 'configs', 'data')
    for path in (root / top).rglob('__init__.py')
  }
  # In their places stand the folders of the tree.
  found -= {root / 'mtnet_jax/configs', root / 'mtnet_jax/datasets'}
  assert {_folder(root, name) for name in setup['packages']} == found
  assert len(setup['packages']) == len(found)
  data = {
    path
    for package, patterns in setup['package_data'].items()
    for pattern in patterns
    for path in _folder(root, package).glob(pattern)
  }
  others = {
    path
    for path in (root / 'mtnet_jax').rglob('*.*')
    if path.is_file() and path.suffix not in ('.py', '.pyc')
  }
  assert data == others and root / 'mtnet_jax/py.typed' in data


def test_a_clone_has_the_packages_of_an_installation(root):
  from mtnet_jax.configs import base
  from mtnet_jax.datasets.folder import prepare

  assert pathlib.Path(base.__file__) == root / 'configs/base.py'
  assert pathlib.Path(prepare.__file__) == root / 'data/folder/prepare.py'


def test_metadata_stand_in_one_place(root):
  project = tomllib.loads((root / 'pyproject.toml').read_text())['project']
  assert set(_setup(root)) == {'packages', 'package_dir', 'package_data'}
  assert project['scripts'] == {'mtnet': 'mtnet_jax.commands.verbs:main'}
  assert mtnet_jax.__version__ == project['version']
  citation = (root / 'CITATION.cff').read_text()
  assert f'version: {project["version"]}\n' in citation


def test_lower_bounds_are_the_versions_that_are_tested(root):
  project = tomllib.loads((root / 'pyproject.toml').read_text())['project']
  bounds = {}
  for required in project['dependencies']:
    name, bound = re.match(r'([\w-]+)>=([\d.]+)', required).groups()
    bounds[name] = bound
  lines = (root / 'tests/constraints-oldest.txt').read_text().splitlines()
  pins = dict(line.split('==') for line in lines if '==' in line)
  assert {name: pins.get(name) for name in bounds} == bounds
