"""Means over positions, channel by channel, at the precision of statistics.

XLA's own sums on a CPU are calls to a library; reading a compiled program back
takes a time that grows with their number, a minute for MTNet-L.
"""

import math

import jax
import jax.numpy as jnp

from mtnet_jax import native
from mtnet_jax.layers import precision
from mtnet_jax.typing import Array, Float


def mean(x: Float[Array, '*g d c'], first: int) -> Float[Array, '*g c']:
  """Returns the mean over axes `first` to the last but one.

  Args:
    x: any float dtype; computed and returned in float32 (float64 where it is).
    first: at least 1.
  """
  if native.usable(x):
    return _sums(x, first) / math.prod(x.shape[first:-1])
  return jnp.mean(precision.widen(x), tuple(range(first, x.ndim - 1)))


def flat(x: Float[Array, '*g d c'], first: int = 1) -> Float[Array, 'g d c']:
  """x as groups of rows of channels, as kernels take it."""
  rows = math.prod(x.shape[first:-1])
  return x.reshape(math.prod(x.shape[:first]), rows, x.shape[-1])


def _sums(x, first):
  shape, rows = x.shape, x.ndim - 1 - first

  @jax.custom_vjp
  def run(x):
    groups = flat(x, first)
    result = jax.ShapeDtypeStruct((groups.shape[0], shape[-1]), x.dtype)
    total = native.call('sums', result, groups)
    return total.reshape(*shape[:first], shape[-1])

  def backward(_, d):
    d = d.reshape(*shape[:first], *[1] * rows, shape[-1])
    return (jnp.broadcast_to(d, shape),)

  run.defvjp(lambda x: (run(x), None), backward)
  return run(x)
