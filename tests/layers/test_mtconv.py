"""The whole Multi-Temporal convolution against float64 loops."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.layers import mtconv
from mtnet_jax.layers.norm import BatchNorm
from tests.arrays import conv, norm, random_clips, random_variables, relu
from tests.ops.test_pooling import plain_pool
from tests.ops.test_up_sample import interpolate

NORM = functools.partial(BatchNorm, use_running_average=True)


def chosen_frames(x):
  """The half of one clip's frames with the lowest triplet scores, in order."""
  v = x.mean((1, 2))
  t = len(v)
  if t == 1:
    return [0]
  v = v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-6)
  cos = [v[i] @ v[i + 1] for i in range(t - 1)]
  scores = [2 * cos[0]] + [cos[i - 1] + cos[i] for i in range(1, t - 1)]
  scores.append(2 * cos[-1])
  return sorted(sorted(range(t), key=lambda i: scores[i])[: t // 2])


def whole_layer(x, variables, g, strides, separated, shared, pooling):
  """5.1–5.4 in float64."""
  p, s = variables['params'], variables['batch_stats']
  local = p['local']['kernel'].shape[-1]
  x_local, x_prolonged = (
    (x[..., :local], x[..., local:]) if separated else (x, x)
  )

  def unit(name, x, strides=(1, 1, 1)):
    y = conv(x, p[name]['kernel'], strides)
    return g(norm(y, p[f'{name}_norm'], s[f'{name}_norm']))

  def gather(x, frames):
    return np.stack([clip[f] for clip, f in zip(x, frames, strict=True)])

  y_local = unit('local', x_local, strides)
  kind, _, cos = pooling.partition('+')
  window = (1, 2, 2) if cos else (2, 2, 2)
  pooled, _ = plain_pool(x_prolonged[:, :: strides[0]], kind, window)
  pooled_local, _ = plain_pool(y_local, kind, window)
  if cos:
    frames = [chosen_frames(clip) for clip in pooled]
    own = [chosen_frames(clip) for clip in pooled_local]
    pooled = gather(pooled, frames)
    pooled_local = gather(pooled_local, frames if shared else own)
  y = unit('prolonged', pooled, (1, *strides[1:]))
  y = y + unit('pointwise', pooled_local)
  y = interpolate(y, y_local.shape[1:4])
  return np.concatenate([y_local, y], -1)


DENSE = {'kernel_size': (3, 3, 3)}
STRIDED = {**DENSE, 'strides': (2, 2, 2)}
SEPARATED = {'kernel_size': (3, 3, 3), 'channel_separated': True}
CASES = {
  'pointwise': ({'kernel_size': (1, 1, 1)}, (4, 6, 4)),
  'pointwise_without_activation': (
    {'kernel_size': (1, 1, 1), 'activation': None},
    (4, 6, 4),
  ),
  'dense_odd_sizes': (DENSE, (5, 5, 7)),
  'dense_strided': (STRIDED, (7, 6, 9)),
  'dense_strided_apart': ({**STRIDED, 'shared_selection': False}, (8, 6, 8)),
  'separated': (SEPARATED, (4, 4, 6)),
  'separated_strided': ({**SEPARATED, 'strides': (1, 2, 2)}, (5, 6, 7)),
  'separated_apart': ({**SEPARATED, 'shared_selection': False}, (6, 4, 4)),
  'one_element': (SEPARATED, (1, 1, 1)),
  # Frames: 5 after the stride and 3 in the prolonged branch, then 7 and 4.
  'avg': ({**STRIDED, 'pooling': 'avg'}, (9, 6, 5)),
  'max': ({**SEPARATED, 'pooling': 'max', 'strides': (1, 2, 2)}, (7, 5, 8)),
  'stochastic': ({**STRIDED, 'pooling': 'stochastic'}, (6, 4, 7)),
  'softpool': ({**SEPARATED, 'pooling': 'softpool'}, (5, 4, 3)),
  'softpool_of_one_element': ({**DENSE, 'pooling': 'softpool'}, (1, 1, 1)),
  'avg_cos': ({**STRIDED, 'pooling': 'avg+cos'}, (9, 5, 4)),
}


@pytest.mark.parametrize('case', CASES)
def test_equals_a_float64_loop(case):
  fields, size = CASES[case]
  separated = fields.get('channel_separated', False)
  x = random_clips(2, *size, 6 if separated else 5)
  module = mtconv.MTConv(6, local_ratio=0.7, norm=NORM, **fields)
  variables = random_variables(module, x)
  got = jax.jit(module.apply)(variables, x)
  strides = fields.get('strides', (1, 1, 1))
  expected = whole_layer(
    x.astype(np.float64),
    jax.tree.map(np.float64, variables),
    relu if fields.get('activation', True) else lambda a: a,
    strides,
    separated,
    fields.get('shared_selection', True),
    fields.get('pooling', 'softpool+cos'),
  )
  assert got.shape == (
    2,
    *(math.ceil(n / s) for n, s in zip(size, strides, strict=True)),
    6,
  )
  np.testing.assert_allclose(got, expected, atol=2e-5)


def test_selections_of_the_two_inputs_may_differ():
  # Else the cases above would not tell shared from separate selection.
  x = random_clips(2, 6, 4, 4, 6)
  shared = mtconv.MTConv(6, local_ratio=0.7, norm=NORM, **SEPARATED)
  apart = shared.copy(shared_selection=False)
  variables = random_variables(shared, x)
  a, b = (jax.jit(m.apply)(variables, x) for m in (shared, apart))
  assert not np.allclose(a[..., 4:], b[..., 4:], atol=1e-2)


def test_branches_may_stay_apart_from_layer_to_layer():
  x = random_clips(2, 6, 4, 4, 6)
  layer = mtconv.MTConv(6, local_ratio=0.7, norm=NORM, **SEPARATED)
  apart = layer.copy(joined=False)
  variables = random_variables(layer, x)
  branches = jax.jit(apart.apply)(variables, x)
  assert [branch.shape[-1] for branch in branches] == [4, 2]
  joined = layer.apply(variables, x)
  np.testing.assert_allclose(np.concatenate(branches, -1), joined, atol=1e-5)
  np.testing.assert_allclose(
    layer.apply(variables, branches),
    layer.apply(variables, joined),
    atol=1e-5,
  )


def test_kept_frames_are_recorded_where_asked_for():
  x = random_clips(2, 9, 4, 4, 5)
  module = mtconv.MTConv(6, local_ratio=0.7, norm=NORM, **STRIDED)
  variables = random_variables(module, x)
  assert 'intermediates' not in variables
  apply = jax.jit(functools.partial(module.apply, mutable='intermediates'))
  _, recorded = apply(variables, x)
  (frames,) = recorded['intermediates']['kept_frames']
  assert frames.dtype == jnp.int32
  # Of the five frames 0, 2, 4, 6, 8.
  pooled, _ = plain_pool(x[:, ::2], 'softpool', (1, 2, 2))
  expected = [chosen_frames(clip) for clip in pooled]
  assert np.shape(expected) == (2, 2) and expected[0] != expected[1]
  np.testing.assert_array_equal(frames, expected)
  # Windows in time choose none.
  _, recorded = jax.eval_shape(
    functools.partial(
      module.copy(pooling='avg').apply, mutable='intermediates'
    ),
    variables,
    x,
  )
  assert recorded == {}


def test_stochastic_pooling_draws_in_training():
  x = random_clips(2, 5, 4, 4, 6)
  module = mtconv.MTConv(
    6, local_ratio=0.5, pooling='stochastic', train=True, norm=NORM, **SEPARATED
  )
  variables = random_variables(module, x)

  @jax.jit
  def run(seed):
    return module.apply(variables, x, rngs={'pooling': jax.random.key(seed)})

  np.testing.assert_array_equal(run(0), run(0))
  assert np.any(run(0)[..., 3:] != run(1)[..., 3:])
  # The local branch comes before every pooling.
  np.testing.assert_array_equal(run(0)[..., :3], run(1)[..., :3])


def test_an_unknown_pooling_is_refused():
  module = mtconv.MTConv(6, (3, 3, 3), pooling='median', norm=NORM)
  with pytest.raises(UserError, match=r"`pooling` \(='median'\).*'avg\+cos'"):
    jax.eval_shape(module.init, jax.random.key(0), random_clips(1, 2, 2, 2, 5))


@pytest.mark.parametrize('separated', [False, True])
def test_parameters(separated):
  module = mtconv.MTConv(54, (3, 3, 3), channel_separated=separated, norm=NORM)
  variables = jax.eval_shape(
    module.init, jax.random.key(0), random_clips(1, 2, 2, 2, 54)
  )
  shapes = jax.tree.map(lambda a: a.shape, variables['params'])
  c = 1 if separated else 54
  # 47 + 7 of 54 channels, the example of the thesis, 6.4.1.
  assert {k: v['kernel'] for k, v in shapes.items() if 'kernel' in v} == {
    'local': (3, 3, 3, c, 47),
    'prolonged': (3, 3, 3, c, 7),
    'pointwise': (1, 1, 1, 47, 7),
  }
  assert {k: v['scale'] for k, v in shapes.items() if 'scale' in v} == {
    'local_norm': (47,),
    'prolonged_norm': (7,),
    'pointwise_norm': (7,),
  }


def test_ratio_one_is_the_plain_convolution():
  x = random_clips(1, 3, 4, 4, 5)
  module = mtconv.MTConv(6, (3, 3, 3), local_ratio=1.0, norm=NORM)
  variables = random_variables(module, x)
  assert set(variables['params']) == {'local', 'local_norm'}
  p = jax.tree.map(np.float64, variables)
  expected = relu(
    norm(
      conv(x.astype(np.float64), p['params']['local']['kernel']),
      p['params']['local_norm'],
      p['batch_stats']['local_norm'],
    )
  )
  np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)


def test_every_parameter_learns():
  x = random_clips(2, 4, 4, 4, 6)
  module = mtconv.MTConv(6, (3, 3, 3), local_ratio=0.5, channel_separated=True)
  variables = random_variables(module, x)

  @jax.jit
  @jax.grad
  def gradient(params):
    out, _ = module.apply(
      {**variables, 'params': params}, x, mutable=['batch_stats']
    )
    return jnp.sum(jnp.square(out))

  for path, leaf in jax.tree.leaves_with_path(gradient(variables['params'])):
    assert np.isfinite(leaf).all() and np.any(leaf), path


def test_half_precision():
  x = jnp.asarray(random_clips(1, 4, 6, 6, 8), jnp.bfloat16)
  module = mtconv.MTConv(8, (3, 3, 3), channel_separated=True, norm=NORM)
  variables = random_variables(module, x)
  half = functools.partial(module.conv, dtype=jnp.bfloat16)
  got = jax.jit(module.copy(conv=half).apply)(variables, x)
  expected = jax.jit(module.apply)(variables, x.astype(jnp.float32))
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    got.astype(jnp.float32), expected, atol=0.05, rtol=0.05
  )


