"""Names of files and classes that would steer a terminal, or hide in it."""

import importlib.util
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from absl import logging as absl_logging

from mtnet_jax import cli
from mtnet_jax.commands import predict
from mtnet_jax.data import class_names, sources
from mtnet_jax.data import report as data_report
from mtnet_jax.data.probing import Probe
from mtnet_jax.errors import UserError, first_causes
from mtnet_jax.evaluation import report
from mtnet_jax.evaluation.predictions import Predictions
from mtnet_jax.prediction.user_videos import InputError
from tests import command_line

# Clears the screen, sets the title, rings, goes back, is not UTF-8, deletes.
_EVIL = 'a\x1b[2J\x1b]0;x\x07\r\x9b1m\x7fb'
_SHOWN = 'a\\x1b[2J\\x1b]0;x\\x07\\r\\x9b1m\\x7fb'


def _is_clean(text):
  return all(c.isprintable() or c == '\n' for c in text)


def test_a_real_command(tmp_path):
  evil = _EVIL.replace('\r', '')  # of no class: it would be two lines
  for split in ('train', 'test'):
    for label in (evil.replace('\x9b', ''), 'up'):
      folder = tmp_path / 'videos' / split / label
      folder.mkdir(parents=True)
      (folder / f'{_EVIL}\n{split}.mp4').write_text('no video')
      (folder / f'{_EVIL}.txt').touch()
      (folder / os.fsdecode(b'\xff.mp4')).write_text('no video')
  command = [sys.executable, '-m', 'data.folder.prepare']
  done = subprocess.run(
    [*command, f'--videos={tmp_path}/videos', f'--out={tmp_path}/out'],
    capture_output=True,
    text=True,
    check=False,
    errors='surrogateescape',
  )
  assert done.returncode == 2
  assert _is_clean(done.stdout) and _is_clean(done.stderr)
  assert '.txt: ' not in done.stderr
  assert f'up/{_SHOWN}.txt' in done.stderr
  assert 'None of the videos can be read: ' in done.stderr
  assert done.stderr.count('Invalid data') == 3


def test_a_mistake_is_one_clean_line():
  def fail(values, names):
    raise UserError(f'{_EVIL} and two\nlines.')

  done = command_line.run(cli.Command(fail, lambda values: None))
  assert done.code == 2
  assert done.stderr == f'error: {_SHOWN} and two\\nlines.\n'


def _format(message, *args, error=None):
  info = (type(error), error, None) if error else None
  record = logging.LogRecord('absl', 20, 'x.py', 1, message, args, info)
  return cli._Formatter().format(record)


def test_log_lines_are_clean():
  assert _format('%s: %d', f'{_EVIL}\nE1231 fake', 3).endswith(
    f'] {_SHOWN}\\nE1231 fake: 3'
  )
  # Lines of our own stay lines.
  assert _format(f'one\ntwo {_EVIL}').endswith(f'one\ntwo {_SHOWN}')
  assert _is_clean(_format('why: %s', ValueError(_EVIL)))
  assert _is_clean(_format('why', error=ValueError(_EVIL)))


def test_other_handlers_get_nothing_that_libraries_say_of_themselves(caplog):
  def tell(values, names):
    absl_logging.info('ours')
    path = '/x/site-packages/orbax/checkpoint.py'
    record = logging.LogRecord('absl', 20, path, 1, 'theirs', (), None)
    absl_logging.get_absl_logger().handle(record)

  command_line.run(cli.Command(tell, lambda values: None))
  assert caplog.messages == ['ours']


def test_what_is_told_once_is_told_once_a_command(capsys):
  def tell(values, names):
    for _ in range(3):
      absl_logging.warning('known', extra={'once': True})
      absl_logging.warning('again')

  command = cli.Command(tell, lambda values: None)
  handler = absl_logging.get_absl_handler()
  for _ in range(2):
    command_line.run(command)
    record = logging.LogRecord('absl', 30, 'x.py', 1, 'known', (), None)
    record.once = True
    assert [bool(handler.filter(record)) for _ in range(2)] == [True, False]
    del record.once
    assert all(handler.filter(record) for _ in range(2))


