"""3-D convolutions against loops over their definition."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mtnet_jax.ops.conv import conv3d
from mtnet_jax.ops.separated_conv import channel_separated_conv3d
from tests.ops import any_form

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


def arrays(shape, size, features=None, seed=0):
  """Random x and kernel; channel-separated unless `features` is given."""
  rng = np.random.default_rng(seed)
  c = shape[-1]
  kernel_shape = (*size, c, features) if features else (*size, 1, c)
  x, kernel = rng.normal(size=shape), rng.normal(size=kernel_shape)
  return np.float32(x), np.float32(kernel)


@any_form.each
@pytest.mark.parametrize('separated', [True, False])
def test_values_and_gradients_equal_the_definition(separated, form):
  """All shapes in one program, which is what takes time to compile."""
  shapes = SEPARATED if separated else DENSE
  function = channel_separated_conv3d if separated else conv3d
  given, expected, dys = [], [], []
  for shape, size, strides in shapes:
    given.append(arrays(shape, size, None if separated else 2))
    expected.append(loops(*given[-1], strides, separated))
    rng = np.random.default_rng(1)
    dys.append(np.float32(rng.normal(size=expected[-1].shape)))

  def run(given, dys):
    found = []
    for (_, _, strides), (x, kernel), dy in zip(
      shapes, given, dys, strict=True
    ):
      y, vjp = jax.vjp(functools.partial(function, strides=strides), x, kernel)
      found.append((y, *vjp(dy)))
    return found

  found = any_form.jit(run, form)(given, dys)
  chex.assert_type(jax.tree.leaves(found), jnp.float32)
  for (_, _, strides), own, (x, kernel), y, dy in zip(
    shapes, found, given, expected, dys, strict=True
  ):
    np.testing.assert_allclose(own[0], y, rtol=1e-4, atol=1e-4)
    # Convolution is linear in each: its slope along any direction is exact.
    for i, (by_x, by_kernel) in enumerate(((True, False), (False, True)), 1):
      direction = arrays(x.shape, kernel.shape[:3], None if separated else 2, 7)
      moved = direction[0] if by_x else x, direction[1] if by_kernel else kernel
      slope = np.sum(loops(*moved, strides, separated) * dy)
      got = np.sum(np.float64(own[i]) * direction[i - 1])
      np.testing.assert_allclose(got, slope, rtol=1e-3, atol=1e-3)


def test_an_exported_program_holds_both_forms():
  x, kernel = arrays((1, 2, 9, 8, 17), (3, 3, 3), features=2)
  program = export.export(jax.jit(conv3d), platforms=['cpu', 'cuda'])(x, kernel)
  for form in ('dim_numbers = [b, 0, 1, f]', 'dim_numbers = [b, 0, 1, 2, f]'):
    assert form in program.mlir_module()
  np.testing.assert_allclose(
    program.call(x, kernel), loops(x, kernel, (1, 1, 1)), rtol=1e-4, atol=1e-4
  )


def test_the_sum_of_products_stays_one_call_on_a_cpu_alone():
  x, kernel = arrays((1, 2, 3, 3, 2), (3, 3, 3))
  run = jax.jit(channel_separated_conv3d)
  assert ' call(' in run.lower(x, kernel).compile().as_text()
  program = export.export(run, platforms=['cuda'])(x, kernel)
  assert 'inlineable' not in program.mlir_module()


def test_frames_do_not_mix_between_clips_or_channels():
  x = np.zeros((2, 3, 3, 3, 2), np.float32)
  x[1, 1, 1, 1, 0] = 1
  kernel = np.ones((3, 3, 3, 1, 2), np.float32)
  y = jax.jit(channel_separated_conv3d)(x, kernel)
  expected = np.zeros_like(x)
  expected[1, :, :, :, 0] = 1
  np.testing.assert_array_equal(y, expected)


@pytest.mark.slow
@pytest.mark.parametrize('separated', [True, False])
def test_agrees_with_pytorch(separated):
  torch = pytest.importorskip('torch')
  strides, c = (1, 2, 2), 3
  x, kernel = arrays((2, 4, 6, 7, c), (3, 3, 3), None if separated else 5)
  function = channel_separated_conv3d if separated else conv3d
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
