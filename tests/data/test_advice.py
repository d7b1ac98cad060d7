"""What is advised, by facts made by hand."""

import pytest

from mtnet_jax.data.advice import Facts, advise
from mtnet_jax.data.shared_videos import Shared

_GOOD = {
  'sizes': {'train': 200, 'val': 30, 'test': 30},
  'training_counts': {'wave': 100, 'hug': 100},
  'looked_at': 3,
  'frames': (76, 90, 1000),
  'num_frames': 16,  # they span 15 · 5 + 1 = 76 frames
  'frame_stride': 5,
}


def _advice(**facts):
  return advise(Facts(**(_GOOD | facts)))


def test_nothing_is_advised_where_nothing_is_wrong():
  assert _advice() == []
  assert advise(Facts()) == []


@pytest.mark.parametrize(
  ('facts', 'what', 'to_do'),
  [
    (
      {'absent': {'val': "DIR has no videos of split 'val'."}},
      "DIR has no videos of split 'val'. Training cannot tell which checkpoint",
      '--config.train.validation_split=.',
    ),
    ({'absent': {'test': 'No.'}}, 'No. Nothing tells how good', 'test/CLASS'),
    ({'absent': {'train': 'No.'}}, 'No. Nothing can be trained', 'Put most of'),
    (
      {'shared': [Shared('train', 'test', 2, ('a/1.mp4', 'b/2.mp4'))]},
      '2 videos of test are in train too, such as a/1.mp4 and b/2.mp4: the '
      'accuracy on test will be too high.',
      'remove what is in both',
    ),
    (
      {'shared': [Shared('train', 'val', 1, ('a/1.mp4',))]},
      '1 video of val is in train too, such as a/1.mp4:',
      'in one split',
    ),
    (
      {'broken': ['b.mp4'], 'looked_at': 40},
      '1 of the 40 videos looked at cannot be read: b.mp4.',
      'ffmpeg -i',
    ),
    (
      {'broken': list('abcdefg'), 'looked_at': 1000},
      '7 of the 1,000 videos looked at cannot be read: a, b, c, d, e and 2 ',
      'remove them',
    ),
    (
      {'training_counts': {'wave': 20, 'hug': 0}},
      '1 class cannot be learned for want of a training video: hug.',
      'Add videos',
    ),
    (
      {'training_counts': {'wave': 20, 'hug': 19, 'kick': 7}},
      '2 classes have fewer than 20 videos for training: kick (7), hug (19).',
      'start from trained weights',
    ),
    (
      {'training_counts': {'wave': 500, 'hug': 100, 'kick': 101}},
      'The classes are out of balance: wave has 500 videos for training, a '
      'fifth of that or less has hug (100).',
      'per_class.csv',
    ),
    (
      # 1 of 10 has less than 76 frames; all have 61 = 15 · 4 + 1.
      {'frames': [61, *[90] * 9]},
      '1 of 10 videos is shorter than a clip: 16 frames with a stride of 5 '
      'span 76, and the shortest has 61. The stride shrinks there',
      '--config.data.frame_stride=4.',
    ),
    (
      {'frames': [90, 16, 15, 12]},
      '3 of 4 videos are shorter than a clip: 16 frames with a stride of 5 '
      'span 76, and the shortest has 12. Frames are repeated',
      '--config.data.num_frames=12 --config.data.frame_stride=1.',
    ),
    (
      {'look_alikes': [['Wave', 'wave'], ['hug', 'h\u200bug']]},
      "'Wave' and 'wave'; 'hug' and 'h\\u200bug'.",
      'put them into one folder',
    ),
    (
      # 1.96 · √(0.25 / 29) = 0.182
      {'sizes': {'train': 200, 'val': 30, 'test': 29}},
      'The test set is too small to tell: 29 videos give an accuracy give or '
      'take 18%.',
      'Collect at least 30 test videos',
    ),
  ],
)
def test_advice_says_what_is_wrong_and_what_to_do(facts, what, to_do):
  (line,) = _advice(**facts)
  assert what in line and to_do in line and line.endswith('.')


@pytest.mark.parametrize(
  'facts',
  [
    {'training_counts': {'wave': 499, 'hug': 100}},
    {'frames': [10, *[76] * 19]},  # one of twenty
    {'frames': [1], 'num_frames': 1},
    {'frames': []},
    {'sizes': {'train': 1, 'val': 1, 'test': 30}},
  ],
)
def test_what_is_good_enough(facts):
  assert _advice(**facts) == []


def test_all_that_is_wrong_is_told_the_worst_first():
  lines = _advice(
    sizes={'test': 2},
    absent={'val': 'No.'},
    broken=['x'],
    training_counts={'a': 1, 'b': 0, 'c': 5},
    frames=[1],
    look_alikes=[['a', 'A']],
    shared=[Shared('train', 'test', 1, ('y',))],
  )
  assert [line[:11] for line in lines] == [
    'No. Trainin', '1 video of ', '1 of the 3 ', '1 class can',
    '2 classes h', 'The classes', '1 of 1 vide', 'Names of cl', 'The test se',
  ]  # fmt: skip
