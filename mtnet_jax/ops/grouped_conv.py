"""Grouped 3-D convolution: groups of channels that see only themselves.

ResNeXt-3D and MF-Net use it. Padding is that of `conv`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import lanes, native, separated_conv
from mtnet_jax.ops.conv import (
  Triple,
  convolve,
  convolve_by_frames,
  convolve_frames,
  convolve_side_by_side,
)
from mtnet_jax.ops.forms import Form, Operation
from mtnet_jax.typing import Array, Float

# The number of channels that groups are joined to on a CPU: with fewer, Eigen
# is no faster, and with more the zeros between groups cost more than they gain.
_CPU_CHANNELS = 16


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


def _kernel_takes(x, kernel, strides):
  # Registers hold up to 16 features.
  takes = separated_conv.kernel_takes(x, kernel, strides)
  return takes and kernel.shape[-1] >= 16


def _kernel_forward(x, kernel, strides):
  types = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, kernel))
  shape = jax.eval_shape(lambda *a: convolve(*a, strides), *types).shape
  return _call('forward', shape, x, kernel, strides), (x, kernel)


def _kernel_backward(kept, dy, strides):
  x, kernel = kept
  dx = _call('input_gradient', x.shape, dy, kernel, strides)
  return dx, _call('kernel_gradient', kernel.shape, x, dy, strides)


def _call(name, shape, a, b, strides):
  result = jax.ShapeDtypeStruct(shape, a.dtype)
  return native.call(
    f'grouped_conv_{name}', result, a, b, strides=np.array(strides, np.int64)
  )


def join_groups(
  kernel: Float[Array, 'i j k d f'], groups: int, size: int
) -> Float[Array, 'g i j k e h']:
  """Returns the kernels of dense convolutions, each of `size` groups.

  Args:
    kernel: the kernel of a grouped convolution.
    groups: the number of groups.
    size: the number of groups that are joined into one, a divisor of `groups`.
      Between them are zeros.
  """
  *volume, d, f = kernel.shape
  e = f // groups
  # The axes are few: XLA's transposes of eight axes crash a process on a CPU.
  own = kernel.reshape(-1, d, groups // size, size, e)
  own = own.transpose(2, 0, 3, 1, 4)  # … size d e
  diagonal = jnp.eye(size, dtype=kernel.dtype)
  blocks = own[..., None, :] * diagonal[None, None, :, None, :, None]
  return blocks.reshape(groups // size, *volume, size * d, size * e)


def _join_and_convolve(
  x, kernel, channels: int, convolve_part: Callable[[Array, Array], Array]
):
  """Convolves joined groups densely, one after the other."""
  d = kernel.shape[3]
  groups = x.shape[-1] // d
  size = most_groups(groups, d, channels)
  kernels = join_groups(kernel, groups, size)
  parts = jnp.split(x, groups // size, -1)
  results = [
    convolve_part(part, own) for part, own in zip(parts, kernels, strict=True)
  ]
  return jnp.concatenate(results, -1)


def _on_cpu(x, kernel, strides):
  convolve_part = functools.partial(convolve_frames, strides=strides)
  return _join_and_convolve(x, kernel, _CPU_CHANNELS, convolve_part)


def _on_tpu(x, kernel, strides, groups):
  """Joins groups up to 128 channels, a TPU's matrix: zeros cost nothing."""
  convolve_part = functools.partial(
    convolve_side_by_side, strides=strides, groups=groups
  )
  return _join_and_convolve(x, kernel, lanes.LANES, convolve_part)


def most_groups(groups: int, d: int, channels: int) -> int:
  """Returns how many groups of d channels are joined to so many at most.

  Args:
    groups: the number of groups, of which the result is a divisor.
    d: channels of a group, which may be more than `channels`.
    channels: the number of channels of what is joined.
  """
  sizes = range(1, max(1, channels // d) + 1)
  return max(size for size in sizes if groups % size == 0)


_convolve = Operation(
  convolve,
  _kernel_takes,
  cpu=_on_cpu,
  cpu_kernel=Form(_kernel_forward, _kernel_backward),
  onnx=convolve_by_frames,
  tpu=_on_tpu,
)
