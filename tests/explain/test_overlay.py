"""Pictures of saliency are what they should be, and can be watched."""

import errno

import matplotlib
import numpy as np
import PIL.Image
import pytest

from mtnet_jax.data.video import VideoReader
from mtnet_jax.errors import UserError
from mtnet_jax.explain import overlay

_SECONDS = np.array([2.0, 2.1, 2.2, 2.3])


def _frames(t=4, h=9, w=13):
  """Gray frames that get brighter by 50, over a slow ramp to the right."""
  ramp = 40 + 2 * np.arange(w) + 50 * np.arange(t)[:, None, None]
  ramp = np.broadcast_to(ramp, (t, h, w))
  return np.repeat(ramp[..., None], 3, axis=-1).astype(np.uint8)


def test_blend_mixes_by_saliency():
  rng = np.random.default_rng(0)
  clip = rng.integers(0, 256, (2, 3, 4, 3), np.uint8)
  saliency = rng.random((2, 3, 4)).astype(np.float32)
  got = overlay.blend(clip, saliency, strength=0.7)
  inferno = matplotlib.colormaps['inferno']
  for index in np.ndindex(2, 3, 4):
    color = np.array(inferno(round(255 * float(saliency[index])))[:3]) * 255
    opacity = 0.7 * float(saliency[index])
    want = (1 - opacity) * clip[index] + opacity * color
    np.testing.assert_allclose(got[index], want, atol=1.01)
  assert got.dtype == np.uint8


def test_no_saliency_and_no_strength_leave_the_picture():
  clip = _frames()
  np.testing.assert_array_equal(overlay.blend(clip, np.zeros((4, 9, 13))), clip)
  np.testing.assert_array_equal(
    overlay.blend(clip, np.ones((4, 9, 13)), strength=0), clip
  )
  alone = overlay.blend(clip, np.ones((4, 9, 13)), strength=1)
  assert (alone == overlay.colors()[-1]).all()


def test_strength_is_checked():
  with pytest.raises(UserError, match=r'is 1\.5; give a number from 0 to 1'):
    overlay.blend(_frames(), np.zeros((4, 9, 13)), strength=1.5)


def test_colors_get_lighter_all_the_way():
  linear = (overlay.colors() / 255.0) ** 2.2
  lightness = np.cbrt(linear @ [0.2126, 0.7152, 0.0722])
  # Bytes are coarse, so steps of eight are compared.
  steps = np.diff(lightness[7::8])
  assert steps.min() > 0
  assert steps.max() < 2.5 * steps.min()  # even to the eye


@pytest.mark.parametrize(
  'seconds, want',
  [
    ([0.0, 0.1, 0.2], 10),
    ([5.0, 6.0, 7.0], 4),  # too slow to be seen as motion
    ([1.0, 1.0], 4),  # one frame, repeated
    ([3.0], 4),
  ],
)
def test_frame_rate(seconds, want):
  assert overlay.frame_rate(np.array(seconds)) == pytest.approx(want)


def test_mp4_plays_at_the_clip_s_rate_and_repeats(tmp_path):
  frames = _frames()
  overlay.write_mp4(frames, _SECONDS, tmp_path / 'new' / 'a.mp4')
  with VideoReader(tmp_path / 'new' / 'a.mp4') as video:
    # 9 × 13 pixels magnified 19 times are 171 × 247: one more of each.
    assert (video.height, video.width) == (172, 248)
    assert video.fps == pytest.approx(10)
    assert video.num_frames == 40  # 4 s
    got = video.read(range(8)).astype(float)
  for i in range(8):
    want = frames[i % 4].repeat(19, 0).repeat(19, 1).astype(float)
    assert np.abs(got[i, :171, :247] - want).mean() < 4


