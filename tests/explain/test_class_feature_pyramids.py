import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.explain import class_feature_pyramids as pyramids
from mtnet_jax.explain.back_step import WHOLE_SET, Edge, step_back
from mtnet_jax.explain.network_layers import (
  Convolution,
  Layer,
  Step,
  inflate,
)
from tests.arrays import random_clips, random_variables


def dense(weights, inputs):
  weights = np.array(weights, float)
  return Convolution(inflate(weights, len(weights)), np.array(inputs))


def dense_step(weights, inputs, block=0, shortcut=()):
  """A layer of dense kernels, weights by input and output."""
  weights = np.array(weights, float)
  path = ('shortcut',) * len(shortcut)
  kernels = {'local': inflate(weights, len(weights))}
  layer, outputs = Layer('layer', block, path), np.zeros(weights.shape[1])
  return Step(layer, kernels, np.array(inputs), outputs, shortcut)


# Channel 0 reads channel 1, channel 1 reads channel 2 and half of channel 0.
TANGLED = [[0, 0.5], [1, 0], [0, 1]]


def test_layers_together():
  steps = [dense_step(TANGLED, [1, 1, 1]), dense_step(np.eye(3), [4, 2, 0])]
  kept, edges = step_back({0: 1.0, 1: 0.8}, steps, 'layer', 0.6)
  # Mean kernels 0.25, 0.5, 0.5, so that 1 and 2 stay; those of the second step
  # are 0, 0.5, 0.5, times the means 0, 1, 0.
  assert kept == [{0: 1, 1: 0.8}, {1: 1, 2: 1}, {1: 1}]
  assert edges == [Edge(0, -1, 1, 1), Edge(0, -1, 2, 1), Edge(1, -1, 1, 1)]


def test_features_apart():
  steps = [dense_step(TANGLED, [1, 1, 1]), dense_step(np.eye(3), [4, 2, 0])]
  kept, edges = step_back({0: 1.0, 1: 0.8}, steps, 'feature', 0.6)
  # The third kernel of the second step gives nothing but zeros: all equal.
  assert kept == [{0: 1, 1: 0.8}, {1: 1, 2: 1, 0: 0.5}, {0: 1, 1: 1}]
  assert edges == [
    Edge(0, 0, 1, 1),
    Edge(0, 1, 2, 1),
    Edge(0, 1, 0, 0.5),
    Edge(1, 1, 1, 1),
    Edge(1, 0, 0, 1),
  ]


def test_a_channel_of_several_features_is_one_node_with_the_larger_value():
  # Kernel 0 has channel 0 at 1 and 1 at 0.5; kernel 1 has channel 1 at 1.
  steps = [dense_step([[2, 0], [1, 3], [0, 0]], [1, 1, 1])]
  kept, edges = step_back({0: 1.0, 1: 1.0}, steps, 'feature', 0.6)
  assert kept[1] == {0: 1, 1: 1}
  assert edges == [Edge(0, 0, 0, 1), Edge(0, 0, 1, 0.5), Edge(0, 1, 1, 1)]


def test_an_identity_hands_channels_to_the_input_of_its_block():
  # Two layers: the first reversed, so that both branches do not agree.
  steps = [
    dense_step(np.eye(3)[::-1], [1, 1, 1], block=2),
    dense_step(np.eye(3), [1, 1, 1]),
  ]
  kept, edges = step_back({0: 1.0, 2: 0.9}, steps, 'feature', 0.6)
  assert kept == [{0: 1, 2: 0.9}, {0: 1, 2: 1}, {0: 1, 2: 1}]
  assert edges[2:4] == [
    Edge(0, 0, 0, 1, 'residual', 2),
    Edge(0, 2, 2, 0.9, 'residual', 2),
  ]
  # Where the convolutions find other channels both are there.
  steps[1] = dense_step(np.eye(3)[[1, 0, 2]], [1, 1, 1])
  kept, _ = step_back({0: 0.9}, steps[:2], 'layer', 0.6)
  assert kept == [{0: 0.9}, {2: 1}, {2: 1, 0: 0.9}]


def test_a_block_that_begins_below_the_last_level_hands_nothing_on():
  steps = [dense_step(np.eye(2), [1, 1], block=2)]
  kept, edges = step_back({0: 1.0}, steps, 'layer', 0.6)
  assert kept == [{0: 1}, {0: 1}]
  assert edges == [Edge(0, -1, 0, 1)]


