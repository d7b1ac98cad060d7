"""Every file of configs/ builds, is locked, and its network traces."""

import importlib
import json

import jax
import jax.numpy as jnp
import pytest

from configs import base
from mtnet_jax import models
from mtnet_jax.runs import model as model_lib
from mtnet_jax.training import optim

_FILES = [
  'csn',
  'hara',
  'i3d',
  'mfnet',
  'mtnet_l',
  'mtnet_m',
  'mtnet_s',
  'quickstart',
  'r2plus1d',
  'slow',
  'slowfast',
  'srtg',
  'tsm',
  'ut_interaction',
]


def _config(name, *arguments):
  return importlib.import_module(f'configs.{name}').get_config(*arguments)


# The recipes as the thesis prints them (4.4.1 and 5.4.1), with the learning
# rate of X3D for MTNet's, which looks like a misprint. bfloat16 is the half
# precision that needs no scaled loss.
_SRTG = {
  'data.num_frames': 16,
  'data.frame_stride': 2,
  'data.start': 'uniform',
  'data.draw_frames': True,
  'data.short_side': 320,
  'data.crop_size': 224,
  'data.input_size': 224,
  'data.flip': True,
  'data.augment_share': 0.8,
  'data.augment_method_share': 0.4,
  'model.dtype': 'bfloat16',
  'optim.schedule': 'step',
  'optim.learning_rate': 0.1,
  'optim.reference_batch': 32,
  'optim.warmup_steps': 0,
  'optim.milestones': (40, 70, 120),
  'optim.decay': 0.1,
  'optim.momentum': 0.9,
  'optim.weight_decay': 1e-5,
  'optim.backbone_rate': 1.0,
  'optim.trained': 'all',
  'train.batch_size': 32,
  'train.num_epochs': 150.0,
  'train.num_steps': 0,
  'train.long_cycle': True,
  'train.short_cycle': True,
  'train.norm_batch_size': 0,
  'train.precise_norm_steps': 200,
  'eval.num_clips': 10,
  'eval.num_crops': 3,
  'eval.crop_size': 256,
  'eval.input_size': 256,
}
_MTNET = _SRTG | {
  'data.start': 'normal',
  'data.crop_size': 256,
  'data.input_size': 256,
  'data.augment_share': 0.7,
  'model.dtype': 'bfloat16',
  'optim.schedule': 'cosine',
  'optim.learning_rate': 1.6,
  'optim.reference_batch': 1024,
  'optim.warmup_steps': 8_000,
  'optim.milestones': (),
  'optim.weight_decay': 5e-5,
  'train.batch_size': 64,
  'train.num_epochs': 400.0,
}
_MTNET_S = {'data.num_frames': 13, 'data.input_size': 182}
_MTNET_S = _MTNET | _MTNET_S | {'eval.input_size': 182}
# Section 4.5.
_TRANSFER = {
  'optim.schedule': 'step',
  'optim.learning_rate': 0.01,
  'optim.warmup_steps': 0,
  'optim.milestones': (40, 60),
  'optim.decay': 0.1,
  'optim.momentum': 0.9,
  'optim.trained': 'classifier',
  'train.num_epochs': 80.0,
  'train.long_cycle': False,
  'train.short_cycle': False,
  'train.precise_norm_steps': 0,
}
_FINETUNE = _TRANSFER | {'optim.backbone_rate': 0.1, 'optim.trained': 'all'}
# Section 6.4.2, on whatever recipe.
_MAPS = {
  'model.class_regularization': True,
  'optim.schedule': 'step',
  'optim.learning_rate': 0.1,
  'optim.reference_batch': 16,
  'optim.warmup_steps': 0,
  'optim.milestones': (50, 100),
  'optim.decay': 0.1,
  'optim.momentum': 0.9,
  'optim.weight_decay': 1e-5,
  'optim.backbone_rate': 1.0,
  'optim.trained': 'class_regularization',
  'train.batch_size': 16,
  'train.num_epochs': 120.0,
  'train.num_steps': 0,
  'train.long_cycle': False,
  'train.short_cycle': False,
  'train.precise_norm_steps': 0,
}
_MAPS_FINETUNE = _MAPS | {
  'optim.learning_rate': 1e-3,
  'optim.milestones': (70,),
}
_RECIPES = {
  'srtg': _SRTG,
  'srtg:r2plus1d_50': _SRTG,
  'mtnet_s': _MTNET_S,
  'mtnet_m': _MTNET,
  'mtnet_l': _MTNET,
  'transfer:srtg:r3d_50': _SRTG | _TRANSFER | {'optim.reference_batch': 32},
  'transfer:mtnet_s': _MTNET_S | _TRANSFER | {'optim.reference_batch': 64},
  'transfer:mtnet_l/finetune': (
    _MTNET | _FINETUNE | {'optim.reference_batch': 64}
  ),
  # The others' recipes are of this project: their transfer is checked.
  'transfer:quickstart': _TRANSFER | {'optim.reference_batch': 32},
  'transfer:ut_interaction/finetune': (
    _FINETUNE | {'optim.reference_batch': 16, 'train.num_steps': 0}
  ),
  'class_regularization:mtnet_m': _MTNET | _MAPS,
  'class_regularization:srtg:r3d_50': _SRTG | _MAPS,
  'class_regularization:mtnet_s/finetune': _MTNET_S | _MAPS_FINETUNE,
  'class_regularization:quickstart': _MAPS,
  'class_regularization:ut_interaction/finetune': _MAPS_FINETUNE,
}


@pytest.mark.parametrize('name', _RECIPES)
def test_recipe_is_the_thesis_s(name):
  config = _config(*name.split(':', 1))
  recipe = _RECIPES[name]
  found = {key: _value(config, key) for key in recipe}
  assert found == recipe


