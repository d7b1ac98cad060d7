"""Measures how often a classifier is right; functions of scores and labels."""

import numpy as np

from mtnet_jax.typing import Array, Bool, Float, Int


def top_k_correct(
  scores: Float[Array, 'n k'], labels: Int[Array, ' n'], k: int
) -> Bool[Array, ' n']:
  """Returns whether the label is among the k best scores.

  A label counts its rank as one plus the number of classes that score higher
  *or equal*, itself apart: equal scores (all zero, all NaN) never count as
  right, so that a dead network cannot look good.

  Args:
    scores: numpy or jax, probabilities or logits.
    labels: 0 to (number of classes) - 1.
    k: 1 for top-1, 5 for top-5.

  Returns:
    One boolean a row. With k at least the number of classes: all true unless a
    score is not finite.
  """
  own = scores[np.arange(len(labels)), labels][:, None]
  # `not (own > other)` counts NaN as a better rival.
  rivals = (~(own > scores)).sum(axis=1) - 1
  return rivals < k


def confusion_matrix(
  predicted: Int[np.ndarray, ' n'], labels: Int[np.ndarray, ' n'], classes: int
) -> Int[np.ndarray, 'k k']:
  """Counts videos by true class (rows) and predicted class (columns)."""
  matrix = np.zeros((classes, classes), np.int64)
  np.add.at(matrix, (labels, predicted), 1)
  return matrix