@pytest.mark.parametrize('mode', pyramids.MODES)
def test_a_projection_steps_back_by_its_own_kernels(mode):
  # It reads the block's input, of means 3, 1, 2 and one channel more than the
  # block's output: 3, 0.5, 0 for its kernel 1.
  shortcut = [[0, 1], [9, 0.5], [9, 0]]
  steps = [
    dense_step(np.eye(2), [1, 1], 2, (dense(shortcut, [3, 1, 2]),)),
    dense_step([[0, 0], [0, 0], [0, 1]], [3, 1, 2]),
  ]
  kept, edges = step_back({1: 1.0}, steps, mode, 0.6)
  assert kept == [{1: 1}, {1: 1}, {0: 1, 2: 1}]
  source = {'layer': -1, 'feature': 1}[mode]
  assert edges[1] == Edge(0, source, 0, 1, 'residual', 2)
  assert edges[2] == Edge(1, source, 2, 1)


def test_channels_of_zeros_have_nothing_below():
  """A residual connection without weights, from two channels to three."""
  steps = [
    dense_step(np.eye(3), [1, 1, 1], block=2),
    dense_step([[1, 0, 0], [0, 0, 1]], [1, 2]),
  ]
  kept, edges = step_back({1: 1.0, 2: 0.9}, steps, 'feature', 0.6)
  residual = [edge for edge in edges if edge.via == 'residual']
  assert residual == [Edge(0, 1, 1, 1, 'residual', 2)]
  assert kept[2] == {1: 1}


def test_nothing_kept_stays_nothing():
  steps = [dense_step(np.eye(2), [1, 1], block=1)]
  for mode in pyramids.MODES:
    assert step_back({}, steps, mode, 0.6) == ([{}, {}], [])


CLIP = random_clips(1, 5, 24, 24, 3, seed=4)


@pytest.fixture(scope='module')
def network():
  model = models.build('mtnet_xs', 4)
  return model, random_variables(model, CLIP)


@pytest.fixture(scope='module')
def observation(network):
  return pyramids.observe(*network, CLIP, layers=99)


def minmax(values):
  return (values - values.min()) / (values.max() - values.min())


def logit_above(values, threshold):
  return np.flatnonzero(values > np.log(threshold / (1 - threshold)))


def mean_kernels(params):
  return {
    name: np.float64(params[name]['kernel']).mean(axis=(0, 1, 2))
    for name in ('local', 'prolonged', 'pointwise')
  }


def dense_scores(params, kept, inputs, outputs, threshold):
  """The back step of a dense MTConv, written out."""
  k = mean_kernels(params)
  num_local = k['local'].shape[1]
  local, prolonged = kept[kept < num_local], kept[kept >= num_local] - num_local
  total = np.zeros(len(inputs))
  if len(local):
    total += len(local) * minmax(k['local'][:, local].mean(1) * inputs)
  if len(prolonged):
    direct = minmax(k['prolonged'][:, prolonged].mean(1) * inputs)
    found = minmax(k['pointwise'][:, prolonged].mean(1) * outputs[:num_local])
    via = logit_above(found, threshold)
    through = minmax(k['local'][:, via].mean(1) * inputs)
    total += len(prolonged) * (direct + through) / 2
  return minmax(total)


def separated_scores(params, kept, inputs, outputs, threshold):
  """The back step of a channel-separated MTConv; −∞ where nothing reads."""
  k = mean_kernels(params)
  num_local = k['local'].shape[1]
  kernel = np.concatenate([k['local'][0], k['prolonged'][0]])
  local, prolonged = kept[kept < num_local], kept[kept >= num_local]
  total, read = np.zeros(len(inputs)), set()

  def add(channels, weight):
    """Kernels of one channel each, averaged with the others' zeros."""
    if len(channels) == 1:
      total[channels] += weight
    elif len(channels):
      products = kernel[channels] / len(channels) * inputs[channels]
      total[channels] += weight * minmax(products)
    read.update(channels.tolist())

  add(local, len(local))
  if len(prolonged):
    add(prolonged, len(prolonged) / 2)
    columns = k['pointwise'][:, prolonged - num_local].mean(1)
    via = logit_above(minmax(columns * outputs[:num_local]), threshold)
    add(via, len(prolonged) / 2)
  read = sorted(read)
  scores = np.full(len(inputs), -np.inf)
  scores[read] = minmax(total[read]) if len(read) > 1 else 1
  return scores


def start_scores(params, features, label):
  """The class's row, folded back by hand, with the features."""
  linear = np.float64(params['linear']['kernel'])
  column = np.float64(params['classifier']['kernel'])[:, label]
  return minmax((linear @ ((features @ linear > 0) * column)) * features)


