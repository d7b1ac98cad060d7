"""Batches as functions of the step, whoever loads them."""

import itertools
import pickle

import numpy as np
import pytest

from configs import base
from mtnet_jax.data import clips, loading, pipeline, records
from mtnet_jax.data.records import Example
from mtnet_jax.data.video import VideoReader
from mtnet_jax.errors import UserError
from tests.data import coded_video
from tests.tiny_runs import tiny_config

_LENGTHS = (12, 20, 31)  # frames of the three videos of a class
_CLASSES = ('turn_left', 'wave')


def _pictures(num_frames):
  """uint8 (t, 24, 32, 3): coded by brightness, the left quarter black.

  Brightness stays readable in any crop, and the mirror can be told.
  """
  images = np.empty((num_frames, 24, 32, 3), np.uint8)
  images[...] = (40 + 6 * np.arange(num_frames))[:, None, None, None]
  images[:, :, :8] = 0
  return images


def _numbers(clip):
  """The frame numbers of (t, h, w, 3), read in the middle column."""
  level = clip[:, 2:-2, clip.shape[2] // 2].mean(axis=(1, 2))
  return np.rint((level - 40) / 6).astype(int).tolist()


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Six videos for training, five for the test, three for validation."""
  root = tmp_path_factory.mktemp('videos')
  for split, name in itertools.product(('train', 'test', 'val'), _CLASSES):
    folder = root / split / name
    folder.mkdir(parents=True)
    for length in _LENGTHS:
      path = folder / f'{length}.mp4'
      coded_video.write(path, _pictures(length), options={'qp': '1'})
  (root / 'test' / 'wave' / '31.mp4').unlink()
  return root


def _config(directory, **changes):
  """Small clips; `changes` are named 'section__key'."""
  config = base.get_config()
  config.seed = 3
  config.data.update(dir=str(directory), num_frames=8, frame_stride=2)
  config.data.update(short_side=24, crop_size=24, input_size=16)
  config.train.update(batch_size=4, num_steps=6)
  config.eval.update(num_clips=3, num_crops=3, clips_per_step=18)
  config.eval.update(crop_size=24, input_size=16)
  for name, value in changes.items():
    section, key = name.split('__')
    config[section][key] = value
  return config


def _assert_same(batch, other):
  assert batch.keys() == other.keys()
  for name in batch:
    assert batch[name].dtype == other[name].dtype
    np.testing.assert_array_equal(batch[name], other[name])


# Training.


def test_a_training_batch(videos):
  batches = pipeline.build(_config(videos), 'train')
  assert batches.labels == _CLASSES
  assert (batches.num_videos, len(batches)) == (6, 6)
  batch = batches[0]
  assert batch['clips'].shape == (4, 8, 16, 16, 3)
  assert batch['clips'].dtype == np.uint8
  assert batch['labels'].dtype == np.int32
  assert batch['broken'].shape == (0, 2)
  for name, label in zip(batch['ids'], batch['labels'], strict=True):
    assert name.split('/')[:2] == ['train', _CLASSES[label]]
  with pytest.raises(IndexError, match='Batch 6 of 6'):
    batches[6]


def test_every_epoch_has_every_video_once(videos):
  # Batches of four of six videos: epochs end within batches.
  batches = pipeline.build(_config(videos, train__num_steps=9), 'train')
  ids = [name for k in range(9) for name in batches[k]['ids']]
  epochs = [ids[first : first + 6] for first in range(0, 36, 6)]
  assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
  assert len(set(map(tuple, epochs))) > 1


def test_steps_of_a_run_by_epochs(videos):
  config = _config(videos, train__num_steps=0, train__num_epochs=2.5)
  assert len(pipeline.build(config, 'train')) == 4  # 15 clips by four


def test_a_batch_follows_from_seed_and_step(videos):
  batches = pipeline.build(_config(videos), 'train')
  again = pickle.loads(pickle.dumps(batches))
  _assert_same(again[5], batches[5])
  _assert_same(again[2], batches[2])
  assert (batches[0]['clips'] != batches[3]['clips']).any()
  other = _config(videos)
  other.seed = 4
  assert (pipeline.build(other, 'train')[2]['clips'] != again[2]['clips']).any()


def test_processes_share_a_batch(videos):
  whole = pipeline.build(_config(videos), 'train')[1]
  parts = [pipeline.build(_config(videos), 'train', i, 2)[1] for i in range(2)]
  for name in ('clips', 'labels', 'ids'):
    joined = np.concatenate([part[name] for part in parts])
    np.testing.assert_array_equal(joined, whole[name])


def test_training_clips_show_the_drawn_frames(videos):
  batches = pipeline.build(_config(videos, data__flip=False), 'train')
  for step in range(len(batches)):
    batch = batches[step]
    for row, (name, clip) in enumerate(
      zip(batch['ids'], batch['clips'], strict=True)
    ):
      length = int(name.split('/')[-1].removesuffix('.mp4'))
      rng = np.random.default_rng((3, 4 * step + row))
      expected = clips.training_indices(length, 8, 2, 'uniform', rng)
      assert _numbers(clip) == expected.tolist()


def test_augmentations_change_training_alone(videos):
  plain = _config(videos, data__flip=False)
  changed = _config(
    videos,
    data__flip=False,
    data__augment_share=1.0,
    data__augment_method_share=1.0,
  )
  batch, other = (pipeline.build(c, 'train')[2] for c in (plain, changed))
  assert (batch['ids'] == other['ids']).all()
  for clip, augmented in zip(batch['clips'], other['clips'], strict=True):
    assert (clip != augmented).any()
  _assert_same(other, pipeline.build(changed, 'train')[2])
  _assert_same(
    pipeline.build(plain, 'test')[0], pipeline.build(changed, 'test')[0]
  )


def test_what_depends_on_a_side_is_not_mirrored(videos):
  config = _config(videos, data__short_side=16, train__num_steps=12)
  config.data.crop_size = 16  # of 16 × 21: the black quarter is 5 wide

  def black_sides(config):
    sides = {name: set() for name in _CLASSES}
    for batch in loading.iterate(pipeline.build(config, 'train')):
      edges = batch['clips'][..., [0, -1], :].mean(axis=(1, 2, 4))
      for label, (left, right) in zip(batch['labels'], edges, strict=True):
        if abs(left - right) > 20:
          sides[_CLASSES[label]].add('left' if left < right else 'right')
    return sides

  assert black_sides(config) == {
    'turn_left': {'left'},
    'wave': {'left', 'right'},
  }
  config.data.flip = False
  assert black_sides(config) == {'turn_left': {'left'}, 'wave': {'left'}}


# Broken and short videos.


@pytest.fixture
def some_broken(videos, tmp_path):
  """As `videos`, records, with a text in place of one video a split."""
  for split in ('train', 'test'):
    source = pipeline.build(_config(videos), split).source
    examples = [
      Example(e.id, e.label, open_bytes(e.video) if i != 2 else b'no video')
      for i, e in enumerate(source)
    ]
    for shard in range(2):
      path = tmp_path / records.shard_name(split, shard, 2)
      records.write(path, examples[shard * 3 : shard * 3 + 3])
  (tmp_path / 'labels.txt').write_text('\n'.join(_CLASSES))
  return tmp_path


def open_bytes(path):
  with open(path, 'rb') as file:
    return file.read()


def test_records_give_the_same_as_files(videos, some_broken):
  files = pipeline.build(_config(videos), 'train')
  packed = pipeline.build(_config(some_broken), 'train')
  compared = 0
  for step in range(6):
    broken = packed[step]['broken']
    if not broken.size:
      _assert_same(files[step], packed[step])
      compared += 1
  assert 0 < compared < 6


def test_broken_training_videos_are_replaced_and_named(videos, some_broken):
  whole = pipeline.build(_config(videos), 'train')
  batches = pipeline.build(_config(some_broken), 'train')
  lost = batches.source[2].id
  found = 0
  for step in range(6):
    batch = batches[step]
    expected = list(whole[step]['ids'])
    places = [row for row, name in enumerate(expected) if name == lost]
    assert len(batch['broken']) == len(places)
    for name, cause in batch['broken']:
      assert name == lost
      assert cause.startswith('Invalid data')
    found += len(places)
    for row, name in enumerate(batch['ids']):
      # The next of the epoch stands in; the others stay where they are.
      assert (name != expected[row]) == (row in places)
  assert found == 4
  _assert_same(batches[3], batches[3])


def test_training_on_broken_videos_only_stops(videos, tmp_path):
  for i in range(3):
    (tmp_path / f'train/wave/{i}.mp4').parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / f'train/wave/{i}.mp4').write_text('no video')
  batches = pipeline.build(_config(tmp_path), 'train')
  message = r'3 training videos in a row .*wave/\d\.mp4: Invalid data'
  with pytest.raises(UserError, match=message):
    batches[0]
  # The sentence arrives as it is from a loader process.
  with pytest.raises(UserError, match=message):
    next(loading.iterate(batches, num_workers=1))


def test_short_videos_repeat_or_are_an_error(videos):
  long_clips = {'data__num_frames': 16, 'data__frame_stride': 1}
  config = _config(videos, **long_clips)
  for split in ('train', 'test'):
    assert pipeline.build(config, split)[0]['clips'].shape[-4] == 16
  config.data.short_videos = 'error'
  message = r'12\.mp4 has 12 frames, a clip has 16\. Remove'
  for split in ('train', 'test'):
    with pytest.raises(UserError, match=message):
      list(loading.iterate(pipeline.build(config, split)))


# Evaluation.


def test_evaluation_has_every_video_once(videos):
  batches = pipeline.build(_config(videos), 'test')
  # 18 views a step by 9 views a video: two videos.
  assert (batches.num_videos, len(batches)) == (5, 3)
  found = list(loading.iterate(batches))
  assert all(batch['clips'].shape == (2, 9, 8, 16, 16, 3) for batch in found)
  masks = np.concatenate([batch['mask'] for batch in found])
  ids = np.concatenate([batch['ids'] for batch in found])
  labels = np.concatenate([batch['labels'] for batch in found])
  assert masks.tolist() == [True] * 5 + [False]
  assert ids.tolist() == [e.id for e in batches.source] + ['']
  assert labels.tolist() == [0, 0, 0, 1, 1, 0]
  assert not found[-1]['clips'][1].any()
  assert all(batch['broken'].tolist() == ['', ''] for batch in found)


def test_views_are_clips_by_crops(videos):
  batch = pipeline.build(_config(videos), 'test')[0]
  for name, views in zip(batch['ids'], batch['clips'], strict=True):
    length = int(name.split('/')[-1].removesuffix('.mp4'))
    expected = clips.view_indices(length, 8, 2, 3)
    for view, clip in enumerate(views):
      assert _numbers(clip) == expected[view // 3].tolist()
      # 24 × 32: crops at 0, 4, 8; the black 8 columns become 5, 3 and 0 of 16.
      black = (clip[0, 8].mean(axis=-1) < 20).sum()
      assert abs(black - (16 * (8 - 4 * (view % 3)) / 24)) <= 1


def test_one_view_is_the_middle(videos):
  config = _config(videos, eval__num_clips=1, eval__num_crops=1)
  config.eval.clips_per_step = 1
  views = pipeline.build(config, 'test')[1]['clips'][0]
  assert views.shape == (1, 8, 16, 16, 3)
  assert _numbers(views[0]) == [2, 4, 6, 8, 10, 12, 14, 16]  # 20: span 15


def test_evaluation_decodes_each_frame_once(videos, monkeypatch):
  asked = []
  read = VideoReader.read

  def counting(self, indices, short_side):
    asked.append(list(indices))
    return read(self, indices, short_side)

  monkeypatch.setattr(VideoReader, 'read', counting)
  pipeline.build(_config(videos), 'test')[0]
  assert len(asked) == 2
  assert all(len(set(indices)) == len(indices) for indices in asked)


def test_evaluation_names_broken_videos_and_never_replaces(some_broken):
  batches = pipeline.build(_config(some_broken), 'test')
  found = [batches[k] for k in range(3)]
  masks = np.concatenate([batch['mask'] for batch in found])
  broken = np.concatenate([batch['broken'] for batch in found])
  ids = np.concatenate([batch['ids'] for batch in found])
  assert masks.tolist() == [True, True, False, True, True, False]
  assert broken[2].startswith('Invalid data')
  assert ids[2] == batches.source[2].id
  assert (np.delete(broken, 2) == '').all()
  assert not found[1]['clips'][0].any()


def test_processes_share_the_evaluation(videos):
  whole = pipeline.build(_config(videos), 'test')
  parts = [pipeline.build(_config(videos), 'test', i, 2) for i in range(2)]
  assert len(parts[0]) == len(parts[1]) == len(whole)
  for step in range(3):
    for name, value in whole[step].items():
      joined = np.concatenate([part[step][name] for part in parts])
      np.testing.assert_array_equal(joined, value)
  for part in parts:
    own = [(part[step]['ids'] != '').sum() for step in range(3)]
    assert part.num_own_videos == sum(own)


def test_training_videos_can_be_evaluated(videos):
  batches = pipeline.build_evaluation(_config(videos), 'train')
  assert batches.num_videos == 6 and batches[0]['mask'].all()


# Mistakes in the configuration.


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'data__crop_size': 25}, r'short_side \(=24\) must not be below .*=25'),
    ({'data__start': 'middle'}, "start 'middle'; allowed: uniform, normal"),
    ({'data__short_videos': 'skip'}, "'skip'; allowed: repeat, error"),
    ({'data__augment_share': 1.5}, r'data\.augment_share \(=1\.5\) .*\[0, 1\]'),
    ({'data__num_frames': 0}, r'data\.num_frames \(=0\) must be at least 1'),
    ({'data__frame_stride': 0}, r'data\.frame_stride \(=0\)'),
    ({'train__batch_size': 3}, r'=3\) must be divisible by .*processes \(=2'),
    ({'data__read_attempts': 0}, r'data\.read_attempts \(=0\) .* at least 1'),
    ({'data__max_broken_share': 2.0}, r'max_broken_share \(=2\.0\) .*\[0, 1\]'),
    ({'train__num_steps': -5}, r'train\.num_steps \(=-5\) must be at least 0'),
    (
      {'train__num_steps': 0, 'train__num_epochs': -1.0},
      r'train\.num_epochs \(=-1\.0\) must be .* above 0, or give train\.num_st',
    ),
    (
      {'train__num_steps': 0, 'train__num_epochs': float('inf')},
      r'train\.num_epochs \(=inf\) must be a number above 0',
    ),
    ({'train__stall_timeout': 0}, r'stall_timeout \(=0\) must be above 0 sec'),
    (
      {'train__precise_norm_steps': -1},
      r'precise_norm_steps \(=-1\) .* least 0',
    ),
    ({'data__dir': '/nowhere'}, 'no such file or directory'),
  ],
)
def test_mistakes_are_named(videos, changes, message):
  with pytest.raises(UserError, match=message):
    pipeline.build(_config(videos, **changes), 'train', 0, 2)


def test_mistakes_in_the_views_are_named(videos):
  with pytest.raises(UserError, match=r'eval\.num_crops \(=0\)'):
    pipeline.build(_config(videos, eval__num_crops=0), 'test')
  with pytest.raises(UserError, match=r'stall_timeout \(=-1\) must be above 0'):
    pipeline.build(_config(videos, train__stall_timeout=-1), 'test')
  config = _config(videos)
  config.seed = -1
  with pytest.raises(UserError, match='must not be negative'):
    pipeline.build(config, 'train')


# Loader processes.


def test_any_number_of_workers_gives_the_same_bytes(videos):
  batches = pipeline.build(_config(videos), 'train')
  expected = list(loading.iterate(batches, start_step=1))
  assert len(expected) == 5
  found = list(loading.iterate(batches, 1, num_workers=2, prefetch=2))
  assert len(found) == 5
  for batch, other in zip(expected, found, strict=True):
    _assert_same(batch, other)


def test_a_run_ends_with_an_update(blinking_videos):
  config = tiny_config(
    blinking_videos,
    train__num_steps=0,
    train__num_epochs=2.0,
    train__accumulate=3,
  )
  # 16 videos, four a step: eight steps are two epochs.
  assert len(pipeline.build(config, 'train')) == 9
  config.train.num_steps = 8
  with pytest.raises(
    UserError, match=r'\(=8\) must be a multiple of train\.accumulate \(=3\)'
  ):
    pipeline.build(config, 'train')
  config.train.accumulate = 0
  with pytest.raises(UserError, match=r'train\.accumulate \(=0\) must be at'):
    pipeline.build(config, 'train')
