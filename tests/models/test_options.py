"""Options that reach from a network into its blocks, all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.ops import forms
from tests.arrays import random_clips

pytestmark = pytest.mark.usefixtures('quick_compilation')


ALL_OPTIONS = {
  'selection_input': 'motion',
  'keep_times': True,
  'branch_inputs': 'split',
  'separated_groups': 2,
  'gate': True,
  'gate_embedding': 'fused',
  'recurrent_layers': 1,
  'class_regularization': True,
  'regularization_score': 'own',
}


@pytest.mark.parametrize(
  ('fields', 'form'),
  [
    (ALL_OPTIONS, 'auto'),
    # A loop over blocks, whose bodies read the clip's motion and the gates'
    # state from outside.
    *(
      pytest.param(fields, 'tpu', marks=pytest.mark.slow)
      for fields in (
        {**ALL_OPTIONS, 'rematerialize': True},
        {'selection_input': 'random', 'gate': True},
      )
    ),
  ],
)
def test_a_step_with_all_options(fields, form):
  model = models.build('mtnet_xs', 5, dropout=0.0, **fields)
  model = model.copy(
    affection_rates=(0.5,),
    blocks=(4,),
    stages=((12, 8),),
    head_features=(16, 24),
  )
  clips = random_clips(3, 6, 16, 16, 3)
  variables = jax.jit(model.init)(jax.random.key(0), clips)

  @jax.jit
  def gradient(params, decide):
    def loss(params):
      (logits, endpoints), _ = model.apply(
        {**variables, 'params': params},
        clips,
        train=True,
        mutable=['batch_stats'],
        rngs={'pooling': jax.random.key(1)},
        gates_decide=decide,
      )
      early = jax.tree.map(lambda a: jnp.sum(a**2), endpoints['early_scores'])
      total = jnp.sum(logits**2) + sum(early.values())
      return total, endpoints['gate_open']

    with forms.use(form):
      return jax.grad(loss, has_aux=True)(params)

  gradients, shares = gradient(variables['params'], False)
  for path, leaf in jax.tree.leaves_with_path(gradients):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
  assert len(shares) == 4
  # With the gates' decisions, closed ones give the recurrence no gradient.
  decided, same = gradient(variables['params'], True)
  np.testing.assert_array_equal(
    same['stage_1_block_1'], shares['stage_1_block_1']
  )
  closed = [name for name, share in same.items() if share == 0]
  for name in closed:
    leaves = jax.tree.leaves(decided[name]['recursion'])
    assert not any(np.any(leaf) for leaf in leaves), name
  assert closed
