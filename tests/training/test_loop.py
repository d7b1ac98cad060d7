"""Real training on tiny videos: learning, resuming, dying, stopping."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import scoring
from mtnet_jax.ops import native
from mtnet_jax.runs import metric_writer
from mtnet_jax.training import loop
from tests import tiny_runs
from tests.checkpoint_files import stored_bytes
from tests.tiny_runs import tiny_config, tiny_flags


@pytest.fixture(scope='module')
def trained(blinking_videos, tmp_path_factory):
  """A finished run of twelve steps, and its workdir."""
  workdir = tmp_path_factory.mktemp('runs') / 'whole'
  config = tiny_config(blinking_videos)
  loop.train(config, workdir)
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
  predictions, names = scoring.evaluate(config, workdir, 'last')
  assert names == ('bright', 'dark')
  assert len(set(predictions.ids)) == len(predictions.ids) == 8
  assert sorted(predictions.labels) == [0] * 4 + [1] * 4
  np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, 1e-5)
  config = config.copy_and_resolve_references()
  config.eval.clips_per_step = 7
  again, _ = scoring.evaluate(config, workdir, 'last')
  np.testing.assert_allclose(
    again.probabilities, predictions.probabilities, atol=1e-5
  )


def test_a_finished_run_stays_as_it_is(trained, caplog, capfd):
  config, workdir = trained

  def left():
    names = 'metrics.jsonl', 'config.json', 'labels.txt'
    texts = [(workdir / name).read_text() for name in names]
    return stored_bytes(workdir, 12), texts

  before = left()
  # Its configuration stays that of what was trained.
  other = config.copy_and_resolve_references()
  other.data.frame_stride = 1
  (workdir / 'labels.txt').unlink()
  with caplog.at_level(logging.INFO):
    loop.train(other, workdir)
  assert left() == before
  assert (
    f'{workdir} is finished: its last checkpoint is of step 12, and '
    'train.num_steps (=12) asks for 12. To train longer'
  ) in caplog.text
  assert '0/s' not in capfd.readouterr().err
  assert 'another configuration' not in caplog.text
  other.train.num_steps, other.train.num_epochs = 0, 2.0
  with caplog.at_level(logging.INFO):
    loop.train(other, workdir)
  # 16 videos in batches of 4: 4 steps an epoch.
  assert 'train.num_epochs (=2.0) asks for 8.' in caplog.text


def test_going_on_with_other_keys_names_them(trained, tmp_path, caplog):
  config, workdir = trained
  workdir = shutil.copytree(workdir, tmp_path / 'run')
  path = workdir / 'config.json'
  sections = json.loads(path.read_text())
  del sections['data']['read_attempts']  # older than the key: its default
  sections['optim']['of_yore'] = 3
  path.write_text(json.dumps(sections))
  config = config.copy_and_resolve_references()
  config.train.num_steps = 13
  config.model.dropout = 0.5
  with caplog.at_level(logging.WARNING):
    loop.train(config, workdir)
  (line,) = [m for m in caplog.messages if 'another configuration' in m]
  assert line == (
    f'{path}: resuming with another configuration than before: '
    'model.dropout was 0.2 and is 0.5; optim.of_yore was 3 and is None; '
    'train.num_steps was 12 and is 13.'
  )
  assert json.loads(path.read_text())['train']['num_steps'] == 13


def test_a_loss_that_is_not_finite_names_its_step(blinking_videos, tmp_path):
  config = tiny_config(
    blinking_videos,
    optim__learning_rate=1e30,
    optim__warmup_steps=4,
    train__log_every=5,
    train__checkpoint_every=1,
  )
  with pytest.raises(UserError, match=r'at step \d+ is (nan|inf)') as error:
    loop.train(config, tmp_path)
  assert 'last good checkpoint' in str(error.value)
  # The warm-up starts at a rate of 0: what is left has not exploded.
  (step,) = os.listdir(tmp_path / 'checkpoints')
  stored = stored_bytes(tmp_path, step)
  for name, leaf in stored.items():
    if name.startswith('variables'):
      assert np.abs(np.frombuffer(leaf, np.float32)).max() < 1e3, (step, name)


_ON_DEVICES = """
import sys, jax
from mtnet_jax.training import loop
from tests.tiny_runs import tiny_config

if __name__ == '__main__':
  videos, workdir, devices = sys.argv[1:]
  assert jax.device_count() == int(devices)
  # Statistics over two clips, whatever the number of devices.
  loop.train(
    tiny_config(videos, train__num_steps=3, train__norm_batch_size=2,
                eval__clips_per_step=5), workdir)
