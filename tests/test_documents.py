"""README and docs: links lead somewhere, and commands are those there are."""

import dataclasses
import functools
import importlib
import importlib.util
import re

import pytest
from absl import flags

from mtnet_jax import cli
from mtnet_jax.commands import verbs
from mtnet_jax.configs import base
from tests import command_line, documents

_PICTURES = {'.png', '.jpg', '.gif', '.svg'}
# Modules that are not ours.
_OTHERS = {'pytest', 'pip', 'venv'}
# What readers put something in the place of.
_OPEN = re.compile(r'[A-Z_]+|\[.*|.*\]')
# A number for what a page leaves open.
_NUMBER = re.compile(r'(--[\w.]+=)(?:[A-Z]|\$[A-Z_]+)$')

# A key of a configuration, and not a file such as `model.json`.
_KEY = re.compile(
  r'((?:data|model|optim|train|eval|mesh)\.'
  r'(?!py|json|csv|onnx|stablehlo|safetensors)\w+)(?:=.*)?'
)
# A file of ours: those of NCCL and of XLA are not here.
_FILE = re.compile(r'(?!src/|xla/)[\w.-]+(?:/[\w.-]+)+\.(?:py|cc)')


@pytest.fixture(scope='module')
def texts(root):
  return {
    path: path.read_text('utf-8')
    for path in [*documents.pages(root), root / 'CHANGELOG.md']
  }


def test_anchors_and_links_of_a_page_by_hand():
  text = (
    '# One: `a.b`, (c)\n[x](#two) ![y](z.png)\n'
    '```\n# no heading\n[no](link)\n```\n'
    '## Two\n## Two\n`[no](link)` [w](u.md#v)\n'
  )
  assert documents.anchors(text) == {'one-ab-c', 'two', 'two-1'}
  assert documents.links(text) == ['#two', 'z.png', 'u.md#v']


def test_links_lead_somewhere(texts):
  dead = []
  for path, text in texts.items():
    for link in documents.links(text):
      if re.match(r'https?://', link):
        continue
      file, _, anchor = link.partition('#')
      target = (path.parent / file).resolve() if file else path
      there = target.exists()
      if there and anchor:
        there = anchor in documents.anchors(target.read_text('utf-8'))
      dead += [] if there else [f'{path}: {link}']
  assert not dead


def test_each_picture_is_shown_and_each_page_is_in_the_index(root, texts):
  shown = {
    (path.parent / link.partition('#')[0]).resolve()
    for path, text in texts.items()
    for link in documents.links(text)
  }
  pictures = {p for p in (root / 'docs').rglob('*') if p.suffix in _PICTURES}
  assert len(pictures) > 10 and not pictures - shown
  index = root / 'docs/README.md'
  listed = {index.parent / link for link in documents.links(texts[index])}
  pages = set((root / 'docs').glob('*.md')) - {index}
  assert not pages - listed


def test_the_readme_is_short_and_has_every_verb(texts, root):
  text = texts[root / 'README.md']
  assert text.count('\n') <= 250
  rows = re.findall(r'^\| `([\w-]+)[` ]', text, re.MULTILINE)
  assert sorted(set(rows) & set(verbs.VERBS)) == sorted(verbs.VERBS)


def test_commands_of_a_page_by_hand():
  text = (
    'Say `mtnet eval\n--controls`, or `make demo`.\n'
    '```\nFLAGS="--a=1 \\\n  --b"\nX=1 .venv/bin/mtnet train $FLAGS  # c d\n'
    'while :; do python -m a.b "c d" > e; [ $? -eq 1 ] || break; done\n```\n'
  )
  assert list(documents.commands(text)) == [
    ('mtnet', ['train', '--a=1', '--b'], True),
    ('python', ['-m', 'a.b', 'c d'], True),
    ('mtnet', ['eval', '--controls'], False),
    ('make', ['demo'], False),
  ]


def test_commands_that_are_not_there_are_found(root):
  for program, words in (
    ('mtnet', ['trian']),
    ('mtnet', ['eval', '--workdir=x', '--control']),
    ('mtnet', ['eval', '--controls']),
    ('mtnet', ['eval', '--workdir=x', 'video.mp4']),
    ('mtnet', ['train', '--config=quickstart', '--config.data.dri=x']),
    ('mtnet', ['train', '--config=quickstrat', '--workdir=x']),
    ('mtnet', ['prepare', 'ucf-101', '--out=x']),
    ('python', ['-m', 'benchmarks.nothing']),
    ('python', ['-m', 'benchmarks.layers', '--nothing=1']),
    ('python', ['nothing.py']),
    ('make', ['nothing']),
  ):
    assert _mistake(root, program, words, complete=True), words
  for words in (
    ['eval', '--control'], ['eval', '--config.eval.num_clip=1'], ['trian'],
  ):  # fmt: skip
    assert _mistake(root, 'mtnet', words, complete=False), words


