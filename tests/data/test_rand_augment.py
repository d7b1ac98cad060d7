"""RandAugment's changes by hand, the same in all frames."""

import numpy as np
import pytest

from mtnet_jax.data import pipeline
from mtnet_jax.data.rand_augment import METHODS, rand_augment
from mtnet_jax.errors import UserError
from tests.tiny_runs import tiny_config


def _clip(frames=3, height=40, width=50, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (frames, height, width, 3), np.uint8)


def _gray(*values):
  """A frame for each value, of four times 255 pixels."""
  values = np.array(values, np.uint8)[:, None, None, None]
  return np.broadcast_to(values, (len(values), 255, 4, 3))


@pytest.mark.parametrize('name', METHODS)
def test_frames_alike_stay_alike(name):
  frame = _clip(1)
  same = np.repeat(frame, 4, axis=0)
  out = METHODS[name](same, 0.5)
  assert out.shape == same.shape and out.dtype == np.uint8
  assert (out == out[:1]).all()
  assert (out == METHODS[name](frame, 0.5)).all() or name == 'equalize'
  assert (same == frame).all()  # what came in is left alone
  whole_range = name in ('identity', 'auto_contrast')
  assert (out != same).any() != whole_range


def test_values_by_hand():
  """A dark and a bright frame: what looks at values sees both."""
  clip = _gray(50, 150)

  def values(name, amount):
    out = METHODS[name](clip, amount)
    assert (out == out[:, :1, :1, :1]).all()
    return out[:, 0, 0, 0].tolist()

  assert values('auto_contrast', 1.0) == [0, 255]
  assert values('brightness', 0.5) == [int(50 * 1.45), int(150 * 1.45)]
  assert values('brightness', -0.5) == [int(50 * 0.55), int(150 * 0.55)]
  # About the mean of both, 100.
  assert values('contrast', -0.5) == [int(100 - 27.5), int(100 + 27.5)]
  assert values('color', 1.0) == [50, 150]  # gray has none
  assert values('posterize', 1.0) == [50 & 0xF0, 150 & 0xF0]
  assert values('posterize', -0.5) == [50 & 0xFC, 150 & 0xFC]
  assert values('solarize', 0.5) == [50, 105]  # from 127.5 on it is a negative
  assert values('equalize', 1.0) == [0, 255]  # as many dark as bright pixels


def test_pixels_move_by_hand():
  """A white pixel on black, right of and above the middle."""
  clip = np.zeros((2, 101, 101, 3), np.uint8)
  clip[:, 40, 70] = 255  # 20 right of the middle, 10 above

  def place(name, amount):
    out = METHODS[name](clip, amount)
    assert (out[0] == out[1]).all()
    y, x = np.unravel_index(out[0, :, :, 0].argmax(), (101, 101))
    return x - 50, y - 50

  assert place('identity', 1.0) == (20, -10)
  assert place('shift_x', 0.5) == (20 + round(101 * 75 / 331), -10)
  assert place('shift_y', -0.5) == (20, -10 - round(101 * 75 / 331))
  assert place('shear_x', 1.0) == (17, -10)  # 0.3 of -10
  assert place('shear_y', -1.0) == (20, -16)  # -0.3 of 20
  # 30 degrees, counterclockwise as seen: 20 cos - 10 sin, -20 sin - 10 cos.
  x, y = place('rotate', 1.0)
  assert abs(x - 12.3) <= 1 and abs(y + 18.7) <= 1


def test_the_generator_decides():
  clip = _clip()
  one, same, other = (
    rand_augment(clip, 3, 0.5, np.random.default_rng(seed))
    for seed in (1, 1, 2)
  )
  assert (one == same).all() and (one != other).any()
  assert rand_augment(clip, 0, 1.0, np.random.default_rng(0)) is clip


def test_all_methods_and_both_directions_are_drawn(monkeypatch):
  seen = []
  for name in METHODS:
    monkeypatch.setitem(
      METHODS, name, lambda clip, a, name=name: seen.append((name, a)) or clip
    )
  rand_augment(_clip(), 500, 0.25, np.random.default_rng(0))
  assert len(seen) == 500
  assert set(seen) == {
    (name, sign * 0.25) for name in METHODS for sign in (-1, 1)
  }


def test_batches_change_by_it_alone(blinking_videos):
  def batch(**changes):
    config = tiny_config(blinking_videos, **changes)
    return pipeline.build(config, 'train')[1]

  plain, same, changed, again = (
    batch(data__rand_augment=count, data__rand_augment_strength=strength)
    for count, strength in [(0, 0.3), (0, 0.9), (2, 0.9), (2, 0.9)]
  )
  np.testing.assert_array_equal(plain['clips'], same['clips'])
  np.testing.assert_array_equal(changed['clips'], again['clips'])
  np.testing.assert_array_equal(changed['ids'], plain['ids'])
  assert (changed['clips'] != plain['clips']).any()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'rand_augment': -1}, r'data\.rand_augment \(=-1\) must be at least 0'),
    (
      {'rand_augment_strength': 1.2},
      r'data\.rand_augment_strength \(=1\.2\) must lie in \[0, 1\]',
    ),
  ],
)
def test_what_is_not_allowed(blinking_videos, changes, message):
  config = tiny_config(blinking_videos)
  config.data.update(changes)
  with pytest.raises(UserError, match=message):
    pipeline.build(config, 'train')
