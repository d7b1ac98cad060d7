"""What 2-D networks do between frames, against plain loops."""

import jax
import numpy as np

from mtnet_jax.ops.adaptive_kernel import adaptive_convolution
from mtnet_jax.ops.max_pool import max_pool
from mtnet_jax.ops.temporal_shift import temporal_shift
from tests.arrays import random_clips


def test_the_first_channels_come_from_the_next_frame():
  x = np.zeros((1, 3, 1, 1, 16), np.float32)
  x[0, :, 0, 0] = np.arange(1, 4)[:, None]  # each frame's number
  y = np.asarray(temporal_shift(x))[0, :, 0, 0]
  np.testing.assert_array_equal(y[:, 0], [2, 3, 0])
  np.testing.assert_array_equal(y[:, 1], [2, 3, 0])
  np.testing.assert_array_equal(y[:, 2], [0, 1, 2])
  np.testing.assert_array_equal(y[:, 3], [0, 1, 2])
  np.testing.assert_array_equal(y[:, 4:], x[0, :, 0, 0, 4:])


def test_channels_that_do_not_divide_stay():
  x = random_clips(1, 2, 1, 1, 7)
  np.testing.assert_array_equal(temporal_shift(x), x)


def test_each_channel_has_a_kernel_of_its_own():
  x = random_clips(2, 5, 2, 3, 4).astype(np.float64)
  kernel = np.random.default_rng(1).normal(size=(2, 3, 4))
  wanted = np.zeros_like(x)
  for n, t, c in np.ndindex(2, 5, 4):
    for j in range(3):
      if 0 <= t + j - 1 < 5:
        wanted[n, t, :, :, c] += kernel[n, j, c] * x[n, t + j - 1, :, :, c]
  found = adaptive_convolution(x.astype(np.float32), kernel.astype(np.float32))
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_pairs_of_frames_and_windows_of_rows():
  x = random_clips(1, 5, 4, 4, 2)
  pairs = np.maximum(x[:, 0:4:2], x[:, 1:5:2])  # the fifth has no partner
  np.testing.assert_array_equal(max_pool(x, (2, 1, 1), (2, 1, 1)), pairs)
  wide = np.full((1, 5, 6, 6, 2), -np.inf, np.float32)
  wide[:, :, 1:5, 1:5] = x
  wanted = [
    [wide[:, :, i : i + 3, j : j + 3].max((2, 3)) for j in (0, 2)]
    for i in (0, 2)
  ]
  found = max_pool(x, (1, 3, 3), (1, 2, 2))
  np.testing.assert_array_equal(found, np.moveaxis(wanted, (0, 1), (2, 3)))


def test_what_is_not_a_number_is_not_lost():
  x = random_clips(1, 2, 6, 6, 1)
  x[0, 0, 2, 3] = np.nan
  found = np.isnan(jax.jit(lambda x: max_pool(x, (1, 3, 3), (1, 2, 2)))(x))
  # Row 2 is in the second window alone, column 3 in the second and the third.
  wanted = np.zeros((2, 3, 3), bool)
  wanted[0, 1, 1:] = True
  np.testing.assert_array_equal(found[0, ..., 0], wanted)
