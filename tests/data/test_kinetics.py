"""Kinetics in the forms that its authors and the crawlers give it."""

import pytest

from mtnet_jax.data import sources
from mtnet_jax.data.video import VideoReader
from mtnet_jax.datasets.kinetics import prepare as kinetics
from mtnet_jax.errors import UserError
from tests.data import coded_video, official

_HEADER = 'label,youtube_id,time_start,time_end,split\n'
# Numbers of six digits, and of more; identifiers begin with anything.
_TRAIN = (
  'air drumming,-3B32lodo2M,59,69,train\n'
  '"passing American football (in game)",_dbcJuKJQN_,0,10,train\n'
  "massaging person's head,abcdefghijk,1000000,1000010,train\n"
)
_VAL = (
  'air drumming,---QUuC4vJs,84,94,validate\n'
  'air drumming,AbcdefghijK,10,20,validate\n'
  'air drumming,AbcdefghijK,30,40,validate\n'
)
_TEST = 'air drumming,--6bJUbfpnQ,17,27,test\n'
_CLASSES = (
  'air drumming',
  "massaging person's head",
  'passing American football (in game)',
)


@pytest.fixture
def lists(tmp_path):
  return official.write(
    tmp_path / 'kinetics700_2020',
    {
      'train.csv': _HEADER + _TRAIN,
      'validate.csv': _HEADER + _VAL,
      'test.csv': 'youtube_id,time_start,time_end,split\n'
      '--6bJUbfpnQ,17,27,test\n',
      'train.json': '{}',
    },
  )


def _paths(listing):
  return {
    split: [clip[2:] for clip in clips]
    for split, clips in official.contents(listing).items()
  }


def test_clips_and_whole_videos(lists, tmp_path, caplog):
  cuts = (
    'train/air drumming/-3B32lodo2M_000059_000069.mp4',
    'passing_American_football_(in_game)/_dbcJuKJQN__000000_000010.webm',
    'abcdefghijk_1000000_1000010.mkv',
    'AbcdefghijK_000030_000040.mp4',
  )
  whole = ('---QUuC4vJs.mp4', 'val/AbcdefghijK.mp4', '-3B32lodo2M.mp4')
  videos = official.touch(tmp_path / 'videos', (*cuts, *whole))
  listing = kinetics.list_videos(videos, lists)
  assert _paths(listing) == {
    'train': [(cut, None, None) for cut in cuts[:3]],
    'val': [
      (whole[0], 84.0, 94.0),
      (whole[1], 10.0, 20.0),
      (cuts[3], None, None),
    ],
  }
  assert listing.labels == _CLASSES
  assert [e.label for e in listing.splits['train']] == [0, 2, 1]
  assert listing.splits['val'][1].id == (
    'air drumming/AbcdefghijK_000010_000020'
  )
  assert 'test.csv has no labels: its 1 clips are left out' in caplog.text


def test_lists_of_other_names_and_columns(tmp_path):
  header = _HEADER.replace('\n', ',is_cc\n')
  lists = official.write(
    tmp_path / 'lists',
    {
      'kinetics-400_train.csv': header + _TRAIN.replace('\n', ',0\n'),
      'kinetics-400_val.csv': header + 'air drumming,a,1,2,val,1\n',
      'kinetics-400_test.csv': header + _TEST.replace('\n', ',0\n'),
      'kinetics_400_labels.csv': 'id,name\n0,abseiling\n',
    },
  )
  videos = official.touch(tmp_path, ['--6bJUbfpnQ_000017_000027.mp4', 'a.mp4'])
  listing = kinetics.list_videos(videos, lists)
  assert _paths(listing) == {
    'val': [('a.mp4', 1.0, 2.0)],
    'test': [('--6bJUbfpnQ_000017_000027.mp4', None, None)],
  }
  assert listing.labels == _CLASSES


def test_folders_of_splits_classes_and_replacements(lists, tmp_path):
  clip = '-3B32lodo2M_000059_000069.mp4'
  folders = ('replacement/replacement_for_corrupted_k400', 'x/air_drumming')
  for folder in ('other/train', 'another', *folders[::-1]):
    files = [f'{folder}/{clip}']
    videos = official.touch(tmp_path / 'videos', files)
    found = _paths(kinetics.list_videos(videos, lists))
    if folder != 'another':  # each is preferred to those before
      assert found['train'][0] == (f'{folder}/{clip}', None, None)


def test_clips_that_are_listed_again(lists, tmp_path, caplog):
  official.write(lists, {'validate.csv': _HEADER + _VAL + _TRAIN})
  videos = official.touch(
    tmp_path / 'v', ['---QUuC4vJs.mp4', '-3B32lodo2M.avi']
  )
  splits = kinetics.list_videos(videos, lists).splits
  assert {split: len(of) for split, of in splits.items()} == {
    'train': 3,
    'val': 3,
  }
  assert '3 clips are listed twice' in caplog.text


