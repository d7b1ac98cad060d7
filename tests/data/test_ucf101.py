"""UCF-101 in its official form."""

import pytest

from mtnet_jax.data import sources
from mtnet_jax.datasets.ucf101 import prepare as ucf101
from mtnet_jax.errors import UserError
from tests.data import coded_video, official

_LISTS = {
  'classInd.txt': '1 Archery\r\n2 HandstandPushups\r\n3 Basketball\r\n',
  'trainlist01.txt': 'Archery/v_Archery_g08_c01.avi 1\r\n'
  'HandstandPushups/v_HandStandPushups_g08_c01.avi 2\r\n'
  'Basketball/v_Basketball_g09_c02.avi 3\r\n',
  'testlist01.txt': 'Archery/v_Archery_g01_c01.avi\r\n'
  'HandstandPushups/v_HandStandPushups_g01_c01.avi\r\n',
  'trainlist02.txt': 'Archery/v_Archery_g01_c01.avi 1\r\n',
  'testlist02.txt': 'Archery/v_Archery_g08_c01.avi\r\n',
}


@pytest.fixture
def lists(tmp_path):
  return official.write(tmp_path / 'ucfTrainTestlist', _LISTS)


def _found(listing):
  return {
    split: [(label, path) for _, label, path, *_ in clips]
    for split, clips in official.contents(listing).items()
  }


def test_the_divisions(lists, tmp_path):
  official.touch(
    tmp_path / 'videos',
    [
      'UCF-101/Archery/v_Archery_g08_c01.avi',
      'UCF-101/Archery/v_Archery_g01_c01.avi',
      'UCF-101/HandstandPushups/v_HandStandPushups_g08_c01.avi',
      'UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi',
    ],
  )
  listing = ucf101.list_videos(tmp_path / 'videos', lists)
  assert listing.labels == ('Archery', 'HandstandPushups', 'Basketball')
  archery, pushups = 'UCF-101/Archery/v_Archery', 'HandstandPushups'
  handstand = 'UCF-101/HandstandPushups/v_HandStandPushups'
  assert _found(listing) == {
    'train': [
      ('Archery', f'{archery}_g08_c01.avi'),
      (pushups, f'{handstand}_g08_c01.avi'),
      ('Basketball', ''),
    ],
    'test': [
      ('Archery', f'{archery}_g01_c01.avi'),
      (pushups, f'{handstand}_g01_c01.avi'),
    ],
  }
  assert listing.splits['train'][2].id == 'Basketball/v_Basketball_g09_c02'
  assert _found(ucf101.list_videos(tmp_path / 'videos', lists, 2)) == {
    'train': [('Archery', f'{archery}_g01_c01.avi')],
    'test': [('Archery', f'{archery}_g08_c01.avi')],
  }


@pytest.mark.parametrize('in_class', ['Handstand', 'HandStand'])
@pytest.mark.parametrize('in_list', ['Handstand', 'HandStand'])
@pytest.mark.parametrize('in_file', ['Handstand', 'HandStand'])
def test_handstands_in_any_spelling(in_class, in_list, in_file, tmp_path):
  line = f'HandstandPushups/v_{in_list}Pushups_g01_c01.avi'
  lists = official.write(
    tmp_path / 'lists',
    {
      'classInd.txt': f'1 {in_class}Pushups\n',
      'trainlist01.txt': f'{line} 1\n',
      'testlist01.txt': f'{line.replace("g01", "g02")}\n',
    },
  )
  file = f'v_{in_file}Pushups_g01_c01.mp4'
  official.touch(tmp_path / 'videos', [file])
  assert _found(ucf101.list_videos(tmp_path / 'videos', lists)) == {
    'train': [(f'{in_class}Pushups', file)]
  }


def test_mistakes_are_named(lists, tmp_path):
  videos = official.touch(tmp_path / 'videos', ['v_Archery_g01_c01.avi'])

  def fails(message, **values):
    values = {'videos': videos, 'lists': lists} | values
    with pytest.raises(UserError, match=message):
      ucf101.list_videos(**values)

  fails(r'has no trainlist03\.txt', split=3)
  fails('There is no folder --annotations', lists=tmp_path / 'away')
  other = official.write(tmp_path / 'hmdb', {'a_test_split1.txt': 'a.avi 1\n'})
  fails(r'has no classInd.txt.* holds: a_test_split1\.txt', lists=other)
  for line, message in [
    (
      'Archery/v_Archery_g01_c01.avi 3',
      "the class 'Archery 3' is not in .*Ind",
    ),
    ('Waving/v_Waving_g01_c01.avi', "the class 'Waving' is not in .*classInd"),
    ('v_Archery_g01_c01.avi 1', 'cannot be read; expected are lines such as'),
  ]:
    text = f'Archery/v_Archery_g02_c01.avi 1\n{line}\n'
    official.write(lists, {'trainlist01.txt': text})
    fails(rf'trainlist01\.txt, line 2: .*{message}')
  official.write(lists, {'classInd.txt': ''})
  fails(r'classInd\.txt is empty')


def test_the_command(lists, tmp_path):
  for name in ('v_Archery_g08_c01', 'v_HandStandPushups_g01_c01'):
    path = tmp_path / f'videos/{name}.avi'
    path.parent.mkdir(exist_ok=True)
    coded_video.write(path, coded_video.frames(20), 'mpeg4')
  flags = {'videos': tmp_path / 'videos', 'annotations': lists}
  done = official.prepare('ucf101', **flags, out=tmp_path / 'out')
  assert done.code == 0, done.stderr
  (example,) = sources.open_source(tmp_path / 'out', 'test')
  assert example.id == 'HandstandPushups/v_HandStandPushups_g01_c01'
  assert example.label == 1
  done = official.prepare('ucf101', videos=lists, annotations=lists, out='o')
  assert done.code == 2
  assert 'holds none of the listed videos' in done.stderr
