"""From a folder of videos to records, with everything that goes wrong."""

import hashlib
import json
import subprocess
import sys

import pytest

from data.folder import prepare as folder
from mtnet_jax.data import records, sources
from mtnet_jax.data.video import VideoReader
from mtnet_jax.errors import UserError
from tests.data import coded_video


def _write(path, num_frames=20):
  path.parent.mkdir(parents=True, exist_ok=True)
  return coded_video.write(path, coded_video.frames(num_frames))


@pytest.fixture
def videos(tmp_path):
  """Five training videos, a text and a short one among them; one for test."""
  root = tmp_path / 'videos'
  for name in ('hug/1', 'hug/2', 'wave/1'):
    _write(root / f'train/{name}.mp4')
  _write(root / 'train/wave/short.mp4', 5)
  (root / 'train/wave/text.mp4').write_text('no video')
  _write(root / 'test/wave/1.mp4')
  return root


def _ids(out, split):
  return [example.id for example in sources.open_source(out, split)]


def test_records_and_manifest(videos, tmp_path):
  out = tmp_path / 'deep' / 'records'
  manifest = folder.prepare(videos, out, num_shards=2)
  train = sources.open_source(out, 'train')
  assert train.labels == ('hug', 'wave')
  assert sorted(_ids(out, 'train')) == [
    'train/hug/1.mp4',
    'train/hug/2.mp4',
    'train/wave/1.mp4',
    'train/wave/short.mp4',
  ]
  assert _ids(out, 'test') == ['test/wave/1.mp4']
  for example in train:
    assert example.label == ('wave' in example.id)
    assert example.video == (videos / example.id).read_bytes()

  assert manifest == json.loads((out / 'manifest.json').read_text())
  assert manifest['labels'] == ['hug', 'wave']
  assert manifest['splits'] == {
    'train': {
      'written': 4,
      'skipped': 1,
      'short': 1,
      'classes': {'hug': 2, 'wave': 2},
    },
    'test': {'written': 1, 'skipped': 0, 'short': 0, 'classes': {'wave': 1}},
  }
  skipped, short = {}, {}
  for name, report in manifest['shards'].items():
    contents = (out / name).read_bytes()
    assert report['sha256'] == hashlib.sha256(contents).hexdigest()
    skipped |= report['skipped']
    short |= report['short']
  assert list(skipped) == ['train/wave/text.mp4']
  assert 'Invalid data' in skipped['train/wave/text.mp4']
  assert short == {'train/wave/short.mp4': 5}


def test_a_csv_with_missing_files_and_parts_of_videos(tmp_path):
  _write(tmp_path / 'a.mp4', 40)  # at 25 a second
  (tmp_path / 'clips.csv').write_text(
    'path,label,split,start,end\n'
    'a.mp4,wave,train,0.2,1\n'
    'a.mp4,hug,train,1,\n'
    'a.mp4,hug,test,2,3\n'  # the video ends before
    'gone.mp4,hug,train,,\n'
  )
  out = tmp_path / 'out'
  manifest = folder.prepare(tmp_path / 'clips.csv', out)
  first, second = sources.open_source(out, 'train')
  assert (first.id, first.start, first.end) == ('a.mp4#0.2-1.0', 0.2, 1.0)
  assert (second.id, second.start, second.end) == ('a.mp4#1.0-', 1.0, None)
  with VideoReader(first.video, first.start, first.end) as video:
    assert coded_video.numbers(video.read([0, 19])) == [5, 24]
  reasons = {}
  for report in manifest['shards'].values():
    reasons |= report['skipped']
  assert reasons['gone.mp4'] == 'No such file or directory'
  assert 'no frame from 2.0 s to 3.0 s' in reasons['a.mp4#2.0-3.0']
  with pytest.raises(UserError, match='empty: no video could be read'):
    sources.open_source(out, 'test')


def test_finished_files_are_kept_and_others_are_made(
  videos, tmp_path, monkeypatch
):
  out = tmp_path / 'out'
  written = []
  write = records.write

  def failing_third(path, examples):
    if len(written) == 2:
      raise KeyboardInterrupt
    write(path, examples)
    written.append(path.name)

  monkeypatch.setattr(records, 'write', failing_third)
  with pytest.raises(KeyboardInterrupt):
    folder.prepare(videos, out, num_shards=2)
  with pytest.raises(UserError, match='is missing'):
    sources.open_source(out, 'train')

  monkeypatch.setattr(
    records, 'write', lambda *a: (write(*a), written.append(a[0].name))
  )
  manifest = folder.prepare(videos, out, num_shards=2)
  # Each once: the second call made only what the first one had not.
  assert written == list(manifest['shards']) and len(written) == 4
  assert len(_ids(out, 'train')) == 4
  assert folder.prepare(videos, out, num_shards=2) == manifest
  assert len(written) == 4

  # A mended video changes its own file only.
  _write(videos / 'train/wave/text.mp4')
  again = folder.prepare(videos, out, num_shards=2)
  assert len(written) == 5
  assert again['splits']['train']['skipped'] == 0
  assert 'train/wave/text.mp4' in _ids(out, 'train')


def test_records_of_another_preparation_are_not_mixed(videos, tmp_path):
  out = tmp_path / 'out'
  folder.prepare(videos, out, num_shards=2)
  with pytest.raises(UserError, match='records of another preparation, such'):
    folder.prepare(videos, out, num_shards=3)
  assert len(_ids(out, 'train')) == 4  # those that are there stay usable


def test_the_videos_own_folder_is_no_place_for_records(tmp_path):
  _write(tmp_path / 'a.mp4')
  (tmp_path / 'clips.csv').write_text('path,label,split\na.mp4,wave,train\n')
  (tmp_path / 'labels.txt').write_text('wave\n')
  for videos in (tmp_path, tmp_path / 'clips.csv'):
    with pytest.raises(UserError, match='give another folder'):
      folder.prepare(videos, tmp_path)
  assert (tmp_path / 'labels.txt').read_text() == 'wave\n'


def test_nothing_readable_is_an_error(tmp_path):
  (tmp_path / 'videos/wave').mkdir(parents=True)
  (tmp_path / 'videos/wave/1.mp4').write_text('no video')
  with pytest.raises(UserError, match='None of the videos of'):
    folder.prepare(tmp_path / 'videos', tmp_path / 'out')


def _run(root, *flags):
  return subprocess.run(
    [sys.executable, '-m', 'data.folder.prepare', *flags],
    cwd=root,
    capture_output=True,
    text=True,
  )


def test_the_command(root, videos, tmp_path):
  done = _run(root, f'--videos={videos}', f'--out={tmp_path / "out"}')
  assert done.returncode == 0, done.stderr
  assert 'train: 4 videos of 2 classes, 1 skipped, 1 short' in done.stdout
  assert 'skipped train/wave/text.mp4: Invalid data' in done.stdout
  assert 'short train/wave/short.mp4: 5 frames' in done.stdout
  assert 'preparing: 6/6 videos' in done.stderr


def test_mistakes_end_the_command_with_a_sentence(root, videos, tmp_path):
  file = tmp_path / 'file'
  file.touch()
  for flags, message in [
    (['--videos=/nowhere', f'--out={tmp_path / "o"}'], 'There is no data at'),
    ([f'--videos={videos}', f'--out={file}/out'], 'cannot be written: Not a'),
  ]:
    done = _run(root, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')
    assert message in done.stderr
    assert done.stderr.count('\n') == 1
