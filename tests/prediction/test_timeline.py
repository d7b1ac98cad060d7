"""Windows of a long video: which frames, which seconds, what is written."""

import csv
import math

import cv2
import numpy as np
import pytest

from mtnet_jax.data.views import ArrayReader
from mtnet_jax.errors import UserError
from mtnet_jax.prediction import timeline
from mtnet_jax.prediction.timeline import Timeline
from tests.data import coded_video
from tests.prediction_runs import BrightnessPredictor


def _video(count):
  """Frame i has brightness 2·i; square, so that all crops are the same."""
  levels = 2 * np.arange(count, dtype=np.uint8)
  return np.broadcast_to(levels[:, None, None, None], (count, 32, 32, 3))


def _bright(frames):
  return 2 * np.mean(frames) / 255


@pytest.mark.parametrize('clips_per_step', [1, 12, 100])
def test_windows_are_clips_that_overlap_by_half(clips_per_step):
  predictor = BrightnessPredictor(eval__clips_per_step=clips_per_step)
  judged = timeline.judge(predictor, _video(20))
  # Four frames, every second one: 7 frames a window, 3 to the next.
  starts = np.array([0, 3, 6, 9, 12, 13])  # the last ends with the video
  np.testing.assert_allclose(judged.starts, starts / 25)
  np.testing.assert_allclose(judged.ends, (starts + 7) / 25)
  expected = [_bright([s, s + 2, s + 4, s + 6]) for s in starts]
  np.testing.assert_allclose(judged.probabilities[:, 0], expected, rtol=1e-6)
  assert judged.class_names == ('bright', 'dark')


def test_windows_of_so_many_seconds():
  judged = timeline.judge(
    BrightnessPredictor(), _video(40), window=0.5, hop=0.4
  )
  # 0.5 s are 12 frames, which two clips of 7 cover, at 0 and 5.
  starts = np.array([0, 10, 20, 28])
  np.testing.assert_allclose(judged.starts, starts / 25)
  np.testing.assert_allclose(judged.ends, (starts + 12) / 25)
  expected = [
    _bright([s + f for f in (0, 2, 4, 6, 5, 7, 9, 11)]) for s in starts
  ]
  np.testing.assert_allclose(judged.probabilities[:, 0], expected, rtol=1e-6)


@pytest.fixture
def slides(tmp_path):
  """25 frames a second until 1 s, then one a second, the last at 6 s."""
  stamps = [*range(0, 1000, 40), *range(1000, 6000, 1000), 6000]
  images = _video(len(stamps))
  return coded_video.write(tmp_path / 'a.mp4', images, stamps=stamps)


def test_windows_of_a_video_of_several_rates(slides):
  judged = timeline.judge(BrightnessPredictor(), slides)
  starts = np.arange(0, 25, 3)  # of 31 frames
  times = np.array([*np.arange(25) / 25, *range(1, 7)])
  np.testing.assert_allclose(judged.starts, times[starts])
  np.testing.assert_allclose(judged.ends[:-1], times[starts[:-1] + 7])
  expected = [_bright([s, s + 2, s + 4, s + 6]) for s in starts]
  np.testing.assert_allclose(judged.probabilities[:, 0], expected, atol=0.01)


@pytest.mark.parametrize(
  ('window', 'hop', 'starts', 'ends'),
  [
    (2.0, 2.0, [0, 2, 4], [2, 4, 6.04]),
    (0.4, 0.4, [0, 0.4, 0.8, 1, 2, 3, 4, 5], [0.4, 0.8, 1, 2, 3, 4, 5, 6]),
    (None, 2.0, [0, 0.96], [0.28, 6.04]),
  ],
)
def test_seconds_of_a_video_of_several_rates(slides, window, hop, starts, ends):
  judged = timeline.judge(BrightnessPredictor(), slides, window, hop)
  count = len(starts)
  np.testing.assert_allclose(judged.starts[:count], starts)
  np.testing.assert_allclose(judged.ends[:count], ends)
  assert (np.diff(judged.starts) > 0).all()


def test_a_hop_that_is_shorter_than_a_frame():
  judged = timeline.judge(BrightnessPredictor(), _video(9), 0.16, 1e-9)
  np.testing.assert_allclose(judged.starts, np.arange(6) / 25)
  np.testing.assert_allclose(judged.ends, np.arange(4, 10) / 25)


