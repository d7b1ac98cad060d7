"""Kernels beside loops and definitions in float64, at odd sizes.

Channels are those at which a kernel changes its way: fewer than a small vector
has, a few vectors and a rest of more or less than half of one, exactly one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import metrics, native
from mtnet_jax.layers import (
  activation,
  frame_selection,
  mtconv,
  norm,
  recurrent,
  sums,
)
from mtnet_jax.layers.separated_conv import channel_separated_conv3d
from mtnet_jax.layers.soft_pool import soft_pool_beside
from tests import arrays, plain_forms
from tests.arrays import random_clips

CHANNELS = (1, 3, 4, 7, 8, 13, 16, 21, 30, 40)

pytestmark = pytest.mark.skipif(
  not native.available(), reason='there is no C++ compiler'
)


def values_and_gradients(function, *args):
  """Of a function of arrays, its results and the gradients of a random sum."""

  def run(*args):
    results, vjp = jax.vjp(function, *args)
    results = jax.tree.leaves(results)
    weights = [
      jnp.asarray(random_clips(*y.shape, seed=i + 7), y.dtype)
      for i, y in enumerate(results)
    ]
    tree = jax.tree.structure(jax.eval_shape(function, *args))
    return results, vjp(jax.tree.unflatten(tree, weights))

  return run(*args)


def check(called_kernels, kernels, function, plain, *args, bounds=(1e-5, 1e-5)):
  """Compares a function that calls kernels with a plain one in float64."""
  run = jax.jit(native.allow(functools.partial(values_and_gradients, function)))
  got = run(*args)
  assert called_kernels == set(kernels)
  with jax.enable_x64(True):
    wide = [np.float64(a) for a in args]
    wanted = values_and_gradients(plain, *wide)
  for bound, a, b in zip(bounds, got, wanted, strict=True):
    for mine, other in zip(a, b, strict=True):
      mine, other = np.float64(mine), np.float64(other)
      assert mine.shape == other.shape
      np.testing.assert_allclose(
        mine, other, rtol=0, atol=bound * np.abs(other).max()
      )


CONV = [
  'separated_conv_forward',
  'separated_conv_input_gradient',
  'separated_conv_kernel_gradient',
]


@pytest.mark.parametrize(
  ('volume', 'strides', 'size'),
  [
    ((3, 3, 3), (1, 1, 1), (4, 5, 21)),  # two tiles and a small one
    ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((3, 3, 3), (1, 2, 2), (3, 6, 17)),
    ((3, 3, 3), (1, 2, 2), (2, 5, 40)),
    ((3, 3, 3), (2, 2, 2), (5, 4, 3)),
    ((5, 1, 1), (1, 1, 1), (6, 3, 9)),
    ((1, 3, 3), (1, 1, 1), (2, 4, 8)),
  ],
)
def test_convolution_is_a_sum_over_taps(volume, strides, size):
  x, kernel = random_clips(2, *size, 21), random_clips(*volume, 1, 21, seed=1)
  run = jax.jit(
    native.allow(lambda x, k: channel_separated_conv3d(x, k, strides))
  )
  wanted = arrays.conv(np.float64(x), np.float64(kernel), strides)
  np.testing.assert_allclose(run(x, kernel), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize('c', CHANNELS)
@pytest.mark.parametrize(
  ('volume', 'strides', 'size'),
  [
    ((3, 3, 3), (1, 1, 1), (4, 5, 21)),
    ((3, 3, 3), (1, 2, 2), (3, 6, 17)),
    ((3, 3, 3), (2, 2, 2), (5, 3, 4)),
    ((5, 1, 1), (1, 1, 1), (6, 3, 9)),
  ],
)
def test_convolution(volume, strides, size, c, called_kernels):
  x, kernel = random_clips(2, *size, c), random_clips(*volume, 1, c, seed=1)
  fast = functools.partial(channel_separated_conv3d, strides=strides)
  plain = functools.partial(
    plain_forms.channel_separated_conv3d, strides=strides
  )
  check(called_kernels, CONV, fast, plain, x, kernel)


def test_a_backward_pass_goes_as_its_forward_pass_did(called_kernels):
  """Also where it is traced, no kernel being allowed any more."""
  x, kernel = random_clips(2, 3, 4, 5, 6), random_clips(3, 3, 3, 1, 6, seed=1)
  y, vjp = native.allow(lambda: jax.vjp(channel_separated_conv3d, x, kernel))()
  got = vjp(y)
  assert called_kernels == set(CONV)
  with jax.enable_x64(True):
    plain = plain_forms.channel_separated_conv3d
    wide, vjp = jax.vjp(plain, np.float64(x), np.float64(kernel))
    wanted = vjp(wide)
  for mine, other in zip(got, wanted, strict=True):
    bound = 1e-5 * np.abs(other).max()
    np.testing.assert_allclose(mine, other, rtol=0, atol=bound)


def test_convolution_of_many_frames(called_kernels):
  """The kernel's gradient is summed in parts: more frames than parts."""
  x = random_clips(3, 25, 3, 4, 5)
  kernel = random_clips(3, 3, 3, 1, 5, seed=1)
  plain = plain_forms.channel_separated_conv3d
  check(called_kernels, CONV, channel_separated_conv3d, plain, x, kernel)


