"""I3D of Inception-v1 and MF-Net: stages, padding, precision, gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mtnet_jax import models
from mtnet_jax.analysis import cost
from mtnet_jax.layers.norm import BatchNorm
from mtnet_jax.models.inception import Inception
from tests.arrays import random_clips, random_variables
from tests.arrays import relu as plain_relu

pytestmark = pytest.mark.usefixtures('quick_compilation')

NAMES = ('i3d_inception', 'mfnet')
STAGES = ('stem', 'stage_1', 'stage_2', 'stage_3', 'stage_4')
CLIPS = random_clips(2, 8, 32, 32, 3)


def shallow(name, **fields):
  """A network of five classes; MF-Net with the fewest blocks that show all."""
  model = models.build(name, 5, **fields)
  return model.copy(blocks=(1, 2, 1, 1)) if name == 'mfnet' else model


@functools.cache
def variables_of(name):
  return random_variables(shallow(name), CLIPS)


@pytest.mark.parametrize(
  ('name', 'frames', 'sides', 'widths'),
  [
    # Of 9 frames of 72², an odd half and an odd quarter of which SAME rounds
    # up.
    ('i3d_inception', (5, 5, 5, 3, 2), (18, 18, 9, 5, 3),
     (64, 192, 480, 832, 1024)),
    ('mfnet', (9, 5, 5, 5, 5), (18, 18, 9, 5, 3), (16, 96, 192, 384, 768)),
  ],
)  # fmt: skip
def test_stages(name, frames, sides, widths):
  model = models.build(name, 5)
  clips = jax.ShapeDtypeStruct((2, 9, 72, 72, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), clips)
  logits, found = jax.eval_shape(model.apply, variables, clips)
  assert logits.shape == (2, 5) and logits.dtype == jnp.float32
  expected = zip(frames, sides, widths, strict=True)
  assert [found[key].shape for key in STAGES] == [
    (2, t, s, s, c) for t, s, c in expected
  ]
  assert found['last'].shape == found['stage_4'].shape
  assert found['features'].shape == (2, widths[-1])


def test_bn_and_dropout_of_the_authors():
  inception, mfnet = (models.build(name, 5) for name in NAMES)
  assert (inception.norm_epsilon, inception.dropout) == (1e-3, 0.5)
  assert (mfnet.norm_epsilon, mfnet.dropout) == (1e-5, 0)
  # Another value of the configuration reaches all of them.
  assert models.build('i3d_inception', 5, norm_epsilon=1e-5).norm_epsilon == (
    1e-5
  )


@pytest.mark.slow
@pytest.mark.parametrize('frames', [1, 2, 5])
def test_i3d_s_mean_is_of_pairs_of_frames(frames):
  """A frame at either end is in one pair, and others are in two."""
  model, clips = models.build('i3d_inception', 5), CLIPS[:, :1]
  clips = np.repeat(clips, 8 * frames, 1)
  clips *= np.linspace(0.1, 2, 8 * frames, dtype=np.float32)[
    None, :, None, None, None
  ]
  variables = variables_of('i3d_inception')
  logits, endpoints = jax.jit(model.apply)(variables, clips)
  assert endpoints['last'].shape[1] == frames
  means = np.float64(endpoints['last']).mean((2, 3))
  pairs = [means[:, i : i + 2].mean(1) for i in range(max(1, frames - 1))]
  expected = np.mean(pairs, axis=0)
  np.testing.assert_allclose(endpoints['features'], expected, rtol=1e-4)
  if frames == 5:
    assert np.abs(expected - means.mean(1)).max() > 0.01 * expected.max()
  head = variables['params']['classifier']
  expected = expected @ head['kernel'] + head['bias']
  np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_mixed_block_s_branches_lie_in_their_order():
  """A kernel and a BN bias that are changed reach their channels alone."""
  model, variables = models.build('i3d_inception', 5), variables_of(NAMES[0])
  apply = jax.jit(lambda v: model.apply(v, CLIPS)[1]['stage_4'])
  before = apply(variables)
  ends = np.cumsum((0, 384, 384, 128, 128))
  for i, (start, end) in enumerate(itertools.pairwise(ends), start=1):
    changed = jax.tree.map(lambda leaf: leaf, variables)
    norm = changed['params']['stage_4_block_2'][f'branch_{i}']['norm']
    norm['bias'] = norm['bias'] + 3
    touched = np.flatnonzero((apply(changed) != before).any((0, 1, 2, 3)))
    assert touched.min() >= start and touched.max() < end
    assert len(touched) > 0.9 * (end - start)


def test_mfnet_s_residual_connections():
  """Of convolutions that are zero, a block's input is what is left."""
  model = shallow('mfnet')
  variables = jax.tree.map(lambda leaf: leaf, variables_of('mfnet'))
  params = variables['params']
  for name, block in params.items():
    if name.startswith('stage_2_block') and not name.endswith('_1'):
      for unit in ('conv_2', 'multiplex_2'):
        block[unit]['conv']['kernel'] *= 0
  seen = {}

  def record(run, args, kwargs, context):
    if context.method_name == '__call__':
      seen['/'.join(context.module.path)] = args[0]
    return run(*args, **kwargs)

  with nn.intercept_methods(record):
    _, endpoints = model.apply(variables, CLIPS)
  np.testing.assert_array_equal(endpoints['stage_2'], seen['stage_2_block_2'])
  # The last BN and ReLU are part of what is explained.
  norm, stats = params['last_norm'], variables['batch_stats']['last_norm']
  x = np.float64(seen['last_norm'])
  x = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
  expected = plain_relu(x * norm['scale'] + norm['bias'])
  np.testing.assert_allclose(endpoints['last'], expected, atol=1e-4)
  np.testing.assert_allclose(
    endpoints['features'], expected.mean((1, 2, 3)), atol=1e-4
  )


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_class_regularization(name):
  model = shallow(name, class_regularization=True)
  variables = jax.jit(model.init)(jax.random.key(0), CLIPS)
  names = [n for n in variables['params'] if 'regularization' in n]
  assert len(names) == 4
  _, endpoints = jax.jit(model.apply)(variables, CLIPS)
  assert sorted(endpoints['early_predictions']) == list(STAGES[1:])


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_half_precision(name):
  """Activations have 8 bits, weights and logits stay float32."""
  wide = shallow(name)
  narrow = wide.clone(dtype='bfloat16')
  variables = variables_of(name)
  shapes = jax.eval_shape(narrow.init, jax.random.key(0), CLIPS)
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {
    np.dtype('float32')
  }
  logits, endpoints = jax.jit(narrow.apply)(variables, CLIPS)
  assert logits.dtype == endpoints['features'].dtype == jnp.float32
  for key in (*STAGES, 'last'):
    assert endpoints[key].dtype == jnp.bfloat16, key
  expected, _ = jax.jit(wide.apply)(variables, CLIPS)
  assert 0 < np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize('name', NAMES)
