"""The runs of the thesis's tables: their names, overrides and networks."""

import jax
import jax.numpy as jnp
import pytest

from configs import ablations, base
from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.training import transfer
from tests.configs.test_configs import _config, _keys

# The thesis's rows, by the names of our runs.
_PLACES = ('start', 'mid', 'res', 'final')
_ROWS = {
  ('4.1', 'r3d_34'): [
    f'{backbone}_{place}'
    for backbone in ('r3d', 'r2plus1d')
    for place in ('none', *_PLACES)
  ],
  ('4.5', 'srtg_r3d_50'): [
    'r3d_without',
    'r3d_srtg',
    'r2plus1d_without',
    'r2plus1d_srtg',
  ],
  ('5.2', 'mtnet_m'): ['r3d_50', 'r2plus1d_50', 'mt_r3d_50'],
  ('5.6', 'mtnet_m'): '1.0 0.875 0.75 0.625 0.5 0.375 0.25'.split(),
  ('5.7', 'mtnet_s'): 'rnn lstm peephole_lstm gru'.split(),
  (
    '5.8',
    'mtnet_l',
  ): 'avg max stochastic softpool avg+cos softpool+cos'.split(),
  ('6.4', 'r3d_50'): ['without', 'whole', 'maps'],
  # What tries the thesis's claims one by one.
  (
    'selection',
    'mtnet_xs',
  ): 'branch input random every_second windows no_branch'.split(),
  (
    'gates',
    'srtg_r3d_18',
  ): 'no_srtg no_gate hidden fused normalized'.split(),
  ('recurrence', 'mtnet_xs'): ['gru', 'none', 'squeeze_excitation'],
  ('shares', 'mtnet_xs'): '1.0 0.875 0.5 0.875_split 0.5_split'.split(),
  ('maps', 'mtnet_xs'): 'without sum sum_loss own own_loss'.split(),
}


@pytest.mark.parametrize(('table', 'model'), _ROWS)
def test_runs_are_the_rows_of_the_table(table, model):
  runs = ablations.runs(table, model)
  assert sorted(runs) == sorted(_ROWS[table, model])
  for run in runs.values():
    assert run.against in runs and runs[run.against].against == run.against
    assert run.after in ('', *runs)
  assert sorted({t for t, _ in _ROWS}) == sorted(ablations.TABLES)


def _overrides(table, model):
  runs = ablations.runs(table, model)
  return {name: dict(run.model) for name, run in runs.items()}


def test_what_the_runs_override():
  runs = _overrides('4.1', 'srtg_r3d_34')
  assert runs == _overrides('4.1', 'r2plus1d_34')
  assert runs['r3d_none'] == {'name': 'r3d_34'}
  assert runs['r2plus1d_res'] == {
    'name': 'srtg_r2plus1d_34',
    'placement': 'res',
    'gate': True,
  }
  deep = _overrides('4.1', 'r3d_50')
  assert len(deep) == 14 and deep['r3d_top']['placement'] == 'top'
  wide = _overrides('4.1', 'wide_r3d_50')
  assert wide['wide_r3d_end']['name'] == 'srtg_wide_r3d_50' and len(wide) == 7
  assert _overrides('4.5', 'srtg_r2plus1d_50') == {
    'r3d_without': {'name': 'r3d_50'},
    'r3d_srtg': {'name': 'srtg_r3d_50'},
    'r2plus1d_without': {'name': 'r2plus1d_50'},
    'r2plus1d_srtg': {'name': 'srtg_r2plus1d_50'},
  }
  wide = _overrides('4.5', 'wide_r3d_50')
  assert list(wide) == ['wide_r3d_without', 'wide_r3d_srtg']
  own = _overrides('4.1', 'slow_r50')
  assert list(own) == ['none', 'start', 'top', 'mid', 'end', 'res', 'final']
  assert own['none'] == {'name': 'slow_r50'}
  place = {'name': 'slow_r50', 'placement': 'mid', 'gate': True}
  assert own['mid'] == place
  assert _overrides('4.5', 'hara_r3d_50') == {
    'without': {'name': 'hara_r3d_50'},
    'srtg': {'name': 'hara_r3d_50', 'placement': 'final', 'gate': True},
  }
  kinds = ['cubic', 'spatial', 'factorized', 'mtconv']
  assert _overrides('5.2', 'slow_r50') == {
    kind: {'name': 'slow_r50', 'middle': kind} for kind in kinds
  }
  for table, key in (
    ('5.6', 'local_ratio'),
    ('5.7', 'cell'),
    ('5.8', 'pooling'),
  ):
    for name, overrides in _overrides(table, 'mtnet_xs').items():
      assert overrides.pop('name') == 'mtnet_xs'
      assert overrides.keys() == {key} and str(overrides[key]) == name


