"""The command: what it prints, what it writes, and how it ends."""

import csv
import functools
import json
import os

import numpy as np
import pytest

from mtnet_jax.commands import predict as predict_command
from mtnet_jax.commands.predict import TimelineWriter
from mtnet_jax.errors import UserError
from tests import command_line
from tests.data import coded_video
from tests.prediction_runs import BrightnessPredictor, write_run


@pytest.fixture
def videos(blinking_videos, tmp_path):
  """A folder of two good videos and one that is none."""
  folder = tmp_path / 'in [red]'
  folder.mkdir()
  for name in ('bright', 'dark'):
    source = blinking_videos / f'test/{name}/0.mp4'
    (folder / f'{name}.mp4').symlink_to(source)
  (folder / 'broken.mp4').write_text('no video')
  return folder


def _predict(names, capsys, **options):
  """The exit code, and the lines on stdout and stderr."""
  code = predict_command.predict(
    BrightnessPredictor(), [str(name) for name in names], **options
  )
  captured = capsys.readouterr()
  return code, captured.out.splitlines(), captured.err.splitlines()


def test_a_line_of_json_for_each_video(videos, capsys):
  code, lines, told = _predict([videos, 'none*'], capsys, as_json=True)
  assert code == 1
  missing, bright, broken, dark = map(json.loads, lines)
  assert missing == {
    'video': 'none*',
    'error': 'none*: no file matches this pattern.',
  }
  assert broken['video'] == str(videos / 'broken.mp4')
  assert 'cannot be read: Invalid data' in broken['error']
  assert bright['video'] == str(videos / 'bright.mp4')
  assert list(bright['probabilities']) == ['bright', 'dark']
  assert list(dark['probabilities']) == ['dark', 'bright']
  assert sum(dark['probabilities'].values()) == pytest.approx(1)
  assert 'note' not in bright and 'timeline' not in bright
  assert '2 of 4 not judged:' in told


def test_a_table_for_programs(videos, capsys):
  code, lines, told = _predict([videos, 'none*'], capsys, as_csv=True, top=0)
  assert code == 1
  assert lines[0] == (
    'video,class_1,probability_1,class_2,probability_2,'
    'seconds,note,timeline,error'
  )
  missing, bright, broken, dark = csv.DictReader(lines)
  assert missing['video'] == 'none*' and not missing['class_1']
  assert missing['error'] == 'none*: no file matches this pattern.'
  assert broken['video'] == str(videos / 'broken.mp4')
  assert 'cannot be read: Invalid data' in broken['error']
  assert broken['seconds'] == broken['probability_1'] == ''
  for row, first, second in ((bright, *'bd'), (dark, *'db')):
    assert (row['class_1'][0], row['class_2'][0]) == (first, second)
    shares = float(row['probability_1']), float(row['probability_2'])
    assert sum(shares) == pytest.approx(1, abs=2e-6) and shares[0] > 0.5
    assert row['seconds'] == '1.200'  # 12 frames, 10 a second
    assert row['note'] == row['timeline'] == row['error'] == ''
  assert '2 of 4 not judged:' in told


@pytest.mark.parametrize(('top', 'count'), [(1, 1), (2, 2), (9, 2), (0, 2)])
def test_a_table_for_programs_has_as_many_classes(videos, capsys, top, count):
  _, lines, _ = _predict([videos], capsys, as_csv=True, top=top)
  assert lines[0].count('class_') == lines[0].count('probability_') == count
  assert {len(row) for row in csv.reader(lines)} == {5 + 2 * count}


