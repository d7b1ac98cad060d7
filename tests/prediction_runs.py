"""Runs that cost no training, and a predictor that costs no network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtnet_jax.prediction import Predictor
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.checkpoints import Checkpoints
from mtnet_jax.runs.state import TrainState
from tests.tiny_runs import tiny_config

CLASSES = ('bright', 'dark')
STEP = 7  # of the one checkpoint


def write_run(workdir, data, **changes):
  """Leaves a run as training does, with random weights; its configuration."""
  config = tiny_config(data, **changes)
  model = model_lib.build_model(config, len(CLASSES))
  clips = jax.ShapeDtypeStruct(
    (1, *model_lib.training_clip_shape(config)), jnp.float32
  )
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), clips
  )
  variables = _draw(shapes)
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / 'config.json').write_text(config.to_json_best_effort())
  (workdir / 'labels.txt').write_text('\n'.join(CLASSES) + '\n')
  optimizer = optax.sgd(0.1).init(variables['params'])
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(
      TrainState(step=jnp.int32(STEP), opt_state=optimizer, **variables)
    )
  return config


def _draw(shapes):
  """Weights that keep the activations' size; compiles nothing."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key == 'kernel':
      fan_in = np.prod(leaf.shape[:-1])
      value = rng.normal(0, np.sqrt(2 / fan_in), leaf.shape)
    elif path[-1].key == 'mean':
      value = rng.normal(0, 0.1, leaf.shape)
    else:
      value = np.full(leaf.shape, float(path[-1].key in ('scale', 'var')))
    return jnp.asarray(value, leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)


class BrightnessPredictor(Predictor):
  """Says 'bright' with a clip's mean brightness, 'dark' with the rest."""

  def __init__(self, workdir='', checkpoint='best', **changes):
    self.config = tiny_config('', **changes)
    self.class_names = CLASSES
    self.source = 'a rule'
    self.model = self.variables = None
    self.asked = []  # clips of each call

  def probabilities(self, clips):
    self.asked.append(len(clips))
    share = clips.reshape(len(clips), -1).mean(axis=1) / 255
    return np.stack([share, 1 - share], axis=1).astype(np.float32)
