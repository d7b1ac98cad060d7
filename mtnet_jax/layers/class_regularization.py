"""Class Regularisation: the thesis's section 6.3, Algorithm 1.

In each stage of a network the classifier's weights, mapped to the stage's
channels, tell which class a clip looks most like so far, and the channels that
speak for that class are kept while the others are turned down.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.layers.parameters import parameter
from mtnet_jax.ops import precision
from mtnet_jax.typing import Array, Float, Int


def class_maps(
  class_weights: Float[Array, 'k d'], projection: Float[Array, 'd c']
) -> Float[Array, 'k c']:
  """Returns how much each of c channels speaks for each of k classes.

  `relu(W · 𝒲)`, the second line of Algorithm 1; 0 or more.

  Args:
    class_weights: W, the classifier's, a row a class.
    projection: 𝒲, from the classifier's channels to the stage's.
  """
  return nn.relu(_product(class_weights, projection))


def _product(
  x: Float[Array, 'm d'], y: Float[Array, 'd n']
) -> Float[Array, 'm n']:
  # GPUs and TPUs else round float32 to fewer digits, and near classes change.
  return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def regularize(
  a: Float[Array, 'n t h w c'],
  class_weights: Float[Array, 'k d'],
  projection: Float[Array, 'd c'],
  affection_rate: float,
) -> tuple[Float[Array, 'n t h w c'], Int[Array, ' n']]:
  """Scales each clip's channels by what they say of its most likely class.

  Algorithm 1. A class's score is the sum over channels of its map times the
  clip's mean activation; the highest wins, the lowest index among equals. Its
  map, brought to [λ, 1] by its least and greatest value, scales the channels. A
  map that is constant scales by one. (As printed, a "+" after the λ is missing:
  the text has λ = 1 without effect, and more of it towards 0.)

  Args:
    a: activations, any float dtype.
    class_weights: weights of the classifier, a row a class; they get no
      gradient, as 6.3.2 decouples them.
    projection: matrix from the classifier's channels to those of `a`; it gets a
      gradient through the scale, not through the choice of the class.
    affection_rate: λ in [0, 1].

  Returns:
    `a` scaled, in its dtype, and the int32 classes; float32 in between.
  """
  maps = class_maps(jax.lax.stop_gradient(class_weights), projection)
  pooled = jnp.mean(precision.widen(a), axis=(1, 2, 3))  # n c
  chosen = jnp.argmax(_product(pooled, maps.T), axis=1).astype(jnp.int32)
  own = maps[chosen]  # n c
  least = own.min(axis=1, keepdims=True)
  span = own.max(axis=1, keepdims=True) - least
  constant = span == 0
  # Divided by 1 instead of 0: a NaN would spoil the gradient even unused.
  share = (own - least) / jnp.where(constant, 1, span)
  scale = jnp.where(constant, 1, affection_rate + (1 - affection_rate) * share)
  return (a * scale[:, None, None, None, :]).astype(a.dtype), chosen


def check_affection_rates(rates: Sequence[float], num_stages: int) -> None:
  """Raises a UserError unless there is one rate in [0, 1] for each stage."""
  numbers = all(isinstance(rate, int | float) for rate in rates)
  valid = numbers and all(0 <= rate <= 1 for rate in rates)
  if len(rates) != num_stages or not valid:
    raise UserError(
      f'`affection_rates` (={tuple(rates)}) must be {num_stages} numbers in '
      '[0, 1], one for each stage: 1 leaves it as it is, 0 changes it most; '
      'for instance (0.9, 0.8, 0.7, 0.6).'
    )


class ClassRegularization(nn.Module):
  """`regularize` with a projection that is learned.

  Parameter `kernel`, 𝒲, `(d, c)`: Kaiming initialised.

  Attributes:
    affection_rate: λ in [0, 1].
  """

  affection_rate: float

  @nn.compact
  def __call__(
    self, a: Float[Array, 'n t h w c'], class_weights: Float[Array, 'k d']
  ) -> tuple[Float[Array, 'n t h w c'], Int[Array, ' n']]:
    """Returns `a` scaled, in its dtype, and the int32 class of each clip."""
    kernel = parameter(
      self,
      'kernel',
      nn.initializers.he_normal(),
      (class_weights.shape[1], a.shape[-1]),
    )
    return regularize(a, class_weights, kernel, self.affection_rate)
