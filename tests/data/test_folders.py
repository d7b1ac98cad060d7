"""What counts as a video in a folder, and what is told of the rest."""

import os

import pytest

from mtnet_jax.data import annotations, folders, sources
from mtnet_jax.errors import UserError
from mtnet_jax.prediction import user_videos


def _touch(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def _found(root):
  return ['/'.join(place) for place in folders.search(root).videos]


def _left_out(root):
  return folders.search(root).left_out.describe()


@pytest.mark.parametrize(
  'ending', ['m2ts', '3g2', 'vob', 'f4v', 'MP4', 'asf', 'mxf', 'm2v', 'rmvb']
)
def test_endings_of_videos(tmp_path, ending):
  _touch(tmp_path, f'up/1.{ending}')
  assert _found(tmp_path) == [f'up/1.{ending}']


def test_every_file_is_a_video_or_told(tmp_path):
  _touch(
    tmp_path,
    'up/1.mp4',
    'up/._1.mp4',
    'up/Thumbs.db',
    'up/@eaDir/1.mp4/SYNO.jpg',
    '.ipynb_checkpoints/2.mp4',
    '.git/3.mp4',
    '.Trash-1000/files/4.mp4',
    '__MACOSX/up/5.mp4',
    '#recycle/6.mp4',
    '$RECYCLE.BIN/7.mp4',
    'lost+found/8.mp4',
    'down/a.txt',
    'down/b.TXT',
    'down/c.jpg',
    'down/d',
  )
  (tmp_path / 'none/below').mkdir(parents=True)
  os.mkfifo(tmp_path / 'up/pipe.mp4')
  assert _found(tmp_path) == ['up/1.mp4']
  told = _left_out(tmp_path)
  # Hidden are three folders and a file; a system's own are four folders in the
  # first level, and a folder and a file in `up`.
  assert '4 hidden' in told
  assert '.Trash-1000, .git, .ipynb_checkpoints, …' in told
  assert "6 a system's" in told
  assert '4 files that do not end as videos do (.txt 2, .jpg 1, ' in told
  assert 'no ending 1): down/a.txt, down/b.TXT, down/c.jpg, …' in told
  assert '2 folders without a video: down, none' in told
  assert '1 neither files nor folders: up/pipe.mp4' in told


def test_a_folder_that_is_named_like_a_video(tmp_path):
  _touch(tmp_path, 'up/cut.mp4/1.mp4')
  assert _found(tmp_path) == ['up/cut.mp4/1.mp4']


def test_links(tmp_path):
  _touch(tmp_path, 'all/1.mp4')
  data = tmp_path / 'data'
  (data / 'train').mkdir(parents=True)
  (data / 'train/up').symlink_to(tmp_path / 'all')
  (data / 'test').symlink_to(data / 'train')
  (tmp_path / 'all/around').symlink_to(data)
  (tmp_path / 'all/itself.mp4').symlink_to(tmp_path / 'all/itself.mp4')
  (tmp_path / 'all/gone.mp4').symlink_to(tmp_path / 'nowhere')
  # A broken link may be a video whose disk is not there: reading it tells.
  names = ['1.mp4', 'gone.mp4', 'itself.mp4']
  assert _found(data) == [
    f'{s}/up/{n}' for s in ('test', 'train') for n in names
  ]
  told = _left_out(data)
  assert '2 links to folders that are there already: test/up/around' in told


def test_folders_without_end(tmp_path):
  deep = tmp_path / '/'.join('x' * 300)
  deep.mkdir(parents=True)
  _touch(deep, '1.mp4')
  assert _found(tmp_path) == []
  assert '1 folders more than 100 deep' in _left_out(tmp_path)


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
  _touch(tmp_path, 'up/1.mp4', 'down/2.mp4')
  scandir = os.scandir

  def refuse(path):
    if os.fspath(path).endswith('down'):
      raise PermissionError(13, 'Permission denied')
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(UserError, match=r'/down cannot be read: Permission'):
    sources.list_videos(tmp_path)
  found, missing = user_videos.find_videos([str(tmp_path)])
  assert found == [str(tmp_path / 'up/1.mp4')]
  assert missing == [
    (str(tmp_path / 'down'), 'this folder cannot be read: Permission denied')
  ]


def test_all_that_read_a_folder_find_the_same(tmp_path, caplog):
  _touch(
    tmp_path, 'up/1.m2ts', 'up/@eaDir/2.mp4', '.git/3.mp4', 'up/4.doc',
  )  # fmt: skip
  (example,) = sources.list_videos(tmp_path).splits['train']
  assert example.id == 'up/1.m2ts'
  found, missing = user_videos.find_videos([str(tmp_path)])
  assert (found, missing) == ([str(tmp_path / 'up/1.m2ts')], [])
  # A pattern's matches too.
  assert user_videos.find_videos([f'{tmp_path}/up/*'])[0] == [
    str(tmp_path / 'up/1.m2ts'),
    str(tmp_path / 'up/4.doc'),
  ]
  clips = [annotations.Clip(name, 'up', (name,)) for name in '123']
  listing = annotations.list_clips(tmp_path, ['up'], {'train': clips})
  there = [os.path.exists(e.video) for e in listing.splits['train']]
  assert there == [True, False, False]
  assert caplog.text.count('(.doc 1): up/4.doc') == 3


def test_a_folder_of_nothing_tells_what_it_holds(tmp_path):
  _touch(tmp_path, 'up/1.jpg')
  with pytest.raises(UserError, match=r'Left out are .*\.jpg 1\): up/1\.jpg'):
    sources.list_videos(tmp_path)
  _, ((_, reason),) = user_videos.find_videos([str(tmp_path)])
  assert 'no video in this folder, and left out are 1 files' in reason
