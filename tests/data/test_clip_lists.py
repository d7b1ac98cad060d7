"""Columns of CSV files: which are times, which are refused, which are told."""

import pytest

from mtnet_jax.data import sources
from mtnet_jax.errors import UserError


def _list(root, columns, *rows):
  header = f'path,label,split,{columns}\n'
  text = ''.join(f'{i}.mp4,up,train,{row}\n' for i, row in enumerate(rows))
  (root / 'clips.csv').write_text(header + text)
  examples = sources.list_videos(root).splits['train']
  return [(example.start, example.end) for example in examples]


@pytest.mark.parametrize(
  'columns',
  [
    'start,end', 'Start,End', 'time_start,time_end', 'start_time,end_time',
    'startTime,endTime', 'StartTime,EndTime', 'starttime,endtime',
    'start_sec,end_sec', 'start seconds,end seconds', 't_start,t_end',
    'tstart,tend', 'begin,end', 'clip_start,clip_end', 'segment-start,stop',
    'start_s,end_s', 'from,to', 'start (s),end (s)',
  ],
)  # fmt: skip
def test_usual_names_of_seconds(tmp_path, columns, caplog):
  times = _list(tmp_path, columns, '0.2,0.6', ',1', '2,')
  assert times == [(0.2, 0.6), (None, 1.0), (2.0, None)]
  assert 'not used' not in caplog.text


def test_one_end_alone(tmp_path):
  assert _list(tmp_path, 'note,time_end', 'x,1.5') == [(None, 1.5)]


@pytest.mark.parametrize(
  ('columns', 'named', 'why'),
  [
    ('start_frame,end_frame', 'start_frame', 'numbers of frames'),
    ('frame_start,frame_end', 'frame_start', 'numbers of frames'),
    ('startFrame,endFrame', 'startFrame', 'numbers of frames'),
    ('startframe,endframe', 'startframe', 'numbers of frames'),
    ('first_frame,last_frame', 'first_frame', 'numbers of frames'),
    ('fps,begin_frames', 'begin_frames', 'numbers of frames'),
    ('start_ms,end_ms', 'start_ms', 'another form than seconds'),
    ('start_idx,end_idx', 'start_idx', 'another form than seconds'),
    ('start_xyz,end_xyz', 'end_xyz', 'another form than seconds'),
    ('start,duration', 'duration', 'another form than seconds'),
  ],
)
def test_times_in_another_form_are_refused(tmp_path, columns, named, why):
  with pytest.raises(UserError, match=why) as caught:
    _list(tmp_path, columns, '1,2')
  assert repr(named) in str(caught.value)
  assert 'columns start and end' in str(caught.value)


@pytest.mark.parametrize(
  'column',
  [
    'note', 'gender', 'weekend', 'duration', 'num_frames', 'back_end',
    'start_date', 'from_dataset', 'a\x1bb',
  ],
)  # fmt: skip
def test_other_columns_are_named(tmp_path, column, caplog):
  assert _list(tmp_path, column, '7') == [(None, None)]
  shown = column.replace('\x1b', '\\x1b')
  assert f'columns that are not used are {shown}' in caplog.text
  assert '\x1b' not in caplog.text


def test_a_time_in_two_columns(tmp_path):
  with pytest.raises(UserError, match='several columns, start and time_start'):
    _list(tmp_path, 'start,time_start', '1,2')
  with pytest.raises(UserError, match="several columns 'start'"):
    _list(tmp_path, 'start,start', '1,2')
