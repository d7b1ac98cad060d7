"""Examines a data set, and measures how fast it can be loaded."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

from mtnet_jax.data import loading
from mtnet_jax.data.batches import TrainingBatches, open_clip
from mtnet_jax.data.records import Example
from mtnet_jax.data.sources import Source
from mtnet_jax.data.video import VideoError
from mtnet_jax.progress import Progress

_WARM_UP = 2  # batches: the first is made while the process starts


@dataclasses.dataclass(frozen=True)
class Probe:
  """The properties of one video.

  Attributes:
    index: the video's place in its source.
    id: the video's id.
    label: the class's number; -1 if that cannot be read.
    frames: the number of frames in the range of times; 0 if they cannot be
      read, as below.
    seconds: the time from its first to the end of its last frame; NaN if the
      frames' times are not known.
    height: the height in pixels.
    width: the width in pixels.
    cause: the reason why the first or the last frame cannot be decoded, or ''.
  """

  index: int
  id: str
  label: int
  frames: int = 0
  seconds: float = float('nan')
  height: int = 0
  width: int = 0
  cause: str = ''


def probe(source: Source, sample: int = 0, seed: int = 0) -> list[Probe]:
  """Opens videos and decodes the first and the last frame of each.

  Args:
    source: the videos of a split.
    sample: the largest number of videos to open, drawn at random; 0: all.
    seed: the seed of that choice.

  Returns:
    A probe a video, in the order of the source.
  """
  count = min(sample or len(source), len(source))
  rng = np.random.default_rng(seed)
  indices = np.sort(rng.permutation(len(source))[:count]).tolist()
  with Progress('looking', count, 'videos') as progress:
    probes = []
    for one in _in_threads(source, indices):
      probes.append(one)
      progress.advance()
  return probes


def _in_threads(source: Source, indices: Sequence[int]) -> Iterator[Probe]:
  # Threads suffice: FFmpeg works without holding Python's lock.
  workers = os.cpu_count() or 1
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    results = collections.deque()
    for index in indices:
      results.append(pool.submit(_probe, source, index))
      if len(results) > 2 * workers:
        yield results.popleft().result()
    yield from (result.result() for result in results)


def _probe(source: Source, index: int) -> Probe:
  example = None
  try:
    example = source[index]
    with open_clip(example) as video:
      frames, seconds = video.num_frames, float(video.times[-1])
      _, height, width, _ = video.read([0, frames - 1]).shape
  except VideoError as error:
    if example is None:
      return Probe(index, error.name, -1, cause=error.cause)
    return Probe(index, example.id, example.label, cause=error.cause)
  return Probe(index, example.id, example.label, frames, seconds, height, width)


@dataclasses.dataclass(frozen=True)
class Speed:
  """The speed at which training clips are made.

  Attributes:
    loaded: clips/s that one loader process gives, with nothing beside it.
    decoded: clips/s of the same videos, read, decoded and resized by one
      thread: what a loader process could give at most.
    clips: the number of clips that were measured.
  """

  loaded: float
  decoded: float
  clips: int


def measure(
  batches: TrainingBatches,
  probes: Sequence[Probe],
  prefetch: int,
  seconds: float,
) -> Speed:
  """Measures a loader process, and then the decoding alone.

  Args:
    batches: the batches as training gets them; how many there are does not
      matter.
    probes: the probes of the videos to measure with, those with a cause left
      out. They were read lately: that the disk is slow the first time does not
      show.
    prefetch: batches that the process keeps ready.
    seconds: the seconds of loading, at least; one batch is always measured.

  Returns:
    The rates.

  Raises:
    UserError: a video is too short, and `data.short_videos` forbids it.
  """
  source = batches.source
  index_of = {probe.id: probe.index for probe in probes if not probe.cause}
  readable = Source(source.labels, _Subset(source, tuple(index_of.values())))
  batches = dataclasses.replace(batches, source=readable, num_steps=2**31)
  ids = []
  loader = loading.iterate(batches, num_workers=1, prefetch=prefetch)
  with contextlib.closing(loader):
    for _ in range(_WARM_UP):
      next(loader)
    start = end = time.perf_counter()
    while not ids or end - start < seconds:
      ids += next(loader)['ids'].tolist()
      end = time.perf_counter()
  loaded = len(ids) / (end - start)

  rng = np.random.default_rng(batches.seed)
  start = time.perf_counter()
  for video in ids:
    _decode(batches, source[index_of[video]], rng)
  return Speed(loaded, len(ids) / (time.perf_counter() - start), len(ids))


def _decode(
  batches: TrainingBatches, example: Example, rng: np.random.Generator
):
  with open_clip(example) as video:
    indices = batches.draw_indices(video.num_frames, rng)
    video.read(indices, batches.short_side)


@dataclasses.dataclass(frozen=True)
class _Subset(Sequence[Example]):
  """A subset of a source's videos, by their places; picklable."""

  source: Source
  indices: tuple[int, ...]

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> Example:
    return self.source[self.indices[index]]
