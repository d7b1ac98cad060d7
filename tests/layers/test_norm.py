"""Sub-batch BN against numpy in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.layers import norm
from mtnet_jax.layers.norm import BatchNorm


def clips(n=4, seed=0):
  """Clips that differ much in mean and spread."""
  rng = np.random.default_rng(seed)
  level = np.arange(n).reshape(n, 1, 1, 1, 1)
  x = level + (1 + level) * rng.normal(size=(n, 2, 3, 4, 5))
  return np.float32(x)


def normalize(x, epsilon=1e-5):
  """One sub-batch, in float64."""
  x = np.float64(x)
  mean, var = x.mean((0, 1, 2, 3)), x.var((0, 1, 2, 3))
  return (x - mean) / np.sqrt(var + epsilon), mean, var


def train(layer, x, variables=None):
  if variables is None:
    variables = layer.init(jax.random.key(0), x)
  return jax.jit(lambda v, x: layer.apply(v, x, mutable='batch_stats'))(
    variables, x
  )


@pytest.mark.parametrize('size', [0, 1, 2, 4])
def test_each_sub_batch_is_normalized_apart(size):
  x = clips()
  y, state = train(BatchNorm(False, batch_size=size), x)
  step = size or 4
  parts = [normalize(x[i : i + step]) for i in range(0, 4, step)]
  chex.assert_equal_shape([x, y])
  np.testing.assert_allclose(
    y, np.concatenate([p[0] for p in parts]), rtol=1e-4, atol=1e-4
  )
  mean = np.mean([p[1] for p in parts], axis=0)
  var = np.mean([p[2] for p in parts], axis=0)
  # From zero mean and unit variance, a tenth of the way.
  stats = state['batch_stats']
  np.testing.assert_allclose(stats['mean'], 0.1 * mean, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * var, rtol=1e-4)


def test_momentum_scale_and_bias():
  x = clips()
  layer = BatchNorm(False, momentum=0.75)
  scale, bias = np.arange(1.0, 6.0), np.arange(5.0)
  variables = {
    'params': {'scale': jnp.float32(scale), 'bias': jnp.float32(bias)},
    'batch_stats': {'mean': jnp.full(5, 8.0), 'var': jnp.full(5, 4.0)},
  }
  y, state = train(layer, x, variables)
  expected, mean, var = normalize(x)
  np.testing.assert_allclose(y, expected * scale + bias, rtol=1e-4, atol=1e-4)
  stats = state['batch_stats']
  np.testing.assert_allclose(stats['mean'], 6 + 0.25 * mean, rtol=1e-5)
  np.testing.assert_allclose(stats['var'], 3 + 0.25 * var, rtol=1e-5)


def test_evaluation_uses_the_moving_statistics_for_any_batch():
  x = clips(3)
  variables = {
    'params': {'scale': jnp.full(5, 2.0), 'bias': jnp.full(5, 1.0)},
    'batch_stats': {'mean': jnp.full(5, 0.5), 'var': jnp.full(5, 4.0)},
  }
  # Three clips are no multiple of two; nothing is shared here.
  layer = BatchNorm(True, batch_size=2, epsilon=0.0)
  np.testing.assert_allclose(
    layer.apply(variables, x), (x - 0.5) + 1, rtol=1e-5, atol=1e-5
  )


def test_initialization_leaves_the_statistics_alone():
  variables = BatchNorm(False).init(jax.random.key(0), clips())
  chex.assert_trees_all_equal(
    variables,
    {
      'params': {'scale': jnp.ones(5), 'bias': jnp.zeros(5)},
      'batch_stats': {'mean': jnp.zeros(5), 'var': jnp.ones(5)},
    },
  )


def test_statistics_of_bfloat16_are_float32():
  # The sum of 24 · 257 is far beyond what bfloat16 counts exactly.
  x = np.full((4, 2, 3, 4, 5), 256.0, np.float32)
  x[:, ::2] += 2
  y, state = train(BatchNorm(False), x.astype(jnp.bfloat16))
  chex.assert_type(y, jnp.bfloat16)
  stats = state['batch_stats']
  chex.assert_type([stats['mean'], stats['var']], jnp.float32)
  np.testing.assert_allclose(stats['mean'], 25.7, rtol=1e-6)
  np.testing.assert_allclose(stats['var'], 1.0, rtol=1e-3)
  np.testing.assert_allclose(np.float32(y[:, ::2]), 1, rtol=1e-2)
  y, _ = train(BatchNorm(False, dtype=jnp.bfloat16), x)
  chex.assert_type(y, jnp.bfloat16)


def test_a_constant_channel_becomes_zero():
  x = np.full((2, 3, 3, 3, 2), 1e3 + 0.1, np.float32)
  y, state = train(BatchNorm(False), x)
  # The difference of two rounded squares, which is never below zero.
  assert np.all(np.abs(y) < 1)
  assert np.all(state['batch_stats']['var'] >= 0.9)


def test_gradient_is_that_of_the_definition():
  x = clips(2)[:, :1, :2, :2, :2]
  dy = np.random.default_rng(1).normal(size=x.shape)
  layer = BatchNorm(False, batch_size=1)

  def loss(x):
    variables = {
      'params': {'scale': jnp.ones(2), 'bias': jnp.zeros(2)},
      'batch_stats': {'mean': jnp.zeros(2), 'var': jnp.ones(2)},
    }
    y, _ = layer.apply(variables, x, mutable='batch_stats')
    return jnp.sum(y * np.float32(dy))

  def define(x):
    return sum(
      np.sum(normalize(x[i : i + 1])[0] * dy[i : i + 1]) for i in (0, 1)
    )

  grad = jax.jit(jax.grad(loss))(x)
  step = 1e-5
  for index in np.ndindex(*x.shape):
    up, down = np.float64(x), np.float64(x)
    up[index] += step
    down[index] -= step
    expected = (define(up) - define(down)) / (2 * step)
    np.testing.assert_allclose(grad[index], expected, rtol=1e-2, atol=1e-4)


def _raw_moments(x, size):
  layer = BatchNorm(False, batch_size=size)
  variables = layer.init(jax.random.key(0), x)
  mutable = ['batch_stats', norm.MOMENTS]
  _, updated = layer.apply(variables, x, mutable=mutable)
  return norm.raw_moments(updated[norm.MOMENTS])


@pytest.mark.parametrize('size', [1, 2, 4])
def test_moments_of_sub_batches_and_batches_are_those_of_all(size):
  x = clips(12)
  batches = [_raw_moments(x[i : i + 4], size) for i in (0, 4, 8)]
  raw = jax.tree.map(lambda *leaves: sum(leaves) / 3, *batches)
  wide = np.float64(x)
  axes = (0, 1, 2, 3)
  np.testing.assert_allclose(raw['mean'], wide.mean(axes), rtol=1e-5)
  np.testing.assert_allclose(raw['var'], (wide**2).mean(axes), rtol=1e-5)
  # Unlike the mean of variances, it knows how far apart the batches are.
  statistics = norm.to_statistics(raw)
  np.testing.assert_allclose(statistics['mean'], wide.mean(axes), rtol=1e-5)
  np.testing.assert_allclose(statistics['var'], wide.var(axes), rtol=1e-4)


def test_moments_of_a_network_by_hand():
  moments = {
    'stem': {'mean': (np.array([[1.0], [3.0]]),), 'var': (np.ones((2, 1)),)},
    'block': {
      'norm': {'mean': (np.array([[0.0]]),), 'var': (np.array([[4.0]]),)}
    },
  }
  raw = norm.raw_moments(moments)
  # The mean of 1 + 1² and 1 + 3².
  stem, inner = raw['stem'], raw['block']['norm']
  assert (stem['mean'], stem['var']) == (2, 6)
  assert (inner['mean'], inner['var']) == (0, 4)
  assert norm.to_statistics(raw) == {
    'stem': {'mean': 2, 'var': 2},
    'block': {'norm': {'mean': 0, 'var': 4}},
  }
  # What rounding leaves of a variance of zero is not below it.
  constant = {'mean': np.array([3.0]), 'var': np.array([9.0 - 1e-6])}
  assert norm.to_statistics(constant)['var'] == 0


def test_nothing_is_measured_by_the_way():
  """Neither while initializing, nor in evaluation, nor if nobody asks."""
  x = clips()
  variables = BatchNorm(False).init(jax.random.key(0), x)
  assert norm.MOMENTS not in variables
  for frozen, mutable in ((True, [norm.MOMENTS]), (False, ['batch_stats'])):
    _, updated = BatchNorm(frozen).apply(variables, x, mutable=mutable)
    assert not updated.get(norm.MOMENTS)


def test_an_uneven_batch_is_refused():
  with pytest.raises(
    UserError, match=r'\(=5 clips\).*multiple.*`batch_size` \(=2\)'
  ):
    BatchNorm(False, batch_size=2).init(jax.random.key(0), clips(5))
