"""Parameters: made once, then taken as they are."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mtnet_jax.layers.parameters import parameter


class Scale(nn.Module):
  """Multiplies by a parameter, and tells when that is made."""

  size: int = 3
  tell: Callable[[], None] = lambda: None

  @nn.compact
  def __call__(self, x):
    def initial(key, shape, dtype):
      self.tell()
      return jnp.full(shape, 2, dtype)

    return x * parameter(self, 'scale', initial, (self.size,))


def test_a_parameter_is_made_at_initialization_alone():
  made = []
  scale = Scale(tell=lambda: made.append(1))
  variables = scale.init(jax.random.key(0), jnp.ones(3))
  np.testing.assert_array_equal(variables['params']['scale'], [2, 2, 2])
  assert made == [1]
  y = jax.jit(scale.apply)(variables, jnp.arange(3.0))
  np.testing.assert_array_equal(y, [0, 2, 4])
  assert made == [1]


def test_another_shape_is_named():
  class Network(nn.Module):
    size: int

    def setup(self):
      self.stem = Scale(self.size)

    def __call__(self, x):
      return self.stem(x)

  variables = Network(3).init(jax.random.key(0), jnp.ones(3))
  with pytest.raises(ValueError, match=r'stem/scale.*\(4,\).*\(3,\)'):
    Network(4).apply(variables, jnp.ones(4))
