"""Every file of configs/ builds, is locked, and its network traces."""

import importlib
import json

import jax
import jax.numpy as jnp
import pytest

from configs import ablations, base
from mtnet_jax import evaluation, models, optim

_FILES = [
  'mtnet_l',
  'mtnet_m',
  'mtnet_s',
  'quickstart',
  'srtg',
  'ut_interaction',
]


def _config(name, *arguments):
  return importlib.import_module(f'configs.{name}').get_config(*arguments)


def test_augmented_shares_of_the_recipes():
  """Sections 4.4.1 and 5.4.1: of the clips, and of those each method's."""
  shares = {
    name: (config.data.augment_share, config.data.augment_method_share)
    for name in _FILES
    for config in [_config(name)]
  }
  assert shares == {
    'mtnet_s': (0.7, 0.4),
    'mtnet_m': (0.7, 0.4),
    'mtnet_l': (0.7, 0.4),
    'srtg': (0.8, 0.4),
    'quickstart': (0.0, 0.4),
    'ut_interaction': (0.8, 0.4),
  }


def test_the_control_is_blind_to_direction():
  model = _config('quickstart', 'static').model
  assert model.temporal_kernels is False and model.recurrence is False
  with pytest.raises(ValueError, match="only 'static'"):
    _config('quickstart', 'statci')


def test_every_file_is_listed(root):
  names = {path.stem for path in (root / 'configs').glob('*.py')}
  assert names == {*_FILES, 'ablations', 'base', '__init__'}


@pytest.mark.parametrize('name', _FILES)
def test_config_is_locked_and_has_the_keys_of_base(name):
  config = _config(name)
  assert config.is_locked and config.optim.is_locked
  with pytest.raises(AttributeError, match='Did you mean "batch_size"'):
    config.train.batch_sise = 3
  assert _keys(config) == _keys(base.get_config())
  json.loads(config.to_json_best_effort())


def _keys(config):
  return {
    section: set(value)
    for section, value in config.items()
    if section != 'seed'
  }


@pytest.mark.parametrize('name', _FILES)
def test_config_builds_and_traces(name):
  config = _config(name)
  model = evaluation.build_model(config, num_classes=7)
  t, h, w, c = evaluation.clip_shape(config)
  clips = jax.ShapeDtypeStruct((2, t, h, w, c), jnp.float32)
  key = jax.random.key(0)
  variables = jax.eval_shape(lambda x: model.init(key, x, train=False), clips)
  logits, endpoints = jax.eval_shape(
    lambda v, x: model.apply(v, x, train=False), variables, clips
  )
  assert logits.shape == (2, 7) and logits.dtype == jnp.float32
  assert {'stage_1', 'stage_4', 'gate_open'} <= endpoints.keys()
  # Whatever the compute type, what is kept is float32.
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
    jnp.dtype('float32')
  }
  optim.learning_rate(
    config.optim, batch_size=64, steps_per_epoch=100.0, num_steps=40_000
  )


def test_srtg_takes_any_backbone_as_argument():
  for name in models.NAMES:
    if name.startswith('srtg_'):
      config = _config('srtg', name.removeprefix('srtg_'))
      assert config.model.name == name


# The thesis's rows, by the names of our runs.
_PLACES = ('start', 'mid', 'res', 'final')
_ROWS = {
  ('4.1', 'r3d_34'): [
    *('r3d_none', *(f'r3d_{place}' for place in _PLACES)),
    *('r2plus1d_none', *(f'r2plus1d_{place}' for place in _PLACES)),
  ],
  ('5.2', 'mtnet_m'): ['r3d_50', 'r2plus1d_50', 'mt_r3d_50'],
  ('5.6', 'mtnet_m'): '1.0 0.875 0.75 0.625 0.5 0.375 0.25'.split(),
  ('5.7', 'mtnet_s'): 'rnn lstm peephole_lstm gru'.split(),
  (
    '5.8',
    'mtnet_l',
  ): 'avg max stochastic softpool avg+cos softpool+cos'.split(),
}


@pytest.mark.parametrize(('table', 'model'), _ROWS)
def test_runs_are_the_rows_of_the_table(table, model):
  names = list(ablations.runs(table, model))
  assert sorted(names) == sorted(_ROWS[table, model])
  assert sorted({t for t, _ in _ROWS}) == sorted(ablations.TABLES)