"""


@pytest.mark.check
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
      # Without kernels, which two devices do not have: near ties, frames are
      # chosen by the last digit.
      env=os.environ | {'XLA_FLAGS': flags, native.SWITCH: '0'},
      check=True,
      capture_output=True,
    )
    records = metric_writer.read(workdir / 'metrics.jsonl')
    losses = [r['train/loss'] for r in records if 'train/loss' in r]
    return losses, _floats(stored_bytes(workdir, 3))

  losses, leaves = run(1)
  other_losses, other_leaves = run(2)
  # What two devices wrote, one reads.
  config = tiny_config(blinking_videos, eval__clips_per_step=5)
  predictions, _ = scoring.evaluate(config, tmp_path / '2')
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


@pytest.mark.check
@pytest.mark.timeout(900)
def test_a_multigrid_run_stopped_within_a_cycle_ends_the_same(
  root, blinking_videos, tmp_path, monkeypatch
):
  """And each of its shapes is compiled once, on whatever day."""
  changes = {
    'data__input_size': 48,
    'train__batch_size': 2,
    'train__norm_batch_size': 2,
    'train__long_cycle': True,
    'train__precise_norm_steps': 2,
    'train__num_steps': 16,
    'train__validation_split': '',
    'train__eval_every': 6,
    'train__checkpoint_every': 0,
  }
  cache = tmp_path / 'cache'
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(cache))
  monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

  def run(workdir, stop_at=0):
    # Nobody reads the log while waiting for a step: it must not be long.
    monkeypatch.setenv('JAX_LOG_COMPILES', '0' if stop_at else '1')
    arguments = tiny_flags(blinking_videos, light=True, **changes)
    process = tiny_runs.start(root, workdir, arguments)
    if stop_at:
      tiny_runs.wait_for_step(process, workdir, stop_at)
      process.send_signal(signal.SIGTERM)
    _, log = process.communicate()
    assert process.returncode == (os.EX_TEMPFAIL if stop_at else 0), log
    assert log.count('Finished XLA compilation of jit(train_step)') == (
      0 if stop_at else 4
    )
    return {path.name for path in cache.glob('jit_train_step*-cache')}

  programs = run(tmp_path / 'whole')
  assert len(programs) == 4
  assert run(tmp_path / 'stopped', stop_at=7) == programs
  assert run(tmp_path / 'stopped') == programs
  assert stored_bytes(tmp_path / 'stopped', 16) == stored_bytes(
    tmp_path / 'whole', 16
  )

  records = metric_writer.read(tmp_path / 'whole/metrics.jsonl')
  rates = {r['step']: r['train/learning_rate'] for r in records}
  # Sixteen videos are drawn by a step of each phase: 16 + 8 + 4 + 2 clips.
  peak = 0.06 * 2 / 32
  expected = [peak * factor for factor in (8, 4, 2, 1)] * 3
  np.testing.assert_allclose([rates[s] for s in range(5, 17)], expected, 1e-6)


def _fill(path):
  with pytest.raises(OSError), path.open('wb') as file:
    while True:
      file.write(bytes(2**12))
      file.flush()


@pytest.mark.parametrize(
  'full',
  [
    pytest.param('for two seconds', marks=pytest.mark.check),
    pytest.param('for good', marks=pytest.mark.slow),
    pytest.param('at the first write', marks=pytest.mark.check),
  ],
)
def test_a_full_disk_may_be_a_warning(
  full, root, blinking_videos, small_disk, tmp_path
):
  arguments = tiny_flags(
    blinking_videos,
    light=True,
    train__stop_if_unsaved=False,
    train__num_steps=60,
    train__validation_split='',
  )
  log, filler = tmp_path / 'log', small_disk / 'filler'
  with log.open('w') as file:
    process = tiny_runs.start(root, small_disk, arguments, file)

  def wait_until(done):
    while process.poll() is None and not done():
      time.sleep(0.02)

  if full == 'at the first write':
    wait_until((small_disk / 'labels.txt').exists)
  else:
    tiny_runs.wait_for_step(process, small_disk, 2)
  _fill(filler)
  if full != 'for good':
    wait_until(lambda: 'No space left' in log.read_text())
    time.sleep(2)
    filler.unlink()
  assert process.wait() == 0, log.read_text()
  assert (
    'No space left' in log.read_text()
    and 'Training continues' in log.read_text()
  )
  if full != 'for good':
    assert '60' in os.listdir(small_disk / 'checkpoints')
