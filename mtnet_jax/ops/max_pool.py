"""Max-pooling of frames, rows and columns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import lanes
from mtnet_jax.ops.conv import Triple
from mtnet_jax.ops.forms import Operation
from mtnet_jax.ops.same_padding import same_pads
from mtnet_jax.typing import Array, Float


def max_pool(
  x: Float[Array, 'n t h w c'],
  size: Triple,
  strides: Triple,
  same: bool = False,
) -> Float[Array, 'n u v x c']:
  """Returns the greatest element of each window.

  Windows reach `(size - 1) // 2` beyond the ends; what lies there is ignored.
  The gradient goes to one of the greatest elements.

  Args:
    x: activations, any float dtype.
    size: frames, rows and columns of a window, each at least 1.
    strides: distance between windows in frames, rows and columns.
    same: whether they reach as far as TensorFlow's SAME padding, see
      `same_padding`.
  """
  pads = _halves(size)
  if same:
    pads = same_pads(x.shape[1:4], size, strides)
  return _pool(x, size=size, strides=strides, pads=pads)


def _halves(size):
  return tuple(((k - 1) // 2,) * 2 for k in size)


def _define(x, size, strides, pads):
  return jax.lax.reduce_window(
    x,
    -jnp.inf,
    jax.lax.max,
    (1, *size, 1),
    (1, *strides, 1),
    ((0, 0), *pads, (0, 0)),
  )


def _greater(a, b):
  """Computes `jnp.maximum`, with a gradient for both of two equal values."""
  return jnp.where((a >= b) | (a != a), a, b)  # NaN is greater than anything


def _by_slices(x, size, strides, pads, greater=_greater):
  """Takes the greatest of slices, one axis at a time."""
  for axis, (k, stride) in enumerate(zip(size, strides, strict=True), start=1):
    around = [(0, 0)] * x.ndim
    around[axis] = pads[axis - 1]
    x = jnp.pad(x, around, constant_values=jnp.finfo(x.dtype).min)
    last = x.shape[axis] - k
    slices = (
      jax.lax.slice_in_dim(x, i, last + i + 1, stride, axis) for i in range(k)
    )
    x = functools.reduce(greater, slices)
  return x


def _side_by_side(x, size, strides, pads, groups):
  """Pools over frames and rows first, and then over columns in their groups."""
  of_pairs = (size[2], strides[2], pads[2]) == (3, 2, (1, 1))
  columns = lanes.count(x.shape[3], groups)
  if not of_pairs or columns % 2:
    return _define(x, size, strides, pads)
  y = jax.lax.reduce_window(
    lanes.fold(x, groups),
    -jnp.inf,
    jax.lax.max,
    (1, *size[:2], 1, 1),
    (1, *strides[:2], 1, 1),
    ((0, 0), *pads[:2], (0, 0), (0, 0)),
  )
  c = x.shape[-1]
  first, second = (_every_other(y, c, columns, i) for i in range(2))
  # The column before a group's first one is the last of the group before it.
  outside = jnp.pad(
    second[:, :, :, :-1, -c:],
    ((0, 0), (0, 0), (0, 0), (1, 0), (0, 0)),
    constant_values=-jnp.inf,
  )
  before = jnp.concatenate([outside, second[..., :-c]], -1)
  y = jnp.where(first >= second, first, second)
  return lanes.unfold(jnp.where(before >= y, before, y), c)


def _every_other(y, c, columns, first):
  """Returns columns `first`, `first + 2`, … of those side by side."""
  if columns == 2:
    return jnp.split(y, 2, -1)[first]
  place = np.zeros((columns, columns // 2))
  place[first::2] = np.eye(columns // 2)
  return lanes.move(y, np.kron(place, np.eye(c)))


# A CPU's own gradient of windows takes ten times as long as that of slices.
_pool = Operation(
  _define,
  cpu=_by_slices,
  onnx=functools.partial(_by_slices, greater=jnp.maximum),
  tpu=_side_by_side,
)
