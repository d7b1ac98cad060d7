"""Grad-CAM against finite differences, closed forms, and other gradients."""

import jax
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.explain import grad_cam as module
from mtnet_jax.explain.class_rows import class_row
from mtnet_jax.explain.grad_cam import grad_cams
from tests.arrays import norm, random_clips, random_variables, relu

LABEL = 2
LAYERS = ('stem', 'stage_1', 'last')


@pytest.fixture(scope='module')
def small():
  """A network of one block, a clip, its variables, and its endpoints."""
  model = models.build('x3d_m', 4).clone(
    blocks=(1,), stem_features=4, stages=((8, 6),), head_features=(8, 16)
  )
  clip = random_clips(3, 16, 16, 3)
  variables = random_variables(model, clip[None])
  # So high that no ReLU closes: the bias then is an offset of the whole stem.
  variables['params']['stem_norm']['bias'] += 20
  _, endpoints = jax.jit(model.apply)(variables, clip[None])
  return model, clip, variables, endpoints


@pytest.fixture(scope='module')
def cams(small):
  model, clip, variables, _ = small
  return grad_cams(model, variables, clip, LABEL, LAYERS)


def expected(activations, gradients):
  """Of the gradient summed over positions; the scale goes in the end."""
  cam = relu(np.asarray(activations[0], float) @ np.asarray(gradients, float))
  span = cam.max() - cam.min()
  return (cam - cam.min()) / (span if span > 0 else 1)


def test_the_last_activations_in_closed_form(small, cams):
  _, _, variables, endpoints = small
  row = class_row(variables['params'], endpoints['features'][0], LABEL)
  np.testing.assert_allclose(
    cams['last'], expected(endpoints['last'], row), atol=1e-4
  )
  assert cams['last'].shape == (3, 4, 4)


def test_a_stage_by_finite_differences(small, cams):
  _, _, variables, endpoints = small
  p, stats = variables['params'], variables['batch_stats']
  a = np.asarray(endpoints['stage_1'], float)

  def logit(a):
    """From the stage on, float64."""
    x = relu(
      norm(
        a @ p['head']['kernel'][0, 0, 0].astype(float),
        p['head_norm'],
        stats['head_norm'],
      )
    )
    hidden = relu(x.mean((1, 2, 3)) @ p['linear']['kernel'])
    return (hidden @ p['classifier']['kernel'])[0, LABEL]

  steps = 1e-5 * np.eye(a.shape[-1])
  gradients = [(logit(a + e) - logit(a - e)) / 2e-5 for e in steps]
  np.testing.assert_allclose(
    cams['stage_1'], expected(endpoints['stage_1'], gradients), atol=1e-3
  )


def test_the_stem_by_the_gradient_of_the_bias_before_it(small, cams):
  model, clip, variables, endpoints = small
  assert np.min(endpoints['stem']) > 0

  @jax.jit
  @jax.grad
  def gradient(params):
    logits, _ = model.apply(variables | {'params': params}, clip[None])
    return logits[0, LABEL]

  found = gradient(variables['params'])['stem_norm']['bias']
  np.testing.assert_allclose(
    cams['stem'], expected(endpoints['stem'], found), atol=1e-3
  )


def test_a_resnet_s_last_stage_is_its_last_layer():
  model = models.build('r3d_18', 4)
  clip = random_clips(2, 32, 32, 3)
  variables = random_variables(model, clip[None])
  _, endpoints = jax.jit(model.apply)(variables, clip[None])
  layers = ('stage_4', 'last')
  found = grad_cams(model, variables, clip, 0, layers)
  row = variables['params']['classifier']['kernel'][:, 0]
  for layer in layers:
    np.testing.assert_allclose(
      found[layer], expected(endpoints['last'], row), atol=1e-4
    )


def test_at_another_resolution(small):
  model, clip, variables, _ = small
  found = grad_cams(
    model, variables, clip, LABEL, ('last',), shape=clip.shape[:3]
  )['last']
  assert found.shape == (3, 16, 16) and found.dtype == np.float32
  assert 0 <= found.min() and found.max() <= 1


def test_one_program_serves_all_classes(small, cams):
  model, clip, variables, _ = small
  before = module._weighted_sums._cache_size()
  grad_cams(model, variables, clip, 0, LAYERS)
  assert module._weighted_sums._cache_size() == before


def test_what_does_not_exist(small):
  model, clip, variables, _ = small
  with pytest.raises(UserError, match="no layer 'stage_9'"):
    grad_cams(model, variables, clip, 0, ('stage_9',))
  with pytest.raises(UserError, match=r'`label` \(=4\).* 4 classes'):
    grad_cams(model, variables, clip, 4)


def test_weights_that_are_not_finite(small):
  model, clip, variables, _ = small
  broken = jax.tree.map(lambda x: x * np.nan, variables)
  with pytest.raises(UserError, match='hold NaN or infinity'):
    grad_cams(model, broken, clip, 0, LAYERS)
