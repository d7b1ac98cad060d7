"""Advises what to mend in a data set before a network is trained on it."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from mtnet_jax.data.shared_videos import Shared

_FEW = 20  # videos of a class, for training
_SMALL_TEST = 30  # videos
_BALANCE = 5  # times as many videos as another class has
_NEGLIGIBLE = 0.05  # of the videos may be shorter than a clip spans
_MAX_NAMED = 5

_NO_SPLIT = {
  'train': 'Nothing can be trained on. Put most of the videos into it.',
  'val': (
    'Training cannot tell which checkpoint is best. Move a tenth of the '
    'training videos into a folder val/CLASS, or write val into the column '
    'split of their rows; to train without, give '
    '--config.train.validation_split=.'
  ),
  'test': (
    'Nothing tells how good the network is on new videos. Move a tenth of the '
    'training videos into a folder test/CLASS, or write test into the column '
    'split of their rows.'
  ),
}


@dataclasses.dataclass(frozen=True)
class Facts:
  """The known facts of a data set, one split of which was looked at.

  Attributes:
    sizes: the number of videos of each split that can be opened.
    absent: the reason why a split cannot be opened, as a sentence, by split.
    training_counts: the training videos by class; empty where they are not
      known of all videos, or another split was looked at.
    looked_at: the number of videos that were looked at.
    broken: the names of the videos looked at that cannot be read.
    frames: the numbers of frames of the others.
    num_frames: the frames of a clip.
    frame_stride: the video's frames from one frame of a clip to the next.
    sampling: the way in which frames are taken, `data.sampling` of a
      configuration.
    shared: the splits that have videos in common.
    look_alikes: names of classes that may be meant to be one, in groups.
  """

  sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
  absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
  training_counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  looked_at: int = 0
  broken: Sequence[str] = ()
  frames: Sequence[int] = ()
  num_frames: int = 1
  frame_stride: int = 1
  sampling: str = 'clip'
  shared: Sequence[Shared] = ()
  look_alikes: Sequence[Sequence[str]] = ()


def advise(facts: Facts) -> list[str]:
  """Says what is wrong with a data set, and what to do.

  Args:
    facts: the facts.

  Returns:
    A text for each thing that should be mended, the worst first; none where
    nothing is wrong.
  """
  lines = [f'{why} {_NO_SPLIT[split]}' for split, why in facts.absent.items()]
  return [
    *lines,
    *_of_shared_videos(facts),
    *_of_broken_videos(facts),
    *_of_class_sizes(facts.training_counts),
    *_of_lengths(facts),
    *_of_names(facts.look_alikes),
    *_of_the_test_set(facts.sizes.get('test')),
  ]


def _of_shared_videos(facts: Facts) -> Iterator[str]:
  for shared in facts.shared:
    one, other, count = shared.one, shared.other, shared.count
    yield (
      f'{_number(count, "video")} of {other} {_are(count)} in {one} too, such '
      f'as {" and ".join(shared.example)}: the accuracy on {other} will be too '
      'high. Keep a video, and all parts of one recording, in one split: '
      'remove what is in both from one of them.'
    )


def _of_broken_videos(facts: Facts) -> Iterator[str]:
  if count := len(facts.broken):
    yield (
      f'{count} of the {_number(facts.looked_at, "video")} looked at cannot be '
      f'read: {_names(facts.broken)}. Copy them again from where they came, '
      'encode them anew (ffmpeg -i OLD -c:v libx264 NEW.mp4), or remove them.'
    )


def _of_class_sizes(counts: Mapping[str, int]) -> Iterator[str]:
  empty = [name for name, count in counts.items() if not count]
  if empty:
    yield (
      f'{_number(len(empty), "class", "classes")} cannot be learned for want '
      f'of a training video: {_names(empty)}. Add videos, or remove the names '
      'from labels.txt and from the other splits.'
    )
  ascending = sorted((n, name) for name, n in counts.items() if n)
  few = [f'{name} ({n})' for n, name in ascending if n < _FEW]
  if few:
    yield (
      f'{_number(len(few), "class has", "classes have")} fewer than {_FEW} '
      f'videos for training: {_names(few)}. Add videos, make one class of '
      'several, or leave these out; to get the most of few videos, start from '
      'trained weights (--config.train.init_from=RUN).'
    )
  most, frequent = max(((n, name) for n, name in ascending), default=(0, ''))
  rare = [f'{name} ({n})' for n, name in ascending if _BALANCE * n <= most]
  if rare:
    yield (
      f'The classes are out of balance: {frequent} has {most} videos for '
      f'training, a fifth of that or less {_have(len(rare))} {_names(rare)}. A '
      'network says the frequent class too often, and the overall accuracy '
      'hides it. Add videos of the rare classes or leave out some of the '
      "frequent ones, and judge by each class's accuracy "
      '(evaluation/per_class.csv).'
    )


def _of_lengths(facts: Facts) -> Iterator[str]:
  frames, steps = sorted(facts.frames), facts.num_frames - 1
  whole = facts.sampling == 'uniform'
  span = facts.num_frames if whole else steps * facts.frame_stride + 1
  short = sum(count < span for count in frames)
  if short <= _NEGLIGIBLE * len(frames):
    return
  # The length that all but a few of the videos reach.
  common = frames[int(_NEGLIGIBLE * len(frames))]
  clip = f'a clip: {facts.num_frames} frames'
  if not whole:
    clip += f' with a stride of {facts.frame_stride} span {span}'
  what = (
    f'{short} of {_number(len(frames), "video")} {_are(short)} shorter than '
    f'{clip}, and the shortest has {frames[0]}.'
  )
  if common < facts.num_frames:
    yield (
      f'{what} Frames are repeated where a clip has more of them than the '
      'video. Take longer videos, or shorter clips: '
      f'--config.data.num_frames={common}'
      f'{"" if whole else " --config.data.frame_stride=1"}.'
    )
  elif facts.sampling == 'dense':
    yield (
      f'{what} A clip begins again at their end, so that it shows a jump. Take '
      'longer videos, or a smaller stride: '
      f'--config.data.frame_stride={(common - 1) // steps}.'
    )
  else:
    yield (
      f'{what} The stride shrinks there, and a clip is nearly the whole video. '
      'That does no harm where a video is one action from its beginning to its '
      'end; else take longer videos, or a smaller stride: '
      f'--config.data.frame_stride={(common - 1) // steps}.'
    )


def _of_names(look_alikes: Sequence[Sequence[str]]) -> Iterator[str]:
  if look_alikes:
    groups = [' and '.join(map(ascii, group)) for group in look_alikes]
    yield (
      'Names of classes look alike, and each counts as a class of its own: '
      f'{_names(groups, "; ")}. If one class is meant, give its videos one '
      'name: put them into one folder, or write one label into their rows.'
    )


def _of_the_test_set(count: int | None) -> Iterator[str]:
  if count and count < _SMALL_TEST:
    # Half of the 95 % interval if every second video is right.
    margin = 1.96 * math.sqrt(0.25 / count)
    yield (
      f'The test set is too small to tell: {_number(count, "video")} '
      f'{_give(count)} an accuracy give or take {margin:.0%}. Collect at least '
      f'{_SMALL_TEST} test videos; 400 give or take 5%.'
    )


def _names(names: Sequence[str], between: str = ', ') -> str:
  more = len(names) - _MAX_NAMED
  rest = f' and {more} more' if more > 0 else ''
  return between.join(names[:_MAX_NAMED]) + rest


def _number(count: int, one: str, many: str = '') -> str:
  return f'{count:,} {one if count == 1 else many or f"{one}s"}'


def _are(count: int) -> str:
  return 'is' if count == 1 else 'are'


def _have(count: int) -> str:
  return 'has' if count == 1 else 'have'


def _give(count: int) -> str:
  return 'gives' if count == 1 else 'give'
