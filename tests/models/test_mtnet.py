"""MTNet and X3D: blocks against plain convolutions, and the whole network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.layers import recurrent
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.mtconv import MTConv
from mtnet_jax.layers.norm import BatchNorm
from mtnet_jax.layers.srtg import SqueezeAndRecursion
from mtnet_jax.models import mtnet
from mtnet_jax.ops import activation
from tests.arrays import (
  conv,
  norm,
  random_clips,
  random_variables,
  relu,
  sigmoid,
)

TINY = {
  'blocks': (1,),
  'local_ratio': 0.5,
  'stem_features': 4,
  'stages': ((8, 6),),
  'head_features': (8, 16),
}


def plain_block(x, variables, stride, swish, recursion):
  """An X3D block: 1×1×1, channel-separated 3×3×3, 1×1×1; the sum; ReLU."""
  p, s = variables['params'], variables['batch_stats']

  def unit(name, x, strides=(1, 1, 1)):
    y = conv(x, p[name]['local']['kernel'], strides)
    return norm(y, p[name]['local_norm'], s[name]['local_norm'])

  strides = (1, stride, stride)
  y = unit('separated', relu(unit('expand', x)), strides)
  if 'squeeze_excitation' in p:
    reduce, expand = (p['squeeze_excitation'][k] for k in ('reduce', 'expand'))
    v = np.mean(y, axis=(1, 2, 3))
    v = relu(v @ reduce['kernel'] + reduce['bias'][None])
    gate = sigmoid(v @ expand['kernel'] + expand['bias'][None])
    y = y * gate[:, None, None, None, :]
  y = y * sigmoid(y) if swish else relu(y)
  y = unit('project', y)
  if recursion:
    gru = recurrent.build('gru', y.shape[-1])
    h = gru.apply({'params': p['recursion']['recurrence']}, y.mean((2, 3)))
    y = y * h[:, :, None, None, :]
  if 'shortcut' in p:
    x = conv(x, p['shortcut']['kernel'], strides)
  if 'shortcut_norm' in p:
    x = norm(x, p['shortcut_norm'], s['shortcut_norm'])
  return relu(x + y)


def block(inner, outer, stride, **fields):
  batch_norm = functools.partial(BatchNorm, use_running_average=True)
  fields = {
    'conv': Conv3D,
    'norm': batch_norm,
    'mtconv': functools.partial(MTConv, local_ratio=1.0, norm=batch_norm),
    'kernel_frames': 3,
    'recursion': None,
    'groups': 0,
    'squeeze_excitation': False,
    'separated_activation': activation.relu,
    'norm_all_shortcuts': False,
    **fields,
  }
  return mtnet.MTBlock(inner, outer, stride, **fields)


X3D_PARTS = {
  'squeeze_excitation': True,
  'separated_activation': activation.swish,
}
GRU = functools.partial(SqueezeAndRecursion, 'gru', gate=False)


@pytest.mark.parametrize(
  'outer, stride, fields, shortcut',
  [
    (6, 1, {'recursion': GRU}, ()),
    (6, 2, {}, ('shortcut',)),
    (6, 2, {'norm_all_shortcuts': True}, ('shortcut', 'shortcut_norm')),
    (6, 1, {'kernel_frames': 1}, ()),
    (8, 2, X3D_PARTS, ('shortcut', 'shortcut_norm')),
  ],
)
def test_block_equals_plain_convolutions(outer, stride, fields, shortcut):
  x = random_clips(2, 3, 6, 5, 6)
  module = block(10, outer, stride, **fields)
  variables = random_variables(module, x)
  params = variables['params']
  assert {k for k in params if k.startswith('shortcut')} == set(shortcut)
  got, share = jax.jit(module.apply)(variables, x)
  assert share is None
  expected = plain_block(
    x, variables, stride, 'squeeze_excitation' in params, 'recursion' in params
  )
  np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize(
  'width, expected',
  [(54 / 16, 8), (108 / 16, 8), (216 / 16, 16), (432 / 16, 32)],
)
def test_squeeze_excitation_width(width, expected):
  # 27 would round to 24, more than a tenth below it.
  assert mtnet.round_width(width) == expected


def test_squeeze_excitation_in_every_other_block():
  variables = jax.eval_shape(
    models.build('x3d_s', 10).init,
    jax.random.key(0),
    np.zeros((1, 2, 32, 32, 3), np.float32),
  )
  having = [
    name[len('stage_') :].replace('_block_', '.')
    for name, value in variables['params'].items()
    if 'squeeze_excitation' in value
  ]
  assert sorted(having) == sorted(
    f'{i}.{j}'
    for i, blocks in enumerate((3, 5, 11, 7), start=1)
    for j in range(1, blocks + 1, 2)
  )


def test_names_of_parameters():
  variables = jax.eval_shape(
    models.build('mtnet_xs', 10).init,
    jax.random.key(0),
    np.zeros((1, 2, 16, 16, 3), np.float32),
  )
  params = variables['params']
  assert set(params) == {f'stage_{i}_block_1' for i in (1, 2, 3, 4)} | {
    'stem_spatial',
    'stem_temporal',
    'stem_norm',
    'head',
    'head_norm',
    'linear',
    'classifier',
  }
  first = params['stage_2_block_1']
  assert set(first) == {
    'expand',
    'separated',
    'project',
    'recursion',
    'shortcut',
    'shortcut_norm',
  }
  branches = {'local', 'prolonged', 'pointwise'}
  for name in ('expand', 'separated', 'project'):
    assert set(first[name]) == branches | {f'{b}_norm' for b in branches}
  assert set(first['recursion']['recurrence']) == {'layer_0', 'layer_1'}


def shapes_and_dtypes(name, frames, size, **overrides):
  """Of the network with one block a stage, which traces quickly."""
  model = models.build(name, 400, **overrides).copy(blocks=(1, 1, 1, 1))
  x = jax.ShapeDtypeStruct((2, frames, size, size, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  return variables, jax.eval_shape(model.apply, variables, x)


def test_endpoints_and_half_precision():
  variables, (logits, endpoints) = shapes_and_dtypes(
    'mtnet_m', 16, 256, dtype='bfloat16'
  )
  assert logits.shape == (2, 400) and logits.dtype == jnp.float32
  assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  for name in ('gate_open', 'early_predictions', 'early_scores'):
    assert endpoints.pop(name) == {}
  features = endpoints.pop('features')
  assert features.shape == (2, 432) and features.dtype == jnp.float32
  assert {k: v.shape[1:] for k, v in endpoints.items()} == {
    'stem': (16, 128, 128, 24),
    'stage_1': (16, 64, 64, 24),
    'stage_2': (16, 32, 32, 48),
    'stage_3': (16, 16, 16, 96),
    'stage_4': (16, 8, 8, 192),
    'last': (16, 8, 8, 432),
  }
  assert {v.dtype for v in endpoints.values()} == {jnp.dtype('bfloat16')}


def test_small_and_odd_clips_trace():
  _, (_, endpoints) = shapes_and_dtypes('mtnet_xs', 13, 45)
  assert endpoints['stage_4'].shape == (2, 13, 2, 2, 64)
  _, (_, endpoints) = shapes_and_dtypes('mtnet_xs', 1, 17)
  assert endpoints['stage_4'].shape == (2, 1, 1, 1, 64)


@functools.cache
def tiny(**fields):
  """A tiny network, one random batch of four clips, and variables."""
  model = mtnet.MTNet(5, **{**TINY, **fields})
  x = random_clips(4, 4, 16, 16, 3)
  return model, random_variables(model, x), x


@pytest.mark.slow
def test_half_precision_is_close_to_single():
  model, variables, x = tiny()
  expected, _ = jax.jit(model.apply)(variables, x)
  got, _ = jax.jit(model.copy(dtype=jnp.bfloat16).apply)(variables, x)
  assert got.dtype == jnp.float32
  scale = np.std(expected)
  assert 0 < np.max(np.abs(got - expected)) < 0.25 * scale


def test_training_step_reaches_every_parameter():
  model, variables, x = tiny()

  @jax.jit
  def step(params, key):
    def loss(params):
      (logits, _), updates = model.apply(
        {**variables, 'params': params},
        x,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': key},
      )
      return -jnp.mean(jax.nn.log_softmax(logits)[:, 0]), updates

    return jax.value_and_grad(loss, has_aux=True)(params)

  (loss, updates), gradients = step(variables['params'], jax.random.key(0))
  (other_loss, _), _ = step(variables['params'], jax.random.key(1))
  assert loss != other_loss  # dropout draws from its key
  for path, g in jax.tree.leaves_with_path(gradients):
    assert np.isfinite(g).all() and np.any(g), path
  changed = jax.tree.map(
    lambda a, b: bool(np.any(a != b)),
    updates['batch_stats'],
    variables['batch_stats'],
  )
  assert jax.tree.all(changed)


def test_statistics_of_sub_batches():
  model, variables, x = tiny(dropout=0.0, norm_batch_size=2, recurrence=False)

  @jax.jit
  def logits(x):
    out, _ = model.apply(variables, x, train=True, mutable=['batch_stats'])
    return out[0]

  apart = np.concatenate([logits(x[:2]), logits(x[2:])])
  np.testing.assert_allclose(logits(x), apart, atol=1e-4)


def test_gate_reports_each_block():
  model, variables, x = tiny(gate=True)
  _, endpoints = jax.jit(model.apply)(variables, x)
  shares = endpoints['gate_open']
  assert set(shares) == {'stage_1_block_1'}
  for share in shares.values():
    assert share.dtype == jnp.float32 and share in (0, 0.25, 0.5, 0.75, 1)


@pytest.mark.parametrize('pooling', ['softpool+cos', 'avg'])
def test_without_kernels_or_recurrence_in_time_reversal_is_not_seen(pooling):
  model, _, x = tiny(temporal_kernels=False, recurrence=False, pooling=pooling)
  both = jnp.stack([x, x[:, ::-1]])

  def logits(**fields):
    other = model.copy(**fields)
    out, _ = jax.jit(jax.vmap(other.apply, (None, 0)))(
      random_variables(other, x), both
    )
    assert np.std(out, axis=1).max() > 1e-2  # clips differ
    return out

  np.testing.assert_allclose(*logits(), atol=1e-6)
  # Either one of them tells a clip from its reversal.
  for key in ('temporal_kernels', 'recurrence'):
    forwards, backwards = logits(**{key: True})
    assert np.abs(forwards - backwards).max() > 2e-3, key


def test_frame_selection_sees_the_reversal_of_stills():
  # Four equal frames, then two: of the equally similar the first one stays.
  x = random_clips(4, 6, 16, 16, 3)[:, [0, 0, 0, 0, 1, 1]]
  model, variables, _ = tiny(temporal_kernels=False, recurrence=False)
  for pooling, seen in (('softpool+cos', True), ('avg', False)):
    apply = jax.jit(model.copy(pooling=pooling).apply)
    difference = apply(variables, x)[0] - apply(variables, x[:, ::-1])[0]
    assert (np.abs(difference).max() > 1e-3) == seen, pooling
    assert seen or np.abs(difference).max() < 1e-6


def test_every_mtconv_records_the_frames_that_it_keeps():
  model, variables, x = tiny()
  _, recorded = jax.jit(
    functools.partial(model.apply, mutable='intermediates')
  )(variables, x)
  recorded = recorded['intermediates']['stage_1_block_1']
  assert set(recorded) == {'expand', 'separated', 'project'}
  for name in recorded:
    (frames,) = recorded[name]['kept_frames']
    assert frames.shape == (4, 2) and frames.dtype == jnp.int32
    assert np.all(frames[:, 0] < frames[:, 1]), name


def test_fields_reach_every_mtconv(monkeypatch):
  made = []
  original = MTConv.__call__

  def spy(self, x):
    made.append((self.pooling, self.shared_selection, self.train))
    return original(self, x)

  monkeypatch.setattr(MTConv, '__call__', spy)
  model, variables, x = tiny(pooling='stochastic', shared_selection=False)
  made.clear()
  jax.eval_shape(model.apply, variables, x)
  keys = {'dropout': jax.random.key(0), 'pooling': jax.random.key(1)}
  jax.eval_shape(
    functools.partial(
      model.apply, train=True, mutable=['batch_stats'], rngs=keys
    ),
    variables,
    x,
  )
  assert made == [
    ('stochastic', False, train) for train in [False] * 3 + [True] * 3
  ]


@pytest.mark.parametrize('ratio', [0, -1, 1.01])
def test_local_ratio_outside_its_range(ratio):
  with pytest.raises(UserError, match='`local_ratio`'):
    models.build('mtnet_m', 400, local_ratio=ratio)


def test_local_ratio_that_leaves_a_block_without_local_channels():
  with pytest.raises(UserError, match='leaves none of 16 channels'):
    models.build('mtnet_xs', 10, local_ratio=0.05)


def test_unknown_cell():
  with pytest.raises(UserError, match=r"`cell` .='grru'.*'gru', 'lstm'"):
    models.build('mtnet_m', 400, cell='grru')


@pytest.mark.parametrize('repeat_edges', [True, False])
def test_ends_of_a_still_clip_stand_out_by_zeros_alone(repeat_edges):
  model, variables, x = tiny(recurrence=False, repeat_edges=repeat_edges)
  still = np.repeat(x[:, :1], 6, axis=1)
  _, endpoints = jax.jit(model.apply)(variables, still)
  out = endpoints['stage_1']
  assert (np.abs(out - out[:, 2:3]).max() < 1e-4) == repeat_edges