def test_costs_by_module(name):
  costs = cost.count(models.build(name, 5), (8, 32, 32, 3))
  blocks = {'i3d_inception': 10, 'mfnet': 16}[name]
  assert sum('_block_' in module for module in costs.modules) == blocks
  stem = {'i3d_inception': 343 * 3 * 64 * 4, 'mfnet': 75 * 3 * 16 * 8}[name]
  assert costs.modules['stem'].macs == stem * 16**2


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_rematerialization_changes_nothing(name):
  variables = variables_of(name)

  def gradient(rematerialize):
    model = shallow(name, rematerialize=rematerialize)

    def loss(params):
      (logits, _), updated = model.apply(
        {**variables, 'params': params},
        CLIPS,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': jax.random.key(1)},
      )
      return jnp.sum(logits**2), updated

    return jax.jit(jax.grad(loss, has_aux=True))(variables['params'])

  one, other = gradient(False), gradient(True)
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(one))
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_blocks_in_training_are_the_ones_of_evaluation(name):
  """Frozen BN: training shares blocks' functions, evaluation does not."""
  model = shallow(name, freeze_norm=True, dropout=0.0)
  variables = variables_of(name)
  expected, _ = jax.jit(model.apply)(variables, CLIPS)
  apply = functools.partial(model.apply, train=True, mutable=['batch_stats'])
  (got, _), _ = jax.jit(apply)(variables, CLIPS)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_every_bn_of_i3d_takes_its_epsilon():
  epsilons = set()

  def note(run, args, kwargs, context):
    if isinstance(context.module, BatchNorm):
      epsilons.add(context.module.epsilon)
    return run(*args, **kwargs)

  with nn.intercept_methods(note):
    jax.eval_shape(Inception(5).init, jax.random.key(0), CLIPS)
  assert epsilons == {1e-3}
