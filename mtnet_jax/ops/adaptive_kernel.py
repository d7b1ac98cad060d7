"""Convolves each channel of each clip in time with a kernel of its own.

Source: Z. Liu et al., *TAM: Temporal Adaptive Module for Video Recognition*,
2021, section 3.2.
"""

import jax.numpy as jnp

from mtnet_jax.ops import precision
from mtnet_jax.ops.forms import Operation
from mtnet_jax.typing import Array, Float


def adaptive_convolution(
  x: Float[Array, 'n t h w c'], kernel: Float[Array, 'n k c']
) -> Float[Array, 'n t h w c']:
  """Returns `y[t] = Σ_j kernel[j] · x[t + j - k // 2]`, in x's dtype.

  Beyond a clip's ends are zeros.

  Args:
    x: activations, any float dtype.
    kernel: weights of an odd number k of frames, for each clip and channel.
  """
  return _convolve(x, kernel)


def _define(x, kernel):
  """Sums shifted products, in float32 or wider."""
  t, k = x.shape[1], kernel.shape[1]
  edge = k // 2
  padded = jnp.pad(x, [(0, 0), (edge, edge), (0, 0), (0, 0), (0, 0)])
  y = sum(
    precision.widen(padded[:, j : j + t]) * kernel[:, j, None, None, None]
    for j in range(k)
  )
  return y.astype(x.dtype)


_convolve = Operation(_define)