@pytest.mark.parametrize(
  'features, ratio, expected',
  [
    (54, 7 / 8, (47, 7)),
    (24, 7 / 8, (21, 3)),
    (54, 1.0, (54, 0)),
    (100, 0.29, (29, 71)),  # the product is 28.999… in floating point
    (8, 0.999, (7, 1)),
    (2, 0.5, (1, 1)),
  ],
)
def test_branch_features(features, ratio, expected):
  assert mtconv.branch_features(features, ratio) == expected


@pytest.mark.parametrize('ratio', [0, -0.5, 1.5, float('nan')])
def test_ratio_outside_its_range(ratio):
  with pytest.raises(UserError, match=r'`local_ratio` \(=.*in \(0, 1\]'):
    mtconv.branch_features(24, ratio)


def test_ratio_that_leaves_no_local_channel():
  with pytest.raises(UserError, match=r'\(=0.1\) leaves none of 8 channels'):
    mtconv.branch_features(8, 0.1)


def test_channel_separated_needs_equal_channels():
  module = mtconv.MTConv(6, (3, 3, 3), channel_separated=True, norm=NORM)
  with pytest.raises(UserError, match=r'`features` \(=6\).*channels \(=5\)'):
    module.init(jax.random.key(0), random_clips(1, 2, 2, 2, 5))


