"""Deletion and insertion, with predictors whose curves are known."""

import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.explain import report
from mtnet_jax.explain.faithfulness import blur, faithfulness
from mtnet_jax.explain.saliency_tubes import interpolate

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


class _Looker:
  """A network that sees some voxels of a clip, each as much as its weight."""

  def __init__(self, clip, weights):
    self._clip, self._weights = clip, weights / weights.sum()

  def __call__(self, clips):
    kept = (clips == self._clip).all(axis=-1)
    seen = (kept * self._weights).sum(axis=(1, 2, 3))
    return 1 / (1 + np.exp(-8 * (seen - 0.5)))


def _spot(shape, y, x, width=0.2):
  """A Gaussian at a place in shares of the frame's sides."""
  _, h, w = shape
  rows, columns = (np.arange(h) + 0.5) / h - y, (np.arange(w) + 0.5) / w - x
  distance = rows[:, None] ** 2 + columns**2
  return np.broadcast_to(np.exp(-distance / (2 * width**2)), shape)


def _verdict(predict, clip, saliency, seed=0):
  return report.verdict(
    faithfulness(predict, clip, saliency, seed=seed, batch_size=90), 'wave'
  )


def test_pictures_that_know_nothing_are_seldom_believed():
  shape, rng = (4, 12, 12), np.random.default_rng(0)
  clip = noise(*shape, 3)
  kinds, beaten = [], []
  for seed in range(120):
    # What the network looks at may stand anywhere.
    weights = interpolate(rng.random((2, 4, 4)), shape) ** 4
    offsets = [rng.integers(size) for size in shape]
    looker = _Looker(clip, np.roll(weights, offsets, axis=(0, 1, 2)))
    saliency = interpolate(rng.random((2, 4, 4)), shape)
    found = faithfulness(looker, clip, saliency, seed=seed, batch_size=90)
    kinds.append(report.verdict(found, 'wave')[0])
    below = found.areas[0] < found.random_areas[:, 0].min()
    above = found.areas[1] > found.random_areas[:, 1].max()
    beaten.append((below, above))
  # One in ten passes either test; 120 draws are off by 3 percent.
  np.testing.assert_allclose(np.mean(beaten, axis=0), 0.1, atol=0.06)
  assert kinds.count('believe') / len(kinds) < 0.1 + 0.06


def test_a_picture_of_what_the_network_looks_at_is_believed():
  shape = (4, 12, 12)
  clip, place = noise(*shape, 3), _spot(shape, 0.3, 0.7)
  kinds = [
    _verdict(_Looker(clip, place), clip, place, seed)[0] for seed in range(8)
  ]
  assert kinds.count('believe') >= 7


def test_a_spot_in_the_middle_is_not_believed():
  shape = (4, 12, 12)
  clip, place = noise(*shape, 3), _spot(shape, 0.5, 0.5)
  for width in (0.1, 0.2, 0.4):
    kind, sentence = _verdict(
      _Looker(clip, place), clip, _spot(shape, 0.5, 0.5, width)
    )
    assert kind == 'doubt' and 'a plain spot in the middle' in sentence


def test_competitors_are_known_one_by_one(clip):
  # Of a frame's middle 4 × 4, the spot is a quarter of the voxels.
  middle = np.s_[:, 2:6, 2:6]
  saliency = np.zeros(SHAPE)
  saliency[0] = 1
  found = faithfulness(kept(clip, middle), clip, saliency, steps=4)
  assert found.random_areas.shape == (9, 2) and found.spot_areas.shape == (2,)
  np.testing.assert_allclose(
    found.random_areas.mean(axis=0),
    np.trapezoid([found.random_deletion, found.random_insertion], found.shares),
  )
  # The first step takes almost all: 12 voxels of 16 and the nearest others.
  np.testing.assert_allclose(found.spot_areas, [0.125, 0.875], atol=0.06)
  np.testing.assert_allclose(found.areas, 0.5, atol=0.05)


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
  # Both ends, and two inner points of two curves of eleven orders.
  assert len(sizes) == -(-(2 + 2 * 2 * 11) // batch_size)
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
