"""What all `prepare` commands do with their flags."""

import subprocess
import sys

# A command whose records are not written but shown.
_COMMAND = """
from absl import flags
from mtnet_jax import prepare_command
from mtnet_jax.data import preparation
from mtnet_jax.errors import UserError

def write(*args):
  print(*args)

def listed(values):
  if values.videos == 'none':
    raise UserError('No videos.')
  return [values.videos, values.annotations, values.number]

preparation.write = write
preparation.show = lambda manifest, out: print('shown', manifest, out)
flags.DEFINE_integer('number', 3, '')
prepare_command.run(listed, videos='V.', annotations='A.')
"""


def _run(root, *flags):
  done = subprocess.run(
    [sys.executable, '-c', _COMMAND, *flags],
    cwd=root,
    capture_output=True,
    text=True,
  )
  return done.returncode, done.stdout or done.stderr


_NEEDED = ('--videos=v', '--annotations=a', '--out=o')


def test_defaults(root):
  code, text = _run(root, *_NEEDED)
  assert code == 0, text
  assert text == "['v', 'a', 3] o 0 16 0  []\nshown None o\n"


def test_all_flags(root):
  code, text = _run(
    root,
    *(*_NEEDED, '--num_shards=2', '--num_frames=8', '--short_side=320'),
    *('--number=4', '--runner=DirectRunner', '--beam_options=--region=x,y'),
    '--beam_options=--streaming',
  )
  assert code == 0, text
  assert text == (
    "['v', 'a', 4] o 2 8 320 DirectRunner ['--region=x,y', '--streaming']\n"
    'shown None o\n'
  )


def test_help(root):
  _, text = _run(root, '--help')
  for name in ('annotations', 'beam_options', 'number', 'out', 'videos'):
    assert f'--{name}:' in text


def test_mistakes(root):
  for flags, message in [
    (_NEEDED[1:], 'error: flag --videos=None: Flag --videos must have a value'),
    (_NEEDED[:2], 'error: flag --out=None: Flag --out must have a value'),
    ((*_NEEDED, '--num_frames=0'), 'error: flag --num_frames=0'),
    ((*_NEEDED, '--beam_options=--x'), 'error: --beam_options=--x is for'),
    ((*_NEEDED, '--videos=none'), 'error: No videos.'),
  ]:
    code, text = _run(root, *flags)
    assert code == 2
    assert text.startswith(message)
