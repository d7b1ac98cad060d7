"""Mixed clips by hand, and how often which are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.training import mixing
from mtnet_jax.training.mixing import Mixing

_H, _W = 20, 30


def _drawn(n, level=1.0, box=(0, 0, 0, 0)):
  numbers = dict(zip(('top', 'bottom', 'left', 'right'), box, strict=True))
  return {
    name: jnp.full((n,), value, jnp.float32)
    for name, value in ({'level': level} | numbers).items()
  }


def _clips(n=4):
  """Clip k has the value 10 k in all of frame 0, and 10 k + 1 in frame 1."""
  clips = 10 * np.arange(n)[:, None] + np.arange(2)  # n t
  clips = clips[:, :, None, None, None]
  return np.broadcast_to(clips, (n, 2, _H, _W, 3)).astype(np.float32)


def test_mixup_blends_with_the_next_of_the_group():
  mixed, share = mixing.apply(_drawn(4, level=0.25), _clips(), 2)
  # A quarter of the own and three of the other: of 0 and 10, of 10 and 0, ...
  for k, value in enumerate((7.5, 2.5, 27.5, 22.5)):
    np.testing.assert_allclose(mixed[k, 0], value, rtol=1e-6)
    np.testing.assert_allclose(mixed[k, 1], value + 1, rtol=1e-6)
  np.testing.assert_allclose(share, 0.25)


def test_cutmix_puts_the_same_box_into_all_frames():
  mixed, share = mixing.apply(_drawn(4, box=(5, 15, 20, 30)), _clips(), 4)
  expected = _clips().copy()
  expected[:, :, 5:15, 20:30] = np.roll(_clips(), -1, axis=0)[:, :, :10, :10]
  np.testing.assert_array_equal(mixed, expected)
  np.testing.assert_allclose(share, 1 - 100 / 600, rtol=1e-6)


def test_clips_that_are_not_mixed_keep_their_bits():
  clips = np.random.default_rng(0).normal(size=(4, 2, 8, 8, 3))
  for dtype in (jnp.float32, jnp.bfloat16):
    given = jnp.asarray(clips, dtype)
    mixed, share = mixing.apply(_drawn(4), given, 4)
    assert mixed.dtype == dtype
    np.testing.assert_array_equal(mixed, given)
    np.testing.assert_array_equal(share, 1)


def test_labels_go_with_their_clips():
  labels = jnp.arange(6)
  np.testing.assert_array_equal(mixing.others(labels, 3), [1, 2, 0, 4, 5, 3])
  np.testing.assert_array_equal(mixing.others(labels, 2), [1, 0, 3, 2, 5, 4])


def _draw(seed=0, n=4_000, **changes):
  options = {
    'mixup_share': 0.0,
    'cutmix_share': 0.0,
    'mixup_alpha': 1.0,
    'cutmix_alpha': 1.0,
  } | changes
  drawn = Mixing(**options).draw(jax.random.key(seed), n, _H, _W)
  return {name: np.asarray(numbers) for name, numbers in drawn.items()}


def test_shares_of_clips_and_of_what_is_left_of_them():
  drawn = _draw(mixup_share=0.5, cutmix_share=0.3, mixup_alpha=0.5)
  blended, cut = drawn['level'] < 1, drawn['bottom'] > 0
  assert abs(blended.mean() - 0.5) < 0.03
  # A box too small for a pixel is none: of a uniform area 1 / 400, or less.
  assert abs(cut.mean() - 0.3) < 0.03
  assert not (blended & cut).any()
  level = drawn['level'][blended]
  # Beta(1/2, 1/2), the arcsine distribution: mean 1/2, variance 1/8.
  assert abs(level.mean() - 0.5) < 0.03 and abs(level.var() - 0.125) < 0.01
  assert all(
    (drawn[name][~cut] == 0).all() for name in drawn if name != 'level'
  )


def test_boxes_have_the_pictures_shape_and_end_at_its_borders():
  drawn = _draw(cutmix_share=1.0)
  height = drawn['bottom'] - drawn['top']
  width = drawn['right'] - drawn['left']
  assert 0 <= height.min() and drawn['bottom'].max() == _H
  assert 0 <= width.min() and drawn['right'].max() == _W
  inside = (drawn['top'] > 0) & (drawn['bottom'] < _H)
  inside &= (drawn['left'] > 0) & (drawn['right'] < _W)
  assert inside.sum() > 500
  # Sides are the same share of the picture's, but for whole pixels.
  assert (abs(height[inside] / _H - width[inside] / _W) <= 1 / _H).all()


def test_draws_follow_the_key():
  same, again, other = (_draw(seed, n=8, mixup_share=1.0) for seed in (1, 1, 2))
  np.testing.assert_array_equal(same['level'], again['level'])
  assert (same['level'] != other['level']).all()


@pytest.mark.parametrize(
  ('values', 'group', 'message'),
  [
    ((1.5, 0.0, 1, 1), 4, r'data\.mixup_share \(=1\.5\) must lie in \[0, 1\]'),
    ((0.0, -0.1, 1, 1), 4, r'data\.cutmix_share \(=-0\.1\) must lie in'),
    ((np.nan, 0.0, 1, 1), 4, r'data\.mixup_share \(=nan\) must lie in'),
    ((0.0, 0.0, 0, 1), 4, r'data\.mixup_alpha \(=0\) must be above 0'),
    ((0.0, 0.0, 1, -1.0), 4, r'data\.cutmix_alpha \(=-1\.0\) must be above 0'),
    ((0.6, 0.5, 1, 1), 4, r'\(=0\.6\) and .*\(=0\.5\) must be at most 1 tog'),
    ((0.0, 0.5, 1, 1), 1, r'a larger train\.batch_size or train\.norm_batch'),
  ],
)
def test_what_cannot_be_mixed(values, group, message):
  with pytest.raises(UserError, match=message):
    mixing.check(Mixing(*values), group)


def test_what_can_be_mixed():
  mixing.check(Mixing(0.7, 0.3, 0.2, 1.0), 2)
  mixing.check(Mixing(0.0, 0.0, 0.2, 1.0), 1)
