"""Files that are named like videos, and lead elsewhere or never end."""

import os
import pathlib
import resource
import socket
import struct
import subprocess
import sys

import numpy as np
import pytest

from mtnet_jax.data import picture_sizes, preparation, sources
from mtnet_jax.data.video import VideoError, VideoReader
from mtnet_jax.errors import UserError
from mtnet_jax.prediction.user_videos import open_video
from tests.data import coded_video

# In a process that may not hang or grow.
_READ = """
import pathlib, re, resource, sys
from mtnet_jax.data import clips, views
from mtnet_jax.data.video import VideoError, VideoReader

status = pathlib.Path('/proc/self/status').read_text()
had = re.search(r'VmData:\\s+(\\d+)', status)
limit = int(had[1]) * 1024 + (1 << 30)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for path in sys.argv[1:]:
  for source in (path, pathlib.Path(path).read_bytes()):
    try:
      with VideoReader(source) as video:
        indices = clips.view_indices(video.num_frames, 16, 5, 10)
        size = {'crop_size': 128, 'input_size': 112}
        views.read(video, indices, num_crops=3, **size)
        print(video.num_frames, 'frames')
    except VideoError as error:
      print('refused:', error.cause)
"""


@pytest.fixture(scope='module')
def good(tmp_path_factory):
  path = tmp_path_factory.mktemp('good') / 'good.mp4'
  return pathlib.Path(coded_video.write(path, coded_video.frames(20)))


# What is no regular file. A test that waits here would wait for ever.


@pytest.fixture(params=['pipe', 'socket', 'device'])
def endless(request, tmp_path, monkeypatch):
  """The path of something that never ends, and its name; or a link to it."""
  monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
  path = tmp_path / 'endless.mp4'
  if request.param == 'pipe':
    os.mkfifo(path)
  elif request.param == 'socket':
    with socket.socket(socket.AF_UNIX) as server:
      server.bind('endless.mp4')
  else:
    path.symlink_to('/dev/zero')
  (tmp_path / 'link.mp4').symlink_to(path)
  return path, request.param


def test_only_regular_files_are_read(endless):
  path, kind = endless
  for name in (path, path.with_name('link.mp4')):
    with pytest.raises(VideoError, match=f'it is a .*{kind}; only regular'):
      VideoReader(name)
    with pytest.raises(UserError, match=f'cannot be read: it is a .*{kind}'):
      open_video(name)


def test_arrays_are_read_from_regular_files_alone(tmp_path):
  os.mkfifo(tmp_path / 'a.npy')
  with pytest.raises(UserError, match='it is a named pipe'):
    open_video(tmp_path / 'a.npy')


def test_preparation_leaves_them_out(endless, good, tmp_path):
  path, kind = endless
  (tmp_path / 'good.mp4').write_bytes(good.read_bytes())
  (tmp_path / 'list.csv').write_text(
    f'path,label,split\n{path.name},a,train\ngood.mp4,a,train\n'
  )
  listing = sources.list_videos(tmp_path / 'list.csv')
  manifest = preparation.write(listing, tmp_path / 'out')
  ((_, reason),) = manifest['shards']['train-00000-of-00001.array_record'][
    'skipped'
  ].items()
  assert kind in reason
  assert manifest['splits']['train']['written'] == 1


def test_a_folder_is_none(tmp_path):
  with pytest.raises(VideoError, match='Is a directory'):
    VideoReader(tmp_path)


def test_a_file_that_no_record_can_hold(good, tmp_path):
  for name in ('good.mp4', 'large.mp4'):
    (tmp_path / name).write_bytes(good.read_bytes())
  os.truncate(tmp_path / 'large.mp4', 10 << 30)  # it takes no room on the disk
  (tmp_path / 'list.csv').write_text(
    'path,label,split\nlarge.mp4,a,train\ngood.mp4,a,train\n'
  )
  listing = sources.list_videos(tmp_path / 'list.csv')
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  manifest = preparation.write(listing, tmp_path / 'out', num_shards=1)
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000
  (report,) = manifest['shards'].values()
  assert report['skipped'] == {
    'large.mp4': 'it has 10.7 GB, and a record holds 4.3 at most: give '
    '--short_side, or cut it into parts'
  }


# What leads to other files and addresses.


