"""Each augmentation against its definition, and when it happens."""

import numpy as np
import pytest

from mtnet_jax.data import augmentations


def clip(frames=3, height=40, width=50, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (frames, height, width, 3), np.uint8)


def ramp(frames=2, size=100):
  """Red is the column, green the row."""
  x = np.broadcast_to(np.arange(size), (size, size))
  return np.stack([np.stack([x, x.T, 0 * x], -1)] * frames).astype(np.uint8)


@pytest.mark.parametrize('method', augmentations.METHODS)
def test_same_in_all_frames_and_decided_by_the_generator(method):
  frame = clip(1)
  same = np.repeat(frame, 4, axis=0)
  out = method(same, np.random.default_rng(1))
  assert out.shape == same.shape and out.dtype == np.uint8
  assert (out == out[:1]).all()
  assert (out == method(same, np.random.default_rng(1))).all()
  assert (out != method(same, np.random.default_rng(2))).any()
  assert (out != same).any()
  assert (same == frame).all()  # what came in is left alone


def test_mirrored_views_are_taken():
  mirrored = clip()[:, :, ::-1]
  for method in augmentations.METHODS:
    expected = method(mirrored.copy(), np.random.default_rng(0))
    assert (method(mirrored, np.random.default_rng(0)) == expected).all()


def test_colors_shift_by_one_number_a_channel():
  gray = np.full((2, 4, 4, 3), 100, np.uint8)
  seen = set()
  for seed in range(300):
    out = augmentations.shift_colors(gray, np.random.default_rng(seed))
    shifts = out.astype(int) - 100
    assert (shifts == shifts[0, 0, 0]).all()
    seen |= set(shifts[0, 0, 0].tolist())
  assert seen == {*range(-15, 0), *range(1, 16)}


def test_values_saturate():
  white = np.full((1, 4, 4, 3), 250, np.uint8)
  for seed in range(20):
    for method in (augmentations.shift_colors, augmentations.change_brightness):
      out = method(white, np.random.default_rng(seed)).astype(int)
      assert out.min() >= 250 - 32  # and never wraps around


def test_brightness_adds_up_to_32():
  gray = np.full((2, 4, 4, 3), 100, np.uint8)
  shifts = []
  for seed in range(200):
    out = augmentations.change_brightness(gray, np.random.default_rng(seed))
    assert (out == out[0, 0, 0, 0]).all()
    shifts.append(int(out[0, 0, 0, 0]) - 100)
  assert -32 <= min(shifts) < -28 and 28 < max(shifts) <= 32


def test_contrast_scales_about_the_mean():
  two = np.zeros((1, 2, 2, 3), np.uint8)
  two[:, 0], two[:, 1] = 90, 110
  factors = []
  for seed in range(200):
    out = augmentations.change_contrast(two, np.random.default_rng(seed))
    assert out.astype(int).sum() == two.astype(int).sum()  # mean of 100 stays
    factors.append((int(out[0, 1, 0, 0]) - 100) / 10)
  assert 0.7 <= min(factors) < 0.8 and 1.2 < max(factors) <= 1.3


def test_mean_blur_is_a_mean():
  sizes = set()
  for seed in range(10):
    out = augmentations.mean_blur(clip(), np.random.default_rng(seed))
    errors = {
      # The window of pixel 9 begins one pixel before it.
      k: np.abs(
        out[:, 9, 9] - clip()[:, 8 : 8 + k, 8 : 8 + k].mean((1, 2))
      ).max()
      for k in (2, 3)
    }
    assert min(errors.values()) <= 1  # in fixed point
    sizes.add(min(errors, key=errors.get))
  assert sizes == {2, 3}


def test_blur_grows_with_the_picture():
  """At 480 rows: windows of up to 2 %, a deviation of up to 0.6 %."""
  point = np.zeros((1, 480, 480, 3), np.uint8)
  point[0, 240, 240] = 255
  widths, spreads = set(), []
  for seed in range(60):
    out = augmentations.mean_blur(point, np.random.default_rng(seed))
    widths.add(int((out[0, ..., 0] > 0).any(axis=0).sum()))
    out = augmentations.gaussian_blur(point, np.random.default_rng(seed))
    weights = out[0, 240, :, 0].astype(float)
    spread = (weights * (np.arange(480) - 240) ** 2).sum() / weights.sum()
    spreads.append(spread**0.5)
  assert widths == {*range(2, 11)}
  assert min(spreads) < 0.7 and 2.3 < max(spreads) <= 0.006 * 480


