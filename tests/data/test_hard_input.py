"""Files of the kinds that go wrong: frames or a VideoError, nothing else."""

import subprocess
import sys

import av
import numpy as np
import pytest

from configs import base
from mtnet_jax.data import loading, pipeline
from mtnet_jax.data.video import VideoError, VideoReader
from tests.data import coded_video

_LENGTH = 40
_KINDS = {
  'a.mp4': {'options': {'bf': '2'}},
  'a.mkv': {'options': {'bf': '2'}},
  'a.ts': {'options': {'bf': '2'}},
  'a.avi': {'codec': 'mpeg4', 'options': {'bf': '2'}},
  'a.h264': {},
  'a.webm': {'codec': 'libvpx-vp9', 'options': {'cpu-used': '8'}},
  # A constant rate, so that it is long enough to be recognized in the middle.
  'a.mpg': {
    'codec': 'mpeg2video',
    'options': dict.fromkeys(('b', 'minrate', 'maxrate'), '200k')
    | {'bufsize': '40k'},
  },
}


@pytest.fixture(scope='module')
def contents(tmp_path_factory):
  """The bytes of a video of each kind, by name."""
  root = tmp_path_factory.mktemp('good')
  for name, options in _KINDS.items():
    coded_video.write(root / name, coded_video.frames(_LENGTH), **options)
  return {name: (root / name).read_bytes() for name in _KINDS}


def _numbers(source):
  """The numbers of all frames, or None where the video is refused."""
  try:
    with VideoReader(source) as video:
      frames = video.read(range(video.num_frames))
      assert frames.shape == (video.num_frames, 48, 64, 3)
      return coded_video.numbers(frames)
  except VideoError as error:
    assert error.cause
    return None


# Damage.


