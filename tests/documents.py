"""The pages of the documentation, and what they quote."""

import pathlib
import re
import shlex
from collections.abc import Iterator

_FENCE = re.compile(r'^( *)```(\w*)\n(.*?)^ *```$', re.MULTILINE | re.DOTALL)
_CODE = re.compile(r'`([^`]+)`')
# A command ends where the shell has another word for it.
_ENDS = re.compile(r'\s#\s.*|[;|&<>].*|\s(?:\.\.\.|…).*')
_PROGRAM = re.compile(r'(?:^|[\s"/])(mtnet|python|make) +(.*)')
_VARIABLE = re.compile(r'^([A-Z]+)="([^"]*)"$', re.MULTILINE)


def pages(root: pathlib.Path) -> list[pathlib.Path]:
  """Every page that a reader of the documentation may open."""
  top = [root / name for name in ('README.md', 'CONTRIBUTING.md')]
  return [*top, *sorted((root / 'docs').glob('*.md')), *data_pages(root)]


def data_pages(root: pathlib.Path) -> list[pathlib.Path]:
  """The pages of the data sets."""
  return sorted((root / 'data').glob('*/README.md'))


def prose(text: str) -> str:
  """A page without its blocks of code."""
  return _FENCE.sub('', text)


def anchors(text: str) -> set[str]:
  """The names by which GitHub links a page's headings."""
  found: set[str] = set()
  for heading in re.findall(r'^#+ +(.+)$', prose(text), re.MULTILINE):
    heading = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).lower()
    name = re.sub(r'[^\w\- ]', '', heading).strip().replace(' ', '-')
    again = sum(bool(re.fullmatch(f'{name}(-\\d+)?', a)) for a in found)
    found.add(f'{name}-{again}' if again else name)
  return found


def links(text: str) -> list[str]:
  """What a page links to and shows."""
  return re.findall(r'\]\(([^)\s]+)\)', _CODE.sub('', prose(text)))


def codes(text: str) -> list[str]:
  """What sentences of a page have in backticks."""
  return [' '.join(code.split()) for code in _CODE.findall(prose(text))]


def commands(text: str) -> Iterator[tuple[str, list[str], bool]]:
  """The commands of a page: program, words, and whether they are complete.

  Those of a block of code are complete; those within a sentence may leave out
  what they are not about.
  """
  variables = dict(_VARIABLE.findall(text.replace('\\\n', ' ')))
  for _, language, block in _FENCE.findall(text):
    if language in ('python', 'yaml', 'mermaid'):
      continue
    for name, value in variables.items():
      block = block.replace(f'${name}', value)
    lines = re.sub(r'\\\n', ' ', block).splitlines()
    yield from ((*found, True) for line in lines for found in _split(line))
  for line in codes(text):
    yield from ((*found, False) for found in _split(line))


def _split(line: str) -> Iterator[tuple[str, list[str]]]:
  for piece in re.split(r'[;|&]', re.sub(r'\s#\s.*', '', line)):
    found = _PROGRAM.search(_ENDS.sub('', piece))
    if found:
      program, words = found.groups()
      try:
        yield program, shlex.split(words)
      except ValueError:  # the end of a quoted command
        yield program, words.replace('"', '').split()
