"""What a step can do besides: each option against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.training.dynamic_scale import DynamicScale

from configs import base
from mtnet_jax.runs import state as state_lib
from mtnet_jax.training import losses, optim
from mtnet_jax.training.mixing import Mixing
from mtnet_jax.training.step import make_train_step

pytestmark = pytest.mark.usefixtures('quick_compilation')

_SHAPE = (2, 4, 4, 3)


class _Mean(nn.Module):
  """A linear classifier of three classes on a clip's mean color."""

  dtype: jax.typing.DTypeLike = jnp.float32
  norm_batch_size: int = 0
  freeze_norm: bool = False
  input_mean: tuple[float, ...] = (0.0,) * 3
  input_std: tuple[float, ...] = (1.0,) * 3

  @nn.compact
  def __call__(self, clips, *, train=False):
    colors = clips.mean(axis=(1, 2, 3))  # n c
    seen = self.variable('batch_stats', 'color', jnp.zeros, (3,))
    if train and not self.is_initializing():
      seen.value = 0.5 * seen.value + 0.5 * jnp.float32(colors.mean(axis=0))
    logits = nn.Dense(3, dtype=self.dtype, name='classifier')(colors)
    return logits.astype(jnp.float32), {'gate_open': {}}


def _batch(seed, n=4):
  rng = np.random.default_rng(seed)
  return {
    'clips': rng.integers(0, 256, (n, *_SHAPE), np.uint8),
    'labels': rng.integers(0, 3, n).astype(np.int32),
  }


def _optim(**changes):
  config = base.get_config().optim
  config.update(momentum=0.0, weight_decay=0.0, **changes)
  return config


def _start(tx, dtype=jnp.float32, **options):
  model = _Mean(dtype)
  return model, jax.jit(
    lambda: state_lib.create(model, tx, _SHAPE, 0, **options)
  )()


def _gradient(kernel, bias, batch, targets=None):
  """Loss and gradient of `_Mean`, in float64."""
  colors = np.float64(batch['clips']).mean(axis=(1, 2, 3)) / 255
  logits = colors @ kernel + bias
  shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  targets = np.eye(3)[batch['labels']] if targets is None else targets
  loss = -(targets * np.log(shares)).sum(axis=1).mean()
  error = (shares - targets) / len(colors)
  return loss, colors.T @ error, error.sum(axis=0)


def _numbers(state):
  head = state.params['classifier']
  return np.float64(head['kernel']), np.float64(head['bias'])


def test_the_average_of_three_updates():
  tx = optim.build(_optim(), lambda _: 2.0)
  model, state = _start(tx, average=True)
  step = make_train_step(model, lambda _: 2.0, tx, seed=0, ema_decay=0.75)
  (kernel, bias), color = _numbers(state), np.zeros(3)
  averages = [kernel, bias, color]
  for seed in range(3):
    batch = _batch(seed)
    _, *gradient = _gradient(kernel, bias, batch)
    kernel, bias = kernel - 2 * gradient[0], bias - 2 * gradient[1]
    seen = np.float64(batch['clips']).mean(axis=(0, 1, 2, 3)) / 255
    color = 0.5 * color + 0.5 * seen
    averages = [
      0.75 * old + 0.25 * new
      for old, new in zip(averages, (kernel, bias, color), strict=True)
    ]
    state, _ = step(state, batch)
  found = state.ema['params']['classifier']
  np.testing.assert_allclose(found['kernel'], averages[0], rtol=1e-5)
  np.testing.assert_allclose(found['bias'], averages[1], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
    state.ema['batch_stats']['color'], averages[2], rtol=1e-5
  )
  np.testing.assert_allclose(_numbers(state)[0], kernel, rtol=1e-5)
  assert state.evaluated is state.ema


