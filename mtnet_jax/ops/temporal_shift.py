"""Shifts some channels by one frame forwards, and some backwards.

Source: J. Lin et al., *TSM: Temporal Shift Module*, 2019, section 3.
"""

import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops.forms import Operation
from mtnet_jax.typing import Array, Float


def temporal_shift(
  x: Float[Array, 'n t h w c'], share: int = 8
) -> Float[Array, 'n t h w c']:
  """Returns x with an eighth of its channels moved either way in time.

  With `m = c // share`, channels [0, m) are those of the next frame, [m, 2m)
  those of the previous one; the others stay. Beyond a clip's ends are zeros.

  Args:
    x: activations, any float dtype.
    share: one of so many channels is moved on, and as many back.
  """
  return _shift(x, share=share)


def _define(x, share):
  m = x.shape[-1] // share
  ends = [(0, 0)] * 4
  after = jnp.pad(x[:, 1:, ..., :m], [(0, 0), (0, 1), *ends[:3]])
  before = jnp.pad(x[:, :-1, ..., m : 2 * m], [(0, 0), (1, 0), *ends[:3]])
  return jnp.concatenate([after, before, x[..., 2 * m :]], -1)


def _by_masks(x, share):
  """Shifts in one loop over memory, without pieces that are put together."""
  m, channel = x.shape[-1] // share, np.arange(x.shape[-1])
  ends = [(0, 0)] * 3
  after = jnp.pad(x[:, 1:], [(0, 0), (0, 1), *ends])
  before = jnp.pad(x[:, :-1], [(0, 0), (1, 0), *ends])
  moved = jnp.where(channel < m, after, before)
  return jnp.where(channel < 2 * m, moved, x)


_shift = Operation(_define, xla=_by_masks)