def test_a_table_for_programs_computes_nothing(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  names = ['=1+1.npy', '-x.npy', '@a.npy', '+b.npy', "'c.npy", 'd,"e.npy']
  for name in names:
    np.save(name, np.zeros((30, 32, 32, 3), np.uint8))
  (tmp_path / 'two\nlines.npy').write_text('')
  _, lines, _ = _predict([*names, 'two\nlines.npy'], capsys, as_csv=True)
  *rows, last = list(csv.DictReader(lines))
  found = [row['video'] for row in rows]
  assert found == [*(f"'{name}" for name in names[:5]), names[5]]
  assert last['video'] == 'two\\nlines.npy'  # on one line
  assert len(lines) == 1 + len(names) + 1


def test_seconds_are_by_the_frames_own_clock(tmp_path, capsys):
  # 25 frames a second until 1 s, then one a second, the last at 6 s for 40 ms.
  stamps = [*range(0, 1000, 40), *range(1000, 6000, 1000), 6000]
  images = coded_video.frames(len(stamps), 32, 32)
  video = coded_video.write(tmp_path / 'a.mp4', images, stamps=stamps)
  _, lines, _ = _predict([video], capsys, as_json=True)
  assert json.loads(lines[0])['seconds'] == pytest.approx(6.04, abs=0.001)
  _, lines, _ = _predict([video], capsys, as_csv=True)
  (row,) = csv.DictReader(lines)
  assert float(row['seconds']) == pytest.approx(6.04, abs=0.001)


@pytest.mark.parametrize(
  ('form', 'lines_of'), [('as_json', 3), ('as_csv', 1 + 3)]
)
def test_a_bar_of_progress_leaves_stdout_alone(
  videos, capsys, monkeypatch, form, lines_of
):
  monkeypatch.setenv('FORCE_COLOR', '1')  # as if stderr were a terminal
  _, lines, told = _predict([videos], capsys, **{form: True})
  assert len(lines) == lines_of and '━' not in ''.join(lines)
  assert any('━' in line and '/s' in line for line in told)


@pytest.mark.parametrize(('top', 'count'), [(1, 1), (2, 2), (9, 2), (0, 2)])
def test_so_many_classes(videos, capsys, top, count):
  _, lines, _ = _predict([videos / 'dark.mp4'], capsys, as_json=True, top=top)
  assert len(json.loads(lines[0])['probabilities']) == count


def test_a_table_for_people(videos, capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '200')
  code, lines, told = _predict([videos], capsys, top=1)
  assert code == 1
  table = [line for line in lines if '%' in line]
  assert len(table) == 2
  for line, name in zip(table, ('bright', 'dark'), strict=True):
    assert f'{videos / name}.mp4' in line  # brackets and all
    assert line.split('│')[2].strip() == name
  assert told[-2] == '1 of 3 not judged:'
  assert told[-1].startswith(f'  {videos}/broken.mp4 cannot be read: Invalid')


def test_nothing_wrong_is_code_0_and_nothing_right_code_2(videos, capsys):
  code, _, told = _predict([videos / 'dark.mp4'], capsys)
  assert code == 0 and 'not judged' not in ''.join(told)
  code, lines, told = _predict([videos / 'broken.mp4', 'x.mp4'], capsys)
  assert (code, lines) == (2, []) and '2 of 2 not judged:' in told


def test_names_that_are_no_text(blinking_videos, tmp_path, capsys):
  name = os.fsdecode(bytes(tmp_path) + b'/\xff\x1b[2J.mp4')
  os.symlink(blinking_videos / 'test/dark/0.mp4', name)
  code, lines, _ = _predict([name], capsys, as_json=True)
  assert code == 0 and json.loads(lines[0])['video'] == name
  code, lines, _ = _predict([name], capsys)
  assert code == 0 and '\x1b[2J' not in ''.join(lines)


def test_timelines_have_a_folder_each(videos, tmp_path, capsys):
  np.save(tmp_path / 'dark.npy', np.zeros((30, 32, 32, 3), np.uint8))
  out = tmp_path / 'out'
  _, lines, _ = _predict(
    [videos / 'dark.mp4', tmp_path / 'dark.npy', videos / 'broken.mp4'],
    capsys,
    as_json=True,
    timelines=TimelineWriter(out),
  )
  found = [json.loads(line).get('timeline') for line in lines]
  assert found == [str(out / 'dark'), str(out / 'dark-2'), None]
  assert sorted(p.relative_to(out).as_posix() for p in out.rglob('*.*')) == [
    'dark-2/timeline.csv',
    'dark-2/timeline.png',
    'dark/timeline.csv',
    'dark/timeline.png',
  ]


def test_a_timeline_stays_in_its_folder(tmp_path, capsys):
  names = [tmp_path / name for name in ('...npy', 'a.npy')]
  for name in names:
    np.save(name, np.zeros((30, 32, 32, 3), np.uint8))
  out = tmp_path / 'out'
  (out / 'a/timeline.csv').mkdir(parents=True)
  code, lines, told = _predict(
    names, capsys, as_json=True, timelines=TimelineWriter(out)
  )
  # One that cannot be written does not stop the others.
  first, second = map(json.loads, lines)
  assert code == 1 and '1 of 2 not judged:' in told
  assert first['timeline'] == str(out / 'video')
  assert f'{names[1]}: {out}/a/timeline.csv cannot be wri' in second['error']


@pytest.mark.parametrize('ends', [KeyboardInterrupt, UserError])
def test_what_is_judged_is_told_whatever_ends_it(videos, capsys, ends):
  class Ending(BrightnessPredictor):
    def __call__(self, video):
      if 'dark' in video:
        raise ends
      return super().__call__(video)

  with pytest.raises(ends):
    predict_command.predict(Ending(), [str(videos)])
  captured = capsys.readouterr()
  assert captured.out.count('bright') > 1
  assert '1 of 2 not judged:' in captured.err


def test_a_note_stands_with_the_video(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '200')
  path = tmp_path / 'a.npy'
  np.save(path, np.zeros((2, 32, 32, 3), np.uint8))
  _, lines, _ = _predict([path], capsys)
  assert any('its 2 frames are repeated to 4' in line for line in lines)
  _, lines, _ = _predict([path], capsys, as_json=True)
  assert json.loads(lines[0])['note'].startswith('shorter than a clip')


def test_arguments_that_make_no_sense(tmp_path):
  with pytest.raises(UserError, match='No video is named'):
    predict_command.check_arguments([], None, None, None)
  with pytest.raises(UserError, match='give --timeline=DIR too'):
    predict_command.check_arguments(['x.mp4'], None, None, 1.0)
  for seconds in (-1.0, float('inf')):
    with pytest.raises(UserError, match=r'window \(=.*\) must be a finite num'):
      predict_command.check_arguments(['x.mp4'], 'out', seconds, None)
  predict_command.check_arguments(['x.mp4'], 'out', 2.0, None)
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='cannot be written'):
    TimelineWriter(tmp_path / 'file/out')


