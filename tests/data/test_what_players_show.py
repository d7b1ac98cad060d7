"""Recordings that were cut, joined or changed: what FFmpeg plays of them."""

import io

import av
import numpy as np
import pytest

from mtnet_jax.data import encoding
from mtnet_jax.data.video import VideoReader
from tests.data import coded_video

_LENGTH = 40
_OPEN = {
  'libx264': {'x264-params': 'open-gop=1:bframes=3:b-adapt=0:scenecut=0'},
  'libx265': {
    'x265-params': 'open-gop=1:bframes=3:b-adapt=0:keyint=12:log-level=none'
  },
  'mpeg4': {'bf': '2'},
  'mpeg2video': {'bf': '2', 'b_strategy': '0'},
}


def _cut(source, target, first):
  """Copies the packets from a number on, as a recorder does that joins late."""
  with av.open(str(source)) as old, av.open(str(target), 'w') as new:
    stream = new.add_stream_from_template(old.streams.video[0])
    packets = [packet for packet in old.demux(video=0) if packet.size]
    for packet in packets[first:]:
      packet.stream = stream
      new.mux(packet)
  return str(target)


def _played(path):
  """The numbers of all frames that FFmpeg decodes, one after the other."""
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    stream.thread_type = 'NONE'
    shown = []
    for packet in container.demux(stream):
      try:
        frames = packet.decode()
      except av.InvalidDataError:  # FFmpeg's player goes on too
        continue
      shown += [frame.to_ndarray(format='rgb24') for frame in frames]
  return coded_video.numbers(np.stack(shown))


@pytest.mark.parametrize('first', [0, 5, 12, 14])
@pytest.mark.parametrize(
  ('name', 'codec'),
  [
    ('a.ts', 'libx264'),
    ('a.mkv', 'libx264'),
    ('a.mp4', 'libx264'),
    ('a.mkv', 'libx265'),
    ('a.ts', 'libx265'),
    ('a.mpg', 'mpeg2video'),
    ('a.avi', 'mpeg4'),
  ],
)
def test_frames_without_references_do_not_count(tmp_path, name, codec, first):
  # Only such a stream repeats what decoders have to know.
  suffix = name[1:] if name in ('a.ts', 'a.avi') else '.mkv'
  whole = coded_video.write(
    tmp_path / f'whole{suffix}',
    coded_video.frames(_LENGTH),
    codec,
    options=_OPEN[codec],
  )
  path = _cut(whole, tmp_path / name, first)
  expected = _played(path)
  assert len(expected) > 12
  if first == 0:
    assert expected == [*range(_LENGTH)]
  count = len(expected)
  with VideoReader(path) as video:
    assert video.num_frames == count
    assert coded_video.numbers(video.read(range(count))) == expected
    for chosen in ([0], [count - 1], [3, 9, 11], [1, 12]):
      # More than once: the decoder has seen other frames before.
      found = coded_video.numbers(video.read(chosen))
      assert found == [expected[number] for number in chosen]
    assert len([*video.frames()]) == count
    np.testing.assert_allclose(video.times, np.arange(count + 1) / 25)
  with VideoReader(path) as video:
    contents = encoding.encode(video, 0)
  with VideoReader(contents) as video:
    assert coded_video.numbers(video.read(range(count))) == expected


# Sizes.


def _annexb(images):
  file = io.BytesIO()
  with av.open(file, 'w', format='h264') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.height, stream.width = images.shape[1:3]
    stream.pix_fmt, stream.options = 'yuv420p', {'bf': '0', 'g': '6'}
    for image in images:
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return file.getvalue()


@pytest.mark.parametrize('name', ['a.h264', 'a.ts', 'a.mkv'])
def test_frames_get_the_first_ones_size(tmp_path, name):
  images = coded_video.frames(20)
  wide = coded_video.frames(20, 48, 96)
  (tmp_path / 'a.h264').write_bytes(
    _annexb(images[:10]) + _annexb(wide[10:16]) + _annexb(images[16:])
  )
  path = tmp_path / name
  if name != 'a.h264':
    _copy_stamped(tmp_path / 'a.h264', path)
  for chosen in ([*range(20)], [12], [3, 13, 18]):
    with VideoReader(path) as video:
      frames = video.read(chosen)
      assert frames.shape == (len(chosen), 48, 64, 3)
      assert coded_video.numbers(frames) == chosen
      assert video.read([11], 24).shape == (1, 24, 32, 3)
      assert (video.height, video.width) == (48, 64)
  with VideoReader(path) as video:
    shapes = {image.shape for _, image in video.frames()}
    assert shapes == {(48, 64, 3)}
    contents = encoding.encode(video, 24)
  with VideoReader(contents) as video:
    assert coded_video.numbers(video.read(range(20))) == [*range(20)]


def _copy_stamped(source, target):
  with av.open(str(source)) as old, av.open(str(target), 'w') as new:
    stream = new.add_stream_from_template(old.streams.video[0])
    packets = (packet for packet in old.demux(video=0) if packet.size)
    for number, packet in enumerate(packets):
      packet.stream = stream
      packet.pts = packet.dts = round(number / 25 / packet.time_base)
      new.mux(packet)


# Several streams.


def _write_streams(path, *films, default=None):
  """Streams of uint8 (t, h, w, 3), in this order."""
  with av.open(str(path), 'w') as container:
    streams = []
    for number, images in enumerate(films):
      stream = container.add_stream('mpeg4', rate=25)
      stream.height, stream.width = images.shape[1:3]
      stream.pix_fmt = 'yuv420p'
      if default == number:
        stream.disposition = av.stream.Disposition.default
      streams.append(stream)
    for stream, images in zip(streams, films, strict=True):
      for image in images:
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        container.mux(stream.encode(frame))
      container.mux(stream.encode())
  return str(path)


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4'])
@pytest.mark.parametrize('default', [None, 0, 1])
def test_a_single_picture_beside_a_film_is_not_played(tmp_path, name, default):
  film = coded_video.frames(20)
  for size in ((32, 32), (240, 320)):
    picture = np.zeros((1, *size, 3), np.uint8)
    for place, films in enumerate(([picture, film], [film, picture])):
      path = _write_streams(
        tmp_path / f'{place}{size[0]}{name}', *films, default=default
      )
      with VideoReader(path) as video:
        assert video.num_frames == 20
        assert coded_video.numbers(video.read([3, 19])) == [3, 19]


def test_of_several_films_the_marked_one_is_played(tmp_path):
  films = coded_video.frames(9), coded_video.frames(8, 96, 128)
  for default in (0, 1):
    path = _write_streams(tmp_path / 'a.mkv', *films, default=default)
    with VideoReader(path) as video:
      assert video.num_frames == len(films[default])


def test_of_several_films_the_largest_is_played(tmp_path):
  small, large = coded_video.frames(9), coded_video.frames(8, 96, 128)
  for films in ([small, large], [large, small]):
    path = _write_streams(tmp_path / 'a.ts', *films)
    with VideoReader(path) as video:
      assert (video.num_frames, video.width) == (8, 128)
