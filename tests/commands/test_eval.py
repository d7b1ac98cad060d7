"""`eval.py` goes by the run's own configuration, as `predict.py` does."""

import json
import logging

import numpy as np
import pytest

from mtnet_jax.commands import eval as eval_command
from mtnet_jax.commands import predict
from tests import command_line
from tests.prediction_runs import write_run

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def run(blinking_videos, tmp_path_factory):
  """A run on clips of four frames, every second one, of two clips a video."""
  workdir = tmp_path_factory.mktemp('run')
  write_run(workdir, blinking_videos)
  return workdir


def _evaluate(run, *flags):
  return command_line.run(eval_command.COMMAND, f'--workdir={run}', *flags)


def _scores(run):
  with np.load(run / 'evaluation/predictions.npz') as found:
    return dict(zip(found['ids'], found['probabilities'], strict=True))


@pytest.mark.parametrize('flags', [[], ['--config.eval.num_clips=1']])
def test_a_video_is_judged_as_predict_judges_it(run, blinking_videos, flags):
  done = _evaluate(run, *flags)
  assert done.code == 0, done.stderr
  scores = _scores(run)
  assert len(scores) == 8
  videos = [blinking_videos / name for name in scores]
  done = command_line.run(
    predict.COMMAND, f'--workdir={run}', '--json', *flags, *videos
  )
  assert done.code == 0, done.stderr
  lines = [json.loads(line) for line in done.stdout.splitlines()]
  for line, row in zip(lines, scores.values(), strict=True):
    told = [line['probabilities'][name] for name in ('bright', 'dark')]
    np.testing.assert_allclose(told, row, atol=1e-6)


def test_other_frames_than_those_learned_from(run, caplog):
  """The demo's network is right in 17 % of the videos then, and not in 96 %."""
  before = _evaluate(run).stdout
  expected = _scores(run)
  done = _evaluate(run, '--config.data.frame_stride=1')
  assert done.code == 2
  assert 'data.frame_stride is 2 in the run, 1 was given' in done.stderr
  flags = '--config.data.frame_stride=1', '--allow_other_config'
  with caplog.at_level(logging.WARNING):
    done = _evaluate(run, *flags)
  assert done.code == 0, done.stderr
  assert 'data.frame_stride is 2 in the run, 1 was given' in caplog.text
  name = next(iter(expected))
  assert abs(_scores(run)[name] - expected[name]).max() > 1e-5
  assert _evaluate(run).stdout == before


def test_a_file_must_be_of_the_run(root, run):
  """`configs/quickstart.py` has clips of 8 frames of 48 x 48."""
  done = _evaluate(run, f'--config={root}/configs/quickstart.py')
  assert done.code == 2
  assert 'data.num_frames is 4 in the run, 8 was given' in done.stderr
  assert 'model.recurrence is False in the run' in done.stderr


def test_a_folder_that_is_no_run(tmp_path):
  done = _evaluate(tmp_path / 'none')
  assert done.code == 2 and len(done.stderr.splitlines()) == 1
  assert 'config.json cannot be read: No such file' in done.stderr


def test_a_configuration_that_makes_no_network(run, tmp_path):
  config = json.loads((run / 'config.json').read_text())
  config['model']['dropout'] = 'x'
  config['data']['dir'] = str(config['data']['dir'])
  (tmp_path / 'config.json').write_text(json.dumps(config))
  (tmp_path / 'labels.txt').write_text((run / 'labels.txt').read_text())
  (tmp_path / 'checkpoints').symlink_to(run / 'checkpoints')
  done = _evaluate(tmp_path)
  assert done.code == 2 and 'makes no network' in done.stderr