run = functools.partial(command_line.run, predict_command.COMMAND)


@pytest.mark.usefixtures('quick_compilation')
def test_the_command(blinking_videos, videos, tmp_path):
  write_run(tmp_path / 'run', blinking_videos)
  done = run(f'--workdir={tmp_path}/run', videos, '--json', '--top=1')
  assert done.code == 1, done.stderr
  lines = [json.loads(line) for line in done.stdout.splitlines()]
  assert [('error' in line) for line in lines] == [False, True, False]
  assert all(len(line.get('probabilities', 'x')) == 1 for line in lines)
  again = run(f'--workdir={tmp_path}/run', videos, '--csv', '--top=1')
  assert again.code == 1, again.stderr
  rows = list(csv.DictReader(again.stdout.splitlines()))
  assert [bool(row['error']) for row in rows] == [False, True, False]
  for line, row in zip(lines, rows, strict=True):
    if 'error' not in line:
      ((name, share),) = line['probabilities'].items()
      assert row['class_1'] == name
      assert float(row['probability_1']) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(
  ('arguments', 'sentence'),
  [
    (['--workdir=none', 'x.mp4'], 'There is no folder none. Give the --workd'),
    (['--workdir=none'], 'No video is named. Give files, folders or patterns'),
    (['x.mp4'], 'workdir'),
    (['--workdir=none', 'x.mp4', '--top=-1'], 'top'),
    (['--workdir=none', 'x.mp4', '--json', '--csv'], 'give one of them'),
    (['--workdir=none', 'x.mp4', '--checkpoint=7'], 'best|last'),
  ],
)
def test_a_mistake_is_one_sentence_and_code_2(arguments, sentence):
  done = run(*arguments)
  assert done.code == 2 and done.stdout == ''
  assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
