"""Channel-separated (depthwise) 3-D convolution.

It moves much data for little arithmetic, and the grouped convolution of XLA is
a hundred times slower on a CPU than a sum of shifted products: see
`benchmarks/layers.py`. Padding is that of `conv`.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import lanes, native, precision
from mtnet_jax.ops.calls import keep_call
from mtnet_jax.ops.conv import (
  Triple,
  convolve,
  convolve_by_frames,
  convolve_side_by_side,
)
from mtnet_jax.ops.forms import Form, Operation, keep
from mtnet_jax.typing import Array, Float

# Sums of more products do not become one loop over memory on a CPU.
_PRODUCTS_PER_SUM = 28


def channel_separated_conv3d(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k 1 c'],
  strides: Triple = (1, 1, 1),
) -> Float[Array, 'n u v x c']:
  """Returns each channel of x convolved with its own kernel, in x's dtype.

  Args:
    x: activations, any float dtype.
    kernel: weights in x's dtype, one filter a channel.
    strides: distance between windows in frames, rows, columns.
  """
  return _convolve(x, kernel, strides=strides)


def kernel_takes(x, kernel, strides):
  """Returns whether the C++ kernels have loops for such a kernel."""
  kt, kh, kw = kernel.shape[:3]
  return kt * kh <= 25 and (kw, strides[2]) in ((1, 1), (3, 1), (3, 2))


def _kernel_forward(x, kernel, strides):
  shape = _output_shape(x.shape[1:4], kernel.shape[:3], strides)
  shape = (x.shape[0], *shape, x.shape[4])
  return _call('forward', shape, x, kernel, strides), (x, kernel)


def _kernel_backward(kept, dy, strides):
  x, kernel = kept
  dx = _call('input_gradient', x.shape, dy, kernel, strides)
  return dx, _call('kernel_gradient', kernel.shape, x, dy, strides)


def _call(name, shape, a, b, strides):
  result = jax.ShapeDtypeStruct(shape, a.dtype)
  return native.call(
    f'separated_conv_{name}', result, a, b, strides=np.array(strides, np.int64)
  )


# Sums of shifted products, accumulated in float32, with a backward pass of the
# same kind: autodiff of such a sum is several times slower.


def sum_shifts(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k 1 c'],
  strides: Triple,
) -> Float[Array, 'n u v x c']:
  """Returns the convolution as a sum of shifted products."""
  volume = kernel.shape[:3]
  shape = _output_shape(x.shape[1:4], volume, strides)
  return _correlate(_pad_for(x, volume), kernel, shape, strides)


def _shifts_forward(x, kernel, strides):
  return sum_shifts(x, kernel, strides), (x, kernel)


def _shifts_backward(kept, dy, strides):
  x, kernel = kept
  dx = _input_gradient(dy, kernel, x.shape[1:4], strides)
  volume = kernel.shape[:3]
  dkernel = _kernel_gradient(_pad_for(x, volume), dy, volume, strides)
  return dx, dkernel.astype(kernel.dtype)


def _correlate(x, kernel, shape, strides=(1, 1, 1), start=(0, 0, 0)):
  """Computes `y[p] = Σ_o x[start + strides·p + o]·kernel[o]`, p in `shape`."""
  # XLA's CPU compiler fuses the sum into each of its uses and computes it again
  # there, unless it is a call that must stay one. An `optimization_barrier`
  # does not help, since XLA drops it before it fuses.
  return keep_call(
    _sum_of_products(
      x, kernel, shape=tuple(shape), strides=strides, start=tuple(start)
    )
  )


@functools.partial(jax.jit, static_argnames=('shape', 'strides', 'start'))
def _sum_of_products(x, kernel, shape, strides, start):
  y = jnp.zeros((), precision.wide_dtype(x))
  taps = jnp.unstack(kernel.reshape(-1, 1, 1, 1, 1, x.shape[-1]))
  for offset, tap in zip(np.ndindex(*kernel.shape[:3]), taps, strict=True):
    corner = [a + o for a, o in zip(start, offset, strict=True)]
    view = _strided(x, corner, shape, strides)
    y = y + precision.widen(view) * precision.widen(tap)
  return jnp.broadcast_to(y, (x.shape[0], *shape, x.shape[-1])).astype(x.dtype)


def _input_gradient(dy, kernel, shape, strides):
  """Correlates dy with the flipped kernel, one phase of the input at a time.

  Position `s·m + r` of the input, where r is its phase, was seen only by every
  s-th element of the kernel. Each phase by itself is a plain correlation
  without dilation.
  """
  n, *_, c = dy.shape
  counts = [-(-size // s) for size, s in zip(shape, strides, strict=True)]
  axes = []  # of each axis, of each phase: first kernel element, pads of dy
  for k, s, size, count in zip(
    kernel.shape[:3], strides, dy.shape[1:4], counts, strict=True
  ):
    axis = []
    for r in range(s):
      first = (r + k // 2) % s
      base = (r + k // 2) // s  # The output that `first` met at m = 0.
      axis.append(
        (first, len(range(first, k, s)) - 1 - base, base + count - size)
      )
    axes.append(axis)
  low = [max(p[1] for p in axis) for axis in axes]
  padded = _pad(dy, low, [max(p[2] for p in axis) for axis in axes])
  phases = []
  for phase in np.ndindex(*strides):
    chosen = [axis[r] for axis, r in zip(axes, phase, strict=True)]
    i, j, k = (p[0] for p in chosen)
    taps = kernel[i :: strides[0], j :: strides[1], k :: strides[2]]
    start = [a - p[1] for a, p in zip(low, chosen, strict=True)]
    phases.append(
      _correlate(padded, jax.lax.rev(taps, (0, 1, 2)), counts, start=start)
    )
  dx = jnp.stack(phases).reshape(*strides, n, *counts, c)
  dx = dx.transpose(3, 4, 0, 5, 1, 6, 2, 7)  # n m s m s m s c
  dx = dx.reshape(n, *(m * s for m, s in zip(counts, strides, strict=True)), c)
  return dx[:, : shape[0], : shape[1], : shape[2]]


def _kernel_gradient(padded, dy, volume, strides):
  """Sums padded·dy over all positions by offset of the kernel, in float32.

  Per row and column offset, frames and rows are multiplied and added element by
  element for all temporal offsets at once; a product with ones sums the rest,
  because XLA's own reduction of so many rows is slow on a CPU. Offsets are
  constants, because one that a loop counts prevents vector instructions on a
  CPU. Clips are summed at the end, because earlier their devices would have to
  exchange data at each offset.
  """
  kt, kh, kw = volume
  st, sh, sw = strides
  n, frames, rows, cols, c = dy.shape
  wide = precision.wide_dtype(padded)
  step = _rows_per_sum(frames, rows)
  rest = rows // step
  # Row i of the selector sums the elements of temporal offset i; there is one
  # selector per clip, which a CPU multiplies faster than one for all clips.
  selector = jnp.tile(
    jnp.repeat(jnp.eye(kt, dtype=wide), cols, axis=1), (n, 1, rest)
  )

  by_position = [
    [dy[:, f : f + 1, r::step].astype(wide) for r in range(step)]
    for f in range(frames)
  ]

  def one_offset(j, k):
    total = jnp.zeros((n, kt, c), wide)
    for first in range(0, frames, _PRODUCTS_PER_SUM):
      products = jnp.zeros((), wide)
      for f in range(first, min(first + _PRODUCTS_PER_SUM, frames)):
        for r, at_position in enumerate(by_position[f]):
          start, shape = (st * f, sh * r + j, k), (kt, rest, cols)
          below = _strided(padded, start, shape, (1, sh * step, sw))
          products += below.astype(wide) * at_position
      total += jnp.matmul(
        selector,
        products.swapaxes(1, 2).reshape(n, -1, c),  # n rest kt cols c
        precision=jax.lax.Precision.HIGHEST,
      )
    return total

  gradient = jnp.stack([one_offset(*o) for o in np.ndindex(kh, kw)])  # hw n k c
  return gradient.sum(axis=1).reshape(kh, kw, kt, 1, c).transpose(2, 0, 1, 3, 4)


def _rows_per_sum(frames, rows):
  """Returns how many rows are added element by element, a divisor of all."""
  room = _PRODUCTS_PER_SUM // min(frames, _PRODUCTS_PER_SUM)
  return max(r for r in range(1, room + 1) if rows % r == 0)


def _output_shape(shape, volume, strides):
  return tuple(
    (n + 2 * (k // 2) - k) // s + 1
    for n, k, s in zip(shape, volume, strides, strict=True)
  )


def _pad_for(x, volume):
  half = [k // 2 for k in volume]
  return _pad(x, half, half)


def _pad(x, low: Sequence[int], high: Sequence[int]):
  """Pads frames, rows and columns with zeros; negative numbers crop."""
  pads = [(a, b, 0) for a, b in zip(low, high, strict=True)]
  zero = jnp.zeros((), x.dtype)
  return jax.lax.pad(x, zero, ((0, 0, 0), *pads, (0, 0, 0)))


def _strided(x, start, shape, strides):
  """Returns `shape` positions of x from `start` on, at the strides."""
  limit = [
    a + s * (m - 1) + 1 for a, m, s in zip(start, shape, strides, strict=True)
  ]
  n, *_, c = x.shape
  return jax.lax.slice(x, (0, *start, 0), (n, *limit, c), (1, *strides, 1))


def _side_by_side(x, kernel, strides, groups):
  c = x.shape[-1]
  if kernel.shape[2] == 1 == strides[2]:
    x = lanes.fold(x, groups)
    y = convolve(x, lanes.repeat(kernel, x.shape[-1]), strides)
    return lanes.unfold(keep(y), c)
  if lanes.count(x.shape[3], groups, strides[2]) == 1:
    return keep(convolve(x, kernel, strides))
  # The columns of a channel lie in several lanes, and matrix units add them up.
  diagonal = kernel * jnp.eye(c, dtype=kernel.dtype).reshape(1, 1, 1, c, c)
  return convolve_side_by_side(x, diagonal, strides, groups)


_convolve = Operation(
  convolve,
  kernel_takes,
  cpu=Form(_shifts_forward, _shifts_backward),
  cpu_kernel=Form(_kernel_forward, _kernel_backward),
  onnx=convolve_by_frames,
  tpu=_side_by_side,
)
