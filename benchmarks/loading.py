"""Loads clips beside decoding alone: python -m benchmarks.loading.

One loader process makes training batches, and nothing else runs. Its peer is a
plain loop with PyAV over the same frames of the same videos, in one thread: it
opens the file, seeks, decodes up to a clip's last frame, and turns the clip's
frames into RGB arrays. It needs no index, as the videos' rates are constant,
and neither resizes nor crops. The second peer is our own reader, which leaves
out frames that no other refers to; it does not resize either. They take turns:
each time a new process makes a few batches, of which the first, and with it the
start, does not count; then the others decode the same clips.

The videos are drawn by data.stick_figures, at the bit rate of Kinetics' files.
"""

import contextlib
import dataclasses
import io
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import av
import ml_collections
import numpy as np
from absl import flags
from av.video.reformatter import VideoReformatter

from benchmarks import measure, results
from configs import base, quickstart
from mtnet_jax import cli
from mtnet_jax.data import loading, pipeline, preparation, sources
from mtnet_jax.data.batches import TrainingBatches
from mtnet_jax.data.video import VideoReader
from mtnet_jax.datasets.stick_figures import formats, scene

_PLAIN, _READER = 'PyAV, one thread', 'our reader alone'
_GOAL = 0.9
_RATE = 25  # frames a second
_BIT_RATE = 600_000  # a second
_BATCH_SIZE = 8
_BATCHES = 3  # that are timed of each new process
_LEAST = 5  # rounds


class Video(NamedTuple):
  """A video file of a constant frame rate.

  Attributes:
    source: the video's path, or its contents.
    frames: how many it has.
  """

  source: str | bytes
  frames: int


class Case(NamedTuple):
  """A kind of clips to load.

  Attributes:
    shape: the shape of the clips and the videos, in words.
    batches: the batches, as training gets them.
    videos: the videos by their ids.
  """

  shape: str
  batches: TrainingBatches
  videos: Mapping[str, Video]


def rows(seconds: float = 2.0) -> list[results.Row]:
  """Measures the loader and its peers.

  Args:
    seconds: the time to measure each contender on each kind of videos, in
      seconds, without the starts of processes; at least five rounds are made.
  """
  with tempfile.TemporaryDirectory() as folder:
    return [_measure(case, seconds) for case in cases(pathlib.Path(folder))]


def cases(
  folder: pathlib.Path, num_videos: int = 2, num_frames: int = 300
) -> list[Case]:
  """Makes videos, as large as those of Kinetics and of the demo.

  Args:
    folder: where they lie.
    num_videos: the number of videos of each size.
    num_frames: the number of frames of each video; the small ones have a
      quarter.
  """
  sizes = {340: 256, 320: 240, 108: 90}
  for width, height in sizes.items():
    frames = num_frames if height > 90 else num_frames // 4
    form = formats.Format(width, height, _RATE, frames, 0.1, 0.9)
    for seed in range(num_videos):
      path = folder / str(height) / 'train' / 'wave' / f'{seed}.mp4'
      _write(path, form, seed)
  listing = sources.list_videos(folder / '256')
  preparation.write(listing, folder / 'records', short_side=256)
  large, small = base.get_config(), quickstart.get_config()
  as_stored = base.get_config()
  as_stored.data.short_side = 256
  return [
    _case('files of 340×256', large, folder / '256', num_frames),
    _case('files of 320×240', large, folder / '240', num_frames),
    _case('records of 340×256', as_stored, folder / 'records', num_frames),
    _case('files of 108×90', small, folder / '90', num_frames // 4),
  ]


def _write(path: pathlib.Path, form: formats.Format, seed: int):
  path.parent.mkdir(parents=True, exist_ok=True)
  filmed = scene.Scene('wave', form, np.random.default_rng(seed))
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=form.fps)
    stream.width, stream.height = form.width, form.height
    stream.pix_fmt = 'yuv420p'
    stream.options = {'preset': 'veryfast'}
    stream.bit_rate = _BIT_RATE * form.width * form.height // (340 * 256)
    for image in filmed.frames():
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _case(
  name: str,
  config: ml_collections.ConfigDict,
  folder: pathlib.Path,
  num_frames: int,
) -> Case:
  config.data.dir = str(folder)
  config.train.batch_size = _BATCH_SIZE
  config.train.num_steps = 2**31
  batches = pipeline.build(config, 'train')
  videos = {e.id: Video(e.video, num_frames) for e in batches.source}
  data = config.data
  return Case(f'{data.num_frames}×{data.input_size}², {name}', batches, videos)


class Sample(NamedTuple):
  """One contender's share of one round.

  Attributes:
    wall: seconds a clip.
    cpu: seconds a clip, of the thread or of the loader process.
  """

  wall: float
  cpu: float


