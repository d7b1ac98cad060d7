"""Directories as people have them, and the mistakes that they make."""

import pickle

import pytest

from mtnet_jax.data import records, sources
from mtnet_jax.data.records import Example
from mtnet_jax.errors import UserError


def _touch(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def _write_csv(root, text, name='clips.csv'):
  (root / name).write_text(text, 'utf-8')
  return root


def _ids(directory, split):
  return [example.id for example in sources.open_source(directory, split)]


# A folder a class.


def test_split_and_class_folders(tmp_path):
  _touch(
    tmp_path,
    'train/wave/b.mp4',
    'train/wave/a.AVI',
    'train/hug/c.mkv',
    'train/hug/notes.txt',
    'train/hug/.hidden.mp4',
    'test/jump/d.webm',
  )
  source = sources.open_source(tmp_path, 'train')
  # Labels are those of all splits.
  assert source.labels == ('hug', 'jump', 'wave')
  assert list(source) == [
    Example('train/hug/c.mkv', 0, str(tmp_path / 'train/hug/c.mkv')),
    Example('train/wave/a.AVI', 2, str(tmp_path / 'train/wave/a.AVI')),
    Example('train/wave/b.mp4', 2, str(tmp_path / 'train/wave/b.mp4')),
  ]
  assert pickle.loads(pickle.dumps(source)) == source
  with pytest.raises(UserError, match="split 'val'; it has: test, train"):
    sources.open_source(tmp_path, 'val')


def test_class_folders_are_divided(tmp_path):
  names = [f'{c}/{i:03}.mp4' for c in ('a', 'b') for i in range(200)]
  _touch(tmp_path, *names)
  splits = {split: set(_ids(tmp_path, split)) for split in sources.SPLITS}
  assert set.union(*splits.values()) == set(names)
  assert sum(map(len, splits.values())) == len(names)
  assert 0.72 * 400 < len(splits['train']) < 0.88 * 400
  assert 0.05 * 400 < len(splits['val']) < 0.15 * 400
  # More videos move none of the others.
  _touch(tmp_path, *(f'a/new{i}.mp4' for i in range(50)))
  for split, before in splits.items():
    assert before <= set(_ids(tmp_path, split))


@pytest.mark.parametrize('count', [3, 4, 5, 9])
def test_small_classes_are_in_every_split(tmp_path, count):
  classes = [f'class{i}' for i in range(20)]
  _touch(tmp_path, *(f'{c}/{i}.mp4' for c in classes for i in range(count)))
  for split in sources.SPLITS:
    labels = {e.label for e in sources.open_source(tmp_path, split)}
    assert len(labels) == len(classes)


def test_classes_of_one_or_two_videos_are_for_training(tmp_path):
  _touch(tmp_path, 'a/0.mp4', 'a/1.mp4', 'b/0.mp4', *(f'c/{i}' for i in 'xyz'))
  assert len(_ids(tmp_path, 'train')) == 3
  with pytest.raises(UserError, match="split 'test'; it has: train"):
    sources.open_source(tmp_path, 'test')


# A CSV file.


def test_csv(tmp_path):
  _touch(tmp_path, 'x/1.mp4', 'x/2.mp4', '3.bin')
  _write_csv(
    tmp_path,
    'note,path,label,split,start,end\n'
    ',x/1.mp4,wave,train,,\n'
    '"a, b",3.bin,hug,train,0.5,2\n'
    ',x/2.mp4, jump ,test,,1.5\n',
  )
  source = sources.open_source(tmp_path, 'train')
  assert source.labels == ('hug', 'jump', 'wave')
  assert list(source) == [
    Example('x/1.mp4', 2, str(tmp_path / 'x/1.mp4')),
    Example('3.bin', 0, str(tmp_path / '3.bin'), 0.5, 2.0),
  ]
  assert sources.open_source(tmp_path, 'test')[0].end == 1.5


def test_csv_with_its_own_name_and_labels(tmp_path):
  _touch(tmp_path, '1.mp4')
  _write_csv(tmp_path, '\ufeffpath,label,split\n1.mp4,b,train\n', 'mine.csv')
  (tmp_path / 'labels.txt').write_text('c\nb\na\n\n')
  source = sources.open_source(tmp_path / 'mine.csv', 'train')
  assert source.labels == ('c', 'b', 'a')
  assert [example.label for example in source] == [1]
  _write_csv(tmp_path, 'path,label,split\n1.mp4,d,train\n')
  with pytest.raises(UserError, match=r"line 2: the label 'd' is not in .*lab"):
    sources.open_source(tmp_path, 'train')


def test_clips_of_one_video_have_ids_of_their_own(tmp_path):
  _touch(tmp_path, '1.mp4')
  _write_csv(
    tmp_path,
    'path,label,split,start,end\n'
    '1.mp4,a,train,0,1\n1.mp4,b,train,1,2.5\n1.mp4,a,test,2.5,\n',
  )
  assert _ids(tmp_path, 'train') == ['1.mp4#0.0-1.0', '1.mp4#1.0-2.5']
  assert _ids(tmp_path, 'test') == ['1.mp4#2.5-']


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('path,name\n1.mp4,a\n', 'no column label; it has: path, name'),
    ('', 'no column path, label; it has: none'),
    ('path,label,split\n', 'a header only'),
    (
      'path,label,split\n1.mp4,a,train\n1.mp4,a,valid\n',
      "line 3: unknown split 'valid'; allowed: train, val, test",
    ),
    ('path,label,split\n1.mp4,,train\n', 'line 2: no label'),
    ('path,label,split\n1.mp4\n', 'line 2: no label'),
    (
      'path,label,split\n1.mp4,a,train\n1.mp4,b,test\n',
      "line 3: '1.mp4' is there already, in line 2",
    ),
    ('path,label,split,start\n1.mp4,a,train,x\n', "line 2: start 'x' and"),
    ('path,label,split,start,end\n1.mp4,a,train,2,1\n', 'must be seconds'),
    ('path,label,split,start\n1.mp4,a,train,-1\n', 'must be seconds'),
    ('path,label,split,end\n1.mp4,a,train,nan\n', 'must be seconds'),
    ('path,label,split\n1.mp4,a,train\n2.mp4,a,train\n', '1 of 2 .*2.mp4'),
  ],
)
def test_mistakes_in_a_csv_are_named(tmp_path, text, message):
  _touch(tmp_path, '1.mp4')
  _write_csv(tmp_path, text)
  with pytest.raises(UserError, match=message):
    sources.open_source(tmp_path, 'train')