def _cuts(contents):
  """Sixty places, the first at the front."""
  return [len(contents) * i // 60 for i in range(60)]


@pytest.mark.parametrize('name', _KINDS)
def test_truncated_at_the_back(contents, name):
  whole = contents[name]
  found = [_numbers(whole[:place]) for place in _cuts(whole)]
  assert found[0] is None  # nothing at all
  found = [numbers for numbers in found if numbers]
  # What is there is right but for the last ones: of one a part is missing, and
  # others refer to it.
  for numbers in found:
    assert numbers[:-4] == [*range(len(numbers) - 4)]
  if name != 'a.mp4':  # it says at its end where the frames are
    assert any(_LENGTH // 2 < len(numbers) < _LENGTH for numbers in found)


@pytest.mark.parametrize('name', _KINDS)
def test_truncated_at_the_front(contents, name):
  whole = contents[name]
  found = [_numbers(whole[place:]) for place in _cuts(whole)[1:]]
  found = [numbers for numbers in found if numbers]
  if name in ('a.mp4', 'a.mkv', 'a.webm'):
    assert not found  # what has lost its head
  else:  # a stream, which can be joined later
    assert {numbers[-1] for numbers in found} == {_LENGTH - 1}
  if name in ('a.ts', 'a.h264', 'a.mpg'):
    # Where a group of frames begins, in the middle too.
    for numbers in found:
      following = [*range(numbers[0], _LENGTH)]
      assert numbers[: len(following)] == following
    assert any(numbers[0] > _LENGTH // 2 for numbers in found)


@pytest.mark.parametrize('name', _KINDS)
def test_flipped_bytes(contents, name, tmp_path):
  rng = np.random.default_rng(0)
  outcomes = set()
  for attempt in range(25):
    damaged = bytearray(contents[name])
    # Anywhere, or in the first bytes, which say what follows.
    reach = len(damaged) if attempt % 2 else min(len(damaged), 2000)
    for place in rng.integers(reach, size=rng.integers(1, 20)):
      damaged[place] ^= rng.integers(1, 256)
    path = tmp_path / name
    path.write_bytes(damaged)
    for source in (bytes(damaged), path):
      try:
        with VideoReader(source) as video:
          chosen = np.sort(rng.integers(video.num_frames, size=4))
          assert video.read(chosen, 24).shape[0] == 4
          assert len([*video.frames(24)]) == video.num_frames
          outcomes.add('frames')
      except VideoError as error:
        assert error.cause
        outcomes.add('error')
  assert outcomes == {'frames', 'error'}


# Extremes.


@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'avi', 'ts'])
def test_no_frame(tmp_path, suffix):
  path = tmp_path / f'empty.{suffix}'
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    container.start_encoding()
  with pytest.raises(VideoError):
    VideoReader(path)


@pytest.mark.parametrize('name', _KINDS)
def test_one_frame(tmp_path, name):
  path = coded_video.write(
    tmp_path / name, coded_video.frames(6)[5:], **_KINDS[name]
  )
  with VideoReader(path) as video:
    assert video.num_frames == 1
    assert coded_video.numbers(video.read([0, 0, 0])) == [5, 5, 5]
    ((time, image),) = video.frames()
  assert time == 0 and coded_video.numbers(image[None]) == [5]


def test_4k(tmp_path):
  frames = coded_video.frames(3, 2160, 3840)
  options = {'preset': 'ultrafast'}
  path = coded_video.write(tmp_path / '4k.mp4', frames, options=options)
  with VideoReader(path) as video:
    assert (video.width, video.height) == (3840, 2160)
    assert video.read([2]).shape == (1, 2160, 3840, 3)
    small = video.read([1, 2], 112)
  assert small.shape == (2, 112, 199, 3)
  assert coded_video.numbers(small) == [1, 2]


@pytest.mark.parametrize(
  ('name', 'codec', 'pix_fmt'),
  [
    ('odd.mp4', 'libx264', 'yuv444p'),
    ('odd.webm', 'libvpx-vp9', 'yuv420p'),
    ('odd.avi', 'ffv1', 'yuv420p'),
  ],
)
def test_odd_sizes(tmp_path, name, codec, pix_fmt):
  frames = coded_video.frames(20, 91, 128)[:, :, :127]
  path = coded_video.write(tmp_path / name, frames, codec, pix_fmt=pix_fmt)
  with VideoReader(path) as video:
    assert (video.width, video.height) == (127, 91)
    assert video.read([3]).shape == (1, 91, 127, 3)
    for side in (None, 91, 45, 181):
      chosen = video.read([0, 7, 19], side)
      assert coded_video.numbers(chosen) == [0, 7, 19]


_LONG = """
import resource, sys
import av, numpy as np
from mtnet_jax.data.video import VideoReader
from tests.data import test_hard_input as helpers

def peak():  # bytes
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

short, path = sys.argv[1:]
with VideoReader(short) as video:
  video.read([0, 10])
before = peak()
with VideoReader(path) as video:
  assert video.num_frames == helpers.LONG, video.num_frames
  for first in (helpers.LONG - 80, helpers.LONG // 2 + 7, 0, 123_456):
    indices = np.arange(first, first + 80, 5)
    frames = video.read(indices)
    assert helpers.long_numbers(frames) == (indices % helpers.TOLD).tolist()
with VideoReader(path, start=5000.0, end=5000.4) as video:
  frames = [image for _, image in video.frames()]
  expected = np.arange(125_000, 125_010) % helpers.TOLD
  assert helpers.long_numbers(np.stack(frames)) == expected.tolist()
print(peak() - before)
"""
LONG = 180_000  # frames: two hours at 25 a second
TOLD = 1_000  # the frames' numbers repeat after so many
_BITS = 10


def long_numbers(frames):
  """The numbers modulo `TOLD` that stand in (t, 48, 160, 3)."""
  bits = frames[:, 24, 8 :: 160 // _BITS].mean(axis=-1) > 125
  return (bits << np.arange(_BITS)).sum(axis=1).tolist()


def _write_long(path):
  """Encodes `TOLD` frames, and repeats their packets."""
  rng = np.random.default_rng(0)
  bits = np.arange(TOLD)[:, None] >> np.arange(_BITS) & 1
  bars = np.repeat(bits * 200 + 25, 160 // _BITS, axis=1)[:, None, :, None]
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height, stream.pix_fmt = 160, 48, 'yuv420p'
    stream.options = {'preset': 'ultrafast', 'g': '50', 'crf': '27'}
    packets = []
    for bar in bars:
      image = bar + rng.integers(-16, 16, (48, 160, 3))  # not to be too small
      frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8))
      packets += stream.encode(frame)
    packets += stream.encode()
    facts = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in packets]
    for first in range(0, LONG, TOLD):
      for content, pts, dts, is_keyframe in facts:
        packet = av.Packet(content)
        packet.pts, packet.dts = first + pts, first + dts
        packet.time_base = packets[0].time_base
        packet.is_keyframe = is_keyframe
        packet.stream = stream
        container.mux(packet)


