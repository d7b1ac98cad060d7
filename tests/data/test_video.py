"""Frames by number: the number is drawn in the frame, so nothing is assumed."""

import pathlib
import pickle
from fractions import Fraction

import av
import numpy as np
import pytest

from mtnet_jax.data.video import VideoError, VideoReader
from tests.data import coded_video

_LENGTH = 40
# Gaps from 20 to 180 ms.
_UNEVEN = np.cumsum(20 + 160 * (np.arange(_LENGTH) * 7 % 11) // 10).tolist()
_KINDS = {
  'h264_b_frames.mp4': {'options': {'bf': '3', 'b-pyramid': 'normal'}},
  'h264_open_gop.mkv': {'options': {'x264-params': 'open-gop=1'}},
  'h264_no_keyframes.mp4': {'options': {'intra-refresh': '1'}},
  'h264_uneven.mp4': {'stamps': _UNEVEN},
  'h264_fragments.mp4': {'muxer': {'movflags': 'frag_keyframe+empty_moov'}},
  'h264.ts': {},
  'h264_no_container.h264': {},
  'mpeg2.mpg': {'codec': 'mpeg2video', 'options': {'bf': '2', 'b': '1M'}},
  'mpeg4_b_frames.avi': {'codec': 'mpeg4', 'options': {'bf': '2'}},
  'h264.avi': {},
  'vp9.webm': {'codec': 'libvpx-vp9', 'options': {'cpu-used': '8'}},
  'av1.mp4': {'codec': 'libsvtav1', 'options': {'preset': '12'}},
}


@pytest.fixture(scope='session')
def coded(tmp_path_factory):
  """A function from a name of `_KINDS` to the path of such a video."""
  folder = tmp_path_factory.mktemp('coded')

  def make(kind):
    codec = _KINDS[kind].get('codec', 'libx264')
    if codec not in av.codecs_available:
      pytest.skip(f'this FFmpeg has no {codec}')
    path = folder / kind
    if not path.exists():
      coded_video.write(path, coded_video.frames(_LENGTH), **_KINDS[kind])
    return str(path)

  return make


@pytest.mark.parametrize('kind', _KINDS)
def test_frames_are_those_asked_for(coded, kind):
  rng = np.random.default_rng(0)
  with VideoReader(coded(kind)) as video:
    assert video.num_frames == _LENGTH
    assert (video.width, video.height, video.rotation) == (64, 48, 0)
    assert coded_video.numbers(video.read(range(_LENGTH))) == [*range(_LENGTH)]
    # A reader keeps no place: any selections, in any order, repeats too.
    for count in (1, 1, 3, 8, 8, 60):
      indices = np.sort(rng.integers(_LENGTH, size=count))
      frames = video.read(indices)
      assert frames.shape == (count, 48, 64, 3)
      assert frames.dtype == np.uint8
      assert coded_video.numbers(frames) == indices.tolist()


@pytest.mark.parametrize('kind', _KINDS)
def test_all_frames_are_those_that_are_read(coded, kind):
  with VideoReader(coded(kind)) as video:
    times, images = zip(*video.frames(), strict=True)
    assert (np.stack(images) == video.read(range(_LENGTH))).all()
  assert coded_video.numbers(np.stack(images)) == [*range(_LENGTH)]
  assert times[0] == 0 and (np.diff(times) > 0).all()


def test_all_frames_with_their_times(coded):
  with VideoReader(coded('h264_uneven.mp4'), 1.0, 2.5) as video:
    expected = coded_video.numbers(video.read(range(video.num_frames)))
    times, images = zip(*video.frames(24), strict=True)
  assert coded_video.numbers(np.stack(images)) == expected
  assert images[0].shape == (24, 32, 3)
  assert [1000 * time for time in times] == [
    _UNEVEN[number] - _UNEVEN[expected[0]] for number in expected
  ]
  with VideoReader(coded('mpeg4_b_frames.avi')) as video:
    times = [time for time, _ in video.frames()]
  assert times == [Fraction(i, 25) for i in range(_LENGTH)]


_STILL = [*range(0, 1000, 40), *range(1000, 6000, 1000)]  # ms: a still slide


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_times_are_the_frames_own(tmp_path, name):
  stamps = [500 + stamp for stamp in _STILL]  # from the first frame's
  path = coded_video.write(
    tmp_path / name, coded_video.frames(len(stamps)), stamps=stamps
  )
  with VideoReader(path) as video:
    np.testing.assert_allclose(video.times[:-1], np.array(_STILL) / 1000)
    assert video.times[-1] > 5
  with VideoReader(path, start=0.96, end=4.0) as video:
    np.testing.assert_allclose(video.times, [0, 0.04, 1.04, 2.04, 3.04])


@pytest.mark.parametrize(
  ('name', 'codec'),
  [('a.mp4', 'libx264'), ('a.mkv', 'libx264'), ('a.avi', 'mpeg4')],
)
@pytest.mark.parametrize('count', [1, 5])
def test_the_last_frame_is_shown_as_long_as_the_others(
  tmp_path, name, codec, count
):
  images = coded_video.frames(count)
  path = coded_video.write(tmp_path / name, images, codec)
  with VideoReader(path) as video:
    np.testing.assert_allclose(video.times, np.arange(count + 1) / 25)


def _cut_by_edit_list(source, target, first):
  """Copies a video; players are told to begin with another frame."""
  options = {'avoid_negative_ts': 'disabled'}
  with (
    av.open(source) as old,
    av.open(str(target), 'w', options=options) as new,
  ):
    stream = new.add_stream_from_template(old.streams.video[0])
    shift = round(first / 25 / old.streams.video[0].time_base)
    for packet in old.demux(video=0):
      if packet.size:
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = stream
        new.mux(packet)
  return str(target)


def test_frames_that_an_edit_list_leaves_out_do_not_count(coded, tmp_path):
  path = coded('h264_b_frames.mp4')
  path = _cut_by_edit_list(path, tmp_path / 'cut.mp4', 17)
  with VideoReader(path) as video:
    assert video.num_frames == _LENGTH - 17
    for indices in ([0], [1, 9], [22], range(23)):
      numbers = coded_video.numbers(video.read(indices))
      assert numbers == [17 + i for i in indices]


def test_contents_are_as_good_as_a_path(coded):
  path = coded('h264_b_frames.mp4')
  with VideoReader(path) as file, VideoReader(open_bytes(path)) as memory:
    assert (file.read([3, 17]) == memory.read([3, 17])).all()
    assert file.fps == memory.fps == 25


def open_bytes(path):
  return pathlib.Path(path).read_bytes()


@pytest.mark.parametrize('kind', ['h264_b_frames.mp4', 'mpeg4_b_frames.avi'])
@pytest.mark.parametrize(
  ('start', 'end', 'expected'),
  [
    (0.2, 0.4, range(5, 10)),  # frame 5 is at 0.2 s; frame 10, at 0.4 s, is out
    (0.21, 0.41, range(6, 11)),
    (None, 0.12, range(0, 3)),
    (1.5, None, range(38, 40)),
    (1.5, 99, range(38, 40)),
  ],
)
def test_start_and_end_in_seconds(coded, kind, start, end, expected):
  with VideoReader(coded(kind), start, end) as video:
    assert video.num_frames == len(expected)
    frames = video.read(range(video.num_frames))
    assert coded_video.numbers(frames) == [*expected]


def test_start_and_end_by_the_frames_own_times(coded):
  times = (np.array(_UNEVEN) - _UNEVEN[0]) / 1000
  expected = np.flatnonzero((times >= 1.0) & (times < 2.5)).tolist()
  with VideoReader(coded('h264_uneven.mp4'), 1.0, 2.5) as video:
    frames = video.read(range(video.num_frames))
  assert coded_video.numbers(frames) == expected


def test_resizing_keeps_the_aspect_and_the_content(coded):
  with VideoReader(coded('h264_b_frames.mp4')) as video:
    small, large = video.read([9, 30], 24), video.read([9, 30], 96)
  assert small.shape == (2, 24, 32, 3)
  assert large.shape == (2, 96, 128, 3)
  assert coded_video.numbers(small) == coded_video.numbers(large) == [9, 30]


@pytest.mark.parametrize('short_side', [None, 25, 70])
def test_pixels_are_those_of_a_plain_loop(tmp_path, short_side):
  rng = np.random.default_rng(0)
  # FFmpeg pads rows of 46 pixels, which is none of the multiples it likes.
  images = rng.integers(0, 256, (20, 34, 46, 3), np.uint8)
  path = coded_video.write(tmp_path / 'noise.mp4', images)
  size = {None: (46, 34), 25: (34, 25), 70: (95, 70)}[short_side]
  with av.open(path) as container:
    expected = [
      frame.to_ndarray(format='rgb24', width=size[0], height=size[1])
      for frame in container.decode(video=0)
    ]
  indices = [0, 3, 3, 4, 19]  # a frame twice
  with VideoReader(path) as video:
    frames = video.read(indices, short_side)
  assert frames.flags.c_contiguous
  assert (frames == np.stack([expected[i] for i in indices])).all()


@pytest.mark.parametrize('degrees', [90, 180, 270])
def test_rotated_videos_stand_upright(tmp_path, degrees):
  upright = np.full((3, 48, 64, 3), 30, np.uint8)
  upright[:, :24, :32] = 220  # bright at the top left
  # As from a turned camera; players are told to turn it back.
  stored = np.rot90(upright, -degrees // 90, axes=(1, 2))
  path = coded_video.write(
    tmp_path / 'turned.mp4', np.ascontiguousarray(stored), rotation=degrees
  )
  with VideoReader(path) as video:
    assert (video.width, video.height, video.rotation) == (64, 48, degrees)
    frames = video.read([0, 2])
    assert video.read([0], 24).shape == (1, 24, 32, 3)
  assert np.abs(frames.astype(int) - upright[:2]).mean() < 5


def _with_empty_packets(source, target, count):
  """Copies an MPEG-4 video at 25 a second with packets of no picture behind."""
  # VOP start code; type P, no seconds, marker, 5 bits of time, marker, "not
  # coded", stuffing: 01 0 1 00001 1 0 01111.
  nothing = bytes([0, 0, 1, 0xB6, 0x50, 0xCF])
  with av.open(source) as old, av.open(str(target), 'w') as new:
    stream = new.add_stream_from_template(old.streams.video[0])
    packets = [packet for packet in old.demux(video=0) if packet.size]
    for _ in range(count):
      packets.append(av.Packet(nothing))
      packets[-1].dts = packets[-1].pts = packets[-2].dts + 1
      packets[-1].time_base = packets[0].time_base
    for packet in packets:
      packet.stream = stream
      new.mux(packet)
  return str(target)


def test_a_container_may_count_two_frames_too_many(coded, tmp_path):
  path = coded('mpeg4_b_frames.avi')
  path = _with_empty_packets(path, tmp_path / 'two.avi', 2)
  with VideoReader(path) as video:
    assert video.num_frames == _LENGTH + 2
    frames = video.read([5, _LENGTH - 1, _LENGTH, _LENGTH + 1])
  last = _LENGTH - 1
  assert coded_video.numbers(frames) == [5, last, last, last]


def test_more_missing_frames_are_an_error(coded, tmp_path):
  path = coded('mpeg4_b_frames.avi')
  path = _with_empty_packets(path, tmp_path / 'three.avi', 3)
  with (
    VideoReader(path) as video,
    pytest.raises(VideoError, match='frame 40 of 43 cannot be'),
  ):
    video.read([0, _LENGTH])


def test_a_packet_more_than_the_header_counts_is_no_frame(coded, tmp_path):
  path = coded('mpeg4_b_frames.avi')
  path = _with_empty_packets(path, tmp_path / 'three.avi', 3)
  contents = bytearray(open_bytes(path))
  place = contents.index(b'vids') + 32  # of dwLength in the stream's header
  assert contents[place : place + 4] == bytes([_LENGTH + 3, 0, 0, 0])
  contents[place] = _LENGTH + 2
  with VideoReader(bytes(contents)) as video:
    assert video.num_frames == _LENGTH + 2
    frames = video.read([0, _LENGTH - 1, _LENGTH + 1])
  assert coded_video.numbers(frames) == [0, _LENGTH - 1, _LENGTH - 1]
  contents[place] = 7  # a header that is simply wrong
  with VideoReader(bytes(contents)) as video:
    assert video.num_frames == _LENGTH + 3


def _write_audio(path):
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('aac', rate=16_000)
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 1024), np.float32), format='fltp', layout='mono'
    )
    frame.rate = 16_000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def test_what_is_no_video_is_named_with_the_cause(coded, tmp_path, capfd):
  good = open_bytes(coded('h264_b_frames.mp4'))
  (tmp_path / 'text.mp4').write_text('This is no video.\n' * 100)
  (tmp_path / 'empty.mp4').touch()
  (tmp_path / 'half.mp4').write_bytes(good[: len(good) // 2])
  (tmp_path / 'folder.mp4').mkdir()
  _write_audio(tmp_path / 'audio.mp4')
  causes = {
    'text.mp4': 'Invalid data',
    'empty.mp4': 'Invalid data',
    'half.mp4': 'Invalid data',
    'folder.mp4': 'Is a directory',
    'audio.mp4': 'no video stream',
    'missing.mp4': 'No such file',
  }
  for name, cause in causes.items():
    path = str(tmp_path / name)
    with pytest.raises(VideoError, match=cause) as caught:
      VideoReader(path)
    assert caught.value.name == path
    assert str(caught.value).startswith(f'{path}: ')
    restored = pickle.loads(pickle.dumps(caught.value))  # from a loader process
    assert str(restored) == str(caught.value)
  with pytest.raises(VideoError, match='video in memory: Invalid data'):
    VideoReader(b'text')
  assert capfd.readouterr() == ('', '')


def test_damage_in_the_middle_is_an_error(coded):
  contents = bytearray(open_bytes(coded('h264_b_frames.mp4')))
  contents[400:1600] = bytes([255]) * 1200
  with VideoReader(bytes(contents)) as video, pytest.raises(VideoError):
    video.read(range(video.num_frames))


def test_ranges_outside_the_video_are_errors(coded):
  path = coded('h264_b_frames.mp4')
  with pytest.raises(VideoError, match=r'from 7 s to the end; .* at 1.56 s'):
    VideoReader(path, start=7)
  with VideoReader(path) as video:
    for index in (-1, _LENGTH):
      with pytest.raises(IndexError, match='which has 40'):
        video.read([index])


# Files of the sort that people have, where they lie beside the repository.


@pytest.fixture(scope='session')
def fixtures(root):
  """Real and index-coded videos with awkward properties."""
  path = root.parent / 'shared' / 'videos' / 'decoder_fixtures'
  if not path.is_dir():
    pytest.skip(f'{path} is not there')
  return path


@pytest.mark.parametrize(
  'name',
  [
    'index_coded_h264.mp4',
    'index_coded_h264_opengop.mp4',
    'index_coded_mpeg4_bframes.avi',
    'index_coded_vfr.mp4',
    'index_coded_vp9.webm',
  ],
)
def test_long_index_coded_files(fixtures, name):
  rng = np.random.default_rng(1)
  with VideoReader(fixtures / name) as video:
    assert video.num_frames == 300
    for _ in range(3):
      indices = np.sort(rng.integers(300, size=16))
      frames = video.read(indices)
      # Ten bits, block b at x = 10 + 32·b, y from 20 to 60.
      bits = frames[:, 40, 22 : 22 + 320 : 32].mean(axis=-1) > 125
      numbers = (bits << np.arange(10)).sum(axis=1)
      assert numbers.tolist() == indices.tolist()


def test_real_files_open_and_decode(fixtures):
  for path in sorted(fixtures.glob('*.*')):
    if path.suffix in ('.md', '.txt') or path.name == 'decord_corrupted.mp4':
      continue
    with VideoReader(path) as video:
      last = video.num_frames - 1
      frames = video.read([0, last // 2, last], 32)
      assert frames.shape[0] == 3 and min(frames.shape[1:3]) == 32
      upright = video.width < video.height
    assert upright == (path.stem in ('decord_video_90', 'decord_video_270'))
  with (
    VideoReader(fixtures / 'decord_corrupted.mp4') as video,
    pytest.raises(VideoError, match='Invalid data'),
  ):
    video.read(range(video.num_frames))
