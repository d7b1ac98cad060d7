"""Dense 3-D convolutions.

Padding is symmetric with zeros, `k // 2` on both sides of each axis, so that an
odd kernel gives `⌈n / s⌉` of n positions at stride s.

A CPU convolves frame by frame: see `benchmarks/layers.py` for what it gains.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import lanes
from mtnet_jax.ops.forms import Operation, keep
from mtnet_jax.typing import Array, Float

Triple = tuple[int, int, int]

# Up to so many input channels, the frames under a kernel go side by side into
# the channels of one 2-D convolution; above, they are convolved one by one.
_FEW_CHANNELS = 16
# Up to so many elements, a spatial window is copied out and multiplied: XLA's
# CPU convolution is poor at an image's three channels.
_SMALL_WINDOW = 32
# The same for maps of up to so many positions: their copy is small beside the
# product.
_SMALL_MAP = 64
# Rows of a product up to which it is cheap beside a matrix that is larger in
# both directions.
_FEW_ROWS = 256


def conv3d(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k c f'],
  strides: Triple = (1, 1, 1),
) -> Float[Array, 'n u v x f']:
  """Returns the dense 3-D convolution of x, in x's dtype.

  Args:
    x: activations, any float dtype.
    kernel: weights in x's dtype.
    strides: distance between windows in frames, rows, columns.
  """
  if kernel.shape[:3] == (1, 1, 1):
    return _convolve_points(x, kernel, strides=strides)
  return _convolve(x, kernel, strides=strides)


def convolve(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k d f'],
  strides: Triple = (1, 1, 1),
) -> Float[Array, 'n u v x f']:
  """Returns the 3-D convolution of x as `lax` defines it.

  Args:
    x: activations, any float dtype.
    kernel: weights in x's dtype; d is c if they are dense, 1 if they are
      channel-separated.
    strides: distance between windows in frames, rows, columns.
  """
  return _convolve_3d(x, kernel, strides, _halves(kernel))


def _halves(kernel):
  return [(k // 2, k // 2) for k in kernel.shape[:3]]


def _convolve_3d(x, kernel, strides, pads):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    pads,
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
    feature_group_count=x.shape[-1] // kernel.shape[3],
  )


def convolve_by_frames(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k d f'],
  strides: Triple = (1, 1, 1),
) -> Float[Array, 'n u v x f']:
  """Returns the same as `convolve`, as a sum of 2-D convolutions.

  This form is for ONNX Runtime, which is fast with few nodes and cannot run
  convolutions of so many dimensions.

  Args:
    x: activations, any float dtype.
    kernel: weights in x's dtype; d is c if they are dense, 1 if they are
      channel-separated.
    strides: distance between windows in frames, rows, columns.
  """
  n, t, h, w, c = x.shape
  kt, kh, kw, d, _ = kernel.shape
  x = jnp.pad(x, ((0, 0), (kt // 2, kt // 2), (0, 0), (0, 0), (0, 0)))
  last = t + 2 * (kt // 2) - kt  # where the last window begins
  y = 0.0
  for i in range(kt):
    frames = jax.lax.slice_in_dim(x, i, i + last + 1, strides[0], axis=1)
    y += jax.lax.conv_general_dilated(
      frames.reshape(-1, h, w, c),
      kernel[i],
      strides[1:],
      [(kh // 2, kh // 2), (kw // 2, kw // 2)],
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=c // d,
    )
  return y.reshape(n, -1, *y.shape[1:])


def _multiply_points(x, kernel, strides):
  st, sh, sw = strides
  return _matmul(x[:, ::st, ::sh, ::sw], kernel[0, 0, 0])


def convolve_side_by_side(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k c f'],
  strides: Triple,
  groups: int,
) -> Float[Array, 'n u v x f']:
  """Returns the dense convolution of columns side by side; see `lanes`.

  Args:
    x: activations, any float dtype.
    kernel: weights in x's dtype.
    strides: distance between windows in frames, rows, columns.
    groups: into how many groups each row of x is cut; 0: it is not.
  """
  features, pads = kernel.shape[-1], _halves(kernel)
  columns = lanes.count(x.shape[3], groups, strides[2])
  if columns > 1:
    x = lanes.fold(x, groups)
    kernel, pads[2] = lanes.dense_kernel(kernel, strides[2], columns)
    strides = (*strides[:2], 1)
    if _can_pair_rows(x, kernel, strides):
      x, kernel, pads[1] = lanes.pair_rows(x, kernel)
      strides = (strides[0], 1, 1)
  return lanes.unfold(keep(_convolve_3d(x, kernel, strides, pads)), features)


def _can_pair_rows(x, kernel, strides):
  """Returns whether two rows go side by side too: most lanes are empty."""
  even = strides[1] == 2 and x.shape[2] % 2 == 0
  return even and kernel.shape[1] > 1 and 4 * x.shape[-1] <= lanes.LANES


def convolve_frames(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k c f'],
  strides: Triple,
) -> Float[Array, 'n u v x f']:
  """Returns the dense convolution as 2-D ones of the frames below each tap.

  Args:
    x: activations, any float dtype.
    kernel: weights in x's dtype.
    strides: distance between windows in frames, rows, columns.
  """
  n, t, h, w, c = x.shape
  kt, st = kernel.shape[0], strides[0]
  frames = (t + 2 * (kt // 2) - kt) // st + 1
  if kernel.shape[1:3] == (1, 1):
    return _convolve_taps(x, kernel, strides)
  if c <= _FEW_CHANNELS:
    return _convolve_few_channels(x, kernel, strides)
  y = 0
  for i in range(kt):
    # Frame f of the result sees frame `st·f + i - kt//2`, if there is one.
    first = max(0, -((i - kt // 2) // st))
    last = min(frames - 1, (t - 1 + kt // 2 - i) // st)
    if last < first:
      continue
    start = st * first + i - kt // 2
    tap = x[:, start : start + st * (last - first) + 1 : st]
    part = _convolve_2d(tap.reshape(-1, h, w, c), kernel[i], strides[1:])
    part = part.reshape(n, last - first + 1, *part.shape[1:])
    around = [(0, 0)] * part.ndim
    around[1] = (first, frames - 1 - last)
    y += jnp.pad(part, around)
  return y


def _convolve_taps(x, kernel, strides):
  """Convolves frames in 2-D, with the frames below a kernel side by side."""
  n, _, h, w, _ = x.shape
  taps = _taps(x, kernel.shape[0], strides[0])
  frames = taps[0].shape[1]
  taps = jnp.concatenate(taps, -1).reshape(n * frames, h, w, -1)
  kt, kh, kw, c, features = kernel.shape
  kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kt * c, features)
  y = _convolve_2d(taps, kernel, strides[1:])
  return y.reshape(n, frames, *y.shape[1:])


def _taps(x, kt, st):
  """Returns the frames that each temporal tap of a kernel sees, or zeros."""
  frames = (x.shape[1] + 2 * (kt // 2) - kt) // st + 1
  x = jnp.pad(x, [(0, 0), (kt // 2, kt // 2), *[(0, 0)] * (x.ndim - 2)])
  return [x[:, i : i + st * (frames - 1) + 1 : st] for i in range(kt)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_few_channels(x, kernel, strides):
  return _convolve_taps(x, kernel, strides)


def _convolve_few_channels_fwd(x, kernel, strides):
  return _convolve_taps(x, kernel, strides), (x, kernel)


def _convolve_few_channels_bwd(strides, residuals, dy):
  """Computes the kernel's gradient as one product with each frame's windows.

  With frames side by side there would be as many copies of them as the kernel
  has elements in time.
  """
  x, kernel = residuals
  (dx,) = jax.vjp(lambda x: _convolve_taps(x, kernel, strides), x)[1](dy)
  kt, kh, kw, c, features = kernel.shape
  n, t = x.shape[:2]
  windows = _windows(x.reshape(n * t, *x.shape[2:]), (kh, kw), strides[1:])
  d_taps = [_as_input_frames(dy, i - kt // 2, strides[0], t) for i in range(kt)]
  rows = jnp.concatenate(d_taps, -1).reshape(-1, kt * features)
  dkernel = windows.reshape(len(rows), -1).T @ rows
  dkernel = dkernel.reshape(kh, kw, c, kt, features)
  return dx, dkernel.transpose(3, 0, 1, 2, 4)


def _as_input_frames(y, shift, stride, t):
  """Puts frame f of y at `stride·f + shift` of t frames, zeros elsewhere."""
  length = stride * (y.shape[1] - 1) + 1
  pads = [(0, 0, 0)] * y.ndim
  pads[1] = (shift, t - length - shift, stride - 1)
  return jax.lax.pad(y, jnp.zeros((), y.dtype), pads)


_convolve_few_channels.defvjp(
  _convolve_few_channels_fwd, _convolve_few_channels_bwd
)


def _convolve_2d(x, kernel, strides):
  """Returns the 2-D convolution of `n h w c` by `j k c f`."""
  if kernel.shape[:2] == (1, 1):
    sh, sw = strides
    return _matmul(x[:, ::sh, ::sw], kernel[0, 0])
  few_elements = math.prod(kernel.shape[:3]) <= _SMALL_WINDOW
  if few_elements or math.prod(x.shape[1:3]) <= _SMALL_MAP:
    return _multiply_windows(x, kernel, strides)
  return _convolve_map(x, kernel, strides)


def _multiply_windows(x, kernel, strides):
  """Multiplies the window below each position of the result by the kernel."""
  windows = _windows(x, kernel.shape[:2], strides)
  return _matmul(windows, kernel.reshape(-1, kernel.shape[-1]))


def _windows(x, size, strides):
  """Returns the window below each position of a result, channels last.

  A stride's columns form one run of channels, so that windows are copied in
  fewer and longer pieces.
  """
  (kh, kw), (sh, sw), c = size, strides, x.shape[-1]
  sizes = zip(x.shape[1:3], (kh, kw), strides, strict=True)
  rows, cols = ((n + 2 * (k // 2) - k) // s + 1 for n, k, s in sizes)
  runs = -(-kw // sw)
  width = sw * (cols + runs - 1)
  zero = jnp.zeros((), x.dtype)
  right = width - x.shape[2] - kw // 2  # below 0: columns that no window meets
  pads = [(0, 0), (kh // 2, kh // 2), (kw // 2, right), (0, 0)]
  x = jax.lax.pad(x, zero, [(*pad, 0) for pad in pads])
  x = x.reshape(*x.shape[:2], width // sw, sw * c)
  windows = [
    x[:, i : i + sh * (rows - 1) + 1 : sh, j : j + cols, : (kw - j * sw) * c]
    for i, j in np.ndindex(kh, runs)
  ]
  return jnp.concatenate(windows, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_map(x, kernel, strides):
  return _lax_convolve(x, kernel, _half(kernel), strides=strides)


def _convolve_map_fwd(x, kernel, strides):
  return _convolve_map(x, kernel, strides), (x, kernel)


def _convolve_map_bwd(strides, residuals, dy):
  """Computes gradients by the one form of convolution that is fast on a CPU.

  XLA converts its own derivatives into that form, but only in the main function
  of a program.
  """
  x, kernel = residuals
  sizes = list(
    zip(kernel.shape[:2], x.shape[1:3], dy.shape[1:3], strides, strict=True)
  )
  dx = _lax_convolve(
    dy,
    jax.lax.rev(kernel, (0, 1)).swapaxes(2, 3),
    [
      (k - 1 - k // 2, size - 1 + k // 2 - (count - 1) * s)
      for k, size, count, s in sizes
    ],
    lhs_dilation=strides,
  )
  if x.shape[-1] <= _FEW_CHANNELS:
    product = functools.partial(_multiply_windows, strides=strides)
    (dkernel,) = jax.vjp(lambda k: product(x, k), kernel)[1](dy)
    return dx, dkernel
  # Positions take the place of a kernel's elements, and clips that of channels.
  dkernel = _lax_convolve(
    x.transpose(3, 1, 2, 0),
    dy.transpose(1, 2, 0, 3),
    [
      (k // 2, k - k // 2 - size + (count - 1) * s)
      for k, size, count, s in sizes
    ],
    rhs_dilation=strides,
  )
  return dx, dkernel.transpose(1, 2, 0, 3)


_convolve_map.defvjp(_convolve_map_fwd, _convolve_map_bwd)


def _lax_convolve(x, kernel, padding, strides=(1, 1), **dilations):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    list(padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    **dilations,
  )


def _half(kernel):
  return [(k // 2, k // 2) for k in kernel.shape[:2]]


@jax.custom_vjp
def _matmul(x, kernel):
  """Returns `x @ kernel` over the last axis, as one two-dimensional product."""
  y = x.reshape(-1, x.shape[-1]) @ kernel
  return y.reshape(*x.shape[:-1], kernel.shape[-1])


def _matmul_fwd(x, kernel):
  return _matmul(x, kernel), (x, kernel)


def _matmul_bwd(residuals, dy):
  x, kernel = residuals
  rows, d_rows = (a.reshape(-1, a.shape[-1]) for a in (x, dy))
  if len(rows) <= _FEW_ROWS < min(kernel.shape):
    # With few rows, XLA's product with a matrix that lies transposed in memory
    # takes three to five times as long as with a copy of it; a convolution
    # makes that copy.
    dx = _lax_convolve(
      d_rows[:, None, None], kernel.T[None, None], [(0, 0)] * 2
    )
  else:
    dx = d_rows @ kernel.T
  return dx.reshape(x.shape), rows.T @ d_rows


_matmul.defvjp(_matmul_fwd, _matmul_bwd)


_convolve = Operation(
  convolve,
  cpu=convolve_frames,
  onnx=convolve_by_frames,
  tpu=convolve_side_by_side,
)
# On a CPU, 1×1×1 convolutions are products of matrices. An accelerator's
# convolutions have a memory layout of their own; a product among them has
# another, and changing layouts back and forth costs more than BN.
_convolve_points = Operation(
  convolve,
  cpu=_multiply_points,
  onnx=convolve_by_frames,
  tpu=convolve_side_by_side,
)