def pointwise_scores(kernel, kept, inputs):
  return minmax(np.float64(kernel)[0, 0, 0][:, kept].mean(1) * inputs)


def last_block_scores(model, variables, label, threshold):
  """Down to the last block's input, where its two branches meet."""
  apply = functools.partial(
    model.apply, capture_intermediates=True, mutable='intermediates'
  )
  (_, endpoints), state = jax.jit(apply)(variables, CLIP)
  outputs = {
    name: calls['__call__'][0]
    for name, calls in state['intermediates']['stage_4_block_1'].items()
    if name in ('expand', 'separated', 'project')
  } | {name: endpoints[name] for name in ('stage_3', 'stage_4')}
  mean = {k: np.float64(a)[0].mean(axis=(0, 1, 2)) for k, a in outputs.items()}
  params = variables['params']
  block = params['stage_4_block_1']

  def back(scores, function, weights, *means):
    kept = logit_above(scores, threshold)
    return function(weights, kept, *(mean[m] for m in means), threshold)

  head = start_scores(params, np.float64(endpoints['features'])[0], label)
  kept = logit_above(head, threshold)
  project = pointwise_scores(params['head']['kernel'], kept, mean['stage_4'])
  separated = back(
    project, dense_scores, block['project'], 'separated', 'project'
  )
  expand = back(
    separated, separated_scores, block['separated'], 'expand', 'separated'
  )
  below = back(expand, dense_scores, block['expand'], 'stage_3', 'expand')
  kept = logit_above(project, threshold)
  carried = pointwise_scores(block['shortcut']['kernel'], kept, mean['stage_3'])
  return head, project, separated, expand, np.maximum(below, carried)


@pytest.mark.slow
def test_mtnet_against_a_back_step_written_out(network, observation):
  label, threshold = 2, 0.67
  pyramid = pyramids.build(
    observation, network[1]['params'], label, 'layer', threshold
  )
  block = 'stage_4_block_1'
  assert [level.layer for level in pyramid.levels][:4] == [
    'head', f'{block}/project', f'{block}/separated', f'{block}/expand',
  ]  # fmt: skip
  assert pyramid.levels[4].layer == 'stage_3_block_1/project'
  assert pyramid.levels[14].layer == 'stem_spatial'
  assert len(pyramid.levels) == 15
  expected = last_block_scores(*network, label, threshold)
  for level, scores in zip(pyramid.levels, expected, strict=False):
    kept = logit_above(scores, threshold)
    assert 0 < len(kept) < len(scores) == level.num_channels
    assert level.importance == pytest.approx(
      {j: scores[j] for j in kept}, abs=1e-4
    )


@pytest.mark.parametrize('mode', pyramids.MODES)
def test_edges_explain_every_level(network, observation, mode):
  pyramid = pyramids.build(
    observation, network[1]['params'], 1, mode, threshold=0.67
  )
  reached = {(0, c): v for c, v in pyramid.levels[0].importance.items()}
  for edge in pyramid.edges:
    if edge.source != WHOLE_SET:
      assert edge.source in pyramid.levels[edge.level].importance
    node = edge.level + edge.span, edge.target
    reached[node] = max(reached.get(node, 0), edge.importance)
  assert reached == {
    (i, c): v
    for i, level in enumerate(pyramid.levels)
    for c, v in level.importance.items()
  }
  assert {e.source == WHOLE_SET for e in pyramid.edges} == {mode == 'layer'}
  # Every block of this network changes its width: projections all the way.
  spans = {e.span for e in pyramid.edges if e.via == 'residual'}
  assert spans == {3}
  graph = json.loads(json.dumps(pyramid.to_json(), allow_nan=False))
  assert graph['label'] == 1
  assert graph['levels'][0]['layer'] == 'head'
  assert graph['edges'][0].keys() == {
    'level', 'source', 'target', 'importance', 'via', 'span',
  }  # fmt: skip


def test_the_pyramid_of_a_clip_with_its_tubes(network, observation):
  pyramid, tubes = pyramids.class_feature_pyramid(*network, CLIP)
  assert pyramid.label == int(np.argmax(observation.logits))
  assert (pyramid.mode, pyramid.threshold) == ('layer', 0.67)
  assert len(pyramid.levels) == len(tubes) == 4
  for level, tube in zip(pyramid.levels, tubes, strict=True):
    assert tube.shape == observation.activations[level.layer].shape[:3]
    assert tube.min() == 0
    assert tube.max() == pytest.approx(1)
  deep = pyramids.build(
    observation, network[1]['params'], pyramid.label, 'layer', 0.67
  )
  for level, same in zip(pyramid.levels, deep.levels, strict=False):
    assert list(level.importance) == list(same.importance)


