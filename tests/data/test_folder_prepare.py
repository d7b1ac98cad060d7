"""The command for any videos; tests/data/test_preparation.py has the rest."""

import subprocess
import sys

import pytest

from mtnet_jax.data import sources
from mtnet_jax.data.video import VideoReader
from tests.data import coded_video


@pytest.fixture
def videos(tmp_path):
  """Three training videos, a text and a short one among them; one for test."""
  root = tmp_path / 'videos'
  for name, length in (
    ('train/hug/1', 20),
    ('train/wave/short', 5),
    ('test/wave/1', 20),
  ):
    (root / name).parent.mkdir(parents=True)
    coded_video.write(root / f'{name}.mp4', coded_video.frames(length))
  (root / 'train/wave/text.mp4').write_text('no video')
  return root


def _run(root, *flags):
  return subprocess.run(
    [sys.executable, '-m', 'data.folder.prepare', *flags],
    cwd=root,
    capture_output=True,
    text=True,
  )


def test_the_command(root, videos, tmp_path):
  out = tmp_path / 'out'
  done = _run(root, f'--videos={videos}', f'--out={out}', '--short_side=24')
  with VideoReader(sources.open_source(out, 'test')[0].video) as video:
    assert video.height == 24
  assert done.returncode == 0, done.stderr
  assert 'train: 2 videos of 2 classes, 1 skipped, 1 short' in done.stdout
  assert 'skipped train/wave/text.mp4: Invalid data' in done.stdout
  assert 'short train/wave/short.mp4: 5 frames' in done.stdout
  assert 'preparing: 4/4 videos' in done.stderr


def test_mistakes_end_the_command_with_a_sentence(root, videos, tmp_path):
  file = tmp_path / 'file'
  file.touch()
  for flags, message in [
    (['--videos=/nowhere', f'--out={tmp_path / "o"}'], 'There is no data at'),
    ([f'--videos={videos}', f'--out={file}/out'], 'cannot be written: Not a'),
  ]:
    done = _run(root, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')
    assert message in done.stderr
    assert done.stderr.count('\n') == 1
