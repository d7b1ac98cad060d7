"""Batches of clips: batch k is a function of (configuration, k, process).

Nothing is kept from one batch to the next, so that a run can resume from any
step, on any number of loader processes, with the same bytes. Clips are uint8
until they are on the device.
"""

import dataclasses
import functools
import os

import numpy as np
from jaxtyping import Int

from mtnet_jax.data import augmentations, clips, sources, transforms, views
from mtnet_jax.data.frame_folders import FrameFolderReader
from mtnet_jax.data.multigrid import Multigrid
from mtnet_jax.data.rand_augment import rand_augment
from mtnet_jax.data.records import Example
from mtnet_jax.data.tfds_source import FramesReader
from mtnet_jax.data.video import VideoError, VideoReader, retry
from mtnet_jax.errors import UserError, first_causes

# Arrays by name; `clips`, `labels` and others: see the builders below.
Batch = dict[str, np.ndarray]

# The number of broken videos in a row that is no accident.
_MAX_ATTEMPTS = 20
_ORDER = 1  # tells the seeds of the epochs' orders from those of the clips


def open_clip(
  example: Example,
) -> VideoReader | FrameFolderReader | FramesReader:
  """Opens an example's frames.

  Args:
    example: an example of any source.

  Returns:
    A context manager with `num_frames` and `read(indices, short_side)`.

  Raises:
    VideoError: the video cannot be read; so do its methods.
  """
  if isinstance(example.video, tuple):
    return FramesReader(example.video, example.id)
  if isinstance(example.video, str) and os.path.isdir(example.video):
    return FrameFolderReader(
      example.video, example.start, example.end, example.fps
    )
  return VideoReader(example.video, example.start, example.end)


@dataclasses.dataclass(frozen=True)
class _Videos:
  """The common base of training and evaluation batches."""

  source: sources.Source
  num_frames: int
  frame_stride: int
  sampling: str
  short_videos: str
  read_attempts: int
  process_index: int
  process_count: int

  @property
  def labels(self) -> tuple[str, ...]:
    """The classes' names; a label is an index into them."""
    return self.source.labels

  @property
  def num_videos(self) -> int:
    """The number of videos in the split."""
    return len(self.source)

  def _check_step(self, step: int):
    if not 0 <= step < len(self):
      raise IndexError(f'Batch {step} of {len(self)}')

  def _share(self, first: int, count: int) -> range:
    """Returns this process's share of the positions from `first` on."""
    rows = count // self.process_count
    first += self.process_index * rows
    return range(first, first + rows)

  def _example(self, index: int) -> Example:
    return retry(lambda: self.source[index], self.read_attempts)

  def _check_length(self, example: Example, video_frames: int):
    why = clips.too_short(
      video_frames, self.num_frames, self.frame_stride, self.sampling
    )
    if why and self.short_videos == 'error':
      raise UserError(
        f'The video {example.id} {why}. Remove the video, lower '
        "data.num_frames, or set data.short_videos to 'repeat'."
      )


