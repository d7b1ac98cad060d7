"""3-D ResNets against plain convolutions, SRTG's places, errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.models import resnet3d, units
from tests.arrays import (
  conv,
  norm,
  random_clips,
  random_variables,
  relu,
  sigmoid,
)

SIMPLE = ('start', 'mid', 'res', 'final')
BOTTLENECK = ('start', 'top', 'mid', 'end', 'res', 'final')


def plain_unit(x, params, stats, strides=(1, 1, 1)):
  """3×3×3 or 1×1×1 and BN, or in space, BN, ReLU, in time, BN."""
  if 'spatial' in params:
    x = conv(x, params['spatial']['kernel'], (1, *strides[1:]))
    x = relu(norm(x, params['spatial_norm'], stats['spatial_norm']))
    x = conv(x, params['temporal']['kernel'], (strides[0], 1, 1))
  else:
    x = conv(x, params['conv']['kernel'], strides)
  return norm(x, params['norm'], stats['norm'])


def plain_srtg(x, params):
  """An open gate: two LSTM layers (4.1–4.5) follow the means of the frames."""
  frames = x.mean((2, 3))
  for name in ('layer_0', 'layer_1'):
    p = params['recurrence'][name]
    h = c = np.zeros((len(x), x.shape[-1]))
    for t in range(x.shape[1]):
      a = frames[:, t] @ p['kernel_x'] + h @ p['kernel_h'] + p['bias']
      i, f, g, o = np.split(a, 4, axis=1)
      c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
      h = sigmoid(o) * np.tanh(c)
      frames[:, t] = h
  return x * frames[:, :, None, None]


def plain_block(x, variables, strides, placement=None):
  """Fig. 4.5, both kinds of block, with SRTG where it is asked for."""
  params, stats = variables['params'], variables['batch_stats']

  def unit(name, x, strides=(1, 1, 1)):
    return plain_unit(x, params[name], stats[name], strides)

  def at(place, x):
    return plain_srtg(x, params['srtg']) if place == placement else x

  x = at('start', x)
  if 'conv_3' in params:
    y = at('top', relu(unit('conv_1', x)))
    y = at('mid', relu(unit('conv_2', y, strides)))
    y = at('end', unit('conv_3', y))
  else:
    y = at('mid', relu(unit('conv_1', x, strides)))
    y = unit('conv_2', y)
  residual = unit('shortcut', x, strides) if 'shortcut' in params else x
  return at('final', relu(y + at('res', residual)))


def block(depth, convolution, in_features, features, strides, **fields):
  """One block as the network of that depth makes it."""
  model = resnet3d.ResNet3D(5, depth, convolution, **fields)
  units = model.make_units(train=False)
  return model.make_block(units, in_features, features, strides)


@pytest.mark.parametrize('convolution', ['r3d', 'r2plus1d'])
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize(
  'in_features, strides', [(4, (2, 2, 2)), (6, (1,) * 3)]
)
def test_block_equals_plain_convolutions(
  convolution, depth, in_features, strides
):
  x = random_clips(2, 5, 6, 5, in_features)
  module = block(depth, convolution, in_features, 6, strides)
  variables = random_variables(module, x)
  assert ('shortcut' in variables['params']) == (in_features != 6)
  got, share = jax.jit(module.apply)(variables, x)
  assert share is None
  expected = plain_block(x, variables, strides)
  np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize(
  'depth, placement',
  [(18, p) for p in SIMPLE] + [(50, p) for p in BOTTLENECK],
)
def test_srtg_at_its_place(depth, placement):
  # As many channels everywhere, and a stride: only the place tells them apart.
  strides = (2, 2, 2)
  x = random_clips(3, 5, 6, 6, 6)
  module = block(depth, 'r3d', 6, 6, strides, placement=placement, gate=False)
  variables = random_variables(module, x)
  got, share = jax.jit(module.apply)(variables, x)
  assert share is None
  expected = plain_block(x, variables, strides, placement)
  np.testing.assert_allclose(got, expected, atol=2e-5)
  others = {None, *(SIMPLE if depth == 18 else BOTTLENECK)} - {placement}
  for other in others:
    elsewhere = plain_block(x, variables, strides, other)
    assert np.abs(got - elsewhere).max() > 0.1, other


def plain_max_pool(x):
  """3×3×3 with a stride of 2, borders padded by one."""
  padded = np.pad(
    x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf
  )
  out = np.zeros(
    (len(x), *(math.ceil(n / 2) for n in x.shape[1:4]), x.shape[4])
  )
  for t, i, j in np.ndindex(*out.shape[1:4]):
    window = padded[:, 2 * t : 2 * t + 3, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
    out[:, t, i, j] = window.max((1, 2, 3))
  return out


def plain_network(x, variables, blocks):
  """Table 6.1a: stem, max-pool, four stages, average, classifier."""
  params, stats = variables['params'], variables['batch_stats']
  x = relu(plain_unit(x, params['stem'], stats['stem'], (1, 2, 2)))
  x = plain_max_pool(x)
  for i, count in enumerate(blocks, start=1):
    for j in range(1, count + 1):
      name = f'stage_{i}_block_{j}'
      strides = (2, 2, 2) if i > 1 and j == 1 else (1, 1, 1)
      x = plain_block(
        x, {'params': params[name], 'batch_stats': stats[name]}, strides
      )
  classifier = params['classifier']
  return x.mean((1, 2, 3)) @ classifier['kernel'] + classifier['bias'][None]


@pytest.mark.parametrize(
  'name, blocks',
  [
    ('r3d_18', (2, 2, 2, 2)),
    ('r2plus1d_18', (2, 2, 2, 2)),
    pytest.param('r3d_152', (3, 8, 36, 3), marks=pytest.mark.slow),
  ],
)
def test_whole_network_equals_plain_convolutions(name, blocks):
  x = random_clips(2, 5, 18, 20, 3)
  # As deep as it is, but narrow: the widths are counted in test_parameters.
  model = models.build(name, 7, stage_features=(4, 6, 8, 10))
  variables = random_variables(model, x)
  assert {k for k in variables['params'] if k.startswith('stage')} == {
    f'stage_{i}_block_{j}'
    for i, count in enumerate(blocks, start=1)
    for j in range(1, count + 1)
  }
  logits, _ = jax.jit(
    model.apply, compiler_options={'xla_backend_optimization_level': 0}
  )(variables, x)
  expected = plain_network(
    np.float64(x), jax.tree.map(np.float64, variables), blocks
  )
  assert np.std(expected) > 0.1
  np.testing.assert_allclose(
    logits, expected, atol=1e-5 * np.abs(expected).max()
  )


def test_gates_open_clip_by_clip():
  # With i = o = 1 and f = 0 a layer's states are tanh(tanh(input)). They follow
  # the first clip; the second one's frames are alike and cannot be told.
  frames = np.float32([[-0.9, 0.0, 0.9], [0.5, 0.5, 0.5]])
  x = np.tile(frames.reshape(2, 3, 1, 1, 1), (1, 1, 2, 2, 4))
  module = block(18, 'r3d', 4, 6, (1, 1, 1), placement='start')
  variables = random_variables(module, x)
  layer = {
    'kernel_x': np.pad(np.eye(4, dtype=np.float32), ((0, 0), (8, 4))),
    'kernel_h': np.zeros((4, 16), np.float32),
    'bias': np.float32([50, -50, 0, 50]).repeat(4),
  }
  variables['params']['srtg'] = {
    'recurrence': {'layer_0': layer, 'layer_1': layer}
  }
  got, share = jax.jit(module.apply)(variables, x)
  assert share == 0.5 and share.dtype == jnp.float32 and share.shape == ()
  fused = x[0] * np.tanh(np.tanh(np.tanh(np.tanh(x[0]))))
  expected = plain_block(np.stack([fused, x[1]]), variables, (1, 1, 1))
  np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize('placement', ['start', 'mid', 'final'])
def test_srtg_is_as_wide_as_what_it_scales(placement):
  model = resnet3d.ResNet3D(5, 50, 'r3d', width=2, placement=placement)
  x = jax.ShapeDtypeStruct((1, 4, 16, 16, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), x)['params']
  kernel = params['stage_2_block_1']['srtg']['recurrence']['layer_0'][
    'kernel_x'
  ]
  width = {'start': 64, 'mid': 256, 'final': 128}[placement]
  assert kernel.shape == (width, 4 * width)


def test_gradients_reach_every_parameter_of_an_srtg_block():
  x = random_clips(2, 2, 3, 3, 4)
  model = resnet3d.ResNet3D(5, 18, 'r2plus1d', placement='final', gate=False)
  module = model.make_block(model.make_units(train=True), 4, 6, (1, 2, 2))
  variables = random_variables(module, x)

  @jax.jit
  @jax.grad
  def gradient(params):
    (y, _), _ = module.apply(
      {**variables, 'params': params}, x, mutable=['batch_stats']
    )
    return jnp.sum(jnp.square(y))

  for path, g in jax.tree.leaves_with_path(gradient(variables['params'])):
    assert np.isfinite(g).all() and np.any(g), path


@pytest.mark.parametrize(
  'in_features, features, expected',
  # 3→64 at 7×7 has 45 by its own formula; these are of 3×3×3.
  [(64, 64, 144), (64, 128, 230), (128, 128, 288), (256, 512, 921)],
)
def test_factorized_features(in_features, features, expected):
  assert units.factorized_features(in_features, features) == expected


def trace(name, frames, size, **overrides):
  model = models.build(name, 400, **overrides)
  x = jax.ShapeDtypeStruct((2, frames, size, size, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  return variables, jax.eval_shape(model.apply, variables, x)


@pytest.mark.parametrize('name', ['r3d_18', 'r2plus1d_18'])
def test_endpoints(name):
  _, (logits, endpoints) = trace(name, 16, 224)
  assert logits.shape == (2, 400) and logits.dtype == jnp.float32
  for name in ('gate_open', 'early_predictions', 'early_scores'):
    assert endpoints.pop(name) == {}
  assert {k: v.shape[1:] for k, v in endpoints.items()} == {
    'stem': (8, 56, 56, 64),
    'stage_1': (8, 56, 56, 64),
    'stage_2': (4, 28, 28, 128),
    'stage_3': (2, 14, 14, 256),
    'stage_4': (1, 7, 7, 512),
    'last': (1, 7, 7, 512),
    'features': (512,),
  }


def test_without_the_stems_pooling_every_stage_is_twice_as_large():
  _, (_, endpoints) = trace('r3d_18', 8, 56, stem_pool=False)
  sizes = {k: endpoints[k].shape[1:4] for k in ('stem', 'stage_1', 'stage_4')}
  assert sizes == {
    'stem': (8, 28, 28),
    'stage_1': (8, 28, 28),
    'stage_4': (1, 4, 4),
  }


def test_narrow_stages():
  widths = {'stage_features': (4, 6, 10, 14)}
  variables, (_, endpoints) = trace('srtg_r3d_18', 8, 32, **widths)
  found = [endpoints[f'stage_{i}'].shape[-1] for i in (1, 2, 3, 4)]
  assert found == [4, 6, 10, 14]
  params = variables['params']
  assert params['stem']['conv']['kernel'].shape == (3, 7, 7, 3, 4)
  block = params['stage_3_block_1']
  assert block['conv_1']['conv']['kernel'].shape == (3, 3, 3, 6, 10)
  assert block['srtg']['recurrence']['layer_0']['kernel_x'].shape == (10, 40)
  assert params['classifier']['kernel'].shape == (14, 400)


def test_half_precision():
  variables, (logits, endpoints) = trace(
    'srtg_r3d_18', 16, 32, dtype='bfloat16'
  )
  assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  assert logits.dtype == endpoints['features'].dtype == jnp.float32
  assert endpoints['stage_3'].dtype == jnp.bfloat16
  shares = endpoints['gate_open']
  # The fourth stage has one frame: its gates are open and not counted.
  assert set(shares) == {
    f'stage_{i}_block_{j}' for i in (1, 2, 3) for j in (1, 2)
  }
  assert {s.dtype for s in shares.values()} == {jnp.dtype('float32')}


def test_stem():
  x = random_clips(1, 3, 9, 9, 3)
  model = resnet3d.ResNet3D(5, 18, 'r3d')
  shapes = jax.eval_shape(model.init, jax.random.key(0), x)['params']
  assert shapes['stem']['conv']['kernel'].shape == (3, 7, 7, 3, 64)
  long = jax.eval_shape(model.copy(stem_frames=7).init, jax.random.key(0), x)
  assert long['params']['stem']['conv']['kernel'].shape == (7, 7, 7, 3, 64)
  factorized = jax.eval_shape(
    model.copy(convolution='r2plus1d').init, jax.random.key(0), x
  )['params']['stem']
  assert factorized['spatial']['kernel'].shape == (1, 7, 7, 3, 45)
  assert factorized['temporal']['kernel'].shape == (3, 1, 1, 45, 64)


def test_mt_r3d_has_prolonged_branches_and_no_recurrence():
  variables, _ = trace('mt_r3d_50', 16, 64)
  params = variables['params']
  assert set(params['stem']) == {'conv', 'norm'}
  for name, value in params.items():
    if name.startswith('stage'):
      assert 'prolonged' in value['conv_2'] and 'srtg' not in value
      assert value['conv_2']['local']['kernel'].shape[:3] == (3, 3, 3)
      assert set(value['conv_1']) == {'conv', 'norm'}


@pytest.mark.parametrize('train', [False, True])
def test_mt_r3d_hands_its_fields_to_mtconv(train):
  model = models.build(
    'mt_r3d_50', 5, local_ratio=0.5, pooling='max', shared_selection=False
  )
  unit = model.make_units(train).main(6, kernel_size=(3, 3, 3))
  assert (unit.local_ratio, unit.pooling) == (0.5, 'max')
  assert not unit.shared_selection and not unit.channel_separated
  assert unit.train == train


@pytest.mark.parametrize('name', ['mt_r3d_50', 'mtnet_xs'])
def test_unknown_pooling(name):
  with pytest.raises(UserError, match=r"`pooling` \(='cos'\).*'softpool\+cos'"):
    models.build(name, 400, pooling='cos')


@pytest.mark.parametrize('placement', ['top', 'end'])
def test_placement_that_a_simple_block_lacks(placement):
  message = rf"`placement` \(='{placement}'\).*Simple.*'start', 'mid', 'res'"
  with pytest.raises(UserError, match=message):
    models.build('srtg_r3d_34', 400, placement=placement)
  assert models.build('srtg_r3d_50', 400, placement=placement)


def test_unknown_placement():
  with pytest.raises(UserError, match=r"\(='middle'\).*Bottleneck.*'mid'"):
    models.build('srtg_r3d_50', 400, placement='middle')


def test_batch_norm_is_bound_to_the_mode():
  model = resnet3d.ResNet3D(5, 18, 'r3d', norm_batch_size=2)
  norm = model.make_units(train=True).plain(4, (1, 1, 1)).norm()
  assert not norm.use_running_average and norm.batch_size == 2
  assert (
    model.make_units(train=False).plain(4, (1, 1, 1)).norm().use_running_average
  )


def test_shortcuts_without_weights_skip_positions_and_add_zeros():
  """Where the branch is nothing, a block is its shortcut."""
  x = np.abs(random_clips(1, 3, 5, 4, 2))
  shortcut = units.PaddedShortcut(5, (2, 2, 2))
  y = shortcut.apply({}, x)
  assert y.shape == (1, 2, 3, 2, 5)
  for t, h, w in np.ndindex(2, 3, 2):
    np.testing.assert_array_equal(y[0, t, h, w, :2], x[0, 2 * t, 2 * h, 2 * w])
  np.testing.assert_array_equal(y[..., 2:], 0)
  model = models.build('hara_r3d_18', 5, project_shortcuts=False)
  clips = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), clips)['params']
  assert not any('shortcut' in block for block in shapes.values())


@pytest.mark.parametrize(
  ('name', 'frames'),
  [
    ('mc3_18', [16, 16, 16, 16, 16]),
    ('hara_r3d_18', [8, 8, 4, 2, 1]),
    ('r2plus1d_34_ig65m', [16, 16, 8, 4, 2]),
    ('r2plus1d_34_mmaction2', [16, 16, 8, 4, 2]),
  ],
)
def test_frames_of_other_authors_stages(name, frames):
  """Of 16; MMAction2's pool sees one frame."""
  model = models.build(name, 5)
  clips = jax.ShapeDtypeStruct((1, 16, 64, 64, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), clips)
  _, endpoints = jax.eval_shape(model.apply, variables, clips)
  keys = ['stem', *(f'stage_{i}' for i in range(1, 5))]
  assert [endpoints[key].shape[1] for key in keys] == frames
  pooled = name in ('hara_r3d_18', 'r2plus1d_34_mmaction2')
  sizes = [16, 16, 8, 4, 2] if pooled else [32, 32, 16, 8, 4]
  assert [endpoints[key].shape[2] for key in keys] == sizes
