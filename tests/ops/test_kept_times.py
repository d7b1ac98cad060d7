"""Frames at their own times, against numpy's interpolation of each series."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.ops.kept_times import interpolate_times
from tests.arrays import random_clips


@pytest.mark.parametrize(
  ('indices', 'frames'),
  [
    ([[0, 1, 5, 7], [2, 3, 4, 9], [0, 3, 6, 9]], 10),
    ([[4], [0], [2]], 5),
    ([[0, 1], [1, 2], [0, 2]], 3),
  ],
)
def test_against_numpy(indices, frames):
  x = random_clips(3, len(indices[0]), 2, 3, 4)
  got = jax.jit(interpolate_times, static_argnums=2)(
    x, jnp.asarray(indices), frames
  )
  expected = np.zeros((3, frames, 2, 3, 4))
  for n, h, w, c in np.ndindex(3, 2, 3, 4):
    series = np.interp(np.arange(frames), indices[n], x[n, :, h, w, c])
    expected[n, :, h, w, c] = series
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_gradients_and_dtype():
  x = random_clips(1, 2, 1, 1, 1)
  indices = jnp.asarray([[1, 3]])
  gradient = jax.grad(lambda x: interpolate_times(x, indices, 6).sum())(x)
  # Frames 0 to 3 and half of frame 2; half of it and frames 3 to 5.
  np.testing.assert_allclose(gradient.ravel(), [2.5, 3.5])
  half = interpolate_times(jnp.asarray(x, jnp.bfloat16), indices, 6)
  assert half.dtype == jnp.bfloat16 and half.shape == (1, 6, 1, 1, 1)
