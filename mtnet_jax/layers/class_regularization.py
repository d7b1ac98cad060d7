"""Class Regularisation: the thesis's section 6.3, Algorithm 1.

In each stage of a network the classifier's weights, mapped to the stage's
channels, tell which class a clip looks most like so far. The channels that
speak for that class are kept, and the others are scaled down.
"""

import math
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
  # By default GPUs and TPUs round the factors of a float32 product to fewer
  # digits, and the best of two near classes changes.
  return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


# How a clip is scored for a class, see `class_scores`.
SCORES = ('sum', 'own')


def class_scores(
  pooled: Float[Array, 'n c'], maps: Float[Array, 'k c'], score: str = 'sum'
) -> Float[Array, 'n k']:
  """Returns how much each clip looks like each class.

  Args:
    pooled: mean activations of each clip.
    maps: class maps from `class_maps`.
    score: `'sum'`, over channels of the map times the activation, as Algorithm
      1 has it: a class whose map is large wins for most clips. Or `'own'`: both
      are first brought to mean 0 and deviation 1 over channels, and the sum is
      divided by √c: a classification of the stage's own.
  """
  if score == 'own':
    pooled, maps = _standardize(pooled), _standardize(maps)
    return _product(pooled, maps.T) / math.sqrt(maps.shape[1])
  assert score == 'sum', score
  return _product(pooled, maps.T)


def _standardize(x):
  x = x - jnp.mean(x, axis=1, keepdims=True)
  square = jnp.mean(jnp.square(x), axis=1, keepdims=True)
  # Of a constant row, no root is taken: its gradient would not be finite.
  constant = square == 0
  return jnp.where(constant, 0, x / jnp.sqrt(jnp.where(constant, 1, square)))


def regularize(
  a: Float[Array, 'n t h w c'],
  class_weights: Float[Array, 'k d'],
  projection: Float[Array, 'd c'],
  affection_rate: float,
  score: str = 'sum',
) -> tuple[Float[Array, 'n t h w c'], Int[Array, ' n'], Float[Array, 'n k']]:
  """Scales each clip's channels by what they say of its most likely class.

  Algorithm 1. The class with the highest score wins, the lowest index among
  equals. Its map, brought to [λ, 1] by its least and greatest value, scales the
  channels. A map that is constant scales by one. (The printed equation lacks a
  "+" after the λ: in the text, λ = 1 has no effect, and smaller values have
  more.)

  Args:
    a: activations, any float dtype.
    class_weights: weights of the classifier, a row a class; they get no
      gradient, as 6.3.2 decouples them.
    projection: matrix from the classifier's channels to those of `a`; it gets a
      gradient through the scale, not through the choice of the class.
    affection_rate: λ in [0, 1].
    score: one of `SCORES`, see `class_scores`.

  Returns:
    `a` scaled, in its dtype; the int32 classes; all classes' scores, float32 as
    all in between.
  """
  maps = class_maps(jax.lax.stop_gradient(class_weights), projection)
  pooled = jnp.mean(precision.widen(a), axis=(1, 2, 3))  # n c
  scores = class_scores(pooled, maps, score)
  chosen = jnp.argmax(scores, axis=1).astype(jnp.int32)
  own = maps[chosen]  # n c
  least = own.min(axis=1, keepdims=True)
  span = own.max(axis=1, keepdims=True) - least
  constant = span == 0
  # Divided by 1 instead of 0: a NaN would spoil the gradient even unused.
  share = (own - least) / jnp.where(constant, 1, span)
  scale = jnp.where(constant, 1, affection_rate + (1 - affection_rate) * share)
  return (a * scale[:, None, None, None, :]).astype(a.dtype), chosen, scores


def check_affection_rates(rates: Sequence[float], num_stages: int) -> None:
  """Raises a UserError unless there is one rate in [0, 1] for each stage."""
  numbers = all(isinstance(rate, int | float) for rate in rates)
  valid = numbers and all(0 <= rate <= 1 for rate in rates)
  if len(rates) != num_stages or not valid:
    raise UserError(
      f'`affection_rates` (={tuple(rates)}) must be {num_stages} numbers in '
      '[0, 1], one for each stage: 1 leaves its activations as they are, 0 '
      'changes them most; for instance (0.9, 0.8, 0.7, 0.6).'
    )


class ClassRegularization(nn.Module):
  """`regularize` with a projection that is learned.

  Parameter `kernel`, 𝒲, `(d, c)`: Kaiming initialized.

  Attributes:
    affection_rate: λ in [0, 1].
    score: one of `SCORES`.
  """

  affection_rate: float
  score: str = 'sum'

  @nn.compact
  def __call__(
    self, a: Float[Array, 'n t h w c'], class_weights: Float[Array, 'k d']
  ) -> tuple[Float[Array, 'n t h w c'], Int[Array, ' n'], Float[Array, 'n k']]:
    """Returns what `regularize` returns."""
    kernel = parameter(
      self,
      'kernel',
      nn.initializers.he_normal(),
      (class_weights.shape[1], a.shape[-1]),
    )
    return regularize(a, class_weights, kernel, self.affection_rate, self.score)