def test_a_csv_that_is_none(tmp_path):
  (tmp_path / 'clips.csv').write_bytes(b'\xff\xfe\x00\x81')
  with pytest.raises(UserError, match='cannot be read as a CSV file'):
    sources.open_source(tmp_path, 'train')


# Records.


def _write_records(root, split, counts):
  for number, count in enumerate(counts):
    name = records.shard_name(split, number, len(counts))
    examples = [Example(f'{number}/{i}', 1, b'video') for i in range(count)]
    records.write(root / name, examples)
  (root / 'labels.txt').write_text('no\nyes\n')


def test_records(tmp_path):
  _write_records(tmp_path, 'train', [2, 0, 3])
  _write_records(tmp_path, 'val', [1])
  _touch(tmp_path, 'wave/1.mp4')  # records come first
  source = sources.open_source(tmp_path, 'train')
  assert source.labels == ('no', 'yes')
  assert _ids(tmp_path, 'train') == ['0/0', '0/1', '2/0', '2/1', '2/2']
  assert source[4] == Example('2/2', 1, b'video')
  assert pickle.loads(pickle.dumps(source))[4] == source[4]
  with pytest.raises(UserError, match="split 'test'; it has: train, val"):
    sources.open_source(tmp_path, 'test')


def test_incomplete_records_are_not_taken_for_whole(tmp_path):
  _write_records(tmp_path, 'train', [1, 1])
  second = tmp_path / records.shard_name('train', 1, 2)
  partial = second.rename(tmp_path / (second.name + '.partial'))
  with pytest.raises(UserError, match=f'{second.name} is missing'):
    sources.open_source(tmp_path, 'train')
  partial.rename(second)
  (tmp_path / 'labels.txt').unlink()
  with pytest.raises(UserError, match=r'labels\.txt is missing'):
    sources.open_source(tmp_path, 'train')
  _write_records(tmp_path, 'train', [1, 1, 1])
  with pytest.raises(UserError, match=r'in \[2, 3\] files'):
    sources.open_source(tmp_path, 'train')


def test_labels_that_are_not_utf_8(tmp_path):
  (tmp_path / 'clips.csv').write_text('path,label,split\na.mp4,hug,train\n')
  (tmp_path / 'labels.txt').write_bytes(b'h\xfcg\n')
  with pytest.raises(UserError, match=r'labels\.txt is not UTF-8'):
    sources.list_videos(tmp_path)


def test_records_of_nothing(tmp_path):
  _write_records(tmp_path, 'train', [0])
  with pytest.raises(UserError, match='empty: no video could be read'):
    sources.open_source(tmp_path, 'train')


# No data.


def test_no_data(tmp_path):
  with pytest.raises(UserError, match=r'give --config\.data\.dir=DIR'):
    sources.open_source('', 'train')
  with pytest.raises(UserError, match='no such file or directory'):
    sources.open_source(tmp_path / 'nowhere', 'train')
  with pytest.raises(UserError, match='holds no videos: expected are record'):
    sources.open_source(tmp_path, 'train')
  _touch(tmp_path, 'loose.mp4')
  with pytest.raises(UserError, match='holds no videos'):
    sources.open_source(tmp_path, 'train')
  with pytest.raises(UserError, match='no column path, label'):
    sources.open_source(tmp_path / 'loose.mp4', 'train')


@pytest.mark.parametrize('name', ['gs://a/records', 's3://a/b.csv'])
def test_data_on_a_bucket_are_read_through_a_mount(name):
  with pytest.raises(UserError, match=f'^{name} .* mount the bucket'):
    sources.open_source(name, 'train')
