"""Averages over positions, channel by channel.

XLA's own sums on a CPU are calls to a library. Reading a compiled program back
takes longer the more of them there are, a minute for MTNet-L.
"""

import math

import jax
import jax.numpy as jnp

from mtnet_jax.ops import lanes, native, precision
from mtnet_jax.ops.forms import Form, Operation, keep
from mtnet_jax.typing import Array, Float


def mean(x: Float[Array, '*d c'], first: int) -> Float[Array, '... c']:
  """Returns the mean over positions: over axes `first` to the last but one.

  Args:
    x: activations, any float dtype; computed and returned in float32 (float64
      where it is).
    first: the first axis of positions: 1 for the mean of a clip, 2 for that of
      a frame of `n t h w c`.
  """
  return _mean(x, first=first, shape=x.shape, dtype=x.dtype)


def _define(x, first, **_):
  return jnp.mean(precision.widen(x), tuple(range(first, x.ndim - 1)))


def _kernel(x, first, **_):
  rows = native.as_rows(x, first)
  result = jax.ShapeDtypeStruct((rows.shape[0], rows.shape[2]), x.dtype)
  total = native.call('sums', result, rows) / rows.shape[1]
  return total.reshape(*x.shape[:first], x.shape[-1])


def _backward(_, d_mean, first, shape, dtype):
  ones = [1] * (len(shape) - 1 - first)
  d_mean = (d_mean / math.prod(shape[first:-1])).astype(dtype)
  d_mean = d_mean.reshape(*shape[:first], *ones, shape[-1])
  return (jnp.broadcast_to(d_mean, shape),)


def _side_by_side(x, first, groups, **_):
  if x.ndim != 5:
    return _define(x, first)
  folded = lanes.fold(x, groups)
  total = lanes.add_up(_define(folded, first), x.shape[-1])
  return total / (folded.shape[-1] // x.shape[-1])


def _backward_side_by_side(_, d_mean, first, shape, dtype, groups):
  if len(shape) != 5:
    return _backward(_, d_mean, first, shape, dtype)
  folded = jax.eval_shape(
    lambda x: lanes.fold(x, groups), jax.ShapeDtypeStruct(shape, dtype)
  ).shape
  d_mean = lanes.repeat(d_mean, folded[-1]) * (shape[-1] / folded[-1])
  (dx,) = _backward(_, d_mean, first, folded, dtype)
  return (lanes.unfold(dx, shape[-1]),)


_mean = Operation(
  _define,
  xla=Form(lambda x, **static: (_define(x, **static), ()), _backward),
  cpu_kernel=Form(lambda x, **static: (_kernel(x, **static), ()), _backward),
  tpu=Form(
    lambda x, **static: (keep(_side_by_side(x, **static)), ()),
    _backward_side_by_side,
  ),
)
