"""The last linear layer of a network."""

from flax import linen as nn

from mtnet_jax.layers.parameters import parameter
from mtnet_jax.typing import Array, Float


class Classifier(nn.Module):
  """A linear layer whose kernel can be read before the layer is applied.

  It has the parameters, and their initial values, of an `nn.Dense`: `kernel`
  `(in_features, num_classes)` and `bias` `(num_classes,)`.

  Attributes:
    in_features: number of channels of its input.
    num_classes: number of classes.
  """

  in_features: int
  num_classes: int

  def setup(self):
    self.kernel = parameter(
      self,
      'kernel',
      nn.initializers.lecun_normal(),
      (self.in_features, self.num_classes),
    )
    self.bias = parameter(
      self, 'bias', nn.initializers.zeros_init(), (self.num_classes,)
    )

  def __call__(self, x: Float[Array, 'n c']) -> Float[Array, 'n k']:
    """Returns logits."""
    return x @ self.kernel + self.bias[None]
