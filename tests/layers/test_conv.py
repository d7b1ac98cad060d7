"""3-D convolutions against loops over their definition."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mtnet_jax.errors import UserError
from mtnet_jax.layers import conv
from tests import arrays as plain

# shape of x, kernel size, strides
SEPARATED = [
  ((2, 3, 4, 5, 3), (3, 3, 3), (1, 1, 1)),
  ((2, 3, 5, 4, 3), (3, 3, 3), (1, 2, 2)),
  ((1, 5, 4, 5, 2), (3, 3, 3), (2, 2, 2)),
  ((1, 6, 2, 3, 2), (5, 1, 1), (1, 1, 1)),
  ((1, 18, 2, 2, 2), (3, 3, 3), (1, 1, 1)),  # more frames than one sum takes
  ((1, 4, 5, 7, 2), (2, 3, 4), (1, 3, 2)),  # even kernels, stride as long as k
  ((1, 3, 4, 5, 2), (1, 1, 1), (2, 2, 2)),  # input elements that no output met
  ((1, 1, 1, 1, 2), (3, 3, 3), (2, 2, 2)),  # mostly padding
]
DENSE = [
  ((2, 3, 4, 3, 3), (1, 1, 1), (1, 1, 1)),
  ((1, 3, 4, 5, 3), (1, 1, 1), (2, 2, 2)),
  ((1, 3, 5, 4, 3), (3, 3, 3), (1, 2, 2)),  # frames side by side in channels
  ((1, 3, 5, 4, 17), (3, 3, 3), (2, 2, 2)),  # frame by frame, small maps
  ((1, 3, 9, 10, 17), (3, 3, 3), (1, 1, 1)),  # frame by frame
  ((2, 4, 10, 9, 17), (3, 3, 3), (2, 2, 2)),
  ((1, 1, 9, 8, 17), (3, 3, 3), (2, 1, 2)),  # outer frames of the kernel idle
  ((1, 5, 8, 9, 17), (5, 2, 3), (3, 2, 1)),
  ((1, 5, 2, 3, 17), (3, 1, 1), (2, 1, 2)),
  ((1, 2, 6, 5, 3), (1, 3, 3), (1, 2, 2)),  # windows copied out
  ((1, 3, 7, 8, 3), (3, 7, 7), (1, 2, 2)),
  ((1, 3, 5, 4, 2), (2, 3, 4), (1, 1, 2)),
]


def loops(x, kernel, strides, separated=False):
  """The definition: for every output position, its window times the kernel."""
  x, kernel = np.float64(x), np.float64(kernel)
  size = kernel.shape[:3]
  padding = [(0, 0), *[(k // 2, k // 2) for k in size], (0, 0)]
  padded = np.pad(x, padding)
  shape = [
    (n - k) // s + 1
    for n, k, s in zip(padded.shape[1:4], size, strides, strict=True)
  ]
  y = np.zeros((x.shape[0], *shape, kernel.shape[-1]))
  for position in np.ndindex(*shape):
    window = [
      slice(p * s, p * s + k)
      for p, s, k in zip(position, strides, size, strict=True)
    ]
    patch = padded[:, *window]
    if separated:
      y[:, *position] = np.einsum('nijkc,ijkc->nc', patch, kernel[:, :, :, 0])
    else:
      y[:, *position] = np.einsum('nijkc,ijkcf->nf', patch, kernel)
  return y


def gradients(function, x, kernel, dy):
  """Gradients of `sum(function · dy)`, one element of x or kernel at a time.

  Convolution is linear in each, so that a unit step is exact.
  """
  by_x, by_kernel = np.zeros(x.shape), np.zeros(kernel.shape)
  for grad, call in (
    (by_x, lambda step: function(step, kernel)),
    (by_kernel, lambda step: function(x, step)),
  ):
    for index in np.ndindex(*grad.shape):
      step = np.zeros(grad.shape)
      step[index] = 1
      grad[index] = np.sum(call(step) * dy)
  return by_x, by_kernel


def arrays(shape, size, features=None, seed=0):
  """Random x and kernel; channel-separated unless `features` is given."""
  rng = np.random.default_rng(seed)
  c = shape[-1]
  kernel_shape = (*size, c, features) if features else (*size, 1, c)
  x, kernel = rng.normal(size=shape), rng.normal(size=kernel_shape)
  return np.float32(x), np.float32(kernel)


@pytest.mark.parametrize(('shape', 'size', 'strides'), SEPARATED)
def test_channel_separated_equals_its_definition(shape, size, strides):
  x, kernel = arrays(shape, size)

  @jax.jit
  def run(x, kernel, dy):
    y, vjp = jax.vjp(
      lambda x, k: conv.channel_separated_conv3d(x, k, strides), x, kernel
    )
    return y, vjp(dy)

  def define(x, kernel):
    return loops(x, kernel, strides, separated=True)

  expected = define(x, kernel)
  dy = np.random.default_rng(1).normal(size=expected.shape)
  y, grads = run(x, kernel, np.float32(dy))
  chex.assert_type([y, *grads], jnp.float32)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
  for grad, reference in zip(
    grads, gradients(define, x, kernel, dy), strict=True
  ):
    np.testing.assert_allclose(grad, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('shape', 'size', 'strides'), DENSE)
def test_dense_equals_its_definition(shape, size, strides):
  x, kernel = arrays(shape, size, features=4)
  y = jax.jit(conv.conv3d, static_argnums=2)(x, kernel, strides)
  chex.assert_type(y, jnp.float32)
  np.testing.assert_allclose(y, loops(x, kernel, strides), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('shape', 'size', 'strides'), DENSE)
def test_dense_gradients_equal_those_of_xla(shape, size, strides):
  x, kernel = arrays(shape, size, features=4)
  convolve = functools.partial(conv.conv3d, strides=strides)
  y, vjp = jax.jit(lambda x, k: jax.vjp(convolve, x, k))(x, kernel)
  dy = np.random.default_rng(1).normal(size=y.shape)
  with jax.enable_x64(True):
    plain = functools.partial(
      jax.lax.conv_general_dilated,
      window_strides=strides,
      padding=[(n // 2, n // 2) for n in size],
      dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
    )
    expected = jax.vjp(plain, np.float64(x), np.float64(kernel))[1](dy)
    expected = [np.asarray(ref) for ref in expected]
  for grad, ref in zip(vjp(np.float32(dy)), expected, strict=True):
    np.testing.assert_allclose(grad, ref, rtol=0, atol=1e-5 * abs(ref).max())


@pytest.mark.parametrize(('shape', 'size', 'strides'), [DENSE[1], DENSE[-2]])
def test_dense_gradients_through_the_platform_switch(shape, size, strides):
  x, kernel = arrays(shape, size, features=2)
  expected = loops(x, kernel, strides)
  dy = np.random.default_rng(1).normal(size=expected.shape)

  @jax.jit
  def run(x, kernel, dy):
    return jax.vjp(lambda x, k: conv.conv3d(x, k, strides), x, kernel)[1](dy)

  reference = gradients(
    lambda x, kernel: loops(x, kernel, strides), x, kernel, dy
  )
  for grad, ref in zip(run(x, kernel, np.float32(dy)), reference, strict=True):
    np.testing.assert_allclose(grad, ref, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('shape', 'size', 'strides'), DENSE[2:4])
def test_the_form_for_accelerators_is_the_same_convolution(
  shape, size, strides
):
  x, kernel = arrays(shape, size, features=4)
  y = conv._convolve_volume(x, kernel, strides)
  np.testing.assert_allclose(y, loops(x, kernel, strides), rtol=1e-4, atol=1e-4)


def test_an_exported_program_holds_both_forms():
  x, kernel = arrays((1, 2, 9, 8, 17), (3, 3, 3), features=2)
  program = export.export(jax.jit(conv.conv3d), platforms=['cpu', 'cuda'])(
    x, kernel
  )
  for form in ('dim_numbers = [b, 0, 1, f]', 'dim_numbers = [b, 0, 1, 2, f]'):
    assert form in program.mlir_module()
  np.testing.assert_allclose(
    program.call(x, kernel), loops(x, kernel, (1, 1, 1)), rtol=1e-4, atol=1e-4
  )


def test_the_sum_of_products_stays_one_call_on_a_cpu_alone():
  x, kernel = arrays((1, 2, 3, 3, 2), (3, 3, 3))
  run = jax.jit(conv.channel_separated_conv3d)
  assert ' call(' in run.lower(x, kernel).compile().as_text()
  program = export.export(run, platforms=['cuda'])(x, kernel)
  assert 'inlineable' not in program.mlir_module()


def test_frames_do_not_mix_between_clips_or_channels():
  x = np.zeros((2, 3, 3, 3, 2), np.float32)
  x[1, 1, 1, 1, 0] = 1
  kernel = np.ones((3, 3, 3, 1, 2), np.float32)
  y = jax.jit(conv.channel_separated_conv3d)(x, kernel)
  expected = np.zeros_like(x)
  expected[1, :, :, :, 0] = 1
  np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize('separated', [True, False])
def test_agrees_with_pytorch(separated):
  torch = pytest.importorskip('torch')
  strides, c = (1, 2, 2), 3
  x, kernel = arrays((2, 4, 6, 7, c), (3, 3, 3), None if separated else 5)
  function = conv.channel_separated_conv3d if separated else conv.conv3d
  y, vjp = jax.vjp(lambda x, k: function(x, k, strides), x, kernel)
  theirs = torch.tensor(x.transpose(0, 4, 1, 2, 3), requires_grad=True)
  weight = torch.tensor(kernel.transpose(4, 3, 0, 1, 2), requires_grad=True)
  z = torch.nn.functional.conv3d(
    theirs, weight, stride=strides, padding=1, groups=c if separated else 1
  )
  z.square().sum().backward()
  dx, dkernel = vjp(2 * y)
  np.testing.assert_allclose(
    y, z.detach().numpy().transpose(0, 2, 3, 4, 1), rtol=1e-4, atol=1e-4
  )
  np.testing.assert_allclose(
    dx, theirs.grad.numpy().transpose(0, 2, 3, 4, 1), rtol=1e-3, atol=1e-3
  )
  np.testing.assert_allclose(
    dkernel, weight.grad.numpy().transpose(2, 3, 4, 1, 0), rtol=1e-3, atol=1e-3
  )


@pytest.mark.parametrize('groups', [1, 4])
def test_layer_computes_in_bfloat16_with_float32_parameters(groups):
  x, _ = arrays((1, 3, 4, 4, 4), (3, 3, 3))
  layer = conv.Conv3D(
    4, (3, 3, 3), (1, 2, 2), groups=groups, use_bias=True, dtype=jnp.bfloat16
  )
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  params = variables['params']
  chex.assert_shape(params['kernel'], (3, 3, 3, 4 // groups, 4))
  chex.assert_shape(params['bias'], (4,))
  chex.assert_type(list(params.values()), jnp.float32)
  params['bias'] = jnp.arange(4.0)
  y, vjp = jax.vjp(jax.jit(layer.apply), variables, x)
  chex.assert_shape(y, (1, 3, 2, 2, 4))
  chex.assert_type(y, jnp.bfloat16)
  expected = loops(x, params['kernel'], (1, 2, 2), separated=groups > 1)
  expected += np.arange(4)
  np.testing.assert_allclose(np.float32(y), expected, rtol=0.02, atol=0.05)
  chex.assert_type(jax.tree.leaves(vjp(y)), jnp.float32)


def test_layer_follows_its_input_dtype_when_none_is_given():
  x, _ = arrays((1, 2, 3, 3, 2), (1, 1, 1))
  y, _ = jax.jit(conv.Conv3D(3, (1, 1, 1)).init_with_output)(
    jax.random.key(0), x
  )
  chex.assert_type(y, jnp.float32)


@pytest.mark.parametrize(('groups', 'fan_out'), [(1, 27 * 40), (40, 27)])
def test_kernels_start_with_the_variance_of_he(groups, fan_out):
  layer = conv.Conv3D(40, (3, 3, 3), groups=groups)
  variables = jax.jit(layer.init)(
    jax.random.key(0), jnp.zeros((1, 1, 1, 1, 40))
  )
  kernel = np.asarray(variables['params']['kernel'])
  # A thousand draws or more: the standard deviation is within 10 percent.
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_out), rtol=0.1)
  assert set(variables['params']) == {'kernel'}


@pytest.mark.parametrize(
  ('groups', 'features', 'channels'), [(2, 4, 4), (4, 8, 4), (4, 4, 8)]
)
def test_other_groups_are_refused(groups, features, channels):
  layer = conv.Conv3D(features, (1, 1, 1), groups=groups)
  with pytest.raises(
    UserError,
    match=rf'`groups` \(={groups}\).*input channels \(={channels}\)'
    rf'.*`features` \(={features}\)',
  ):
    layer.init(jax.random.key(0), jnp.zeros((1, 1, 2, 2, channels)))


@pytest.mark.parametrize('groups', [1, 4])
@pytest.mark.parametrize('frames', [1, 5])
def test_repeated_edges(groups, frames):
  """Against tap by tap products of frames that go on at both ends."""
  x = plain.random_clips(2, frames, 4, 3, 4)
  module = conv.Conv3D(4, (5, 3, 3), (1, 2, 2), groups, repeat_edges=True)
  variables = plain.random_variables(module, x)
  kernel = variables['params']['kernel']
  longer = np.pad(x, ((0, 0), (4, 4), (0, 0), (0, 0), (0, 0)), mode='edge')
  expected = plain.conv(longer, kernel, (1, 2, 2))[:, 4:-4]
  got = jax.jit(module.apply)(variables, x)
  np.testing.assert_allclose(got, expected, atol=1e-5)
  weights = plain.random_clips(*expected.shape, seed=3)

  def loss(x):
    return jnp.sum(weights * module.apply(variables, x))

  # The sum is linear in x: its slope along any direction is exact.
  direction = plain.random_clips(*x.shape, seed=4)
  longer = np.pad(
    direction, ((0, 0), (4, 4), (0, 0), (0, 0), (0, 0)), mode='edge'
  )
  slope = np.sum(weights * plain.conv(longer, kernel, (1, 2, 2))[:, 4:-4])
  got = np.sum(direction * jax.jit(jax.grad(loss))(x))
  np.testing.assert_allclose(got, slope, rtol=1e-3)
