"""One command from a folder of videos to a classifier."""

import json
import shutil

import pytest

from mtnet_jax.commands import finetune
from mtnet_jax.training import recipe
from tests import command_line
from tests.prediction_runs import write_run
from tests.tiny_runs import tiny_flags

pytestmark = pytest.mark.usefixtures('quick_compilation')

# The recipe sets these; so small, a test waits for nothing.
_SMALL = (
  *(
    flag
    for flag in tiny_flags('', light=True)
    if 'data.dir' not in flag and 'batch_size' not in flag
  ),
  '--config.train.compilation_cache=',
)


@pytest.fixture(scope='module')
def videos(blinking_videos, tmp_path_factory):
  """Two classes, 8 videos for training and 4 for testing of each."""
  root = tmp_path_factory.mktemp('own')
  for split in ('train', 'test'):
    shutil.copytree(blinking_videos / split, root / split)
  return root


def _run(data, out, *flags):
  return command_line.run(
    finetune.COMMAND, f'--data={data}', f'--out={out}', *flags
  )


@pytest.fixture(scope='module')
def done(videos, tmp_path_factory):
  out = tmp_path_factory.mktemp('runs') / 'mine'
  return _run(videos, out, *_SMALL), out


@pytest.mark.slow
def test_from_videos_to_a_classifier(videos, done):
  done, out = done
  assert done.code == 0, done.stderr
  told = done.stdout
  # One in seven of eight, of each class.
  assert 'There is no split val: 2 of the training videos' in told
  assert '14 videos for training, 2 for validation, 8 for testing' in told
  assert 'The network begins from nothing. From 14 clips' in told
  assert 'held-out videos are right' in told
  assert '8 videos are too few to tell networks apart' in told
  assert f'mtnet predict --workdir={out} VIDEO' in told
  assert 'length, frame rate and size alone' in told
  summary = json.loads((out / 'evaluation/summary.json').read_text())
  assert summary['videos'] == 8
  config = json.loads((out / 'config.json').read_text())
  assert config['train']['batch_size'] == 2  # at most an eighth of 14
  # The command line has the last word.
  assert config['train']['num_steps'] == 12
  assert config['data']['flip']


@pytest.mark.slow
def test_the_same_command_again_and_another(videos, done, tmp_path):
  _, out = done
  again = _run(videos, out, *_SMALL)
  assert again.code == 0, again.stderr
  assert 'videos for training' not in again.stdout  # it was planned before
  assert 'held-out videos are right' in again.stdout
  other = _run(videos, out, *_SMALL, '--minutes=3')
  assert other.code == 2
  assert '--minutes was None and is 3.0' in other.stderr


@pytest.mark.slow
def test_weights_bring_their_network_and_its_clips(
  videos, blinking_videos, tmp_path
):
  write_run(tmp_path / 'weights', blinking_videos)
  done = _run(
    videos,
    tmp_path / 'mine',
    f'--from={tmp_path / "weights"}',
    '--config.train.num_steps=4',
    '--config.train.eval_every=2',
    '--config.optim.warmup_steps=1',
    '--config.data.num_workers=0',
    '--config.train.compilation_cache=',
  )
  assert done.code == 0, done.stderr
  assert 'BN keeps the statistics of the weights' in done.stdout
  assert 'begins from nothing' not in done.stdout
  before, now = (
    json.loads((tmp_path / name / 'config.json').read_text())
    for name in ('weights', 'mine')
  )
  assert now['model']['name'] == before['model']['name']
  for key in ('num_frames', 'crop_size', 'input_size'):
    assert now['data'][key] == before['data'][key]
  assert now['data']['frame_stride'] == 3  # 12 frames of a video, 4 of a clip
  assert now['train']['freeze_norm']


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--minutes=0'], 'leaves no time to train'),
    (['--minutes=nan'], 'leaves no time to train'),
    (['--from=nowhere'], 'There is no run in --from=nowhere'),
    (['--data=nowhere'], 'There is no data at'),
    (['--config.optim.name=adamx'], 'adamx'),
  ],
)
def test_mistakes(videos, tmp_path, flags, message):
  done = _run(videos, tmp_path / 'out', *flags)
  assert done.code == 2
  assert message in done.stderr
  assert 'Traceback' not in done.stderr


def test_a_folder_that_holds_another_run(videos, tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  done = _run(videos, tmp_path)
  assert done.code == 2
  assert 'holds another run' in done.stderr and '--out' in done.stderr


def test_a_single_class(blinking_videos, tmp_path):
  for split in ('train', 'test'):
    folder = tmp_path / 'v' / split / 'dark'
    shutil.copytree(blinking_videos / split / 'dark', folder)
  done = _run(tmp_path / 'v', tmp_path / 'out')
  assert done.code == 2
  assert "all of one class, 'dark'" in done.stderr


def test_classes_with_one_video(blinking_videos, tmp_path, caplog):
  for name in ('bright', 'dark'):
    (tmp_path / 'v' / name).mkdir(parents=True)
    source = blinking_videos / 'train' / name / '0.mp4'
    shutil.copy(source, tmp_path / 'v' / name / '0.mp4')
  done = _run(tmp_path / 'v', tmp_path / 'out')
  assert done.code == 2
  assert '2 videos for training, and at least 8 are needed' in done.stderr


@pytest.mark.parametrize(
  'text', ['', '[]', '{"request": {}}', '{"request": 1, "config": {}}']
)
def test_a_damaged_plan(videos, tmp_path, text):
  (tmp_path / 'finetune.json').write_text(text)
  done = _run(videos, tmp_path)
  assert done.code == 2
  assert 'finetune.json' in done.stderr and 'Traceback' not in done.stderr


def test_minutes_shorten_the_training():
  config = recipe.shorten(finetune_config(), 500)
  slow = recipe.Pace(compile=30, step=0.5, clip=0.1)
  # 30 + 500 · 0.5 + 100 · 0.1 = 290 seconds fit into five minutes.
  kept, lines = recipe.limit(config, slow, 100, 5)
  assert kept.train.num_steps == 500 and 'about 5 minutes' in lines[-1]
  # Of 240, 10 are for judging and twice 30 for compiling: 170 / 0.5.
  shorter, lines = recipe.limit(config, slow, 100, 4)
  assert shorter.train.num_steps == 340
  assert lines[0] == '340 steps are what 4 minutes have time for.'
  # 10 + 60 + 50 · 0.5 seconds are needed.
  with pytest.raises(Exception, match=r'too short.*take 1\.6 minutes'):
    recipe.limit(config, slow, 100, 1)


def finetune_config():
  from mtnet_jax.configs import finetune as recipe_file

  return recipe_file.get_config()
