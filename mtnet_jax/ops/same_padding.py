"""TensorFlow's SAME padding, by operations that pad symmetrically.

As many zeros are added as `⌈n / s⌉` windows need, the smaller half of them in
front. So an even number of positions under an odd kernel with a stride of 2 has
one more behind than in front, where symmetric padding has as many.

Source: the documentation of `tf.nn.convolution`.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from mtnet_jax.ops.conv import Triple
from mtnet_jax.typing import Array, Float

Pads = tuple[tuple[int, int], ...]


def same_pads(sizes: Sequence[int], windows: Triple, strides: Triple) -> Pads:
  """Returns how many positions are added before and behind each axis.

  Args:
    sizes: numbers of frames, rows and columns.
    windows: size of a window.
    strides: distance between windows.
  """
  pads = []
  for n, k, s in zip(sizes, windows, strides, strict=True):
    total = max(k - (n % s or s), 0)
    pads.append((total // 2, total - total // 2))
  return tuple(pads)


def convolve_same(
  convolve: Callable[..., Array],
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k d f'],
  strides: Triple = (1, 1, 1),
) -> Float[Array, 'n u v x f']:
  """Returns x convolved with SAME padding, of sizes `⌈size / stride⌉`.

  Where windows do not begin as with symmetric padding, zeros in front shift
  them, and the window that then comes first is left out again.

  Args:
    convolve: a convolution of x, kernel and strides whose padding is `k // 2`.
    x: activations.
    kernel: weights.
    strides: distance between windows in frames, rows, columns.
  """
  sizes, windows = x.shape[1:4], kernel.shape[:3]
  around, cuts = [(0, 0)], [slice(None)]
  for n, k, s, (before, _) in zip(
    sizes, windows, strides, same_pads(sizes, windows, strides), strict=True
  ):
    count = -(-n // s)
    front = (before - k // 2) % s
    first = (k // 2 + front - before) // s  # the first window that is wanted
    reach = (first + count - 1) * s + k  # where the last one ends
    around.append((front, max(0, reach - n - front - 2 * (k // 2))))
    cuts.append(slice(first, first + count))
  y = convolve(jnp.pad(x, [*around, (0, 0)]), kernel, strides)
  return y[tuple(cuts)]
