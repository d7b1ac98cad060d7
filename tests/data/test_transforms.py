"""Where clips are cut and how they are resized, on numbers laid out by hand."""

import cv2
import numpy as np
import pytest

from mtnet_jax.data import transforms


def _clip(rows, frames=2):
  """uint8 (t, h, w, 1) whose frames differ by 100."""
  image = np.array(rows, np.uint8)[..., None]
  return np.stack([image + 100 * t for t in range(frames)]).astype(np.uint8)


_WIDE = [
  [0, 1, 2, 3, 4],
  [5, 6, 7, 8, 9],
]


def test_mirror():
  mirrored = transforms.mirror(_clip(_WIDE))
  assert mirrored[0, ..., 0].tolist() == [[4, 3, 2, 1, 0], [9, 8, 7, 6, 5]]
  assert mirrored[1, 0, 0, 0] == 104


def test_mirror_of_a_part_of_colored_frames():
  rng = np.random.default_rng(0)
  part = rng.integers(0, 256, (3, 9, 11, 3), np.uint8)[:, 2:7, 1:8]
  assert (transforms.mirror(part) == part[:, :, ::-1]).all()


@pytest.mark.parametrize(
  ('crops', 'lefts'), [(1, [1]), (2, [0, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])]
)
def test_crops_spread_along_the_width(crops, lefts):
  clip = _clip(_WIDE)
  found = transforms.crops_along_long_side(clip, crops)
  assert found.shape == (crops, 2, 2, 2, 1)
  for crop, left in zip(found, lefts, strict=True):
    assert (crop == clip[:, :, left : left + 2]).all()


def test_crops_spread_along_the_height():
  clip = _clip(np.transpose(_WIDE))
  found = transforms.crops_along_long_side(clip, 3)
  assert found[:, 0, 0, 0, 0].tolist() == [0, 2, 3]
  assert found.shape == (3, 2, 2, 2, 1)


def test_crops_of_a_square_are_the_square():
  clip = _clip([[1, 2], [3, 4]])
  assert (transforms.crops_along_long_side(clip, 3) == clip).all()


def test_random_crops_are_everywhere_and_the_same_in_all_frames():
  clip = _clip(np.arange(12).reshape(3, 4))
  rng = np.random.default_rng(0)
  corners = set()
  for _ in range(200):
    crop = transforms.random_crop(clip, 2, rng)
    assert crop.shape == (2, 2, 2, 1)
    corner = int(crop[0, 0, 0, 0])
    expected = [[corner, corner + 1], [corner + 4, corner + 5]]
    assert crop[0, ..., 0].tolist() == expected
    assert (crop[1] == crop[0] + 100).all()
    corners.add(corner)
  assert corners == {0, 1, 2, 4, 5, 6}


def test_a_random_crop_keeps_no_more_than_itself():
  clip = np.zeros((2, 6, 8, 3), np.uint8)
  crop = transforms.random_crop(clip, 4, np.random.default_rng(0))
  assert crop.base is None and crop.flags.c_contiguous


def test_resizing_to_a_quarter_averages():
  # 4 × 4 blocks of one value, with noise that cancels in each block.
  means = np.array([[40, 80], [120, 200]])
  noise = np.array([[10, -10, 20, -20]] * 4)
  image = np.kron(means, np.ones((4, 4), int)) + np.tile(noise, (2, 2))
  small = transforms.resize(_clip(image, frames=1), 2, 2)
  assert small[0, ..., 0].tolist() == means.tolist()


def test_resizing_to_double_is_bilinear_with_half_pixel_centers():
  large = transforms.resize(_clip([[0, 100]], frames=1), 1, 4)
  # The new centers are at -0.25, 0.25, 0.75 and 1.25 old pixels.
  assert large[0, 0, :, 0].tolist() == [0, 25, 75, 100]


def test_resizing_keeps_frames_and_channels_apart():
  rng = np.random.default_rng(0)
  clip = rng.integers(0, 256, (3, 8, 6, 3), np.uint8)
  resized = transforms.resize(clip, 5, 4)
  for t in range(3):
    for c in range(3):
      alone = cv2.resize(clip[t, ..., c], (4, 5))
      assert np.abs(resized[t, ..., c].astype(int) - alone).max() <= 1


def test_the_right_size_costs_nothing():
  clip = np.zeros((1, 4, 6, 3), np.uint8)
  assert transforms.resize(clip, 4, 6) is clip


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('turn_left', True),
    ('TurnRight', True),
    ('Pushing something from LEFT to right', True),
    ('right-hand wave', True),
    ('copyright', False),
    ('leftover', False),
    ('brightness', False),
    ('shake_hands', False),
  ],
)
def test_classes_that_name_a_side(name, expected):
  assert transforms.names_a_side(name) is expected
