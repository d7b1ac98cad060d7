"""UT-Interaction in both of its forms, with its two places kept apart."""

import collections
import shutil

import pytest

from mtnet_jax.data import preparation, sources
from mtnet_jax.data.video import VideoReader
from mtnet_jax.datasets.ut_interaction import prepare as ut
from mtnet_jax.errors import UserError
from tests.data import coded_video, official

_HEADER = 'path,label,label_id,set,sequence,frames\n'


@pytest.fixture(scope='module')
def video(tmp_path_factory):
  path = tmp_path_factory.mktemp('video') / 'a.avi'
  return coded_video.write(path, coded_video.frames(20), 'mpeg4')


@pytest.fixture
def official_clips(tmp_path, video):
  """Two classes in sequences 1, 9, 11; a class that is none; a copy."""
  root = tmp_path / 'official'
  for name in (
    'segmented_set1/0_1_4.avi',
    'segmented_set1/1_1_0.avi',
    'segmented_set1/7_9_4.avi',
    'segmented_set1/8_9_6.avi',
    'segmented_set1/vOut_9_4.avi',
    'deep/segmented_set2/3_11_0.avi',
    'deep/segmented_set2/4_20_5.avi',
  ):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(video, root / name)
  return root


def _clips(listing):
  return {
    split: [(e.id, listing.labels[e.label]) for e in examples]
    for split, examples in listing.splits.items()
  }


def test_official_names(official_clips, caplog):
  caplog.set_level('INFO', 'absl')
  caplog.set_level('INFO')
  listing = ut.list_clips(official_clips)
  assert listing.labels == (
    'hug',
    'kick',
    'point',
    'punch',
    'push',
    'shake_hands',
  )
  assert _clips(listing) == {
    'train': [
      ('segmented_set1/0_1_4.avi', 'punch'),
      ('segmented_set1/1_1_0.avi', 'shake_hands'),
      ('segmented_set1/7_9_4.avi', 'punch'),
    ],
    'test': [
      ('deep/segmented_set2/3_11_0.avi', 'shake_hands'),
      ('deep/segmented_set2/4_20_5.avi', 'push'),
    ],
  }
  for example in listing.splits['test']:
    assert example.video == str(official_clips / example.id)
  assert '5 clips of 120; 1 of other classes are left out' in caplog.text


def test_validation_keeps_set_2_out(official_clips):
  assert _clips(ut.list_clips(official_clips, [9, 10])) == {
    'train': [
      ('segmented_set1/0_1_4.avi', 'punch'),
      ('segmented_set1/1_1_0.avi', 'shake_hands'),
    ],
    'val': [('segmented_set1/7_9_4.avi', 'punch')],
  }


def test_csv(tmp_path):
  (tmp_path / 'clips.csv').write_text(
    f'{_HEADER}hug/1.avi,hug,1,1,1,99\nhug/2.avi,hug,1,2,12,99\n'
    'kick/1.avi,kick,2,1,2,99\nno/1.avi,nothing,6,1,1,99\n'
  )
  assert _clips(ut.list_clips(tmp_path)) == {
    'train': [('hug/1.avi', 'hug'), ('kick/1.avi', 'kick')],
    'test': [('hug/2.avi', 'hug')],
  }
  assert _clips(ut.list_clips(tmp_path, [2])) == {
    'train': [('hug/1.avi', 'hug')],
    'val': [('kick/1.avi', 'kick')],
  }


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    (b'a.avi,hug,1,one,1,9', "no set 'one' with a sequence '1'"),
    (b'a.avi,hug,1,0,1,9', "no set '0' with"),
    (b'a.avi,hug,1,3,1,9', "no set '3' with"),
    (b'a.avi,hug,1,1,,9', 'no sequence'),
    (b'a.avi,hug,1,1,1.5,9', "no set '1' with a sequence '1.5'"),
    (b'a.avi,hug,1,1,0,9', "no set '1' with a sequence '0'"),
    (b'a.avi,hug,1,1,11,9', "no set '1' with .* Set 1 has sequences 1 to 10"),
    (b'a.avi,hug,1,2,10,9', "no set '2' with .* set 2 has 11 to 20"),
    (b'a.avi,hug,1,2,21,9', "no set '2' with a sequence '21'"),
    (b'a.avi,hug,1,1', 'no sequence'),
    (b'a.avi', 'no label and no set and no sequence'),
    (b',hug,1,1,1,9', 'no path'),
    (b' ,hug,1,1,1,9', 'no path'),
    (b'\xff.avi,hug,1,1,1,9', 'as UTF-8'),
    (b'"a.avi,hug,1,1,1,9', 'unexpected end'),
  ],
)
def test_mistakes_in_the_csv_are_named_with_their_line(tmp_path, row, message):
  contents = _HEADER.encode() + b'b.avi,hug,1,1,1,9\n' + row + b'\n'
  (tmp_path / 'clips.csv').write_bytes(contents)
  with pytest.raises(UserError, match=rf'clips\.csv, line 3\b.*{message}'):
    ut.list_clips(tmp_path)


