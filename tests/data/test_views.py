"""Views of files and of arrays: the frames asked for, cut as asked for."""

import numpy as np
import pytest

from mtnet_jax.data import views
from mtnet_jax.data.video import VideoError, VideoReader
from mtnet_jax.data.views import ArrayReader
from mtnet_jax.errors import UserError
from tests.data import coded_video

_RNG = np.random.default_rng(0)


class _Counting(ArrayReader):
  """Notes what is read."""

  def read(self, indices, short_side=None):
    self.asked = list(indices), short_side
    return super().read(indices, short_side)


def test_crops_of_clips():
  frames = _RNG.integers(0, 256, (9, 8, 12, 3), np.uint8)
  indices = np.array([[0, 2, 4], [4, 6, 8]])
  reader = _Counting(frames)
  cut = views.read(reader, indices, num_crops=3, crop_size=8, input_size=8)
  expected = [
    [frames[number, :, left : left + 8] for number in clip]
    for clip in ([0, 2, 4], [4, 6, 8])
    for left in (0, 2, 4)
  ]
  np.testing.assert_array_equal(cut, expected)
  assert reader.asked == ([0, 2, 4, 6, 8], 8)  # frame 4 once


def test_a_clip_may_repeat_frames():
  frames = _RNG.integers(0, 256, (2, 4, 4, 3), np.uint8)
  cut = views.read(
    ArrayReader(frames),
    np.array([[0, 0, 1, 1]]),
    num_crops=1,
    crop_size=4,
    input_size=4,
  )
  np.testing.assert_array_equal(cut[0], frames[[0, 0, 1, 1]])


def test_crops_are_resized_to_the_input():
  frames = np.full((3, 10, 16, 3), 77, np.uint8)
  cut = views.read(
    ArrayReader(frames),
    np.array([[0, 2]]),
    num_crops=2,
    crop_size=20,
    input_size=6,
  )
  assert cut.shape == (2, 2, 6, 6, 3) and (cut == 77).all()


def test_an_array_is_resized_as_a_file_is(tmp_path):
  """The same filter: what differs is the file's rounding of colors."""
  y, x = np.mgrid[:48, :64]
  waves = [128 + 90 * np.sin((x + 3 * i) / 9) * np.cos(y / 7) for i in range(5)]
  gray = np.stack(waves)[..., None].repeat(3, axis=-1).astype(np.uint8)
  path = coded_video.write(tmp_path / 'waves.mp4', gray, options={'qp': '1'})
  array = ArrayReader(gray)
  with VideoReader(path) as file:
    assert array.num_frames == file.num_frames
    for side in (None, 48, 31, 96):
      ours, theirs = (r.read([0, 3, 3], side) for r in (array, file))
      assert ours.shape == theirs.shape
      difference = np.abs(ours.astype(int) - theirs)
      assert difference.max() <= 6 and difference.mean() < 3, side


def test_an_array_as_it_is():
  frames = _RNG.integers(0, 256, (4, 6, 8, 3), np.uint8)
  with ArrayReader(frames[::2], 'mine', fps=10) as reader:
    assert (reader.num_frames, reader.fps, reader.name) == (2, 10, 'mine')
    np.testing.assert_allclose(reader.times, [0, 0.1, 0.2])
    for side in (None, 6):
      np.testing.assert_array_equal(reader.read([1, 1], side), frames[[2, 2]])
    for number in (-1, 2):
      with pytest.raises(IndexError, match='of mine, which has 2'):
        reader.read([number])


@pytest.mark.parametrize(
  ('array', 'message'),
  [
    (np.zeros((4, 8, 8, 3), np.float32), r'mine is float32 \(4, 8, 8, 3\)'),
    (np.zeros((4, 8, 8, 4), np.uint8), r'mine is uint8 \(4, 8, 8, 4\)'),
    (np.zeros((4, 8, 8), np.uint8), r'allowed is uint8 \(frames, height'),
    (np.zeros((4, 0, 8, 3), np.uint8), r'empty, of shape \(4, 0, 8, 3\)'),
  ],
)
def test_arrays_that_are_no_video(array, message):
  with pytest.raises(UserError, match=message):
    ArrayReader(array, 'mine')


@pytest.mark.parametrize('side', [0, 10**6])
def test_a_size_that_cannot_be_made(side):
  with pytest.raises(VideoError, match='mine: '):
    ArrayReader(np.zeros((1, 4, 6, 3), np.uint8), 'mine').read([0], side)
