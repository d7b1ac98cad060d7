"""Moments in Time in its official form."""

import pytest

from mtnet_jax.data import sources
from mtnet_jax.datasets.moments_in_time import prepare as moments
from mtnet_jax.errors import UserError
from tests.data import coded_video, official

_SHARED = 'yt-5of6ffo6-Bw_205'  # shows several classes
_LISTS = {
  'moments_categories.txt': 'dancing,0\nadult+female+singing,2\nfiring,1\n',
  'trainingSet.csv': f'dancing/{_SHARED}.mp4,dancing,3,0\n'
  f'adult+female+singing/{_SHARED}.mp4,adult+female+singing,2,1\n'
  'dancing/flickr-0-7, (b).mp4,dancing,3,0\n',
  'validationSet.csv': f'dancing/{_SHARED}.mp4,dancing,5,0\n'
  'firing/vine-a.b_1.mp4,firing,4,1\n',
}


@pytest.fixture
def lists(tmp_path):
  return official.write(tmp_path / 'lists', _LISTS)


def test_training_and_validation(lists, tmp_path):
  files = (
    f'training/adult+female+singing/{_SHARED}.mp4',
    f'training/dancing/{_SHARED}.mp4',
    f'validation/dancing/{_SHARED}.mp4',
    'training/dancing/flickr-0-7, (b).mp4',
  )
  videos = official.touch(tmp_path / 'Moments_in_Time_Raw', files)
  listing = moments.list_videos(videos, lists)
  assert listing.labels == ('dancing', 'firing', 'adult+female+singing')
  assert official.contents(listing) == {
    'train': [
      (files[1], 'dancing', files[1], None, None),
      (files[0], 'adult+female+singing', files[0], None, None),
      (files[3], 'dancing', files[3], None, None),
    ],
    'val': [
      (files[2], 'dancing', files[2], None, None),
      ('validation/firing/vine-a.b_1.mp4', 'firing', '', None, None),
    ],
  }


def test_mistakes_are_named(lists, tmp_path):
  videos = official.touch(tmp_path / 'videos', [f'{_SHARED}.mp4'])

  def fails(message, **values):
    values = {'videos': videos, 'lists': lists} | values
    with pytest.raises(UserError, match=message):
      moments.list_videos(**values)

  fails('There is no folder --annotations', lists=tmp_path / 'away')
  other = official.write(tmp_path / 'multi', {'trainingSet.txt': 'a,1,2\n'})
  fails(
    r'has no moments_categories\.txt.* holds: trainingSet\.txt', lists=other
  )
  for line, message in [
    ('waving/a.mp4,waving,3,0', "the class 'waving' is not in .*moments_cat"),
    ('dancing/a.mp4,dancing', 'cannot be read; expected are lines such as'),
    ('dancing/a.mp4,dancing,yes,no', 'cannot be read'),
    ('label,youtube_id,time_start,time_end,split', 'cannot be read'),
  ]:
    text = f'dancing/b.mp4,dancing,3,0\n{line}\n'
    official.write(lists, {'trainingSet.csv': text})
    fails(rf'trainingSet\.csv, line 2: .*{message}')
  official.write(lists, {'moments_categories.txt': 'dancing\n'})
  fails(r"moments_categories\.txt, line 1: 'dancing' cannot be read")
  official.write(lists, {'moments_categories.txt': ''})
  fails(r'moments_categories\.txt is empty')


def test_the_command(lists, tmp_path, caplog):
  for name in (
    'training/dancing/flickr-0-7, (b)',
    'validation/firing/vine-a.b_1',
  ):
    path = tmp_path / f'videos/{name}.mp4'
    path.parent.mkdir(parents=True)
    coded_video.write(path, coded_video.frames(20), 'mpeg4')
  done = official.prepare(
    'moments_in_time',
    videos=tmp_path / 'videos',
    annotations=lists,
    out=tmp_path / 'out',
  )
  assert done.code == 0, done.stderr
  assert 'train: 1 videos of 1 classes' in done.stdout
  assert "'train': 1 of 3 clips have their video" in caplog.text
  (example,) = sources.open_source(tmp_path / 'out', 'val')
  assert example.id == 'validation/firing/vine-a.b_1.mp4'
  assert example.label == 1
