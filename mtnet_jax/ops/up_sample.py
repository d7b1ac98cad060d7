"""Trilinear interpolation, `I` in eq. 5.3 of the thesis."""

import functools

import jax
import jax.numpy as jnp

from mtnet_jax.ops import lanes, native, precision
from mtnet_jax.ops.forms import Form, Operation
from mtnet_jax.typing import Array, Float

# Up to so many elements, one matrix interpolates rows and columns together.
_SMALL_MATRIX = 2**21


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
  # bfloat16 cannot count more than 256 positions, so this is float32.
  resized = jax.image.resize(precision.widen(x), shape, 'linear')
  return resized.astype(x.dtype)


def _forward_by_shifts(x, old, shape):
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
  return _transpose(_resize, dy, old, shape)


def _transpose(interpolate, dy, old, shape):
  return jax.linear_transpose(lambda x: interpolate(x, shape), old)(dy)


def _forward_by_matrices(x, old, shape):
  del old
  return _by_matrices(x, shape), ()


def _backward_by_matrices(_, dy, old, shape):
  return _transpose(_by_matrices, dy, old, shape)


def _forward_side_by_side(x, old, shape, groups):
  del old
  return _by_lanes(x, shape, groups), ()


def _backward_side_by_side(_, dy, old, shape, groups):
  interpolate = functools.partial(_by_lanes, groups=groups)
  return _transpose(interpolate, dy, old, shape)


def _by_lanes(x, shape, groups):
  n, *_, c = x.shape
  if n != 1 and lanes.is_narrow(x, groups):
    merged = _by_matrices(lanes.merge_clips(x), (1, *shape[1:4], n * c))
    return lanes.part_clips(merged, n)
  return _by_matrices(x, shape)


def _by_matrices(x, shape):
  """Each new position is a row of a matrix of weights, most of them zeros.

  Matrix units make short work of them; sums of shifted maps, or of gathered
  positions, are many times slower on a TPU.
  """
  n, *_, c = x.shape
  t, h, w = (
    _weights(a, b, x.dtype)
    for a, b in zip(x.shape[1:4], shape[1:4], strict=True)
  )
  if h.size * w.size <= _SMALL_MATRIX:
    plane = jnp.kron(h, w)  # all new positions by all old ones
    x = _product('pq,ntqc->ntpc', plane, x.reshape(n, -1, plane.shape[1], c))
  else:
    x = _product('ij,ntjwc->ntiwc', h, x)
    x = _product('ij,nthjc->nthic', w, x)
  return _product('ij,nj...->ni...', t, x).reshape(shape)


def _weights(old, new, dtype):
  """The weights of old positions in new ones, `new old`."""
  # Computed by the program: as constants they would make up most of it.
  centers = (jnp.arange(new) + 0.5) * (old / new) - 0.5
  centers = jnp.clip(centers, 0, old - 1)
  distance = centers[:, None] - jnp.arange(old)[None]
  return jnp.maximum(1 - jnp.abs(distance), 0).astype(dtype)


def _product(equation, weights, x):
  return jnp.einsum(equation, weights, x, precision=jax.lax.Precision.HIGHEST)


def _kernel_forward(x, old, shape):
  del old
  result = jax.ShapeDtypeStruct(shape, x.dtype)
  return native.call('up_sample_forward', result, x), ()


def _kernel_backward(_, dy, old, shape):
  del shape
  return (native.call('up_sample_backward', old, dy),)


_by_sums_of_shifts = Form(_forward_by_shifts, _backward)
_up_sample = Operation(
  _define,
  xla=Form(_forward_by_matrices, _backward_by_matrices),
  cpu=_by_sums_of_shifts,
  onnx=_by_sums_of_shifts,
  tpu=Form(_forward_side_by_side, _backward_side_by_side),
  cpu_kernel=Form(_kernel_forward, _kernel_backward),
)
