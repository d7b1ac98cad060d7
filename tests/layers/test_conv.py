"""The convolution layer: its parameters, dtypes, edges and mistakes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.layers import conv
from tests import arrays as plain


@pytest.mark.parametrize('groups', [1, 4])
def test_layer_computes_in_bfloat16_with_float32_parameters(groups):
  x = plain.random_clips(1, 3, 4, 4, 4)
  layer = conv.Conv3D(
    4, (3, 3, 3), (1, 2, 2), groups=groups, dtype=jnp.bfloat16
  )
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  params = variables['params']
  chex.assert_shape(params['kernel'], (3, 3, 3, 4 // groups, 4))
  chex.assert_type(list(params.values()), jnp.float32)
  y, vjp = jax.vjp(jax.jit(layer.apply), variables, x)
  chex.assert_shape(y, (1, 3, 2, 2, 4))
  chex.assert_type(y, jnp.bfloat16)
  expected = plain.conv(x, np.asarray(params['kernel']), (1, 2, 2))
  np.testing.assert_allclose(np.float32(y), expected, rtol=0.02, atol=0.05)
  chex.assert_type(jax.tree.leaves(vjp(y)), jnp.float32)


def test_layer_follows_its_input_dtype_when_none_is_given():
  x = plain.random_clips(1, 2, 3, 3, 2)
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
  ('groups', 'features', 'channels'), [(0, 4, 4), (4, 6, 4), (4, 4, 6)]
)
def test_groups_that_do_not_divide_are_refused(groups, features, channels):
  layer = conv.Conv3D(features, (1, 1, 1), groups=groups)
  with pytest.raises(
    UserError,
    match=rf'`groups` \(={groups}\).*input channels \(={channels}\)'
    rf'.*`features` \(={features}\)',
  ):
    layer.init(jax.random.key(0), jnp.zeros((1, 1, 2, 2, channels)))


def test_a_group_of_channels_sees_itself_alone():
  """Against tap by tap products of each group's own channels."""
  x = plain.random_clips(2, 4, 5, 3, 6)
  module = conv.Conv3D(4, (3, 3, 3), (1, 2, 2), groups=2)
  variables = plain.random_variables(module, x)
  kernel = variables['params']['kernel']
  chex.assert_shape(kernel, (3, 3, 3, 3, 4))
  expected = [
    plain.conv(
      x[..., 3 * g :][..., :3], kernel[..., 2 * g :][..., :2], (1, 2, 2)
    )
    for g in (0, 1)
  ]
  got = jax.jit(module.apply)(variables, x)
  np.testing.assert_allclose(got, np.concatenate(expected, -1), atol=1e-5)


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