def test_gaussian_blur_keeps_the_mean_and_lowers_the_spread():
  before = clip(height=200, width=200)
  after = augmentations.gaussian_blur(before, np.random.default_rng(3))
  assert abs(after.mean() - before.mean()) < 1
  assert after.std() < before.std()


def _middle_matrix(out):
  """The linear map, of columns and rows, about the middle of a ramp."""
  rows, columns = np.mgrid[30:70, 30:70].reshape(2, -1)
  design = np.stack([columns, rows, np.ones(rows.size)], 1)
  values = out[0, 30:70, 30:70, :2].reshape(-1, 2)
  return np.linalg.lstsq(design, values)[0][:2].T


def test_rotations_reach_ten_degrees_and_turn_about_the_middle():
  angles = []
  for seed in range(60):
    out = augmentations.rotate(ramp(), np.random.default_rng(seed))
    assert np.abs(out[0, 49:51, 49:51, :2].mean() - 49.5) < 0.5
    matrix = _middle_matrix(out)
    angles.append(np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0])))
    np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=0.05)
  assert -10.5 < min(angles) < -8 and 8 < max(angles) < 10.5


def test_corners_move_a_little():
  """Each corner by itself: a perspective, fitted here in float64."""
  moves, bends = [], []
  for seed in range(40):
    out = augmentations.move_corners(ramp(), np.random.default_rng(seed))
    # Where the values are between 20 and 79 no reflected border is near.
    inside = ((out[0, ..., :2] > 20) & (out[0, ..., :2] < 79)).all(axis=-1)
    y, x = np.nonzero(inside)
    u, v = out[0, y, x, :2].astype(float).T  # the source of target (x, y)
    zero, one = np.zeros_like(u), np.ones_like(u)
    rows = np.concatenate([
      np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], 1),
      np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], 1),
    ])  # fmt: skip
    solution = np.linalg.lstsq(rows, np.concatenate([u, v]))[0]
    to_source = np.append(solution, 1).reshape(3, 3)
    corners = np.array([[0, 100, 100, 0], [0, 0, 100, 100], [1, 1, 1, 1]])
    moved = np.linalg.inv(to_source) @ corners
    moves.append(moved[:2] / moved[2] - corners[:2])
    bends.append(np.abs(solution[6:]).max())
  # 6 % of a side, and half a pixel of interpolation seen from the middle.
  assert 5 < np.abs(moves).max() < 7.5
  assert np.max(bends) > 2e-4  # not only affine


def test_shares():
  original = clip()
  never = augmentations.augment(original, 0.0, 1.0, np.random.default_rng(0))
  assert never is original
  none = augmentations.augment(original, 1.0, 0.0, np.random.default_rng(0))
  assert none is original
  rng = np.random.default_rng(0)
  small = clip(1, 8, 8)
  changed = [
    (augmentations.augment(small, 0.8, 0.4, rng) != small).any()
    for _ in range(1000)
  ]
  # 0.8 of the clips, of which 0.6⁷ = 2.8 % meet no method, and a change may
  # round to nothing: three standard deviations are 0.04.
  assert 0.8 * (1 - 0.6**7) - 0.06 < np.mean(changed) < 0.78 + 0.04


def test_every_method_has_its_share(monkeypatch):
  calls = dict.fromkeys(range(7), 0)

  def count(index):
    def method(clip, rng):
      calls[index] += 1
      return clip

    return method

  monkeypatch.setattr(
    augmentations, 'METHODS', tuple(count(i) for i in range(7))
  )
  rng = np.random.default_rng(0)
  for _ in range(2000):
    augmentations.augment(clip(1, 2, 2), 0.7, 0.4, rng)
  for number in calls.values():
    assert abs(number / 2000 - 0.28) < 0.03
