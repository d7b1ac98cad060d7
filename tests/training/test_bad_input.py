"""What users get wrong: a clear sentence, code 2, and nothing is lost."""

import os
import shutil
import subprocess
import sys

import jax.numpy as jnp
import pytest

from mtnet_jax.commands import eval as eval_command
from mtnet_jax.commands import train as train_command
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import scoring
from mtnet_jax.training import loop, setup
from tests import command_line
from tests.tiny_runs import tiny_config

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def trained(blinking_videos, tmp_path_factory):
  """The workdir of a run of three steps, not to be changed."""
  workdir = tmp_path_factory.mktemp('trained')
  loop.train(tiny_config(blinking_videos, train__num_steps=3), workdir)
  return workdir


@pytest.fixture
def run(trained, tmp_path):
  """A copy of it, which may be."""
  return shutil.copytree(trained, tmp_path / 'run')


def _fails(config, workdir, match):
  with pytest.raises(UserError, match=match):
    loop.train(config, workdir)


@pytest.mark.parametrize(
  ('command', 'missing'),
  [(train_command, 'nowhere'), (eval_command, 'run')],
)
def test_commands_end_with_code_2_and_one_sentence(
  root, tmp_path, command, missing
):
  done = command_line.run(
    command.COMMAND,
    f'--config={root}/configs/quickstart.py',
    f'--config.data.dir={tmp_path / "nowhere"}',
    f'--workdir={tmp_path / "run"}',
  )
  assert done.code == 2, done.stderr
  assert 'Traceback' not in done.stderr
  assert str(tmp_path / missing) in done.stderr.splitlines()[-1]


def test_unknown_model_names_the_nearest(blinking_videos, tmp_path):
  config = tiny_config(blinking_videos, model__name='mtnet_sx')
  _fails(config, tmp_path, r"'mtnet_sx'.*Did you mean.*'mtnet_xs'")


def test_placement_that_the_block_lacks(blinking_videos, tmp_path):
  config = tiny_config(
    blinking_videos,
    model__name='srtg_r3d_18',
    model__placement='top',
    light=False,
  )
  _fails(config, tmp_path, r"'top'.*start.*mid.*res.*final")


@pytest.mark.parametrize('ratio', [0.0, -0.5, 0.001, 1.5])
def test_local_ratio_without_a_local_branch(blinking_videos, tmp_path, ratio):
  config = tiny_config(blinking_videos, model__local_ratio=ratio)
  _fails(config, tmp_path, rf'local_ratio.*{ratio}')


def test_override_that_the_model_lacks(blinking_videos, tmp_path):
  config = tiny_config(blinking_videos, model__placement='final')
  _fails(config, tmp_path, r"mtnet_xs has no override 'placement'")


def test_missing_empty_and_unset_data(tmp_path):
  empty = tmp_path / 'empty'
  empty.mkdir()
  _fails(tiny_config(tmp_path / 'nowhere'), tmp_path / 'run', 'nowhere')
  _fails(tiny_config(empty), tmp_path / 'run', 'empty')
  _fails(tiny_config(''), tmp_path / 'run', r'data\.dir')


def test_a_cache_that_cannot_be_written_to(blinking_videos, tmp_path):
  (tmp_path / 'file').write_text('')
  cache = str(tmp_path / 'file/cache')
  config = tiny_config(blinking_videos, train__compilation_cache=cache)
  _fails(config, tmp_path / 'run', r'train\.compilation_cache .*written to')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('text', 'match'),
  [
    ('path,label\na.mp4,hug\n', 'split'),
    ('path,label,split\na.mp4,hug,trian\n', "'trian'.*train, val, test"),
    ('', 'clips.csv'),
  ],
)
def test_csv_that_does_not_say_enough(tmp_path, text, match):
  (tmp_path / 'clips.csv').write_text(text)
  _fails(tiny_config(tmp_path), tmp_path / 'run', match)


def _damaged(source, target, damage):
  """A copy of a data set in which every training video is damaged."""
  shutil.copytree(source, target)
  for path in target.glob('train/*/*.mp4'):
    damage(path)
  return target


