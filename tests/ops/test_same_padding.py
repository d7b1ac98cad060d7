"""TensorFlow's SAME padding against plain loops, in float64."""

import functools
import itertools

import jax
import numpy as np
import pytest

from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.ops.conv import conv3d
from mtnet_jax.ops.max_pool import max_pool
from mtnet_jax.ops.same_padding import convolve_same, same_pads
from tests.arrays import random_clips, random_variables


def windows(x, size, strides):
  """Each window of a clip that has elements, and where its result lies.

  Of n positions there are ⌈n / s⌉ windows; the last ends where n ends, or
  beyond by as much as the first begins before, or one more.
  """
  counts = [-(-n // s) for n, s in zip(x.shape, strides, strict=False)]
  for place in np.ndindex(*counts):
    inside = []
    for p, n, k, s, count in zip(
      place, x.shape, size, strides, counts, strict=False
    ):
      missing = max((count - 1) * s + k - n, 0)
      start = p * s - missing // 2
      inside.append([(i, start + i) for i in range(k) if 0 <= start + i < n])
    yield place, counts, itertools.product(*inside)


def convolve_by_hand(x, kernel, strides):
  results = []
  for clip in x.astype(np.float64):
    result = None
    for place, counts, taps in windows(clip, kernel.shape[:3], strides):
      if result is None:
        result = np.zeros((*counts, kernel.shape[-1]))
      for (i, t), (j, h), (k, w) in taps:
        result[place] += clip[t, h, w] @ kernel[i, j, k]
    results.append(result)
  return np.stack(results)


def pool_by_hand(x, size, strides):
  results = []
  for clip in x:
    found = {
      place: np.max([clip[t, h, w] for (_, t), (_, h), (_, w) in taps], axis=0)
      for place, _, taps in windows(clip, size, strides)
    }
    counts = np.max(list(found), axis=0) + 1
    result = np.zeros((*counts, clip.shape[-1]), clip.dtype)
    for place, value in found.items():
      result[place] = value
    results.append(result)
  return np.stack(results)


def test_pads_by_hand():
  # Two before and three behind, as of the stem; of odd sizes three and three.
  assert same_pads((64, 224, 9), (7, 7, 7), (2, 2, 2)) == (
    (2, 3),
    (2, 3),
    (3, 3),
  )
  assert same_pads((8, 7, 5), (1, 3, 2), (1, 2, 2)) == ((0, 0), (1, 1), (0, 1))
  assert same_pads((8, 8, 8), (3, 3, 1), (1, 2, 2)) == ((1, 1), (0, 1), (0, 0))


SIZES = [
  ((8, 6, 5), (7, 7, 7), (2, 2, 2)),
  ((5, 4, 7), (3, 3, 3), (2, 2, 2)),
  ((4, 5, 6), (3, 3, 3), (1, 1, 1)),
  ((3, 6, 7), (1, 3, 3), (1, 2, 2)),
  ((5, 6, 4), (2, 2, 2), (2, 2, 2)),
  ((7, 8, 6), (3, 4, 1), (3, 3, 2)),
  ((1, 1, 2), (7, 3, 3), (2, 2, 2)),
]


@pytest.mark.parametrize(('sizes', 'window', 'strides'), SIZES)
def test_convolution(sizes, window, strides):
  x = random_clips(2, *sizes, 2)
  kernel = random_clips(*window, 2, 3, seed=1)
  got = jax.jit(lambda x, kernel: convolve_same(conv3d, x, kernel, strides))(
    x, kernel
  )
  expected = convolve_by_hand(x, kernel, strides)
  np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(('sizes', 'window', 'strides'), SIZES)
def test_max_pool(sizes, window, strides):
  x = random_clips(2, *sizes, 3) - 9  # zeros outside would be greatest
  got = jax.jit(lambda x: max_pool(x, window, strides, same=True))(x)
  np.testing.assert_array_equal(got, pool_by_hand(x, window, strides))


def test_symmetric_padding_gives_other_numbers():
  """Of the stem's size of windows, at even sizes."""
  x, kernel = random_clips(1, 6, 6, 6, 2), random_clips(7, 7, 7, 2, 3, seed=1)
  same = convolve_same(conv3d, x, kernel, (2, 2, 2))
  symmetric = conv3d(x, kernel, (2, 2, 2))
  assert same.shape == symmetric.shape
  assert np.abs(same - symmetric).max() > np.abs(same).std()
  one, other = (max_pool(x, (3, 3, 3), (2, 2, 2), same=s) for s in (0, 1))
  assert one.shape == other.shape and (one != other).mean() > 0.3


@pytest.mark.parametrize('groups', [1, 2, 4])
def test_layer(groups):
  x = random_clips(1, 4, 4, 5, 4)
  layer = Conv3D(4, (3, 3, 3), (2, 2, 2), groups, same_padding=True)
  variables = random_variables(layer, x)
  kernel = variables['params']['kernel']
  c = 4 // groups
  expected = [
    convolve_by_hand(
      x[..., g * c : g * c + c], kernel[..., g * c : g * c + c], (2, 2, 2)
    )
    for g in range(groups)
  ]
  got = jax.jit(layer.apply)(variables, x)
  np.testing.assert_allclose(got, np.concatenate(expected, -1), atol=1e-5)


def test_gradient_is_the_transpose():
  """The layer is linear: ⟨w, A x⟩ = ⟨Aᵀ w, x⟩."""
  x, kernel = random_clips(1, 6, 4, 5, 2), random_clips(7, 7, 7, 2, 3, seed=1)
  convolve = functools.partial(convolve_same, conv3d, strides=(2, 2, 2))
  y, vjp = jax.vjp(convolve, x, kernel)
  weights = random_clips(*y.shape, seed=2)
  dx, dkernel = vjp(weights)
  expected = np.sum(weights * convolve_by_hand(x, kernel, (2, 2, 2)))
  np.testing.assert_allclose(np.sum(dx * x), expected, rtol=1e-4)
  np.testing.assert_allclose(np.sum(dkernel * kernel), expected, rtol=1e-4)
