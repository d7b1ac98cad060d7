"""Runs the command of a verb: mtnet VERB.

Only the command that is asked for is imported: `mtnet --help` answers at once.
"""

import ast
import difflib
import importlib
import pathlib
import sys
import types
from collections.abc import Mapping, Sequence

from mtnet_jax import cli, datasets
from mtnet_jax.errors import USER_ERROR, printable

# By verb: the module of `mtnet_jax` that holds its COMMAND, and what it does.
VERBS: Mapping[str, tuple[str, str]] = types.MappingProxyType(
  {
    'demo': ('commands.demo', 'Shows the library on drawn videos.'),
    'prepare': ('datasets', 'Makes record files of a data set.'),
    'inspect': ('data.report', 'Looks at a data set and its loading.'),
    'preview': ('data.preview', 'Draws a batch as the network sees it.'),
    'train': ('commands.train', 'Trains a video classifier.'),
    'finetune': ('commands.finetune', 'Trains a classifier of your videos.'),
    'eval': ('commands.eval', 'Scores a run on its test videos.'),
    'predict': ('commands.predict', 'Classifies videos.'),
    'features': ('commands.features', "Writes videos' features to a file."),
    'explain': ('commands.explain', 'Shows why a video got its class.'),
    'export': ('commands.export', 'Exports a model for other programs.'),
    'convert': ('convert.torch_weights', 'Makes a run from PyTorch weights.'),
    'cost': ('commands.cost', 'Counts what networks cost; times them.'),
    'compare': ('experiments.__main__', 'Trains a table of the thesis.'),
    'significance': ('analysis.significance', 'Tests which run is better.'),
    'calibration': (
      'analysis.calibration',
      'Measures whether probabilities hold.',
    ),
    'kept-frames': ('analysis.kept_frames', 'Draws the frames an MTNet keeps.'),
    'sanity': ('explain.sanity', 'Tests whether saliency lies on actors.'),
    'results': ('thesis.results', 'Writes published results beside ours.'),
  }
)
_HELP = ('--help', '-help', '-h', 'help')


@cli.reader_may_leave()
def main() -> None:
  """Runs the command of the process's command line, and ends the process."""
  words = sys.argv[1:]
  lines = {verb: does for verb, (_, does) in VERBS.items()}
  verb = _choose(lines, words, 'verb', 'mtnet VERB')
  name, arguments = f'mtnet {verb}', words[1:]
  module = f'mtnet_jax.{VERBS[verb][0]}'
  if verb == 'prepare':
    data_set = _choose(data_sets(), arguments, 'data set', f'{name} NAME')
    name, module = f'{name} {data_set}', f'{module}.{data_set}.prepare'
    arguments = arguments[1:]
  sys.argv = [name, *arguments]
  cli.run(importlib.import_module(module).COMMAND)


def data_sets() -> dict[str, str]:
  """Returns what `mtnet prepare` takes: the data sets, and a line on each."""
  paths = pathlib.Path(datasets.__path__[0]).glob('*/prepare.py')
  docs = {
    path.parent.name: ast.get_docstring(ast.parse(path.read_text('utf-8')))
    for path in sorted(paths)
  }
  return {name: doc.splitlines()[0] for name, doc in docs.items()}


def _choose(
  choices: Mapping[str, str], words: Sequence[str], kind: str, usage: str
) -> str:
  """Returns the first word, one of `choices`, or ends the process.

  Args:
    choices: the choices, with a line on each.
    words: the words that the user typed in the place of the last word of
      `usage`.
    kind: the kind of choice, such as 'verb'.
    usage: the words to type; the last one stands for the choice.
  """
  word = words[0] if words else ''
  if word in choices:
    return word
  if word in _HELP:
    print(_describe(choices, usage))
    sys.exit()
  what = f'There is no {kind} {word!r}.' if words else f'No {kind} is named.'
  near = difflib.get_close_matches(word, choices, n=1)
  hint = f' Did you mean {near[0]!r}?' if near else ''
  print(
    f'error: {printable(what)}{hint} Give {usage}, one of '
    f'{", ".join(choices)}.',
    file=sys.stderr,
  )
  sys.exit(USER_ERROR)


def _describe(choices: Mapping[str, str], usage: str) -> str:
  width = max(map(len, choices))
  lines = [f'  {name:{width}}  {does}' for name, does in choices.items()]
  return '\n'.join(
    [
      f'Usage: {usage} [FLAGS], {usage.split()[-1]} one of these:',
      '',
      *lines,
      '',
      f'{usage} --help tells more of each.',
    ]
  )
