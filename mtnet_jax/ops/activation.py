"""Activations, which end a layer element by element.

A gradient needs an activation's values again. If they are kept, they cost one
pass over memory to write and one to read. Computed from the layer's own output,
which is there anyway, they cost next to nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import forms, lanes, native, precision
from mtnet_jax.ops.forms import Form, Operation
from mtnet_jax.typing import Array, Float


def relu(x: Float[Array, '*d']) -> Float[Array, '*d']:
  """Returns `max(x, 0)`. The gradient at 0 is 0."""
  return _relu(x)


def _relu_forward(x):
  # `jax.nn`'s functions are jitted, and a CPU's compiler leaves each of them a
  # loop over memory of its own.
  y = jnp.maximum(x, 0)
  return y, y


def _relu_backward(y, dy):
  return (jax.lax.select(y > 0, dy, jnp.zeros_like(dy)),)


_relu = Operation(jax.nn.relu, xla=Form(_relu_forward, _relu_backward))


def add_and_rectify(
  x: Float[Array, 'n t h w c'], y: Float[Array, 'n t h w c']
) -> Float[Array, 'n t h w c']:
  """Returns `relu(x + y)`, the end of a residual block."""
  return _add(x, y)


def _add_forward(x, y):
  return _relu_forward(x + y)


def _add_backward(z, dz):
  return _relu_backward(z, dz) * 2


def _add_forward_side_by_side(x, y, groups):
  z, _ = _add_forward(lanes.fold(x, groups), lanes.fold(y, groups))
  return lanes.unfold(z, x.shape[-1]), z


def _add_backward_side_by_side(z, dz, groups):
  d, _ = _add_backward(z, lanes.fold(dz, groups))
  return (lanes.unfold(d, dz.shape[-1]),) * 2


_add = Operation(
  lambda x, y: jax.nn.relu(x + y),
  xla=Form(_add_forward, _add_backward),
  tpu=Form(_add_forward_side_by_side, _add_backward_side_by_side),
)


def swish(x: Float[Array, '*d']) -> Float[Array, '*d']:
  """Returns `x · sigmoid(x)`."""
  return x * jax.lax.logistic(x)


# The activations that kernels know, with their numbers in C++.
KERNEL_CODES = {None: 0, relu: 1, swish: 2}


def scale_and_activate(
  x: Float[Array, '*d c'],
  gain: Float[Array, '... c'],
  offset: Float[Array, '... c'] | None,
  activation: Callable[[Array], Array] | None,
  dtype: jax.typing.DTypeLike,
) -> Float[Array, '*d c']:
  """Returns `activation(gain · x + offset)`, and keeps only its arguments.

  Args:
    x: activations, any float dtype; computed in float32 (float64 where it is).
    gain: factors, in a shape that broadcasts to x's.
    offset: offsets, in gain's shape; None: zeros.
    activation: function from an array of `dtype` to one of the same shape and
      dtype; None: the identity.
    dtype: float type of the result.
  """
  return _scale(x, gain, offset, activation=activation, dtype=jnp.dtype(dtype))


def _define_scale(x, gain, offset, activation, dtype):
  y = precision.widen(x) * gain
  y = (y if offset is None else y + offset).astype(dtype)
  return activation(y) if activation else y


def _first_summed(x, gain):
  """Returns the first axis over which gain is broadcast; 0: none."""
  for first in range(1, x.ndim - 1):
    ones = [1] * (x.ndim - 1 - first)
    if gain.shape == (*x.shape[:first], *ones, x.shape[-1]):
      return first
  return 0


def _kernel_takes(x, gain, offset, activation, dtype):
  del offset
  known = dtype == x.dtype and activation in KERNEL_CODES
  return known and _first_summed(x, gain) > 0


def _kernel_backward(kept, dy, activation, dtype):
  """Calls the kernel, which sums gain's and offset's gradients in one pass."""
  del dtype
  x, gain, offset = kept
  first = _first_summed(x, gain)
  groups = gain.size // x.shape[-1], x.shape[-1]
  result = jax.ShapeDtypeStruct(groups, x.dtype)
  added = jnp.zeros_like(gain) if offset is None else offset
  d_gain, d_offset = native.call(
    'scale_gradient',
    (result, result),
    native.as_rows(x, first),
    native.as_rows(dy, first),
    gain.reshape(groups),
    added.reshape(groups),
    activation=np.int64(KERNEL_CODES[activation]),
  )
  if activation:
    (dy,) = jax.vjp(activation, x * gain + added)[1](dy)
  d_offset = None if offset is None else d_offset.reshape(offset.shape)
  return dy * gain, d_gain.reshape(gain.shape), d_offset


def _scale_side_by_side(x, gain, offset, activation, dtype, groups):
  spread = x.ndim == 5 and gain.ndim == 5 and gain.shape[3] == 1
  folded = lanes.fold(x, groups if spread else 0)
  y = _scale_folded(
    folded,
    lanes.repeat(gain, folded.shape[-1]),
    None if offset is None else lanes.repeat(offset, folded.shape[-1]),
    activation=activation,
    dtype=dtype,
  )
  return lanes.unfold(y, x.shape[-1])


_keeping_arguments = forms.by_autodiff(_define_scale)
_scale_folded = Operation(_define_scale, xla=_keeping_arguments)
_scale = Operation(
  _define_scale,
  _kernel_takes,
  xla=_keeping_arguments,
  cpu_kernel=Form(_keeping_arguments.forward, _kernel_backward),
  tpu=_scale_side_by_side,
)
