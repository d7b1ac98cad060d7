"""HACS Clips in its official form."""

import pytest

from mtnet_jax.data import sources
from mtnet_jax.data.video import VideoReader
from mtnet_jax.datasets.hacs import prepare as hacs
from mtnet_jax.errors import UserError
from tests.data import coded_video, official

_HEADER = 'classname,youtube_id,subset,start,end,label\n'
_ROWS = (
  'Playing badminton,a2X2hz1G6i8,training,15.5,17.5,1\n'
  'Playing badminton,a2X2hz1G6i8,training,77.5,79.5,-1\n'
  'Playing badminton,a2X2hz1G6i8,training,0.0,2.0,1\n'
  'Archery,-O_qMHxBfXg,training,24.5,26.5,1\n'
  'Archery,a2X2hz1G6i8,training,15.5,17.5,1\n'
  'Archery,v_NUdji_Cqv,validation,1.5,3.5,1\n'
  'Archery,gone_gone_g,validation,1.5,3.5,1\n'
  ',testtesttes,testing,1.5,3.5,\n'
  'Archery,testtesttes,testing,1.5,3.5,1\n'
)


@pytest.fixture
def lists(tmp_path):
  return official.write(
    tmp_path / 'HACS_v1.1.1',
    {
      'HACS_clips_v1.1.1.csv': _HEADER + _ROWS,
      'HACS_segments_v1.1.1.json': '{}',
    },
  )


def test_positive_clips(lists, tmp_path, caplog):
  caplog.set_level('INFO', 'absl')
  caplog.set_level('INFO')
  badminton = 'Playing_badminton/v_a2X2hz1G6i8.mp4'
  files = ('Archery/v_a2X2hz1G6i8.mp4', '-O_qMHxBfXg.webm', 'v_NUdji_Cqv.mp4')
  videos = official.touch(tmp_path / 'videos', (badminton, *files))
  listing = hacs.list_videos(videos, lists)
  assert listing.labels == ('Archery', 'Playing badminton')
  name = 'Playing badminton'
  assert official.contents(listing) == {
    'train': [
      (f'{name}/a2X2hz1G6i8#15.5-17.5', name, badminton, 15.5, 17.5),
      (f'{name}/a2X2hz1G6i8#0.0-2.0', name, badminton, 0.0, 2.0),
      ('Archery/-O_qMHxBfXg#24.5-26.5', 'Archery', files[1], 24.5, 26.5),
      ('Archery/a2X2hz1G6i8#15.5-17.5', 'Archery', files[0], 15.5, 17.5),
    ],
    'val': [
      ('Archery/v_NUdji_Cqv#1.5-3.5', 'Archery', files[2], 1.5, 3.5),
      ('Archery/gone_gone_g#1.5-3.5', 'Archery', '', 1.5, 3.5),
    ],
  }
  assert '1 negative clips are left out, and 2 of subset' in caplog.text


def test_mistakes_are_named(lists, tmp_path):
  videos = official.touch(tmp_path / 'videos', ['Archery/v_other.mp4'])

  def fails(message, **values):
    values = {'videos': videos, 'lists': lists} | values
    with pytest.raises(UserError, match=message):
      hacs.list_videos(**values)

  fails('There is no folder --annotations', lists=tmp_path / 'away')
  fails(r'at any depth, such as v_a2X2hz1G6i8 or a2X2hz1G6i8 .*/v_other\.mp4')
  other = official.write(tmp_path / 'kinetics', {'train.csv': ''})
  fails(r'has no HACS_clips_v1.1.1.csv.* holds: train\.csv', lists=other)
  path = 'HACS_clips_v1.1.1.csv'
  for row, message in [
    ('Archery,abc,training,1,3,0', "and label '0'; expected are a class"),
    ('Archery,abc,train,1,3,1', "subset 'train' and label"),
    ('Archery,abc,train,1,3,-1', "subset 'train' and label"),
    (',abc,training,1,3,1', "class '', subset"),
    ('Archery,abc,training,3,1,1', "'3' and '1' must be seconds"),
    ('Archery,abc,training,,1,1', 'no start'),
  ]:
    official.write(lists, {path: _HEADER + _ROWS + row + '\n'})
    fails(rf'{path}, line 11: .*{message}')
  official.write(lists, {path: 'label,youtube_id,time_start,time_end,split\n'})
  fails('has no column subset, start, end')
  official.write(lists, {path: f'{_HEADER}Archery,abc,training,1,3,-1\n'})
  fails('lists no positive clip')
  official.write(lists, {'HACS_clips_v1.1.csv': _HEADER + _ROWS})
  fails(r'holds HACS_clips_v1\.1\.1\.csv and HACS_clips_v1\.1\.csv')


def test_the_command(tmp_path):
  lists = official.write(
    tmp_path / 'lists',
    {
      'HACS_clips_v1.1.1.csv': f'{_HEADER}Wave one,abc,training,0.4,1.2,1\n'
      'Wave one,abc,training,2.0,2.4,1\nWave one,abc,validation,90,92,1\n'
      'Wave one,abc,validation,0.0,0.8,1\n'
    },
  )
  path = tmp_path / 'videos/Wave_one/v_abc.mp4'
  path.parent.mkdir(parents=True)
  coded_video.write(path, coded_video.frames(60), 'mpeg4')
  done = official.prepare(
    'hacs',
    videos=tmp_path / 'videos',
    annotations=lists,
    out=tmp_path / 'out',
  )
  assert done.code == 0, done.stderr
  for split, number, frames in [
    ('train', 0, [*range(10, 30)]),
    ('train', 1, [*range(50, 60)]),
    ('val', 0, [*range(20)]),
  ]:
    example = sources.open_source(tmp_path / 'out', split)[number]
    with VideoReader(example.video, example.start, example.end) as video:
      clip = video.read(range(video.num_frames))
      assert coded_video.numbers(clip) == frames
  assert 'Wave one/abc#90-92' in (tmp_path / 'out/manifest.json').read_text()