def test_split_inputs():
  """Each branch reads its share of 6 channels, 4 and 2, of a dense layer."""
  x = random_clips(2, 6, 4, 4, 6)
  module = mtconv.MTConv(
    8, (3, 3, 3), local_ratio=0.7, branch_inputs='split', norm=NORM
  )
  variables = random_variables(module, x)
  shapes = jax.tree.map(np.shape, variables['params'])
  assert shapes['local']['kernel'] == (3, 3, 3, 4, 5)
  assert shapes['prolonged']['kernel'] == (3, 3, 3, 2, 3)
  # Their kernels among all channels, zeros elsewhere: a layer that reads all.
  whole = jax.tree.map(np.array, variables)
  for name, at in (('local', slice(0, 4)), ('prolonged', slice(4, 6))):
    own = variables['params'][name]['kernel']
    kernel = np.zeros((3, 3, 3, 6, own.shape[-1]), np.float32)
    kernel[..., at, :] = own
    whole['params'][name]['kernel'] = kernel
  # Frames that the whole input chooses are others than its last channels'.
  same = {'selection_input': 'every_second'}
  got = module.clone(**same).apply(variables, x)
  plain = module.clone(branch_inputs='all', **same).apply(whole, x)
  np.testing.assert_allclose(got, plain, rtol=1e-4, atol=1e-5)


