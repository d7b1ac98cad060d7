"""The command for any videos; tests/data/test_preparation.py has the rest."""

import pytest

from mtnet_jax.data import sources
from mtnet_jax.data.video import VideoReader
from tests.data import coded_video, official


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


def test_the_command(videos, tmp_path):
  out = tmp_path / 'out'
  done = official.prepare('folder', videos=videos, out=out, short_side=24)
  assert done.code == 0, done.stderr
  with VideoReader(sources.open_source(out, 'test')[0].video) as video:
    assert video.height == 24
  assert (
    'train: 2 videos of 2 classes; 0 missing, 1 broken, 1 short' in done.stdout
  )
  assert 'skipped train/wave/text.mp4: Invalid data' in done.stdout
  assert 'short train/wave/short.mp4: 5 frames' in done.stdout
  assert 'preparing: 4/4 videos' in done.stderr


def test_mistakes_end_the_command_with_a_sentence(videos, tmp_path):
  file = tmp_path / 'file'
  file.touch()
  for flags, message in [
    ({'videos': '/nowhere', 'out': tmp_path / 'o'}, 'There is no data at'),
    ({'videos': videos, 'out': file / 'out'}, 'cannot be written: Not a'),
  ]:
    done = official.prepare('folder', **flags)
    assert done.code == 2
    assert done.stderr.startswith('error: ')
    assert message in done.stderr
    assert done.stderr.count('\n') == 1
