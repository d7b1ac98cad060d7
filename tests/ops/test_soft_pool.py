"""SoftPool against loops over its windows in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.ops import soft_pool as soft_pool_lib
from mtnet_jax.ops.soft_pool import soft_pool

SIZES = [(4, 6), (5, 4), (4, 3), (3, 5), (1, 4), (1, 1)]


def loops(x, frames=1):
  """The pooled values and each element's weight in its window."""
  x = np.float64(x)
  n, t, h, w, c = x.shape
  sizes = (-(-t // frames), -(-h // 2), -(-w // 2))
  y, weights = np.zeros((n, *sizes, c)), np.zeros(x.shape)
  for f, i, j in np.ndindex(*sizes):
    window = np.s_[
      :, frames * f : frames * (f + 1), 2 * i : 2 * i + 2, 2 * j : 2 * j + 2
    ]
    a = x[window]
    e = np.exp(a - a.max((1, 2, 3), keepdims=True))
    weights[window] = e / e.sum((1, 2, 3), keepdims=True)
    y[:, f, i, j] = np.sum(weights[window] * a, axis=(1, 2, 3))
  return y, weights


def spread(y, shape, frames=1):
  """Every element of x gets its window's value."""
  y = y.repeat(frames, axis=1).repeat(2, axis=2).repeat(2, axis=3)
  return y[:, : shape[1], : shape[2], : shape[3]]


def clips(h, w, seed=0, t=2):
  rng = np.random.default_rng(seed)
  return np.float32(2 * rng.normal(size=(2, t, h, w, 3)))


def pool_and_gradient(x, dy, gradient, frames=1):
  y, vjp = jax.vjp(lambda x: soft_pool(x, gradient, (frames, 2, 2)), x)
  return y, vjp(dy)[0]


def test_a_window_by_hand():
  # Weights e^0 : e^ln2 : e^ln3 : e^ln4 = 1 : 2 : 3 : 4.
  a = np.log([[1.0, 2.0], [3.0, 4.0]])
  y, dx = pool_and_gradient(
    np.float32(a).reshape(1, 1, 2, 2, 1), jnp.ones((1, 1, 1, 1, 1)), 'weights'
  )
  expected = (2 * np.log(2) + 3 * np.log(3) + 4 * np.log(4)) / 10
  np.testing.assert_allclose(y.item(), expected, rtol=1e-6)
  np.testing.assert_allclose(
    dx[0, 0, :, :, 0], [[0.1, 0.2], [0.3, 0.4]], rtol=1e-6
  )


@pytest.mark.parametrize(
  ('t', 'h', 'w', 'frames'),
  [(2, h, w, 1) for h, w in SIZES]
  + [(4, 4, 6, 2), (3, 3, 5, 2), (1, 2, 3, 2), (1, 1, 1, 2)],
)
def test_values_and_both_gradients_equal_the_definition(t, h, w, frames):
  x = clips(h, w, t=t)
  y, weights = loops(x, frames)
  dy = np.float32(np.random.default_rng(1).normal(size=y.shape))
  run = jax.jit(pool_and_gradient, static_argnums=(2, 3))
  pooled, by_weights = run(x, dy, 'weights', frames)
  _, exact = run(x, dy, 'exact', frames)
  chex.assert_shape(pooled, (2, -(-t // frames), -(-h // 2), -(-w // 2), 3))
  chex.assert_trees_all_equal_shapes_and_dtypes(x, by_weights, exact)
  np.testing.assert_allclose(pooled, y, rtol=1e-5, atol=1e-6)
  expected = spread(dy, x.shape, frames) * weights
  np.testing.assert_allclose(by_weights, expected, rtol=1e-5, atol=1e-6)
  expected = expected * (1 + x - spread(y, x.shape, frames))
  np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-5)


def test_the_exact_gradient_equals_finite_differences():
  x = clips(3, 3)[:1, :1, :, :, :1]
  dy = np.random.default_rng(1).normal(size=(1, 1, 2, 2, 1))
  _, grad = pool_and_gradient(x, np.float32(dy), 'exact')
  step = 1e-6
  for index in np.ndindex(*x.shape):
    up, down = np.float64(x), np.float64(x)
    up[index] += step
    down[index] -= step
    expected = np.sum((loops(up)[0] - loops(down)[0]) * dy) / (2 * step)
    np.testing.assert_allclose(grad[index], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('gradient', ['weights', 'exact'])
def test_large_values_stay_finite(gradient):
  x = np.float32([[1e4, -1e4, -1e4], [1e4, -1e4, -1e4], [-1e4, 1e4, 1e4]])
  y, dx = jax.jit(pool_and_gradient, static_argnums=2)(
    x.reshape(1, 1, 3, 3, 1), jnp.ones((1, 1, 2, 2, 1)), gradient
  )
  np.testing.assert_allclose(y[0, 0, :, :, 0], [[1e4, -1e4], [1e4, 1e4]])
  np.testing.assert_allclose(
    dx[0, 0, :, :, 0], [[0.5, 0, 0.5], [0.5, 0, 0.5], [0, 1, 1]], atol=1e-6
  )


def test_bfloat16_is_pooled_in_float32():
  x = jnp.asarray(clips(5, 4), jnp.bfloat16)
  y, weights = loops(x.astype(jnp.float32))
  dy = jnp.ones(y.shape, jnp.bfloat16)
  pooled, dx = jax.jit(pool_and_gradient, static_argnums=2)(x, dy, 'weights')
  chex.assert_type([pooled, dx], jnp.bfloat16)
  # One rounding to eight bits, at the end.
  np.testing.assert_allclose(np.float32(pooled), y, rtol=2**-8, atol=1e-6)
  np.testing.assert_allclose(np.float32(dx), weights, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize('channels', [3, 40])
@pytest.mark.parametrize('frames', [None, [[0, 2], [1, 2]]])
def test_a_program_for_tpus_and_others_keeps_what_the_others_keep(
  channels, frames
):
  """Where the platform is not known: few channels, and many."""
  rng = np.random.default_rng(3)
  x, d_x = (
    jnp.asarray(rng.normal(size=(2, 3, 4, 6, channels)), jnp.float32)
    for _ in range(2)
  )
  frames = None if frames is None else jnp.array(frames)
  d_y = jnp.ones((2, 3 if frames is None else 2, 2, 3, channels))

  def passes(name, **more):
    forward, backward = soft_pool_lib._pool_with_residual._pairs[name]
    results, kept = forward(x, frames, **more)
    return results, kept, backward(kept, (d_x, d_y), **more)[0]

  found, expected = passes('tpu', groups=0), passes('xla')
  chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
  chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_gradient_is_refused():
  with pytest.raises(
    UserError, match=r"`gradient` \(='true'\).*'weights', 'exact'"
  ):
    soft_pool(clips(2, 2), gradient='true')
