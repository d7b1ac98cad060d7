"""One step: against the gradient, numpy, and what it must leave alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.training.dynamic_scale import DynamicScale

from configs import base
from mtnet_jax import models
from mtnet_jax.layers.norm import BatchNorm
from mtnet_jax.runs import state as state_lib
from mtnet_jax.training import optim
from mtnet_jax.training.step import make_precise_norm, make_train_step

pytestmark = pytest.mark.usefixtures('quick_compilation')


class _Tiny(nn.Module):
  """Two pointwise convolutions with BN, as the networks are to be called."""

  dtype: jax.typing.DTypeLike = jnp.float32
  norm_batch_size: int = 0
  freeze_norm: bool = False
  input_mean: tuple[float, ...] = (0.45,) * 3
  input_std: tuple[float, ...] = (0.225,) * 3

  @nn.compact
  def __call__(self, clips, *, train=False):
    x = clips
    for i, features in enumerate((4, 5)):
      kernel = self.param(
        f'kernel_{i}',
        nn.initializers.he_normal(),
        (1, 1, 1, x.shape[-1], features),
      )
      x = jax.lax.conv_general_dilated(
        x.astype(self.dtype),
        kernel.astype(self.dtype),
        (1, 1, 1),
        'SAME',
        dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
      )
      norm = BatchNorm(
        self.freeze_norm or not train,
        batch_size=self.norm_batch_size,
        dtype=self.dtype,
        name=f'norm_{i}',
      )
      x = nn.relu(norm(x))
    x = x.astype(jnp.float32).mean(axis=(1, 2, 3))
    shares = {'block': (x[:, 0] > 0).mean(dtype=jnp.float32)}
    return nn.Dense(3, name='classifier')(x), {'gate_open': shares}


_SHAPE = (2, 4, 4, 3)


def _batch(n=4, seed=0):
  rng = np.random.default_rng(seed)
  return {
    'clips': rng.integers(0, 256, (n, *_SHAPE), np.uint8),
    'labels': rng.integers(0, 3, n).astype(np.int32),
  }


def _start(model, tx):
  return jax.jit(lambda: state_lib.create(model, tx, _SHAPE, 0))()


def _copy(tree):
  """A step donates its state."""
  return jax.tree.map(jnp.copy, tree)


def _sgd(**changes):
  config = base.get_config().optim
  config.update(changes)
  return optim.build(config, lambda step: 0.1)


def test_a_step_follows_the_gradient():
  """One update against the gradient of the loss, written out again."""
  # Dropout draws. One block compiles quickly.
  model = models.build('mtnet_xs', 2, local_ratio=1.0, recurrence=False)
  model = model.copy(blocks=(1, 0, 0, 0))
  tx, shape = optax.sgd(0.1), (4, 32, 32, 3)
  state = jax.jit(lambda: state_lib.create(model, tx, shape, 0))()
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
      {'params': params, 'batch_stats': state.batch_stats},
      clips,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': key},
    )
    shares = jnp.exp(logits) / jnp.exp(logits).sum(axis=1, keepdims=True)
    return -jnp.log(shares[jnp.arange(4), batch['labels']]).mean()

  loss, gradient = jax.value_and_grad(loss_fn)(state.params)
  expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradient)
  step = make_train_step(model, lambda _: 0.1, tx, seed=5)
  new_state, metrics = step(state, batch)
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-4)
  assert int(new_state.step) == 1
  for one, other in zip(
    jax.tree.leaves(new_state.params), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
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
  start = jax.jit(lambda: state_lib.create(model, tx, shape, seed=0))()

  train_step = make_train_step(model, lambda _: 0.1, tx, seed=5)

  def step_at(step):
    state = jax.tree.map(jnp.copy, start)  # a step donates its state
    state = dataclasses.replace(state, step=jnp.int32(step))
    new_state, metrics = train_step(state, batch)
    assert int(new_state.step) == step + 1
    return float(metrics['loss']), jax.tree.leaves(new_state.params)

  loss, params = step_at(0)
  again, same = step_at(0)
  assert loss == again
  for a, b in zip(params, same, strict=True):
    assert np.isfinite(a).all()
    np.testing.assert_array_equal(a, b)
  assert loss != step_at(1)[0]


def _moments(params, clips, size):
  """Mean and variance of both convolutions' outputs, in float64 numpy.

  Of all sub-batches of `size` clips together, of which each is normalized by
  its own, as in training.
  """
  x = (np.float64(clips) / 255 - 0.45) / 0.225
  moments = []
  for i in (0, 1):
    x = x @ np.float64(params[f'kernel_{i}'][0, 0, 0])
    moments.append((x.mean((0, 1, 2, 3)), x.var((0, 1, 2, 3))))
    parts = x.reshape(-1, size, *x.shape[1:])
    mean = parts.mean((1, 2, 3, 4), keepdims=True)
    var = parts.var((1, 2, 3, 4), keepdims=True)
    x = np.maximum((parts - mean) / np.sqrt(var + 1e-5), 0).reshape(x.shape)
  return moments


@pytest.mark.parametrize('size', [1, 2, 4])
def test_precise_statistics_are_those_of_all_clips(size):
  model = _Tiny(norm_batch_size=size)
  before = _start(model, optax.sgd(0.1))
  batches = [_batch(seed=seed)['clips'] for seed in (1, 2, 3)]
  batches[1] = batches[1] // 4  # a dark one
  after = make_precise_norm(model)(before, iter(batches))
  expected = _moments(before.params, np.concatenate(batches), size)
  for i, (mean, var) in enumerate(expected):
    found = after.batch_stats[f'norm_{i}']
    np.testing.assert_allclose(found['mean'], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found['var'], var, rtol=1e-4)
  # Whatever they were before, but for rounding; and nothing else changes.
  stats = jax.tree.map(lambda leaf: leaf + 1, before.batch_stats)
  again = make_precise_norm(model)(before.replace(batch_stats=stats), batches)
  for one, other in zip(*map(jax.tree.leaves, (again, after)), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  for name in ('step', 'params', 'opt_state'):
    assert getattr(after, name) is getattr(before, name)


def test_precise_statistics_of_a_moving_average_are_its_own():
  model = _Tiny()
  before = state_lib.start_average(_start(model, optax.sgd(0.1)))
  average = before.ema | {'params': dict(before.ema['params'])}
  average['params']['kernel_0'] = 1.5 * average['params']['kernel_0']
  before = before.replace(ema=average)
  clips = _batch()['clips']
  after = make_precise_norm(model)(before, [clips])
  expected = _moments(average['params'], clips, len(clips))
  for i, (mean, var) in enumerate(expected):
    found = after.ema['batch_stats'][f'norm_{i}']
    np.testing.assert_allclose(found['mean'], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found['var'], var, rtol=1e-4)
  assert after.batch_stats is before.batch_stats
  assert after.evaluated['params'] is average['params']


def test_frozen_statistics_are_left_alone():
  state = _start(_Tiny(), optax.sgd(0.1))
  measure = make_precise_norm(_Tiny(freeze_norm=True))
  assert measure(state, [_batch()['clips']]) is state


def _convolutions(jaxpr):
  """Of a program, at any depth."""
  count = 0
  for equation in jaxpr.eqns:
    count += equation.primitive.name == 'conv_general_dilated'
    for value in equation.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        count += _convolutions(inner)
  return count


def test_only_the_classifier_is_trained():
  model = _Tiny(freeze_norm=True)
  tx = _sgd(trained='classifier', weight_decay=0.01)
  start = _start(model, tx)
  noise = np.random.default_rng(0)
  start = start.replace(
    batch_stats=jax.tree.map(
      lambda leaf: noise.uniform(0.5, 1.5, leaf.shape).astype(np.float32),
      start.batch_stats,
    )
  )
  batch = _batch()
  step = make_train_step(model, lambda _: 0.1, tx, seed=0, trained='classifier')
  new_state, metrics = step(_copy(start), batch)
  for one, other in (
    (new_state.batch_stats, start.batch_stats),
    *[
      (new_state.params[name], start.params[name])
      for name in ('kernel_0', 'kernel_1', 'norm_0', 'norm_1')
    ],
  ):
    jax.tree.map(np.testing.assert_array_equal, one, other)

  # The gradient of a linear layer, by hand: the features' share of the error.
  features = _features(start, batch['clips'])
  kernel = np.float64(start.params['classifier']['kernel'])
  shares = np.exp(features @ kernel)
  shares /= shares.sum(axis=1, keepdims=True)
  error = (shares - np.eye(3)[batch['labels']]) / 4
  gradients = {'kernel': features.T @ error, 'bias': error.sum(axis=0)}
  norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
  np.testing.assert_allclose(metrics['gradient_norm'], norm, rtol=1e-5)
  found = new_state.params['classifier']
  expected = kernel - 0.1 * (gradients['kernel'] + 0.01 * kernel)
  np.testing.assert_allclose(found['kernel'], expected, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(
    found['bias'], -0.1 * gradients['bias'], rtol=1e-5, atol=1e-7
  )


def _features(state, clips):
  """Of `_Tiny` by the moving statistics, in float64 numpy."""
  x = (np.float64(clips) / 255 - 0.45) / 0.225
  for i in (0, 1):
    x = x @ np.float64(state.params[f'kernel_{i}'][0, 0, 0])
    stats = jax.tree.map(np.float64, state.batch_stats[f'norm_{i}'])
    x = np.maximum((x - stats['mean']) / np.sqrt(stats['var'] + 1e-5), 0)
  return x.mean((1, 2, 3))


@pytest.mark.parametrize(
  ('trained', 'convolutions'), [('all', 5), ('classifier', 2)]
)
def test_no_gradient_is_computed_that_nobody_needs(trained, convolutions):
  """Two forward; backward two for the kernels and one between the layers."""
  model, tx = _Tiny(freeze_norm=True), _sgd(trained=trained)
  step = make_train_step(model, lambda _: 0.1, tx, seed=0, trained=trained)
  abstract = jax.eval_shape(lambda: state_lib.create(model, tx, _SHAPE, 0))
  program = step.trace(abstract, _batch()).jaxpr
  assert _convolutions(program) == convolutions


@pytest.mark.parametrize('name', ['mtnet_xs', 'r3d_18'])
def test_what_is_trained_alone_is_there(name):
  """The classes of both kinds of networks come out of this layer."""
  model = models.build(name, 7, class_regularization=True)
  clips = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), clips)
  params = shapes['params']
  assert params[optim.CLASSIFIER]['kernel'].shape[1] == 7
  counts = {
    trained: sum(optim.is_trained(module, trained) for module in params)
    for trained in optim.TRAINED
  }
  assert counts == {
    'all': len(params), 'classifier': 1, 'class_regularization': 4
  }  # fmt: skip


def test_counters_are_summed_and_gates_are_passed_on():
  model, tx = _Tiny(), optax.sgd(0.1)
  step = make_train_step(model, lambda _: 0.1, tx, seed=0)
  counters = {'stop': np.array([0, 1, 1, 0]), 'broken': np.full(4, 1.5)}
  counters = {name: np.float32(numbers) for name, numbers in counters.items()}
  _, metrics = step(_start(model, tx), _batch() | {'counters': counters})
  assert metrics['stop'] == 2 and metrics['broken'] == 6
  assert 0 <= metrics['gate_open/block'] <= 1
  assert 'loss_scale' not in metrics and 'overflow' not in metrics


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_a_shape_is_compiled_once(dtype):
  model, tx = _Tiny(dtype=jnp.dtype(dtype)), _sgd()
  step = make_train_step(model, lambda _: 0.1, tx, seed=0)
  state = _start(model, tx)
  for n in (4, 4, 2, 4, 2):
    state, _ = step(state, _batch(n))
  assert step._cache_size() == 2


def _half(scale, **changes):
  """A network of float16, its optimizer and its state with a scaled loss."""
  model = _Tiny(dtype=jnp.float16)
  tx = _sgd()
  loss_scale = DynamicScale(scale=jnp.float32(scale), **changes)
  return model, tx, _start(model, tx).replace(loss_scale=loss_scale)


def test_an_overflow_changes_nothing_but_the_scale_and_the_step():
  model, tx, start = _half(16.0)
  step = make_train_step(model, lambda _: 0.1, tx, seed=0)
  start, metrics = step(start, _batch())  # some momentum
  assert metrics['overflow'] == 0 and metrics['gradient_norm'] > 0
  huge = start.loss_scale.replace(scale=jnp.float32(2.0**40))
  start = start.replace(loss_scale=huge)
  new_state, metrics = step(_copy(start), _batch(seed=1))
  for name in ('params', 'batch_stats'):
    jax.tree.map(
      np.testing.assert_array_equal,
      getattr(new_state, name),
      getattr(start, name),
    )
  old, new = map(jax.tree.leaves, (start.opt_state, new_state.opt_state))
  counts = [leaf for leaf in new if leaf.dtype == np.int32]
  # What the schedule counts goes on, or it would fall behind the data.
  assert counts and all(count == 2 for count in counts)
  for one, other in zip(old, new, strict=True):
    if other.dtype != np.int32:
      np.testing.assert_array_equal(one, other)
  assert new_state.step == 2
  assert new_state.loss_scale.scale == metrics['loss_scale'] == 2.0**39
  assert metrics['overflow'] == 1 and metrics['gradient_norm'] == 0
  assert np.isfinite(metrics['loss']) and np.isfinite(metrics['parameter_norm'])


def test_the_scale_grows_after_its_interval():
  model, tx, state = _half(8.0, growth_interval=3)
  step = make_train_step(model, lambda _: 0.1, tx, seed=0)
  scales = []
  for _ in range(8):
    state, metrics = step(state, _batch())
    scales.append(int(metrics['loss_scale']))
  assert scales == [8, 8, 8, 16, 16, 16, 16, 32]


def test_scaling_keeps_gradients_that_float16_has_not():
  def stem_gradient(dtype, scale):
    model = _Tiny(dtype=dtype)
    tx = optax.trace(0.0)  # the update is the gradient
    start = _start(model, tx)
    kernel = start.params['classifier']['kernel'] * 1e-6
    start.params['classifier']['kernel'] = kernel
    loss_scale = scale and DynamicScale(scale=jnp.float32(scale))
    start = start.replace(loss_scale=loss_scale)
    before = np.asarray(start.params['kernel_0'])
    step = make_train_step(model, lambda _: 1.0, tx, seed=0)
    new_state, _ = step(start, _batch())
    return np.asarray(new_state.opt_state.trace['kernel_0']), before

  exact, _ = stem_gradient(jnp.float32, None)
  assert 0 < np.abs(exact).max() < 1e-6
  lost, _ = stem_gradient(jnp.float16, None)
  assert not lost.any()
  kept, _ = stem_gradient(jnp.float16, 2.0**16)
  assert np.abs(kept - exact).max() < 0.02 * np.abs(exact).max()
