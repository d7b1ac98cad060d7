"""Every file of configs/ builds, is locked, and its network traces."""

import importlib
import json

import jax
import jax.numpy as jnp
import pytest

from configs import base
from mtnet_jax import evaluation, models, optim

_FILES = ['mtnet_l', 'mtnet_m', 'mtnet_s', 'quickstart', 'srtg']


def _config(name, *arguments):
  return importlib.import_module(f'configs.{name}').get_config(*arguments)


def test_every_file_is_listed(root):
  names = {path.stem for path in (root / 'configs').glob('*.py')}
  assert names == {*_FILES, 'base', '__init__'}


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
