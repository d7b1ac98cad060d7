"""What all `prepare` commands do with their flags."""

import subprocess
import sys

import pytest
from absl import flags

from mtnet_jax.data import preparation, prepare_command
from mtnet_jax.errors import UserError
from tests import command_line


@pytest.fixture
def command(monkeypatch):
  """A command whose records are not written but shown."""

  def list_videos(values):
    if values.videos == 'none':
      raise UserError('No videos.')
    return [values.videos, values.annotations, values.number]

  def define_flags(values):
    flags.DEFINE_integer('number', 3, '', flag_values=values)

  monkeypatch.setattr(preparation, 'write', lambda *args: print(*args))
  monkeypatch.setattr(
    preparation, 'show', lambda manifest, out: print('shown', manifest, out)
  )
  return prepare_command.make(
    list_videos, videos='V.', annotations='A.', define_flags=define_flags
  )


_NEEDED = ('--videos=v', '--annotations=a', '--out=o')


def test_defaults(command):
  done = command_line.run(command, *_NEEDED)
  assert done.code == 0, done.stderr
  assert done.stdout == "['v', 'a', 3] o 0 16 0  []\nshown None o\n"


def test_all_flags(command):
  done = command_line.run(
    command,
    *_NEEDED,
    '--num_shards=2',
    '--num_frames=8',
    '--short_side=320',
    '--number=4',
    '--runner=DirectRunner',
    '--beam_options=--region=x,y',
    '--beam_options=--streaming',
  )
  assert done.code == 0, done.stderr
  assert done.stdout == (
    "['v', 'a', 4] o 2 8 320 DirectRunner ['--region=x,y', '--streaming']\n"
    'shown None o\n'
  )


def test_help(root):
  done = subprocess.run(
    [sys.executable, '-m', 'data.kinetics.prepare', '--help'],
    cwd=root,
    capture_output=True,
    text=True,
  )
  assert 'Makes record files of Kinetics' in done.stdout
  for name in ('annotations', 'beam_options', 'trimmed', 'out', 'videos'):
    assert f'--{name}:' in done.stdout or f'--[no]{name}:' in done.stdout


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (_NEEDED[1:], 'error: flag --videos=None: Flag --videos must have a value'),
    (_NEEDED[:2], 'error: flag --out=None: Flag --out must have a value'),
    ((*_NEEDED, '--num_frames=0'), 'error: flag --num_frames=0'),
    ((*_NEEDED, '--beam_options=--x'), 'error: --beam_options=--x is for'),
    ((*_NEEDED, '--videos=none'), 'error: No videos.'),
  ],
)
def test_mistakes(command, given, message):
  done = command_line.run(command, *given)
  assert done.code == 2
  assert done.stderr.startswith(message)
