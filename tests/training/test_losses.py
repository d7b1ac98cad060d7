"""The loss against its definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.training import losses


def test_cross_entropy_is_the_negative_log_share():
  logits = jnp.log(jnp.array([[1.0, 3.0, 4.0], [5.0, 5.0, 10.0]]))
  loss = losses.cross_entropy(logits, jnp.array([1, 2]))
  np.testing.assert_allclose(loss, [-np.log(3 / 8), -np.log(1 / 2)], rtol=1e-6)


def test_cross_entropy_survives_large_logits_and_bfloat16():
  logits = jnp.array([[1e4, -1e4]], jnp.bfloat16)
  loss = losses.cross_entropy(logits, jnp.array([0]))
  assert loss.dtype == jnp.float32
  np.testing.assert_array_equal(loss, [0.0])


def test_gradient_is_probability_minus_target():
  logits = np.array([[0.2, -1.0, 3.0]], np.float64)
  gradient = jax.grad(lambda x: losses.cross_entropy(x, jnp.array([1])).sum())(
    jnp.asarray(logits, jnp.float32)
  )
  expected = np.exp(logits) / np.exp(logits).sum() - np.array([[0, 1, 0]])
  np.testing.assert_allclose(gradient, expected, atol=1e-6)
