"""Max-pooling of frames, rows and columns."""

import functools

import jax
import jax.numpy as jnp

from mtnet_jax.ops import lanes
from mtnet_jax.ops.forms import Operation
from mtnet_jax.typing import Array, Float


def max_pool(
  x: Float[Array, 'n t h w c'], size: int, stride: int
) -> Float[Array, 'n u v x c']:
  """Returns the greatest element of each window, padded by `size // 2`.

  The gradient goes to one of the greatest.

  Args:
    x: activations, any float dtype.
    size: frames, rows and columns of a window, at least 1.
    stride: distance between windows in frames, rows and columns.
  """
  return _pool(x, size=size, stride=stride)


def _define(x, size, stride):
  pad = (size // 2, size // 2)
  return jax.lax.reduce_window(
    x,
    -jnp.inf,
    jax.lax.max,
    (1, size, size, size, 1),
    (1, stride, stride, stride, 1),
    ((0, 0), pad, pad, pad, (0, 0)),
  )


def _by_slices(x, size, stride):
  """The greatest of slices, one axis at a time."""
  for axis in (1, 2, 3):
    pads = [(0, 0)] * x.ndim
    pads[axis] = (size // 2, size // 2)
    x = jnp.pad(x, pads, constant_values=jnp.finfo(x.dtype).min)
    last = x.shape[axis] - size
    slices = (
      jax.lax.slice_in_dim(x, i, last + i + 1, stride, axis)
      for i in range(size)
    )
    x = functools.reduce(jnp.maximum, slices)
  return x


def _side_by_side(x, size, stride, groups):
  """Over frames and rows first, and then over the columns of pairs."""
  if (size, stride) != (3, 2) or lanes.count(x.shape[3], groups) != 2:
    return _define(x, size, stride)
  pads = ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0))
  y = jax.lax.reduce_window(
    lanes.fold(x, groups),
    -jnp.inf,
    jax.lax.max,
    (1, size, size, 1, 1),
    (1, stride, stride, 1, 1),
    pads,
  )
  first, second = jnp.split(y, 2, -1)
  before = jnp.pad(
    second[:, :, :, :-1],
    ((0, 0), (0, 0), (0, 0), (1, 0), (0, 0)),
    constant_values=-jnp.inf,
  )
  y = jnp.where(first >= second, first, second)
  return jnp.where(before >= y, before, y)


_pool = Operation(_define, onnx=_by_slices, tpu=_side_by_side)