def _value(config, key):
  section, name = key.split('.')
  return config[section][name]


def test_what_a_transfer_takes_from_its_recipe():
  for name in ('mtnet_m', 'srtg:r2plus1d_34', 'quickstart'):
    own = _config(*name.split(':', 1)).to_dict()
    config = _config('transfer', f'{name}/finetune')
    given = config.to_dict()
    for section in ('data', 'model', 'eval', 'mesh', 'seed'):
      assert given[section] == own[section]
    assert config.is_locked and _keys(config) == _keys(base.get_config())
    alone = _config('transfer', name)
    assert alone.optim.trained == 'classifier'
    alone.optim.update(trained='all', backbone_rate=0.1)
    assert alone.to_dict() == given


def test_what_class_regularization_takes_from_its_recipe():
  for name in ('mtnet_m', 'srtg:r2plus1d_34', 'quickstart'):
    own = _config(*name.split(':', 1))
    config = _config('class_regularization', name)
    assert config.is_locked and _keys(config) == _keys(base.get_config())
    own.model.class_regularization = True
    own, given = own.to_dict(), config.to_dict()
    for section in ('data', 'model', 'eval', 'mesh', 'seed'):
      assert given[section] == own[section]


@pytest.mark.parametrize('file', ['transfer', 'class_regularization'])
@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    (
      '',
      r"There is no.* in ''.*CONFIG one of csn, hara, i3d, mfnet, mtnet_l.*, "
      'srtg, ',
    ),
    ('/finetune', "There is no.* in '/finetune'"),
    ('mtnet_m/fintune', "There is no.* in 'mtnet_m/fintune'"),
    ('mtnet_x', r'no configs/mtnet_x\.py'),
    ('transfer:mtnet_m', r'no configs/transfer\.py to vary'),
    ('class_regularization:mtnet_m', r'no configs/class_regularization\.py'),
    ('base', r'no configs/base\.py'),
  ],
)
def test_arguments_that_name_no_recipe(file, argument, message):
  with pytest.raises(ValueError, match=message) as error:
    _config(file, argument)
  assert '\n' not in str(error.value)


def test_rates_reach_the_network():
  config = _config('quickstart')
  config.model.class_regularization = True
  config.model.affection_rates = (0.5, 0.4, 0.3, 0.2)
  model = model_lib.build_model(config, num_classes=7)
  assert model.affection_rates == (0.5, 0.4, 0.3, 0.2)
  assert hash(model)  # programs are compiled once for a model


def test_the_control_is_blind_to_direction():
  model = _config('quickstart', 'static').model
  assert model.temporal_kernels is False and model.recurrence is False
  with pytest.raises(ValueError, match="only 'static'"):
    _config('quickstart', 'statci')


def test_every_file_is_listed(root):
  names = {path.stem for path in (root / 'configs').glob('[!_]*.py')}
  others = {'ablations', 'base', 'class_regularization', 'transfer'}
  assert names == {*_FILES, *others, 'finetune'}


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
  model = model_lib.build_model(config, num_classes=7)
  if config.model.name.startswith('mtnet'):
    # All of its blocks are traced where their parameters are counted.
    model = model.copy(blocks=(1, 1, 1, 1))
  t, h, w, c = model_lib.training_clip_shape(config)
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
    config.optim, batch_size=64, steps_per_epoch=100.0, num_steps=200_000
  )


def test_pixels_and_epochs_of_i3d_and_mfnet():
  i3d, mfnet = _config('i3d'), _config('mfnet')
  assert (i3d.data.num_frames, mfnet.data.num_frames) == (64, 16)
  for model, pixel, expected in (
    (i3d.model, 255, 1.0),
    (i3d.model, 0, -1.0),
    (mfnet.model, 255, (255 - 124) * 0.0167),
    (mfnet.model, 0, -124 * 0.0167),
  ):
    red = (pixel / 255 - model.input_mean[0]) / model.input_std[0]
    assert red == pytest.approx(expected)
  assert mfnet.optim.milestones == (75, 117, 142, 158)
  assert mfnet.train.num_epochs == 167


def test_srtg_takes_any_backbone_as_argument():
  for name in models.NAMES:
    if name.startswith('srtg_'):
      config = _config('srtg', name.removeprefix('srtg_'))
      assert config.model.name == name


@pytest.mark.parametrize(
  ('name', 'argument', 'network', 'clip'),
  [
    ('slowfast', 'r101_16x8', 'slowfast_r101_16x8', (64, 2)),
    ('slow', 'r50_4x16', 'slow_r50', (4, 16)),
    ('slow', 'i3d_r50_32x2', 'i3d_r50_32x2', (32, 2)),
    ('tsm', 'r50_16', 'tsm_r50', (16, 4)),
    ('tsm', 'tanet_r50_8', 'tanet_r50_8', (8, 8)),
    ('csn', 'ip_101', 'ip_csn_101', (32, 2)),
    ('slow', 'r2plus1d_r50_16x4', 'ptv_r2plus1d_r50', (16, 4)),
    ('hara', 'r3d_18', 'hara_r3d_18', (16, 1)),
    ('hara', 'resnext3d_101', 'resnext3d_101', (16, 1)),
    ('r2plus1d', 'mc3_18', 'mc3_18', (16, 2)),
    ('r2plus1d', '34_ig65m', 'r2plus1d_34_ig65m', (32, 2)),
  ],
)
def test_rows_of_other_authors_recipes(name, argument, network, clip):
  config = _config(name, argument)
  assert config.model.name == network
  assert (config.data.num_frames, config.data.frame_stride) == clip
  with pytest.raises(
    ValueError, match=f'{name}:r50 is not one of .*{argument}'
  ):
    _config(name, 'r50')
