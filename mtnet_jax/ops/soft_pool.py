"""SoftPool: exponentially weighted down-sampling (thesis, 5.5)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.errors import UserError
from mtnet_jax.ops import lanes, native, precision
from mtnet_jax.ops.forms import Form, Operation, keep, traces_for_tpu
from mtnet_jax.ops.frame_selection import gather_frames
from mtnet_jax.typing import Array, Float, Int

_GRADIENTS = ('weights', 'exact')
Window = tuple[int, int, int]


def soft_pool(
  x: Float[Array, 'n t h w c'],
  gradient: str = 'weights',
  window: Window = (1, 2, 2),
) -> Float[Array, 'n t2 h2 w2 c']:
  """Halves height and width by the softmax-weighted sum of 2×2 windows.

  Per channel and window with elements `a_r`: `ã = Σ_r w_r a_r`, where
  `w = softmax(a)` over the window (5.5). Where a window does not divide a size,
  the last one is smaller, over its real elements only.

  Args:
    x: activations, any float dtype; computed in float32, where the sum of a
      window's magnitudes must be finite: up to a quarter of the greatest number
      for a 2×2 window.
    gradient: `'weights'` sends the forward weights back, `∂ã/∂a_r := w_r`
      (Fig. 5.3); `'exact'` is the derivative, `w_r (1 + a_r - ã)`.
    window: size of a window in frames, rows, columns; `(2, 2, 2)` halves the
      frames as well.

  Returns:
    `(n, t, ⌈h/2⌉, ⌈w/2⌉, c)`, or `⌈size / window⌉` of another window, in x's
    dtype, each within its window's range.

  Raises:
    UserError: an unknown `gradient`.
  """
  if gradient not in _GRADIENTS:
    raise UserError(
      f'Unknown `gradient` (={gradient!r}) of soft_pool. Choose one of '
      f'{", ".join(map(repr, _GRADIENTS))}.'
    )
  if gradient == 'weights' and window == (1, 2, 2):
    return soft_pool_with_residual(x)[1]
  return _pool(x, gradient=gradient, window=window)


def soft_pool_with_residual(
  x: Float[Array, 'n t h w c'], frames: Int[Array, 'n k'] | None = None
) -> tuple[Float[Array, 'n t h w c'], Float[Array, 'n k h2 w2 c']]:
  """Returns x, for its other uses, and `soft_pool` of some of its frames.

  A kernel computes x's gradient from both uses in one pass over memory.

  Args:
    x: activations, any float dtype, of magnitudes as `soft_pool` takes them.
    frames: indices in [0, t) of the frames of each clip that are pooled, in
      their order, none twice; None: all.
  """

  return _pool_with_residual(x, frames)


def _define(x, gradient, window):
  """Weights the elements of each window by their softmax (5.5)."""
  pads = [(0, -size % w) for size, w in zip(x.shape[1:4], window, strict=True)]
  a = jnp.pad(
    precision.widen(x), ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf
  )
  n, t, h, w, c = a.shape
  st, sh, sw = window
  a = a.reshape(n, t // st, st, h // sh, sh, w // sw, sw, c)
  weights = jax.nn.softmax(a, axis=(2, 4, 6))
  if gradient == 'weights':
    weights = jax.lax.stop_gradient(weights)
  a = jnp.where(jnp.isfinite(a), a, 0)  # beyond the border the weight is 0
  return jnp.sum(weights * a, axis=(2, 4, 6)).astype(x.dtype)


def _forward(x, gradient, window):
  """Takes windows' elements by strided slices, and subtracts the largest."""
  del gradient  # Of the backward pass only.
  y, *_ = _average(_elements(_pad(x, window), window))
  return y.astype(x.dtype), x


def _average(elements):
  """The elements' average, weighted by their exponentials.

  The largest element is returned too, and the exponentials' sum relative to it.
  """
  largest = functools.reduce(jnp.maximum, elements)
  exps = [jnp.exp(a - largest) for a in elements]
  weighted = sum(a * e for a, e in zip(elements, exps, strict=True))
  total = sum(exps)
  return weighted / total, largest, total


