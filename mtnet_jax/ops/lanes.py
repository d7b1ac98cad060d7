"""Clips side by side in the lanes of a TPU.

A TPU keeps channels in the 128 lanes of its registers and of its memory's
tiles: 54 of them leave more than half empty, and every pass over memory takes
twice its time. So a form for TPUs may lay the channels of two clips next to
each other. It does so by itself, and undoes it: between one such operation and
the next the compiler finds that nothing moves.
"""

import jax.numpy as jnp

from mtnet_jax.typing import Array, Float

LANES = 128
# Fewer clips would leave rows of tiles empty instead.
_MIN_CLIPS = 8


def fitting(channels: int, clips: int) -> int:
  """Returns how many clips lie side by side: 2, or 1 where that gains nothing.

  Args:
    channels: of the widest array of a stage.
    clips: on each device.
  """
  narrow = 2 * channels <= LANES
  return 2 if narrow and clips % 2 == 0 and clips >= 2 * _MIN_CLIPS else 1


def fold(x: Float[Array, 'n t h w c'], clips: int) -> Float[Array, 'm t h w d']:
  """Returns x with so many clips' channels side by side: m is n over `clips`.

  Args:
    x: activations, or whatever has their axes.
    clips: a divisor of n.
  """
  if clips == 1:
    return x
  n, t, h, w, c = x.shape
  x = x.reshape(n // clips, clips, t, h, w, c).transpose(0, 2, 3, 4, 1, 5)
  return x.reshape(n // clips, t, h, w, clips * c)


def unfold(
  x: Float[Array, 'm t h w d'], clips: int
) -> Float[Array, 'n t h w c']:
  """Returns what `fold` was given."""
  if clips == 1:
    return x
  m, t, h, w, d = x.shape
  x = x.reshape(m, t, h, w, clips, d // clips).transpose(0, 4, 1, 2, 3, 5)
  return x.reshape(m * clips, t, h, w, d // clips)


def repeat(a: Float[Array, '*d c'], clips: int) -> Float[Array, '*d e']:
  """Returns what belongs to channels, for those of clips side by side."""
  return a if clips == 1 else jnp.tile(a, clips)


def add_up(a: Float[Array, '*d e'], clips: int) -> Float[Array, '*d c']:
  """Returns the sums over clips side by side, channel by channel."""
  return a if clips == 1 else a.reshape(*a.shape[:-1], clips, -1).sum(-2)


def block_diagonal(
  kernel: Float[Array, '*d c f'], clips: int
) -> Float[Array, '*d e g']:
  """Returns the kernel of a dense convolution of clips side by side."""
  if clips == 1:
    return kernel
  *around, c, f = kernel.shape
  ones = jnp.eye(clips, dtype=kernel.dtype)
  blocks = jnp.einsum('ij,...cf->...icjf', ones, kernel)
  return blocks.reshape(*around, clips * c, clips * f)
