"""Clips or columns side by side in the lanes of a TPU.

A TPU keeps channels in the 128 lanes of its registers and of its memory's
tiles: 54 of them leave more than half empty, and every pass over memory takes
twice its time. So a form for TPUs may lay the channels of two clips next to
each other, or in a stem those of a few columns. It does so by itself, and
undoes it: between one such operation and the next the compiler finds that
nothing moves.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mtnet_jax.typing import Array, Float

LANES = 128
# Fewer clips would leave rows of tiles empty instead.
_MIN_CLIPS = 8


class Beside(NamedTuple):
  """What lies side by side: clips, or columns.

  Attributes:
    clips: how many clips.
    groups: how many groups a row's columns form, those of a group side by
      side; 0: columns do not.
  """

  clips: int = 1
  groups: int = 0


APART = Beside()


def fitting_clips(channels: int, clips: int) -> int:
  """Returns how many clips lie side by side: 2, or 1 where that gains nothing.

  Args:
    channels: of the widest array of a stage.
    clips: on each device.
  """
  narrow = 2 * channels <= LANES
  return 2 if narrow and clips % 2 == 0 and clips >= 2 * _MIN_CLIPS else 1


def fitting_groups(channels: int, width: int, stride: int) -> int:
  """Returns how many groups columns form, or 0 where that gains nothing.

  Args:
    channels: of the arrays after a stride.
    width: columns before it.
    stride: distance between windows.
  """
  for columns in (8, 4, 2):
    groups = width // (columns * stride)
    exact = groups * columns * stride == width
    if columns * channels <= LANES and exact:
      return groups
  return 0


def fold(
  x: Float[Array, 'n t h w c'], beside: Beside
) -> Float[Array, 'm t h g d']:
  """Returns x with channels side by side.

  Args:
    x: activations, or whatever has their axes; its clips and columns are
      multiples of those of `beside`.
    beside: whose channels.
  """
  if beside == APART:
    return x
  (n, t, h, w, c), clips = x.shape, beside.clips
  if beside.groups:
    return x.reshape(n, t, h, beside.groups, w // beside.groups * c)
  x = x.reshape(n // clips, clips, t, h, w, c).transpose(0, 2, 3, 4, 1, 5)
  return x.reshape(n // clips, t, h, w, clips * c)


def unfold(
  x: Float[Array, 'm t h g d'], beside: Beside, c: int
) -> Float[Array, 'n t h w c']:
  """Returns what `fold` was given, of c channels."""
  if beside == APART:
    return x
  (m, t, h, w, _), clips = x.shape, beside.clips
  if beside.groups:
    return x.reshape(m, t, h, -1, c)
  x = x.reshape(m, t, h, w, clips, c).transpose(0, 4, 1, 2, 3, 5)
  return x.reshape(m * clips, t, h, w, c)


def repeat(a: Float[Array, '*d c'], d: int) -> Float[Array, '*d d']:
  """Returns what belongs to c channels, for d that lie side by side."""
  count = d // a.shape[-1]
  return a if count == 1 else jnp.tile(a, count)


def add_up(a: Float[Array, '*d d'], c: int) -> Float[Array, '*d c']:
  """Returns the sums over what lies side by side, for each of c channels."""
  if a.shape[-1] == c:
    return a
  return a.reshape(*a.shape[:-1], -1, c).sum(-2)


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


def of_columns(
  kernel: Float[Array, 'i j k c f'], stride: int, columns: int
) -> tuple[Float[Array, 'i j b e g'], tuple[int, int]]:
  """Returns the kernel of a dense convolution of columns side by side.

  It has one weight where a column of the input lies below a column of the
  result, and zeros elsewhere. Its stride is 1.

  Args:
    kernel: the kernel of columns one by one, padded by `k // 2`.
    stride: its stride over columns.
    columns: how many columns of the input form a group, a multiple of the
      stride.

  Returns:
    The kernel, over b groups of columns, and the groups of padding before and
    after.
  """
  *around, k, c, f = kernel.shape
  results = columns // stride
  # Where each element of the kernel lies, from the first column of the group.
  below = stride * np.arange(results)[:, None] + np.arange(k)[None] - k // 2
  group, column = below // columns, below % columns
  first, last = group.min(), group.max()
  place = np.zeros((last - first + 1, columns, results, k))
  result, element = np.indices(below.shape)
  place[group - first, column, result, element] = 1
  blocks = jnp.einsum('biok,uvkcf->uvbicof', place.astype(kernel.dtype), kernel)
  shape = (*around, len(place), columns * c, results * f)
  return blocks.reshape(shape), (-int(first), int(last))
