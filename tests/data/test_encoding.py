"""Videos encoded anew: the same frames at the same times, only smaller."""

import concurrent.futures
from fractions import Fraction

import av
import numpy as np
import pytest

from mtnet_jax.data.encoding import encode
from mtnet_jax.data.video import VideoError, VideoReader
from tests.data import coded_video

_LENGTH = 100
_NTSC = Fraction(30_000, 1_001)
# Gaps of 20 to 180 ms.
_UNEVEN = np.cumsum(20 + 160 * (np.arange(_LENGTH) * 7 % 11) // 10).tolist()


def _times_and_numbers(source, start=None, end=None):
  with VideoReader(source, start, end) as video:
    frames = list(video.frames())
  times, images = zip(*frames, strict=True)
  return [*times], coded_video.numbers(np.stack(images))


def _encode(path, short_side, start=None, end=None):
  with VideoReader(path, start, end) as video:
    return encode(video, short_side)


@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('uneven.mp4', {'stamps': _UNEVEN}),
    ('uneven.mkv', {'stamps': _UNEVEN}),
    ('b_frames.avi', {'codec': 'mpeg4', 'options': {'bf': '2'}}),
    ('film.mp4', {'fps': 24}),
    ('ntsc.mp4', {'fps': _NTSC}),
    ('ntsc.mkv', {'fps': _NTSC}),  # in whole milliseconds
    ('ntsc.avi', {'fps': _NTSC, 'codec': 'mpeg4', 'options': {'bf': '2'}}),
    ('plain.ts', {}),
  ],
)
def test_frames_keep_their_numbers_and_times(tmp_path, name, options):
  images = coded_video.frames(_LENGTH)
  path = coded_video.write(tmp_path / name, images, **options)
  for start, end in ((None, None), (0.9, 2.0), (2.0, None)):
    contents = _encode(path, 24, start, end)
    times, numbers = _times_and_numbers(path, start, end)
    assert len(numbers) > 5
    assert _times_and_numbers(contents) == (times, numbers)
    with VideoReader(contents) as video:
      assert (video.height, video.width) == (24, 32)
      # At random as well: what is a keyframe is one.
      chosen = [1, len(numbers) // 2, len(numbers) - 1]
      found = coded_video.numbers(video.read(chosen))
      assert found == [numbers[i] for i in chosen]


def test_a_rate_of_television_stays_exact(tmp_path):
  images = coded_video.frames(20)
  path = coded_video.write(tmp_path / 'a.mp4', images, fps=_NTSC)
  contents = _encode(path, 24)
  times, _ = _times_and_numbers(contents)
  assert times == [i / _NTSC for i in range(20)]
  with VideoReader(contents) as video:
    assert video.fps == float(_NTSC)


def test_the_file(tmp_path):
  images = np.repeat(coded_video.frames(2)[1:], _LENGTH, axis=0)  # no cuts
  path = coded_video.write(tmp_path / 'a.mp4', images)
  contents = _encode(path, 24)
  (tmp_path / 'small.mp4').write_bytes(contents)
  with av.open(str(tmp_path / 'small.mp4')) as container:
    (stream,) = container.streams
    assert (stream.codec.name, stream.pix_fmt) == ('h264', 'yuv420p')
    packets = [p for p in container.demux(stream) if p.size]
  keyframes = [i for i, p in enumerate(packets) if p.is_keyframe]
  gaps = np.diff(keyframes + [_LENGTH])
  assert keyframes[0] == 0 and max(gaps) <= 30
  assert contents == _encode(path, 24)  # the same on every call


def test_the_same_bytes_however_many_are_encoded_at_once(tmp_path):
  # Smooth things that move: the encoder then looks ahead, and sums up in
  # an order of its own where it may.
  t, y, x = np.ogrid[:40, :96, :128]
  gray = 120 + 60 * np.sin((x + 3 * t) / 9) * np.cos((y - t) / 7)
  images = np.stack([gray, gray[:, ::-1], 250 - gray], axis=-1)
  path = coded_video.write(tmp_path / 'a.mp4', images.astype(np.uint8))
  alone = _encode(path, 64)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert {*pool.map(lambda _: _encode(path, 64), range(8))} == {alone}


def test_pictures_stay_what_they_were(tmp_path):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 255, (6, 8, 3)).repeat(16, axis=0).repeat(16, axis=1)
  images = np.repeat(image[None], 5, axis=0).astype(np.uint8)  # 96 × 128
  path = coded_video.write(tmp_path / 'a.mp4', images, options={'qp': '1'})
  with VideoReader(path) as old, VideoReader(_encode(path, 48)) as new:
    expected, found = old.read([3], 48).astype(int), new.read([3]).astype(int)
  # In the middle of the squares: colors are stored at half the size.
  difference = np.abs(found - expected)[:, 3::8, 3::8]
  assert difference.mean() < 5


