"""Which frames: hand-made cases, and what must hold for every draw."""

import itertools
import math

import numpy as np
import pytest

from mtnet_jax.data import clips
from mtnet_jax.errors import UserError

_CASES = list(
  itertools.product(
    (1, 2, 5, 16, 33, 90), (1, 2, 8, 16), (1, 2, 5), ('uniform', 'normal')
  )
)


def _draw(video_frames, num_frames, stride, start, seed=0):
  rng = np.random.default_rng(seed)
  return clips.training_indices(video_frames, num_frames, stride, start, rng)


@pytest.mark.parametrize(('length', 'frames', 'stride', 'start'), _CASES)
def test_every_training_clip_is_a_selection_of_candidates(
  length, frames, stride, start
):
  for seed in range(20):
    indices = _draw(length, frames, stride, start, seed)
    assert indices.shape == (frames,)
    assert np.issubdtype(indices.dtype, np.integer)
    if length < frames:
      expected = [i * length // frames for i in range(frames)]
      assert indices.tolist() == expected
      continue
    first = indices[0]
    highest = length - 1 - (frames - 1) * stride
    if start == 'normal':
      highest = round(length / 2)
    assert 0 <= first <= min(max(0, highest), length - frames)
    # The stride shrinks one by one until there are enough candidates.
    shrunk = stride
    while len(range(first, length, shrunk)) < frames:
      shrunk -= 1
    candidates = list(range(first, length, shrunk))
    assert set(indices) <= set(candidates)
    assert (np.diff(indices) > 0).all()


@pytest.mark.parametrize(
  ('length', 'frames', 'stride', 'expected'),
  [
    # One possibility only: the start is 0, the candidates just suffice.
    (16, 4, 5, [0, 5, 10, 15]),
    # Five frames at stride 5 do not fit in 12: the stride becomes 2, and
    # 11 // 2 = 5 leaves 0, 2, 4, 6, 8, 10 for the last four.
    (5, 5, 5, [0, 1, 2, 3, 4]),
    (4, 4, 1, [0, 1, 2, 3]),
    # Shorter than the clip: in order, repeated.
    (3, 6, 5, [0, 0, 1, 1, 2, 2]),
    (1, 3, 1, [0, 0, 0]),
    (2, 5, 1, [0, 0, 0, 1, 1]),
  ],
)
def test_training_clips_without_a_choice(length, frames, stride, expected):
  assert _draw(length, frames, stride, 'uniform').tolist() == expected


def test_frames_that_are_not_drawn_have_a_fixed_stride():
  starts = set()
  for seed in range(200):
    indices = clips.training_indices(
      50, 5, 4, 'uniform', np.random.default_rng(seed), draw=False
    )
    assert (np.diff(indices) == 4).all()
    starts.add(int(indices[0]))
  assert starts == {*range(34)}  # the last one ends with the video
  short = clips.training_indices(
    7, 4, 5, 'uniform', np.random.default_rng(0), draw=False
  )
  assert short.tolist() == [0, 2, 4, 6]


def test_shrunken_stride_by_hand():
  # s = 0 is the only start; of 0, 2, …, 10 four of the last five are drawn.
  seen = {tuple(_draw(12, 5, 5, 'uniform', seed)) for seed in range(200)}
  assert seen == {(0, *c) for c in itertools.combinations((2, 4, 6, 8, 10), 4)}


def test_uniform_start_and_uniform_choice():
  # L=6, T=2, stride 2: s in 0…3; then one of s+2, s+4, … below 6.
  draws = [tuple(_draw(6, 2, 2, 'uniform', seed)) for seed in range(4000)]
  expected = {
    (0, 2): 1 / 8,
    (0, 4): 1 / 8,
    (1, 3): 1 / 8,
    (1, 5): 1 / 8,
    (2, 4): 1 / 4,
    (3, 5): 1 / 4,
  }
  assert set(draws) == set(expected)
  for pair, probability in expected.items():
    sigma = math.sqrt(probability * (1 - probability) / len(draws))
    assert abs(draws.count(pair) / len(draws) - probability) < 5 * sigma


def test_normal_start_is_truncated():
  # N(L/4, L/6) on [0, L/2], rounded: probabilities from the error function.
  length, draws = 12, 4000
  starts = [_draw(length, 2, 1, 'normal', seed)[0] for seed in range(draws)]

  def below(x):
    x = min(max(x, 0), length / 2)
    return math.erf((x - length / 4) / (length / 6) / math.sqrt(2)) / 2

  for start in range(length // 2 + 1):
    mass = below(start + 0.5) - below(start - 0.5)
    probability = mass / (below(length / 2) - below(0))
    sigma = math.sqrt(probability * (1 - probability) / draws)
    assert abs(starts.count(start) / draws - probability) < 5 * sigma


def test_the_generator_decides():
  assert (_draw(90, 8, 2, 'normal', 3) == _draw(90, 8, 2, 'normal', 3)).all()
  assert (_draw(90, 8, 2, 'normal', 3) != _draw(90, 8, 2, 'normal', 4)).any()


@pytest.mark.parametrize(
  ('length', 'frames', 'stride', 'views', 'expected'),
  [
    # span 10: starts round(v · (20 - 10) / 2) = 0, 5, 10.
    (20, 4, 3, 3, [[0, 3, 6, 9], [5, 8, 11, 14], [10, 13, 16, 19]]),
    # One view: centered.
    (20, 4, 3, 1, [[5, 8, 11, 14]]),
    # round(v · 3 / 3): the views overlap.
    (6, 3, 1, 4, [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]),
    # The stride 5 shrinks to 2, which leaves one place to spare.
    (8, 4, 5, 2, [[0, 2, 4, 6], [1, 3, 5, 7]]),
    (3, 4, 2, 2, [[0, 0, 1, 2], [0, 0, 1, 2]]),
    (5, 1, 5, 3, [[0], [2], [4]]),
  ],
)
def test_views(length, frames, stride, views, expected):
  indices = clips.view_indices(length, frames, stride, views)
  assert indices.tolist() == expected


def test_views_stay_inside_and_reach_both_ends():
  for length, frames, stride in itertools.product(
    (1, 7, 16, 50), (1, 2, 16), (1, 5)
  ):
    indices = clips.view_indices(length, frames, stride, 10)
    assert indices.shape == (10, frames)
    assert indices.min() == 0
    assert indices.max() == length - 1
    assert (np.diff(indices, axis=1) >= 0).all()


@pytest.mark.parametrize(
  ('length', 'frames', 'views', 'expected'),
  [
    # tick 10 / 4 = 2.5: 1.25, 3.75, 6.25, 8.75.
    (10, 4, 1, [[1, 3, 6, 8]]),
    # And 0, 2.5, 5, 7.5.
    (10, 4, 2, [[1, 3, 6, 8], [0, 2, 5, 7]]),
    # tick 6: the offsets are 3, 3 + 2, 3 + 4 - 6.
    (18, 3, 3, [[3, 9, 15], [5, 11, 17], [1, 7, 13]]),
    # tick 31 / 8 = 3.875: 1.9375, 5.8125, 9.6875, 13.5625, ….
    (31, 8, 1, [[1, 5, 9, 13, 17, 21, 25, 29]]),
    # tick 0.75: 0.375, 1.125, 1.875, 2.625; and 0, 0.75, 1.5, 2.25.
    (3, 4, 2, [[0, 1, 1, 2], [0, 0, 1, 2]]),
    (1, 3, 2, [[0, 0, 0], [0, 0, 0]]),
  ],
)
@pytest.mark.parametrize('stride', [1, 8])  # no matter
def test_views_of_the_whole_video(length, frames, views, expected, stride):
  found = clips.view_indices(length, frames, stride, views, 'uniform')
  assert found.tolist() == expected


@pytest.mark.parametrize(
  ('length', 'frames', 'stride', 'views', 'expected'),
  [
    # Windows of 8 from 0, 6 and 12 on: (20 - 8) · v / 2.
    (20, 4, 2, 3, [[0, 2, 4, 6], [6, 8, 10, 12], [12, 14, 16, 18]]),
    # One view: centered. Four: 0, 13 / 3 = 4.33, 8.67, 13, cut.
    (21, 4, 2, 1, [[6, 8, 10, 12]]),
    (21, 4, 2, 4, [[s, s + 2, s + 4, s + 6] for s in (0, 4, 8, 13)]),
    # Beyond the end: 9 - 7, 12 - 7.
    (7, 5, 3, 2, [[0, 3, 6, 2, 5]] * 2),
    # 8 - 5, and 12 - 10.
    (5, 4, 4, 1, [[0, 4, 3, 2]]),
    (1, 3, 8, 1, [[0, 0, 0]]),
  ],
)
def test_views_of_windows_that_wrap_round(
  length, frames, stride, views, expected
):
  found = clips.view_indices(length, frames, stride, views, 'dense')
  assert found.tolist() == expected


def _drawn(length, frames, stride, sampling, count=400):
  rng = np.random.default_rng(0)
  return [
    clips.training_indices(
      length, frames, stride, 'uniform', rng, sampling=sampling
    )
    for _ in range(count)
  ]


def test_training_draws_a_frame_of_each_part():
  drawn = np.array(_drawn(10, 4, 5, 'uniform'))
  # Parts from 0, 2.5, 5 and 7.5 on.
  parts = [{0, 1}, {2, 3, 4}, {5, 6}, {7, 8, 9}]
  assert [set(column.tolist()) for column in drawn.T] == parts
  # One says nothing of another.
  assert len({tuple(row) for row in drawn.tolist()}) == 2 * 3 * 2 * 3
  # Shorter than the clip: in order, repeated.
  (short,) = {tuple(row.tolist()) for row in _drawn(3, 4, 5, 'uniform')}
  assert short == (0, 0, 1, 2)


def test_training_draws_a_window_that_wraps_round():
  drawn = {tuple(row.tolist()) for row in _drawn(11, 4, 2, 'dense')}
  assert drawn == {(s, s + 2, s + 4, s + 6) for s in range(4)}
  assert {tuple(r.tolist()) for r in _drawn(7, 5, 3, 'dense')} == {
    (0, 3, 6, 2, 5)
  }


@pytest.mark.parametrize(
  ('sampling', 'fewest', 'words'),
  [
    ('clip', 4, 'has 3 frames, a clip has 4'),
    ('uniform', 4, 'has 3 frames, a clip has 4'),
    ('dense', 7, 'has 6 frames, a clip has 4, spread over 7'),
  ],
)
def test_the_fewest_frames_that_are_not_repeated(sampling, fewest, words):
  assert clips.shortest(4, 2, sampling) == fewest
  assert clips.too_short(fewest, 4, 2, sampling) == ''
  assert clips.too_short(fewest - 1, 4, 2, sampling) == words


def test_mistakes_are_named():
  with pytest.raises(UserError, match="sampling 'tsn'; allowed: clip, uniform"):
    clips.view_indices(10, 2, 1, 1, 'tsn')
  with pytest.raises(
    UserError, match=r"start 'middle'; allowed: uniform, norm"
  ):
    _draw(10, 2, 1, 'middle')
  with pytest.raises(UserError, match=r'at least 1, given \(10, 0, 1\)'):
    _draw(10, 0, 1, 'uniform')
  with pytest.raises(UserError, match='at least 1'):
    clips.view_indices(10, 2, 0, 1)