def test_small_frames_are_magnified_smoothly(tmp_path):
  clip = np.zeros((2, 8, 8, 3), np.uint8)
  clip[:, :, 4:] = 200
  overlay.write_gif(clip, np.array([0, 1]), tmp_path / 'a.gif')
  overlay.write_strip(clip, {'a': clip}, np.array([0, 1]), tmp_path / 'a.png')
  strip = _read(tmp_path / 'a.png')[16 + 20 :, 16:]
  for row in (_read(tmp_path / 'a.gif')[128, :, 0], strip[96, :192, 0]):
    # Between the centers of two pixels it goes up step by step.
    edge = np.count_nonzero((row > 20) & (row < 180))
    assert 0.4 < edge / (len(row) / 8) < 1
    assert (row[: len(row) // 4] < 20).all() and row[-1] > 180


def test_large_frames_are_not_magnified(tmp_path):
  overlay.write_mp4(_frames(2, 64, 200), np.array([0, 1]), tmp_path / 'a.mp4')
  with VideoReader(tmp_path / 'a.mp4') as video:
    assert (video.height, video.width) == (64, 200)
    assert video.num_frames == 16  # 4 s at 4 frames a second


def test_gif_repeats_for_ever(tmp_path):
  frames = _frames()
  overlay.write_gif(frames, _SECONDS, tmp_path / 'a.gif')
  with PIL.Image.open(tmp_path / 'a.gif') as image:
    assert (image.n_frames, image.size) == (4, (247, 171))
    assert (image.info['duration'], image.info['loop']) == (100, 0)
    for i in range(4):
      image.seek(i)
      got = np.asarray(image.convert('RGB')).astype(float)
      want = frames[i].repeat(19, 0).repeat(19, 1)
      assert np.abs(got - want).mean() < 3


def _read(path):
  with PIL.Image.open(path) as image:
    return np.asarray(image.convert('RGB'))


def test_strip_shows_overlays_below_frames(tmp_path):
  clip = _frames(3, 48, 48)
  clip[...] = clip[:, :1, :1]  # each of one gray
  overlaid = np.zeros_like(clip)
  overlaid[..., 0] = 200
  rows = {'$y$': overlaid, 'z': overlaid // 2}
  overlay.write_strip(clip, rows, _SECONDS[:3], tmp_path / 'a.png', '$x$')
  picture = _read(tmp_path / 'a.png')
  # Margin 16, title 24, three rows of 20 + 192 + 4, gap 4, margin 16.
  assert picture.shape == (16 + 24 + 3 * 216 + 4 + 16, 16 + 588 - 4 + 16, 3)
  for i in range(3):
    x, y = 16 + 196 * i, 16 + 24 + 20
    for color in (clip[i, 0, 0], (200, 0, 0), (100, 0, 0)):
      assert (picture[y : y + 192, x : x + 192] == color).all()
      words = (picture[y - 20 : y, x : x + 60] < 200).any()
      # Every frame has its seconds, a row of overlays its name once.
      assert words == (y == 60 or i == 0)
      y += 216
  assert (picture[:40] < 100).any()  # title


def test_letters_without_a_glyph_or_a_place_are_no_trouble(tmp_path):
  clip = _frames(2, 48, 48)
  words = '波 \u202e\udcff\n'
  # A warning would be an error here.
  overlay.write_strip(
    clip, {words: clip}, _SECONDS[:2], tmp_path / 'a.png', words
  )
  assert _read(tmp_path / 'a.png').shape[0] == 16 + 24 + 2 * 216 + 4 + 16


def test_strip_draws_sixteen_frames_at_most(tmp_path):
  clip = np.zeros((31, 6, 8, 3), np.uint8)
  clip[:, ..., 0] = 8 * np.arange(31)[:, None, None]
  overlay.write_strip(clip, {'a': clip}, np.arange(31), tmp_path / 'a.png')
  picture = _read(tmp_path / 'a.png')
  cell, band = 144, 2 * (20 + 148) + 4
  assert picture.shape == (16 + 2 * band + 16, 16 + 8 * 196 - 4 + 16, 3)
  reds = [
    picture[16 + i // 8 * band + 20 + cell // 2, 16 + i % 8 * 196 + 96, 0]
    for i in range(16)
  ]
  assert reds == [16 * i for i in range(16)]


@pytest.mark.parametrize('kind', ['mp4', 'gif', 'png'])
def test_a_folder_that_cannot_be_written(tmp_path, kind):
  (tmp_path / 'file').write_text('not a folder')
  path = tmp_path / 'file' / f'a.{kind}'
  frames = _frames()
  with pytest.raises(UserError, match=r'file/a\..* cannot be written \(Not a'):
    if kind == 'png':
      overlay.write_strip(frames, {'a': frames}, _SECONDS, path)
    else:
      write = {'mp4': overlay.write_mp4, 'gif': overlay.write_gif}[kind]
      write(frames, _SECONDS, path)


def test_a_file_in_place_of_which_there_is_a_folder(tmp_path):
  (tmp_path / 'a.mp4').mkdir()
  with pytest.raises(UserError, match='cannot be written'):
    overlay.write_mp4(_frames(), _SECONDS, tmp_path / 'a.mp4')


def test_a_full_disk_keeps_its_own_error(tmp_path):
  with pytest.raises(OSError, match='full') as caught:
    with overlay.writing(tmp_path / 'a'):
      raise OSError(errno.ENOSPC, 'full')
  assert not isinstance(caught.value, UserError)