@pytest.mark.parametrize(
  ('height', 'width', 'side', 'expected'),
  [
    (48, 64, 24, (24, 32)),
    (64, 48, 24, (32, 24)),
    (48, 64, 96, (48, 64)),  # never enlarged
    (91, 127, 96, (90, 126)),
    (91, 127, 48, (48, 66)),  # 66.99 → 67 → 66
  ],
)
def test_sizes(tmp_path, height, width, side, expected):
  images = coded_video.frames(5, height, -(-width // 8) * 8)[:, :, :width]
  path = coded_video.write(tmp_path / 'a.mp4', images, pix_fmt='yuv444p')
  with VideoReader(_encode(path, side)) as video:
    assert (video.height, video.width) == expected
    assert coded_video.numbers(video.read(range(5))) == [*range(5)]


def test_rotated_videos_are_stored_upright(tmp_path):
  images = coded_video.frames(4)
  turned = np.ascontiguousarray(np.rot90(images, -1, axes=(1, 2)))
  path = coded_video.write(tmp_path / 'turned.mp4', turned, rotation=90)
  with VideoReader(_encode(path, 24)) as video:
    assert (video.rotation, video.height, video.width) == (0, 24, 32)
    assert coded_video.numbers(video.read(range(4))) == [*range(4)]


def test_sound_is_left_out(tmp_path):
  path = tmp_path / 'loud.mp4'
  with av.open(str(path), 'w') as container:
    picture = container.add_stream('libx264', rate=25)
    picture.width, picture.height = 64, 48
    sound = container.add_stream('aac', rate=16_000)
    for image in coded_video.frames(30):
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      container.mux(picture.encode(frame))
    silence = av.AudioFrame.from_ndarray(
      np.zeros((1, 1024), np.float32), format='fltp', layout='mono'
    )
    silence.rate = 16_000
    container.mux(sound.encode(silence))
    for stream in (picture, sound):
      container.mux(stream.encode())
  (tmp_path / 'small.mp4').write_bytes(_encode(path, 24))
  with av.open(str(tmp_path / 'small.mp4')) as container:
    assert [stream.type for stream in container.streams] == ['video']
  assert _times_and_numbers(str(tmp_path / 'small.mp4'))[1] == [*range(30)]


def test_frames_are_decoded_one_by_one(tmp_path):
  path = coded_video.write(tmp_path / 'a.mp4', coded_video.frames(_LENGTH))
  with VideoReader(path) as video:
    decoded = video.frames(24)
    first = [next(decoded) for _ in range(3)]
    # Not many packets more were read than give three frames.
    assert video._packets._next < 20
    assert [float(time) for time, _ in first] == [0, 0.04, 0.08]
    assert len([*decoded]) == _LENGTH - 3


def test_what_cannot_be_decoded_or_encoded_is_named(tmp_path):
  coded_video.write(tmp_path / 'a.mp4', coded_video.frames(20))
  damaged = bytearray((tmp_path / 'a.mp4').read_bytes())
  damaged[900:1500] = bytes([255]) * 600
  with pytest.raises(VideoError, match='video in memory: '):
    _encode(bytes(damaged), 24)
  line = np.zeros((3, 1, 64, 3), np.uint8)
  path = coded_video.write(tmp_path / 'line.mkv', line, 'ffv1')
  with pytest.raises(VideoError, match=r'line\.mkv: it is too small'):
    _encode(path, 24)
