"""Interpolation by hand and against loops, in every form."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.ops.up_sample import up_sample
from tests.arrays import random_clips
from tests.ops import any_form


def interpolate(x, shape):
  """Half-pixel centers, positions clamped to the outermost ones."""
  for axis, size in enumerate(shape, start=1):
    old = x.shape[axis]
    position = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, old - 1)
    f = (position - low).reshape([-1 if a == axis else 1 for a in range(5)])
    x = np.take(x, low, axis) * (1 - f) + np.take(x, high, axis) * f
  return x


@any_form.each
def test_up_sample_by_hand(form):
  x = np.array([0.0, 4.0, 8.0], np.float32).reshape(1, 3, 1, 1, 1)

  def both(x):
    return up_sample(x, (6, 1, 1)), up_sample(x, (5, 1, 1))

  doubled, odd = any_form.jit(both, form)(x)
  np.testing.assert_allclose(doubled.ravel(), [0, 1, 3, 5, 7, 8], atol=1e-6)
  # Centers of five on three: -0.2, 0.4, 1.0, 1.6, 2.2, clamped to [0, 2].
  np.testing.assert_allclose(odd.ravel(), [0, 1.6, 4, 6.4, 8], atol=1e-5)


@pytest.mark.parametrize('shape', [(6, 4, 10), (5, 3, 9), (3, 2, 5), (7, 2, 5)])
def test_up_sample_equals_loops(shape):
  x = random_clips(2, 3, 2, 5, 4)
  np.testing.assert_allclose(
    up_sample(x, shape), interpolate(x, shape), atol=1e-5
  )


def test_up_sample_of_many_half_precision_positions():
  x = jnp.asarray(np.arange(301) % 2, jnp.bfloat16).reshape(1, 1, 1, 301, 1)
  got = up_sample(x, (1, 1, 601))
  expected = interpolate(np.float64(x), (1, 1, 601))
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.float64(got), expected, atol=4e-3)
