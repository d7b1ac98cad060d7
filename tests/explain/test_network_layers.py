import functools
import re

import jax
import numpy as np
import pytest
from flax import linen as nn

from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.explain import network_layers
from mtnet_jax.explain.layer_kernels import (
  Kernels,
  find_kernels,
  inflate,
  inflate_branches,
)
from mtnet_jax.explain.network_layers import Layer, Step
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.mtconv import MTConv
from mtnet_jax.runs.leaves import leaf_paths

NAN = np.nan


@functools.cache
def shapes_and_order(model):
  """The parameters' shapes, and the convolutions in the order they run."""
  order = []

  def note(run, args, kwargs, context):
    path = '/'.join(context.module.path)
    is_layer = isinstance(context.module, (Conv3D, MTConv))
    if is_layer and context.method_name == '__call__':
      order.append(path)
    return run(*args, **kwargs)

  frames = getattr(model, 'pathway', None)
  frames = (frames and frames.adaptive_frames) or 4
  clips = jax.ShapeDtypeStruct((1, frames, 32, 32, 3), np.float32)
  with nn.intercept_methods(note):
    shapes = jax.eval_shape(model.init, jax.random.key(0), clips)['params']
  inside = [p for p in order if p.rpartition('/')[0] in order]
  return shapes, [p for p in order if p not in inside]


# Tracing them takes longest.
_LARGE = re.compile('mtnet_[sml]|x3d_(m|l|xl)$|101|152')


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[pytest.mark.slow] * bool(_LARGE.search(name)))
    for name in models.NAMES
    if not name.startswith('slowfast')
  ],
)
def test_the_chain_has_every_convolution_once_in_the_order_they_run(name):
  params, order = shapes_and_order(models.build(name, 5))
  chain = network_layers.layer_chain(params)
  convolutions = [p for layer in chain for p in layer.convolutions]
  convolutions = [path.removesuffix('/conv') for path in convolutions]
  shortcuts = [path for layer in chain for path in layer.shortcut]
  shortcuts = [path.removesuffix('/conv') for path in shortcuts]
  # What a temporal adaptive module computes scales channels, as gates do.
  order = [path for path in order if '/adaptive/' not in path]
  plain = [path.removesuffix('/conv') for path in order]
  assert convolutions == [path for path in plain if '/shortcut' not in path]
  assert shortcuts == [path for path in plain if '/shortcut' in path]

  found = [
    kernel.shape
    for path in plain
    for kernel in find_kernels(params, path).values()
  ]
  leaves = [
    leaf.shape
    for path, leaf in leaf_paths(params).items()
    if leaf.ndim == 5 and '/adaptive/' not in path
  ]
  assert sorted(found) == sorted(leaves)


@pytest.mark.parametrize(
  'name', ['mtnet_xs', 'mtnet_m_published', 'mt_r3d_50', 'r2plus1d_18']
)
def test_layers_read_what_the_ones_before_them_make(name):
  params, _ = shapes_and_order(models.build(name, 5))
  chain = network_layers.layer_chain(params)
  widths = [3]
  for layer in chain:
    means = {
      branch: np.zeros(kernel.shape[3:])
      for branch, kernel in find_kernels(params, layer.path).items()
    }
    branches = inflate_branches(means, widths[-1])
    assert branches['local'].weights.shape[0] == widths[-1]
    made = [b for name, b in branches.items() if name != 'pointwise']
    widths.append(sum(b.weights.shape[1] for b in made))
    if layer.block and not layer.shortcut:
      assert widths[-1] == widths[-1 - layer.block]


def test_blocks_and_their_shortcuts():
  unit = {'conv': {'kernel': 0}, 'norm': {}}
  factorized = {'spatial': {'kernel': 0}, 'temporal': {'kernel': 0}}
  params = {
    'stage_1_block_10': {'conv_1': factorized, 'conv_2': unit},
    'stage_1_block_2': {'conv_1': unit, 'conv_2': unit, 'shortcut': unit},
    'classifier': {'kernel': 0},
    'stem': unit,
  }
  assert network_layers.layer_chain(params) == (
    Layer('stem'),
    Layer('stage_1_block_2/conv_1'),
    Layer('stage_1_block_2/conv_2', 2, ('stage_1_block_2/shortcut',)),
    Layer('stage_1_block_10/conv_1/spatial'),
    Layer('stage_1_block_10/conv_1/temporal'),
    Layer('stage_1_block_10/conv_2', 3),
  )


