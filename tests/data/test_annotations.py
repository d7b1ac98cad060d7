"""Lines, classes and the files that clips name."""

import os

import pytest

from mtnet_jax.data import annotations
from mtnet_jax.data.annotations import Clip
from mtnet_jax.errors import UserError
from tests.data import official

_LINE = r'(?P<name>\S+) (?P<number>\d+)'


def _lines(path):
  return [*annotations.read_lines(path, _LINE, 'hug 3')]


def test_lines_with_any_ends(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes('\ufeff hug 3 \r\n\r\nGrüße 4\n'.encode())
  assert _lines(path) == [
    (f'{path}, line 1', {'name': 'hug', 'number': '3'}),
    (f'{path}, line 3', {'name': 'Grüße', 'number': '4'}),
  ]


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (b'hug 3\nhug\n', "line 2: 'hug' cannot be read; .* such as 'hug 3'"),
    (b' \n\n', 'is empty'),
    (b'\xff 3', 'is not UTF-8'),
    (None, 'cannot be read: No such file'),
  ],
)
def test_lines_that_cannot_be_read(tmp_path, text, message):
  if text is not None:
    (tmp_path / 'a.txt').write_bytes(text)
  with pytest.raises(UserError, match=message):
    _lines(tmp_path / 'a.txt')


def _classes(tmp_path, text):
  (tmp_path / 'a.txt').write_text(text)
  return annotations.read_classes(tmp_path / 'a.txt', _LINE, 'hug 3')


@pytest.mark.parametrize('first', [0, 1])
def test_classes_are_ordered_by_number(tmp_path, first):
  text = f'b {first + 2}\nc {first}\na {first + 1}\n'
  assert _classes(tmp_path, text) == ('c', 'a', 'b')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('a 1\nb 1\n', "line 2: class 'b' or number 1 is there already"),
    ('a 1\na 2\n', "line 2: class 'a' or number 2 is there already"),
    ('a 1\nb 3\n', 'numbers 2 classes from 1 to 3'),
    ('a 2\nb 3\n', 'numbers 2 classes from 2 to 3'),
    ('', 'is empty'),
  ],
)
def test_classes_without_an_order(tmp_path, text, message):
  with pytest.raises(UserError, match=message):
    _classes(tmp_path, text)


def test_seconds():
  assert annotations.seconds('0', '1.5', 'here') == (0.0, 1.5)
  for times in [('2', '2'), ('-1', '2'), ('', '2'), ('0', 'inf'), ('nan', '2')]:
    with pytest.raises(UserError, match=r'here: .* 0 ≤ start < end'):
      annotations.seconds(*times, 'here')


def test_folders_of_annotations(tmp_path):
  official.write(tmp_path, {f'{i}.txt': '' for i in range(8)})
  assert annotations.check_folder(tmp_path, ('3.txt',), 'lists') == tmp_path
  with pytest.raises(
    UserError, match=r'has no a\.txt: .* holds lists\..*4\.txt and 3 more\.'
  ):
    annotations.check_folder(tmp_path, ('3.txt', 'a.txt'), 'lists')
  with pytest.raises(UserError, match=r'no folder --annotations=.*5\.txt'):
    annotations.check_folder(tmp_path / '5.txt', (), 'lists')


def _paths(tmp_path, *clips):
  listing = annotations.list_clips(tmp_path, ['hug'], {'train': clips})
  return [path for _, _, path, *_ in official.contents(listing)['train']]


def test_files_are_found_by_name_in_any_folder(tmp_path):
  files = ('a.mp4', 'deep/er/b.c.MKV', '-d_.webm', 'e.txt', '.f.mp4', 'g.part')
  official.touch(tmp_path, files)
  names = ('a', 'b.c', '-d_', 'e', '.f', 'g', 'A')
  clips = [Clip(f'id {name}', 'hug', (name,)) for name in names]
  assert _paths(tmp_path, *clips) == [*files[:3], '', '', '', '']


def test_the_first_name_that_is_there_counts(tmp_path):
  official.touch(tmp_path, ['b.mp4', 'c.mp4'])
  assert _paths(tmp_path, Clip('1', 'hug', ('a', 'c', 'b'))) == ['c.mp4']


