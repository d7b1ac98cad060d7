"""What chooses frames: each against a plain loop, or by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.layers import frame_choice
from mtnet_jax.ops.frame_selection import still_scores
from tests.arrays import random_clips
from tests.layers.test_mtconv import chosen_frames


def choose(kind, frames, **more):
  branch = jnp.zeros((3, frames, 1, 1, 2))
  return frame_choice.choose_frames(kind, branch, [branch], **more)


def test_the_whole_input_is_scored_side_by_side():
  """Frames that only both inputs together tell apart."""
  first = random_clips(4, 9, 3, 2, 5, seed=1)
  second = random_clips(4, 9, 3, 2, 3, seed=2)
  branch = second[:, :, :1, :1]
  got = frame_choice.choose_frames('input', branch, [first, second])
  both = np.concatenate([first, second], -1).astype(np.float64)
  assert got.dtype == jnp.int32
  assert got.tolist() == [chosen_frames(clip) for clip in both]
  assert got.tolist() != [chosen_frames(clip) for clip in second]
  own = frame_choice.choose_frames('branch', branch, [first, second])
  small = branch.astype(np.float64)
  assert own.tolist() == [chosen_frames(clip) for clip in small]


def test_scores_of_pixels():
  clips = random_clips(2, 5, 4, 3, 3).astype(np.float64)
  change = [
    [np.abs(clip[t + 1] - clip[t]).mean() for t in range(4)] for clip in clips
  ]
  expected = [
    [-2 * c[0], -c[0] - c[1], -c[1] - c[2], -c[2] - c[3], -2 * c[3]]
    for c in change
  ]
  got = still_scores(clips.astype(np.float32))
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  assert still_scores(clips[:, :1]).tolist() == [[0], [0]]


def test_motion_keeps_the_frames_that_move():
  clips = np.zeros((3, 8, 2, 2, 3), np.float32)
  clips[0, 3:] = 1  # between frames 2 and 3
  clips[0, 6:] = 3
  clips[1, :, 0, 0, 0] = [0, 5, 0, 5, 0, 0, 0, 0]
  stillness = still_scores(clips)
  got = choose('motion', 8, stillness=stillness)
  assert got[0].tolist() == [2, 3, 5, 6]
  assert got[1].tolist() == [0, 1, 2, 3]
  assert got[2].tolist() == [0, 1, 2, 3]  # all are still: the earlier ones
  # Of half as many frames, a frame is two of the clip.
  got = choose('motion', 4, stillness=stillness)
  assert got[1].tolist() == [0, 1]


def test_random_frames():
  key = jax.random.key(3)
  got = np.asarray(choose('random', 12, key=key))
  assert got.shape == (3, 6)
  assert all(
    len({*frames}) == 6 and sorted(frames) == [*frames] for frames in got
  )
  assert len({tuple(frames) for frames in got}) == 3  # each clip its own
  other = np.asarray(choose('random', 12, key=jax.random.key(4)))
  assert (got != other).any()
  fixed = np.asarray(choose('random', 12))
  assert (fixed == fixed[0]).all()
  np.testing.assert_array_equal(fixed, choose('random', 12))


@pytest.mark.parametrize(
  ('frames', 'expected'), [(8, [0, 2, 4, 6]), (5, [0, 2]), (1, [0])]
)
def test_every_second_frame(frames, expected):
  assert choose('every_second', frames).tolist() == [expected] * 3


def test_an_unknown_one_is_told():
  with pytest.raises(UserError, match=r"'pixels'.*one of 'branch', 'input'"):
    frame_choice.check_selection_input('pixels')
