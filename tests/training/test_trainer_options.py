"""A run with all that is off by default: it resumes, and is read as one."""

import shutil

import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.prediction.predictor import Predictor
from mtnet_jax.runs import metric_writer
from mtnet_jax.training import loop
from tests.checkpoint_files import stored_bytes, stored_leaves
from tests.tiny_runs import tiny_config

pytestmark = [
  pytest.mark.slow,
  pytest.mark.usefixtures('quick_compilation'),
]

_ALL = {
  'optim__name': 'adamw',
  'optim__learning_rate': 0.01,
  'optim__clip_norm': 0.5,
  'optim__ema_decay': 0.75,
  'optim__label_smoothing': 0.1,
  'train__accumulate': 2,
  'train__patience': 5,
  'train__num_steps': 8,
  'train__eval_every': 4,
  'data__mixup_share': 0.5,
  'data__cutmix_share': 0.5,
  'data__rand_augment': 2,
  'data__augment_share': 0.5,
}


@pytest.fixture(scope='module')
def trained(blinking_videos, tmp_path_factory):
  """A finished run of eight steps, four updates, and its workdir."""
  workdir = tmp_path_factory.mktemp('runs') / 'whole'
  config = tiny_config(blinking_videos, **_ALL)
  loop.train(config, workdir)
  return config, workdir


def test_resuming_in_the_middle_of_an_update_repeats_every_bit(
  trained, tmp_path
):
  config, workdir = trained
  shutil.copytree(workdir, tmp_path / 'again')
  shutil.rmtree(tmp_path / 'again/checkpoints/8')
  loop.train(config, tmp_path / 'again')
  whole, again = (stored_bytes(of, 8) for of in (workdir, tmp_path / 'again'))
  assert whole == again
  first, second = (
    [
      {name: record[name] for name in record if name.startswith('val')}
      for record in metric_writer.read(of / 'metrics.jsonl')
    ]
    for of in (workdir, tmp_path / 'again')
  )
  assert first == second


def test_what_stands_for_the_run_is_the_average(trained, tmp_path):
  config, workdir = trained
  stored = stored_leaves(workdir, 8)
  path = "['params']['classifier']['kernel']"
  average = stored[f'variables{path}']
  assert (average != stored[f"optimizer['trained']{path}"]).any()
  found = Predictor(workdir, checkpoint='last').variables
  np.testing.assert_array_equal(
    found['params']['classifier']['kernel'], average
  )
  # A run that starts from it starts from the average, its own average too.
  config = config.copy_and_resolve_references()
  config.train.init_from = str(workdir / 'checkpoints/8')
  config.optim.update(learning_rate=0.0, warmup_steps=0)
  config.train.num_steps = 2
  loop.train(config, tmp_path)
  started = stored_leaves(tmp_path, 2)
  for item in ('variables', "optimizer['trained']"):
    np.testing.assert_array_equal(started[f'{item}{path}'], average)


def test_a_checkpoint_of_other_options_is_told(trained, tmp_path):
  config, workdir = trained
  for changes in (
    {'ema_decay': 0.0},
    {'name': 'sgd'},
  ):
    other = config.copy_and_resolve_references()
    other.optim.update(changes)
    other.train.num_steps = 10
    with pytest.raises(
      UserError, match='of another optimizer, accumulation or moving average'
    ):
      loop.train(other, workdir)


def test_clipping_begins_in_the_middle_of_a_run(blinking_videos, tmp_path):
  config = tiny_config(
    blinking_videos, train__num_steps=2, optim__warmup_steps=0
  )
  loop.train(config, tmp_path)
  config.optim.clip_norm = 1e-3
  config.train.num_steps = 4
  loop.train(config, tmp_path)
  records = metric_writer.read(tmp_path / 'metrics.jsonl')
  assert [r['step'] for r in records if 'train/loss' in r] == [1, 2, 3, 4]
