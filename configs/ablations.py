"""The runs of the thesis's Tables 4.1, 4.5, 5.2, 5.6, 5.7, 5.8 and 6.4.

There are also runs that test its claims one by one: `selection`, `gates`,
`recurrence`, `shares` and `maps`, see docs/claims.md.

  mtnet train --config=ablations:5.8/avg \
    --config.data.dir=DIR --workdir=runs/5.8/avg

The argument is TABLE/RUN. TABLE alone lists its runs. TABLE/RUN/CONFIG takes
the network and the recipe from another file of this folder: 5.8/avg/quickstart,
5.6/0.5/mtnet_l, 4.1/r3d_mid/srtg:r3d_50. Every key can be set as always.
Tables 4.1, 4.5, 5.2 and 6.4 take bottleneck ResNets of other authors too:
4.1/mid/slow:r50_8x8, 5.2/mtconv/hara:r3d_50.
`mtnet compare --table=5.8` trains and compares a whole table.

The thesis trains Tables 5.2 and 6.4 on Kinetics-400
(--config.data.frame_stride=5), the others on HACS, 4.5 on Kinetics-700 and
Moments in Time too. The rows Multi-Fiber, Slow-only and SlowFast of Table 5.2
are missing here, since they need networks of other authors. Not in the thesis
are: in Table 4.1 the places `top` and `end` of Fig. 4.5, which only blocks of
three convolutions have (depth 50 and more), in Table 5.6 the ratio 0.625 for
MTNet-L, in Table 6.4 Class Regularisation from the start (`whole`). Its run
`maps` starts from `without`: name that with --config.train.init_from.
"""

import re
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections

from mtnet_jax.configs import _recipes, class_regularization


class Run(NamedTuple):
  """A row of a table.

  Attributes:
    model: overrides of `config.model`.
    against: the run that it is to be compared with; itself, where others are
      compared with it.
    recipe: overrides of other sections, `'train.batch_size'` for instance.
    after: the run of the same seed that it goes on from, '' for none.
  """

  model: Mapping[str, Any]
  against: str
  recipe: Mapping[str, Any] = types.MappingProxyType({})
  after: str = ''


