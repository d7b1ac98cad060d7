"""Interpolates frames in time that stand at their own times."""

import jax.numpy as jnp

from mtnet_jax.ops import precision
from mtnet_jax.typing import Array, Float, Int


def interpolate_times(
  x: Float[Array, 'n k h w c'], indices: Int[Array, 'n k'], frames: int
) -> Float[Array, 'n t h w c']:
  """Returns all frames of each clip, from some of them.

  Given frames stay as they are, frames between two of them are interpolated
  linearly, and beyond the first and the last the nearest one holds.

  Args:
    x: activations of the given frames, any float dtype; computed in float32.
    indices: the indices of the frames, ascending, in [0, frames).
    frames: t, the number of frames of the result.

  Returns:
    The result in x's dtype.
  """
  weights = _weights(
    indices.astype(jnp.float32), jnp.arange(frames)[None, None]
  )
  y = jnp.einsum('nkt,nk...->nt...', weights, precision.widen(x))
  return y.astype(x.dtype)


def _weights(given, times):
  """Returns the weight of each given frame in each frame, `(n, k, t)`."""
  steps = (given[:, 1:] - given[:, :-1])[..., None]  # n k-1 1
  since = (times - given[:, :-1, None]) / steps  # of each given frame but one
  rising = jnp.clip(since, 0, 1)
  ones = jnp.ones((len(given), 1, times.shape[-1]))
  # A given frame counts from the one before it to the one after it.
  return jnp.minimum(
    jnp.concatenate([ones, rising], 1), jnp.concatenate([1 - rising, ones], 1)
  )
