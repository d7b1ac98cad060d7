"""Batches of clips: batch k is a function of (configuration, k, process).

Nothing is kept from one batch to the next, so that a run goes on from any step,
on any number of loader processes, with the same bytes. Clips are uint8 until
they are on the device.
"""

import dataclasses
import functools
import math

import ml_collections
import numpy as np

from mtnet_jax.data import augmentations, clips, sources, transforms
from mtnet_jax.data.records import Example
from mtnet_jax.data.video import VideoError, VideoReader
from mtnet_jax.errors import UserError

Batch = dict[str, np.ndarray]

# So many broken videos in a row are no accident.
_MAX_ATTEMPTS = 20
_ORDER = 1  # tells the seeds of the epochs' orders from those of the clips


@dataclasses.dataclass(frozen=True)
class _Videos:
  """What training and evaluation batches have in common."""

  source: sources.Source
  num_frames: int
  frame_stride: int
  input_size: int
  short_videos: str
  batch_size: int
  process_index: int
  process_count: int

  @property
  def labels(self) -> tuple[str, ...]:
    """The classes' names; a label is an index into them."""
    return self.source.labels

  @property
  def num_videos(self) -> int:
    """Videos in the split."""
    return len(self.source)

  def _positions(self, step: int) -> range:
    """Returns this process's rows of a batch, counted over all batches."""
    if not 0 <= step < len(self):
      raise IndexError(f'Batch {step} of {len(self)}')
    rows = self.batch_size // self.process_count
    first = step * self.batch_size + self.process_index * rows
    return range(first, first + rows)

  def _check_length(self, example: Example, video_frames: int):
    if self.short_videos == 'error' and video_frames < self.num_frames:
      raise UserError(
        f'The video {example.id} has {video_frames} frames, a clip has '
        f'{self.num_frames}. Remove the video, lower data.num_frames, or set '
        "data.short_videos to 'repeat'."
      )