def _backward(x, dy, gradient, window):
  # The barrier hides that these are the exponentials of the forward pass, which
  # the compiler would otherwise keep in memory.
  x = jax.lax.optimization_barrier(x)
  elements = _elements(_pad(x, window), window)
  largest = functools.reduce(jnp.maximum, elements)
  exps = [jnp.exp(a - largest) for a in elements]
  total = sum(exps)
  share = precision.widen(dy) / total
  d_elements = [share * e for e in exps]
  if gradient == 'exact':
    y = sum(a * e for a, e in zip(elements, exps, strict=True)) / total
    d_elements = [
      d * (1 + a - y) for d, a in zip(d_elements, elements, strict=True)
    ]
  return (_scatter(d_elements, x.shape[1:4], window).astype(x.dtype),)


def _pad(x, window):
  """Returns x widened and padded to sizes that the window divides.

  The padding has an exponential, and so a weight, of zero.
  """
  pads = [(0, -size % w) for size, w in zip(x.shape[1:4], window, strict=True)]
  return jnp.pad(
    precision.widen(x),
    ((0, 0), *pads, (0, 0)),
    constant_values=jnp.finfo(precision.wide_dtype(x)).min,
  )


def _elements(x, window):
  """Returns the elements of windows by their place, each `n t2 h2 w2 c`."""
  st, sh, sw = window
  return [x[:, i::st, j::sh, k::sw] for i, j, k in np.ndindex(*window)]


def _scatter(elements, shape, window):
  """Transposes `_elements`, for a map of the shape before padding.

  It puts zeros between the elements and adds. A broadcast of the window's value
  to its elements would be written to memory on a TPU.
  """
  zero = jnp.zeros((), elements[0].dtype)

  def place(a, first):
    pads = [
      (i, size - i - step * (count - 1) - 1, step - 1)
      for i, size, count, step in zip(
        first, shape, a.shape[1:4], window, strict=True
      )
    ]
    return jax.lax.pad(a, zero, [(0, 0, 0), *pads, (0, 0, 0)])

  return sum(map(place, elements, np.ndindex(*window)))


_pool = Operation(_define, xla=Form(_forward, _backward))

_HALVED = {'gradient': 'weights', 'window': (1, 2, 2)}


def _choose(x, frames):
  return x if frames is None else gather_frames(x, frames)


def _define_with_residual(x, frames):
  return x, _define(_choose(x, frames), **_HALVED)


def _forward_with_residual(x, frames):
  y = keep(_forward(_choose(x, frames), **_HALVED)[0])
  return (x, y), (x, frames)


def _backward_with_residual(kept, d_results):
  x, frames = kept
  d_residual, dy = d_results
  chosen, spread = jax.vjp(lambda x: _choose(x, frames), x)
  (dx,) = spread(*_backward(chosen, dy, **_HALVED))
  return d_residual + dx, None


# The form for TPUs. Columns lie side by side where the program lays them so,
# and clips where channels are few. A program that is known to be for a TPU
# keeps the terms of the weights instead of recomputing them. These are spread
# over the windows by sums over windows between zeros: as a broadcast, or as a
# sum of elements between zeros, the compiler would write them to memory once
# more.


def _forward_side_by_side(x, frames, groups):
  if x.shape[2] % 2 or x.shape[3] % 2:
    return _forward_with_residual(x, frames)
  n = x.shape[0]
  if n != 1 and frames is None and lanes.is_narrow(x, groups):
    (_, y), kept = _forward_side_by_side(lanes.merge_clips(x), None, 0)
    return (x, lanes.part_clips(y, n)), kept if traces_for_tpu() else (x, None)
  folded, pairs = _fold_pairs(x, groups)
  y, largest, total = _average(_elements_of_pairs(folded, pairs))
  y = keep(_choose(y.astype(x.dtype), frames))
  kept = (folded, frames, largest.astype(x.dtype), total)
  y = lanes.unfold(y, x.shape[-1])
  return (x, y), kept if traces_for_tpu() else (x, frames)


