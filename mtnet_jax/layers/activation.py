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

from mtnet_jax.layers import precision
from mtnet_jax.typing import Array, Float


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(3, 4))
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
    offset: likewise.
    activation: takes and returns arrays of `dtype`; None: the identity.
    dtype: of the result.
  """
  y = (precision.widen(x) * gain + offset).astype(dtype)
  return activation(y) if activation else y


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
