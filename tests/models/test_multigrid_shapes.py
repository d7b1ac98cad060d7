"""Every kind of network takes every shape of its recipe's multigrid."""

import jax
import jax.numpy as jnp
import pytest

from mtnet_jax import models
from mtnet_jax.data.multigrid import Multigrid


# With both cycles the shapes of either alone are among them.
@pytest.mark.parametrize(
  ('name', 'frames', 'size'),
  [
    pytest.param('mtnet_xs', 8, 48, marks=pytest.mark.check),
    pytest.param('mtnet_s', 13, 182, marks=pytest.mark.check),
    pytest.param('x3d_l', 16, 256, marks=pytest.mark.slow),
    ('r3d_18', 16, 224),
    pytest.param('srtg_r2plus1d_18', 16, 224, marks=pytest.mark.slow),
  ],
)
def test_networks_take_all_shapes(name, frames, size):
  model = models.build(name, 5, norm_batch_size=2)
  if hasattr(model, 'blocks'):
    model = model.copy(blocks=(1, 1, 1, 1))  # the others are alike
  variables = jax.eval_shape(
    model.init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((2, frames, size, size, 3), jnp.float32),
  )
  keys = dict.fromkeys(('dropout', 'pooling'), jax.random.key(0))
  for shape in Multigrid(2, frames, size, samples_per_epoch=1_000).shapes():
    (logits, _), updated = jax.eval_shape(
      lambda v, x: model.apply(
        v, x, train=True, mutable=['batch_stats'], rngs=keys
      ),
      variables,
      jax.ShapeDtypeStruct((*shape, 3), jnp.float32),
    )
    assert logits.shape == (shape[0], 5)
    assert jax.tree.map(jnp.shape, updated['batch_stats']) == jax.tree.map(
      jnp.shape, variables['batch_stats']
    )