def test_weights_that_do_not_change_are_their_own_average():
  config = _optim(trained='classifier')
  tx = optim.build(config, lambda _: 0.0)
  model, state = _start(tx, average=True)
  before = jax.tree.map(np.asarray, state.params)
  step = make_train_step(
    model, lambda _: 0.0, tx, seed=0, trained='classifier', ema_decay=0.9
  )
  for seed in range(5):
    state, _ = step(state, _batch(seed))
  jax.tree.map(np.testing.assert_array_equal, state.ema['params'], before)


def test_without_an_average_the_state_has_what_it_had():
  tx = optim.build(base.get_config().optim, lambda _: 0.1)
  _, state = _start(tx)
  names = {
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, _ in jax.tree_util.tree_leaves_with_path(state)
  }
  head = 'classifier/'
  assert names == {
    'step',
    *(f'params/{head}{leaf}' for leaf in ('bias', 'kernel')),
    'batch_stats/color',
    *(f'opt_state/1/0/trace/{head}{leaf}' for leaf in ('bias', 'kernel')),
    'opt_state/1/1/count',
  }
  assert state.evaluated == state.variables


def test_an_update_of_two_steps():
  """The mean of both gradients, at the rate of the first of the steps."""
  tx = optim.build(_optim(), lambda step: 1.0 + step, accumulate=2)
  model, state = _start(tx, average=True)
  step = make_train_step(
    model, lambda step: 1.0 + step, tx, seed=0, accumulate=2, ema_decay=0.5
  )
  kernel, bias = _numbers(state)
  average, rates = kernel, []
  for update in range(2):
    gradients = [
      _gradient(kernel, bias, _batch(2 * update + k)) for k in range(2)
    ]
    for k in range(2):
      np.testing.assert_allclose(_numbers(state)[0], kernel, rtol=1e-5)
      state, metrics = step(state, _batch(2 * update + k))
      rates.append(float(metrics['learning_rate']))
      np.testing.assert_allclose(metrics['loss'], gradients[k][0], rtol=1e-5)
    rate = 1.0 + 2 * update
    kernel = kernel - rate * (gradients[0][1] + gradients[1][1]) / 2
    bias = bias - rate * (gradients[0][2] + gradients[1][2]) / 2
    average = (average + kernel) / 2
  assert rates == [1, 1, 3, 3]
  np.testing.assert_allclose(_numbers(state)[0], kernel, rtol=1e-5)
  found = state.ema['params']['classifier']['kernel']
  np.testing.assert_allclose(found, average, rtol=1e-5)


def _huge(state):
  """The state whose next step overflows."""
  huge = state.loss_scale.replace(scale=jnp.float32(2.0**60))
  return state.replace(loss_scale=huge)


def _scaled(state):
  return state.replace(loss_scale=DynamicScale(scale=jnp.float32(16.0)))


def test_a_step_that_overflows_is_one_without_a_gradient_in_its_update():
  tx = optim.build(_optim(), lambda _: 1.0, accumulate=3)
  model, state = _start(tx, jnp.float16)
  step = make_train_step(model, lambda _: 1.0, tx, seed=0, accumulate=3)
  kernel, bias = _numbers(state)
  gradient = 0
  state = _scaled(state)
  for k in range(3):
    before = jax.tree.map(np.asarray, state.batch_stats)
    if k == 1:
      state, metrics = step(_huge(state), _batch(k))
      assert metrics['overflow'] == 1 and metrics['gradient_norm'] == 0
      jax.tree.map(np.testing.assert_array_equal, state.batch_stats, before)
      state = _scaled(state)
    else:
      gradient = gradient + _gradient(kernel, bias, _batch(k))[1] / 3
      state, metrics = step(state, _batch(k))
      assert metrics['overflow'] == 0
  np.testing.assert_allclose(
    _numbers(state)[0], kernel - gradient, rtol=1e-2, atol=1e-3
  )
  assert state.opt_state.mini_step == 0 and state.opt_state.gradient_step == 1