def _backward_side_by_side(kept, d_results, groups):
  d_residual, dy = d_results
  if d_residual.shape[2] % 2 or d_residual.shape[3] % 2:
    return _backward_with_residual(kept, d_results)
  n = dy.shape[0]
  if n != 1 and kept[1] is None and lanes.is_narrow(d_residual, groups):
    if not traces_for_tpu():
      kept = (lanes.merge_clips(kept[0]), None)
    d_results = tuple(map(lanes.merge_clips, d_results))
    dx, _ = _backward_side_by_side(kept, d_results, 0)
    return lanes.part_clips(dx, n), None
  d_folded, pairs = _fold_pairs(d_residual, groups)
  if not traces_for_tpu():
    x, frames = kept
    folded, _ = _fold_pairs(jax.lax.optimization_barrier(x), groups)  # as above
    _, *window = _average(_elements_of_pairs(folded, pairs))
    kept = (folded, frames, *window)
  folded, frames, largest, total = kept
  # Frames that were not chosen get no gradient.
  _, spread = jax.vjp(lambda y: _choose(y, frames), largest.astype(dy.dtype))
  n, k, *_ = dy.shape
  (dy,) = spread(dy.reshape(n, k, *total.shape[2:]))
  share = (precision.widen(dy) / total).astype(dy.dtype)
  largest, share = (
    precision.widen(_spread_over_pairs(a.astype(dy.dtype), pairs))
    for a in (largest, share)
  )
  dx = share * jnp.exp(precision.widen(folded) - largest)
  dx = (precision.widen(d_folded) + dx).astype(folded.dtype)
  return lanes.unfold(dx, d_residual.shape[-1]), None


def _fold_pairs(x, groups):
  """Returns x with columns side by side, and the number of pairs, perhaps 0."""
  columns = lanes.count(x.shape[3], groups)
  return (lanes.fold(x, groups), columns // 2) if columns % 2 == 0 else (x, 0)


def _elements_of_pairs(x, pairs):
  """Returns `_elements` for windows of two rows and two columns."""
  if pairs > 1:  # More pieces than two cost more than a product.
    return [
      precision.widen(
        lanes.move(x[:, :, i:], _every_second(x, j, pairs), (1, 2, 1))
      )
      for i, j in np.ndindex(2, 2)
    ]
  rows = [x[:, :, i::2] for i in range(2)]
  if not pairs:
    return [precision.widen(a[:, :, :, j::2]) for a in rows for j in range(2)]
  return [precision.widen(b) for a in rows for b in jnp.split(a, 2, -1)]


def _every_second(x, first, pairs):
  """Returns where every second column is among all that are side by side."""
  columns, channels = np.eye(2 * pairs), np.eye(x.shape[-1] // (2 * pairs))
  return np.kron(columns[:, first::2], channels)


def _spread_over_pairs(a, pairs):
  """Returns the value of each window at each of its elements."""
  window = (1, 1, 2, 1 if pairs else 2, 1)
  if pairs:
    a = jnp.concatenate(
      [part for part in jnp.split(a, pairs, -1) for _ in range(2)], -1
    )
  return jax.lax.reduce_window(
    a,
    jnp.zeros((), a.dtype),
    jax.lax.add,
    window,
    (1,) * 5,
    [(size - 1, size - 1) for size in window],
    base_dilation=window,
  )


def _kernel_forward(x, frames):
  n, _, h, w, c = x.shape
  indices = _indices(x, frames)
  shape = (n, indices.shape[1], -(-h // 2), -(-w // 2), c)
  result = jax.ShapeDtypeStruct(shape, x.dtype)
  y = native.call('soft_pool_forward', result, x, indices)
  return (x, y), (x, frames)


def _kernel_backward(kept, d_results):
  x, frames = kept
  d_residual, dy = d_results
  indices = _indices(x, frames)
  dx = native.call('soft_pool_backward', x, x, indices, dy, d_residual)
  return dx, None


def _indices(x, frames):
  n, t = x.shape[:2]
  if frames is None:
    return jnp.tile(jnp.arange(t, dtype=jnp.int32), (n, 1))
  return frames


_pool_with_residual = Operation(
  _define_with_residual,
  xla=Form(_forward_with_residual, _backward_with_residual),
  cpu_kernel=Form(_kernel_forward, _kernel_backward),
  tpu=Form(_forward_side_by_side, _backward_side_by_side),
)
