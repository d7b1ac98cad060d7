"""Derives a recipe from the number and the length of the videos.

A recipe for hundreds of thousands of videos fails on a hundred: its warm-up is
longer than the run, its batch is larger than the set, and BN's statistics come
from a handful of clips. Here each setting that depends on the videos is derived
from them, with its reason in words.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import ml_collections

from mtnet_jax.errors import UserError

_FEWEST = 8  # clips for training
_LARGEST_BATCH = 32
# A batch is at most this share of the clips: an epoch has eight steps.
_BATCH_SHARE = 1 / 8
# The number of clips below which shared BN statistics are noise.
_FEWEST_FOR_NORM = 8
# Epochs, and the fewest and the most steps, by whether weights are pretrained.
_LENGTHS = {True: (150, 500, 6_000), False: (150, 600, 20_000)}
_WARM_UP_SHARE = 0.05
_VALIDATIONS = 10
# Seconds; most actions take no longer. Longer videos hold one somewhere.
_CLIP_SECONDS = 3.0
_FRAME_RATE = 25.0  # where it is not known
# Up to so many clips for training: the share of them that is augmented.
_AUGMENTED = ((500, 0.8), (5_000, 0.4), (math.inf, 0.0))
_FEW_FOR_SCRATCH = 10_000
_FEWEST_STEPS = 50  # that --minutes may leave
_MOST_VIEWS = 10


@dataclasses.dataclass(frozen=True)
class Facts:
  """Facts about the videos and about the training that a recipe depends on.

  Attributes:
    clips: the number of training videos.
    validation: the number of validation videos.
    classes: the names of the classes.
    frames: the median number of frames of a video.
    rate: the median number of frames per second; NaN where it is not known.
    short_side: pixels of the shorter side of most videos.
    pretrained: whether the network starts from weights.
    devices: the number of devices that train.
  """

  clips: int
  validation: int
  classes: Sequence[str]
  frames: float
  rate: float
  short_side: int
  pretrained: bool
  devices: int = 1


@dataclasses.dataclass(frozen=True)
class Pace:
  """The time that parts of a training take, in seconds.

  Attributes:
    compile: until the first step.
    step: a step, and the loading of its clips.
    clip: a clip that is judged, and its loading.
  """

  compile: float
  step: float
  clip: float

  def of(self, steps: int, judged: int) -> float:
    """Returns the seconds of a run.

    Args:
      steps: the number of training steps.
      judged: clips, those of validations and of the evaluation.
    """
    return self.compile + steps * self.step + judged * self.clip


def fit(config: ml_collections.ConfigDict, facts: Facts) -> list[str]:
  """Sets the keys that depend on the videos.

  Args:
    config: the configuration of `configs/finetune.py`, with the network and its
      clips; changed in place.
    facts: the facts about the videos.

  Returns:
    What was set and why, a sentence each.

  Raises:
    UserError: there are too few clips, or fewer than two classes.
  """
  if len(facts.classes) < 2:
    raise UserError(
      f'The videos are all of one class, {", ".join(facts.classes)!r}: there '
      'is nothing to tell apart. Give a folder for each of two classes or more.'
    )
  if facts.clips < _FEWEST:
    raise UserError(
      f'There are {facts.clips} videos for training, and at least {_FEWEST} '
      'are needed. Add more.'
    )
  with config.unlocked():
    return [
      *_clips(config, facts),
      *_batch(config, facts),
      *_length(config, facts),
      *_augmentation(config, facts),
    ]


def shorten(
  config: ml_collections.ConfigDict, num_steps: int
) -> ml_collections.ConfigDict:
  """Returns the configuration with fewer steps, the rest in proportion."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    _set_steps(config, num_steps)
  return config