Runs = dict[str, Run]  # by name, in the order of the thesis


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
  """Returns the runs of a table by name, in the order of the thesis.

  Args:
    table: one of `TABLES`.
    model: the network that the runs vary, `'mtnet_m'` or `'r3d_34'` for
      instance; Table 5.2 has its own three, unless the model is a bottleneck
      ResNet of other authors, such as `'slow_r50'`.

  Raises:
    ValueError: an unknown table, or a network of another kind than its runs.

  Example:
    runs('5.8', 'mtnet_xs')['avg'].model
    # {'name': 'mtnet_xs', 'pooling': 'avg'}
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
  config = _recipes.load(recipe)
  choices = row.runs(config.model.name)
  if run not in choices:
    start = f'Table {table} has no run {run!r}. It' if run else f'Table {table}'
    raise ValueError(
      f'{start} compares {row.varies}. Give --config=ablations:{table}/RUN '
      f'with RUN one of {", ".join(choices)}; {table}/RUN/CONFIG takes another '
      f'network or recipe than {recipe}, CONFIG one of '
      f'{", ".join(_recipes.recipes())}.'
    )
  config.model.update(choices[run].model)
  config.update_from_flattened_dict(choices[run].recipe)
  return config


def _find(table: str) -> Table:
  if table not in TABLES:
    tables = ', '.join(f'{name} ({row.varies})' for name, row in TABLES.items())
    raise ValueError(
      f'There is no table {table!r} here. Give --config=ablations:TABLE, '
      f'which lists its runs, with TABLE one of {tables}.'
    )
  return TABLES[table]


# Bottleneck ResNets of other authors with one pathway, which have SRTG and
# MTConv as options.
_TAKE_PARTS = re.compile(
  'c2d_|slow_|i3d_r50|tsm_|tanet_|i[rp]_csn_|resnext3d_|ptv_r2plus1d_'
  '|hara_r3d_(50|101|152)$'
)


def _takes_parts(model: str) -> bool:
  return bool(_TAKE_PARTS.match(model))


def _backbones(table: str, model: str) -> tuple[dict[str, str], int]:
  """Returns the plain networks of the model's depth by backbone, and the depth.

  They have both kinds of convolution; wide networks have only one.
  """
  match = re.fullmatch(r'(?:srtg_)?(wide_r3d|r3d|r2plus1d)_(\d+)', model)
  if not match:
    raise ValueError(
      f'Table {table} needs a residual backbone, r3d_34, r2plus1d_50 or '
      f'slow_r50 for instance: SRTG has no places in {model!r}.'
    )
  kind, depth = match.groups()
  kinds = ('wide_r3d',) if kind == 'wide_r3d' else ('r3d', 'r2plus1d')
  return {kind: f'{kind}_{depth}' for kind in kinds}, int(depth)


def _placements(model: str) -> Runs:
  """Returns both kinds of convolution at the model's depth, SRTG everywhere.

  Networks of other authors have only their own convolution.
  """
  if _takes_parts(model):
    places = ('start', 'top', 'mid', 'end', 'res', 'final')
    runs = {place: {'placement': place, 'gate': True} for place in places}
    return _of_one('none', {'none': {}, **runs}, model)
  backbones, depth = _backbones('4.1', model)
  places = ('start', 'mid', 'res', 'final')
  if depth >= 50:
    places = ('start', 'top', 'mid', 'end', 'res', 'final')
  choices = {}
  for backbone, name in backbones.items():
    none = f'{backbone}_none'
    choices[none] = Run({'name': name}, none)
    for place in places:
      overrides = {'name': f'srtg_{name}', 'placement': place, 'gate': True}
      choices[f'{backbone}_{place}'] = Run(overrides, none)
  return choices


def _pairs(model: str) -> Runs:
  """Returns both kinds of convolution at the model's depth, and with SRTG."""
  if _takes_parts(model):
    rows = {'without': {}, 'srtg': {'placement': 'final', 'gate': True}}
    return _of_one('without', rows, model)
  choices = {}
  for backbone, name in _backbones('4.5', model)[0].items():
    without = f'{backbone}_without'
    choices[without] = Run({'name': name}, without)
    choices[f'{backbone}_srtg'] = Run({'name': f'srtg_{name}'}, without)
  return choices


def _of_one(against: str, rows: Mapping[str, Any], model: str) -> Runs:
  """Returns runs that vary options of one network."""
  return {
    name: Run({'name': model, **row}, against) for name, row in rows.items()
  }


def _convolutions(model: str) -> Runs:
  """Returns the thesis's ResNet-50s, or the model with other kernels."""
  if _takes_parts(model):
    kinds = ('cubic', 'spatial', 'factorized', 'mtconv')
    rows = {kind: {'middle': kind} for kind in kinds}
    return _of_one('cubic', rows, model)
  names = ('r3d_50', 'r2plus1d_50', 'mt_r3d_50')
  return {name: Run({'name': name}, 'r3d_50') for name in names}


def _regularizations(model: str) -> Runs:
  """Returns runs without and with Class Regularisation, or with its maps."""
  plain = {'name': model, 'class_regularization': False}
  regularized = {'name': model, 'class_regularization': True}
  return {
    'without': Run(plain, 'without'),
    'whole': Run(regularized, 'without'),
    'maps': Run(
      regularized, 'without', class_regularization.MAPS, after='without'
    ),
  }


def _values(
  kinds: str, key: str, values: tuple, default: Any
) -> Callable[[str], Runs]:
  """Returns a function that varies one key of networks of the `kinds`.

  All are compared with the value that is the thesis's choice.
  """

  def choices(model):
    if not re.fullmatch(kinds, model):
      raise ValueError(
        f'This table varies `{key}`, which {model!r} lacks. Give another '
        'CONFIG, mtnet_m for instance.'
      )
    return {
      str(value): Run({'name': model, key: value}, str(default))
      for value in values
    }

  return choices


def _claims(
  kinds: str, against: str, rows: Mapping[str, Mapping[str, Any]]
) -> Callable[[str], Runs]:
  """Returns a function from a model to runs that vary its options."""

  def choices(model):
    if not re.fullmatch(kinds, model):
      raise ValueError(
        f'{model!r} lacks what this table varies. Give a network that fits '
        f'{kinds}.'
      )
    return _of_one(against, rows, model)

  return choices


