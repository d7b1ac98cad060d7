"""Columns side by side in the lanes of a TPU.

A TPU keeps channels in the 128 lanes of its registers and of its memory's
tiles: 54 of them leave more than half empty, and every pass over memory takes
twice its time. So a form for TPUs may lay the channels of a few columns of a
map next to each other: for the program that is no more than another shape. It
does so by itself, and undoes it: between one such operation and the next the
compiler finds that nothing changes.

How many columns are side by side follows from the number of groups that each
row is cut into, which is the same before and after a stride.
"""

import jax.numpy as jnp
import numpy as np

from mtnet_jax.typing import Array, Float

LANES = 128


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


def count(width: int, groups: int, stride: int = 1) -> int:
  """Returns how many of a row's columns are side by side; 1: none are.

  Args:
    width: the row's columns.
    groups: into how many groups rows are cut; 0: they are not.
    stride: distance between windows over columns, which cuts no group.
  """
  fits = groups and width % (groups * stride) == 0
  return width // groups if fits else 1


def fold(x: Float[Array, '*d w c'], groups: int) -> Float[Array, '*d g e']:
  """Returns x with the channels of a group's columns side by side.

  Args:
    x: activations.
    groups: into how many groups rows are cut; 0: they are not.
  """
  *around, w, c = x.shape
  columns = count(w, groups)
  if columns == 1:
    return x
  return x.reshape(*around, w // columns, columns * c)


def unfold(x: Float[Array, '*d g e'], c: int) -> Float[Array, '*d w c']:
  """Returns what `fold` was given, of c channels."""
  return x if x.shape[-1] == c else x.reshape(*x.shape[:-2], -1, c)


def repeat(a: Float[Array, '*d c'], e: int) -> Float[Array, '*d e']:
  """Returns what belongs to c channels, for the e that are side by side."""
  columns = e // a.shape[-1]
  return a if columns == 1 else jnp.tile(a, columns)


def add_up(a: Float[Array, '*d e'], c: int) -> Float[Array, '*d c']:
  """Returns the sums over columns side by side, for each of c channels."""
  if a.shape[-1] == c:
    return a
  return a.reshape(*a.shape[:-1], -1, c).sum(-2)


def dense_kernel(
  kernel: Float[Array, 'i j k c f'], stride: int, columns: int
) -> tuple[Float[Array, 'i j b d e'], tuple[int, int]]:
  """Returns the kernel of a dense convolution of columns side by side.

  It has one weight where a column of the input lies below a column of the
  result, and zeros elsewhere. Its stride is 1.

  Args:
    kernel: the kernel of columns one by one, padded by `k // 2`.
    stride: its stride over columns.
    columns: how many columns of the input are side by side, a multiple of the
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
