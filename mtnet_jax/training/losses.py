"""Training losses: pure functions of logits and labels."""

import jax
import jax.numpy as jnp
import optax

from mtnet_jax.ops import precision
from mtnet_jax.typing import Array, Float, Int


def cross_entropy(
  logits: Float[Array, 'n k'], labels: Int[Array, ' n']
) -> Float[Array, ' n']:
  """Returns the negative log-likelihood of each clip's label, in nats.

  Args:
    logits: unnormalized scores over k classes, any real number.
    labels: 0 to k - 1.

  Returns:
    One float32 value a clip, at least 0.
  """
  log_probabilities = jax.nn.log_softmax(precision.widen(logits))
  return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]


def soft_cross_entropy(
  logits: Float[Array, 'n k'], targets: Float[Array, 'n k']
) -> Float[Array, ' n']:
  """Returns the cross-entropy to a distribution over the classes, in nats.

  Args:
    logits: unnormalized scores over k classes, any real number.
    targets: the probability that each class should have; a clip's sum to 1.

  Returns:
    One float32 value a clip, at least 0.
  """
  return optax.softmax_cross_entropy(precision.widen(logits), targets)


def make_targets(
  labels: Int[Array, ' n'],
  others: Int[Array, ' n'],
  share: Float[Array, ' n'],
  num_classes: int,
  smoothing: float,
) -> Float[Array, 'n k']:
  """Returns the distributions that clips of two classes each should be given.

  Args:
    labels: 0 to k - 1.
    others: the labels of the clips that are mixed in.
    share: the share of each clip that is of its own label, in [0, 1].
    num_classes: the number of classes k.
    smoothing: the share of each distribution that is spread evenly over all
      classes, in [0, 1).

  Returns:
    float32; rows sum to 1.
  """
  share = share[:, None]
  own, other = (jax.nn.one_hot(of, num_classes) for of in (labels, others))
  return optax.smooth_labels(share * own + (1 - share) * other, smoothing)