@pytest.mark.parametrize('count', [1, 3, 7])
def test_a_short_video_is_one_window(count):
  judged = timeline.judge(BrightnessPredictor(), _video(count))
  assert judged.starts.tolist() == [0] and judged.ends.tolist() == [count / 25]


def test_memory_does_not_grow_with_the_video(monkeypatch):
  read, asked = ArrayReader.read, []

  def counting(self, indices, short_side=None):
    asked.append(len(indices))
    return read(self, indices, short_side)

  monkeypatch.setattr(ArrayReader, 'read', counting)
  predictor = BrightnessPredictor(eval__clips_per_step=6, eval__num_crops=3)
  timeline.judge(predictor, _video(120))
  # Two windows of three crops at a time.
  assert len(asked) == 20 and max(asked) <= 8
  assert set(predictor.asked) == {3, 6}
  # A window as long as the video is read piece by piece too.
  asked.clear()
  judged = timeline.judge(predictor, _video(120), window=4.8)
  assert len(judged.starts) == 1 and len(asked) == 9 and max(asked) <= 8


@pytest.mark.parametrize(
  'times', [{'window': 0}, {'hop': -1.0}, {'hop': math.inf}]
)
def test_times_that_are_none(times):
  with pytest.raises(
    UserError, match='must be a finite number of seconds abov'
  ):
    timeline.judge(BrightnessPredictor(), _video(9), **times)


@pytest.fixture
def judged():
  """Three windows; the classes' names are no formulas."""
  return Timeline(
    'a/$\\x$ \udcff.mp4',
    ('$\\hug$', '_kick, "high"', '推', 'push'),
    np.array([0.0, 0.5, 0.9]),
    np.array([1.0, 1.5, 1.9]),
    np.array(
      [[0.7, 0.1, 0.1, 0.1], [0.4, 0.5, 0.1, 0], [0.7, 0.3, 0, 0]], np.float32
    ),
  )


def test_the_table(judged, tmp_path):
  timeline.write(judged, tmp_path / 'new')
  with (tmp_path / 'new/timeline.csv').open(encoding='utf-8') as file:
    rows = list(csv.reader(file))
  names = ['$\\hug$', '_kick, "high"', '推', 'push']
  assert rows == [
    ['start_seconds', 'end_seconds', 'top_class', *names],
    ['0.000', '1.000', names[0], '0.7000', '0.1000', '0.1000', '0.1000'],
    ['0.500', '1.500', names[1], '0.4000', '0.5000', '0.1000', '0.0000'],
    ['0.900', '1.900', names[0], '0.7000', '0.3000', '0.0000', '0.0000'],
  ]


def test_a_class_is_no_formula_in_the_table(tmp_path):
  one = np.ones((1, 1), np.float32)
  judged = Timeline('x', ('=hug',), 0 * one[0], one[0], one)
  timeline.write(judged, tmp_path)
  with (tmp_path / 'timeline.csv').open(encoding='utf-8') as file:
    header, row = csv.reader(file)
  assert header[3:] == [row[2]] == ["'=hug"]


def test_the_picture_shows_which_class_leads_when(judged, tmp_path):
  timeline.write(judged, tmp_path)
  image = cv2.imread(str(tmp_path / 'timeline.png'))[..., ::-1].astype(int)
  blue, orange = (31, 119, 180), (255, 127, 14)  # of the first and the second
  rows = [(abs(image - color).sum(axis=-1) < 6) for color in (blue, orange)]
  # The band is where a row has most of both: led 0.75, 0.45 and 0.7 s of 1.9.
  band = np.argmax(sum(rows).sum(axis=1))
  shares = [row[band].sum() / sum(rows)[band].sum() for row in rows]
  np.testing.assert_allclose(shares, [1.45 / 1.9, 0.45 / 1.9], atol=0.01)


def test_a_folder_that_cannot_be_written(judged, tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='cannot be written'):
    timeline.write(judged, tmp_path / 'file/x')


def test_a_table_that_cannot_be_written(judged, tmp_path):
  (tmp_path / 'timeline.csv').mkdir()
  with pytest.raises(UserError, match=r'timeline\.csv cannot be written: Is a'):
    timeline.write(judged, tmp_path)
