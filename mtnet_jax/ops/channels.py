"""The channels of two branches in one array, and apart again."""

import jax
import jax.numpy as jnp

from mtnet_jax.ops import lanes
from mtnet_jax.ops.forms import Form, Operation
from mtnet_jax.typing import Array, Float


def join(
  x: Float[Array, 'n t h w c'], y: Float[Array, 'n t h w d']
) -> Float[Array, 'n t h w e']:
  """Returns x's channels and then y's, c + d.

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
    first: how many channels are the first, more than 0 and fewer than all.
  """
  return _split(x, first=first)


def _define_join(x, y, first):
  del first
  return jnp.concatenate([x, y], axis=-1)


def _define_split(x, first):
  return tuple(jax.lax.split(x, (first, x.shape[-1] - first), x.ndim - 1))


# Of columns side by side, column after column.


def _join_side_by_side(x, y, groups):
  columns = zip(_columns(x, groups), _columns(y, groups), strict=True)
  parts = [part for column in columns for part in column]
  return lanes.unfold(jnp.concatenate(parts, -1), x.shape[-1] + y.shape[-1])


def _split_side_by_side(x, first, groups):
  columns = [_define_split(a, first) for a in _columns(x, groups)]
  return tuple(
    lanes.unfold(jnp.concatenate(parts, -1), parts[0].shape[-1])
    for parts in zip(*columns, strict=True)
  )


def _columns(x, groups):
  count = lanes.count(x.shape[3], groups)
  return jnp.split(lanes.fold(x, groups), count, -1)


# Each is the gradient of the other, and keeps nothing.
_join = Operation(
  _define_join,
  xla=Form(
    lambda x, y, first: (_define_join(x, y, first), ()),
    lambda _, dz, first: _define_split(dz, first),
  ),
  tpu=Form(
    lambda x, y, first, groups: (_join_side_by_side(x, y, groups), ()),
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
    lambda _, d_both, first, groups: (_join_side_by_side(*d_both, groups),),
  ),
)
