"""The runs of the thesis's ablations: Tables 4.1, 5.2, 5.6, 5.7 and 5.8.

  python train.py --config=configs/ablations.py:5.8/avg \
    --config.data.dir=DIR --workdir=runs/5.8/avg

The argument is TABLE/RUN. TABLE alone lists its runs. TABLE/RUN/CONFIG takes
the network and the recipe from another file of this folder: 5.8/avg/quickstart,
5.6/0.5/mtnet_l, 4.1/r3d_mid/srtg:r3d_50. Every key can be set as always.

The thesis trains Table 5.2 on Kinetics-400 (--config.data.frame_stride=5), the
others on HACS. What it has and this folder has not: the rows Multi-Fiber,
Slow-only and SlowFast of Table 5.2, which need networks of other authors. What
it has not: in Table 4.1 the places `top` and `end` of Fig. 4.5, which only
blocks of three convolutions have (depth 50 and more), in Table 5.6 the ratio
0.625 for MTNet-L.
"""

import importlib
import pathlib
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections

_FINETUNE = '/finetune'

# Files of this folder that have nothing of their own to vary.
_NO_RECIPES = {
  '__init__',
  'ablations',
  'base',
  'class_regularization',
  'transfer',
}

# Overrides of `config.model` by the name of the run.
Runs = dict[str, dict[str, Any]]


class Table(NamedTuple):
  """A table of the thesis.

  Attributes:
    varies: what its runs differ in.
    config: the file of this folder that they vary, unless told otherwise.
    runs: a function of the network's name.
  """

  varies: str
  config: str
  runs: Callable[[str], Runs]


def runs(table: str, model: str) -> Runs:
  """Returns the runs of a table: overrides of `config.model` by name.

  Args:
    table: one of `TABLES`.
    model: the network that the runs vary, `'mtnet_m'` or `'r3d_34'` for
      instance; Table 5.2 has its own three.

  Raises:
    ValueError: an unknown table, or a network of another kind than its runs.

  Example:
    runs('5.8', 'mtnet_xs')['avg']  # {'name': 'mtnet_xs', 'pooling': 'avg'}
  """
  return _find(table).runs(model)


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration of a run, locked.

  Args:
    argument: TABLE/RUN or TABLE/RUN/CONFIG, as above.

  Raises:
    ValueError: an unknown table, run or CONFIG; the message lists them.
  """
  table, run, recipe = [*argument.split('/', 2), '', ''][:3]
  row = _find(table)
  recipe = recipe or row.config
  config = load(recipe)
  choices = row.runs(config.model.name)
  if run not in choices:
    start = f'Table {table} has no run {run!r}. It' if run else f'Table {table}'
    raise ValueError(
      f'{start} compares {row.varies}. Give configs/ablations.py:{table}/RUN '
      f'with RUN one of {", ".join(choices)}; {table}/RUN/CONFIG takes another '
      f'network or recipe than {recipe}, CONFIG one of {", ".join(recipes())}.'
    )
  config.model.update(choices[run])
  return config


def _find(table: str) -> Table:
  if table not in TABLES:
    tables = ', '.join(f'{name} ({row.varies})' for name, row in TABLES.items())
    raise ValueError(
      f'There is no table {table!r} here. Give configs/ablations.py:TABLE, '
      f'which lists its runs, with TABLE one of {tables}.'
    )
  return TABLES[table]


def load(recipe: str) -> ml_collections.ConfigDict:
  """Returns a configuration of this folder that others vary, locked.

  Args:
    recipe: FILE or FILE:ARGUMENT, 'mtnet_m' or 'srtg:r3d_50' for instance.

  Raises:
    ValueError: there is no such file; the message lists them.
  """
  name, *argument = recipe.split(':', 1)
  if name not in recipes():
    raise ValueError(
      f'There is no configs/{name}.py to vary. Choose one of '
      f'{", ".join(recipes())}.'
    )
  return importlib.import_module(f'configs.{name}').get_config(*argument)


def load_for(
  file: str, argument: str
) -> tuple[ml_collections.ConfigDict, bool]:
  """Returns a configuration that another file changes, and how it is to.

  Args:
    file: of this folder, without its suffix; for the message.
    argument: CONFIG or CONFIG/finetune, CONFIG as `load` takes it.

  Returns:
    The configuration of CONFIG, and whether `/finetune` stands behind it.

  Raises:
    ValueError: an unknown CONFIG; the message lists them.
  """
  recipe = argument.removesuffix(_FINETUNE)
  if not recipe or '/' in recipe:
    raise ValueError(
      f'There is no recipe to start from in {argument!r}. Give '
      f'configs/{file}.py:CONFIG or configs/{file}.py:CONFIG{_FINETUNE} with '
      f'CONFIG one of {", ".join(recipes())}.'
    )
  return load(recipe), argument != recipe


def recipes() -> list[str]:
  """Returns the files of this folder that `load` takes."""
  names = {path.stem for path in pathlib.Path(__file__).parent.glob('*.py')}
  return sorted(names - _NO_RECIPES)


def _placements(model: str) -> Runs:
  """Both kinds of convolution at the model's depth, SRTG at every place."""
  match = re.fullmatch(r'(?:srtg_)?(wide_r3d|r3d|r2plus1d)_(\d+)', model)
  if not match:
    raise ValueError(
      'Table 4.1 needs a residual backbone, r3d_34 or r2plus1d_50 for '
      f'instance: SRTG has no places in {model!r}.'
    )
  convolution, depth = match.groups()
  wide = convolution == 'wide_r3d'
  places = ('start', 'mid', 'res', 'final')
  if int(depth) >= 50:
    places = ('start', 'top', 'mid', 'end', 'res', 'final')
  choices = {}
  for backbone in ('wide_r3d',) if wide else ('r3d', 'r2plus1d'):
    choices[f'{backbone}_none'] = {'name': f'{backbone}_{depth}'}
    for place in places:
      choices[f'{backbone}_{place}'] = {
        'name': f'srtg_{backbone}_{depth}',
        'placement': place,
        'gate': True,
      }
  return choices


