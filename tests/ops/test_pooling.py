"""Every pooling against loops over its windows in float64."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.ops import pooling
from mtnet_jax.ops.soft_pool import soft_pool
from tests.arrays import random_clips

KINDS = ('avg', 'max', 'stochastic', 'softpool')
CASES = [
  ((4, 6, 4), (2, 2, 2)),
  ((5, 3, 7), (2, 2, 2)),
  ((1, 1, 2), (2, 2, 2)),
  ((3, 5, 4), (1, 2, 2)),
]


def softplus(a):
  return np.log1p(np.exp(a))


def window_of(a, kind):
  """The pooled value of the elements `(n, r, c)`, and its derivatives."""
  if kind == 'avg':
    weights = np.full_like(a, 1 / a.shape[1])
  elif kind == 'max':
    weights = np.float64(a == a.max(axis=1, keepdims=True))
  else:
    grown = np.exp(a) if kind == 'softpool' else softplus(a)
    weights = grown / grown.sum(axis=1, keepdims=True)
  y = np.sum(weights * a, axis=1, keepdims=True)
  slopes = weights
  if kind == 'stochastic':  # the weights change with the elements as well
    growth = 1 / (1 + np.exp(-a)) / softplus(a).sum(axis=1, keepdims=True)
    slopes = weights + growth * (a - y)
  return y[:, 0], slopes


def plain_pool(x, kind, window=(2, 2, 2)):
  """The pooled clips; and of every element, the derivative of its window."""
  x = np.float64(x)
  sizes = [-(-size // w) for size, w in zip(x.shape[1:4], window, strict=True)]
  y, slopes = np.zeros((len(x), *sizes, x.shape[-1])), np.zeros(x.shape)
  for place in np.ndindex(*sizes):
    here = tuple(
      slice(w * p, w * (p + 1)) for p, w in zip(place, window, strict=True)
    )
    here = (slice(None), *here)
    a = x[here]
    flat = a.reshape(len(x), -1, x.shape[-1])
    y[(slice(None), *place)], slope = window_of(flat, kind)
    slopes[here] = slope.reshape(a.shape)
  return y, slopes


def spread(y, shape, window):
  """Every element of x gets its window's value."""
  for axis, w in enumerate(window, start=1):
    y = y.repeat(w, axis=axis)
  return y[:, : shape[1], : shape[2], : shape[3]]


@functools.partial(jax.jit, static_argnums=(2, 3))
def pool_and_gradient(x, dy, kind, window=(2, 2, 2), key=None):
  y, vjp = jax.vjp(lambda x: pooling.pool(x, kind, window, key), x)
  return y, vjp(dy)[0]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(('size', 'window'), CASES)
def test_values_and_gradients_equal_the_definition(kind, size, window):
  x = 2 * random_clips(2, *size, 3)
  expected, slopes = plain_pool(x, kind, window)
  dy = random_clips(*expected.shape, seed=1)

  y, dx = pool_and_gradient(x, dy, kind, window)
  chex.assert_trees_all_equal_shapes_and_dtypes(y, np.float32(expected))
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
  expected = spread(dy, x.shape, window) * slopes
  np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-5)


def test_the_loops_derivative_equals_finite_differences():
  # Of the one pooling whose derivative is more than its weights.
  x = np.float64(random_clips(1, 3, 2, 3, 1))
  _, slopes = plain_pool(x, 'stochastic')
  for index in np.ndindex(*x.shape):
    up, down = x.copy(), x.copy()
    up[index] += 1e-5
    down[index] -= 1e-5
    change = plain_pool(up, 'stochastic')[0] - plain_pool(down, 'stochastic')[0]
    np.testing.assert_allclose(change.sum() / 2e-5, slopes[index], rtol=1e-6)


def test_a_window_by_hand():
  # softplus(ln(e^k - 1)) is k: the probabilities are 1, 2, 3 and 4 tenths.
  a = np.log(np.expm1([1.0, 2.0, 3.0, 4.0]))
  x = np.float32(a).reshape(1, 1, 2, 2, 1)
  expected = {
    'avg': a.sum() / 4,
    'max': a[3],
    'stochastic': (a[0] + 2 * a[1] + 3 * a[2] + 4 * a[3]) / 10,
    'softpool': np.sum(a * np.exp(a))
    / (np.e + np.e**2 + np.e**3 + np.e**4 - 4),
  }
  for kind, value in expected.items():
    np.testing.assert_allclose(pooling.pool(x, kind).item(), value, rtol=1e-6)


def test_the_first_of_the_largest_gets_the_gradient():
  # After a ReLU many windows are zero everywhere.
  x, dy = np.zeros((1, 2, 2, 3, 1)), np.ones((1, 1, 1, 2, 1))
  _, gradient = pool_and_gradient(x, dy, 'max')
  expected = np.zeros((1, 2, 2, 3, 1))
  expected[0, 0, 0, [0, 2]] = 1
  np.testing.assert_array_equal(gradient, expected)


def test_softpool_of_frames_alone_is_soft_pool():
  x = random_clips(1, 3, 5, 4, 2)
  np.testing.assert_array_equal(
    pooling.pool(x, 'softpool', (1, 2, 2)), soft_pool(x)
  )


