"""Splits are made where there are none, and nothing is lost."""

import csv

import pytest

from mtnet_jax.data import dividing, own_videos, sources
from mtnet_jax.errors import UserError


def touch(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
  return root


def ids(directory, split):
  return {e.video for e in sources.open_source(directory, split).examples}


def test_a_missing_split_is_held_out(tmp_path):
  names = [f'{c}/{i:02}.mp4' for c in 'ab' for i in range(20)]
  root = touch(
    tmp_path / 'videos',
    *(f'train/{name}' for name in names),
    *(f'test/{name}' for name in names[:4]),
  )
  data, lines = own_videos.divide(root, tmp_path / 'made')
  assert data == str(tmp_path / 'made')
  # 15 % of 20, of each class.
  assert lines == [
    'There is no split val: 6 of the training videos are held out for '
    'validation.'
  ]
  assert len(ids(data, 'test')) == 4
  train, val = ids(data, 'train'), ids(data, 'val')
  assert len(train) == 34 and len(val) == 6 and not train & val
  assert train | val == {str(root / 'train' / name) for name in names}
  assert [sum(f'/{c}/' in v for v in val) for c in 'ab'] == [3, 3]
  assert sources.open_source(data, 'val').labels == ('a', 'b')


def test_who_divided_the_videos_is_believed(tmp_path):
  root = touch(
    tmp_path, *(f'{s}/a/{i}.mp4' for s in dividing.SPLITS for i in range(2))
  )
  assert own_videos.divide(root, tmp_path / 'made') == (str(root), [])
  assert not (tmp_path / 'made').exists()
  undivided = touch(tmp_path / 'flat', *(f'a/{i}.mp4' for i in range(9)))
  assert own_videos.divide(undivided, tmp_path / 'made')[1] == []


def test_parts_of_a_video_stay_together(tmp_path):
  touch(tmp_path, *(f'{i}.mp4' for i in range(6)))
  with open(tmp_path / 'parts.csv', 'w', newline='') as file:
    table = csv.writer(file)
    table.writerow(['path', 'label', 'split', 'start', 'end'])
    for video in range(6):
      for start in range(3):
        table.writerow([f'{video}.mp4', 'a', 'train', start, start + 0.5])
  data, _ = own_videos.divide(tmp_path / 'parts.csv', tmp_path / 'made')
  splits = {s: sources.open_source(data, s).examples for s in dividing.SPLITS}
  videos = [{e.video for e in examples} for examples in splits.values()]
  assert sum(map(len, videos)) == len(set.union(*videos)) == 6
  times = sorted((e.start, e.end) for e in splits['val'])
  assert times == [(0.0, 0.5), (1.0, 1.5), (2.0, 2.5)]


def test_a_class_of_two_videos_keeps_them_for_training(tmp_path):
  root = touch(tmp_path / 'v', 'train/a/1.mp4', 'train/a/2.mp4')
  assert own_videos.divide(root, tmp_path / 'made') == (str(root), [])


def test_a_name_that_no_list_can_hold(tmp_path):
  names = [b'train/a/%d\xff.mp4' % i for i in range(4)]
  for name in names:
    path = tmp_path / 'v' / name.decode('utf-8', 'surrogateescape')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
  with pytest.raises(UserError, match='not UTF-8'):
    own_videos.divide(tmp_path / 'v', tmp_path / 'made')


def test_nothing_to_train_on(tmp_path):
  root = touch(tmp_path, 'test/a/1.mp4', 'val/a/1.mp4')
  with pytest.raises(UserError, match='no videos for training; it has'):
    own_videos.divide(root, tmp_path / 'made')


def test_a_csv_without_splits_is_divided_as_folders_are(tmp_path, caplog):
  names = [f'{i:02}.mp4' for i in range(30)]
  touch(tmp_path, *(f'a/{name}' for name in names))
  by_folder = {s: ids(tmp_path, s) for s in dividing.SPLITS}
  rows = ''.join(f'a/{name},a\n' for name in names)
  (tmp_path / 'list.csv').write_text(f'path,label\n{rows}')
  listed = {s: ids(tmp_path / 'list.csv', s) for s in dividing.SPLITS}
  assert listed == by_folder
  assert 'has no column split' in caplog.text