def test_pre_activated_blocks_and_blocks_of_branches():
  unit = {'conv': {'kernel': 0}, 'norm': {}}
  names = ('branch_1', 'branch_2_reduce', 'branch_2', 'branch_3_reduce')
  params = {
    'stage_1_block_1': dict.fromkeys(('reduce', 'cubic'), unit),
    'stage_2_block_1': dict.fromkeys((*names, 'branch_3', 'branch_4'), unit),
    'stage_3_block_1': dict.fromkeys(
      ('multiplex_1', 'multiplex_2', 'conv_1', 'conv_2', 'shortcut'), unit
    ),
  }
  mixed, fibers = 'stage_2_block_1', 'stage_3_block_1'
  assert network_layers.layer_chain(params) == (
    Layer('stage_1_block_1/reduce'),
    Layer('stage_1_block_1/cubic'),
    Layer(
      mixed,
      branches=(
        (f'{mixed}/branch_1',),
        (f'{mixed}/branch_2_reduce', f'{mixed}/branch_2'),
        (f'{mixed}/branch_3_reduce', f'{mixed}/branch_3'),
        (f'{mixed}/branch_4',),
      ),
    ),
    Layer(f'{fibers}/multiplex_1/conv'),
    Layer(f'{fibers}/multiplex_2/conv', 2),
    Layer(f'{fibers}/conv_1/conv'),
    Layer(f'{fibers}/conv_2/conv', 4, (f'{fibers}/shortcut/conv',)),
  )


def test_steps_are_counted_or_lead_to_a_layer():
  chain = (Layer('head'), Layer('stage_1_block_1/expand'), Layer('stem'))
  steps = [network_layers.count_steps(chain, n) for n in (1, 2, 3, 99)]
  assert steps == [1, 2, 2, 2]
  assert network_layers.count_steps(chain, 'head') == 0
  assert network_layers.count_steps(chain, 'stem') == 2


@pytest.mark.parametrize(
  ('layers', 'message'),
  [
    ('stam', "no layer 'stam'. Did you mean 'stem'"),
    ('', 'to the first they are head, stage_1_block_1/expand, stem'),
    (0, r'`layers` \(=0\) must be at least 1 .* up to 2'),
  ],
)
def test_steps_that_there_are_not(layers, message):
  chain = (Layer('head'), Layer('stage_1_block_1/expand'), Layer('stem'))
  with pytest.raises(UserError, match=message):
    network_layers.count_steps(chain, layers)


def test_inflation_places_each_kernel_at_the_channel_it_reads():
  kernels = inflate_branches(
    {
      'local': np.array([[5.0, 6.0]]),
      'prolonged': np.array([[7.0, 0.0]]),
      'pointwise': np.ones((2, 2)),
    },
    4,
  )
  local, prolonged = kernels['local'], kernels['prolonged']
  np.testing.assert_array_equal(local.weights, [[5, 0], [0, 6], [0, 0], [0, 0]])
  np.testing.assert_array_equal(
    prolonged.weights, [[0, 0], [0, 0], [7, 0], [0, 0]]
  )
  # A kernel that is zero still reads.
  np.testing.assert_array_equal(
    prolonged.reads, [[0, 0], [0, 0], [1, 0], [0, 1]]
  )
  dense = inflate(np.array([[7.0, 1.0], [2.0, 3.0]]), 2)
  assert dense.reads.all()


def test_inflation_of_branches_that_read_a_share():
  # Of three channels the first two, and the third; two and one kernel.
  kernels = inflate_branches(
    {
      'local': np.array([[1.0, 2], [3, 4]]),
      'prolonged': np.array([[5.0]]),
      'pointwise': np.ones((2, 1)),
    },
    3,
  )
  local, prolonged = kernels['local'], kernels['prolonged']
  np.testing.assert_array_equal(local.weights, [[1, 2], [3, 4], [0, 0]])
  np.testing.assert_array_equal(local.reads, [[1, 1], [1, 1], [0, 0]])
  np.testing.assert_array_equal(prolonged.weights, [[0], [0], [5]])
  np.testing.assert_array_equal(prolonged.reads, [[0], [0], [1]])


