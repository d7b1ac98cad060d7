"""Grouped 3-D convolution: groups of channels that see only themselves.

As ResNeXt-3D and MF-Net have it. Padding as in `conv`.
"""

from mtnet_jax.ops.conv import Triple, convolve, convolve_by_frames
from mtnet_jax.ops.forms import Operation
from mtnet_jax.typing import Array, Float


def grouped_conv3d(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k d f'],
  strides: Triple = (1, 1, 1),
) -> Float[Array, 'n u v x f']:
  """Returns the 3-D convolution of x in c / d groups, in x's dtype.

  Group g sees channels [g·d, (g + 1)·d), and gives as many of the f features,
  in the same order.

  Args:
    x: activations, any float dtype.
    kernel: weights in x's dtype.
    strides: distance between windows in frames, rows, columns.
  """
  return _convolve(x, kernel, strides=strides)


_convolve = Operation(convolve, onnx=convolve_by_frames)
