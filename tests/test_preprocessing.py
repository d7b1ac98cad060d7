"""Pixels to model input, by hand."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtnet_jax import preprocessing


def test_black_white_and_between():
  clips = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 1, 1, 3)
  # 0, 0.2 and 1 with mean 0.45 and deviation 0.225.
  expected = np.array([-2.0, -0.25 / 0.225, 0.55 / 0.225])
  color = preprocessing.MEAN, preprocessing.STD
  got = preprocessing.normalize(clips, 'float32', *color)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got.ravel(), expected, rtol=1e-5)
  half = preprocessing.normalize(clips, 'bfloat16', *color)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    half.ravel().astype(jnp.float32), expected, rtol=1e-2
  )


class _Network(nn.Module):
  dtype: str = 'float32'
  input_mean: tuple[float, ...] = (0.4, 0.2, 0.6)
  input_std: tuple[float, ...] = (0.5, 0.25, 0.1)


def test_a_network_has_numbers_of_its_own_for_each_channel():
  clips = jnp.array([[51, 102, 255]], jnp.uint8).reshape(1, 1, 1, 1, 3)
  got = preprocessing.prepare(clips, _Network())
  # 0.2, 0.4 and 1 of brightness.
  np.testing.assert_allclose(got.ravel(), [-0.4, 0.8, 4], rtol=1e-5)
  assert preprocessing.prepare(clips, _Network('bfloat16')).dtype == 'bfloat16'
