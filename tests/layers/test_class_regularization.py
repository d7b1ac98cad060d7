"""Class Regularisation: Algorithm 1 in plain loops, and its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.layers import class_regularization
from mtnet_jax.layers.class_regularization import (
  ClassRegularization,
  class_maps,
  regularize,
)
from tests.arrays import random_clips


def plain(a, class_weights, projection, rate):
  """Algorithm 1 line by line, a clip, a class and a channel at a time."""
  a, class_weights, projection = map(np.float64, (a, class_weights, projection))
  out, chosen = np.zeros_like(a), []
  channels = range(a.shape[-1])
  for n, clip in enumerate(a):
    pooled = [clip[..., c].mean() for c in channels]
    maps = [
      [max(0, sum(w * projection[:, c])) for c in channels]
      for w in class_weights
    ]
    best = 0
    for k, row in enumerate(maps):
      if np.dot(row, pooled) > np.dot(maps[best], pooled):
        best = k
    row = maps[best]
    chosen.append(best)
    for c in channels:
      span = max(row) - min(row)
      share = (row[c] - min(row)) / span if span else 1
      out[n, ..., c] = clip[..., c] * (rate + (1 - rate) * share)
  return out, chosen


def _arrays(clips=5, classes=4, seed=0):
  rng = np.random.default_rng(seed)
  a = np.maximum(random_clips(clips, 2, 3, 2, 6, seed=seed), 0)
  # Each clip has channels of its own.
  a *= rng.uniform(0, 3, (clips, 1, 1, 1, 6)).astype(np.float32)
  weights = rng.normal(size=(classes, 7)).astype(np.float32)
  projection = rng.normal(size=(7, 6)).astype(np.float32)
  return a, weights, projection


@pytest.mark.parametrize('rate', [0.0, 0.6, 0.9, 1.0])
@pytest.mark.parametrize('seed', [0, 1])
def test_equals_algorithm_1(rate, seed):
  arrays = _arrays(seed=seed)
  got, chosen, _ = jax.jit(regularize)(*arrays, rate)
  expected, classes = plain(*arrays, rate)
  assert chosen.dtype == jnp.int32 and chosen.tolist() == classes
  assert len(set(classes)) > 1  # clips choose for themselves
  np.testing.assert_allclose(got, expected, atol=1e-5)
  if rate == 1:
    np.testing.assert_array_equal(got, arrays[0])


def test_maps():
  _, weights, projection = _arrays()
  got = class_maps(weights, projection)
  expected = np.maximum(np.float64(weights) @ projection, 0)
  assert got.shape == (4, 6) and (expected == 0).any()
  np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize('level', [0.0, 0.5])
def test_a_constant_map_changes_nothing_and_has_finite_gradients(level):
  a, weights, _ = _arrays()
  projection = jnp.zeros((7, 6)).at[0].set(level)
  weights = jnp.asarray(weights).at[:, 0].set(1.0)
  got, chosen, _ = regularize(a, weights, projection, 0.3)
  np.testing.assert_array_equal(got, a)
  assert not chosen.any()  # all are equal: the lowest index

  def total(a, projection):
    return jnp.sum(regularize(a, weights, projection, 0.3)[0])

  ones, none = jax.grad(total, (0, 1))(a, projection)
  np.testing.assert_array_equal(ones, np.ones_like(a))
  assert not none.any()


def test_half_precision_chooses_and_scales_in_single():
  a, weights, projection = _arrays()
  a = jnp.asarray(a, jnp.bfloat16)
  got, chosen, _ = regularize(a, weights, projection, 0.2)
  expected, classes = plain(a, weights, projection, 0.2)
  assert got.dtype == jnp.bfloat16 and chosen.tolist() == classes
  np.testing.assert_allclose(
    np.float32(got), expected, rtol=2**-8, atol=1e-6
  )  # one rounding


def test_gradient_of_the_projection_by_finite_differences():
  a, weights, projection = _arrays(clips=2)
  cotangent = random_clips(*a.shape, seed=3)

  def loss(projection):
    return jnp.sum(cotangent * regularize(a, weights, projection, 0.4)[0])

  def plain_loss(projection):
    return np.sum(cotangent * plain(a, weights, projection, 0.4)[0])

  gradient = jax.jit(jax.grad(loss))(projection)
  step = 1e-6
  expected = np.zeros(projection.shape)
  for index in np.ndindex(*projection.shape):
    moved = np.zeros(projection.shape)
    moved[index] = step
    both = [plain_loss(projection + sign * moved) for sign in (1, -1)]
    expected[index] = (both[0] - both[1]) / (2 * step)
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(gradient, expected, atol=2e-4)


def test_class_weights_get_no_gradient():
  a, weights, projection = _arrays()

  def total(weights, projection):
    out, *_ = regularize(a, weights, projection, 0.1)
    return jnp.sum(jnp.square(out))

  gradients = jax.grad(total, (0, 1))(jnp.asarray(weights), projection)
  assert not gradients[0].any() and gradients[1].any()


def test_module():
  a, weights, _ = _arrays()
  module = ClassRegularization(0.7)
  variables = module.init(jax.random.key(0), a, weights)
  assert jax.tree.map(jnp.shape, variables) == {'params': {'kernel': (7, 6)}}
  got = module.apply(variables, a, weights)
  expected = regularize(a, weights, variables['params']['kernel'], 0.7)
  jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_kaiming():
  a, weights = np.ones((1, 1, 1, 1, 400), np.float32), np.ones((3, 500))
  kernel = ClassRegularization(0.7).init(jax.random.key(0), a, weights)
  std = float(jnp.std(kernel['params']['kernel']))
  assert std == pytest.approx((2 / 500) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
  'rates',
  [(0.9, 0.8), (0.9, 0.8, 0.7, 1.1), (-0.1, 0.8, 0.7, 0.6), (), tuple('abcd')],
)
def test_rates_outside_their_range(rates):
  check = functools.partial(class_regularization.check_affection_rates, rates)
  with pytest.raises(UserError, match=r'`affection_rates` \(=.*4 numbers in'):
    check(4)


def test_products_are_in_full_float32():
  """Else accelerators round them to fewer digits."""
  program = str(jax.make_jaxpr(regularize)(*_arrays(), 0.5))
  assert program.count('dot_general') == 2
  assert program.count('Precision.HIGHEST') == 4  # of both operands


def test_scores():
  a, weights, projection = _arrays()
  pooled = np.float64(a).mean(axis=(1, 2, 3))
  maps = np.maximum(np.float64(weights) @ projection, 0)
  *_, scores = regularize(a, weights, projection, 0.5)
  np.testing.assert_allclose(scores, pooled @ maps.T, rtol=1e-5, atol=1e-6)
  _, chosen, scores = regularize(a, weights, projection, 0.5, 'own')
  expected = np.zeros((5, 4))
  for n, k in np.ndindex(5, 4):
    # Pearson's correlation over the six channels, times √6.
    expected[n, k] = np.corrcoef(pooled[n], maps[k])[0, 1] * 6**0.5
  np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
  assert chosen.tolist() == expected.argmax(axis=1).tolist()


def test_own_scores_of_constant_rows_have_finite_gradients():
  a, weights, _ = _arrays()

  def loss(projection):
    *_, scores = regularize(a, weights, projection, 0.5, 'own')
    return jnp.sum(scores**2)

  gradient = jax.grad(loss)(jnp.zeros((7, 6)))
  assert np.isfinite(gradient).all()
