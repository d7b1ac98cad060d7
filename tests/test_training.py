"""Real training on tiny videos: learning, resuming, dying, stopping."""

import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import quickstart
from mtnet_jax import evaluation, metric_writer, models, state, training
from mtnet_jax.errors import UserError

# A run so small that a step takes milliseconds.
_TINY = {
  'data.num_frames': 4,
  'data.frame_stride': 2,
  'data.short_side': 32,
  'data.crop_size': 32,
  'data.input_size': 32,
  'data.num_workers': 0,
  # Not 'cosine': another length would be another program to compile.
  'optim.schedule': 'step',
  'optim.warmup_steps': 2,
  'train.batch_size': 4,
  'train.num_steps': 12,
  'train.log_every': 1,
  'train.eval_every': 6,
  'train.checkpoint_every': 1,
  'eval.num_clips': 2,
  'eval.num_crops': 3,
  'eval.crop_size': 32,
  'eval.input_size': 32,
  'eval.clips_per_step': 4,
}


# Without MTConv's second branch and recurrence it compiles five times faster.
_LIGHT = {'model.local_ratio': 1.0, 'model.recurrence': False}


def _config(directory, light=True, **changes):
  config = quickstart.get_config()
  config.update_from_flattened_dict(_TINY | (_LIGHT if light else {}))
  config.data.dir = str(directory)
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in changes.items()}
  )
  return config


def _flags(directory, **changes):
  values = _TINY | {'data.dir': directory}
  values |= {name.replace('__', '.'): v for name, v in changes.items()}
  return [f'--config.{name}={value}' for name, value in values.items()]


def _start(root, workdir, arguments):
  return subprocess.Popen(
    [
      sys.executable,
      'train.py',
      '--config=configs/quickstart.py',
      f'--workdir={workdir}',
      *arguments,
    ],
    cwd=root,
    stderr=subprocess.PIPE,
    text=True,
  )


def _last_logged(workdir) -> int:
  records = metric_writer.read(pathlib.Path(workdir) / 'metrics.jsonl')
  return max((record['step'] for record in records), default=0)


def _wait_for_step(process, workdir, step):
  """Until this process, not an earlier one, has logged `step`."""
  at_start = _last_logged(workdir)
  while process.poll() is None and _last_logged(workdir) < max(
    step, at_start + 1
  ):
    time.sleep(0.02)


def _stored(workdir, step) -> dict[str, bytes]:
  """Every leaf of a checkpoint, by name."""
  import orbax.checkpoint as ocp

  leaves = {}
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  for item in ('variables', 'optimizer'):
    path = pathlib.Path(workdir).absolute() / f'checkpoints/{step}/{item}'
    checkpointer = ocp.StandardCheckpointer()
    # It may have been written on more devices than there are here.
    target = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
      checkpointer.metadata(path).item_metadata.tree,
    )
    tree = checkpointer.restore(path, target)
    for name, leaf in jax.tree_util.tree_leaves_with_path(tree):
      leaves[item + jax.tree_util.keystr(name)] = np.asarray(leaf).tobytes()
  return leaves


@pytest.fixture(scope='module')
def trained(blinking_videos, tmp_path_factory):
  """A finished run of twelve steps of the whole MTNet-XS, and its workdir."""
  workdir = tmp_path_factory.mktemp('runs') / 'whole'
  config = _config(blinking_videos, light=False)
  training.train(config, workdir)
  return config, workdir


def test_a_run_leaves_everything_a_user_looks_for(trained):
  _, workdir = trained
  names = {path.name for path in workdir.iterdir()}
  assert names >= {
    'checkpoints', 'config.json', 'labels.txt', 'metrics.jsonl', 'tensorboard'
  }  # fmt: skip
  assert (workdir / 'labels.txt').read_text() == 'bright\ndark\n'
  records = metric_writer.read(workdir / 'metrics.jsonl')
  train = [r for r in records if 'train/loss' in r]
  assert [r['step'] for r in train] == list(range(1, 13))
  for name in ('top1', 'clips_per_second', 'host_waiting', 'gradient_norm'):
    assert all(np.isfinite(r[f'train/{name}']) for r in train)
  assert [r['step'] for r in records if 'val/top1' in r] == [6, 12]
  rates = [r['train/learning_rate'] for r in train]
  assert rates[0] == 0 and max(rates) == rates[2]  # two steps of warm-up


