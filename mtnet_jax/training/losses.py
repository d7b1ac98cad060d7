"""Training losses: pure functions of logits and labels."""

import jax
import jax.numpy as jnp

from mtnet_jax.ops import precision
from mtnet_jax.typing import Array, Float, Int


def cross_entropy(
  logits: Float[Array, 'n k'], labels: Int[Array, ' n']
) -> Float[Array, ' n']:
  """The negative log-likelihood of each clip's label, in nats.

  Args:
    logits: unnormalised scores over k classes, any real number.
    labels: 0 to k - 1.

  Returns:
    One float32 value a clip, at least 0.
  """
  log_probabilities = jax.nn.log_softmax(precision.widen(logits))
  return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