def test_what_the_runs_override():
  runs = ablations.runs('4.1', 'srtg_r3d_34')
  assert runs == ablations.runs('4.1', 'r2plus1d_34')
  assert runs['r3d_none'] == {'name': 'r3d_34'}
  assert runs['r2plus1d_res'] == {
    'name': 'srtg_r2plus1d_34',
    'placement': 'res',
    'gate': True,
  }
  deep = ablations.runs('4.1', 'r3d_50')
  assert len(deep) == 14 and deep['r3d_top']['placement'] == 'top'
  wide = ablations.runs('4.1', 'wide_r3d_50')
  assert wide['wide_r3d_end']['name'] == 'srtg_wide_r3d_50' and len(wide) == 7
  for table, key in (
    ('5.6', 'local_ratio'),
    ('5.7', 'cell'),
    ('5.8', 'pooling'),
  ):
    for name, overrides in ablations.runs(table, 'mtnet_xs').items():
      assert overrides.pop('name') == 'mtnet_xs'
      assert overrides.keys() == {key} and str(overrides[key]) == name


@pytest.mark.parametrize(
  ('table', 'model'),
  [
    ('4.1', 'r3d_18'),
    ('4.1', 'r3d_50'),
    *list(_ROWS),
    ('5.6', 'mtnet_xs'),
    ('5.6', 'mt_r3d_50'),
    ('5.7', 'srtg_r3d_34'),
    ('5.8', 'mt_r3d_50'),
  ],
)
def test_every_run_builds(table, model):
  for overrides in ablations.runs(table, model).values():
    assert models.build(num_classes=7, **overrides)


def test_runs_trace():
  """One of each kind of network, and each value of an MTNet of one block."""
  runs = ablations.runs('4.1', 'r3d_18') | ablations.runs('5.2', 'mtnet_m')
  wanted = [runs[name] for name in ('r2plus1d_start', 'r3d_res', 'mt_r3d_50')]
  for table in ('5.6', '5.7', '5.8'):
    wanted += ablations.runs(table, 'mtnet_xs').values()
  for overrides in wanted:
    model = models.build(num_classes=7, **overrides)
    if overrides['name'] == 'mtnet_xs':
      model = model.copy(blocks=(1, 0, 0, 0))
    logits, _ = jax.eval_shape(
      lambda x, model=model: model.init_with_output(jax.random.key(0), x)[0],
      jax.ShapeDtypeStruct((2, 5, 20, 20, 3), jnp.float32),
    )
    assert logits.shape == (2, 7), overrides


def test_an_ablation_is_its_recipe_but_for_the_run():
  config = ablations.get_config('5.8/avg')
  assert config.is_locked and config.model.pooling == 'avg'
  config.model.update(pooling=None)
  assert config.to_dict() == _config('mtnet_m').to_dict()

  config = ablations.get_config('4.1/r2plus1d_none')
  assert config.model.name == 'r2plus1d_34'
  assert config.optim == _config('srtg').optim

  config = ablations.get_config('5.7/rnn/quickstart')
  assert (config.model.name, config.model.cell) == ('mtnet_xs', 'rnn')
  assert config.data == _config('quickstart').data
  config = ablations.get_config('4.1/r3d_top/srtg:r3d_50')
  assert config.model.name == 'srtg_r3d_50'
  assert _keys(config) == _keys(base.get_config())


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('', r"There is no table ''.*TABLE one of 4\.1 \(places of SRTG\), 5\.2"),
    ('5.5/x', "There is no table '5.5'"),
    (
      '5.8',
      r'Table 5\.8 compares poolings.*:5\.8/RUN with RUN one of avg, max, '
      r'.*5\.8/RUN/CONFIG.* than mtnet_m, CONFIG one of mtnet_l.*, srtg, ',
    ),
    ('4.1//srtg:r3d_50', 'RUN one of r3d_none, r3d_start, r3d_top,'),
    ('4.1/r3d_top', r"Table 4\.1 has no run 'r3d_top'\. .*r3d_none, r3d_start"),
    ('5.8/avg/quickstrt', r'no configs/quickstrt\.py.*mtnet_s, quickstart'),
    ('5.8/avg/base', r'no configs/base\.py'),
    ('4.1/r3d_mid/quickstart', r"Table 4\.1 needs a residual.*'mtnet_xs'"),
    ('5.8/avg/srtg', r"`pooling`, which 'srtg_r3d_34' has not"),
  ],
)
def test_arguments_that_name_no_run(argument, message):
  with pytest.raises(ValueError, match=message) as error:
    ablations.get_config(argument)
  assert '\n' not in str(error.value)