def draws(x, count, seed=0):
  """`count` independent draws of the windows of one clip."""
  x = jnp.broadcast_to(x, (count, *x.shape[1:]))
  return np.asarray(
    jax.jit(pooling.pool, static_argnums=1)(
      x, 'stochastic', key=jax.random.key(seed)
    )
  )


def test_drawn_values_are_real_elements_of_their_window():
  # All below zero: were the zeros that fill the last windows up elements, they
  # would be drawn most.
  x = np.arange(-55.0, -10.0, dtype=np.float32).reshape(1, 3, 3, 5, 1) / 10
  got = draws(x, 2000)
  assert got.shape == (2000, 2, 2, 3, 1)
  for i, j, k in np.ndindex(2, 2, 3):
    here = np.s_[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 2 * k : 2 * k + 2]
    assert set(got[:, i, j, k, 0]) == set(x[here].ravel()), (i, j, k)


def test_frequencies_are_those_of_softplus():
  count = 20_000
  a = np.linspace(-3, 2, 8, dtype=np.float32).reshape(1, 2, 2, 2, 1)
  p = softplus(np.float64(a.ravel()))
  p /= p.sum()
  values, counts = np.unique(draws(a, count), return_counts=True)
  np.testing.assert_array_equal(values, a.ravel())
  # Five standard deviations of a binomial count.
  assert np.all(
    np.abs(counts / count - p) < 5 * np.sqrt(p * (1 - p) / count)
  ), counts
  # Evaluation is the mean of the draws.
  expected = pooling.pool(a, 'stochastic').item()
  np.testing.assert_allclose(expected, p @ a.ravel(), rtol=1e-5)
  np.testing.assert_allclose(draws(a, count).mean(), expected, atol=0.05)


def test_the_key_decides():
  x = random_clips(1, 4, 4, 4, 8)
  np.testing.assert_array_equal(draws(x, 2), draws(x, 2))
  assert np.any(draws(x, 2) != draws(x, 2, seed=1))
  # Clips, channels and windows draw apart.
  same = np.tile(np.float32([0.0, 1.0]), 32).reshape(1, 1, 1, 64, 1)
  assert len(np.unique(draws(same, 2).reshape(2, -1), axis=0)) == 2
  assert len(np.unique(draws(same, 1))) == 2


def test_the_gradient_flows_to_the_drawn_element():
  x = random_clips(2, 3, 4, 4, 3)
  dy = random_clips(2, 2, 2, 2, 3, seed=1)
  key = jax.random.key(0)
  y, dx = pool_and_gradient(x, dy, 'stochastic', key=key)
  drawn = spread(np.asarray(y), x.shape, (2, 2, 2)) == x
  assert drawn.sum() == y.size  # no two elements are equal
  np.testing.assert_array_equal(
    dx, np.where(drawn, spread(dy, x.shape, (2, 2, 2)), 0)
  )


@pytest.mark.parametrize('kind', KINDS)
def test_large_values_stay_finite(kind):
  # softplus(-200) is zero in float32, and so would be the sum of a window.
  x = np.float32([[-200, -201, 1e4], [-200, -201, -1e4]])
  x = x.reshape(1, 1, 2, 3, 1)
  y, dx = pool_and_gradient(x, np.ones((1, 1, 1, 2, 1)), kind)
  share = 1 / (1 + np.e)  # of -201
  expected = {
    'avg': [-200.5, 0],
    'max': [-200, 1e4],
    'stochastic': [-200 - share, 1e4],
    'softpool': [-200 - share, 1e4],
  }[kind]
  np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6)
  assert np.isfinite(dx).all()


def test_draws_of_values_far_below_zero():
  x = np.float32([-200, -201, -190, -300]).reshape(1, 1, 2, 2, 1)
  # The third is e^10 times as likely as the next.
  assert np.mean(draws(x, 100) == -190) > 0.9


@pytest.mark.parametrize('kind', KINDS)
def test_bfloat16_is_pooled_in_float32(kind):
  x = jnp.asarray(random_clips(1, 3, 4, 5, 2), jnp.bfloat16)
  expected, slopes = plain_pool(x.astype(jnp.float32), kind)
  dy = jnp.ones(expected.shape, jnp.bfloat16)
  y, dx = pool_and_gradient(x, dy, kind)
  chex.assert_type([y, dx], jnp.bfloat16)
  # One rounding to eight bits, at the end.
  np.testing.assert_allclose(np.float32(y), expected, rtol=2**-8, atol=1e-6)
  np.testing.assert_allclose(np.float32(dx), slopes, rtol=2**-8, atol=1e-6)


def test_an_unknown_pooling_is_refused():
  message = (
    r"`pooling` \(='sofpool'\).*'avg', 'max', 'stochastic', 'softpool', "
    r"'avg\+cos', 'softpool\+cos'"
  )
  with pytest.raises(UserError, match=message):
    pooling.split_pooling('sofpool')
  with pytest.raises(UserError, match='pooling'):
    pooling.split_pooling('max+cos')
