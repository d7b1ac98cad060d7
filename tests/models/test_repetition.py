"""Blocks that share a function, against each block for itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.layers import norm
from mtnet_jax.models import repetition
from mtnet_jax.ops import forms
from tests import arrays

# Two shared kinds of blocks in a stage, and what does not fill a period.
_SMALL = {
  'x3d_s': {
    'blocks': (1, 4),
    'stages': ((16, 8), (24, 12)),
    'stem_features': 8,
    'head_features': (16, 24),
  },
  'mtnet_xs': {
    'blocks': (3,),
    'stages': ((16, 8),),
    'stem_features': 8,
    'head_features': (16, 24),
  },
  'srtg_r3d_34': {'stage_features': (4, 6, 8, 8), 'gate': False},
}


def _differentiate(model, variables, clips):
  """Logits, gradients of a loss, new statistics, moments and gate shares."""

  def loss(params):
    (logits, endpoints), updated = model.apply(
      variables | {'params': params},
      clips,
      train=True,
      mutable=['batch_stats', norm.MOMENTS],
      rngs={'dropout': jax.random.key(0)},
    )
    return jnp.sum(jnp.sin(logits)), (logits, endpoints['gate_open'], updated)

  return jax.jit(jax.grad(loss, has_aux=True))(variables['params'])


@pytest.mark.parametrize(
  'rematerialize', [False, pytest.param(True, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
  'name',
  [
    pytest.param('x3d_s', marks=pytest.mark.slow),
    pytest.param('mtnet_xs', marks=pytest.mark.slow),
    pytest.param('srtg_r3d_34', marks=pytest.mark.slow),
  ],
)
def test_shared_blocks_compute_what_each_block_computes(
  name, rematerialize, monkeypatch
):
  model = models.build(name, 5, dropout=0.0).copy(**_SMALL[name])
  clips = arrays.random_clips(2, 4, 32, 32, 3)
  variables = arrays.random_variables(model, clips)
  found = _differentiate(
    model.copy(rematerialize=rematerialize), variables, clips
  )
  alone = functools.partial(_alone, repetition.run)
  monkeypatch.setattr(repetition, 'run', alone)
  expected = _differentiate(model, variables, clips)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for path, ref in jax.tree.leaves_with_path(expected):
    got = _leaf(found, path)
    scale = max(1.0, float(np.abs(ref).max()))
    np.testing.assert_allclose(
      got, ref, rtol=0, atol=1e-4 * scale, err_msg=jax.tree_util.keystr(path)
    )
  for path, gradient in jax.tree.leaves_with_path(expected[0]):
    # Of a single frame, recurrent kernels meet a zero state alone.
    where = jax.tree_util.keystr(path)
    assert np.abs(gradient).max() > 0 or 'kernel_h' in where, where


@pytest.mark.slow
@pytest.mark.parametrize('rematerialize', [False, True])
def test_on_a_tpu_blocks_are_a_loop_of_columns_side_by_side(rematerialize):
  """Of five blocks that are alike by twos: two rounds and one block more."""
  small = _SMALL['x3d_s'] | {'blocks': (1, 6)}
  model = models.build('x3d_s', 5, dropout=0.0).copy(**small)
  clips = arrays.random_clips(2, 2, 16, 16, 3)
  variables = arrays.random_variables(model, clips)
  expected = _differentiate(model, variables, clips)
  model = model.copy(rematerialize=rematerialize)
  with forms.use('tpu'):
    traced = jax.make_jaxpr(lambda v: _differentiate(model, v, clips))
    assert ' scan[' in str(traced(variables))
    found = _differentiate(model, variables, clips)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for path, ref in jax.tree.leaves_with_path(expected):
    got = _leaf(found, path)
    scale = max(1.0, float(np.abs(ref).max()))
    where = jax.tree_util.keystr(path)
    np.testing.assert_allclose(got, ref, 0, 1e-4 * scale, err_msg=where)


def _leaf(tree, path):
  for key in path:
    tree = tree[getattr(key, 'idx', getattr(key, 'key', None))]
  return tree


def _alone(run, blocks, x, shared, rematerialize, **kw):
  del shared
  return run(blocks, x, False, rematerialize, **kw)
