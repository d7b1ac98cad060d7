"""Networks of other authors: their stages, and what layers see of time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.analysis import cost
from mtnet_jax.errors import UserError
from mtnet_jax.explain.class_rows import class_row
from mtnet_jax.explain.saliency_tubes import saliency_tube
from mtnet_jax.ops import forms
from tests.arrays import random_clips

pytestmark = pytest.mark.usefixtures('quick_compilation')


def shapes(name, clip, **fields):
  model = models.build(name, 5, **fields)
  clips = jax.ShapeDtypeStruct((2, *clip, 3), jnp.float32)
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), clips)
  logits, endpoints = jax.eval_shape(model.apply, variables, clips)
  assert logits.shape == (2, 5) and logits.dtype == jnp.float32
  return {
    key: value.shape
    for key, value in endpoints.items()
    if hasattr(value, 'shape')
  }


@pytest.mark.parametrize(
  ('name', 'frames'),
  [
    # Of 32 frames, after the stem and after each stage.
    ('slow_r50', (32, 32, 32, 32, 32)),
    ('c2d_r50', (32, 32, 16, 16, 16)),
    ('i3d_r50', (32, 32, 16, 16, 16)),
    ('i3d_r50_32x2', (8, 8, 4, 4, 4)),
    ('tsm_r101', (32, 32, 32, 32, 32)),
    ('ir_csn_50', (32, 32, 16, 8, 4)),
    ('ip_csn_50', (32, 32, 16, 8, 4)),
    ('ptv_r2plus1d_r50', (32, 32, 32, 16, 8)),
    ('hara_r3d_50', (16, 16, 8, 4, 2)),
    ('resnext3d_50', (16, 16, 8, 4, 2)),
  ],
)
def test_stages(name, frames):
  found = shapes(name, (32, 64, 64))
  keys = ['stem', *(f'stage_{i}' for i in range(1, 5))]
  assert tuple(found[key][1] for key in keys) == frames
  stem = 32 if name == 'ptv_r2plus1d_r50' else 16  # without a pool
  assert [found[key][2] for key in keys] == [stem, 16, 8, 4, 2]
  assert [found[key][4] for key in keys] == [64, 256, 512, 1024, 2048]
  assert found['last'] == found['stage_4'] and found['features'] == (2, 2048)


def test_stages_of_two_pathways():
  found = shapes('slowfast_r50_8x8', (16, 64, 64))
  keys = ['stem', *(f'stage_{i}' for i in range(1, 5))]
  # What the slow pathway's next stage sees; the last is of both.
  assert [found[key][4] for key in keys] == [80, 320, 640, 1280, 2304]
  assert {found[key][1] for key in keys} == {4}
  with pytest.raises(
    UserError, match='one of 4 frames, and a clip of 6 cannot'
  ):
    shapes('slowfast_r50_8x8', (6, 64, 64))


def shallow(name):
  """The network with a block a stage."""
  model = models.build(name, 5)
  one = {'blocks': (1, 1, 1, 1)}
  if name.startswith('slowfast'):
    return model.copy(
      slow=dataclasses.replace(model.slow, **one),
      fast=dataclasses.replace(model.fast, **one),
    )
  return model.copy(pathway=dataclasses.replace(model.pathway, **one))


@pytest.fixture(scope='module')
def two_pathways():
  model = shallow('slowfast_r50_8x8')
  clips = random_clips(2, 8, 32, 32, 3)
  variables = jax.jit(model.init)(jax.random.key(0), clips)
  return model, variables, clips


def test_saliency_tubes_of_two_pathways_add_up_to_the_logit(two_pathways):
  model, variables, clips = two_pathways
  logits, endpoints = jax.jit(model.apply)(variables, clips)
  params = jax.device_get(variables['params'])
  for label in range(5):
    row = class_row(params, np.asarray(endpoints['features'][0]), label)
    tube = np.asarray(endpoints['last'][0], np.float64) @ np.float64(row)
    logit = tube.mean() + params['classifier']['bias'][label]
    np.testing.assert_allclose(logit, logits[0, label], rtol=1e-4, atol=1e-5)
  assert saliency_tube(endpoints['last'][0], row).shape == (2, 1, 1)


def test_the_fast_pathway_alone_sees_frames_between(two_pathways):
  model, variables, clips = two_pathways
  changed = clips.copy()
  changed[:, 1:7] += 1  # the slow pathway sees the first and the last of 8
  before, after = (
    jax.jit(model.apply)(variables, x)[1]['stem'] for x in (clips, changed)
  )
  np.testing.assert_array_equal(before[..., :64], after[..., :64])
  assert np.abs(before[..., 64:] - after[..., 64:]).max() > 0


@pytest.mark.parametrize(
  'name',
  ['slow_r50', pytest.param('slowfast_r50_4x16', marks=pytest.mark.slow)],
)
def test_class_regularization(name):
  model = shallow(name).clone(class_regularization=True)
  clips = random_clips(2, 8, 32, 32, 3)
  variables = jax.jit(model.init)(jax.random.key(0), clips)
  names = [n for n in variables['params'] if 'regularization' in n]
  assert len(names) == 4
  _, endpoints = jax.jit(model.apply)(variables, clips)
  assert sorted(endpoints['early_predictions']) == [
    f'stage_{i}' for i in range(1, 5)
  ]


@pytest.mark.parametrize('name', ['tsm_r50', 'tanet_r50_8'])
def test_order_of_frames(name):
  model = shallow(name)
  clips = random_clips(1, 8, 32, 32, 3)
  variables = jax.jit(model.init)(jax.random.key(0), clips)
  apply = jax.jit(lambda x: model.apply(variables, x)[0])
  one, other = apply(clips), apply(clips[:, ::-1])
  assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()


def test_c2d_sees_no_order_within_its_pairs():
  model = shallow('c2d_r50')
  clips = random_clips(1, 8, 32, 32, 3)
  variables = jax.jit(model.init)(jax.random.key(0), clips)
  apply = jax.jit(lambda x: model.apply(variables, x)[0])
  np.testing.assert_allclose(
    apply(clips), apply(clips[:, ::-1]), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('name', ['slow_r50', 'hara_r3d_50'])
def test_parts_of_the_thesis(name):
  """By the parameters that they add to a network of a block a stage."""
  clip = (8, 32, 32, 3)
  plain = shallow(name)

  def added(**options):
    return cost.parameter_count(plain.clone(**options), clip) - before

  before = cost.parameter_count(plain, clip)
  # Both kernels and the bias of two LSTMs as wide as what they stand behind.
  outer, inner = (256, 512, 1024, 2048), (64, 128, 256, 512)
  for placement, widths in (('final', outer), ('mid', inner), ('top', inner)):
    lstm = sum(2 * 4 * (2 * c**2 + c) for c in widths)
    assert added(placement=placement) == lstm, placement
  # Of two branches, 7/8 and 1/8 of the kernels; a product between, two BNs.
  own = {'slow_r50': 9, 'hara_r3d_50': 27}[name]
  mtconv = sum(
    (27 - own) * c**2 + (7 * c // 8) * (c // 8) + 2 * (c // 8) for c in inner
  )
  assert added(middle='mtconv') == mtconv
  temporal = sum((9 + 3 - own) * c**2 + 2 * c for c in inner)
  assert added(middle='factorized') == temporal


@pytest.mark.slow
@pytest.mark.parametrize(
  'options', [{'placement': 'mid', 'gate': False}, {'middle': 'mtconv'}]
)
def test_steps_with_parts_of_the_thesis(options):
  model = shallow('slow_r50').clone(**options)
  clips = random_clips(2, 4, 32, 32, 3)
  variables = jax.jit(model.init)(jax.random.key(0), clips)

  @jax.jit
  def gradient(params):
    def loss(params):
      (logits, _), _ = model.apply(
        {**variables, 'params': params},
        clips,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': jax.random.key(1)},
      )
      return jnp.sum(logits**2)

    return jax.grad(loss)(params)

  gradients = gradient(variables['params'])
  for path, leaf in jax.tree.leaves_with_path(gradients):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


def test_gates_of_a_network_of_other_authors():
  model = shallow('slow_r50').clone(placement='mid')
  clips = random_clips(2, 4, 32, 32, 3)
  variables = jax.jit(model.init)(jax.random.key(0), clips)
  _, endpoints = jax.jit(model.apply)(variables, clips)
  gates = endpoints['gate_open']
  assert list(gates) == [f'stage_{i}_block_1' for i in (1, 2, 3, 4)]
  assert set(map(float, gates.values())) <= {0.0, 0.5, 1.0}


@pytest.mark.parametrize(
  'name',
  [
    *('tsm_r50', 'ip_csn_50'),
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in (
        *('slow_r50', 'slowfast_r50_8x8', 'tanet_r50_8'),
        *('ptv_r2plus1d_r50', 'resnext3d_50'),
      )
    ),
  ],
)
def test_half_precision(name):
  """Activations have 8 bits, weights and logits stay float32."""
  wide = shallow(name)
  narrow = wide.clone(dtype='bfloat16')
  clips = random_clips(2, 8, 32, 32, 3)
  variables = jax.jit(narrow.init)(jax.random.key(0), clips)
  assert all(leaf.dtype == 'float32' for leaf in jax.tree.leaves(variables))
  logits, endpoints = jax.jit(narrow.apply)(variables, clips)
  assert logits.dtype == endpoints['features'].dtype == jnp.float32
  for key in ('stem', 'stage_1', 'stage_2', 'stage_3', 'stage_4', 'last'):
    assert endpoints[key].dtype == jnp.bfloat16, key
  expected, _ = jax.jit(wide.apply)(variables, clips)
  assert 0 < np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['slow_r50', 'slowfast_r50_8x8', 'ip_csn_50'])
def test_rematerialization_changes_nothing(name):
  clips = random_clips(2, 8, 32, 32, 3)

  def gradient(rematerialize):
    model = shallow(name).clone(rematerialize=rematerialize)
    variables = jax.jit(model.init)(jax.random.key(0), clips)

    def loss(params):
      (logits, _), _ = model.apply(
        {**variables, 'params': params},
        clips,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': jax.random.key(1)},
      )
      return jnp.sum(logits**2)

    return jax.jit(jax.grad(loss))(variables['params'])

  one, other = gradient(False), gradient(True)
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(one))
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.slow
def test_on_a_tpu_the_fast_pathway_lies_side_by_side():
  """As without, and its 16 columns of 32 channels are 4 groups of 128."""
  model = shallow('slowfast_r50_8x8').clone(dropout=0.0)
  clips = random_clips(2, 8, 64, 64, 3)
  variables = jax.jit(model.init)(jax.random.key(0), clips)

  def apply(form):
    def run(variables):
      with forms.use(form):
        return model.apply(
          variables, clips, train=True, mutable=['batch_stats']
        )

    return jax.jit(run).trace(variables)

  def result(traced):
    (logits, endpoints), _ = traced.lower().compile()(variables)
    return logits, endpoints['stage_1'], endpoints['last']

  beside, plain = apply('tpu'), apply('definition')
  assert '2,8,16,4,128]' in str(beside.jaxpr)
  assert '2,8,16,4,128]' not in str(plain.jaxpr)
  for got, expected in zip(result(beside), result(plain), strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('name', ['slow_r50', 'slowfast_r50_4x16'])
def test_blocks_begin_as_their_shortcuts(name):
  model = shallow(name).clone(zero_init_residual=True)
  clips = random_clips(2, 8, 32, 32, 3)
  variables = jax.jit(model.init)(jax.random.key(0), clips)

  def perturb(path, leaf):
    module = path[-3].key if len(path) > 2 else ''
    if path[-1].key == 'scale':
      assert np.all(leaf == (module != 'conv_3')), path
    return leaf + (module in ('conv_1', 'conv_2'))

  params = jax.tree.map_with_path(perturb, variables['params'])
  apply = jax.jit(model.apply)
  expected, _ = apply(variables, clips)
  got, _ = apply({**variables, 'params': params}, clips)
  np.testing.assert_array_equal(got, expected)
  # Of a scale of one, these convolutions are seen.
  params = jax.tree.map(lambda leaf: leaf + 1, params)
  assert np.any(apply({**variables, 'params': params}, clips)[0] != expected)
