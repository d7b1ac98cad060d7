"""What a run would need elsewhere: the lines, and what is refused."""

import importlib.metadata
import subprocess

import jax
import pytest

from mtnet_jax.commands import train
from mtnet_jax.devices import targets
from mtnet_jax.errors import UserError
from mtnet_jax.training import dry_run
from tests import command_line
from tests.tiny_runs import tiny_config, tiny_flags


@pytest.fixture
def one_chip(monkeypatch):
  """A v5e that is this machine's CPU, and takes two seconds for a step."""
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: '1')
  monkeypatch.setattr(targets, 'devices', lambda target: jax.devices()[:1])
  monkeypatch.setattr(dry_run, '_seconds', lambda compiled, chip: 2.0)


@pytest.mark.usefixtures('one_chip', 'quick_compilation')
def test_the_lines(blinking_videos):
  config = tiny_config(blinking_videos, train__short_cycle=True)
  text = dry_run.describe(config, 'v5e:1x1')
  assert 'mtnet_xs in float32 on v5e:1x1: 1 x 4 clips of (4, 32, 32, 3)' in text
  assert 'of 17.2 GB' in text
  assert '2000.0 ms' in text
  assert '43,200 steps a day; the loaders must deliver 2 clips a second' in text
  assert 'run: 12 steps, 0.00028 days' in text
  assert 'other shapes of about equal volume' in text


@pytest.mark.usefixtures('one_chip', 'quick_compilation')
def test_without_data_classes_are_assumed():
  text = dry_run.describe(tiny_config(''), 'v5e:1x1')
  assert 'run:' not in text and '2000.0 ms' in text


@pytest.mark.usefixtures('one_chip')
def test_a_batch_that_does_not_divide(monkeypatch):
  config = tiny_config('', train__batch_size=5)
  monkeypatch.setattr(targets, 'devices', lambda target: jax.devices() * 2)
  with pytest.raises(UserError, match=r'5\) must be divisible'):
    dry_run.describe(config, 'v5e:1x2')


@pytest.mark.parametrize(
  ('given', 'said'),
  [
    (['--dry_run'], 'belong together'),
    (['--target=v5e:2x2'], 'belong together'),
    (['--dry_run', '--target=v5x:2x2'], "Unknown target (='v5x:2x2')"),
    (['--dry_run', '--target=h100'], 'pip install "jax[cuda13]"'),
    (
      ['--dry_run', '--target=v5e:2x2', '--profile=1:2', '--process_id=0'],
      'leave out --profile, --process_id',
    ),
    ([], '--workdir=DIR is needed'),
  ],
)
def test_bad_flags(given, said):
  config = ['--config=configs/quickstart.py', *tiny_flags('')]
  done = command_line.run(train.COMMAND, *config, *given)
  assert done.code == 2 and said in done.stderr


@pytest.mark.slow
def test_a_real_compiler(root, blinking_videos):
  python = root / '.venv-aot/bin/python'
  if not python.exists():
    pytest.skip('.venv-aot, which `make test-slow` makes, is not here')
  done = subprocess.run(
    [
      *(python, 'train.py', '--config=configs/quickstart.py', '--dry_run'),
      *('--target=v5e:2x2', *tiny_flags(blinking_videos, light=True)),
    ],
    cwd=root,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert '4 x 1 clips' in done.stdout and 'steps a day' in done.stdout