def test_two_hours_take_little_memory(root, tmp_path):
  short = coded_video.write(tmp_path / 'a.mp4', coded_video.frames(20))
  path = tmp_path / 'film.mp4'
  _write_long(path)
  size = path.stat().st_size
  done = subprocess.run(
    [sys.executable, '-c', _LONG, short, str(path)],
    cwd=root,
    capture_output=True,
    text=True,
  )
  path.unlink()
  assert done.returncode == 0, done.stderr
  assert size > 100e6
  assert int(done.stdout) < 40e6


# All of it in one data set.

_GOOD = [*(f'good{i}.mp4' for i in range(5)), 'one.mp4']
_BROKEN = [
  'front.mp4',
  'back.mp4',
  'text.mp4',
  'nothing.mp4',
  'empty.avi',
  'late.mp4',
]


@pytest.fixture(scope='module')
def mixed(contents, tmp_path_factory):
  """Six good videos and six broken ones, in a training and a test split."""
  root = tmp_path_factory.mktemp('mixed')
  good = contents['a.mp4']
  for name in (*_GOOD, 'late.mp4'):
    (root / name).write_bytes(good)
  coded_video.write(root / 'one.mp4', coded_video.frames(1))
  (root / 'front.mp4').write_bytes(good[500:])
  (root / 'back.mp4').write_bytes(good[: len(good) // 2])
  (root / 'text.mp4').write_text('I am no video')
  (root / 'nothing.mp4').touch()
  with av.open(str(root / 'empty.avi'), 'w') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    container.start_encoding()
  rows = ['path,label,split,start,end']
  for name in (*_GOOD, *_BROKEN):
    start = 100 if name == 'late.mp4' else ''  # it ends before
    for split, end in (('train', ''), ('test', 200)):
      rows.append(f'{name},hug,{split},{start},{end}')
  (root / 'clips.csv').write_text('\n'.join(rows))
  return root


def _small(directory):
  config = base.get_config()
  config.data.update(dir=str(directory), num_frames=4, frame_stride=2)
  config.data.update(short_side=24, crop_size=24, input_size=16)
  config.train.update(batch_size=4, num_steps=9)
  config.eval.update(num_clips=2, num_crops=1, clips_per_step=6)
  config.eval.update(crop_size=24, input_size=16)
  return config


def _name(example_id):
  return example_id.split('#')[0]


def test_training_leaves_broken_videos_out_and_names_them(mixed):
  batches = pipeline.build(_small(mixed), 'train')
  trained, broken = set(), set()
  for batch in loading.iterate(batches):  # three epochs
    assert batch['clips'].shape == (4, 4, 16, 16, 3)
    trained |= {_name(example_id) for example_id in batch['ids']}
    broken |= {_name(video) for video, _ in batch['broken']}
  assert trained == set(_GOOD)
  assert broken == set(_BROKEN)


def test_evaluation_names_broken_videos_and_counts_the_others(mixed):
  found = [*loading.iterate(pipeline.build(_small(mixed), 'test'))]
  ids, mask, broken = (
    np.concatenate([batch[key] for batch in found])
    for key in ('ids', 'mask', 'broken')
  )
  assert [_name(example_id) for example_id in ids] == _GOOD + _BROKEN
  assert mask.tolist() == [True] * 6 + [False] * 6
  assert (broken != '').tolist() == [False] * 6 + [True] * 6
  assert 'no frame from 100.0 s' in broken[-1]