def test_mistakes_are_named(lists, tmp_path):
  videos = official.touch(tmp_path / 'videos', ['-3B32lodo2M.mp4'])

  def fails(message, **values):
    values = {'videos': videos, 'lists': lists} | values
    with pytest.raises(UserError, match=message):
      kinetics.list_videos(**values)

  fails('There is no folder --annotations', lists=lists / 'train.csv')
  fails(
    'at any depth, such as -3B32lodo2M_000059_000069 or -3B32lodo2M',
    videos=official.touch(tmp_path / 'other', ['x/3B32lodo2M.mp4']),
  )
  other = official.write(tmp_path / 'hacs', {'HACS_clips_v1.1.1.csv': ''})
  fails(r'has no train\.csv.* holds: HACS_clips_v1\.1\.1\.csv', lists=other)
  for row, message in [
    (',-3B32lodo2M,59,69,train', "a label is needed .* ''"),
    ('air drumming,-3B32lodo2M,59,69,holdout', "'air drumming' and 'holdout'"),
    ('air drumming,-3B32lodo2M,69,59,train', "'69' and '59' must be seconds"),
    ('air drumming,-3B32lodo2M,x,59,train', "'x' and '59' must be seconds"),
    ('air drumming,,59,69,train', 'no youtube_id'),
  ]:
    official.write(lists, {'train.csv': _HEADER + _TRAIN + row + '\n'})
    fails(rf'train\.csv, line 5: .*{message}')
  official.write(lists, {'train.csv': 'dancing/a.mp4,dancing,3,0\n'})
  fails('has no column youtube_id, time_start, time_end, split')
  official.write(lists, {'train.csv': _HEADER + _TRAIN, 'val.csv': _HEADER})
  fails("two lists for split 'val', val.csv and validate.csv")
  for name in ('train', 'val', 'validate'):
    (lists / f'{name}.csv').unlink()
  fails('no list has labels')


def test_clips_that_are_named_as_whole_videos(tmp_path):
  rows = ''.join(
    f'hug,{name},{start},{start + 1},train\n'
    for name, start in [('a', 0), ('b', 10), ('c', 20), ('d', 30), ('no', 50)]
  )
  lists = official.write(tmp_path / 'lists', {'train.csv': _HEADER + rows})
  videos = official.touch(tmp_path / 'videos', ['d.mp4'])  # is damaged

  def add(name, num_frames, fps):
    images = coded_video.frames(num_frames)
    coded_video.write(videos / f'{name}.mp4', images, 'mpeg4', fps)

  def listed(**values):
    listing = kinetics.list_videos(videos, lists, **values)
    return [clip[2:] for clip in official.contents(listing)['train']]

  add('a', 12, 10)  # as listed; so it says nothing
  cut = [('b.mp4', 10, 11), ('c_000020_000021.mp4', None, None)]
  add(cut[1][0].removesuffix('.mp4'), 12, 10)
  whole = [('a.mp4', 0, 1), *cut, ('d.mp4', 30, 31), ('', None, None)]
  add('b', 22, 2)
  assert listed() == whole
  add('b', 12, 10)
  message = r'b\.mp4 has 1\.2 s, .* begin at 10 s; .* 1 of 1 .* give --trimmed'
  with pytest.raises(UserError, match=message):
    listed()
  used = [(path, None, None) for path, _, _ in whole]
  assert listed(trimmed=True) == used
  (videos / cut[1][0]).unlink()
  add('c', 42, 2)  # one of two may be damaged
  assert listed()[2] == ('c.mp4', 20, 21)


def test_the_command(tmp_path):
  lists = official.write(
    tmp_path / 'lists',
    {
      'train.csv': f'{_HEADER}hug,-bcdefghijk,1,2,train\n'
      'hug,_bcdefghijk,100,101,train\nhug,gone,0,9,train\n',
      'val.csv': f'{_HEADER}hug,-bcdefghijk,0,1,val\n',
    },
  )
  (tmp_path / 'videos').mkdir()
  for name in ('-bcdefghijk', '_bcdefghijk_000100_000101'):
    path = tmp_path / f'videos/{name}.mp4'
    coded_video.write(path, coded_video.frames(60), 'mpeg4')
  done = official.prepare(
    'kinetics',
    videos=tmp_path / 'videos',
    annotations=lists,
    out=tmp_path / 'out',
    short_side=24,
  )
  assert done.code == 0, done.stderr
  assert 'train: 2 videos of 1 classes' in done.stdout
  for split, number, frames in [
    ('train', 0, [*range(25, 50)]),
    ('train', 1, [*range(60)]),
    ('val', 0, [*range(25)]),
  ]:
    example = sources.open_source(tmp_path / 'out', split)[number]
    with VideoReader(example.video, example.start, example.end) as video:
      clip = video.read(range(video.num_frames))
      assert coded_video.numbers(clip) == frames


def test_the_command_with_clips_of_plain_names(tmp_path):
  row = 'hug,a,100,110,train\n'
  lists = official.write(tmp_path / 'lists', {'train.csv': _HEADER + row})
  (tmp_path / 'videos').mkdir()
  coded_video.write(tmp_path / 'videos/a.mp4', coded_video.frames(60), 'mpeg4')
  values = {
    'videos': tmp_path / 'videos',
    'annotations': lists,
    'out': tmp_path / 'out',
  }
  done = official.prepare('kinetics', **values)
  assert done.code == 2
  assert 'a.mp4 has 2.4 s' in done.stderr and '--trimmed' in done.stderr
  done = official.prepare('kinetics', **values, trimmed=True)
  assert done.code == 0, done.stderr
  example = sources.open_source(tmp_path / 'out', 'train')[0]
  assert example.video == (tmp_path / 'videos/a.mp4').read_bytes()