def test_text_renamed_to_a_video(blinking_videos, tmp_path):
  videos = _damaged(
    blinking_videos, tmp_path / 'v', lambda p: p.write_text('I am no video\n')
  )
  _fails(
    tiny_config(videos),
    tmp_path / 'run',
    'training videos in a row cannot be read',
  )


def test_truncated_videos(blinking_videos, tmp_path):
  videos = _damaged(
    blinking_videos,
    tmp_path / 'v',
    lambda p: p.write_bytes(p.read_bytes()[:200]),
  )
  _fails(
    tiny_config(videos),
    tmp_path / 'run',
    'training videos in a row cannot be read',
  )


def test_one_broken_video_is_named_and_training_goes_on(
  blinking_videos, tmp_path, caplog
):
  videos = shutil.copytree(blinking_videos, tmp_path / 'v')
  (videos / 'train/dark/3.mp4').write_text('I am no video\n')
  config = tiny_config(
    videos, train__num_steps=8, data__max_broken_share=0.1, data__num_workers=1
  )
  loop.train(config, tmp_path / 'run')
  assert 'Left out of training: ' in caplog.text
  assert 'train/dark/3' in caplog.text
  assert (tmp_path / 'run/checkpoints/8').is_dir()


def test_more_broken_videos_than_allowed(blinking_videos, tmp_path):
  videos = shutil.copytree(blinking_videos, tmp_path / 'v')
  for number in range(3):
    (videos / f'train/dark/{number}.mp4').write_text('I am no video\n')
  config = tiny_config(videos, train__num_steps=8, data__max_broken_share=0.15)
  _fails(
    config,
    tmp_path / 'run',
    r'3 of 16 training videos .* more than data\.max_broken_share \(=15\.00%\)',
  )


def test_broken_test_video_is_named_beside_the_accuracy(
  run, blinking_videos, tmp_path
):
  videos = shutil.copytree(blinking_videos, tmp_path / 'v')
  (videos / 'test/dark/3.mp4').write_text('I am no video\n')
  predictions, _ = scoring.evaluate(tiny_config(videos), run)
  assert len(predictions.ids) == 7
  (name,) = predictions.broken
  assert 'test/dark/3' in name


def test_video_shorter_than_the_clip(blinking_videos, tmp_path):
  # Twelve frames: repeated in order by default, or refused.
  config = tiny_config(
    blinking_videos, data__num_frames=16, data__short_videos='error'
  )
  _fails(config, tmp_path / 'run', r'12 frames.*16')
  config.data.short_videos = 'repeat'
  config.train.num_steps = 3
  loop.train(config, tmp_path / 'run')