def _gates(model: str) -> Runs:
  """Returns runs that compare gates, on a network trained for a while."""
  if not model.startswith('srtg_'):
    raise ValueError(f'{model!r} has no gates. Give srtg_r3d_18 for instance.')
  none = 'no_gate'
  choices = {
    'no_srtg': Run({'name': model.removeprefix('srtg_')}, none),
    none: Run({'name': model, 'gate': False}, none),
  }
  for embedding in ('hidden', 'fused', 'normalized'):
    options = {'name': model, 'gate': True, 'gate_embedding': embedding}
    # A third of 30 epochs of 1,100 clips, 32 a step.
    choices[embedding] = Run(options, none, {'train.gate_after': 344})
  return choices


def _maps(model: str) -> Runs:
  """Returns runs of maps of Class Regularisation on a trained network."""
  plain = {'name': model, 'class_regularization': False}
  choices = {'without': Run(plain, 'without')}
  for score in ('sum', 'own'):
    for loss in (0.0, 0.1):
      options = plain | {
        'class_regularization': True,
        'regularization_score': score,
      }
      recipe = class_regularization.MAPS | {'train.regularization_loss': loss}
      name = f'{score}_loss' if loss else score
      choices[name] = Run(options, 'without', recipe, after='without')
  return choices


_MTCONV = r'mtnet_\w+|mt_r3d_50'  # networks of Multi-Temporal convolutions
_RECURRENT = r'mtnet_\w+|srtg_\w+'
_SELECTIONS = {
  'branch': {},
  'input': {'selection_input': 'input', 'keep_times': True},
  'random': {'selection_input': 'random'},
  'every_second': {'selection_input': 'every_second'},
  'windows': {'pooling': 'softpool'},
  'no_branch': {'local_ratio': 1.0},
}
_RECURRENCES = {
  'gru': {},
  'none': {'recurrence': False},
  'squeeze_excitation': {'recurrence': False, 'squeeze_excitation': True},
}
_SHARES = {
  '1.0': {'local_ratio': 1.0},
  '0.875': {'local_ratio': 0.875},
  '0.5': {'local_ratio': 0.5},
  '0.875_split': {'local_ratio': 0.875, 'branch_inputs': 'split'},
  '0.5_split': {'local_ratio': 0.5, 'branch_inputs': 'split'},
}

TABLES: Mapping[str, Table] = types.MappingProxyType(
  {
    '4.1': Table('places of SRTG', 'srtg:r3d_34', _placements),
    '4.5': Table('backbones without and with SRTG', 'srtg:r3d_34', _pairs),
    '5.2': Table('the convolutions of a ResNet-50', 'mtnet_m', _convolutions),
    '5.6': Table(
      'shares of local channels in MTConv',
      'mtnet_m',
      _values(
        _MTCONV,
        'local_ratio',
        (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25),
        default=0.875,
      ),
    ),
    '5.7': Table(
      'recurrent cells',
      'mtnet_m',
      _values(
        _RECURRENT,
        'cell',
        ('rnn', 'lstm', 'peephole_lstm', 'gru'),
        default='gru',
      ),
    ),
    '5.8': Table(
      'poolings of the prolonged branch',
      'mtnet_m',
      _values(
        _MTCONV,
        'pooling',
        ('avg', 'max', 'stochastic', 'softpool', 'avg+cos', 'softpool+cos'),
        default='softpool+cos',
      ),
    ),
    '6.4': Table(
      'networks without and with Class Regularisation',
      'mtnet_m',
      _regularizations,
    ),
    'selection': Table(
      'what chooses the frames of the prolonged branch',
      'quickstart',
      _claims(_MTCONV, 'random', _SELECTIONS),
    ),
    'gates': Table(
      "what SRTG's gates compare",
      'srtg:r3d_18',
      _gates,
    ),
    'recurrence': Table(
      "what weights a block's channels",
      'quickstart',
      _claims(r'mtnet_\w+', 'none', _RECURRENCES),
    ),
    'shares': Table(
      'shares of local channels, and what each branch reads',
      'quickstart',
      _claims(_MTCONV, '1.0', _SHARES),
    ),
    'maps': Table(
      "how Class Regularisation's maps score, and their loss",
      'quickstart',
      _maps,
    ),
  }
)