def test_commands_are_those_there_are(root, texts):
  mistakes, count = [], 0
  for path, text in texts.items():
    if path.name == 'CHANGELOG.md':  # it tells of what there was, too
      continue
    for program, words, complete in documents.commands(text):
      mistake = _mistake(root, program, words, complete)
      mistakes += [f'{path}: {program} {words}: {mistake}'] if mistake else []
      count += 1
  assert count > 200 and not mistakes, '\n'.join(mistakes)


def test_keys_and_files_within_sentences_are_there(root, texts):
  folders = root, root / 'mtnet_jax', root / 'data'
  told = {
    (path, code)
    for path, text in texts.items()
    if path.name != 'CHANGELOG.md'
    for code in documents.codes(text)
  }
  keys = {(path, m[1]) for path, code in told if (m := _KEY.fullmatch(code))}
  assert len(keys) > 100
  assert not [(path, key) for path, key in keys if key not in _keys()]
  files = {(path, code) for path, code in told if _FILE.fullmatch(code)}
  assert len(files) > 50
  assert not [
    (path, file)
    for path, file in files
    if not any((folder / file).exists() for folder in folders)
  ]


def _mistake(root, program, words, complete) -> str:
  """What is wrong with a command, or ''."""
  if not words or _OPEN.fullmatch(words[0]):
    return ''
  if program == 'make':
    targets = re.findall(r'^([\w./-]+):', (root / 'Makefile').read_text(), re.M)
    return '' if words[0] in targets else 'no target'
  if program == 'mtnet':
    return _mistake_of_verb(words, complete)
  if words[0] != '-m':
    path = root / words[0]
    if not path.exists():
      return 'no file'
    name = f'mtnet_jax.commands.{path.stem}'
    if path.parent == root:
      return _mistake_of(importlib.import_module(name).COMMAND, words[1:], 0)
    return ''
  name, *rest = words[1:]
  if name in _OTHERS or 'NAME' in name:
    return ''
  try:
    found = importlib.util.find_spec(name)
  except ModuleNotFoundError:
    found = None
  if found is None:
    return 'no module'
  if found.submodule_search_locations:
    found = importlib.util.find_spec(f'{name}.__main__')
  command = getattr(importlib.import_module(found.name), 'COMMAND', None)
  if command:
    return _mistake_of(command, rest, complete)
  with open(found.origin, encoding='utf-8') as file:
    source = file.read()
  named = [word[2:].split('=')[0] for word in rest if word[:2] == '--']
  missing = [n for n in named if not re.search(f"'(--)?{n}'", source)]
  return f'no flags {missing}' if missing else ''


def _mistake_of_verb(words, complete) -> str:
  verb, *rest = words
  if verb.startswith('--'):
    return '' if verb == '--help' else 'no verb'
  if verb not in verbs.VERBS:
    return 'no verb'
  module = verbs.VERBS[verb][0]
  if verb == 'prepare':
    if not rest or rest[0] in ('NAME', '--help'):
      return 'no data set' if complete else ''
    name, *rest = rest
    if name not in verbs.data_sets():
      return 'no data set'
    module = f'datasets.{name}.prepare'
  command = importlib.import_module(f'mtnet_jax.{module}').COMMAND
  return _mistake_of(command, rest, complete)


def _mistake_of(command: cli.Command, words, complete) -> str:
  words = [_NUMBER.sub(r'\g<1>1', word) for word in words if word != '--help']
  if not complete:
    return _unknown_flags(command, words)
  # What is said to be a file of the reader's is any configuration.
  words = [re.sub(r'^--config=.*\.py$', '--config=base', w) for w in words]
  only_parsed = dataclasses.replace(command, main=lambda values, words: 0)
  done = command_line.run(only_parsed, *words)
  return done.stderr if done.code else ''


def _unknown_flags(command: cli.Command, words) -> str:
  known = _flags(command)
  for word in words:
    name, _, _ = word.removeprefix('--').partition('=')
    if not word.startswith('--') or name in known:
      continue
    if name.startswith('config.') and 'config' in known:
      if name.removeprefix('config.') in _keys():
        continue
    return f'no flag --{name}'
  return ''


@functools.cache
def _flags(command: cli.Command) -> set[str]:
  values = flags.FlagValues()
  command.define_flags(values)
  booleans = {f'no{name}' for name in values if values[name].boolean}
  return {*values, *booleans}


@functools.cache
def _keys() -> set[str]:
  config = base.get_config()
  sections = {k: v for k, v in config.items() if hasattr(v, 'keys')}
  return {f'{s}.{k}' for s, v in sections.items() for k in v} | {'seed', 'KEY'}