def _lists(good):
  yield f'ffconcat version 1.0\nfile {good}\n'
  yield f'ffconcat version 1.0\nfile {good.name}\n'
  hls = '#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n'
  yield hls.format(good)
  yield hls.format('http://127.0.0.1:9/a.ts')
  yield (
    'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n'
    'm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n'
  )
  yield 'rtsptext\nrtsp://127.0.0.1:9/x\n'


@pytest.mark.parametrize('number', range(6))
def test_lists_are_not_followed(good, number):
  text = [*_lists(good)][number]
  path = good.with_name('list.mp4')
  path.write_text(text)
  for source in (path, text.encode()):
    with pytest.raises(VideoError, match=r'of no format that is read|Invalid'):
      VideoReader(source)


# What asks for more than there is.


def _patch(contents, kind, offset, value, width='>I'):
  """An MP4 file with another number so many bytes behind a box's name."""
  changed = bytearray(contents)
  place = changed.index(kind) + 4 + offset
  struct.pack_into(width, changed, place, value)
  return bytes(changed)


def _counting(contents, count):
  """As if there were so many frames of one byte, all in one piece."""
  for kind, offset, value in (
    (b'stsz', 4, 1),
    (b'stsz', 8, count),
    (b'stsc', 12, count),
    (b'stts', 8, count),
  ):
    contents = _patch(contents, kind, offset, value)
  return contents


def test_a_hostile_few(good, tmp_path, root):
  contents = good.read_bytes()
  line = np.zeros((9, 2, 4000, 3), np.uint8)
  coded_video.write(tmp_path / 'line.mkv', line, 'ffv1')
  made = {
    'counted.mp4': _counting(contents, 30_000_000),
    'billion.mp4': _counting(contents, 1_000_000_000),
    'table.mp4': _patch(contents, b'stsz', 8, 0x7FFFFFFF),
    'times.mp4': _patch(contents, b'stts', 4, 0xFFFFFFFF),
    'scale.mp4': _patch(contents, b'mdhd', 12, 0),
    'huge.mp4': _patch(contents, b'avc1', 24, 0xFFFFFFFF),
    'moov.mp4': _patch(contents, b'moov', -8, 0xFFFFFFFF),
    'cut.mp4': contents[:-400],
    'twice.mp4': contents + contents,
    'zeros.mp4': bytes(1 << 20),
    'text.mp4': b'hello\n' * 1000,
    'sync.ts': (b'G' + bytes(187)) * 2000,
  }
  for name, content in made.items():
    (tmp_path / name).write_bytes(content)
  paths = [tmp_path / name for name in ('line.mkv', *made)]
  done = subprocess.run(
    [sys.executable, '-c', _READ, *paths],
    cwd=root,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert len(lines) == 2 * len(paths)
  assert lines[::2] == lines[1::2]  # of a file as of its contents
  found = dict(zip([path.name for path in paths], lines[::2], strict=True))
  assert 'it says that it has 30,000,000 frames' in found['counted.mp4']
  assert 'it says that it has 2,147,483,647 frames' in found['table.mp4']
  assert found['line.mkv'].startswith('refused: its pictures have 4000 × 2')
  assert found['twice.mp4'] == '20 frames'


def test_pictures_with_too_many_pixels(good, tmp_path, monkeypatch):
  with pytest.raises(ValueError, match='16000 × 16000 pixels; at most 67,10'):
    picture_sizes.check(16_000, 16_000)
  picture_sizes.check(8192, 8192)
  monkeypatch.setattr(picture_sizes, 'MAX_PIXELS', 64 * 47)
  with pytest.raises(VideoError, match='64 × 48 pixels; at most 3,008 are'):
    VideoReader(good)


@pytest.mark.slow
def test_pictures_whose_size_the_head_does_not_tell(tmp_path, root):
  path = tmp_path / 'large.mov'
  images = np.zeros((2, 8200, 8200, 3), np.uint8)
  coded_video.write(path, images, 'png', pix_fmt='monob')
  done = subprocess.run(
    [sys.executable, '-c', _READ, path],
    cwd=root,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert '67,108,864 pixels at most' in done.stdout


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_text_that_is_not_utf8(name, tmp_path):
  path = coded_video.write(tmp_path / name, coded_video.frames(5))
  spoiled = coded_video.spoil_text(path)
  for source in (spoiled, pathlib.Path(spoiled).read_bytes()):
    with VideoReader(source) as video:
      assert coded_video.numbers(video.read(range(5))) == [0, 1, 2, 3, 4]