def test_evaluation_scores_every_test_video_once(trained):
  config, workdir = trained
  predictions, names = evaluation.evaluate(config, workdir, 'last')
  assert names == ('bright', 'dark')
  assert len(set(predictions.ids)) == len(predictions.ids) == 8
  assert sorted(predictions.labels) == [0] * 4 + [1] * 4
  np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, 1e-5)
  config = config.copy_and_resolve_references()
  config.eval.clips_per_step = 7
  again, _ = evaluation.evaluate(config, workdir, 'last')
  np.testing.assert_allclose(
    again.probabilities, predictions.probabilities, atol=1e-5
  )


def test_a_finished_run_stays_as_it_is(trained):
  config, workdir = trained
  before = _stored(workdir, 12), (workdir / 'metrics.jsonl').read_text()
  training.train(config, workdir)
  after = _stored(workdir, 12), (workdir / 'metrics.jsonl').read_text()
  assert after == before


def test_killed_runs_end_bit_for_bit_like_a_whole_one(
  trained, root, blinking_videos, tmp_path
):
  _, whole = trained
  workdir = tmp_path / 'killed'
  arguments = _flags(blinking_videos, data__num_workers=2)
  steps = sorted(random.SystemRandom().sample(range(1, 11), 3))
  for step in steps:
    process = _start(root, workdir, arguments)
    _wait_for_step(process, workdir, step)
    process.kill()
    _, log = process.communicate()
    assert process.returncode == -signal.SIGKILL, log
  process = _start(root, workdir, arguments)
  _, log = process.communicate()
  assert process.returncode == 0, log
  assert 'Going on from the checkpoint of step' in log
  killed_at = f'killed after steps {steps}'
  assert _stored(workdir, 12) == _stored(whole, 12), killed_at
  records = metric_writer.read(workdir / 'metrics.jsonl')
  expected = metric_writer.read(whole / 'metrics.jsonl')
  exact = ('step', 'train/loss', 'train/top1', 'val/top1')
  assert [[r.get(name) for name in exact] for r in records] == [
    [r.get(name) for name in exact] for r in expected
  ], killed_at


def test_sigterm_saves_and_says_so(trained, root, blinking_videos, tmp_path):
  _, whole = trained
  # No checkpoint is due: the one that it goes on from is SIGTERM's own.
  arguments = _flags(blinking_videos, train__checkpoint_every=0)
  process = _start(root, tmp_path, arguments)
  _wait_for_step(process, tmp_path, 2)
  process.send_signal(signal.SIGTERM)
  _, log = process.communicate()
  assert process.returncode == 128 + signal.SIGTERM, log
  assert 'Stopped by SIGTERM at step' in log
  process = _start(root, tmp_path, arguments)
  _, log = process.communicate()
  assert process.returncode == 0, log
  assert _stored(tmp_path, 12) == _stored(whole, 12)


def test_a_loss_that_is_not_finite_names_its_step(blinking_videos, tmp_path):
  config = _config(
    blinking_videos,
    optim__learning_rate=1e30,
    optim__warmup_steps=4,
    train__log_every=5,
    train__checkpoint_every=1,
  )
  with pytest.raises(UserError, match=r'at step \d+ is (nan|inf)') as error:
    training.train(config, tmp_path)
  assert 'last good checkpoint' in str(error.value)
  # The warm-up starts at a rate of 0: what is left has not exploded.
  (step,) = os.listdir(tmp_path / 'checkpoints')
  stored = _stored(tmp_path, step)
  for name, leaf in stored.items():
    if name.startswith('variables'):
      assert np.abs(np.frombuffer(leaf, np.float32)).max() < 1e3, (step, name)


_ON_DEVICES = """
import sys, jax
from mtnet_jax import metric_writer, training
from tests.test_training import _config

if __name__ == '__main__':
  videos, workdir, devices = sys.argv[1:]
  assert jax.device_count() == int(devices)
  # Statistics over two clips, whatever the number of devices.
  training.train(
    _config(videos, train__num_steps=3, train__norm_batch_size=2,
            eval__clips_per_step=5), workdir)
"""


