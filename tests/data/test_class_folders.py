"""Which folders are splits, which are classes, and what is refused."""

import pytest

from mtnet_jax.data import class_folders, sources
from mtnet_jax.errors import UserError


def _touch(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def _splits(root):
  """Ids and classes by split."""
  listing = sources.list_videos(root)
  return listing.labels, {
    split: {e.id: listing.labels[e.label] for e in examples}
    for split, examples in listing.splits.items()
  }


@pytest.mark.parametrize(
  'names',
  [
    ('training', 'validation', 'testing'),
    ('Train', 'Val', 'Test'),
    ('TRAINING', 'valid', 'eval'),
    ('train', 'dev', 'test'),
    ('train_set', 'Dev Set', 'test-videos'),
    ('train', 'eval', 'test'),  # validated on the former
  ],
)
def test_names_of_splits(tmp_path, names):
  _touch(tmp_path, *(f'{s}/{c}/{s}.mp4' for s in names for c in ('up', 'down')))
  labels, splits = _splits(tmp_path)
  assert labels == ('down', 'up')
  assert splits == {
    split: {f'{name}/{c}/{name}.mp4': c for c in ('down', 'up')}
    for split, name in zip(('train', 'val', 'test'), names, strict=True)
  }


@pytest.mark.parametrize('name', ['trains', 'tester', 'valley', 'devil', 'e'])
def test_names_of_no_split(name):
  assert not class_folders.split_of(name)


def test_splits_below_classes(tmp_path):
  _touch(
    tmp_path, 'up/Train/1.mp4', 'up/test/2.mp4', 'down/Train/3.mp4'
  )  # fmt: skip
  _, splits = _splits(tmp_path)
  assert splits == {
    'train': {'up/Train/1.mp4': 'up', 'down/Train/3.mp4': 'down'},
    'test': {'up/test/2.mp4': 'up'},
  }


def test_what_is_in_no_class_is_told(tmp_path, caplog):
  _touch(
    tmp_path, 'loose.mp4', 'train/up/1.mp4', 'train/up/x/2.mp4',
    'train/loose.mp4', 'test/3.mp4', 'train/empty/readme.txt', 'val/x.txt',
  )  # fmt: skip
  labels, splits = _splits(tmp_path)
  assert labels == ('up',)
  assert [*splits['train']] == ['train/up/1.mp4', 'train/up/x/2.mp4']
  assert [*splits] == ['train']
  told = '3 videos outside the folders of classes: loose.mp4, test/3.mp4'
  assert told in caplog.text
  assert '2 folders without a video: train/empty, val' in caplog.text


_AMBIGUOUS = [
  # A flat split beside classes, or nothing but flat ones.
  (('up/1.mp4', 'down/2.mp4', 'test/3.mp4'), ['test holds videos', 'down, up']),
  (('train/1.mp4', 'test/2.mp4'), ['test, train holds videos', 'labels.txt']),
  # Classes beside splits.
  (('up/1.mp4', 'test/up/2.mp4'), ['beside them up', 'move them into']),
  (('a/1.mp4', 'train/up/2.mp4'), ['beside them a', 'labels.txt']),
  # Two folders for one split.
  (('Train/up/1.mp4', 'train/up/2.mp4'), ['several folders', 'Train, train']),
  (('val/up/1.mp4', 'dev/up/2.mp4'), ['several folders', 'dev, val']),
  # Two levels that may be classes.
  (
    ('sport/golf/1.mp4', 'art/dance/2.mp4'),
    ['either art, sp', 'dance, gol'],
  ),
  # Either the classes are sorted by subject, or the subjects are the classes.
  (
    ('wave/person01/1.mp4', 'clap/person01/2.mp4', 'clap/person02/3.mp4'),
    [
      'either clap, wave are the classes, or person01, person02 are.',
      'clap/person01/2.mp4 is then of the class clap, ',
      ' or of the class person01, ',
      'one a line: clap, wave, or person01, person02.',
    ],
  ),
  (('data/up/1.mp4', 'data/down/2.mp4'), ['or give ', '/data as the folder']),
  (('data/train/up/1.mp4', 'data/test/up/2.mp4'), ['/data as the folder']),
  (('train/a/b/1.mp4',), ['either a are the classes, or b are']),
  # Splits in some of the classes.
  (('up/train/1.mp4', 'up/2.mp4', 'x/3.mp4'), ['inside folders of classes']),
]


@pytest.mark.parametrize(('names', 'parts'), _AMBIGUOUS)
def test_what_has_two_readings_is_refused(tmp_path, names, parts):
  _touch(tmp_path, *names)
  with pytest.raises(UserError) as caught:
    sources.list_videos(tmp_path)
  for part in parts:
    assert part in str(caught.value)


@pytest.mark.parametrize(
  ('names', 'labels', 'expected'),
  [
    # Vehicles: `train` is a class.
    (
      ('bus/1.mp4', 'train/2.mp4'),
      'train\nbus\n',
      {'bus/1.mp4': 'bus', 'train/2.mp4': 'train'},
    ),
    # A test split without classes.
    (('up/1.mp4', 'test/2.mp4'), 'up\n', {'up/1.mp4': 'up'}),
    # Either level.
    (
      ('sport/golf/1.mp4', 'art/dance/2.mp4'),
      'dance\ngolf\n',
      {'sport/golf/1.mp4': 'golf', 'art/dance/2.mp4': 'dance'},
    ),
    (
      ('sport/golf/1.mp4', 'art/dance/2.mp4'),
      '\ufeffart\r\nsport\r\n',
      {'sport/golf/1.mp4': 'sport', 'art/dance/2.mp4': 'art'},
    ),
    # Splits above, and something else beside them.
    (('train/up/1.mp4', 'raw/2.mp4'), 'up\n', {'train/up/1.mp4': 'up'}),
  ],
)
def test_labels_txt_says_which(tmp_path, names, labels, expected):
  _touch(tmp_path, *names)
  (tmp_path / 'labels.txt').write_bytes(labels.encode())
  found, splits = _splits(tmp_path)
  assert list(found) == labels.replace('\ufeff', '').split()
  assert splits == {'train': expected}


def test_labels_txt_of_something_else(tmp_path):
  _touch(tmp_path, 'up/1.mp4', 'down/2.mp4')
  (tmp_path / 'labels.txt').write_text('0 down\n1 up\n')
  with pytest.raises(UserError, match='no video lies in a folder of such a n'):
    sources.list_videos(tmp_path)
  (tmp_path / 'labels.txt').write_text('\n')
  with pytest.raises(UserError, match='names no class'):
    sources.list_videos(tmp_path)


def test_labels_txt_cannot_say_which_split(tmp_path):
  _touch(tmp_path, 'up/1.mp4', 'test/up/2.mp4')
  (tmp_path / 'labels.txt').write_text('up\n')
  with pytest.raises(UserError, match='beside them classes that are in no spl'):
    sources.list_videos(tmp_path)


def test_classes_are_counted_by_name(tmp_path, caplog):
  caplog.set_level('INFO', 'absl')
  caplog.set_level('INFO')
  _touch(
    tmp_path, 'train/up/1.mp4', 'train/up/2.mp4', 'train/a\x1bb/3.mp4',
    'test/up/4.mp4',
  )  # fmt: skip
  for split in ('train', 'test'):
    sources.open_source(tmp_path, split)
  assert 'train: 3 videos of 2 classes: a\\x1bb 1, up 2' in caplog.text
  assert 'test: 1 videos of 2 classes: a\\x1bb 0, up 1' in caplog.text
