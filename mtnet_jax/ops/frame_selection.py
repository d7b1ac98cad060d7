"""Selects frames by the temporal triplet cosine (thesis, eq. 5.6–5.7).

The frames that differ most from their neighbors in time carry the action. A
frame and its two neighbors are compared by the cosine of their spatially
pooled activations, and the half of the frames with the lowest similarity stays.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import lanes, native, precision
from mtnet_jax.ops.forms import Form, Operation, keep
from mtnet_jax.ops.mean import mean
from mtnet_jax.typing import Array, Float, Int

# A frame without activation has no direction; its norm is held above this.
_MIN_NORM = 1e-6


def triplet_scores(x: Float[Array, 'n t h w c']) -> Float[Array, 'n t']:
  """Returns each frame's similarity to its neighbors (5.6).

  Args:
    x: activations, any float dtype, any range.

  Returns:
    float32 scores in [-2, 2], computed in float32; 0 for a single frame.
  """
  return embedding_scores(mean(x, 2))


def embedding_scores(v: Float[Array, 'n t c']) -> Float[Array, 'n t']:
  """Returns the same scores for embeddings of the frames (5.6).

  The score of frame t is `cos(t-1, t) + cos(t, t+1)`. The first and the last
  frame have one neighbor, whose cosine counts twice.
  """
  n, t, _ = v.shape
  if t == 1:
    return jnp.zeros((n, 1), jnp.float32)
  v = precision.widen(v)
  norm = jnp.sqrt(jnp.sum(v * v, axis=-1, keepdims=True))
  v = v / jnp.maximum(norm, _MIN_NORM)
  return _both_sides(jnp.sum(v[:, :-1] * v[:, 1:], axis=-1))


def still_scores(clips: Float[Array, 'n t h w c']) -> Float[Array, 'n t']:
  """Returns how little the pixels of each frame differ from its neighbors'.

  The score is minus the sum of the mean absolute differences to the frames
  before and after; the first and the last frame have one neighbor, which counts
  twice.

  Args:
    clips: pixels, any float dtype, any range.

  Returns:
    float32 scores, at most 0; 0 for a single frame.
  """
  n, t, *_ = clips.shape
  if t == 1:
    return jnp.zeros((n, 1), jnp.float32)
  x = precision.widen(clips)
  change = jnp.mean(jnp.abs(x[:, 1:] - x[:, :-1]), axis=(2, 3, 4))
  return -_both_sides(change)


def _both_sides(between):
  """Sums the values between a frame and its two neighbors, `(n, t)`."""
  before = jnp.concatenate([between[:, :1], between], axis=1)
  after = jnp.concatenate([between, between[:, -1:]], axis=1)
  return before + after


def select_frame_indices(x: Float[Array, 'n t h w c']) -> Int[Array, 'n k']:
  """Returns the frames of each clip with the lowest triplet scores (5.7).

  Args:
    x: activations, any float dtype, any range.

  Returns:
    int32 indices of `k = max(1, t // 2)` frames, ascending. Of frames with
    equal scores the earlier ones are kept. No gradient flows through them.
  """
  return keep(_select(jax.lax.stop_gradient(x)))


def lowest_frames(scores: Float[Array, 'n t']) -> Int[Array, 'n k']:
  """Returns the frames of each clip with the lowest scores.

  Args:
    scores: the scores of each clip's frames.

  Returns:
    int32 indices of `k = max(1, t // 2)` frames, ascending. Of frames with
    equal scores the earlier ones are kept.
  """
  # A stable sort leaves the earlier of equal frames first. Unlike `top_k`, the
  # sort needs no scores of other devices.
  lowest_first = jnp.argsort(scores, axis=1, stable=True)
  chosen = lowest_first[:, : _count(scores)].astype(jnp.int32)
  return jnp.sort(chosen, axis=1)


def _define(x):
  return lowest_frames(triplet_scores(x))


def _kernel(x):
  result = jax.ShapeDtypeStruct((x.shape[0], _count(x)), jnp.int32)
  return native.call('select_frames', result, x, min_norm=np.float32(_MIN_NORM))


def _count(x):
  """Returns how many frames of each clip are kept."""
  return max(1, x.shape[1] // 2)


_select = Operation(_define, cpu_kernel=_kernel)


def gather_frames(
  x: Float[Array, 'n t h w c'], indices: Int[Array, 'n k']
) -> Float[Array, 'n k h w c']:
  """Returns the chosen frames of each clip; gradients flow through them.

  Args:
    x: activations.
    indices: frames of each clip, in [0, t).

  Returns:
    `x[n, indices[n, k]]`, in x's dtype.
  """
  old = jax.ShapeDtypeStruct(x.shape, x.dtype)
  return _gather(x, indices, old=old)


def _define_gather(x, indices, old):
  del old
  return jnp.take_along_axis(
    x, indices[:, :, None, None, None], axis=1, mode='promise_in_bounds'
  )


def _take(x, indices, old):
  return _define_gather(x, indices, old), indices


def _take_back(indices, dy, old):
  def take(x):
    return _define_gather(x, indices, old)

  return *jax.linear_transpose(take, old)(dy), None


# This gradient is a product with ones and zeros. The one above is a scatter,
# which all platforms but CPUs do element by element.


def _multiply(x, indices, old):
  return keep(_product('nkt,nt...->nk...', indices, x, old)), indices


def _multiply_back(indices, dy, old):
  return _product('nkt,nk...->nt...', indices, dy, old), None


def _multiply_side_by_side(x, indices, old, groups):
  y, _ = _multiply(lanes.fold(x, groups), indices, old)
  return lanes.unfold(y, x.shape[-1]), indices


def _multiply_back_side_by_side(indices, dy, old, groups):
  dx, _ = _multiply_back(indices, lanes.fold(dy, groups), old)
  return lanes.unfold(dx, dy.shape[-1]), None


def _product(equation, indices, x, old):
  ones = jax.nn.one_hot(indices, old.shape[1], dtype=old.dtype)
  return jnp.einsum(equation, ones, x, precision=jax.lax.Precision.HIGHEST)


_gather = Operation(
  _define_gather,
  xla=Form(_multiply, _multiply_back),
  cpu=Form(_take, _take_back),
  tpu=Form(_multiply_side_by_side, _multiply_back_side_by_side),
)