@pytest.mark.parametrize(
  ('volume', 'strides'), [((3, 3, 5), (1, 1, 1)), ((3, 3, 1), (1, 1, 2))]
)
def test_other_kernels_are_left_to_xla(volume, strides, called_kernels):
  x, kernel = random_clips(1, 2, 3, 6, 4), random_clips(*volume, 1, 4, seed=1)
  fast = functools.partial(channel_separated_conv3d, strides=strides)
  plain = functools.partial(
    plain_forms.channel_separated_conv3d, strides=strides
  )
  check(called_kernels, [], fast, plain, x, kernel)


POOL = ['soft_pool_forward', 'soft_pool_backward']


@pytest.mark.parametrize('c', CHANNELS)
@pytest.mark.parametrize('size', [(3, 4, 6), (2, 5, 7), (1, 1, 3), (2, 3, 1)])
def test_soft_pool(size, c, called_kernels):
  x = 5 * random_clips(2, *size, c)
  check(called_kernels, POOL, soft_pool_beside, plain_forms.soft_pool_beside, x)


def test_soft_pool_of_chosen_frames(called_kernels):
  frames = np.array([[0, 2], [1, 4]], np.int32)
  check(
    called_kernels,
    POOL,
    functools.partial(soft_pool_beside, frames=frames),
    functools.partial(plain_forms.soft_pool_beside, frames=frames),
    random_clips(2, 5, 3, 4, 6),
  )


def test_soft_pool_far_from_zero(called_kernels):
  """Of elements that are far apart the largest remains, and none overflows."""
  x = np.zeros((1, 1, 2, 2, 4), np.float32)
  x[0, 0, :, :, 0] = [[1e4, -1e4], [0, 0]]
  x[0, 0, :, :, 1] = [[-3e38, 3e38], [0, 0]]
  x[0, 0, :, :, 2] = -1e30
  x[0, 0, :, :, 3] = [[88, 89], [88, 89]]
  y = jax.jit(native.allow(lambda x: soft_pool_beside(x)[1]))(x)
  assert called_kernels == {POOL[0]}
  e = np.exp(1.0)
  wanted = [1e4, 3e38, -1e30, (88 + 89 * e) / (1 + e)]
  np.testing.assert_allclose(y.ravel(), wanted, rtol=1e-6)


@pytest.mark.parametrize(
  ('old', 'new'),
  [((2, 3, 4), (4, 6, 8)), ((2, 3, 4), (5, 5, 7)), ((1, 1, 1), (3, 2, 1))],
)
@pytest.mark.parametrize('c', [1, 7, 20])
def test_up_sample(old, new, c, called_kernels):
  check(
    called_kernels,
    ['up_sample_forward', 'up_sample_backward'],
    lambda x: mtconv.up_sample(x, new),
    lambda x: plain_forms.up_sample(x, new),
    random_clips(2, *old, c),
  )


@pytest.mark.parametrize('c', CHANNELS)
def test_mean(c, called_kernels):
  """More rows than a piece has, at most channels."""
  check(
    called_kernels,
    ['sums'],
    lambda x: sums.mean(x, 2),
    lambda x: x.mean((2, 3)),
    1 + random_clips(2, 3, 67, 31, c),
  )


@pytest.mark.parametrize('c', CHANNELS)
@pytest.mark.parametrize('function', [None, 'relu', 'swish'])
def test_norm(function, c, called_kernels):
  act = function and getattr(activation, function)

  def fast(x, scale, bias):
    return norm.normalize(x, scale, bias, 1e-3, act, x.dtype)[0]

  def plain(x, scale, bias):
    mean = x.mean((1, 2, 3), keepdims=True)
    var = ((x - mean) ** 2).mean((1, 2, 3), keepdims=True)
    y = (x - mean) / jnp.sqrt(var + 1e-3)
    y = y * scale.reshape(1, 1, 1, 1, c) + bias.reshape(1, 1, 1, 1, c)
    return act(y) if act else y

  check(
    called_kernels,
    ['norm_forward', 'norm_backward'],
    fast,
    plain,
    0.5 + random_clips(2, 3, 5, 7, c),
    random_clips(c, seed=1),
    random_clips(c, seed=2),
    bounds=(1e-5, 1e-4),
  )


def test_norm_of_a_constant_channel(called_kernels):
  """It becomes the bias; its gradient is finite."""
  x = np.full((1, 2, 3, 3, 5), 0.1, np.float32)
  one, two = np.ones(5, np.float32), np.full(5, 2, np.float32)

  def run(x):
    return norm.normalize(x, one, two, 1e-5, None, x.dtype)

  y, mean, var = jax.jit(native.allow(run))(x)
  assert called_kernels == {'norm_forward'}
  np.testing.assert_allclose(y, 2, rtol=1e-6)
  np.testing.assert_allclose(mean, 0.1, rtol=1e-6)
  np.testing.assert_allclose(var, 0, atol=1e-9)
  dx = jax.grad(native.allow(lambda x: (run(x)[0] ** 3).sum()))(x)
  np.testing.assert_allclose(dx, 0, atol=1e-2)  # of 12 · sqrt(1e5)


