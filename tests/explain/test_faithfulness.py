"""Deletion and insertion, with predictors whose curves are known."""

import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.explain.faithfulness import blur, faithfulness

SHAPE = (4, 8, 8)


def noise(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, shape).astype(np.uint8)


@pytest.fixture
def clip():
  return noise(*SHAPE, 3)


def kept(clip, place=np.s_[:]):
  """A predictor: the share of voxels, at a place, that are the clip's."""
  return lambda clips: np.array(
    [(each == clip).all(axis=-1)[place].mean() for each in clips]
  )


def test_every_step_changes_an_equal_share(clip):
  saliency = np.random.default_rng(1).random(SHAPE)
  found = faithfulness(kept(clip), clip, saliency, steps=4)
  same = (blur(clip) == clip).all(axis=-1).mean()
  assert same < 0.02
  np.testing.assert_array_equal(found.shares, [0, 0.25, 0.5, 0.75, 1])
  for curve in (found.deletion, found.random_deletion):
    np.testing.assert_allclose(curve, [1, 0.75, 0.5, 0.25, 0], atol=0.02)
  for curve in (found.insertion, found.random_insertion):
    np.testing.assert_allclose(curve, [0, 0.25, 0.5, 0.75, 1], atol=0.02)


def test_the_most_salient_go_first(clip):
  # The network looks at the first frame alone, a quarter of the clip.
  saliency = np.zeros(SHAPE)
  saliency[0] = 1
  found = faithfulness(kept(clip, 0), clip, saliency, steps=4)
  np.testing.assert_allclose(found.deletion, [1, 0, 0, 0, 0], atol=0.05)
  np.testing.assert_allclose(found.insertion, [0, 1, 1, 1, 1], atol=0.05)
  assert found.score > found.random_score + 0.3
  wrong = faithfulness(kept(clip, 0), clip, -saliency, steps=4)
  assert wrong.score < wrong.random_score - 0.2


def test_a_random_order_scores_zero_on_average(clip):
  saliency = np.zeros(SHAPE)
  saliency[0] = 1
  scores = [
    faithfulness(kept(clip, 0), clip, saliency, 4, seed).random_score
    for seed in range(60)
  ]
  # Four offsets in time are equally likely: 0.75, 0.25, -0.25, -0.75.
  assert abs(np.mean(scores)) < 0.12


def test_equally_salient_voxels_come_in_a_random_order(clip):
  found = faithfulness(kept(clip, 0), clip, np.ones(SHAPE), steps=4)
  np.testing.assert_allclose(found.deletion, [1, 0.75, 0.5, 0.25, 0], atol=0.15)


def test_the_same_seed_gives_the_same_curves(clip):
  def curves(seed):
    return faithfulness(kept(clip, 0), clip, np.ones(SHAPE), 4, seed).deletion

  np.testing.assert_array_equal(curves(0), curves(0))
  assert (curves(0) != curves(1)).any()


@pytest.mark.parametrize('batch_size', [1, 3, 100])
def test_batches_have_one_size(clip, batch_size):
  sizes = []

  def predict(clips):
    assert clips.dtype == np.uint8
    sizes.append(len(clips))
    return clips.mean(axis=(1, 2, 3, 4)) / 255

  saliency = np.random.default_rng(1).random(SHAPE)
  found = faithfulness(predict, clip, saliency, 3, batch_size=batch_size)
  assert set(sizes) == {batch_size}
  # Both ends, and two inner points of two curves of four orders.
  assert len(sizes) == -(-(2 + 2 * 2 * 4) // batch_size)
  same = faithfulness(predict, clip, saliency, 3)
  np.testing.assert_array_equal(found.deletion, same.deletion)


def test_a_single_step_has_both_ends_only(clip):
  found = faithfulness(kept(clip), clip, np.ones(SHAPE), steps=1)
  np.testing.assert_allclose(found.deletion, [1, 0], atol=0.02)


def test_a_constant_video_has_flat_curves():
  clip = np.full((*SHAPE, 3), 128, np.uint8)
  np.testing.assert_array_equal(blur(clip), clip)
  found = faithfulness(
    lambda clips: clips.mean(axis=(1, 2, 3, 4)) / 255, clip, np.zeros(SHAPE)
  )
  np.testing.assert_allclose(found.deletion, 128 / 255)
  np.testing.assert_allclose(found.random_insertion, 128 / 255)
  assert found.score == found.random_score == 0


def test_a_blurred_clip_has_neither_edges_nor_movement():
  clip = np.zeros((8, 32, 32, 3), np.uint8)
  for t in range(8):
    clip[t, 8:24, 4 * t : 4 * t + 4] = 255
  blurred = blur(clip).astype(float)
  assert (blurred == blurred[:1]).all()
  assert np.abs(np.diff(blurred, axis=2)).max() < 10
  np.testing.assert_allclose(blurred.mean(), clip.mean(), atol=1)


def test_user_errors(clip):
  def measure(saliency, **kw):
    return faithfulness(kept(clip), clip, saliency, **kw)

  with pytest.raises(UserError, match=r'shape \(4, 4, 4\)'):
    measure(np.ones((4, 4, 4)))
  with pytest.raises(UserError, match='holds NaN'):
    measure(np.full(SHAPE, np.nan))
  with pytest.raises(UserError, match='`steps`'):
    measure(np.ones(SHAPE), steps=0)
  with pytest.raises(UserError, match='`batch_size`'):
    measure(np.ones(SHAPE), batch_size=0)
