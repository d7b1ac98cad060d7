"""Accuracies by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import metrics

_SCORES = np.array(
  [
    [0.1, 0.7, 0.2],  # ranks: 3 1 2
    [0.5, 0.3, 0.2],  # ranks: 1 2 3
    [0.2, 0.2, 0.6],  # a tie for rank 2
  ]
)


@pytest.mark.parametrize('array', [np.array, jnp.array])
def test_top_k_counts_ranks(array):
  scores = array(_SCORES)
  labels = array([2, 2, 2])
  assert metrics.top_k_correct(scores, labels, 1).tolist() == [0, 0, 1]
  assert metrics.top_k_correct(scores, labels, 2).tolist() == [1, 0, 1]
  assert metrics.top_k_correct(scores, labels, 3).tolist() == [1, 1, 1]


def test_equal_scores_and_nan_are_never_right():
  labels = np.array([0])
  assert not metrics.top_k_correct(np.zeros((1, 4)), labels, 1)[0]
  assert not metrics.top_k_correct(np.full((1, 4), np.nan), labels, 3)[0]
  # A tie for the second rank counts as the third.
  assert metrics.top_k_correct(_SCORES[2:], labels, 3)[0]
  assert not metrics.top_k_correct(_SCORES[2:], labels, 2)[0]


def test_confusion_rows_are_true_classes():
  matrix = metrics.confusion_matrix(
    np.array([0, 1, 1, 2]), np.array([0, 0, 1, 0]), 3
  )
  assert matrix.tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