def _convolutions(model: str) -> Runs:
  del model  # The table's backbone is a ResNet-50.
  return {
    name: {'name': name} for name in ('r3d_50', 'r2plus1d_50', 'mt_r3d_50')
  }


def _values(kinds: str, key: str, *values) -> Callable[[str], Runs]:
  """One key of a network at several values, `kinds` having that key."""

  def choices(model):
    if not re.fullmatch(kinds, model):
      raise ValueError(
        f'This table varies `{key}`, which {model!r} has not. Give another '
        'CONFIG, mtnet_m for instance.'
      )
    return {str(value): {'name': model, key: value} for value in values}

  return choices


_MTCONV = r'mtnet_\w+|mt_r3d_50'  # networks of Multi-Temporal convolutions
_RECURRENT = r'mtnet_\w+|srtg_\w+'

TABLES: Mapping[str, Table] = types.MappingProxyType(
  {
    '4.1': Table('places of SRTG', 'srtg:r3d_34', _placements),
    '5.2': Table('the convolutions of a ResNet-50', 'mtnet_m', _convolutions),
    '5.6': Table(
      'shares of local channels in MTConv',
      'mtnet_m',
      _values(
        _MTCONV, 'local_ratio', 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25
      ),
    ),
    '5.7': Table(
      'recurrent cells',
      'mtnet_m',
      _values(_RECURRENT, 'cell', 'rnn', 'lstm', 'peephole_lstm', 'gru'),
    ),
    '5.8': Table(
      'poolings of the prolonged branch',
      'mtnet_m',
      _values(
        _MTCONV,
        'pooling',
        'avg',
        'max',
        'stochastic',
        'softpool',
        'avg+cos',
        'softpool+cos',
      ),
    ),
  }
)
