"""Columns side by side: their kernels, and the operations of a stem."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.ops import activation, batch_norm, forms, lanes
from mtnet_jax.ops.conv import conv3d
from mtnet_jax.ops.separated_conv import channel_separated_conv3d
from tests.arrays import random_clips


def test_kernel_of_columns_by_hand():
  """Kernel (a, b, c), stride 2, four columns to two: 2·o + k - 1 is below."""
  kernel = jnp.array([2.0, 3, 5]).reshape(1, 1, 3, 1, 1)
  found, padding = lanes.of_columns(kernel, 2, 4)
  chex.assert_shape(found, (1, 1, 2, 4, 2))
  # Group before: its last column meets a. Group itself: columns by results.
  np.testing.assert_array_equal(found[0, 0, 0], [[0, 0]] * 3 + [[2, 0]])
  np.testing.assert_array_equal(
    found[0, 0, 1], [[3, 0], [5, 2], [0, 3], [0, 5]]
  )
  assert padding == (1, 0)


@pytest.mark.parametrize(
  ('channels', 'width', 'groups'),
  [(24, 224, 28), (64, 224, 56), (16, 80, 5), (24, 28, 7), (65, 224, 0),
   (24, 30, 0), (64, 90, 0)],
)  # fmt: skip
def test_groups_fill_the_lanes_and_divide_columns(channels, width, groups):
  assert lanes.fitting_groups(channels, width, 2) == groups


def _dense(volume, strides, c, f):
  kernel = random_clips(*volume, c, f, seed=1)
  return lambda x: conv3d(x, jnp.asarray(kernel, x.dtype), strides), c


def _separated(x):
  kernel = random_clips(5, 1, 1, 1, 6, seed=1)
  return channel_separated_conv3d(x, jnp.asarray(kernel, x.dtype))


def _normalized(x):
  scale, bias = jnp.arange(1.0, 7.0), jnp.arange(6.0)
  groups = x.reshape(1, *x.shape)
  y, mean, variance = batch_norm.normalize(
    groups, scale, bias, 1e-3, activation.relu, x.dtype
  )
  return y[0], mean, variance


def _scaled(x):
  gain = jnp.arange(1.0, 7.0).reshape(1, 1, 1, 1, 6)
  return activation.scale_and_activate(x, gain, -gain, activation.relu, x.dtype)


@pytest.mark.parametrize(
  ('function', 'channels'),
  [
    _dense((1, 3, 3), (1, 2, 2), 3, 24),
    _dense((3, 7, 7), (1, 2, 2), 3, 12),
    _dense((3, 1, 1), (1, 1, 1), 6, 8),
    _dense((1, 1, 1), (1, 1, 1), 6, 8),
    (_separated, 6),
    (_normalized, 6),
    (_scaled, 6),
  ],
  ids=['1x3x3', '3x7x7', '3x1x1', '1x1x1', 'separated', 'norm', 'scale'],
)
def test_operations_of_columns_side_by_side(function, channels):
  """Values and gradients, in float64, as without."""
  with jax.enable_x64(True):
    x = jnp.asarray(random_clips(2, 3, 5, 16, channels), jnp.float64)

    def both(x):
      y, vjp = jax.vjp(function, x)
      return y, vjp(jax.tree.map(lambda a: jnp.cos(a * 7 + 1), y))

    def beside(x):
      with forms.use('tpu'), forms.columns_side_by_side(24, 16, 2):
        return both(x)

    def plain(x):
      with forms.use('definition'):
        return both(x)

    traced = jax.jit(beside).trace(x)
    assert ',3,5,2,' in str(traced.jaxpr)  # 16 columns in 2 groups
    chex.assert_trees_all_close(
      jax.jit(beside)(x), jax.jit(plain)(x), rtol=1e-9, atol=1e-9
    )


def test_symbolic_clips_lie_one_by_one():
  """An exported program is for any number of them."""
  (n,) = jax.export.symbolic_shape('n')
  x = jax.ShapeDtypeStruct((n, 2, 4, 4, 3), jnp.float32)
  with forms.use('tpu'), forms.side_by_side(3, x.shape[0]):
    function = functools.partial(conv3d, kernel=jnp.ones((1, 1, 1, 3, 5)))
    assert jax.eval_shape(function, x).shape == (n, 2, 4, 4, 5)