def test_two_devices_train_like_one(root, blinking_videos, tmp_path):
  def run(devices):
    workdir = tmp_path / str(devices)
    flags = f'--xla_force_host_platform_device_count={devices}'
    subprocess.run(
      [
        sys.executable,
        '-c',
        _ON_DEVICES,
        str(blinking_videos),
        str(workdir),
        str(devices),
      ],
      cwd=root,
      env=os.environ | {'XLA_FLAGS': flags},
      check=True,
      capture_output=True,
    )
    records = metric_writer.read(workdir / 'metrics.jsonl')
    losses = [r['train/loss'] for r in records if 'train/loss' in r]
    return losses, _floats(_stored(workdir, 3))

  losses, leaves = run(1)
  other_losses, other_leaves = run(2)
  # What two devices wrote, one reads.
  config = _config(blinking_videos, eval__clips_per_step=5)
  predictions, _ = evaluation.evaluate(config, tmp_path / '2')
  assert len(predictions.ids) == 8
  np.testing.assert_allclose(other_losses, losses, rtol=1e-4)
  assert leaves.keys() == other_leaves.keys()
  for name, leaf in leaves.items():
    np.testing.assert_allclose(
      other_leaves[name], leaf, rtol=1e-3, atol=1e-4, err_msg=name
    )


def _floats(stored):
  return {
    name: np.frombuffer(leaf, np.float32)
    for name, leaf in stored.items()
    if name.startswith('variables')
  }


def test_a_step_follows_the_gradient(blinking_videos):
  """One update against the gradient of the loss, written out again."""
  config = _config(blinking_videos)
  model = evaluation.build_model(config, 2)
  tx = optax.sgd(0.1)
  shape = evaluation.clip_shape(config)
  current = jax.jit(lambda: state.create(model, tx, shape, 0))()
  rng = np.random.default_rng(0)
  batch = {
    'clips': rng.integers(0, 256, (4, *shape), np.uint8),
    'labels': np.array([0, 1, 0, 1], np.int32),
  }
  key = jax.random.fold_in(jax.random.key(5), 0)

  @jax.jit
  def loss_fn(params):
    clips = (jnp.asarray(batch['clips'], jnp.float32) / 255 - 0.45) / 0.225
    (logits, _), _ = model.apply(
      {'params': params, 'batch_stats': current.batch_stats},
      clips,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': key},
    )
    shares = jnp.exp(logits) / jnp.exp(logits).sum(axis=1, keepdims=True)
    return -jnp.log(shares[jnp.arange(4), batch['labels']]).mean()

  loss, gradient = jax.value_and_grad(loss_fn)(current.params)
  expected = jax.tree.map(lambda p, g: p - 0.1 * g, current.params, gradient)
  step = training.make_train_step(model, lambda _: 0.1, tx, seed=5)
  following, values = step(current, batch)
  np.testing.assert_allclose(values['loss'], loss, rtol=1e-4)
  assert int(following.step) == 1
  for one, other in zip(
    jax.tree.leaves(following.params), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.fixture
def quick_compilation():
  """Programs that run once are not worth optimizing."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.mark.usefixtures('quick_compilation')
def test_stochastic_pooling_trains_and_follows_the_step():
  # Without dropout only pooling draws. One block compiles quickly.
  model = models.build(
    'mtnet_xs', 3, pooling='stochastic', dropout=0.0, recurrence=False
  ).copy(blocks=(1, 0, 0, 0))
  tx, shape = optax.sgd(0.1), (3, 16, 16, 3)
  rng = np.random.default_rng(0)
  batch = {
    'clips': rng.integers(0, 256, (2, *shape), np.uint8),
    'labels': np.array([0, 2], np.int32),
  }
  start = jax.jit(lambda: state.create(model, tx, shape, seed=0))()

  train_step = training.make_train_step(model, lambda _: 0.1, tx, seed=5)

  def step_at(step):
    current = jax.tree.map(jnp.copy, start)  # a step donates its state
    current = dataclasses.replace(current, step=jnp.int32(step))
    following, values = train_step(current, batch)
    assert int(following.step) == step + 1
    return float(values['loss']), jax.tree.leaves(following.params)

  loss, params = step_at(0)
  again, same = step_at(0)
  assert loss == again
  for a, b in zip(params, same, strict=True):
    assert np.isfinite(a).all()
    np.testing.assert_array_equal(a, b)
  assert loss != step_at(1)[0]
