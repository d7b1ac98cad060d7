"""Columns side by side in the lanes of a TPU.

A TPU keeps channels in the 128 lanes of its registers and of its memory's
tiles: 54 channels leave more than half of the lanes empty, and every pass over
memory takes twice its time. So a form for TPUs may lay the channels of a few
columns of a map side by side, which for the program is only a reshape. Each
such operation does so and undoes it; between two of them the compiler finds
that nothing changes.

How many columns are side by side follows from the number of groups that each
row is cut into. Where that number stays the same, as in MTNet from the input to
the end of the first stage, maps pass unchanged from operation to operation:
before a stride a group has twice as many columns. Later stages have enough
channels.

Where channels are few even so, those of all clips may lie side by side.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.typing import Array, Float

LANES = 128


def fitting_groups(channels: int, width: int, columns: int) -> int:
  """Returns into how many groups rows are cut for a map to fill the lanes.

  It is 0, no groups, where a single column fills more than half of the lanes,
  or groups would not be of equal size.

  Args:
    channels: the number of channels of the map.
    width: columns of what goes into the network.
    columns: the number of those that are one column of the map.
  """
  for size in (8, 4, 2):
    if size * channels <= LANES and width % (size * columns) == 0:
      return width // (size * columns)
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


def is_narrow(x: Float[Array, 'n t h w c'], groups: int) -> bool:
  """Returns whether x leaves most lanes empty even with columns folded."""
  c, columns = x.shape[-1], count(x.shape[3], groups)
  return 4 * c <= LANES and 2 * columns * c <= LANES


def merge_clips(x: Float[Array, 'n t h w c']) -> Float[Array, '1 t h w e']:
  """Returns x with the channels of its clips side by side."""
  n, *sizes, c = x.shape
  return x.transpose(1, 2, 3, 0, 4).reshape(1, *sizes, n * c)


def part_clips(
  x: Float[Array, '1 t h w e'], n: int
) -> Float[Array, 'n t h w c']:
  """Returns what `merge_clips` was given, of n clips."""
  return x.reshape(*x.shape[1:4], n, -1).transpose(3, 0, 1, 2, 4)


def repeat(a: Float[Array, '*d c'], e: int) -> Float[Array, '*d e']:
  """Returns values of c channels repeated for the e that are side by side."""
  columns = e // a.shape[-1]
  return a if columns == 1 else jnp.tile(a, columns)


def add_up(a: Float[Array, '*d e'], c: int) -> Float[Array, '*d c']:
  """Returns the sums over columns side by side, for each of c channels."""
  if a.shape[-1] == c:
    return a
  return a.reshape(*a.shape[:-1], -1, c).sum(-2)


def move(
  x: Float[Array, 'n t h g d'],
  place: np.ndarray,
  strides: tuple[int, int, int] = (1, 1, 1),
) -> Float[Array, 'n u v b e']:
  """Moves values to other lanes by a 1×1×1 convolution.

  Args:
    x: activations.
    place: ones and zeros, d by e, in each column at most one 1.
    strides: distance between the points.
  """
  return jax.lax.conv_general_dilated(
    x,
    jnp.asarray(place.reshape(1, 1, 1, *place.shape), x.dtype),
    strides,
    'VALID',
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
    precision=jax.lax.Precision.HIGHEST,  # The values do not change.
  )


def dense_kernel(
  kernel: Float[Array, 'i j k c f'], stride: int, columns: int
) -> tuple[Float[Array, 'i j b d e'], tuple[int, int]]:
  """Returns the kernel of a dense convolution of columns side by side.

  It has one weight where a column of the input lies below a column of the
  result, and zeros elsewhere. Its stride is 1.

  Args:
    kernel: the kernel of columns one by one, padded by `k // 2`.
    stride: the stride over columns.
    columns: the number of the input's columns that are side by side, a multiple
      of the stride.

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


def pair_rows(
  x: Float[Array, 'n t h g d'], kernel: Float[Array, 'i j b d e']
) -> tuple[
  Float[Array, 'n t u g f'], Float[Array, 'i v b f e'], tuple[int, int]
]:
  """Returns a convolution with a stride of 2 over rows as one without.

  Two rows of x are side by side, and two of the kernel.

  Args:
    x: activations of an even number of rows.
    kernel: the kernel, padded by `j // 2` over rows.

  Returns:
    Activations, the kernel, and the pairs of padding before and after.
  """
  # Split, and not as a transpose, the two rows are copied once on a TPU.
  x = jax.lax.optimization_barrier(x)
  x = jnp.concatenate([x[:, :, ::2], x[:, :, 1::2]], -1)
  i, j, *around = kernel.shape
  above = j // 2 % 2  # The first row of a pair, which the kernel does not see.
  pairs = -(-(above + j) // 2)
  rows = (0, 0), (above, 2 * pairs - above - j), *[(0, 0)] * 3
  kernel = jnp.pad(kernel, rows).reshape(i, pairs, 2, *around)
  b, d, e = around
  kernel = kernel.transpose(0, 1, 3, 2, 4, 5).reshape(i, pairs, b, 2 * d, e)
  before = (j // 2 + above) // 2
  return x, kernel, (before, pairs - 1 - before)