@dataclasses.dataclass(frozen=True)
class TrainingBatches(_Videos):
  """Random clips: `batches[k]` is a dict of

  * `clips`: uint8 (b, t, s, s, 3), RGB;
  * `labels`: int32 (b,);
  * `ids`: str (b,);
  * `broken`: str (any,), 'id: cause' of the videos that could not be read; the
    next ones of the epoch stand in for them.

  b are the rows of this process. Row r of batch k is position p = k·B + r of
  the endless stream of epochs, each a random order of all videos: batches go
  over the ends of epochs, and no remainder is dropped.
  """

  start: str
  draw_frames: bool
  short_side: int
  crop_size: int
  mirrored_labels: frozenset[int]
  augment_share: float
  augment_method_share: float
  seed: int
  num_steps: int

  def __len__(self) -> int:
    return self.num_steps

  def __getitem__(self, step: int) -> Batch:
    broken = []
    rows = [self._row(position, broken) for position in self._positions(step)]
    examples = [example for example, _ in rows]
    return {
      'clips': np.stack([clip for _, clip in rows]),
      'labels': np.array([example.label for example in examples], np.int32),
      'ids': np.array([example.id for example in examples]),
      'broken': np.array(broken, np.str_),
    }

  def _row(
    self, position: int, broken: list[str]
  ) -> tuple[Example, np.ndarray]:
    rng = np.random.default_rng((self.seed, position))
    epoch, place = divmod(position, self.num_videos)
    order = _epoch_order(self.seed, epoch, self.num_videos)
    attempts = min(_MAX_ATTEMPTS, self.num_videos)
    for offset in range(attempts):
      example = self.source[order[(place + offset) % self.num_videos]]
      try:
        return example, self._clip(example, rng)
      except VideoError as error:
        broken.append(f'{example.id}: {error.cause}')
    raise UserError(
      f'{attempts} training videos in a row cannot be read, the last '
      f'is {broken[-1]}. Look at the files.'
    )

  def _clip(self, example: Example, rng: np.random.Generator) -> np.ndarray:
    with VideoReader(example.video, example.start, example.end) as video:
      self._check_length(example, video.num_frames)
      indices = clips.training_indices(
        video.num_frames,
        self.num_frames,
        self.frame_stride,
        self.start,
        rng,
        draw=self.draw_frames,
      )
      frames = video.read(indices, self.short_side)
    clip = transforms.random_crop(frames, self.crop_size, rng)
    clip = transforms.resize_square(clip, self.input_size)
    if example.label in self.mirrored_labels and rng.random() < 0.5:
      clip = transforms.mirror(clip)
    return augmentations.augment(
      clip, self.augment_share, self.augment_method_share, rng
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

  num_clips: int
  num_crops: int
  crop_size: int

  def __len__(self) -> int:
    return -(-self.num_videos // self.batch_size)

  def __getitem__(self, step: int) -> Batch:
    positions = self._positions(step)
    views = self.num_clips * self.num_crops
    size = self.input_size
    shape = (len(positions), views, self.num_frames, size, size, 3)
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
      example = self.source[position]
      ids[row] = example.id
      batch['labels'][row] = example.label
      try:
        batch['clips'][row] = self._views(example)
        batch['mask'][row] = True
      except VideoError as error:
        broken[row] = error.cause
    return batch | {'ids': np.array(ids), 'broken': np.array(broken)}

  def _views(self, example: Example) -> np.ndarray:
    """Returns uint8 (v, t, s, s, 3); each frame is decoded once."""
    with VideoReader(example.video, example.start, example.end) as video:
      self._check_length(example, video.num_frames)
      indices = clips.view_indices(
        video.num_frames, self.num_frames, self.frame_stride, self.num_clips
      )
      wanted = np.unique(indices)
      frames = video.read(wanted, self.crop_size)
    crops = np.stack(
      [
        transforms.resize_square(crop, self.input_size)
        for crop in transforms.crops_along_long_side(frames, self.num_crops)
      ],
      axis=1,
    )  # u j s s c, u the frames that are in any view
    views = crops[np.searchsorted(wanted, indices)]  # i t j s s c
    return views.swapaxes(1, 2).reshape(-1, self.num_frames, *crops.shape[2:])


def build(
  config: ml_collections.ConfigDict,
  split: str,
  process_index: int = 0,
  process_count: int = 1,
) -> TrainingBatches | EvaluationBatches:
  """Builds the batches of a split.

  Args:
    config: as configs/base.py; read are `seed`, `data`, `train` and `eval`.
    split: 'train' gives training batches of `config.train.batch_size` clips for
      the whole run; 'val' and 'test' give evaluation batches of all views of
      `config.eval`, with as many videos as fill `clips_per_step`.
    process_index: this process's number, 0 ≤ index < process_count.
    process_count: processes that share each batch evenly.

  Returns:
    A picklable sequence; `[k]` is batch k, `labels` the names of the classes,
    `num_videos` the videos of the split.

  Raises:
    UserError: no usable data, or a value that is not allowed.
  """
  if split == 'train':
    return _build_training(config, process_index, process_count)
  return build_evaluation(config, split, process_index, process_count)


def build_evaluation(
  config: ml_collections.ConfigDict,
  split: str,
  process_index: int = 0,
  process_count: int = 1,
) -> EvaluationBatches:
  """Builds evaluation batches, as `build`, of any split: of 'train' too."""
  views = config.eval.num_clips * config.eval.num_crops
  _check_positive(config.eval, 'eval', 'num_clips', 'num_crops', 'crop_size')
  _check_positive(config.eval, 'eval', 'input_size', 'clips_per_step')
  videos = max(1, config.eval.clips_per_step // views)
  return EvaluationBatches(
    **_shared(config, split, process_index, process_count),
    batch_size=-(-videos // process_count) * process_count,
    input_size=config.eval.input_size,
    num_clips=config.eval.num_clips,
    num_crops=config.eval.num_crops,
    crop_size=config.eval.crop_size,
  )


def _build_training(
  config: ml_collections.ConfigDict, process_index: int, process_count: int
) -> TrainingBatches:
  data, batch_size = config.data, config.train.batch_size
  _check_positive(data, 'data', 'short_side', 'crop_size', 'input_size')
  _check_positive(config.train, 'train', 'batch_size')
  if batch_size % process_count:
    raise UserError(
      f'train.batch_size (={batch_size}) must be divisible by the number of '
      f'processes (={process_count}).'
    )
  if data.short_side < data.crop_size:
    raise UserError(
      f'data.short_side (={data.short_side}) must not be below '
      f'data.crop_size (={data.crop_size}): a crop is cut out of the frame.'
    )
  if data.start not in clips.STARTS:
    raise UserError(
      f'Unknown data.start {data.start!r}; allowed: {", ".join(clips.STARTS)}.'
    )
  for key in ('augment_share', 'augment_method_share'):
    if not 0 <= data[key] <= 1:
      raise UserError(f'data.{key} (={data[key]}) must lie in [0, 1].')
  if config.seed < 0:
    raise UserError(f'seed (={config.seed}) must not be negative.')
  shared = _shared(config, 'train', process_index, process_count)
  steps = config.train.num_steps or math.ceil(
    config.train.num_epochs * len(shared['source']) / batch_size
  )
  names = shared['source'].labels if data.flip else ()
  return TrainingBatches(
    **shared,
    batch_size=batch_size,
    input_size=data.input_size,
    start=data.start,
    draw_frames=data.draw_frames,
    short_side=data.short_side,
    crop_size=data.crop_size,
    mirrored_labels=frozenset(
      label
      for label, name in enumerate(names)
      if not transforms.names_a_side(name)
    ),
    augment_share=data.augment_share,
    augment_method_share=data.augment_method_share,
    seed=config.seed,
    num_steps=steps,
  )


def _shared(
  config: ml_collections.ConfigDict,
  split: str,
  process_index: int,
  process_count: int,
) -> dict:
  data = config.data
  _check_positive(data, 'data', 'num_frames', 'frame_stride', 'prefetch')
  if data.num_workers < 0:
    raise UserError(
      f'data.num_workers (={data.num_workers}) must be at least 0; 0 loads in '
      'the main process.'
    )
  if data.short_videos not in ('repeat', 'error'):
    raise UserError(
      f'Unknown data.short_videos {data.short_videos!r}; allowed: repeat, '
      'error.'
    )
  return {
    'source': sources.open_source(data.dir, split),
    'num_frames': data.num_frames,
    'frame_stride': data.frame_stride,
    'short_videos': data.short_videos,
    'process_index': process_index,
    'process_count': process_count,
  }


def _check_positive(section: ml_collections.ConfigDict, name: str, *keys: str):
  for key in keys:
    if section[key] < 1:
      raise UserError(f'{name}.{key} (={section[key]}) must be at least 1.')


@functools.lru_cache(maxsize=2)  # a batch may lie in two epochs
def _epoch_order(seed: int, epoch: int, num_videos: int) -> np.ndarray:
  rng = np.random.default_rng((seed, epoch, _ORDER))
  return rng.permutation(num_videos)
