"""Builds the batches of a configuration."""

import math

import ml_collections

from mtnet_jax.data import clips, sources, transforms
from mtnet_jax.data.batches import EvaluationBatches, TrainingBatches
from mtnet_jax.data.multigrid import Multigrid
from mtnet_jax.errors import UserError

# Keys of `data`.
_SHARES = (
  *('augment_share', 'augment_method_share', 'rand_augment_strength'),
  'max_broken_share',
)


def build(
  config: ml_collections.ConfigDict,
  split: str,
  process_index: int = 0,
  process_count: int = 1,
  batch_multiple: int = 1,
) -> TrainingBatches | EvaluationBatches:
  """Builds the batches of a split.

  Args:
    config: a configuration as in configs/base.py; read are `seed`, `data`,
      `train` and `eval`.
    split: 'train' gives training batches of `config.train.batch_size` clips for
      the whole run; 'val' and 'test' give evaluation batches of all views of
      `config.eval`, with as many videos as fill `clips_per_step`.
    process_index: this process's number, 0 ≤ index < process_count.
    process_count: processes that share each batch evenly.
    batch_multiple: devices of all processes that share a training batch; with
      multigrid, batches are rounded to multiples of it.

  Returns:
    A picklable sequence; `[k]` is batch k, `labels` the names of the classes,
    `num_videos` the videos of the split.

  Raises:
    UserError: no usable data, or a value that is not allowed.
  """
  if split == 'train':
    return _build_training(config, process_index, process_count, batch_multiple)
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
  config: ml_collections.ConfigDict,
  process_index: int,
  process_count: int,
  batch_multiple: int,
) -> TrainingBatches:
  _check_training(config, process_count)
  data = config.data
  shared = _shared(config, 'train', process_index, process_count)
  num_videos = len(shared['source'])
  multigrid = Multigrid(
    config.train.batch_size,
    data.num_frames,
    data.input_size,
    num_videos,
    long_cycle=config.train.long_cycle,
    short_cycle=config.train.short_cycle,
    batch_multiple=math.lcm(batch_multiple, process_count),
  )
  steps = config.train.num_steps or multigrid.num_steps(
    config.train.num_epochs * num_videos
  )
  names = shared['source'].labels if data.flip else ()
  return TrainingBatches(
    **shared,
    multigrid=multigrid,
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
    rand_augment=data.rand_augment,
    rand_augment_strength=data.rand_augment_strength,
    seed=config.seed,
    # Every step belongs to an update.
    num_steps=-(-steps // config.train.accumulate) * config.train.accumulate,
  )


def _check_training(config: ml_collections.ConfigDict, process_count: int):
  data, batch_size = config.data, config.train.batch_size
  _check_positive(config.train, 'train', 'batch_size', 'accumulate')
  _check_run(config.train)
  _check_positive(data, 'data', 'short_side', 'crop_size', 'input_size')
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
  for key in _SHARES:
    if not 0 <= data[key] <= 1:
      raise UserError(f'data.{key} (={data[key]}) must lie in [0, 1].')
  if data.rand_augment < 0:
    raise UserError(
      f'data.rand_augment (={data.rand_augment}) must be at least 0: the '
      'changes of each training clip.'
    )
  if config.seed < 0:
    raise UserError(f'seed (={config.seed}) must not be negative.')


def _check_run(train: ml_collections.ConfigDict):
  for key in ('num_steps', 'precise_norm_steps'):
    if train[key] < 0:
      raise UserError(f'train.{key} (={train[key]}) must be at least 0.')
  if train.num_steps % train.accumulate:
    raise UserError(
      f'train.num_steps (={train.num_steps}) must be a multiple of '
      f'train.accumulate (={train.accumulate}), the steps of an update: the '
      'last ones would be in none.'
    )
  if not train.num_steps and not 0 < train.num_epochs < math.inf:
    raise UserError(
      f'train.num_epochs (={train.num_epochs}) must be a number above '
      '0, or give train.num_steps.'
    )


def _shared(
  config: ml_collections.ConfigDict,
  split: str,
  process_index: int,
  process_count: int,
) -> dict:
  data = config.data
  _check_positive(data, 'data', 'num_frames', 'frame_stride', 'prefetch')
  _check_positive(data, 'data', 'read_attempts')
  if data.num_workers < 0:
    raise UserError(
      f'data.num_workers (={data.num_workers}) must be at least 0; 0 loads in '
      'the main process.'
    )
  if not config.train.stall_timeout > 0:
    raise UserError(
      f'train.stall_timeout (={config.train.stall_timeout}) must be above 0 '
      'seconds.'
    )
  for key, allowed in (
    ('short_videos', clips.SHORT_VIDEOS),
    ('sampling', clips.SAMPLINGS),
  ):
    if data[key] not in allowed:
      raise UserError(
        f'Unknown data.{key} {data[key]!r}; allowed: {", ".join(allowed)}.'
      )
  return {
    'source': sources.open_source(data.dir, split, data.frames_per_second),
    'num_frames': data.num_frames,
    'frame_stride': data.frame_stride,
    'sampling': data.sampling,
    'short_videos': data.short_videos,
    'read_attempts': data.read_attempts,
    'process_index': process_index,
    'process_count': process_count,
  }


def _check_positive(section: ml_collections.ConfigDict, name: str, *keys: str):
  for key in keys:
    if section[key] < 1:
      raise UserError(f'{name}.{key} (={section[key]}) must be at least 1.')
