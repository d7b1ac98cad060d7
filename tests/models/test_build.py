"""Networks by name: what `build` refuses."""

import pytest

from configs import base
from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.models import resnet3d


def test_unknown_model_names_the_nearest():
  with pytest.raises(UserError, match=r"'mtnet_n'.*Did you mean.*'mtnet_"):
    models.build('mtnet_n', 400)
  with pytest.raises(UserError, match=r"\(='zzz'\)\. There are mtnet_xs"):
    models.build('zzz', 400)


@pytest.mark.parametrize(
  'name, override',
  [
    ('r3d_50', {'cell': 'gru'}),
    ('r3d_50', {'placement': 'final'}),
    ('mtnet_m', {'placement': 'final'}),
    ('srtg_r3d_34', {'local_ratio': 0.5}),
    ('srtg_r3d_34', {'recurrence': False}),
    ('r3d_50', {'pooling': 'avg'}),
    ('mt_r3d_50', {'temporal_kernels': False}),
    ('mtnet_m', {'blocks': (1, 1, 1, 1)}),
    ('mfnet', {'blocks': (1, 1, 1, 1)}),
    ('i3d_inception', {'pooling': 'avg'}),
  ],
)
def test_override_that_the_model_lacks(name, override):
  (key,) = override
  with pytest.raises(
    UserError, match=f"{name} has no override '{key}'.*'dtype'"
  ):
    models.build(name, 400, **override)


# What all networks have; of MTConv; of recurrence.
COMMON = {
  'class_regularization',
  'affection_rates',
  'regularization_score',
  'dropout',
  'dtype',
  'norm_batch_size',
  'freeze_norm',
  'norm_epsilon',
  'input_mean',
  'input_std',
  'rematerialize',
}
MTCONV = {'local_ratio', 'pooling', 'shared_selection'}
MTCONV |= {'selection_input', 'keep_times', 'branch_inputs'}
RECURSION = {'cell', 'gate', 'gate_embedding', 'recurrent_layers'}
RESNET = COMMON | {'stage_features', 'stem_frames', 'stem_pool'}
RESNET |= {'project_shortcuts'}
MTNET = COMMON | MTCONV
MTNET |= {'temporal_kernels', 'repeat_edges', 'norm_all_shortcuts'}
MTNET |= {'recurrence', 'squeeze_excitation', 'separated_groups', *RECURSION}
SLOWFAST = COMMON | {'slow_frames', 'lateral_frames', 'lateral_norm'}
SLOWFAST |= {'zero_init_residual'}
VIDEO_RESNET = COMMON | MTCONV | RECURSION
VIDEO_RESNET |= {'middle', 'placement', 'zero_init_residual'}


@pytest.mark.parametrize('name', models.NAMES)
def test_overrides(name):
  if name.startswith(('mtnet', 'x3d')):
    expected = MTNET
  elif name.startswith('srtg'):
    expected = RESNET | {'placement', *RECURSION}
  elif name.startswith('slowfast'):
    expected = SLOWFAST
  elif name in ('i3d_inception', 'mfnet'):
    expected = COMMON
  elif name not in resnet3d.VARIANTS:
    expected = VIDEO_RESNET
  else:
    expected = RESNET | MTCONV if name == 'mt_r3d_50' else RESNET
  names = models.override_names(name)
  assert set(names) == expected and len(names) == len(expected)


@pytest.mark.parametrize(
  'override, message',
  [
    ({'middle': 'conv'}, r"`middle` \(=conv\) must be one of .*'mtconv'"),
    ({'placement': 'side'}, r"'side'.*Bottleneck.*'start', 'top'"),
    ({'gate': False}, '`gate` .* an option of SRTG, which slow_r50 lacks'),
    ({'cell': 'gru'}, 'set placement to one of'),
    ({'pooling': 'avg', 'middle': 'cubic'}, "set middle='mtconv', or"),
  ],
)
def test_parts_of_the_thesis_that_a_backbone_cannot_take(override, message):
  with pytest.raises(UserError, match=message):
    models.build('slow_r50', 400, **override)
  with pytest.raises(UserError, match='slowfast_r50_8x8 has no override'):
    models.build('slowfast_r50_8x8', 400, **override)


def test_configurations_have_only_keys_that_some_network_has():
  keys = set(base.get_config().model) - {'name'}
  assert keys <= MTNET | RESNET | SLOWFAST | {'placement', 'middle'}


@pytest.mark.parametrize(
  'override, message',
  [
    ({'dropout': 1.0}, r'`dropout` \(=1.0\) must be in \[0, 1\)'),
    ({'dtype': 'bfloat'}, r'`dtype` \(=bfloat\) must be one of'),
    ({'dtype': 'int8'}, r'`dtype` \(=int8\) must be one of'),
    ({'dtype': 'float64'}, r'`dtype` \(=float64\) needs 64 bits'),
    ({'norm_batch_size': -1}, r'`norm_batch_size` \(=-1\)'),
    ({'stage_features': (8, 8, 8)}, 'must be the channels of 4 stages'),
    ({'stage_features': (8, 8, 8, 0)}, 'must be the channels of 4 stages'),
    ({'input_std': (0.2, 0.2, 0)}, r'`input_std` .* three numbers above 0'),
    ({'stem_frames': 0}, r'`stem_frames` \(=0\) must be at least 1'),
    ({'input_mean': 'abc'}, r'`input_mean` .* three numbers above 0'),
    ({'input_mean': (0.4,)}, r'`input_mean` .* three numbers above 0'),
  ],
)
def test_values_outside_their_range(override, message):
  with pytest.raises(UserError, match=message):
    models.build('r3d_18', 400, **override)


def test_class_count():
  with pytest.raises(
    UserError, match=r'`num_classes` \(=0\) must be at least 1'
  ):
    models.build('r3d_18', 0)


@pytest.mark.parametrize(
  'override, message',
  [
    ({'selection_input': 'pixels'}, "'pixels'.*Choose one of 'branch'"),
    (
      {'selection_input': 'input', 'pooling': 'softpool'},
      "`selection_input` .* left out: pooling='softpool' selects no frames",
    ),
    ({'keep_times': True, 'pooling': 'avg'}, '`keep_times` .* ends with .cos'),
    ({'keep_times': True, 'shared_selection': False}, 'shared_selection=True'),
    ({'branch_inputs': 'some'}, r"one of \('all', 'split'\)"),
    ({'gate_embedding': 'h'}, "one of .*'fused'"),
    ({'recurrent_layers': 0}, '`recurrent_layers` .* at least 1'),
    ({'separated_groups': -1}, '`separated_groups` .* at least 0'),
    ({'regularization_score': 'max'}, "of .*'sum', 'own'"),
  ],
)
def test_options_that_mtnet_cannot_take(override, message):
  with pytest.raises(UserError, match=message):
    models.build('mtnet_xs', 5, **override)
