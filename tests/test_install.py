"""What is installed works from an empty folder, as a wheel and editable."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

from tests.tiny_runs import tiny_flags

_INSTALLED = 'mtnet_jax', 'configs', 'data'
_FILES = 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'


@dataclasses.dataclass(frozen=True)
class Environment:
  """A virtual environment that holds the package, and an empty folder."""

  bin: pathlib.Path
  folder: pathlib.Path
  source: pathlib.Path

  def run(self, *command, cwd=None) -> str:
    """What a command of it prints."""
    program, *arguments = map(str, command)
    # Nothing but the environment says where the package is.
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
      [str(self.bin / program), *arguments],
      cwd=cwd or self.folder,
      env=env,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def source(root, tmp_path_factory):
  """A copy of what is installed: building leaves files beside it."""
  folder = tmp_path_factory.mktemp('source')
  leave_out = shutil.ignore_patterns('__pycache__')
  for name in _INSTALLED:
    shutil.copytree(root / name, folder / name, ignore=leave_out)
  for name in (*_FILES, 'train.py'):
    shutil.copy(root / name, folder / name)
  return folder


def _pip(python, *arguments):
  """Works without a network; the packages beside ours are those of here."""
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
  options = ['--quiet', '--no-deps', '--no-build-isolation']
  command = [*pip, f'--python={python}', *arguments[:1], *options]
  done = subprocess.run(
    [*command, *map(str, arguments[1:])], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr


def _environment(source, tmp_path_factory, *what) -> Environment:
  top = tmp_path_factory.mktemp('environment')
  venv = [sys.executable, '-m', 'venv', '--without-pip', top / 'venv']
  subprocess.run(venv, check=True)
  version = f'python{sys.version_info[0]}.{sys.version_info[1]}'
  packages = top / 'venv/lib' / version / 'site-packages'
  # A path alone: what is editable here is not so there.
  (packages / 'others.pth').write_text(sysconfig.get_path('purelib') + '\n')
  _pip(top / 'venv/bin/python', 'install', *what)
  (top / 'empty').mkdir()
  return Environment(top / 'venv/bin', top / 'empty', source)


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory) -> Environment:
  out = tmp_path_factory.mktemp('wheel')
  _pip(sys.executable, 'wheel', source, f'--wheel-dir={out}')
  (path,) = out.glob('mtnet_jax-*.whl')
  return _environment(source, tmp_path_factory, path)


@pytest.fixture(scope='module')
def editable(source, tmp_path_factory) -> Environment:
  return _environment(source, tmp_path_factory, '--editable', source)


def _places(environment, cwd=None) -> list[pathlib.Path]:
  code = (
    'import mtnet_jax\n'
    'from mtnet_jax.configs import base\n'
    'from mtnet_jax.datasets.hacs import prepare\n'
    'from mtnet_jax.thesis import published\n'
    'assert len(published.read_all()) == 14\n'
    'for module in mtnet_jax, base, prepare: print(module.__file__)\n'
    'print(mtnet_jax.__version__)'
  )
  *files, version = environment.run('python', '-c', code, cwd=cwd).split()
  assert version == '0.2.0'
  return [pathlib.Path(file) for file in files]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_from_preparation_to_export(wheel, blinking_videos):
  packages = wheel.bin.parent / 'lib'
  for path in _places(wheel):
    assert packages in path.parents
  assert 'kept-frames' in wheel.run('mtnet', '--help')

  video = blinking_videos / 'test/dark/0.mp4'
  wheel.run(
    *('mtnet', 'prepare', 'folder'),
    *(f'--videos={blinking_videos}', '--out=records'),
  )
  flags = tiny_flags('records', light=True, train__num_steps=3)
  # Loader processes begin anew, with the script as their main module.
  run = [
    *('--config=quickstart', '--workdir=run', *flags),
    '--config.data.num_workers=1',
  ]
  wheel.run('mtnet', 'train', *run)
  wheel.run('mtnet', 'eval', *run)
  wheel.run('mtnet', 'export', '--workdir=run', '--out=exported')
  with np.load(wheel.folder / 'run/evaluation/predictions.npz') as file:
    assert file['probabilities'].shape == (8, 2)
    row = list(file['ids']).index('test/dark/0.mp4')
    evaluated = file['probabilities'][row]
  line = wheel.run('mtnet', 'predict', '--workdir=run', '--json', video)
  told = json.loads(line)['probabilities']
  found = [told['bright'], told['dark']]
  np.testing.assert_allclose(found, evaluated, atol=1e-5)
  code = (
    'import mtnet_jax, sys\n'
    'predictor = mtnet_jax.load(sys.argv[1])\n'
    'print(*predictor(sys.argv[2]).probabilities)'
  )
  loaded = wheel.run('python', '-c', code, 'exported', video).split()
  np.testing.assert_allclose(np.array(loaded, float), evaluated, atol=1e-5)


@pytest.mark.slow
def test_a_wheel_draws_its_own_data(wheel):
  counts = [f'--{split}=1' for split in ('train', 'val', 'test')]
  wheel.run('mtnet', 'prepare', 'stick_figures', '--out=figures', *counts)
  videos = (wheel.folder / 'figures').glob('*/*/0000.mp4')
  assert len(list(videos)) == 3 * 15


@pytest.mark.slow
def test_an_editable_installation_is_the_clone(editable):
  wanted = [
    editable.source / name
    for name in (
      'mtnet_jax/__init__.py',
      'configs/base.py',
      'data/hacs/prepare.py',
    )
  ]
  for folder in (editable.folder, editable.source):
    assert _places(editable, folder) == wanted
  (editable.folder / 'mine.py').write_text(
    'from mtnet_jax.configs import srtg\n'
    'def get_config():\n'
    "  return srtg.get_config('r3d_50')\n"
  )
  # Scripts and modules of the clone, and the same by verbs.
  for cwd, command in (
    (editable.folder, ('mtnet', 'train')),
    (editable.source, ('python', 'train.py')),
  ):
    told = editable.run(*command, '--help', cwd=cwd)
    assert 'Trains a video classifier' in told
  for cwd, command in (
    (editable.folder, ('mtnet', 'prepare', 'hacs')),
    (editable.source, ('python', '-m', 'data.hacs.prepare')),
  ):
    told = editable.run(*command, '--help', cwd=cwd)
    assert 'Makes record files of HACS Clips' in told
  code = (
    'import sys\n'
    'from absl import flags\n'
    'from mtnet_jax import cli\n'
    'cli.define_config(flags.FLAGS)\n'
    'flags.FLAGS(sys.argv)\n'
    'print(cli.get_config(flags.FLAGS).model.name)'
  )
  for cwd, config, name in (
    (editable.folder, 'srtg:r3d_34', 'srtg_r3d_34'),
    (editable.folder, 'mine.py', 'srtg_r3d_50'),
    (editable.source, 'configs/mtnet_l.py', 'mtnet_l'),
    (editable.source, 'transfer:mtnet_s', 'mtnet_s'),
  ):
    arguments = ('-c', code, f'--config={config}')
    assert editable.run('python', *arguments, cwd=cwd) == f'{name}\n'