def test_tables_are_clean(tmp_path, capsys):
  predictions = Predictions(
    ids=np.array(['a']),
    labels=np.array([0]),
    probabilities=np.array([[1.0]]),
    broken={f'{_EVIL}.mp4': _EVIL},
  )
  report.show(predictions, (_EVIL,), tmp_path / _EVIL)
  data_report.show([], [Probe(0, _EVIL, 0, cause=_EVIL)])
  verdicts = [predict.Verdict(_EVIL, InputError(f'{_EVIL}: no video.'))]
  predict._tell_failures(verdicts)
  predict._print_json(verdicts[0], 1, sys.stdout)
  done = capsys.readouterr()
  assert _is_clean(done.out) and _is_clean(done.err)
  # A newline of rich's own may break a name, but nothing of it is lost.
  assert done.out.replace('\n', '').count('\\x1b[2J') >= 4
  line = json.loads(done.out.splitlines()[-1])
  assert line['video'] == _EVIL


def test_the_example_of_serving_is_clean(root):
  spec = importlib.util.spec_from_file_location(
    'serve', root / 'examples/serve_exported.py'
  )
  serve = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(serve)
  assert serve.plain(f'é {_EVIL}') == f'é {_SHOWN}'
  with pytest.raises(SystemExit, match=r'a\\x1b\[2J'):
    serve.stop(_EVIL)


@pytest.mark.parametrize(
  ('argv', 'file'),
  [
    (['-3B32.mp4'], '-3B32.mp4'),
    (['--top=3', '-x.mkv', '--json'], '-x.mkv'),
    (['-3B*.mp4'], '-3B*.mp4'),
    (['-folder'], '-folder'),
    (['--folder'], '--folder'),
  ],
)
def test_names_with_a_dash(tmp_path, monkeypatch, argv, file):
  monkeypatch.chdir(tmp_path)
  for name in ('-folder', '--folder'):
    (tmp_path / name).mkdir()
  done = command_line.run(predict.COMMAND, '--workdir=/nowhere', *argv)
  assert done.code == 2
  assert f'{file} begins with a dash' in done.stderr
  assert f'write ./{file}, or put -- before it' in done.stderr
  for right in (f'./{file}', '--'):
    again = [right, file] if right == '--' else [right]
    done = command_line.run(predict.COMMAND, '--workdir=/nowhere', *again)
    assert 'There is no folder /nowhere' in done.stderr


def test_a_flag_that_is_none_is_no_file():
  for argument in ('--nosuch', '--nosuch.key', '--nosuch=a.mp4', '-x=a.mp4'):
    done = command_line.run(predict.COMMAND, '--workdir=/nowhere', argument)
    assert 'Unknown command line flag' in done.stderr


@pytest.mark.parametrize(
  ('one', 'other', 'shown'),
  [
    ('cafe\u0301', 'caf\u00e9', "'cafe\\u0301' and 'caf\\xe9'"),
    ('wave', 'wa\u200bve', "'wave' and 'wa\\u200bve'"),
    ('wave', '\ufeffwave', "'wave' and '\\ufeffwave'"),
    ('Wave', 'wave', "'Wave' and 'wave'"),
    ('hand stand', 'handstand', "'hand stand' and 'handstand'"),
    ('hand_stand', 'Hand  Stand', "'Hand  Stand' and 'hand_stand'"),
    ('STRASSE', 'straße', "'STRASSE' and 'stra\\xdfe'"),
  ],
)
def test_classes_that_look_alike(tmp_path, caplog, one, other, shown):
  for name in (one, other, 'jump'):
    (tmp_path / name).mkdir()
    (tmp_path / name / '1.mp4').touch()
  source = sources.open_source(tmp_path, 'train')
  assert set(source.labels) == {one, other, 'jump'}
  assert '2 names of classes look alike' in caplog.text
  assert shown in caplog.text


def test_classes_that_differ(caplog):
  names = ['wave', 'waves', 'wave-2', 'wave-3', 'été', 'ete', 'a', 'b']
  class_names.warn_of_look_alikes(names, 'here')
  assert not caplog.text


def test_first_causes_by_hand():
  causes = [('a', 'x'), ('b', 'y'), ('c', 'z'), ('d', 'w')]
  assert first_causes([]) == ''
  assert first_causes(causes[:2]) == 'a: x; b: y'
  assert first_causes(causes) == 'a: x; b: y; c: z'