def test_an_overflow_leaves_adams_moments_and_their_count():
  tx = optim.build(_optim(name='adamw'), lambda _: 0.1)
  model, state = _start(tx, jnp.float16, average=True)
  step = make_train_step(model, lambda _: 0.1, tx, seed=0, ema_decay=0.5)
  state, _ = step(_scaled(state), _batch(0))
  before = jax.tree.map(np.asarray, (state.opt_state[1][0], state.ema))
  assert before[0].count == 1
  state, metrics = step(_huge(state), _batch(1))
  assert metrics['overflow'] == 1
  after = state.opt_state[1][0], state.ema
  jax.tree.map(np.testing.assert_array_equal, after, before)
  # The learning rate follows the step all the same.
  assert state.opt_state[1][2].count == 2


def test_a_scaled_gradient_is_clipped_at_its_own_size():
  tx = optim.build(_optim(clip_norm=1e-2), lambda _: 1.0)
  model, state = _start(tx, jnp.float16)
  before = np.concatenate([part.ravel() for part in _numbers(state)])
  step = make_train_step(model, lambda _: 1.0, tx, seed=0)
  state, metrics = step(_scaled(state), _batch(0))
  after = np.concatenate([part.ravel() for part in _numbers(state)])
  assert 1e-2 < metrics['gradient_norm'] < 2
  np.testing.assert_allclose(np.linalg.norm(after - before), 1e-2, rtol=1e-3)


def test_smooth_labels():
  """A tenth of each label is spread over four classes."""
  logits = jnp.log(jnp.array([[1.0, 2.0, 1.0, 4.0]]))
  targets = losses.make_targets(
    jnp.array([1]), jnp.array([1]), jnp.ones(1), 4, 0.1
  )
  np.testing.assert_allclose(targets, [[0.025, 0.925, 0.025, 0.025]], rtol=1e-6)
  expected = -(0.05 * np.log(1 / 8) + 0.925 * np.log(1 / 4)
               + 0.025 * np.log(1 / 2))  # fmt: skip
  found = losses.soft_cross_entropy(logits, targets)
  np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_a_step_on_smooth_labels():
  tx = optim.build(_optim(), lambda _: 1.0)
  model, state = _start(tx)
  (kernel, bias), batch = _numbers(state), _batch(0)
  targets = 0.7 * np.eye(3)[batch['labels']] + 0.1
  loss, gradient, _ = _gradient(kernel, bias, batch, targets)
  step = make_train_step(model, lambda _: 1.0, tx, seed=0, label_smoothing=0.3)
  state, metrics = step(state, batch)
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  np.testing.assert_allclose(_numbers(state)[0], kernel - gradient, rtol=1e-4)


class _FixedMixing(Mixing):
  """Clip 0 keeps 0.75 of itself, clip 1 0.25; a box in clip 2; clip 3 stays."""

  def draw(self, key, n, h, w):
    del key
    assert (n, h, w) == (4, 4, 4)
    return {
      'level': jnp.float32([0.75, 0.25, 1, 1]),
      'top': jnp.float32([0, 0, 1, 0]),
      'bottom': jnp.float32([0, 0, 4, 0]),
      'left': jnp.float32([0, 0, 0, 0]),
      'right': jnp.float32([0, 0, 2, 0]),
    }


