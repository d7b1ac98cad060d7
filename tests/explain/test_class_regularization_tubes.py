"""Tubes of Class Regularisation layers, by hand."""

import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.explain.class_regularization_tubes import (
  amplified_kernels,
  class_regularization_tubes,
)

# W 𝒲 of two classes and two channels is [[1, -1], [0, 2]]: negative is cut off.
PARAMS = {
  'classifier': {'kernel': np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)},
  'class_regularization_2': {
    'kernel': np.array([[1.0, -1.0], [0.0, 2.0]], np.float32)
  },
}
# One frame of one row: two channels in three columns.
ENDPOINTS = {
  'early_predictions': {'stage_2': np.array([1], np.int32)},
  'stage_2': np.array([[[[[0, 4], [3, 0], [6, 2]]]]], np.float32),
}


def test_each_layer_speaks_for_its_own_class():
  tubes = class_regularization_tubes(PARAMS, ENDPOINTS)
  assert list(tubes) == ['stage_2'] and tubes['stage_2'][0] == 1
  # Only the second channel counts: 1, 0, 1/2, squared.
  np.testing.assert_allclose(tubes['stage_2'][1].ravel(), [1, 0, 0.25])


def test_another_class_at_another_resolution():
  tubes = class_regularization_tubes(PARAMS, ENDPOINTS, label=0)
  np.testing.assert_allclose(tubes['stage_2'][1].ravel(), [0, 0.25, 1])
  tubes = class_regularization_tubes(PARAMS, ENDPOINTS, 0, (2, 2, 6))
  assert tubes['stage_2'][1].shape == (2, 2, 6)


def test_a_class_that_does_not_exist():
  with pytest.raises(UserError, match='one of the 2 classes'):
    class_regularization_tubes(PARAMS, ENDPOINTS, label=2)


def test_a_network_without_class_regularization():
  with pytest.raises(UserError, match='has no Class Regularisation'):
    class_regularization_tubes(PARAMS, {'early_predictions': {}})


def test_the_kernels_that_a_layer_amplifies_most():
  chosen, kernels = amplified_kernels(PARAMS, ENDPOINTS)['stage_2']
  # The map of class 1 is 0, 2; each channel is brought to [0, 1], squared.
  assert chosen == 1 and [channel for channel, _ in kernels] == [1, 0]
  np.testing.assert_allclose(kernels[0][1].ravel(), [1, 0, 0.25])
  np.testing.assert_allclose(kernels[1][1].ravel(), [0, 0.25, 1])
  (_, first), *others = amplified_kernels(
    PARAMS, ENDPOINTS, (2, 2, 6), count=1
  )['stage_2'][1]
  assert first.shape == (2, 2, 6) and not others
  with pytest.raises(UserError, match='has no Class Regularisation'):
    amplified_kernels(PARAMS, {'early_predictions': {}})