def test_tubes_of_channels(network, observation):
  pyramid = pyramids.build(
    observation, network[1]['params'], 0, 'layer', threshold=0.55
  )
  tubes = pyramids.channel_tubes(pyramid, observation, most=2)
  level = pyramid.levels[2]
  assert [c for layer, c in tubes if layer == level.layer] == list(
    level.importance
  )[:2]
  channel = next(iter(level.importance))
  values = np.float64(observation.activations[level.layer])[..., channel]
  np.testing.assert_allclose(
    tubes[level.layer, channel], minmax(values), atol=1e-6
  )


def test_a_level_that_keeps_nothing_has_an_empty_tube(network, observation):
  # Every importance of the start is 0 where all channels say the same.
  params = jax.tree.map(np.zeros_like, network[1]['params'])
  pyramid = pyramids.build(observation, params, 0, 'layer', 0.6)
  assert not any(level.importance for level in pyramid.levels)
  assert pyramids.channel_tubes(pyramid, observation) == {}
  for tube in pyramids.level_tubes(pyramid, observation):
    assert not tube.any()


@pytest.mark.parametrize('level', [0, 0.5])
def test_a_constant_clip(network, level):
  pyramid, tubes = pyramids.class_feature_pyramid(
    *network, np.full_like(CLIP, level)
  )
  assert np.isfinite(np.concatenate([t.ravel() for t in tubes])).all()
  json.dumps(pyramid.to_json(), allow_nan=False)


def test_tubes_of_half_precision_are_float32(network, observation):
  half = dataclasses.replace(
    observation,
    activations={
      name: jnp.bfloat16(a) for name, a in observation.activations.items()
    },
  )
  pyramid = pyramids.build(half, network[1]['params'], 0, 'layer', 0.6)
  tubes = pyramids.level_tubes(pyramid, half)
  tubes += pyramids.channel_tubes(pyramid, half).values()
  assert {tube.dtype for tube in tubes} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
  ('name', 'fields', 'threshold'),
  [
    ('mtnet_xs', {}, 0.67),
    ('mtnet_l', {}, 0.67),
    ('x3d_m', {}, 0.6),
    ('mtnet_m', {'local_ratio': 1.0, 'recurrence': False}, 0.6),
    ('r3d_34', {}, 0.6),
    ('r3d_50', {}, 0.55),
    ('srtg_r3d_50', {}, 0.55),
    ('r3d_101', {}, 0.6),
    ('wide_r3d_50', {}, 0.6),
    ('r2plus1d_50', {}, 0.6),
    ('mt_r3d_50', {}, 0.6),
    ('hara_r3d_50', {}, 0.55),
    ('hara_r3d_101', {}, 0.6),
    ('slow_r50', {}, 0.6),
    ('i3d_inception', {}, 0.65),
    ('mfnet', {}, 0.6),
  ],
)
def test_default_thresholds(name, fields, threshold):
  model = models.build(name, 4, **fields)
  assert pyramids.default_threshold(model) == threshold


@pytest.mark.parametrize('threshold', [0.49, 0.731, -1, float('nan')])
def test_a_threshold_that_keeps_all_or_nothing(network, observation, threshold):
  with pytest.raises(UserError, match=r'must lie in \[0.5, 0.731\)'):
    pyramids.build(observation, network[1]['params'], 0, 'layer', threshold)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'label': 4}, r'`label` \(=4\) must be one of the 4'),
    ({'label': -1}, r'`label` \(=-1\)'),
    ({'mode': 'tree'}, r"`mode` \(='tree'\) must be one of \('layer', 'feat"),
    ({'layers': 0}, 'at least 1'),
    ({'layers': 'stage_4_block_1/projekt'}, "mean 'stage_4_block_1/project'"),
  ],
)
def test_what_cannot_be(network, arguments, message):
  with pytest.raises(UserError, match=message):
    pyramids.class_feature_pyramid(*network, CLIP, **arguments)


def test_a_batch_is_not_a_clip(network):
  with pytest.raises(UserError, match=r'of shape \(5, 24, 24, 3\)'):
    pyramids.observe(*network, CLIP[0])


def test_weights_that_are_not_finite(network):
  model, variables = network
  broken = jax.tree.map(np.copy, variables)
  broken['params']['head']['kernel'][..., 3, 5] = np.nan
  with pytest.raises(UserError, match='not finite'):
    pyramids.class_feature_pyramid(model, broken, CLIP)
