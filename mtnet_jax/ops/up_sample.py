"""Trilinear interpolation, the `I` of 5.3."""

import functools

import jax
import jax.numpy as jnp

from mtnet_jax.ops import native, precision
from mtnet_jax.ops.forms import Form, Operation
from mtnet_jax.typing import Array, Float


def up_sample(
  x: Float[Array, 'n t h w c'], shape: tuple[int, int, int]
) -> Float[Array, 'n t2 h2 w2 c']:
  """Returns x interpolated trilinearly.

  Half-pixel centers; beyond the outermost centers the nearest value holds. The
  frames are taken as evenly spaced.

  Args:
    x: activations, any float dtype.
    shape: frames, height and width of the result, none smaller than x's.
  """
  old = jax.ShapeDtypeStruct(x.shape, x.dtype)
  return _up_sample(x, old=old, shape=(x.shape[0], *shape, x.shape[-1]))


def _define(x, old, shape):
  del old
  return _resize(x, shape)


def _resize(x, shape):
  # Wide: half precision cannot number more than 256 positions.
  resized = jax.image.resize(precision.widen(x), shape, 'linear')
  return resized.astype(x.dtype)


def _by_shifts(x, old, shape):
  # Doubling as a sum of two shifts is faster than as a matmul, but only
  # forwards: its transpose pads and adds.
  del old
  for axis in (1, 2, 3):
    if shape[axis] == 2 * x.shape[axis]:
      x = _double(x, axis)
    else:
      x = _resize(x, (*x.shape[:axis], shape[axis], *x.shape[axis + 1 :]))
  return x, ()


def _double(x, axis):
  """Doubles one axis: every new element lies a quarter step off an old one."""
  size = x.shape[axis]
  take = functools.partial(jax.lax.slice_in_dim, x, axis=axis)
  before = jnp.concatenate([take(0, 1), take(0, size - 1)], axis)
  after = jnp.concatenate([take(1, size), take(size - 1, size)], axis)
  pairs = [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after]
  shape = (*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
  return jnp.stack(pairs, axis + 1).reshape(shape)


def _backward(_, dy, old, shape):
  return jax.linear_transpose(lambda x: _resize(x, shape), old)(dy)


def _kernel_forward(x, old, shape):
  del old
  result = jax.ShapeDtypeStruct(shape, x.dtype)
  return native.call('up_sample_forward', result, x), ()


def _kernel_backward(_, dy, old, shape):
  del shape
  return (native.call('up_sample_backward', old, dy),)


_up_sample = Operation(
  _define,
  xla=Form(_by_shifts, _backward),
  cpu_kernel=Form(_kernel_forward, _kernel_backward),
)