def _clips(config, facts) -> list[str]:
  data, views = config.data, config.eval
  if not facts.pretrained:
    # The size is no larger than the videos, and networks halve it five times.
    size = min(data.crop_size, int(0.9 * facts.short_side) // 8 * 8)
    size = max(size, 32)
    for section in (data, views):
      section.crop_size = section.input_size = size
    data.short_side = round(size * 9 / 8)
  whole = data.sampling == 'uniform'
  return [
    _whole_video(config) if whole else _part_of_video(config, facts),
    f'A video is judged by {views.num_clips} × {views.num_crops} views.',
  ]


def _whole_video(config) -> str:
  # The middles of the parts, and their beginnings.
  config.eval.num_clips = 2
  return (
    f'A clip has a frame of each of {config.data.num_frames} equal parts of a '
    'video (data.sampling): no stride follows from their length.'
  )


def _part_of_video(config, facts) -> str:
  data = config.data
  known = math.isfinite(facts.rate)
  rate = facts.rate if known else _FRAME_RATE
  span = min(facts.frames, _CLIP_SECONDS * rate)
  data.frame_stride = max(1, int(span // data.num_frames))
  seconds = data.num_frames * data.frame_stride / rate
  length = facts.frames / rate
  # The clips cover a video twice; long videos get the ten of the thesis.
  config.eval.num_clips = min(_MOST_VIEWS, max(2, round(2 * length / seconds)))
  why = (
    f'a clip covers {seconds:.1f} s, and videos of {length:.1f} s hold an '
    'action somewhere'
    if span < facts.frames
    else f'a clip covers {seconds:.1f} of the {length:.1f} s of a video'
  )
  return (
    f'One of {data.frame_stride} frames is taken, {data.num_frames} a clip: '
    f'{why} (medians{"" if known else "; frame rate unknown, 25 a second"}).'
  )


def _batch(config, facts) -> list[str]:
  share = max(2, int(facts.clips * _BATCH_SHARE))
  size = min(_LARGEST_BATCH, 2 ** int(math.log2(share)))
  size = max(size // facts.devices, 1) * facts.devices
  config.train.batch_size = size
  a_device = size // facts.devices
  lines = [f'{size} clips a step, at most an eighth of all {facts.clips}.']
  if facts.pretrained and a_device < _FEWEST_FOR_NORM:
    config.train.freeze_norm = True
    lines.append(
      f'BN keeps the statistics of the weights: {a_device} clips say too '
      'little about means and variances.'
    )
  return lines


def _length(config, facts) -> list[str]:
  epochs, fewest, most = _LENGTHS[facts.pretrained]
  steps = math.ceil(epochs * facts.clips / config.train.batch_size)
  steps = min(max(steps, fewest), most)
  _set_steps(config, steps)
  passes = steps * config.train.batch_size / facts.clips
  start = 'the weights' if facts.pretrained else 'nothing'
  lines = [f'{steps:,} steps, {passes:.0f} epochs, starting from {start}.']
  if not facts.validation:
    config.train.validation_split = ''
    lines.append('There are no videos for validation: the last step is kept.')
  return lines


def _set_steps(config, steps) -> None:
  config.train.num_steps = steps
  config.optim.warmup_steps = int(steps * _WARM_UP_SHARE)
  every = max(1, steps // _VALIDATIONS)
  config.train.eval_every = config.train.checkpoint_every = every
  config.train.log_every = max(1, min(20, every // 2))


def _augmentation(config, facts) -> list[str]:
  share = next(s for most, s in _AUGMENTED if facts.clips <= most)
  config.data.augment_share = share
  lines = [f'{share:.0%} of the clips are augmented.']
  sides = [
    name
    for name in facts.classes
    if re.search(r'(?<![a-z])(left|right)(?![a-z])', name.lower())
  ]
  config.data.flip = not sides
  if sides:
    lines.append(
      f'Clips are not mirrored: {sides[0]!r} would become another class.'
    )
  return lines


def judged_clips(
  config: ml_collections.ConfigDict, counts: Mapping[str, int]
) -> int:
  """Returns how many clips are judged, from the first validation to the end.

  Args:
    config: the run's configuration.
    counts: videos by split.
  """
  validations = config.train.num_steps // config.train.eval_every + 1
  views = config.eval.num_clips * config.eval.num_crops
  # Test videos are scored once in order and once with shuffled frames.
  return validations * counts['val'] + 2 * views * counts['test']


def limit(
  config: ml_collections.ConfigDict,
  pace: Pace,
  judged: int,
  minutes: float | None,
) -> tuple[ml_collections.ConfigDict, list[str]]:
  """Shortens a training to the time there is, and says how long it takes.

  Args:
    config: the run's configuration.
    pace: the pace of this machine.
    judged: the number of clips from `judged_clips`.
    minutes: the time there is, in minutes; None: no limit.

  Raises:
    UserError: that is too short for anything.
  """
  steps, lines = config.train.num_steps, []
  if minutes and pace.of(steps, judged) > 60 * minutes:
    # Another number of steps is another program, which is compiled again.
    fixed = pace.of(0, judged) + pace.compile
    steps = min(steps, int((60 * minutes - fixed) / pace.step))
    if steps < _FEWEST_STEPS:
      needed = (fixed + _FEWEST_STEPS * pace.step) / 60
      raise UserError(
        f'--minutes={minutes:g} is too short: {_FEWEST_STEPS} steps, '
        f'compilation and evaluation take {needed:.1f} minutes here. Give as '
        'many, or take fewer views: --config.eval.num_clips=1 '
        '--config.eval.num_crops=1.'
      )
    config = shorten(config, steps)
    lines.append(f'{steps:,} steps are what {minutes:g} minutes have time for.')
  seconds = pace.of(steps, judged)
  lines.append(
    f'A step takes {pace.step:.2f} s here: trained and scored it is in about '
    f'{max(1, round(seconds / 60))} minutes.'
  )
  return config, lines


def expectations(facts: Facts) -> str:
  """Returns a sentence on the accuracy to expect, or ''."""
  if facts.pretrained or facts.clips >= _FEW_FOR_SCRATCH:
    return ''
  return (
    f'The network begins from nothing. From {facts.clips} clips of real '
    'footage it will learn little more than what stands out in their pictures: '
    'expect an accuracy not far above that of guessing. Begin from weights, '
    '--from=RUN: docs/weights.md says where they are and how they become a run.'
  )
