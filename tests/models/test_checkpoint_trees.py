"""Names and shapes of what a checkpoint holds, as files of users have them.

A list that no longer fits is not to be written anew: checkpoints that were made
before would not load.
"""

import pathlib

import jax
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.runs.leaves import leaf_paths

_TREES = pathlib.Path(__file__).parent / 'checkpoint_trees'


@pytest.mark.parametrize('overrides', [{}, {'rematerialize': True}])
@pytest.mark.parametrize('name', ['mtnet_xs', 'srtg_r3d_18'])
def test_checkpoints_made_before_fit(name, overrides):
  model = models.build(name, 15, **overrides)
  variables = jax.eval_shape(
    model.init, jax.random.key(0), np.zeros((1, 2, 32, 32, 3), np.float32)
  )
  leaves = leaf_paths(variables)
  # A line a leaf: its path and its shape, `params/head/kernel 1 1 1 64 96`.
  lines = [' '.join([p, *map(str, leaf.shape)]) for p, leaf in leaves.items()]
  expected = (_TREES / f'{name}.txt').read_text().splitlines()
  assert sorted(lines) == expected
  assert {leaf.dtype for leaf in leaves.values()} == {np.dtype('float32')}