def _measure(case: Case, seconds: float) -> results.Row:
  samples = {'ours': [], _PLAIN: [], _READER: []}
  step = 0
  while step < _LEAST * (_BATCHES + 1) or any(
    sum(sample.wall for sample in taken) * _BATCHES * _BATCH_SIZE < seconds
    for taken in samples.values()
  ):
    sample, wanted = load(case, step, _BATCHES)
    samples['ours'].append(sample)
    samples[_PLAIN].append(_time(decode, wanted))
    samples[_READER].append(_time(_read, wanted))
    step += _BATCHES + 1
  walls, cpus = (
    {name: _timing([s[i] for s in taken]) for name, taken in samples.items()}
    for i in range(2)
  )
  ours = cpus.pop('ours').median
  shares = [f'{cpu.median / ours:.2f} of {name}' for name, cpu in cpus.items()]
  return results.Row(
    work='input pipeline, one worker',
    shape=case.shape,
    precision='uint8',
    ours=walls.pop('ours'),
    unit='s/clip',
    peers=walls,
    goals={_PLAIN: _GOAL},
    note=f'by CPU time {", ".join(shares)}',
  )


def _timing(seconds: Sequence[float]) -> measure.Timing:
  low, median, high = np.percentile(seconds, (25, 50, 75)).tolist()
  return measure.Timing(median, low, high, len(seconds))


@dataclasses.dataclass(frozen=True)
class _Clocked(Sequence):
  """Batches with the time that their process has worked; picklable."""

  batches: TrainingBatches

  def __len__(self) -> int:
    return len(self.batches)

  def __getitem__(self, step: int) -> dict:
    return self.batches[step] | {'cpu': np.array(time.process_time())}


def load(
  case: Case, first: int, count: int
) -> tuple[Sample, list[tuple[Video, np.ndarray]]]:
  """Loads batches by a process of their own.

  Args:
    case: what is loaded.
    first: number of the batch that the process begins with, not counted.
    count: batches after that one.

  Returns:
    What a clip took, and each clip's video and the frames chosen of it.
  """
  loader = loading.iterate(_Clocked(case.batches), first, num_workers=1)
  ids = []
  with contextlib.closing(loader):
    cpu = next(loader)['cpu']
    start = time.perf_counter()
    for _ in range(count):
      batch = next(loader)
      ids += batch['ids'].tolist()
    wall = time.perf_counter() - start
  cpu = float(batch['cpu'] - cpu)
  position = case.batches.multigrid.first_sample(first + 1)
  wanted = [
    (case.videos[name], _indices(case, case.videos[name], position + row))
    for row, name in enumerate(ids)
  ]
  return Sample(wall / len(ids), cpu / len(ids)), wanted


def _indices(case: Case, video: Video, position: int) -> np.ndarray:
  """Returns the frames that a training clip is made of."""
  rng = np.random.default_rng((case.batches.seed, position))
  return case.batches.draw_indices(video.frames, rng)


def _time(
  function: Callable, wanted: Sequence[tuple[Video, np.ndarray]]
) -> Sample:
  start, cpu = time.perf_counter(), time.thread_time()
  for video, indices in wanted:
    function(video, indices)
  wall, cpu = time.perf_counter() - start, time.thread_time() - cpu
  return Sample(wall / len(wanted), cpu / len(wanted))


def decode(video: Video, indices: np.ndarray) -> list[np.ndarray]:
  """Decodes frames as simply as PyAV allows, in one thread.

  Args:
    video: a video whose frames come at a constant rate.
    indices: the frames' indices, ascending, each once.

  Returns:
    uint8 (h, w, 3), RGB, for each.
  """
  source = video.source
  if isinstance(source, bytes):
    source = io.BytesIO(source)
  images = []
  with av.open(source) as container:
    stream = container.streams.video[0]
    stream.thread_type = 'NONE'
    step = 1 / (stream.average_rate * stream.time_base)
    stamps = [stream.start_time + round(int(i) * step) for i in indices]
    reformatter = VideoReformatter()
    container.seek(stamps[0], stream=stream)
    for frame in container.decode(stream):
      if frame.pts in stamps:
        image = reformatter.reformat(frame, format='rgb24', threads=1)
        images.append(image.to_ndarray())
      if frame.pts >= stamps[-1]:
        break
  return images


def _read(video: Video, indices: np.ndarray):
  with VideoReader(video.source) as reader:
    reader.read(indices)


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Prints a table."""
  print(results.table(rows(values.seconds)))


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_float(
    'seconds',
    2.0,
    'Time in seconds to measure each contender of a race.',
    0.0,
    flag_values=values,
  )


COMMAND = cli.Command(main, define_flags)


if __name__ == '__main__':
  cli.run(COMMAND)