def test_a_step_on_mixed_clips():
  """Clips of one color each; their neighbors are those of their own half."""
  tx = optim.build(_optim(), lambda _: 1.0)
  model, state = _start(tx)
  model = model.copy(norm_batch_size=2)
  colors = np.random.default_rng(3).integers(0, 256, (4, 3), np.uint8)
  clips = np.broadcast_to(colors[:, None, None, None], (4, *_SHAPE))
  batch = {'clips': clips, 'labels': np.int32([0, 1, 2, 0])}
  # The box has 3 x 2 of the 16 pixels.
  shares = np.array([0.75, 0.25, 10 / 16, 1])[:, None]
  other = [1, 0, 3, 2]
  mixed = shares * colors + (1 - shares) * colors[other]
  one_hot = np.eye(3)[batch['labels']]
  targets = shares * one_hot + (1 - shares) * one_hot[other]
  as_clips = {'clips': mixed[:, None, None, None]}
  kernel, bias = _numbers(state)
  loss, gradient, _ = _gradient(kernel, bias, as_clips, targets)
  step = make_train_step(
    model, lambda _: 1.0, tx, seed=0, mix=_FixedMixing(0.5, 0.25, 1.0, 1.0)
  )
  state, metrics = step(state, batch)
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  np.testing.assert_allclose(_numbers(state)[0], kernel - gradient, rtol=1e-4)
  predicted = (mixed / 255 @ kernel + bias).argmax(axis=1)
  # Of clip 1 the larger share is clip 0's.
  np.testing.assert_allclose(
    metrics['top1'], (predicted == [0, 0, 2, 0]).mean()
  )


def test_all_of_it_together_goes_on_from_any_step():
  """Randomness is a function of the seed and the step alone."""
  config = _optim(name='adamw', clip_norm=0.1)
  tx = optim.build(config, lambda _: 0.1, accumulate=2)
  model, state = _start(tx, average=True)
  options = {
    'accumulate': 2,
    'ema_decay': 0.5,
    'label_smoothing': 0.1,
    'mix': Mixing(0.4, 0.4, 0.8, 1.0),
  }
  step, other = (
    make_train_step(model, lambda _: 0.1, tx, seed, **options)
    for seed in (3, 4)
  )
  kept = []
  for seed in range(3):
    state, _ = step(state, _batch(seed))
    kept.append(jax.tree.map(np.asarray, state))
  again, metrics = step(jax.tree.map(jnp.asarray, kept[1]), _batch(2))
  jax.tree.map(np.testing.assert_array_equal, again, kept[2])
  _, others = other(jax.tree.map(jnp.asarray, kept[1]), _batch(2))
  assert metrics['loss'] != others['loss']  # mixed otherwise


class _Parts(nn.Module):
  """As `_Mean`, with gates that zero the logits, and scores of two stages."""

  dtype: jax.typing.DTypeLike = jnp.float32
  norm_batch_size: int = 0
  freeze_norm: bool = False
  input_mean: tuple[float, ...] = (0.0,) * 3
  input_std: tuple[float, ...] = (1.0,) * 3

  @nn.compact
  def __call__(self, clips, *, train=False, gates_decide=True):
    logits, endpoints = _Mean(name='mean')(clips, train=train)
    scores = {'stage_1': 2 * logits, 'stage_2': -logits}
    logits = jnp.where(gates_decide, 0 * logits, logits)
    return logits, endpoints | {'early_scores': scores}


def _losses(steps, **options):
  tx = optim.build(_optim(), lambda _: 0.0)
  model = _Parts()
  state = jax.jit(lambda: state_lib.create(model, tx, _SHAPE, 0))()
  step = make_train_step(model, lambda _: 0.0, tx, seed=0, **options)
  head = jax.tree.map(np.float64, state.params['mean']['classifier'])
  found = []
  for seed in range(steps):
    state, metrics = step(state, _batch(seed))
    found.append(float(metrics['loss']))
  return found, head['kernel'], head['bias']


def test_gates_that_decide_later():
  found, kernel, bias = _losses(4, gate_after=2)
  for seed, loss in enumerate(found):
    plain, *_ = _gradient(kernel, bias, _batch(seed))
    expected = plain if seed < 2 else np.log(3)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_loss_of_early_predictions():
  found, kernel, bias = _losses(2, regularization_loss=0.5)
  for seed, loss in enumerate(found):
    early = [
      _gradient(factor * kernel, factor * bias, _batch(seed))[0]
      for factor in (2, -1)
    ]
    expected = np.log(3) + 0.5 * sum(early) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