def test_what_the_runs_of_claims_override():
  name = {'name': 'mtnet_xs'}
  assert _overrides('selection', 'mtnet_xs')['input'] == {
    **name,
    'selection_input': 'input',
    'keep_times': True,
  }
  assert _overrides('shares', 'mtnet_xs')['0.5_split'] == {
    **name,
    'local_ratio': 0.5,
    'branch_inputs': 'split',
  }
  gates = ablations.runs('gates', 'srtg_r3d_18')
  assert gates['no_srtg'].model == {'name': 'r3d_18'}
  assert gates['no_gate'].model['gate'] is False
  assert not gates['no_gate'].recipe
  assert gates['fused'].model['gate_embedding'] == 'fused'
  assert gates['fused'].recipe == {'train.gate_after': 344}
  maps = ablations.runs('maps', 'mtnet_xs')
  assert maps['own_loss'].after == 'without'
  assert maps['own_loss'].recipe['train.regularization_loss'] == 0.1
  assert maps['sum'].recipe['optim.trained'] == 'class_regularization'


@pytest.mark.parametrize(
  ('table', 'model'),
  [
    ('4.1', 'r3d_18'),
    ('4.1', 'r3d_50'),
    ('4.5', 'r3d_18'),
    *list(_ROWS),
    ('5.6', 'mtnet_xs'),
    ('5.6', 'mt_r3d_50'),
    ('5.7', 'srtg_r3d_34'),
    ('5.8', 'mt_r3d_50'),
    ('6.4', 'mtnet_xs'),
    *(('4.1', name) for name in ('slow_r50', 'hara_r3d_50')),
    *(('5.2', name) for name in ('slow_r50', 'hara_r3d_50')),
    ('4.5', 'slow_r50'),
    ('6.4', 'slow_r50'),
  ],
)
def test_every_run_builds(table, model):
  for overrides in _overrides(table, model).values():
    assert models.build(num_classes=7, **overrides)


@pytest.mark.slow
def test_runs_trace():
  """One of each kind of network, and each value of an MTNet of one block."""
  runs = _overrides('4.1', 'r3d_18') | _overrides('5.2', 'mtnet_m')
  wanted = [runs[name] for name in ('r2plus1d_start', 'r3d_res', 'mt_r3d_50')]
  for table in ('5.6', '5.7', '5.8', '6.4'):
    wanted += _overrides(table, 'mtnet_xs').values()
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
  config = ablations.get_config('4.5/r3d_srtg')
  assert config.to_dict() == _config('srtg').to_dict()
  config = ablations.get_config('4.1/r3d_top/srtg:r3d_50')
  assert config.model.name == 'srtg_r3d_50'
  assert _keys(config) == _keys(base.get_config())


def test_the_maps_of_table_6_4_are_the_recipe_of_class_regularization():
  for recipe in ('mtnet_s', 'srtg:r3d_50'):
    maps = ablations.get_config(f'6.4/maps/{recipe}')
    assert maps.to_dict() == _config('class_regularization', recipe).to_dict()
    assert maps.is_locked
  whole = ablations.get_config('6.4/whole/mtnet_s')
  assert whole.model.class_regularization
  assert whole.optim == _config('mtnet_s').optim
  with pytest.raises(UserError, match=r'train\.init_from=WORKDIR'):
    transfer.check(maps)
  maps.train.init_from = 'runs/r3d_50'
  transfer.check(maps)


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('', r"There is no table ''.*TABLE one of 4\.1 \(places of SRTG\), 4\.5"),
    ('5.5/x', "There is no table '5.5'"),
    (
      '5.8',
      r'Table 5\.8 compares poolings.*:5\.8/RUN with RUN one of avg, max, '
      r'.*5\.8/RUN/CONFIG.* than mtnet_m, CONFIG one of csn, .*mtnet_l.*, '
      'srtg, ',
    ),
    ('4.1//srtg:r3d_50', 'RUN one of r3d_none, r3d_start, r3d_top,'),
    ('4.1/r3d_top', r"Table 4\.1 has no run 'r3d_top'\. .*r3d_none, r3d_start"),
    ('5.8/avg/quickstrt', r'no configs/quickstrt\.py.*mtnet_s, quickstart'),
    ('5.8/avg/base', r'no configs/base\.py'),
    ('4.1/r3d_mid/quickstart', r"Table 4\.1 needs a residual.*'mtnet_xs'"),
    ('4.5/r3d_srtg/mtnet_m', r"Table 4\.5 needs a residual.*'mtnet_m'"),
    ('selection/input/srtg', "'srtg_r3d_34' lacks what this table"),
    ('gates/fused/quickstart', "'mtnet_xs' has no gates"),
    ('5.8/avg/srtg', r"`pooling`, which 'srtg_r3d_34' lacks"),
  ],
)
def test_arguments_that_name_no_run(argument, message):
  with pytest.raises(ValueError, match=message) as error:
    ablations.get_config(argument)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', models.NAMES)
def test_networks_that_take_parts(name):
  takes = {'placement', 'middle'} <= set(models.override_names(name))
  assert ablations._takes_parts(name) == takes
