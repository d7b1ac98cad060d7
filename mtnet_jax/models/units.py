"""What networks are made of: a convolution and what follows it."""

from collections.abc import Callable

from flax import linen as nn

from mtnet_jax.ops.activation import relu
from mtnet_jax.typing import Array, Float


class ConvUnit(nn.Module):
  """Convolution, BN, activation: submodules `conv` and `norm`.

  Attributes:
    features: output channels.
    kernel_size: size of the kernel in frames, height, width.
    conv: factory of the convolution.
    norm: factory of the normalisation.
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