def test_folders_choose_among_files_of_one_name(tmp_path):
  files = ('w/hug.x/a.mp4', 'X/Shake_Hands/a.mp4', 'x/hug/a.mp4', 'y/a.mp4')
  official.touch(tmp_path / 'hug', files)
  for folders, path in [
    ((), 'X/Shake_Hands/a.mp4'),  # in order of bytes
    (('nowhere',), 'X/Shake_Hands/a.mp4'),
    (('shake hands', 'y'), 'X/Shake_Hands/a.mp4'),
    (('y', 'shake hands'), 'y/a.mp4'),
    (('hug', 'x'), 'x/hug/a.mp4'),  # the root's own name does not count
    (('x', 'hug'), 'x/hug/a.mp4'),
  ]:
    clip = Clip('1', 'hug', ('a',), folders)
    assert _paths(tmp_path / 'hug', clip) == [path]


def test_a_file_of_the_clip_alone_counts_whole(tmp_path):
  official.touch(tmp_path, ['a.mp4', 'b.mp4', 'b_1_2.mp4'])
  clips = [
    Clip('1', 'hug', ('a',), start=1.0, end=2.0, cut='a_1_2'),
    Clip('2', 'hug', ('b',), start=1.0, end=2.0, cut='b_1_2'),
    Clip('3', 'hug', ('b',), start=2.0, end=3.0, cut='b_2_3'),
  ]
  listing = annotations.list_clips(tmp_path, ['hug'], {'val': clips})
  assert official.contents(listing) == {
    'val': [
      ('1', 'hug', 'a.mp4', 1.0, 2.0),
      ('2', 'hug', 'b_1_2.mp4', None, None),
      ('3', 'hug', 'b.mp4', 2.0, 3.0),
    ]
  }


def test_links_to_folders_are_followed_once(tmp_path):
  official.touch(tmp_path / 'disk', ['hug/a.mp4'])
  (tmp_path / 'videos').mkdir()
  (tmp_path / 'videos/train').symlink_to(tmp_path / 'disk')
  (tmp_path / 'disk/around').symlink_to(tmp_path / 'videos')
  assert _paths(tmp_path / 'videos', Clip('1', 'hug', ('a',))) == [
    'train/hug/a.mp4'
  ]


def test_splits_without_videos_and_clips_listed_twice(tmp_path, caplog):
  official.touch(tmp_path, ['a.mp4'])
  clips = {
    'train': [Clip('1', 'hug', ('a',)), Clip('1', 'hug', ('a',))],
    'val': [Clip('2', 'wave', ('b',))],
    'test': [Clip('3', 'wave', ('a',)), Clip('1', 'hug', ('a',))],
  }
  listing = annotations.list_clips(tmp_path, ['hug', 'wave'], clips)
  assert official.contents(listing) == {
    'train': [('1', 'hug', 'a.mp4', None, None)],
    'test': [('3', 'wave', 'a.mp4', None, None)],
  }
  assert listing.labels == ('hug', 'wave')
  assert "Split 'val' is left out" in caplog.text
  assert '2 clips are listed twice' in caplog.text


def test_nothing_there(tmp_path):
  clips = {'train': [Clip('1', 'hug', ('a', 'b'), cut='a_1')]}

  def fails(message, folder=tmp_path, clips=clips):
    with pytest.raises(UserError, match=message):
      annotations.list_clips(folder, ['hug'], clips)

  fails('at any depth, such as a_1 or a or b .* it holds no video')
  official.touch(tmp_path, ['x/y.mp4', 'x/z.mp4'])
  fails(r'holds none of the listed videos.* it holds .*x/y\.mp4')
  fails('There is no folder --videos=.*away', tmp_path / 'away')
  fails('list no clip', clips={'train': [], 'test': []})


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
  official.touch(tmp_path, ['a.mp4', 'x/b.mp4'])
  scan = os.scandir

  def refuse(path):  # not by chmod: root may read everything
    if str(path).endswith('x'):
      raise PermissionError(13, 'Permission denied', path)
    return scan(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(UserError, match='x cannot be read: Permission denied'):
    _paths(tmp_path, Clip('1', 'hug', ('a',)))
