"""Batches whose shapes change with the step show the same stream of clips."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from configs import base
from mtnet_jax.data import loading, pipeline
from mtnet_jax.data.video import VideoReader
from tests.data import coded_video

# Twelve videos by batches of two of 8 × 64²: the phases have one step each.
_LONG = [(16, 2, 48), (8, 4, 48), (4, 4, 64), (2, 8, 64)]
_LENGTHS = (8, 13, 20, 27, 34, 40)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Videos of 64 × 80 whose frames tell their numbers, half of them short."""
  root = tmp_path_factory.mktemp('videos')
  for name, length in itertools.product(('hug', 'wave'), _LENGTHS):
    path = root / 'train' / name / f'{length}.mp4'
    path.parent.mkdir(parents=True, exist_ok=True)
    images = coded_video.frames(length, 64, 80)
    coded_video.write(path, images, options={'qp': '5'})
  return root


def _config(directory, **changes):
  config = base.get_config()
  config.data.update(dir=str(directory), num_frames=8, frame_stride=2)
  config.data.update(short_side=64, crop_size=64, input_size=64, flip=False)
  config.train.update(batch_size=2, long_cycle=True, num_epochs=5)
  for name, value in changes.items():
    section, key = name.split('__')
    config[section][key] = value
  return config


def _shapes(batches):
  return [batch['clips'].shape for batch in batches]


@pytest.mark.parametrize('cycles', ['long', 'short', 'long and short'])
def test_shapes(videos, cycles):
  config = _config(
    videos, train__long_cycle='long' in cycles, train__num_steps=5
  )
  config.train.short_cycle = 'short' in cycles
  found = _shapes(loading.iterate(pipeline.build(config, 'train')))
  expected = {
    'long': _LONG + _LONG[:1],
    # 64/2 = 32 and 64/√2 = 45.3
    'short': [(8, 8, 32), (4, 8, 48), (2, 8, 64)] * 2,
    # A step a phase: each is the first of its short cycle.
    'long and short': [(64, 2, 24), (32, 4, 24), (16, 4, 32), (8, 8, 32)] * 2,
  }[cycles]
  assert found == [(b, t, h, h, 3) for b, t, h in expected[:5]]


def test_the_stream_of_clips_stays_the_same(videos):
  batches = pipeline.build(_config(videos), 'train')
  # Five epochs are 60 clips: two passes of 30.
  assert len(batches) == 8
  clips = [
    clip for batch in loading.iterate(batches) for clip in batch['clips']
  ]
  ids = [name for batch in loading.iterate(batches) for name in batch['ids']]
  epochs = [sorted(ids[first : first + 12]) for first in range(0, 60, 12)]
  assert all(len(set(epoch)) == 12 for epoch in epochs)
  stream = batches.at_base_shape(30)
  assert set(_shapes(loading.iterate(stream))) == {(2, 8, 64, 64, 3)}
  full = [clip for batch in loading.iterate(stream) for clip in batch['clips']]
  assert ids == [name for b in loading.iterate(stream) for name in b['ids']]
  for whole, clip in zip(full, clips, strict=True):
    # By hand: 8 frames to 2 or 4, evenly; pixels by OpenCV's bilinear.
    frames = whole[:: 8 // len(clip)]
    assert coded_video.numbers(frames) == coded_video.numbers(clip)
    side = clip.shape[1]
    expected = [cv2.resize(frame, (side, side)) for frame in frames]
    np.testing.assert_array_equal(clip, expected)


def test_frames_that_do_not_divide(videos):
  # Of 13 frames, phases take 3, 7, 7 and 13.
  config = _config(videos, data__num_frames=13, data__frame_stride=1)
  batches = pipeline.build(config, 'train')
  stream = batches.at_base_shape(30)
  for step, kept in enumerate(
    [[0, 4, 8], [0, 1, 3, 5, 7, 9, 11], [0, 1, 3, 5, 7, 9, 11], range(13)]
  ):
    clip = batches[step]['clips'][1]
    position = batches.multigrid.first_sample(step) + 1
    whole = stream[position // 2]['clips'][position % 2]
    chosen = coded_video.numbers(whole[list(kept)])
    assert coded_video.numbers(clip) == chosen


def test_only_the_frames_of_the_shape_are_decoded(videos, monkeypatch):
  asked = []
  read = VideoReader.read

  def counting(self, indices, short_side):
    asked.append(len(indices))
    return read(self, indices, short_side)

  monkeypatch.setattr(VideoReader, 'read', counting)
  batches = pipeline.build(_config(videos), 'train')
  assert batches[1] is not None
  assert asked == [4] * 8


def test_processes_share_batches_of_every_shape(videos):
  config = _config(videos, train__short_cycle=True, train__num_steps=4)
  whole = pipeline.build(config, 'train')
  parts = [pipeline.build(config, 'train', i, 2, 2) for i in range(2)]
  assert len(whole) == len(parts[0]) == len(parts[1])
  for step in (0, 3):
    for name in ('clips', 'labels', 'ids'):
      joined = np.concatenate([part[step][name] for part in parts])
      np.testing.assert_array_equal(joined, whole[step][name])


def test_batches_are_multiples_of_the_devices(videos):
  config = _config(videos, train__batch_size=6)
  for devices, processes in ((4, 1), (4, 2), (1, 3)):
    batches = pipeline.build(config, 'train', 0, processes, devices)
    for shape in batches.multigrid.shapes():
      assert shape[0] % devices == shape[0] % processes == 0


def test_only_the_first_clips_are_read(videos, monkeypatch):
  batches = pipeline.build(_config(videos), 'train')
  whole = batches[0]
  opened = []
  init = VideoReader.__init__
  monkeypatch.setattr(
    VideoReader,
    '__init__',
    lambda self, *args: opened.append(args) or init(self, *args),
  )
  first = batches.first_clips(0, 3)
  assert len(opened) == 3
  for name in ('clips', 'labels', 'ids'):
    np.testing.assert_array_equal(first[name], whole[name][:3])


def test_workers_give_the_same_bytes(videos):
  config = _config(videos, train__short_cycle=True, train__num_steps=4)
  batches = pipeline.build(config, 'train')
  found = list(loading.iterate(batches, 1, num_workers=2))
  assert len(found) == 3
  for step, batch in enumerate(found, start=1):
    for name, value in batches[step].items():
      np.testing.assert_array_equal(batch[name], value)


def test_videos_of_coded_frames(videos):
  files = pipeline.build(_config(videos), 'train')
  examples = []
  for example in files.source:
    with VideoReader(example.video) as video:
      frames = video.read(range(video.num_frames))
    coded = tuple(
      cv2.imencode('.png', frame[..., ::-1])[1].tobytes() for frame in frames
    )
    examples.append(dataclasses.replace(example, video=coded))
  source = dataclasses.replace(files.source, examples=examples)
  batches = dataclasses.replace(files, source=source)
  for step in (0, 3):
    for name, value in files[step].items():
      np.testing.assert_array_equal(batches[step][name], value)
