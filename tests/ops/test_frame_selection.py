"""Which frames stay, in clips whose answer can be told by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.ops import frame_selection

select = jax.jit(frame_selection.select_frame_indices)
score = jax.jit(frame_selection.triplet_scores)


def clip(*degrees):
  """One clip of 2×2 frames whose mean points in the given directions."""
  angle = np.deg2rad(np.float64(degrees))
  frames = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # t c
  # Pixels differ around the mean, which alone counts.
  noise = np.reshape([1.0, -1.0, 2.0, -2.0], (1, 1, 2, 2, 1))
  return np.float32(3 * frames.reshape(1, -1, 1, 1, 2) + noise)


def test_scores_by_hand():
  # Turns of 0°, 60° and 90°: cosines 1, 1/2, 0. Ends count theirs twice.
  scores = score(clip(10, 10, 70, 160))
  chex.assert_type(scores, jnp.float32)
  np.testing.assert_allclose(scores, [[2, 1.5, 0.5, 0]], atol=1e-6)


def test_scores_equal_loops_in_float64():
  x = np.float32(np.random.default_rng(0).normal(size=(2, 5, 3, 4, 6)))
  v = np.float64(x).mean((2, 3))
  expected = np.zeros((2, 5))
  for n in range(2):
    for t in range(5):
      neighbors = [s for s in (t - 1, t + 1) if 0 <= s < 5]
      cosines = [
        v[n, t] @ v[n, s] / np.linalg.norm(v[n, t]) / np.linalg.norm(v[n, s])
        for s in neighbors
      ]
      expected[n, t] = 2 * np.mean(cosines)
  np.testing.assert_allclose(score(x), expected, atol=1e-5)


def test_scores_do_not_depend_on_size_and_a_dark_frame_is_finite():
  x = clip(0, 40, 90, 95)
  np.testing.assert_allclose(score(1e3 * x), score(x), atol=1e-5)
  x[0, 1] = 0
  np.testing.assert_allclose(
    score(x),
    [[0, 0, np.cos(np.deg2rad(5)), 2 * np.cos(np.deg2rad(5))]],
    atol=1e-5,
  )


def test_bfloat16_is_scored_in_float32():
  x = jnp.asarray(clip(0, 1, 3, 6), jnp.bfloat16)
  scores = score(x)
  chex.assert_type(scores, jnp.float32)
  np.testing.assert_allclose(scores, score(x.astype(jnp.float32)), atol=1e-6)


def test_the_frame_that_differs_stays_with_its_neighbors():
  # Frame 4 alone looks elsewhere: it scores 0, frames 3 and 5 score 1.
  x = clip(0, 0, 0, 0, 90, 0)
  np.testing.assert_array_equal(select(x), [[3, 4, 5]])
  chex.assert_type(select(x), jnp.int32)


def test_each_clip_chooses_for_itself_and_keeps_the_order_of_time():
  first = clip(0, 0, 0, 0, 90, 180)  # changes late, most at the end
  second = clip(180, 90, 0, 0, 0, 0)
  x = np.concatenate([first, second])
  np.testing.assert_array_equal(select(x), [[3, 4, 5], [0, 1, 2]])


@pytest.mark.parametrize('frames', [1, 2, 3, 4, 7])
def test_equal_frames_keep_the_earliest_half(frames):
  x = np.repeat(clip(30), frames, axis=1)
  kept = max(1, frames // 2)
  np.testing.assert_array_equal(select(x), [np.arange(kept)])


def test_ties_at_the_border_go_to_the_earlier_frame():
  # Six frames share the lowest score and five stay: the last one goes.
  x = clip(0, 90, 0, 90, 90, 90, 90, 0, 90, 0)
  scores = np.round(score(x), 5)
  np.testing.assert_array_equal(scores, [[0, 0, 0, 1, 2, 2, 1, 0, 0, 0]])
  np.testing.assert_array_equal(select(x), [[0, 1, 2, 7, 8]])


def test_one_frame_passes_through():
  x = clip(30)
  np.testing.assert_array_equal(score(x), [[0]])
  np.testing.assert_array_equal(select(x), [[0]])
  np.testing.assert_array_equal(frame_selection.gather_frames(x, select(x)), x)


def test_three_frames_keep_the_one_that_differs_most():
  np.testing.assert_array_equal(select(clip(0, 10, 80)), [[2]])
  np.testing.assert_array_equal(select(clip(80, 10, 0)), [[0]])


def test_gathered_frames_and_their_gradient():
  x = np.arange(2 * 4 * 1 * 2 * 3, dtype=np.float32).reshape(2, 4, 1, 2, 3)
  indices = jnp.array([[1, 3], [0, 2]])
  y, vjp = jax.vjp(lambda x: frame_selection.gather_frames(x, indices), x)
  expected = np.stack([x[0, [1, 3]], x[1, [0, 2]]])
  np.testing.assert_array_equal(y, expected)
  dx = vjp(1 + jnp.asarray(expected))[0]
  reference = np.zeros_like(x)
  reference[0, [1, 3]], reference[1, [0, 2]] = 1 + expected
  np.testing.assert_array_equal(dx, reference)


def test_no_gradient_flows_through_the_choice():
  x = clip(0, 20, 80, 90)

  @jax.jit
  @jax.grad
  def gradient(x):
    indices = frame_selection.select_frame_indices(x)
    return jnp.sum(frame_selection.gather_frames(x, indices))

  chosen = np.zeros_like(x)
  chosen[:, select(x)[0]] = 1
  np.testing.assert_array_equal(gradient(x), chosen)
