"""Networks are linen modules, and stand in NNX programs."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.bridge import variables as bridge

from mtnet_jax import models


def test_a_wrapped_network_gives_the_same_logits():
  rng = np.random.default_rng(0)
  network = models.build('mtnet_xs', 5, local_ratio=1.0, recurrence=False)
  clips = jnp.asarray(rng.normal(size=(2, 4, 16, 16, 3)), jnp.float32)
  shapes = jax.eval_shape(network.init, jax.random.key(0), clips)
  variables = jax.tree.map(
    lambda leaf: jnp.asarray(rng.uniform(0.1, 1, leaf.shape), leaf.dtype),
    shapes,
  )
  wanted, _ = jax.jit(network.apply)(variables, clips)

  wrapped = nnx.bridge.ToNNX(network)
  for name, value in bridge.linen_vars_to_nnx_attrs(variables).items():
    setattr(wrapped, name, nnx.data(value))
  logits, _ = nnx.jit(lambda model, clips: model(clips))(wrapped, clips)
  assert np.ptp(wanted) > 0
  np.testing.assert_allclose(logits, wanted, rtol=1e-5)