def test_inflation_of_grouped_kernels():
  # Two groups of two inputs and one output each.
  kernels = inflate(np.array([[7.0, 1], [0, 2]]), 4)
  np.testing.assert_array_equal(
    kernels.weights, [[7, 0], [0, 0], [0, 1], [0, 2]]
  )
  np.testing.assert_array_equal(kernels.reads, [[1, 0], [1, 0], [0, 1], [0, 1]])
  # Groups of one input and two outputs.
  kernels = inflate(np.array([[7.0, 1, 0, 2]]), 2)
  np.testing.assert_array_equal(kernels.weights, [[7, 1, 0, 0], [0, 0, 0, 2]])
  np.testing.assert_array_equal(kernels.reads, [[1, 1, 0, 0], [0, 0, 1, 1]])


def branches_step():
  """Three inputs; two channels, two after two others, and one of a pool."""

  def convolution(weights, inputs):
    kernels = inflate(np.array(weights, float), len(inputs))
    return network_layers.Convolution(kernels, np.array(inputs, float))

  inputs = [1, 2, 4]
  branches = (
    (convolution([[2, 1], [1, 3], [0, 0]], inputs),),
    (
      convolution([[1, 0], [0, 1], [1, 0.5]], inputs),
      convolution([[1, 5], [2, 5]], [3, 1]),
    ),
    (convolution([[3], [2], [1]], [2, 3, 4]),),
  )
  return Step(Layer('layer'), {}, np.array(inputs), np.zeros(5), (), branches)


@pytest.mark.parametrize(
  ('chosen', 'expected'),
  [
    ([0], [1, 1, 0]),  # 2, 2, 0
    ([0, 1], [1.5 / 4, 1, 0]),  # the mean kernel's 1.5, 4, 0
    # Back to 3 and 2, of which the first is kept: 1, 0, 4.
    ([2], [0.25, 0, 1]),
    ([3], [0.25, 0, 1]),  # 15 and 5, likewise
    ([4], [1, 1, 0]),  # 6, 6, 4
    # Two of the first branch and one of the second: a third of 1, 2 and 1.
    ([0, 1, 2], [0, 1, 0]),
  ],
)
def test_branches_side_by_side(chosen, expected):
  scores = network_layers.score_inputs(branches_step(), np.array(chosen), 0.6)
  np.testing.assert_allclose(scores, expected)


def test_a_branch_that_keeps_nothing_between_adds_nothing():
  step = branches_step()
  first, last = step.branches[1]
  equal = last._replace(inputs=np.array([2.0, 1.0]))  # 2, 2: none stands out
  assert np.isnan(
    network_layers.score_convolutions((first, equal), np.array([0]), 0.6)
  ).all()
  branches = (step.branches[0], (first, equal), step.branches[2])
  step = step._replace(branches=branches)
  scores = network_layers.score_inputs(step, np.array([0, 2]), 0.6)
  np.testing.assert_allclose(scores, [1, 1, 0])


@pytest.mark.parametrize(
  ('scores', 'expected'),
  [
    ([1, 3, 2], [0, 1, 0.5]),
    ([-4, NAN, -2, -3], [0, NAN, 1, 0.5]),  # a 0 would have been the largest
    ([NAN, -4], [NAN, 1]),  # no choice
    ([2, NAN, 2], [0, NAN, 0]),  # nothing stands out
    ([NAN, NAN], [NAN, NAN]),
  ],
)
def test_normalize(scores, expected):
  scores = np.array(scores, float)
  np.testing.assert_array_equal(network_layers.normalize(scores), expected)


def test_select_channels():
  scores = np.array([0.5, 1, 0.4, NAN, 0.5, 0])
  # σ(0.4) = 0.5987, σ(0.5) = 0.6225
  assert list(network_layers.select_channels(scores, 0.6).items()) == [
    (1, 1), (0, 0.5), (4, 0.5),
  ]  # fmt: skip
  assert 5 not in network_layers.select_channels(
    scores, 0.5
  )  # σ(0) is not above 0.5


def make_step(inputs, outputs=(), **kernels):
  kernels = inflate_branches(
    {name: np.array(means, float) for name, means in kernels.items()},
    len(inputs),
  )
  return Step(Layer('layer'), kernels, np.array(inputs), np.array(outputs))


@pytest.mark.parametrize(
  ('chosen', 'expected'),
  [
    ([0], [0, 0, 1]),  # 1, 1, 6
    ([1], [0, 0.5, 1]),  # 0, 2, 4
    ([0, 1], [0, 1 / 4.5, 1]),  # mean kernel 0.5, 3, 2.5: 0.5, 1.5, 5
  ],
)
def test_a_dense_layer(chosen, expected):
  step = make_step([1, 0.5, 2], local=[[1, 0], [2, 4], [3, 2]])
  scores = network_layers.score_inputs(step, np.array(chosen), 0.6)
  np.testing.assert_allclose(scores, expected)


