"""Columns side by side: their kernels, and the operations of a stem."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.ops import activation, batch_norm, forms, lanes
from mtnet_jax.ops.channels import join, split
from mtnet_jax.ops.conv import conv3d
from mtnet_jax.ops.fork import fork
from mtnet_jax.ops.frame_selection import gather_frames
from mtnet_jax.ops.max_pool import max_pool
from mtnet_jax.ops.mean import mean
from mtnet_jax.ops.separated_conv import channel_separated_conv3d
from mtnet_jax.ops.soft_pool import soft_pool_with_residual
from tests.arrays import random_clips

_FRAMES = np.array([[0, 2], [1, 2]], np.int32)


def test_kernel_of_columns_by_hand():
  """Kernel (a, b, c), stride 2, four columns to two: 2·o + k - 1 is below."""
  kernel = jnp.array([2.0, 3, 5]).reshape(1, 1, 3, 1, 1)
  found, padding = lanes.dense_kernel(kernel, 2, 4)
  chex.assert_shape(found, (1, 1, 2, 4, 2))
  # Group before: its last column meets a. Group itself: columns by results.
  np.testing.assert_array_equal(found[0, 0, 0], [[0, 0]] * 3 + [[2, 0]])
  np.testing.assert_array_equal(
    found[0, 0, 1], [[3, 0], [5, 2], [0, 3], [0, 5]]
  )
  assert padding == (1, 0)


def test_pairs_of_rows_by_hand():
  """Kernel (a, b, c), stride 2: row 2·o + k - 1 is below."""
  kernel = jnp.array([2.0, 3, 5]).reshape(1, 3, 1, 1, 1)
  x = jnp.arange(4.0).reshape(1, 1, 4, 1, 1)
  pairs, found, padding = lanes.pair_rows(x, kernel)
  np.testing.assert_array_equal(pairs[0, 0, :, 0], [[0, 1], [2, 3]])
  # Of the pair before, the second row meets a; of the pair itself b and c.
  np.testing.assert_array_equal(found[0, :, 0, :, 0], [[0, 2], [3, 5]])
  assert padding == (1, 0)


@pytest.mark.parametrize(
  ('channels', 'width', 'columns', 'groups'),
  [(24, 224, 4, 14), (64, 224, 4, 28), (16, 160, 4, 5), (24, 56, 4, 7),
   (65, 224, 4, 0), (24, 60, 4, 0), (24, 312, 4, 39), (64, 90, 2, 0)],
)  # fmt: skip
def test_groups_fill_the_lanes_and_divide_columns(
  channels, width, columns, groups
):
  assert lanes.fitting_groups(channels, width, columns) == groups


def _dense(volume, strides, c, f):
  kernel = random_clips(*volume, c, f, seed=1)
  return lambda x: conv3d(x, jnp.asarray(kernel, x.dtype), strides), c


def _separated(volume, strides):
  kernel = random_clips(*volume, 1, 6, seed=1)
  return lambda x: channel_separated_conv3d(
    x, jnp.asarray(kernel, x.dtype), strides
  ), 6


def _normalized(x):
  scale, bias = jnp.arange(1.0, 7.0), jnp.arange(6.0)
  groups = x.reshape(1, *x.shape)
  y, mean, variance = batch_norm.normalize(
    groups, scale, bias, bias, 1e-3, activation.relu, x.dtype
  )
  return y[0], mean, variance


def _pooled(x, chosen=False):
  return soft_pool_with_residual(x, _FRAMES if chosen else None)


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
    _dense((1, 1, 1), (1, 2, 2), 6, 8),
    _separated((5, 1, 1), (1, 1, 1)),
    _separated((3, 3, 3), (1, 1, 1)),
    _separated((3, 3, 3), (1, 2, 2)),
    (_normalized, 6),
    (_scaled, 6),
    (_pooled, 20),
    (lambda x: _pooled(x, chosen=True), 6),
    (lambda x: gather_frames(x, _FRAMES), 6),
    (lambda x: max_pool(x[:, :, :, ::4], (3, 3, 3), (2, 2, 2)), 6),
    (lambda x: max_pool(x, (1, 3, 3), (1, 2, 2)), 6),
    (lambda x: join(*split(x, 4)[::-1]), 6),
    (lambda x: mean(x, 1), 6),
    (lambda x: mean(x, 2), 6),
    (lambda x: activation.add_and_rectify(*fork(x)), 6),
  ],
  ids=[
    *('dense_1x3x3', 'dense_3x7x7', 'dense_3x1x1', 'dense', 'dense_strided'),
    *('separated_5x1x1', 'separated', 'separated_strided'),
    *(
      'norm',
      'scale',
      'pool',
      'pool_frames',
      'gather',
      'max_pool',
      'max_pool_of_eight',
      'split_and_join',
      'mean',
      'mean_of_frames',
      'fork_and_add',
    ),
  ],
)
def test_operations_of_columns_side_by_side(function, channels):
  """Values and gradients, in float64, as without."""
  with jax.enable_x64(True):
    x = jnp.asarray(random_clips(2, 3, 4, 16, channels), jnp.float64)

    def both(x):
      y, vjp = jax.vjp(function, x)
      return y, vjp(jax.tree.map(lambda a: jnp.cos(a * 7 + 1), y))

    def beside(x):
      with forms.use('tpu'), forms.side_by_side(2):
        return both(x)

    def plain(x):
      with forms.use('definition'):
        return both(x)

    traced = jax.jit(beside).trace(x)
    assert ',3,4,2,' in str(traced.jaxpr)  # 16 columns in 2 groups
    chex.assert_trees_all_close(
      jax.jit(beside)(x), jax.jit(plain)(x), rtol=1e-9, atol=1e-9
    )
