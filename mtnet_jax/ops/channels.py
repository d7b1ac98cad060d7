"""Joins the channels of two branches in one array, and splits them again."""

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import lanes
from mtnet_jax.ops.forms import Form, Operation
from mtnet_jax.typing import Array, Float


def join(
  x: Float[Array, 'n t h w c'], y: Float[Array, 'n t h w d']
) -> Float[Array, 'n t h w e']:
  """Returns x's channels followed by y's, c + d.

  Args:
    x: activations.
    y: activations of the same dtype.
  """
  return _join(x, y, first=x.shape[-1])


def split(
  x: Float[Array, 'n t h w e'], first: int
) -> tuple[Float[Array, 'n t h w c'], Float[Array, 'n t h w d']]:
  """Returns the first channels of x, and the others.

  Args:
    x: activations.
    first: the number of channels in the first part, more than 0 and fewer than
      all.
  """
  return _split(x, first=first)


def _define_join(x, y, first):
  del first
  return jnp.concatenate([x, y], axis=-1)


def _define_split(x, first):
  return tuple(jax.lax.split(x, (first, x.shape[-1] - first), x.ndim - 1))


# Where columns lie side by side, a product with ones and zeros (a 1×1×1
# convolution) moves the channels to their places: it reads and writes a map
# once. Slices of each column would be written and read one by one on a TPU.


def _join_side_by_side(x, y, first, groups):
  columns = lanes.count(x.shape[3], groups)
  if columns == 1:
    return _define_join(x, y, first)
  c = first + y.shape[-1]
  places = _places(c, first, columns)
  parts = map(lanes.move, (lanes.fold(a, groups) for a in (x, y)), places)
  return lanes.unfold(sum(parts), c)


def _split_side_by_side(x, first, groups):
  columns = lanes.count(x.shape[3], groups)
  if columns == 1:
    return _define_split(x, first)
  c, x = x.shape[-1], lanes.fold(x, groups)
  return tuple(
    lanes.unfold(lanes.move(x, place.T), width)
    for place, width in zip(
      _places(c, first, columns), (first, c - first), strict=True
    )
  )


def _places(c, first, columns):
  """Returns matrices that select the first channels, and the others."""
  own = np.split(np.eye(c), [first])
  return [np.kron(np.eye(columns), each) for each in own]


# Each operation is the gradient of the other, and keeps nothing.
_join = Operation(
  _define_join,
  xla=Form(
    lambda x, y, first: (_define_join(x, y, first), ()),
    lambda _, dz, first: _define_split(dz, first),
  ),
  tpu=Form(
    lambda x, y, first, groups: (_join_side_by_side(x, y, first, groups), ()),
    lambda _, dz, first, groups: _split_side_by_side(dz, first, groups),
  ),
)
_split = Operation(
  _define_split,
  xla=Form(
    lambda x, first: (_define_split(x, first), ()),
    lambda _, d_both, first: (_define_join(*d_both, first),),
  ),
  tpu=Form(
    lambda x, first, groups: (_split_side_by_side(x, first, groups), ()),
    lambda _, d_both, first, groups: (
      _join_side_by_side(*d_both, first, groups),
    ),
  ),
)