def test_blanks_in_the_csv_do_not_count(tmp_path):
  (tmp_path / 'clips.csv').write_text(
    f'{_HEADER}1.avi, hug ,1, 1,10 ,9\n 2.avi ,hug\t,1,2 , 20,\n'
  )
  listing = ut.list_clips(tmp_path)
  assert _clips(listing) == {
    'train': [('1.avi', 'hug')],
    'test': [('2.avi', 'hug')],
  }
  assert listing.splits['test'][0].video == str(tmp_path / '2.avi')


def test_mistakes_are_named(official_clips, tmp_path):
  (tmp_path / 'clips.csv').write_text('path,label,set\na.avi,hug,1\n')
  with pytest.raises(UserError, match='has no column sequence'):
    ut.list_clips(tmp_path)
  with pytest.raises(UserError, match=r'no folder --videos=.*nowhere'):
    ut.list_clips(tmp_path / 'nowhere')
  with pytest.raises(UserError, match=r'sequence 11; set 1 has 1 to 10'):
    ut.list_clips(official_clips, [9, 11])
  with pytest.raises(UserError, match="no clips for split 'val'"):
    ut.list_clips(official_clips, [5])
  with pytest.raises(UserError, match="no clips for split 'train'"):
    ut.list_clips(official_clips / 'deep')
  shutil.copy(
    official_clips / 'segmented_set1/0_1_4.avi', official_clips / '0_1_4.avi'
  )
  with pytest.raises(UserError, match=r'holds 0_1_4\.avi twice'):
    ut.list_clips(official_clips)
  for name in ('9_21_0.avi', '9_0_0.avi'):
    (tmp_path / name).mkdir()
    (tmp_path / name / name).touch()
    with pytest.raises(UserError, match=f'{name} names sequence .* 1 to 20'):
      ut.list_clips(tmp_path / name)


def test_the_videos_are_no_place_for_the_records(official_clips):
  (official_clips / 'labels.txt').write_text('mine\n')
  listing = ut.list_clips(official_clips)
  for out in (official_clips, official_clips / 'segmented_set1'):
    with pytest.raises(UserError, match='holds the videos'):
      preparation.write(listing, out)
  assert (official_clips / 'labels.txt').read_text() == 'mine\n'


def test_the_command(official_clips, tmp_path):
  flags = {'videos': official_clips, 'out': tmp_path / 'records'}
  done = official.prepare('ut_interaction', **flags, short_side=24)
  assert done.code == 0, done.stderr
  assert 'train: 3 videos of 2 classes; 0 missing, 0 broken' in done.stdout
  source = sources.open_source(tmp_path / 'records', 'test')
  assert [source.labels[e.label] for e in source] == ['shake_hands', 'push']
  with VideoReader(source[0].video) as video:
    assert (video.height, video.width) == (24, 32)
    assert coded_video.numbers(video.read(range(20))) == [*range(20)]
  done = official.prepare('ut_interaction', **flags, validation='9,x')
  assert done.code == 2
  assert '--validation=9,x must be numbers' in done.stderr


def test_the_real_files(root):
  """Lists the data set, where it lies beside the repository."""
  path = root.parent / 'shared' / 'videos' / 'ut_interaction'
  if not path.is_dir():
    pytest.skip(f'{path} is not there')
  listing = ut.list_clips(path)
  assert sum(map(len, listing.splits.values())) == ut.NUM_CLIPS
  for examples in listing.splits.values():
    numbers = collections.Counter(e.label for e in examples)
    assert sorted(numbers.values()) == [10] * 6
  listing = ut.list_clips(path, [9, 10])
  assert {k: len(v) for k, v in listing.splits.items()} == {
    'train': 48,
    'val': 12,
  }
