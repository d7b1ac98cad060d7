"""Saliency Tubes against loops, and their interpolation against scipy's."""

import numpy as np
import pytest
from scipy import ndimage

from mtnet_jax.errors import UserError
from mtnet_jax.explain.saliency_tubes import (
  interpolate,
  saliency_tube,
  stretch,
)


def plain_tube(activations, weights, threshold=0.0):
  """Channel by channel, float64."""
  channels = zip(weights, activations.T, strict=True)
  weighted = [w * a.astype(float) for w, a in channels]
  largest = max(abs(f).max() for f in weighted)
  tube = 0.0
  for f in weighted:
    if abs(f).max() / largest >= threshold and f.max() > f.min():
      tube = tube + ((f - f.min()) / (f.max() - f.min())) ** 2
  return ((tube - tube.min()) / (tube.max() - tube.min())).T


def test_a_tube_by_hand():
  # Two frames of one row and two columns; two channels.
  a = np.array([[[[0, 4], [1, 4]]], [[[2, 4], [4, 8]]]], np.float32)
  tube = saliency_tube(a, np.array([1.0, -1.0]))
  # z of the first: 0, 1/4, 1/2, 1; of the second: 1, 1, 1, 0.
  total = np.array([1, 17 / 16, 5 / 4, 1])
  np.testing.assert_allclose(tube.ravel(), (total - 1) * 4, atol=1e-6)
  assert tube.dtype == np.float32


@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.9])
def test_tubes_equal_a_plain_loop(threshold):
  rng = np.random.default_rng(0)
  a = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
  weights = np.array([1, -2, 0.1, 0, 0.5, -0.3])
  np.testing.assert_allclose(
    saliency_tube(a, weights, threshold=threshold),
    plain_tube(a, weights, threshold),
    atol=1e-5,
  )


def test_weak_channels_are_left_out():
  rng = np.random.default_rng(0)
  a = rng.uniform(0.5, 1, (2, 3, 3, 2)).astype(np.float32)
  tube = saliency_tube(a, np.array([1.0, 0.01]), threshold=0.5)
  np.testing.assert_allclose(tube, saliency_tube(a[..., :1], np.ones(1)))


@pytest.mark.parametrize('value', [0.0, 3.0])
def test_constant_activations_have_no_salient_place(value):
  a = np.full((2, 3, 3, 4), value, np.float32)
  tube = saliency_tube(a, np.ones(4), shape=(4, 6, 6))
  np.testing.assert_array_equal(tube, np.zeros((4, 6, 6)))


def test_half_precision_activations():
  import ml_dtypes

  a = np.arange(24.0).reshape(2, 2, 3, 2)
  half = saliency_tube(a.astype(ml_dtypes.bfloat16), np.ones(2))
  np.testing.assert_allclose(half, saliency_tube(a, np.ones(2)), atol=1e-6)


@pytest.mark.parametrize('shape', [(16, 32, 32), (4, 24, 28), (3, 1, 7)])
def test_interpolation_is_scipy_s_zoom(shape):
  small = np.random.default_rng(0).random((4, 3, 5))
  factors = np.array(shape) / small.shape
  expected = ndimage.zoom(small, factors, order=3).clip(0, 1)
  np.testing.assert_allclose(interpolate(small, shape), expected, atol=1e-6)


def test_interpolation_keeps_the_last_sample():
  # Where zoom's own default mode puts zeros.
  small = np.full((16, 2, 2), 0.5)
  np.testing.assert_allclose(interpolate(small, (160, 2, 2)), 0.5, atol=1e-6)


def test_a_single_frame_or_pixel_is_repeated():
  small = np.array([[[0.25]]])
  np.testing.assert_allclose(interpolate(small, (3, 4, 4)), 0.25, atol=1e-6)


def test_interpolation_stays_in_range():
  small = np.zeros((4, 4, 4))
  small[1:3, 1:3, 1:3] = 1
  large = interpolate(small, (9, 9, 9))
  assert large.min() == 0 and large.max() == 1


def test_stretch_by_channel():
  x = np.array([[0.0, 5.0], [4.0, 5.0], [1.0, 5.0]])
  np.testing.assert_array_equal(
    stretch(x, axis=(0,)), [[0, 0], [1, 0], [0.25, 0]]
  )


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_numbers_that_are_not_finite(bad):
  a, weights = np.ones((1, 2, 2, 3), np.float32), np.ones(3)
  with pytest.raises(UserError, match='class weights hold NaN or infinity'):
    saliency_tube(a, np.array([1, bad, 1]))
  a[0, 0, 0, 0] = bad
  with pytest.raises(UserError, match='activations hold NaN or infinity'):
    saliency_tube(a, weights)


def test_a_threshold_out_of_range():
  with pytest.raises(UserError, match=r'`threshold` \(=1.5\)'):
    saliency_tube(np.ones((1, 2, 2, 3)), np.ones(3), threshold=1.5)
