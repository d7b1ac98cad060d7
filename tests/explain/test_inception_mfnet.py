"""Explanations of I3D and MF-Net, against steps written out."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from mtnet_jax import models
from mtnet_jax.explain import class_feature_pyramids as pyramids
from mtnet_jax.explain.class_rows import class_row
from mtnet_jax.explain.grad_cam import grad_cams
from mtnet_jax.explain.saliency_tubes import saliency_tube
from tests.arrays import random_clips, random_variables

# They compile for long.
pytestmark = [
  pytest.mark.slow,
  pytest.mark.usefixtures('quick_compilation'),
]

NAMES = ('i3d_inception', 'mfnet')
CLIP = random_clips(1, 16, 48, 48, 3, seed=4)
LABEL, THRESHOLD = 2, 0.65


@functools.cache
def network(name):
  model = models.build(name, 4)
  if name == 'mfnet':
    model = model.copy(blocks=(1, 1, 1, 3))
  return model, random_variables(model, CLIP)


@functools.cache
def means_and_endpoints(name):
  """Means of what every module reads, over space and time."""
  model, variables = network(name)

  def apply(variables):
    means = {}

    def note(run, args, kwargs, context):
      path = '/'.join(context.module.path)
      if context.method_name == '__call__' and args and args[0].ndim == 5:
        means[path] = args[0][0].mean((0, 1, 2))
      return run(*args, **kwargs)

    with nn.intercept_methods(note):
      logits, endpoints = model.apply(variables, CLIP)
    return means, logits, endpoints

  return jax.device_get(jax.jit(apply)(variables))


def minmax(values):
  return (values - values.min()) / (values.max() - values.min())


def above(scores):
  return np.flatnonzero(scores > np.log(THRESHOLD / (1 - THRESHOLD)))


def start(name):
  _, _, endpoints = means_and_endpoints(name)
  kernel = np.float64(network(name)[1]['params']['classifier']['kernel'])
  return minmax(kernel[:, LABEL] * np.float64(endpoints['features'][0]))


def build(name, layers):
  model, variables = network(name)
  observation = pyramids.observe(model, variables, CLIP, layers)
  pyramid = pyramids.build(
    observation, variables['params'], LABEL, 'layer', THRESHOLD
  )
  return pyramid, pyramids.level_tubes(pyramid, observation)


def mean_kernel(params, unit):
  return np.float64(params[unit]['conv']['kernel']).mean((0, 1, 2))


def test_i3d_s_last_block_against_a_step_written_out():
  pyramid, tubes = build('i3d_inception', 3)
  block = 'stage_4_block_2'
  means, _, _ = means_and_endpoints('i3d_inception')
  params = network('i3d_inception')[1]['params'][block]
  head = start('i3d_inception')
  kept, total, first = above(head), 0, 0
  for name, width in (
    ('branch_1', 384),
    ('branch_2', 384),
    ('branch_3', 128),
    ('branch_4', 128),
  ):
    own = kept[(kept >= first) & (kept < first + width)] - first
    first += width
    assert len(own)
    kernel = mean_kernel(params, name)[:, own].mean(1)
    scores = minmax(kernel * means[f'{block}/{name}'])
    if name in ('branch_2', 'branch_3'):
      between = above(scores)
      kernel = mean_kernel(params, f'{name}_reduce')[:, between].mean(1)
      scores = minmax(kernel * means[f'{block}/{name}_reduce'])
    total = total + len(own) * scores
  for level, scores in zip(pyramid.levels, (head, minmax(total)), strict=False):
    expected = {j: scores[j] for j in above(scores)}
    assert level.importance == pytest.approx(expected, abs=1e-4)
    assert 0 < len(expected) < level.num_channels == len(scores)
  assert [level.layer for level in pyramid.levels] == [
    *(block, 'stage_4_block_1', 'stage_3_block_5', 'stage_3_block_4')
  ]
  # The pool before a stage is no part of the layer below it.
  assert [tube.shape for tube in tubes] == [(2, 2, 2)] * 2 + [(4, 3, 3)] * 2


def test_mfnet_s_last_block_against_steps_written_out():
  pyramid, _ = build('mfnet', 4)
  block = 'stage_4_block_3'
  means, _, _ = means_and_endpoints('mfnet')
  params = network('mfnet')[1]['params'][block]
  head = start('mfnet')

  def back(scores, unit, groups=1):
    kernel, kept = mean_kernel(params, unit), above(scores)
    inputs = means[f'{block}/{unit}/conv']
    rows, columns = len(kernel), kernel.shape[1] // groups
    products = np.full(len(inputs), np.nan)
    for c in range(len(inputs)):
      # Input c is row c % rows of the kernels of its group.
      own = kept[kept // columns == c // rows]
      if len(own):
        products[c] = kernel[c % rows, own].sum() / len(kept) * inputs[c]
    low, high = np.nanmin(products), np.nanmax(products)
    return np.nan_to_num((products - low) / (high - low), nan=-np.inf)

  conv_2 = back(head, 'conv_2', 16)
  conv_1 = back(conv_2, 'conv_1', 16)
  multiplex_2 = back(conv_1, 'multiplex_2')
  below = back(multiplex_2, 'multiplex_1')
  # Both residual connections hand on what they keep as it is.
  for scores in (conv_1, head):
    carried = np.isin(np.arange(768), above(scores))
    assert carried.any()
    below = np.where(carried, np.maximum(below, scores), below)
  expected = (head, conv_2, conv_1, multiplex_2, below)
  names = ('conv_2', 'conv_1', 'multiplex_2', 'multiplex_1')
  assert [level.layer for level in pyramid.levels] == [
    *(f'{block}/{name}/conv' for name in names),
    'stage_4_block_2/conv_2/conv',
  ]
  for level, scores in zip(pyramid.levels, expected, strict=True):
    kept = {j: scores[j] for j in above(scores)}
    assert level.importance == pytest.approx(kept, abs=1e-4)
    assert 0 < len(kept) < level.num_channels == len(scores)
  spans = {edge.span for edge in pyramid.edges if edge.via == 'residual'}
  assert spans == {2, 4}


@pytest.mark.parametrize('name', NAMES)
def test_pyramids_down_to_the_stem(name):
  pyramid, tubes = build(name, 'stem')
  assert pyramid.levels[-1].layer == 'stem'
  count = {'i3d_inception': 1 + 2 + 9, 'mfnet': 1 + 4 * 6}[name]
  assert len(pyramid.levels) == len(tubes) == count
  assert all(level.importance for level in pyramid.levels)
  assert all(0 <= tube.min() and tube.max() <= 1 for tube in tubes)


@pytest.mark.parametrize('name', NAMES)
def test_saliency_tubes_add_up_to_the_logit(name):
  """Of MF-Net: I3D's mean weighs frames."""
  params = network(name)[1]['params']
  _, logits, endpoints = means_and_endpoints(name)
  for label in range(4):
    row = class_row(params, np.asarray(endpoints['features'][0]), label)
    bias = params['classifier']['bias'][label]
    logit = np.float64(endpoints['features'][0]) @ np.float64(row) + bias
    np.testing.assert_allclose(logit, logits[0, label], rtol=1e-3, atol=1e-5)
    if name == 'mfnet':
      tube = np.float64(endpoints['last'][0]) @ np.float64(row)
      np.testing.assert_allclose(tube.mean() + bias, logit, rtol=1e-3)
  tube = saliency_tube(endpoints['last'][0], row)
  assert tube.shape == endpoints['last'].shape[1:4] and tube.max() == 1


@pytest.mark.parametrize('name', NAMES)
def test_grad_cam(name):
  model, variables = network(name)
  maps = grad_cams(model, variables, CLIP[0], LABEL)
  _, _, endpoints = means_and_endpoints(name)
  for layer, cam in maps.items():
    assert cam.shape == endpoints[layer].shape[1:4], layer
  # Where nothing speaks for the class a picture is empty.
  assert sum(cam.max() > 0 for cam in maps.values()) >= 4
  np.testing.assert_array_equal(maps['stage_4'], maps['last'])
  row = class_row(
    variables['params'], np.asarray(endpoints['features'][0]), LABEL
  )
  expected = np.maximum(np.float64(endpoints['last'][0]) @ np.float64(row), 0)
  np.testing.assert_allclose(maps['last'], minmax(expected), atol=1e-4)
