"""What ends a layer, element by element, and what of it the gradient needs.

A gradient needs these values again. Kept, each costs a pass over memory to
write and one to read; computed from the layer's own output, which is there
anyway, they cost next to nothing.

None of this is a jitted function, as those of `jax.nn` are: a CPU's compiler
would leave such a function a loop over memory of its own.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax import native
from mtnet_jax.layers import precision, sums
from mtnet_jax.typing import Array, Float


def scale_and_activate(
  x: Float[Array, '*d'],
  gain: Float[Array, '*d'],
  offset: Float[Array, '*d'] | float,
  activation: Callable[[Array], Array] | None,
  dtype: jax.typing.DTypeLike,
) -> Float[Array, '*d']:
  """Returns `activation(gain · x + offset)`; keeps its arguments alone.

  Args:
    x: any float dtype; computed in float32 (float64 where it is).
    gain: of a shape that broadcasts with x's.
    offset: likewise, or of gain's.
    activation: takes and returns arrays of `dtype`; None: the identity.
    dtype: of the result.
  """
  if (
    native.usable(x, gain)
    and activation in KNOWN
    and dtype == x.dtype
    and _first_summed(x, gain)
  ):
    offset = jnp.broadcast_to(offset, gain.shape)
    return _scale_with_sums(x, gain, offset, activation)
  return _scale(x, gain, offset, activation, dtype)


def _first_summed(x, gain):
  """The axis from which to the channels gain is broadcast; 0: not so."""
  for first in range(1, x.ndim - 1):
    ones = [1] * (x.ndim - 1 - first)
    if gain.shape == (*x.shape[:first], *ones, x.shape[-1]):
      return first
  return 0


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(3, 4))
def _scale(x, gain, offset, activation, dtype):
  y = (precision.widen(x) * gain + offset).astype(dtype)
  return activation(y) if activation else y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _scale_with_sums(x, gain, offset, activation):
  y = x * gain + offset
  return activation(y) if activation else y


def _scale_with_sums_fwd(x, gain, offset, activation):
  return _scale_with_sums(x, gain, offset, activation), (x, gain, offset)


def _scale_with_sums_bwd(activation, residuals, dy):
  x, gain, offset = residuals
  first = _first_summed(x, gain)
  result = jax.ShapeDtypeStruct(
    (gain.size // x.shape[-1], x.shape[-1]), x.dtype
  )
  d_gain, d_offset = native.call(
    'scale_gradient',
    (result, result),
    sums.flat(x, first),
    sums.flat(dy, first),
    gain.reshape(result.shape),
    offset.reshape(result.shape),
    activation=np.int64(KNOWN[activation]),
  )
  if activation:
    (dy,) = jax.vjp(activation, x * gain + offset)[1](dy)
  return dy * gain, d_gain.reshape(gain.shape), d_offset.reshape(gain.shape)


_scale_with_sums.defvjp(_scale_with_sums_fwd, _scale_with_sums_bwd)


@jax.custom_vjp
def relu(x: Float[Array, '*d']) -> Float[Array, '*d']:
  """Returns `max(x, 0)`; keeps its result alone. The gradient at 0 is 0."""
  return jnp.maximum(x, 0)


def _relu_fwd(x):
  y = relu(x)
  return y, y


def _relu_bwd(y, dy):
  return (jax.lax.select(y > 0, dy, jnp.zeros_like(dy)),)


relu.defvjp(_relu_fwd, _relu_bwd)


def swish(x: Float[Array, '*d']) -> Float[Array, '*d']:
  """Returns `x · sigmoid(x)`."""
  return x * jax.lax.logistic(x)


# Activations by the number that kernels have for them.
KNOWN = {None: 0, relu: 1, swish: 2}