def test_norm_of_a_mean_ten_deviations_from_zero(called_kernels):
  """E[x²] - E[x]² loses digits; they are to be few."""
  x = np.float32(10 + np.random.default_rng(0).normal(size=(1, 50_000, 4)))
  one = np.ones(4, np.float32)
  run = native.allow(
    lambda x: norm.normalize(x, one, 0 * one, 1e-5, None, x.dtype)
  )
  _, mean, var = jax.jit(run)(x)
  assert called_kernels == {'norm_forward'}
  np.testing.assert_allclose(mean[0], np.float64(x)[0].mean(0), rtol=1e-6)
  np.testing.assert_allclose(var[0], np.float64(x)[0].var(0), rtol=2e-5)


@pytest.mark.parametrize('first', [1, 2])
@pytest.mark.parametrize('function', [None, 'relu', 'swish'])
def test_scale(function, first, called_kernels):
  act = function and getattr(activation, function)
  x = random_clips(2, 3, 4, 5, 21)
  shape = (*x.shape[:first], *[1] * (4 - first), 21)

  def fast(x, gain, offset):
    return activation.scale_and_activate(x, gain, offset, act, x.dtype)

  def plain(x, gain, offset):
    return plain_forms.scale_and_activate(x, gain, offset, act, x.dtype)

  gain, offset = random_clips(*shape, seed=1), random_clips(*shape, seed=2)
  check(called_kernels, ['scale_gradient'], fast, plain, x, gain, offset)


@pytest.mark.parametrize('frames', [1, 2, 7, 8])
def test_select_frames(frames, called_kernels):
  x = random_clips(5, frames, 3, 4, 6)
  x[-1] = x[-1, :1]  # alike: the earlier ones are kept
  x[-2, :, :, :, :] = 0
  run = jax.jit(native.allow(frame_selection.select_frame_indices))
  indices = run(x)
  assert called_kernels == {'select_frames'}
  assert indices.dtype == jnp.int32
  with jax.enable_x64(True):
    wanted = plain_forms.select_frame_indices(jnp.asarray(np.float64(x)))
  np.testing.assert_array_equal(indices, wanted)


def test_select_frames_with_a_nan(called_kernels):
  """What is no number comes last, as where XLA sorts."""
  x = random_clips(1, 8, 2, 2, 3)
  x[0, 0] = np.nan
  run = jax.jit(native.allow(frame_selection.select_frame_indices))
  plain = jax.jit(frame_selection.select_frame_indices)(x)
  np.testing.assert_array_equal(run(x), plain)
  assert called_kernels == {'select_frames'}
  assert 0 not in np.asarray(run(x))


@pytest.mark.parametrize('n', [1, 3, 9])
@pytest.mark.parametrize('h', [1, 5, 16, 23])
def test_gru(h, n, called_kernels):
  layer = recurrent.RecurrentLayer('gru', h)
  plain = plain_forms.RecurrentLayer('gru', h)
  args = (
    random_clips(n, 6, 4),
    random_clips(4, 3 * h, seed=1),
    random_clips(h, 3 * h, seed=2) / h**0.5,
    random_clips(3 * h, seed=3),
  )

  def apply(module, x, *params):
    names = ('kernel_x', 'kernel_h', 'bias')
    return module.apply({'params': dict(zip(names, params, strict=True))}, x)

  check(
    called_kernels,
    ['gru_forward', 'gru_backward'],
    functools.partial(apply, layer),
    functools.partial(apply, plain),
    *args,
  )


def test_square_sum(called_kernels):
  leaves = [
    random_clips(*shape, seed=i)
    for i, shape in enumerate([(), (3,), (40, 41), (16,), (0,), (5000,)])
  ]
  got = jax.jit(native.allow(metrics.tree_norm))(leaves)
  assert called_kernels == {'square_sum'}
  wanted = sum(np.sum(np.float64(a) ** 2) for a in leaves) ** 0.5
  np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_clips_of_a_batch_apart():
  """`jax.vmap` gives what a loop gives."""
  x, kernel = random_clips(3, 1, 2, 3, 5, 4), random_clips(3, 3, 3, 1, 4)
  run = native.allow(lambda x: channel_separated_conv3d(x, kernel))
  wanted = np.stack([run(clip) for clip in x])
  np.testing.assert_array_equal(jax.vmap(run)(x), wanted)


def test_other_precisions_are_left_to_xla(called_kernels):
  x = random_clips(1, 2, 3, 4, 4)
  run = jax.jit(native.allow(lambda x: soft_pool_beside(x)[1]))
  assert run(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16
  with jax.enable_x64(True):
    assert run(np.float64(x)).dtype == jnp.float64
  assert not called_kernels
