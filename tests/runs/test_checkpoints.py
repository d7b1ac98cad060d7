"""What is kept, what is restored, and checkpoints of other models."""

import contextlib
import os
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.locations import BucketError, as_path
from mtnet_jax.runs import state as state_lib
from mtnet_jax.runs.checkpoints import (
  Checkpoints,
  DamagedCheckpointError,
  UnsavedError,
)

# Orbax handles arrays side by side, and leaves all errors but one behind.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


class _Model(nn.Module):
  classes: int = 4

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.BatchNorm(use_running_average=not train, name='norm')(x)
    return nn.Dense(self.classes, name='head')(x)


def _state(classes=4, seed=0):
  tx = optax.sgd(optax.constant_schedule(0.1), momentum=0.9)
  return state_lib.create(_Model(classes), tx, (1, 1, 1, 3), seed)


def _at(state, step):
  return state.replace(step=jnp.asarray(step, jnp.int32))


def _like():
  """What a state is restored as."""
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda leaf: leaf.update(sharding=here), jax.eval_shape(_state)
  )


def test_best_and_last_are_kept(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.last_step is None and checkpoints.best_step is None
    for step, top1 in [(1, None), (2, 0.5), (3, 0.7), (4, 0.6), (5, None)]:
      metrics = None if top1 is None else {'top1': top1}
      checkpoints.save(_at(_state(), step), metrics)
    checkpoints.wait()
    assert checkpoints.last_step == 5
    assert checkpoints.best_step == 3
  with Checkpoints(tmp_path) as checkpoints:  # a later process
    assert (checkpoints.last_step, checkpoints.best_step) == (5, 3)
  names = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
  assert names == {'3', '4', '5'}  # 4: in case that 5 is damaged


def test_the_longer_trained_of_equals_is_best(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    for step in (1, 2):
      checkpoints.save(_at(_state(), step), {'top1': 0.5})
    checkpoints.wait()
    assert checkpoints.best_step == 2


def test_restored_bits_are_the_saved_ones(tmp_path):
  saved = _at(_state(seed=1), 7)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(saved)
    checkpoints.wait()
    restored = checkpoints.restore(7, _state(seed=2))
  assert jax.tree.structure(restored) == jax.tree.structure(saved)
  for one, other in zip(
    jax.tree.leaves(restored), jax.tree.leaves(saved), strict=True
  ):
    np.testing.assert_array_equal(one, other)


def test_saving_outlives_the_donation_of_the_state(tmp_path):
  state = _at(_state(seed=1), 7)
  kernel = np.array(state.params['head']['kernel'])
  destroy = jax.jit(
    lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0
  )
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
    destroy(state)
    checkpoints.wait()
    restored = checkpoints.restore(7, _state())
  np.testing.assert_array_equal(restored.params['head']['kernel'], kernel)


def test_another_class_count_names_the_leaves(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(_at(_state(), 7))
    checkpoints.wait()
    with pytest.raises(UserError) as error:
      checkpoints.restore(7, _state(classes=5))
  message = str(error.value)
  assert 'params/head/bias is (4,), this model has (5,)' in message
  assert 'params/head/kernel is (3, 4), this model has (3, 5)' in message
  assert '2 leaves differ' in message


def test_another_model_names_missing_and_extra_leaves(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(_at(_state(), 7))
    checkpoints.wait()
    other = {'params': {'stem': jnp.zeros(3)}, 'batch_stats': {}}
    with pytest.raises(
      UserError, match=r'params/stem \(3,\) is not in the check'
    ):
      checkpoints.restore_variables(7, other)
    with pytest.raises(UserError, match=r'norm/mean \(3,\) is not in this'):
      checkpoints.restore_variables(7, other)


def _remove_metadata(folder):
  (folder / 'optimizer/_METADATA').unlink()


def _cut_in_half(folder):
  largest = max(
    (folder / 'variables/d').iterdir(), key=lambda path: path.stat().st_size
  )
  os.truncate(largest, largest.stat().st_size // 2)


def _change_a_byte(folder):
  path = next((folder / 'optimizer/d').iterdir())
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0xFF
  path.write_bytes(data)


def _remove_an_item(folder):
  (folder / 'variables').rename(folder.parent.parent / 'elsewhere')


@pytest.mark.parametrize(
  'damage', [_remove_metadata, _cut_in_half, _change_a_byte, _remove_an_item]
)
def test_a_damaged_checkpoint_is_put_aside_for_the_one_before(
  tmp_path, damage, caplog
):
  like = _like()
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore_last(like) is None
    for step in (4, 8):
      checkpoints.save(_at(_state(seed=step), step))
  damage(tmp_path / 'checkpoints/8')
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    with pytest.raises(DamagedCheckpointError, match=r'step 8 .* is damaged'):
      checkpoints.restore(8, like)
  with Checkpoints(tmp_path) as checkpoints:
    restored = checkpoints.restore_last(like)
    assert int(restored.step) == 4
    for one, other in zip(
      jax.tree.leaves(restored),
      jax.tree.leaves(_at(_state(seed=4), 4)),
      strict=True,
    ):
      np.testing.assert_array_equal(one, other)
    assert 'step 8' in caplog.text and 'put aside' in caplog.text
    # Nothing is deleted, and the step's name is free again.
    (aside,) = (tmp_path / 'damaged_checkpoints').iterdir()
    assert aside.name.startswith('8-')
    checkpoints.save(_at(_state(), 8))
    checkpoints.wait()
    assert checkpoints.last_step == 8


def test_nothing_but_damage_is_not_taken_for_a_new_run(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(_state())
  _remove_metadata(tmp_path / 'checkpoints/0')
  like = _like()
  for _ in range(2):  # nor at another start
    with (
      Checkpoints(tmp_path) as checkpoints,
      pytest.raises(UserError, match=r'No checkpoint .* can be read'),
    ):
      checkpoints.restore_last(like)


@pytest.mark.parametrize('content', ['{"top1": ', '[]', '{"top1": 0.25}'])
def test_figures_that_are_damaged(tmp_path, content, caplog):
  with Checkpoints(tmp_path) as checkpoints:
    for step in (4, 8):
      checkpoints.save(_at(_state(seed=step), step), {'top1': 0.75})
  (tmp_path / 'checkpoints/8/metrics/metrics').write_text(content)
  with pytest.raises(DamagedCheckpointError, match=r'step 8 .* is damaged'):
    Checkpoints(tmp_path, read_only=True)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.best_step == 4
    assert int(checkpoints.restore_last(_like()).step) == 4
  assert 'put aside' in caplog.text


def test_a_full_disk_leaves_the_last_checkpoint_whole(small_disk):
  with Checkpoints(small_disk) as checkpoints:
    checkpoints.save(_at(_state(), 1))
    checkpoints.wait()
    filler = small_disk / 'filler'
    with pytest.raises(OSError), filler.open('wb') as file:
      while True:
        file.write(bytes(2**12))
        file.flush()
    with pytest.raises(UnsavedError, match='space') as error:
      checkpoints.save(_at(_state(), 2))
      checkpoints.wait()
    assert str(small_disk) in str(error.value)
    assert 'that of step 1' in str(error.value)
    assert checkpoints.last_step == 1
    filler.unlink()  # somebody makes room, and training has gone on
    checkpoints.save(_at(_state(), 3))
    checkpoints.wait()
    assert checkpoints.last_step == 3
  with Checkpoints(small_disk) as checkpoints:
    like = jax.tree.map(jnp.asarray, _state())
    assert int(checkpoints.restore(1, like).step) == 1
    assert int(checkpoints.restore(3, like).step) == 3


def test_checkpoints_on_a_bucket(bucket, caplog):
  folder = as_path(bucket)
  with Checkpoints(bucket) as checkpoints:
    assert checkpoints.restore_last(_like()) is None
    for step, top1 in [(1, 0.7), (2, 0.6), (3, None), (4, None)]:
      metrics = None if top1 is None else {'top1': top1}
      checkpoints.save(_at(_state(seed=step), step), metrics)
  with Checkpoints(bucket, read_only=True) as checkpoints:
    assert (checkpoints.last_step, checkpoints.best_step) == (4, 1)
  names = {path.name for path in (folder / 'checkpoints').iterdir()}
  assert names == {'1', '3', '4'}
  (folder / 'checkpoints/4/optimizer/_METADATA').unlink()
  with Checkpoints(bucket) as checkpoints:
    restored = checkpoints.restore_last(_like())
    assert int(restored.step) == 3 and 'put aside' in caplog.text
    for one, other in zip(
      jax.tree.leaves(restored),
      jax.tree.leaves(_at(_state(seed=3), 3)),
      strict=True,
    ):
      np.testing.assert_array_equal(one, other)
    (aside,) = (folder / 'damaged_checkpoints').iterdir()
    assert aside.name.startswith('4-') and (aside / 'variables').is_dir()
    checkpoints.save(_at(_state(), 4))
    checkpoints.wait()
    assert checkpoints.last_step == 4


def test_a_bucket_out_of_reach_is_no_damage(bucket, monkeypatch):
  from gcsfs.retry import HttpError

  with Checkpoints(bucket) as checkpoints:
    checkpoints.save(_at(_state(), 4))
    checkpoints.wait()
    refusal = ValueError('UNAVAILABLE: Error reading "gs://bucket/…"')
    monkeypatch.setattr(
      checkpoints._manager, 'restore', mock.Mock(side_effect=refusal)
    )
    with pytest.raises(BucketError, match='cannot be used: UNAVAILABLE'):
      checkpoints.restore_last(_like())
    assert checkpoints.last_step == 4
    monkeypatch.setattr(
      checkpoints._manager,
      'save',
      mock.Mock(side_effect=HttpError({'code': 503, 'message': 'try later'})),
    )
    with pytest.raises(UnsavedError, match='try later'):
      checkpoints.save(_at(_state(), 8))
  assert not (as_path(bucket) / 'damaged_checkpoints').exists()


def test_a_checkpoint_whose_upload_was_cut_off_does_not_count(bucket):
  with Checkpoints(bucket) as checkpoints:
    for step in (4, 8):
      checkpoints.save(_at(_state(), step))
  (as_path(bucket) / 'checkpoints/8/commit_success.txt').unlink()
  with Checkpoints(bucket, read_only=True) as checkpoints:
    assert checkpoints.last_step == 4
  with Checkpoints(bucket) as checkpoints:
    assert int(checkpoints.restore_last(_like()).step) == 4
    checkpoints.save(_at(_state(), 8))
    checkpoints.wait()
    assert checkpoints.last_step == 8


def _delete(path):
  path.unlink()


def _cut(path):
  os.truncate(path, path.stat().st_size // 2)


def _zero(path):
  path.write_bytes(bytes(path.stat().st_size))


def _flip_a_bit(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)


def _is(restored, state):
  leaves = zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True)
  return all(np.array_equal(one, other) for one, other in leaves)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
  'damage',
  [
    *(pytest.param(one, marks=pytest.mark.check) for one in (_delete, _cut)),
    pytest.param(_zero, marks=pytest.mark.check),
    pytest.param(_flip_a_bit, marks=pytest.mark.slow),
  ],
)
def test_whatever_file_is_damaged_nothing_wrong_is_restored(tmp_path, damage):
  whole, workdir, like = tmp_path / 'whole', tmp_path / 'run', _like()
  saved = {step: _at(_state(seed=step), step) for step in (4, 8)}
  with Checkpoints(whole) as checkpoints:
    for step, state in saved.items():
      checkpoints.save(state, {'top1': step / 10})
  names = [
    path.relative_to(whole)
    for path in sorted((whole / 'checkpoints/8').rglob('*'))
    if path.is_file() and path.stat().st_size
  ]
  assert len(names) > 8
  put_aside = 0
  for name in names:
    shutil.copytree(whole, workdir)
    damage(workdir / name)
    with contextlib.suppress(DamagedCheckpointError):
      with Checkpoints(workdir, read_only=True) as checkpoints:
        assert checkpoints.best_step == 8
        variables = checkpoints.restore_variables(8, like.variables)
        assert _is(variables, saved[8].variables)
    with Checkpoints(workdir) as checkpoints:
      restored = checkpoints.restore_last(like)
      step = int(restored.step)
      assert _is(restored, saved[step])
    put_aside += step == 4
    assert (workdir / 'damaged_checkpoints').exists() == (step == 4)
    shutil.rmtree(workdir)
  # But for the hashes themselves, and two files of no consequence.
  assert put_aside >= len(names) - 3


def test_parts_of_an_optimizer_without_arrays_may_come_and_go(tmp_path):
  """Of another one that has as many arrays in other places, it is told."""
  decay = optax.add_decayed_weights(0.1)
  clipped = optax.chain(optax.clip_by_global_norm(1.0), decay)

  def state(*chain):
    return state_lib.create(_Model(3), optax.chain(*chain), (1, 1, 1, 3), 0)

  before = state(decay, optax.trace(0.9))
  trace = jax.tree.map(lambda leaf: leaf + 0.5, before.opt_state[1])
  before = before.replace(opt_state=(before.opt_state[0], trace))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(before.replace(step=jnp.int32(7)))
    checkpoints.wait()
    like = state(clipped, optax.trace(0.9), optax.set_to_zero())
    after = checkpoints.restore(7, like)
    assert jax.tree.structure(after) == jax.tree.structure(like)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state[1], trace)
    assert after.step == 7
    with pytest.raises(UserError, match='of another optimizer, accumulation'):
      checkpoints.restore(7, state(optax.trace(0.9), decay))


def test_a_moving_average_is_what_readers_get(tmp_path):
  model, tx = _Model(3), optax.sgd(0.1)
  state = state_lib.create(model, tx, (1, 1, 1, 3), 0, average=True)
  average = jax.tree.map(lambda leaf: leaf + 1, state.variables)
  state = state.replace(ema=average)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
    checkpoints.wait()
    read = checkpoints.restore_variables(0, state.variables)
    jax.tree.map(np.testing.assert_array_equal, read, average)
    after = checkpoints.restore(0, state)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    with pytest.raises(UserError, match=r'trained/params/\S* \(.*is not in th'):
      checkpoints.restore(0, state.replace(ema=None))
