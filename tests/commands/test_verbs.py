"""`mtnet VERB`: its help, its mistakes, and which command a verb is."""

import importlib
import re
import subprocess
import sys

import pytest

from mtnet_jax import cli
from mtnet_jax.commands import verbs

_DATA_SETS = [
  'folder', 'hacs', 'hmdb51', 'kinetics', 'moments_in_time', 'stick_figures',
  'ucf101', 'ut_interaction',
]  # fmt: skip


def _main(monkeypatch, *words):
  """The exit code, and the command line of the command that was run."""
  ran = []
  monkeypatch.setattr(sys, 'argv', ['/usr/bin/mtnet', *words])
  monkeypatch.setattr(
    cli, 'run', lambda command: ran.append((command, sys.argv))
  )
  try:
    verbs.main()
  except SystemExit as end:
    return end.code or 0, ran
  return 0, ran


def test_help_has_a_line_a_verb(monkeypatch, capsys):
  assert _main(monkeypatch, '--help') == (0, [])
  lines = capsys.readouterr().out.splitlines()
  told = dict(line.split(maxsplit=1) for line in lines if line[:2] == '  ')
  assert list(told) == list(verbs.VERBS)
  assert {
    'demo', 'train', 'eval', 'predict', 'explain', 'export', 'prepare',
    'inspect', 'preview', 'convert', 'cost', 'compare', 'significance',
    'calibration', 'results', 'kept-frames', 'sanity',
  } <= set(told)  # fmt: skip
  for line in (*told.values(), *verbs.data_sets().values()):
    assert re.fullmatch(r'[A-Z][a-z]+s .+\.', line), line
  assert max(map(len, lines)) <= 80


def test_help_of_prepare_names_the_data_sets(monkeypatch, capsys):
  assert _main(monkeypatch, 'prepare', '-h') == (0, [])
  out = capsys.readouterr().out
  assert [line.split()[0] for line in out.splitlines()[2:10]] == _DATA_SETS
  assert '  hmdb51           Makes record files of HMDB-51.\n' in out


@pytest.mark.parametrize(
  ('words', 'sentence'),
  [
    (['trian'], "There is no verb 'trian'. Did you mean 'train'?"),
    (['kept_frames'], "Did you mean 'kept-frames'?"),
    (
      ['--workdir=x'],
      "There is no verb '--workdir=x'. Give mtnet VERB, one of",
    ),
    (['\x1b[1m'], r"There is no verb '\x1b[1m'."),
    ([], 'No verb is named. Give mtnet VERB, one of demo, prepare, inspect,'),
    (['prepare'], 'No data set is named. Give mtnet prepare NAME, one of fold'),
    (['prepare', 'ucf-101'], "no data set 'ucf-101'. Did you mean 'ucf101'?"),
    (['prepare', '--out=x'], "There is no data set '--out=x'."),
  ],
)
def test_a_mistake_is_one_sentence_and_code_2(
  words, sentence, monkeypatch, capsys
):
  assert _main(monkeypatch, *words) == (2, [])
  out, error = capsys.readouterr()
  assert sentence in error and error.count('\n') == 1 and out == ''


def test_the_rest_is_the_commands(monkeypatch):
  from mtnet_jax.analysis import kept_frames
  from mtnet_jax.datasets.ucf101 import prepare

  code, ran = _main(monkeypatch, 'kept-frames', '--out=x', 'y')
  assert code == 0
  assert ran == [(kept_frames.COMMAND, ['mtnet kept-frames', '--out=x', 'y'])]
  _, ran = _main(monkeypatch, 'prepare', 'ucf101', '--help')
  assert ran == [(prepare.COMMAND, ['mtnet prepare ucf101', '--help'])]


def test_each_help_is_a_sentence_and_shows_the_verb():
  modules = {f'mtnet {verb}': of for verb, (of, _) in verbs.VERBS.items()}
  del modules['mtnet prepare']
  modules |= {f'mtnet prepare {n}': f'datasets.{n}.prepare' for n in _DATA_SETS}
  for verb, name in modules.items():
    module = importlib.import_module(f'mtnet_jax.{name}')
    assert isinstance(module.COMMAND, cli.Command)
    first = module.__doc__.splitlines()[0]
    assert re.fullmatch(r'[A-Z][a-z]+s .+\.', first), first
    assert f'{verb} ' in module.__doc__, verb


@pytest.mark.parametrize(
  'words', [('--help',), ('prepare', '--help'), ('trian',), ('train', '--help')]
)
def test_help_loads_no_jax(root, words):
  code = (
    'import atexit, sys; '
    'atexit.register(lambda: print("jax" in sys.modules)); '
    'from mtnet_jax.commands import verbs; verbs.main()'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, *words],
    cwd=root,
    capture_output=True,
    text=True,
  )
  assert done.stdout.endswith('False\n'), done.stderr
  assert done.returncode == 2 * (words == ('trian',))
