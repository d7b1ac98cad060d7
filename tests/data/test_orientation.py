"""Pictures as players show them: every right angle, mirrored or not."""

import math

import numpy as np
import pytest

from mtnet_jax.data import encoding, orientation
from mtnet_jax.data.video import VideoError, VideoReader
from tests.data import coded_video

_MATRICES = [
  (1, 0, 0, 1),
  (-1, 0, 0, 1),  # phones: the camera that looks at its user
  (1, 0, 0, -1),
  (-1, 0, 0, -1),
  (0, 1, -1, 0),
  (0, -1, 1, 0),
  (0, 1, 1, 0),
  (0, -1, -1, 0),
]


def _shown(image: np.ndarray, a, b, c, d) -> np.ndarray:
  """Every pixel of (h, w, 3) where the matrix sends it, one by one."""
  height, width, _ = image.shape
  places = {
    (a * x + c * y, b * x + d * y): image[y, x]
    for x in range(width)
    for y in range(height)
  }
  left, top = (min(place[axis] for place in places) for axis in (0, 1))
  size = (width, height) if a else (height, width)
  shown = np.zeros((size[1], size[0], 3), np.uint8)
  for (x, y), pixel in places.items():
    shown[y - top, x - left] = pixel
  return shown


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
  """A file's contents, no two quarters of whose pictures are the same."""
  images = np.full((3, 48, 64, 3), 20, np.uint8)
  images[:, :24, :32] = (230, 40, 40)
  images[:, :24, 32:] = (40, 230, 40)
  images[:, 24:, :32] = (40, 40, 230)
  path = tmp_path_factory.mktemp('stored') / 'a.mp4'
  coded_video.write(path, images)
  return path.read_bytes()


@pytest.mark.parametrize('matrix', _MATRICES)
def test_every_matrix(stored, tmp_path, matrix):
  path = tmp_path / 'a.mp4'
  path.write_bytes(stored)
  with VideoReader(path) as video:
    plain, small = video.read([0, 2]), video.read([1], 24)
  coded_video.set_matrix(path, *matrix)
  with VideoReader(path) as video:
    found, resized = video.read([0, 2]), video.read([1], 24)
    assert (video.height, video.width) == found.shape[1:3]
    contents = encoding.encode(video, 0)
  np.testing.assert_array_equal(found, [_shown(i, *matrix) for i in plain])
  np.testing.assert_array_equal(resized, [_shown(i, *matrix) for i in small])
  with VideoReader(contents) as video:
    record = video.read([0, 2])
  assert np.abs(record.astype(int) - found).mean() < 5


def _matrix(a, b, c, d):
  rows = [round(value * 65536) for value in (a, b, 0, c, d, 0, 0, 0)]
  return np.array([*rows, 1 << 30], np.int32).tobytes()


def _turn(degrees):
  cos, sin = (f(math.radians(degrees)) for f in (math.cos, math.sin))
  return _matrix(cos, sin, -sin, cos)


@pytest.mark.parametrize('degrees', [0, 90, 180, 270])
def test_the_turn_alone(degrees):
  # The matrix turns clockwise, since y points down.
  found = orientation.from_matrix(_turn(-degrees))
  assert found.rotation == degrees
  image = np.arange(6).reshape(2, 3)
  np.testing.assert_array_equal(
    found.apply(image), np.rot90(image, degrees // 90)
  )
  # Rounded numbers turn by a little more or less.
  assert orientation.from_matrix(_turn(-degrees + 0.2)) == found


def test_lengths_do_not_count():
  mirrored = orientation.Orientation(left_right=True)
  assert orientation.from_matrix(_matrix(-2, 0, 0, 0.5)) == mirrored


def test_a_matrix_that_is_none():
  # FFmpeg finds no angle in it, and shows the picture as it is stored.
  for numbers in ((0, 0, 0, 0), (-1, 0, 0, 0), (0, 1, 0, -1)):
    found = orientation.from_matrix(_matrix(*numbers))
    assert found == orientation.Orientation()


@pytest.mark.parametrize('degrees', [30, 45, 89, 135, 200, 359])
def test_other_angles_are_refused(degrees):
  with pytest.raises(ValueError, match=f'turns pictures by {degrees} degrees'):
    orientation.from_matrix(_turn(degrees))


def test_a_video_with_another_angle_is_named(stored, tmp_path):
  path = tmp_path / 'a.mp4'
  path.write_bytes(stored)
  coded_video.set_matrix(path, 0.6, 0.8, -0.8, 0.6)
  with VideoReader(path) as video:
    with pytest.raises(VideoError, match=r'a\.mp4: .* by 53 degrees'):
      video.read([0])
    with pytest.raises(VideoError, match='multiples of 90'):
      _ = video.width
