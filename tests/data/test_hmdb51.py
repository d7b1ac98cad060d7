"""HMDB-51 in its official form."""

import pytest

from mtnet_jax.data import sources
from mtnet_jax.datasets.hmdb51 import prepare as hmdb51
from mtnet_jax.errors import UserError
from tests.data import coded_video, official

# As in the data set: names with odd characters, a blank at the end of lines.
_ODD = '#437_How_To!&(b;c)[d]_brush_hair_u_nm_np1_ba_goo_0'
_LISTS = {
  'brush_hair_test_split1.txt': f'{_ODD}.avi 1 \na.b_1.avi 2 \nc.avi 0 \n',
  'brush_hair_test_split2.txt': f'{_ODD}.avi 2 \na.b_1.avi 1 \nc.avi 1 \n',
  'ride_bike_test_split1.txt': 'd.avi 1 \r\ne.avi 2 \r\ngone.avi 2 \r\n',
  'ride_bike_test_split2.txt': 'd.avi 0 \r\ne.avi 2 \r\ngone.avi 2 \r\n',
}


@pytest.fixture
def lists(tmp_path):
  return official.write(tmp_path / 'testTrainMulti_7030_splits', _LISTS)


@pytest.fixture
def videos(tmp_path):
  names = (f'brush_hair/{_ODD}', 'brush_hair/a.b_1', 'brush_hair/c')
  names += ('ride_bike/ride_bike/d', 'ride_bike/e')
  files = [f'{name}.avi' for name in names]
  return official.touch(tmp_path / 'videos', files)


def test_the_divisions(videos, lists):
  brush, ride = 'brush_hair', 'ride_bike'
  odd = (f'{brush}/{_ODD}.avi', brush, f'{brush}/{_ODD}.avi', None, None)
  other = (f'{brush}/a.b_1.avi', brush, f'{brush}/a.b_1.avi', None, None)
  e = (f'{ride}/e.avi', ride, f'{ride}/e.avi', None, None)
  gone = (f'{ride}/gone.avi', ride, '', None, None)
  assert official.contents(hmdb51.list_videos(videos, lists)) == {
    'train': [odd, (f'{ride}/d.avi', ride, f'{ride}/{ride}/d.avi', None, None)],
    'test': [other, e, gone],
  }
  listing = hmdb51.list_videos(videos, lists, 2)
  assert official.contents(listing) == {
    'train': [
      other,
      (f'{brush}/c.avi', brush, f'{brush}/c.avi', None, None),
    ],
    'test': [odd, e, gone],
  }
  assert listing.labels == (brush, ride)


def test_mistakes_are_named(videos, lists, tmp_path):
  def fails(message, **values):
    values = {'videos': videos, 'lists': lists} | values
    with pytest.raises(UserError, match=message):
      hmdb51.list_videos(**values)

  fails(r'has no CLASS_test_split3\.txt.*brush_hair_test_split1', split=3)
  fails('There is no folder --annotations', lists=tmp_path / 'away')
  fails('There is no folder --videos', videos=tmp_path / 'away')
  fails('none of the listed videos', videos=lists)
  other = official.write(tmp_path / 'ucf', {'classInd.txt': '1 Archery\n'})
  fails(r'has no CLASS_test_split1.txt.* holds: classInd\.txt', lists=other)
  for line in ('d.avi', 'd.avi 3', 'd.avi one', '1'):
    official.write(lists, {'ride_bike_test_split1.txt': f'e.avi 1 \n{line}\n'})
    fails(r"ride_bike_test_split1\.txt, line 2: .* as 'FILE.avi 1'")
  official.write(lists, {'ride_bike_test_split1.txt': '\n'})
  fails(r'ride_bike_test_split1\.txt is empty')


def test_the_command(lists, tmp_path, caplog):
  for name in (f'brush_hair/{_ODD}', 'brush_hair/a.b_1', 'ride_bike/d'):
    path = tmp_path / f'videos/{name}.avi'
    path.parent.mkdir(parents=True, exist_ok=True)
    coded_video.write(path, coded_video.frames(20), 'mpeg4')
  flags = {'videos': tmp_path / 'videos', 'annotations': lists}
  done = official.prepare('hmdb51', **flags, out=tmp_path / 'out', split=1)
  assert done.code == 0, done.stderr
  source = sources.open_source(tmp_path / 'out', 'train')
  assert [(e.id, source.labels[e.label]) for e in source] == [
    (f'brush_hair/{_ODD}.avi', 'brush_hair'),
    ('ride_bike/d.avi', 'ride_bike'),
  ]
  assert len(sources.open_source(tmp_path / 'out', 'test')) == 1
  assert "'test': 1 of 3 clips have their video" in caplog.text
  assert 'test: 1 videos of 1 classes; 2 missing' in done.stdout
  assert 'ride_bike/gone.avi' in (tmp_path / 'out/manifest.json').read_text()
  done = official.prepare('hmdb51', **flags, out=tmp_path / 'out', split=4)
  assert done.code == 2
  assert 'split' in done.stderr
