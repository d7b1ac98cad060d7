"""`mtnet features` writes a row for every video that can be read."""

import numpy as np
import pytest

from mtnet_jax.commands import features as features_command
from mtnet_jax.prediction import Predictor
from tests import command_line
from tests.prediction_runs import write_run

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  write_run(workdir, '')
  return workdir


def _run(run, out, *videos):
  flags = f'--workdir={run}', f'--out={out}'
  return command_line.run(features_command.COMMAND, *flags, *videos)


def test_a_folder_and_an_array(run, blinking_videos, tmp_path):
  frames = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
  np.save(tmp_path / 'array.npy', frames)
  out = tmp_path / 'new' / 'features.npz'
  folder = blinking_videos / 'val'
  done = _run(run, out, tmp_path / 'array.npy', folder)
  assert done.code == 0, done.stderr
  assert done.stdout == f'{out}: features of 5 videos\n'
  assert 'features: 5/5 videos, ' in done.stderr and '/s' in done.stderr
  assert [path.name for path in out.parent.iterdir()] == ['features.npz']
  with np.load(out) as stored:
    assert sorted(stored) == ['features', 'ids']
    ids, features = stored['ids'].tolist(), stored['features']
  videos = [f'{folder}/{c}/{i}.mp4' for c in ('bright', 'dark') for i in (0, 1)]
  assert ids == [f'{tmp_path}/array.npy', *videos]
  assert features.shape == (5, 96) and features.dtype == np.float32
  predictor = Predictor(run)
  views = predictor.features(predictor.views(videos[2]))  # 2 clips × 3 crops
  assert len(views) == 6
  np.testing.assert_allclose(features[3], views.sum(axis=0) / 6, rtol=1e-5)


def test_broken_videos_are_counted_and_named(run, blinking_videos, tmp_path):
  good = blinking_videos / 'test/dark/0.mp4'
  (tmp_path / 'cut.mp4').write_bytes(good.read_bytes()[:200])
  out = tmp_path / 'features.npz'
  done = _run(run, out, tmp_path / 'cut.mp4', good, tmp_path / 'none*.mp4')
  assert done.code == 1
  lines = done.stderr.splitlines()
  start = lines.index('2 of 3 left out:')
  assert f'{tmp_path}/none*.mp4: no file matches this' in lines[start + 1]
  assert f'{tmp_path}/cut.mp4 cannot be read: ' in lines[start + 2]
  with np.load(out) as stored:
    assert stored['ids'].tolist() == [str(good)]
    assert stored['features'].shape == (1, 96)


def test_no_video_no_file(run, tmp_path):
  out = tmp_path / 'features.npz'
  (tmp_path / 'empty').mkdir()
  done = _run(run, out, tmp_path / 'empty')
  assert done.code == 2 and '1 of 1 left out:' in done.stderr
  assert 'there is no video in this folder' in done.stderr
  assert not out.exists()


@pytest.mark.parametrize(
  ('out', 'videos', 'sentence'),
  [
    ('f.npz', (), 'error: No video is named. Give files, folders or patterns'),
    ('f.npy', ('x',), 'f.npy) must be a name that ends in .npz.'),
    ('file/f.npz', ('x',), 'file cannot be written: File exists.'),
    ('f.npz', ('x',), 'There is no folder'),
  ],
)
def test_mistakes_are_told_before_any_work(out, videos, sentence, tmp_path):
  (tmp_path / 'file').write_text('')
  done = _run(tmp_path / 'nowhere', tmp_path / out, *videos)
  assert done.code == 2 and sentence in done.stderr
  assert done.stderr.count('\n') == 1
