"""Class rows by hand, and the logits of whole networks from them."""

import jax
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.explain.class_rows import class_row
from tests.arrays import random_clips, random_variables

SMALL = {'blocks': (1,), 'stages': ((8, 6),), 'head_features': (8, 16)}


def small(name, **fields):
  """A network of one stage, whose head is that of its family."""
  model = models.build(name, 5)
  if hasattr(model, 'blocks'):
    model = model.clone(**SMALL, **fields)
  return model


def test_a_row_of_one_layer():
  params = {'classifier': {'kernel': np.array([[1.0, 3.0], [5.0, 7.0]])}}
  np.testing.assert_array_equal(class_row(params, np.ones(2), 1), [3, 7])


def test_a_row_folded_by_hand():
  params = {
    'linear': {'kernel': np.array([[1.0, -1.0], [2.0, 1.0]])},
    'classifier': {'kernel': np.array([[1.0, 3.0], [5.0, 7.0]])},
  }
  # Hidden units 5 and -2: only the first passes anything on.
  row = class_row(params, np.array([3.0, 1.0]), 1)
  np.testing.assert_array_equal(row, [1 * 3, 2 * 3])
  # 3 and 0: a unit at its threshold passes nothing on either.
  row = class_row(params, np.array([1.0, 1.0]), 0)
  np.testing.assert_array_equal(row, [1 * 1, 2 * 1])


@pytest.mark.parametrize(
  'model',
  [
    small('mtnet_m'),
    pytest.param(
      small('mtnet_m', class_regularization=True, affection_rates=(0.5,)),
      marks=pytest.mark.slow,
    ),
    small('x3d_m'),
    small('r3d_18'),
    pytest.param(small('srtg_r2plus1d_18'), marks=pytest.mark.slow),
  ],
  ids=['mtnet', 'regularized', 'x3d', 'r3d', 'srtg'],
)
def test_the_row_gives_the_logit(model):
  clips = random_clips(1, 2, 32, 32, 3)
  variables = random_variables(model, clips)
  logits, endpoints = jax.jit(model.apply)(variables, clips)
  params, features = variables['params'], endpoints['features'][0]
  means = np.mean(endpoints['last'][0], axis=(0, 1, 2))
  np.testing.assert_allclose(features, means, rtol=1e-4, atol=1e-5)
  for label in range(5):
    row = class_row(params, features, label)
    logit = row @ means + params['classifier']['bias'][label]
    np.testing.assert_allclose(logit, logits[0, label], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('label', [-1, 2])
def test_a_class_that_does_not_exist(label):
  params = {'classifier': {'kernel': np.ones((3, 2))}}
  with pytest.raises(UserError, match='one of the 2 classes'):
    class_row(params, np.ones(3), label)