@pytest.mark.parametrize(
  ('chosen', 'expected'),
  [
    ([0], [1, NAN, NAN]),
    ([0, 1], [0, 1, NAN]),  # −6, −1 over 2; the third is not read, not 0
    ([0, 1, 2], [0, 5 / 12, 1]),  # −6, −1, 6 over 3
  ],
)
def test_a_channel_separated_layer(chosen, expected):
  step = make_step([-2, 1, 3], local=[[3, -1, 2]])
  scores = network_layers.score_inputs(step, np.array(chosen), 0.6)
  np.testing.assert_allclose(scores, expected)


@pytest.mark.parametrize(
  ('chosen', 'expected'),
  [
    ([0, 1], [0, 1, NAN, NAN]),  # local: 1, 4 over 2
    # Directly channel 3 alone, 1. Point-wise 4, 6, 0: keeps 0 and 1 of the
    # local branch, whose kernels give 0 and 1. The mean is 0, 0.5, -, 0.5.
    ([3], [0, 1, NAN, 1]),
    # One local kernel, channel 1 alone; one prolonged: 0, 1 + 0.5, -, 0.5.
    ([1, 3], [0, 1, NAN, 1 / 3]),
  ],
)
def test_a_channel_separated_mtconv(chosen, expected):
  step = make_step(
    [1, 2, 3, 4],
    [4, 3, 9, 7],
    local=[[1, 2, -1]],
    prolonged=[[5]],
    pointwise=[[1], [2], [0]],
  )
  scores = network_layers.score_inputs(step, np.array(chosen), 0.6)
  np.testing.assert_allclose(scores, expected)


def test_a_point_wise_term_that_keeps_nothing_leaves_the_other_route():
  step = make_step(
    [1, 2],
    [1, 1, 7],
    local=[[3, 4], [5, 6]],
    prolonged=[[1], [3]],
    pointwise=[[2], [2]],  # equal: none stands out
  )
  scores = network_layers.score_inputs(step, np.array([2]), 0.6)
  np.testing.assert_allclose(scores, [0, 1])


@pytest.mark.parametrize('threshold', [0.5, 0.6, 0.7])
@pytest.mark.parametrize('chosen', [[0, 3], [4], [1, 2, 4, 5], [4, 5]])
def test_a_dense_mtconv_against_loops(chosen, threshold):
  rng = np.random.default_rng(3)
  inputs, outputs = rng.normal(size=5), rng.normal(size=6)
  local, prolonged = rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
  pointwise = rng.normal(size=(4, 2))

  def importance(values):
    low, high = min(values), max(values)
    return [(v - low) / (high - low) for v in values]

  def through(kernel, kept, means):
    return importance(
      [
        sum(kernel[c][j] for j in kept) / len(kept) * means[c]
        for c in range(len(means))
      ]
    )

  first = [j for j in chosen if j < 4]
  second = [j - 4 for j in chosen if j >= 4]
  total = np.zeros(5)
  if first:
    total += len(first) * np.array(through(local, first, inputs))
  if second:
    found = through(pointwise, second, outputs[:4])
    via = [j for j in range(4) if 1 / (1 + np.exp(-found[j])) > threshold]
    routes = through(prolonged, second, inputs), through(local, via, inputs)
    total += len(second) * np.mean(routes, axis=0)
  expected = importance(list(total / len(chosen)))

  step = make_step(
    inputs, outputs, local=local, prolonged=prolonged, pointwise=pointwise
  )
  scores = network_layers.score_inputs(step, np.array(chosen), threshold)
  np.testing.assert_allclose(scores, expected)


def test_products_are_of_the_averaged_kernels():
  kernels = Kernels(
    np.array([[1, 3], [2, 0]], np.float32), np.array([[1, 1], [1, 0]], bool)
  )
  products = network_layers.multiply(
    kernels, np.array([2, 5]), np.array([0, 1])
  )
  np.testing.assert_array_equal(products, [4, 5])
  alone = network_layers.multiply(kernels, np.array([2, 5]), np.array([1]))
  np.testing.assert_array_equal(alone, [6, NAN])
