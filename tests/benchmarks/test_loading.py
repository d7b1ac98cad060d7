"""Loader and peers get the same clips; their speeds are not asserted."""

import math

import numpy as np
import pytest

from benchmarks import loading, results
from mtnet_jax.data.video import VideoReader

_FRAMES = 100


@pytest.fixture(scope='module')
def cases(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  return loading.cases(folder, num_videos=1, num_frames=_FRAMES)


def test_videos_are_what_they_are_called(cases):
  sizes = []
  for case in cases:
    ((_, video),) = case.videos.items()
    with VideoReader(video.source) as reader:
      sizes.append((reader.width, reader.height, reader.num_frames))
    assert isinstance(video.source, bytes) == ('records' in case.shape)
    assert f'{sizes[-1][0]}×{sizes[-1][1]}' in case.shape
  assert [frames for *_, frames in sizes] == [100, 100, 100, 25]


def test_the_plain_loop_gives_the_frames_that_our_reader_gives(cases):
  for case in cases:
    ((_, video),) = case.videos.items()
    indices = np.array([1, 2, 9, video.frames - 2])
    with VideoReader(video.source) as reader:
      expected = reader.read(indices)
    assert (np.stack(loading.decode(video, indices)) == expected).all()
    for start in range(24, min(34, video.frames)):  # around a keyframe
      assert len(loading.decode(video, np.array([start]))) == 1


def test_a_row_and_the_clips_that_the_peers_get(cases, monkeypatch):
  case = cases[-1]
  chosen = []

  def load(case, first, count):
    sample, wanted = original(case, first, count)
    chosen.append((first, wanted))
    return sample, wanted[:2]

  original = loading.load
  monkeypatch.setattr(loading, 'load', load)
  monkeypatch.setattr(loading, '_LEAST', 1)
  monkeypatch.setattr(loading, '_BATCHES', 1)
  monkeypatch.setattr(loading, 'cases', lambda folder: [case])
  (row,) = loading.rows(0.0)
  assert row.ours.runs == 1
  assert {*row.peers} == {'PyAV, one thread', 'our reader alone'}
  assert all(math.isfinite(ratio) for ratio in results.ratios(row).values())

  ((first, wanted),) = chosen
  clips = case.batches[first + 1]['clips']
  assert len(wanted) == len(clips)
  for clip, (video, indices) in zip(clips, wanted, strict=True):
    with VideoReader(video.source) as reader:
      frames = reader.read(indices, 54)  # quickstart's data.short_side
    assert _is_cut_out_of(clip, frames)


def _is_cut_out_of(clip, frames):
  """Whether a clip, mirrored or not, is somewhere in the frames."""
  windows = np.lib.stride_tricks.sliding_window_view(
    frames, clip.shape[1:3], axis=(1, 2)
  )  # t y x c h w
  return any(
    (windows == np.moveaxis(image, -1, 1)[:, None, None])
    .all(axis=(0, 3, 4, 5))
    .any()
    for image in (clip, clip[:, :, ::-1])
  )
