"""The units of networks: a convolution and what follows it."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.ops.activation import relu
from mtnet_jax.ops.conv import Triple
from mtnet_jax.typing import Array, Float


class ConvUnit(nn.Module):
  """Convolution, BN, activation: submodules `conv` and `norm`.

  Attributes:
    features: output channels.
    kernel_size: size of the kernel in frames, height, width.
    conv: factory of the convolution.
    norm: factory of the normalization.
    strides: distance between windows in frames, height, width.
    activation: function after BN; None: the identity.
  """

  features: int
  kernel_size: tuple[int, int, int]
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]
  strides: tuple[int, int, int] = (1, 1, 1)
  activation: Callable[[Array], Array] | None = relu

  @nn.compact
  def __call__(self, x: Float[Array, 'n t h w c']) -> Float[Array, 'n *d c2']:
    """Returns activations of sizes `⌈size / stride⌉`."""
    conv = self.conv(self.features, self.kernel_size, self.strides, name='conv')
    return self.norm(name='norm')(conv(x), self.activation)


def factorized_features(in_features: int, features: int, area: int = 9) -> int:
  """Returns the width between the two halves of a (2+1)D convolution.

  `⌊3·k²·c_in·c_out / (k²·c_in + 3·c_out)⌋`: as many weights as a kernel of 3
  frames.

  Args:
    in_features: input channels, c_in.
    features: output channels, c_out.
    area: rows times columns of the kernel, k².
  """
  kernel = 3 * area * in_features * features
  return kernel // (area * in_features + 3 * features)


class FactorizedUnit(nn.Module):
  """(2+1)D: a convolution in space, BN, ReLU, one in time, BN, activation.

  Submodules `spatial`, `spatial_norm`, `temporal`, `norm`.

  Attributes:
    features: output channels.
    kernel_size: size of the kernel in frames, height, width.
    mid_features: channels between the two convolutions.
    conv: factory of convolutions.
    norm: factory of normalizations.
    strides: distance between windows in frames, height, width.
    activation: function after the last BN; None: the identity.
  """

  features: int
  kernel_size: tuple[int, int, int]
  mid_features: int
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]
  strides: tuple[int, int, int] = (1, 1, 1)
  activation: Callable[[Array], Array] | None = relu

  @nn.compact
  def __call__(self, x: Float[Array, 'n t h w c']) -> Float[Array, 'n *d c2']:
    """Returns activations of sizes `⌈size / stride⌉`."""
    (kt, kh, kw), (st, sh, sw) = self.kernel_size, self.strides
    spatial = self.conv(
      self.mid_features, (1, kh, kw), (1, sh, sw), name='spatial'
    )
    temporal = self.conv(self.features, (kt, 1, 1), (st, 1, 1), name='temporal')
    x = self.norm(name='spatial_norm')(spatial(x), relu)
    return self.norm(name='norm')(temporal(x), self.activation)


class PaddedShortcut(nn.Module):
  """A residual connection without weights, whose new channels are zeros.

  Source: K. He et al., *Deep Residual Learning*, 2016, option A.

  Attributes:
    features: output channels, at least the input's.
    strides: the strides in frames, rows, columns.
  """

  features: int
  strides: Triple

  @nn.compact
  def __call__(self, x: Float[Array, 'n t h w c']) -> Float[Array, 'n *d f']:
    """Returns activations of sizes `⌈size / stride⌉`."""
    st, sh, sw = self.strides
    more = self.features - x.shape[-1]
    return jnp.pad(x[:, ::st, ::sh, ::sw], [(0, 0)] * 4 + [(0, more)])