def test_batch_that_does_not_divide_by_the_devices(
  root, blinking_videos, tmp_path
):
  """A process of its own, which has two devices."""
  done = subprocess.run(
    [
      sys.executable,
      'train.py',
      '--config=configs/quickstart.py',
      f'--config.data.dir={blinking_videos}',
      f'--workdir={tmp_path}',
      '--config.train.batch_size=5',
    ],
    cwd=root,
    env=os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=2'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  sentence = done.stderr.splitlines()[-1]
  assert 'train.batch_size (=5) must be divisible' in sentence


@pytest.mark.parametrize(
  ('key', 'value', 'match'),
  [
    ('train__log_every', 0, r'train\.log_every \(=0\)'),
    ('eval__clips_per_step', 0, r'eval\.clips_per_step \(=0\)'),
    ('eval__input_size', 0, r'eval\.input_size \(=0\)'),
    ('optim__reference_batch', 0, r'optim\.reference_batch \(=0\)'),
    ('data__num_workers', -1, r'data\.num_workers \(=-1\)'),
    ('data__prefetch', 0, r'data\.prefetch \(=0\)'),
    ('optim__milestones', ('abc',), r"optim\.milestones \(=\('abc',\)\)"),
    ('model__dtype', 'float8', r'float8.*float32.*bfloat16'),
    ('model__pooling', 'max+cos', r"'max\+cos'.*'avg', .*'softpool\+cos'"),
    ('model__cell', 'elman', r"'elman'.*'gru', .*'rnn'"),
    ('train__validation_split', 'vall', r"'vall'.*validation_split="),
  ],
)
def test_values_that_make_no_sense(
  blinking_videos, tmp_path, key, value, match
):
  _fails(tiny_config(blinking_videos, **{key: value}), tmp_path, match)


def test_workdir_that_cannot_be_written(blinking_videos, tmp_path):
  (tmp_path / 'file').write_text('here')
  _fails(
    tiny_config(blinking_videos), tmp_path / 'file/run', 'cannot be written'
  )
  assert (tmp_path / 'file').read_text() == 'here'


def test_checkpoint_of_another_model_and_of_other_classes(
  run, blinking_videos, tmp_path
):
  before = sorted(p for p in run.rglob('*') if 'tensorboard' not in str(p))

  wider = tiny_config(blinking_videos, model__local_ratio=0.5)
  _fails(wider, run, r'expand/local_norm/mean is \(32,\), this model has')
  with pytest.raises(UserError, match=r'this model has'):
    scoring.evaluate(wider, run)

  more = shutil.copytree(blinking_videos, tmp_path / 'v')
  shutil.copytree(more / 'train/dark', more / 'train/gray')
  _fails(tiny_config(more), run, '2 classes, the data has 3: new are gray')
  fewer = shutil.copytree(blinking_videos, tmp_path / 'w')
  shutil.rmtree(fewer / 'train/dark')
  shutil.rmtree(fewer / 'val/dark')
  shutil.rmtree(fewer / 'test/dark')
  _fails(tiny_config(fewer), run, 'the data has 1: missing are dark')
  (run / 'labels.txt').unlink()
  _fails(
    tiny_config(more), run, r'classifier/bias is \(2,\), this model has \(3,\)'
  )
  (run / 'labels.txt').write_text('bright\ndark\n')
  after = sorted(p for p in run.rglob('*') if 'tensorboard' not in str(p))
  assert after == before


def test_evaluation_into_a_folder_that_cannot_be_written(run, blinking_videos):
  (run / 'evaluation').write_text('a file is in the way')
  with pytest.raises(UserError, match='evaluation cannot be written'):
    scoring.evaluate(tiny_config(blinking_videos), run)


def test_evaluation_leaves_a_half_written_checkpoint_alone(
  run, blinking_videos
):
  half = run / 'checkpoints/4.orbax-checkpoint-tmp'
  half.mkdir()
  scoring.evaluate(tiny_config(blinking_videos), run)
  assert half.is_dir()


def test_evaluation_without_a_checkpoint(blinking_videos, tmp_path):
  with pytest.raises(UserError, match=r'no checkpoint.*Train first'):
    scoring.evaluate(tiny_config(blinking_videos), tmp_path)


def test_too_little_memory_names_the_keys_that_help(
  blinking_videos, tmp_path, monkeypatch
):
  class Step:
    def lower(self, *unused):
      return jnp.zeros(2**40).block_until_ready()

  monkeypatch.setattr(setup, 'make_train_step', lambda *_, **__: Step())
  _fails(
    tiny_config(blinking_videos),
    tmp_path,
    r'4,398 GB were needed.*batch_size.*dtype.*rematerialize.*fsdp',
  )


def test_two_trainings_of_one_folder(root, blinking_videos, run, tmp_path):
  before = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
  config = tiny_config(blinking_videos, train__num_steps=4)
  holding = (
    'import sys, pathlib\n'
    'from mtnet_jax.runs import lock\n'
    'with lock.hold(pathlib.Path(sys.argv[1])):\n'
    '  print("held", flush=True)\n'
    '  input()\n'
  )
  with subprocess.Popen(
    [sys.executable, '-c', holding, run],
    cwd=root,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as other:
    assert other.stdout.readline() == 'held\n'
    match = f'{run} is held by another training, process {other.pid} on'
    _fails(config, run, match)
    # Others may read beside it.
    predictions, _ = scoring.evaluate(config, run)
    assert len(predictions.ids) == 8
    other.communicate('\n')
  assert other.returncode == 0
  after = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
  assert {p: after[p] for p in before} == before
  loop.train(config, run)
