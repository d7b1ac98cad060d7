"""The temporal adaptive module of TANet.

Source: Z. Liu et al., *TAM: Temporal Adaptive Module for Video Recognition*,
2021, section 3 and Fig. 2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.ops import precision
from mtnet_jax.ops.activation import relu
from mtnet_jax.ops.adaptive_kernel import adaptive_convolution
from mtnet_jax.typing import Array, Float

_FRAMES = 3  # of the kernels
_NARROWING = 4  # of the gate's channels


class TemporalAdaptive(nn.Module):
  """Gates frames, and convolves them with kernels computed from the clip.

  The gates and the kernels depend on the means over rows and columns. The
  global branch makes a kernel for each channel out of its t means alone; the
  local branch gates each frame by its neighbors. The global branch's layers
  take t numbers: a network of 8 frames cannot take 16.

  Submodules: `kernel_hidden`, `kernel_norm`, `kernel_output`; `gate_reduce`,
  `gate_norm`, `gate_expand`.

  Attributes:
    conv: factory of convolutions.
    norm: factory of normalizations.
  """

  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: Float[Array, 'n t h w c']) -> Float[Array, 'n t h w c']:
    """Returns x gated and convolved, in its dtype."""
    means = jnp.mean(precision.widen(x), axis=(2, 3))  # n t c
    kernel = self._kernel(means.swapaxes(1, 2))
    gate = self._gate(means[:, :, None, None].astype(x.dtype))
    return adaptive_convolution(x * gate, kernel)

  def _kernel(self, means):
    """Returns kernels `n 3 c`, which sum to 1, for `n t c`."""
    t, small = means.shape[-1], nn.initializers.normal(0.001)
    hidden = nn.Dense(
      2 * t, use_bias=False, kernel_init=small, name='kernel_hidden'
    )
    output = nn.Dense(
      _FRAMES, use_bias=False, kernel_init=small, name='kernel_output'
    )
    norm = self.norm(dtype=means.dtype, name='kernel_norm')
    weights = jax.nn.softmax(output(norm(hidden(means), relu)))
    return weights.swapaxes(1, 2)

  def _gate(self, means):
    """Returns as many numbers in [0, 1] for `n t 1 1 c`."""
    c = means.shape[-1]
    reduce = self.conv(c // _NARROWING, (3, 1, 1), name='gate_reduce')
    expand = self.conv(c, (1, 1, 1), name='gate_expand')
    hidden = self.norm(name='gate_norm')(reduce(means), relu)
    return jax.nn.sigmoid(precision.widen(expand(hidden))).astype(means.dtype)