def test_groups_of_a_separated_layer():
  """Two branches of 10 channels in 2 groups each: 6 and 4, not 7 and 3."""
  x = random_clips(1, 4, 4, 4, 10)
  module = mtconv.MTConv(
    10, (3, 3, 3), local_ratio=0.7, channel_separated=True, groups=2, norm=NORM
  )
  shapes = jax.tree.map(np.shape, random_variables(module, x)['params'])
  assert shapes['local']['kernel'] == (3, 3, 3, 3, 6)
  assert shapes['prolonged']['kernel'] == (3, 3, 3, 2, 4)


def test_frames_at_their_own_times():
  x = random_clips(2, 8, 4, 4, 5)
  module = mtconv.MTConv(
    6, (1, 1, 1), local_ratio=0.5, keep_times=True, norm=NORM
  )
  variables = random_variables(module, x)
  got, found = module.apply(variables, x, mutable=['intermediates'])
  (kept,) = found['intermediates']['kept_frames']
  # With `keep_times` a kept frame stays what the branch made of it.
  even, _ = module.clone(keep_times=False).apply(
    variables, x, mutable=['intermediates']
  )
  np.testing.assert_allclose(got[..., :3], even[..., :3], atol=1e-6)
  for n, frames in enumerate(np.asarray(kept)):
    prolonged = np.asarray(got)[n, ..., 3:]
    for t in range(8):
      series = [
        np.interp(t, frames, prolonged[frames, h, w, c])
        for h, w, c in np.ndindex(4, 4, 3)
      ]
      np.testing.assert_allclose(prolonged[t].ravel(), series, atol=1e-5)
  assert np.abs(np.asarray(got - even)[..., 3:]).max() > 0.1
