"""Pixels to model input, by hand."""

import jax.numpy as jnp
import numpy as np

from mtnet_jax import preprocessing


def test_black_white_and_between():
  clips = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 1, 1, 3)
  # 0, 0.2 and 1 with mean 0.45 and deviation 0.225.
  expected = np.array([-2.0, -0.25 / 0.225, 0.55 / 0.225])
  got = preprocessing.normalize(clips)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got.ravel(), expected, rtol=1e-5)
  half = preprocessing.normalize(clips, 'bfloat16')
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    half.ravel().astype(jnp.float32), expected, rtol=1e-2
  )
