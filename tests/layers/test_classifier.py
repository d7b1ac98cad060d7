"""The classifier is a linear layer whose kernel can be read."""

import jax
import numpy as np
from flax import linen as nn

from mtnet_jax.layers.classifier import Classifier
from tests.arrays import random_clips


class _Network(nn.Module):
  linear: bool

  @nn.compact
  def __call__(self, x):
    if self.linear:
      return nn.Dense(5, name='classifier')(x), None
    classifier = Classifier(x.shape[1], 5, name='classifier')
    before = classifier.kernel
    return classifier(x), before


def test_it_is_a_linear_layer_whose_kernel_can_be_read_before_it_is_applied():
  x = random_clips(3, 4)
  (expected, _), linear = _Network(True).init_with_output(jax.random.key(2), x)
  (got, kernel), own = _Network(False).init_with_output(jax.random.key(2), x)
  jax.tree.map(np.testing.assert_array_equal, own, linear)
  np.testing.assert_array_equal(
    kernel, linear['params']['classifier']['kernel']
  )
  np.testing.assert_array_equal(got, expected)
  assert got.std() > 0.1