@dataclasses.dataclass(frozen=True)
class TrainingBatches(_Videos):
  """Random clips: `batches[k]` is a dict of

  * `clips`: uint8 (b, t, s, s, 3), RGB;
  * `labels`: int32 (b,);
  * `ids`: str (b,);
  * `broken`: str (any, 2), id and cause of the videos that could not be read;
    the next ones of the epoch stand in for them.

  (b, t, s, s) is `multigrid.shape(k)`, and b here the rows of this process. The
  rows of all batches are the positions of an endless stream of epochs, each a
  random order of all videos: batches go over the ends of epochs, and no
  remainder is dropped. Batch k begins at position `multigrid.first_sample(k)`.
  What is at a position follows from the seed and the position, its shape from
  the batch. Fewer frames are taken evenly from the T of the base shape.
  """

  multigrid: Multigrid
  start: str
  draw_frames: bool
  short_side: int
  crop_size: int
  mirrored_labels: frozenset[int]
  augment_share: float
  augment_method_share: float
  rand_augment: int
  rand_augment_strength: float
  seed: int
  num_steps: int

  def __len__(self) -> int:
    return self.num_steps

  def __getitem__(self, step: int) -> Batch:
    return self.first_clips(step)

  def first_clips(self, step: int, count: int | None = None) -> Batch:
    """Returns the first clips of a batch, without reading the others.

    Args:
      step: the batch's number.
      count: the number of clips; None: all of them.

    Returns:
      As `[step]`.
    """
    self._check_step(step)
    b, t, size, _ = self.multigrid.shape(step)
    positions = self._share(self.multigrid.first_sample(step), b)[:count]
    broken = []
    rows = [self._row(position, t, size, broken) for position in positions]
    examples = [example for example, _ in rows]
    return {
      'clips': np.stack([clip for _, clip in rows]),
      'labels': np.array([example.label for example in examples], np.int32),
      'ids': np.array([example.id for example in examples]),
      'broken': np.array(broken, np.str_).reshape(-1, 2),
    }

  def at_base_shape(self, num_steps: int) -> 'TrainingBatches':
    """Returns batches of the same stream, all of the base shape."""
    constant = dataclasses.replace(
      self.multigrid, long_cycle=False, short_cycle=False
    )
    return dataclasses.replace(self, multigrid=constant, num_steps=num_steps)

  def draw_indices(
    self, video_frames: int, rng: np.random.Generator
  ) -> Int[np.ndarray, ' t']:
    """Draws the frames of one clip of the base shape.

    Args:
      video_frames: frames in the video.
      rng: the source of randomness.
    """
    return clips.training_indices(
      video_frames,
      self.num_frames,
      self.frame_stride,
      self.start,
      rng,
      draw=self.draw_frames,
      sampling=self.sampling,
    )

  def _row(
    self, position: int, t: int, size: int, broken: list[tuple[str, str]]
  ) -> tuple[Example, np.ndarray]:
    epoch, place = divmod(position, self.num_videos)
    order = _epoch_order(self.seed, epoch, self.num_videos)
    attempts = min(_MAX_ATTEMPTS, self.num_videos)
    for offset in range(attempts):
      example = None
      try:
        example = self._example(order[(place + offset) % self.num_videos])
        read = functools.partial(self._clip, example, position, t, size)
        return example, retry(read, self.read_attempts)
      except VideoError as error:
        broken.append((example.id if example else error.name, error.cause))
    raise UserError(
      f'{attempts} training videos in a row cannot be read: '
      f'{first_causes(broken[-attempts:])}. Look at the files.'
    )

  def _clip(
    self, example: Example, position: int, t: int, size: int
  ) -> np.ndarray:
    # The generator is made anew in each attempt, so that failed ones leave no
    # trace.
    rng = np.random.default_rng((self.seed, position))
    with open_clip(example) as video:
      self._check_length(example, video.num_frames)
      indices = self.draw_indices(video.num_frames, rng)
      indices = indices[np.arange(t) * self.num_frames // t]
      frames = video.read(indices, self.short_side)
    clip = transforms.random_crop(frames, self.crop_size, rng)
    clip = transforms.resize_square(clip, size)
    if example.label in self.mirrored_labels and rng.random() < 0.5:
      clip = transforms.mirror(clip)
    clip = augmentations.augment(
      clip, self.augment_share, self.augment_method_share, rng
    )
    return rand_augment(
      clip, self.rand_augment, self.rand_augment_strength, rng
    )


@dataclasses.dataclass(frozen=True)
class EvaluationBatches(_Videos):
  """Every video once, in order: `batches[k]` is a dict of

  * `clips`: uint8 (b, v, t, s, s, 3), RGB; view `i·num_crops + j` is crop j of
    clip i;
  * `labels`: int32 (b,);
  * `mask`: bool (b,), false where there is no video: in the last batch's
    padding, and where it cannot be read. `clips` are zero there;
  * `ids`: str (b,), '' in the padding;
  * `broken`: str (b,), why the video cannot be read, or ''.

  b are the rows of this process; all processes have equally many batches.
  """

  batch_size: int
  input_size: int
  num_clips: int
  num_crops: int
  crop_size: int

  def __len__(self) -> int:
    return -(-self.num_videos // self.batch_size)

  @property
  def num_own_videos(self) -> int:
    """Videos of the split in this process's rows of all batches."""
    return sum(
      position < self.num_videos
      for step in range(len(self))
      for position in self._positions(step)
    )

  def _positions(self, step: int) -> range:
    return self._share(step * self.batch_size, self.batch_size)

  def __getitem__(self, step: int) -> Batch:
    self._check_step(step)
    positions = self._positions(step)
    num_views, size = self.num_clips * self.num_crops, self.input_size
    shape = (len(positions), num_views, self.num_frames, size, size, 3)
    batch = {
      'clips': np.zeros(shape, np.uint8),
      'labels': np.zeros(len(positions), np.int32),
      'mask': np.zeros(len(positions), bool),
    }
    ids = [''] * len(positions)
    broken = [''] * len(positions)
    for row, position in enumerate(positions):
      if position >= self.num_videos:
        break
      try:
        example = self._example(position)
        ids[row] = example.id
        batch['labels'][row] = example.label
        read = functools.partial(self._views, example)
        batch['clips'][row] = retry(read, self.read_attempts)
        batch['mask'][row] = True
      except VideoError as error:
        ids[row] = ids[row] or error.name
        broken[row] = error.cause
    return batch | {'ids': np.array(ids), 'broken': np.array(broken)}

  def _views(self, example: Example) -> np.ndarray:
    with open_clip(example) as video:
      self._check_length(example, video.num_frames)
      indices = clips.view_indices(
        video.num_frames,
        self.num_frames,
        self.frame_stride,
        self.num_clips,
        self.sampling,
      )
      return views.read(
        video,
        indices,
        num_crops=self.num_crops,
        crop_size=self.crop_size,
        input_size=self.input_size,
      )


@functools.lru_cache(maxsize=2)  # a batch may lie in two epochs
def _epoch_order(seed: int, epoch: int, num_videos: int) -> np.ndarray:
  rng = np.random.default_rng((seed, epoch, _ORDER))
  return rng.permutation(num_videos)
