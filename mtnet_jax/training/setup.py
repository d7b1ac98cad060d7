"""Builds what a training needs from its configuration and data set."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import optax
from absl import logging
from flax import linen as nn

from mtnet_jax.data import pipeline
from mtnet_jax.devices import compiler
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError
from mtnet_jax.locations import Path
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs import state as state_lib
from mtnet_jax.runs.checkpoints import Checkpoints
from mtnet_jax.runs.state import TrainState
from mtnet_jax.training import (
  early_stopping,
  mixing,
  optim,
  transfer,
  validation,
)
from mtnet_jax.training.mixing import Mixing
from mtnet_jax.training.step import TrainStep, make_train_step

# The advice where a device's memory is too small.
LESS_MEMORY = (
  'a smaller --config.train.batch_size or more devices, '
  '--config.model.dtype=bfloat16, --config.model.rematerialize=True (less '
  'memory, a third more arithmetic), or, where parameters are what is large, '
  '--config.mesh.fsdp above 1'
)


@dataclasses.dataclass(frozen=True)
class Setup:
  """All that a training needs besides its state.

  Attributes:
    dataset: the batches.
    mesh: the devices of all processes.
    initial_state: makes the state of step 0.
    shardings: the layout of the state on the devices.
    train_step: the function from `make_train_step`.
    validate: the function from `validation.make_validation`.
  """

  dataset: pipeline.TrainingBatches
  mesh: jax.sharding.Mesh
  initial_state: Callable[[], TrainState]
  shardings: TrainState
  train_step: TrainStep
  validate: validation.Validate


def build(config: ml_collections.ConfigDict, workdir: Path) -> Setup:
  """Opens the data and makes the network and its steps.

  Args:
    config: see configs/base.py.
    workdir: folder of the run.

  Raises:
    UserError: something in the configuration or the data must be mended, or
      the folder holds a run on other classes.
  """
  mesh = make_mesh(config)
  if config.train.log_every < 1:
    raise UserError(
      f'train.log_every (={config.train.log_every}) must be at least 1.'
    )
  early_stopping.check(config.train)
  transfer.check(config)
  dataset = pipeline.build(
    config,
    'train',
    jax.process_index(),
    jax.process_count(),
    batch_multiple=mesh.size,
  )
  run_folder.check_class_names(workdir, dataset.labels)
  model = build_model(config, len(dataset.labels), mesh)
  schedule = make_schedule(config, dataset)
  tx = optim.build(config.optim, schedule, config.train.accumulate)
  clip_shape = model_lib.training_clip_shape(config)
  initial_state = functools.partial(
    state_lib.create,
    model,
    tx,
    clip_shape,
    config.seed,
    average=config.optim.ema_decay > 0,
  )
  abstract = jax.eval_shape(initial_state)
  shardings = state_lib.shardings(abstract, mesh)
  _log_plan(config, dataset, abstract, mesh)
  return Setup(
    dataset=dataset,
    mesh=mesh,
    initial_state=initial_state,
    shardings=shardings,
    train_step=make_train_step(
      model,
      schedule,
      tx,
      config.seed,
      mesh,
      shardings,
      **step_options(config, model),
    ),
    validate=validation.make_validation(
      config, model, dataset, mesh, shardings
    ),
  )


def step_options(
  config: ml_collections.ConfigDict, model: nn.Module
) -> dict[str, Any]:
  """Returns the options of a train step besides its optimizer.

  Args:
    config: see configs/base.py.
    model: a network from `build_model`.

  Returns:
    Arguments of `make_train_step` by name.

  Raises:
    UserError: a value is not allowed, or clips cannot be mixed.
  """
  data, optim_config = config.data, config.optim
  for key in ('ema_decay', 'label_smoothing'):
    if not 0 <= optim_config[key] < 1:
      raise UserError(f'optim.{key} (={optim_config[key]}) must lie in [0, 1).')
  mix = Mixing(
    **{field.name: data[field.name] for field in dataclasses.fields(Mixing)}
  )
  mixing.check(mix, model.norm_batch_size)
  _check_parts(config, model)
  return {
    'trained': optim_config.trained,
    'accumulate': config.train.accumulate,
    'ema_decay': optim_config.ema_decay,
    'label_smoothing': optim_config.label_smoothing,
    'mix': mix if mix.share else None,
    'gate_after': config.train.gate_after,
    'regularization_loss': config.train.regularization_loss,
  }


def _check_parts(config, model):
  """Refuses options of a step that the network has no part for."""
  after, weight = config.train.gate_after, config.train.regularization_loss
  if after < 0 or weight < 0:
    raise UserError(
      f'train.gate_after (={after}) and train.regularization_loss (={weight}) '
      'must be at least 0.'
    )
  if after and not _has_gates(model):
    raise UserError(
      f'train.gate_after (={after}) is about the gates of SRTG, which '
      f'{config.model.name} lacks as it is configured: take a network with '
      'model.placement or model.recurrence and set model.gate=True, or leave '
      'it out.'
    )
  if weight and not model.class_regularization:
    raise UserError(
      f'train.regularization_loss (={weight}) is about the early predictions '
      'of Class Regularisation: set model.class_regularization=True, or leave '
      'it out.'
    )


def _has_gates(model):
  place = getattr(model, 'placement', None) or getattr(
    model, 'recurrence', False
  )
  return bool(place) and model.gate


def make_mesh(
  config: ml_collections.ConfigDict,
  devices: Sequence[jax.Device] | None = None,
) -> jax.sharding.Mesh:
  """Returns the mesh of a run, on which its batches can be laid out.

  Args:
    config: see configs/base.py.
    devices: the devices to use; None: all that JAX sees.

  Raises:
    UserError: the batch or the mesh does not divide among them.
  """
  mesh = mesh_lib.make_mesh(config.mesh.data, config.mesh.fsdp, devices)
  mesh_lib.check_divisible(config.train.batch_size, mesh, 'train.batch_size')
  return mesh


def build_model(
  config: ml_collections.ConfigDict, num_classes: int, mesh: jax.sharding.Mesh
) -> nn.Module:
  """Returns the network for training, like `runs.model.build_model`."""
  a_device = config.train.batch_size // mesh.size
  return model_lib.build_model(
    config,
    num_classes,
    norm_batch_size=config.train.norm_batch_size or a_device,
    freeze_norm=config.optim.trained != 'all' or config.train.freeze_norm,
  )


def first_state(
  config: ml_collections.ConfigDict, setup: Setup, checkpoints: Checkpoints
) -> TrainState:
  """Returns the last checkpoint's state, or a new one (`train.init_from`).

  Raises:
    UserError: the checkpoint is of another model, or `train.init_from` does
      not fit.
  """
  abstract = jax.tree.map(
    lambda leaf, sharding: leaf.update(sharding=sharding),
    jax.eval_shape(setup.initial_state),
    setup.shardings,
  )
  restored = checkpoints.restore_last(abstract)
  if restored is not None:
    logging.info('Resuming from the checkpoint of step %s', int(restored.step))
    return restored
  new = compiler.quick_jit(setup.initial_state, out_shardings=setup.shardings)()
  init_from = config.train.init_from
  if not init_from:
    return new
  return transfer.start_from(
    init_from, new, setup.dataset.labels, config.optim.trained
  )


def make_schedule(
  config: ml_collections.ConfigDict, dataset: pipeline.TrainingBatches
) -> optax.Schedule:
  """Returns the learning rate by step; an update has that of its first step."""
  multigrid, accumulate = dataset.multigrid, config.train.accumulate
  factors = [
    multigrid.learning_rate_factor(step) for step in range(multigrid.period)
  ]
  return optim.learning_rate(
    config.optim,
    batch_size=config.train.batch_size * accumulate,
    steps_per_epoch=multigrid.steps_per_epoch,
    num_steps=len(dataset),
    factors=optim.mean_factors(factors, accumulate),
  )


def _log_plan(config, dataset, abstract, mesh):
  leaves = jax.tree.leaves(abstract.params)
  logging.info(
    '%s: %s parameters; %s videos of %s classes; %s steps on %s',
    config.model.name,
    f'{sum(leaf.size for leaf in leaves):,}',
    dataset.num_videos,
    len(dataset.labels),
    len(dataset),
    f'{mesh.size} x {mesh.devices.flat[0].device_kind} {dict(mesh.shape)}',
  )
  on_cpu = mesh.devices.flat[0].platform == 'cpu'
  if on_cpu and config.model.dtype in ('bfloat16', 'float16'):
    logging.warning(
      'A CPU computes in %s several times as slowly as in float32: give '
      '--config.model.dtype=float32.',
      config.model.dtype,
    )
  multigrid = dataset.multigrid
  ratio_of = {
    multigrid.shape(step): multigrid.volume_ratio(step)
    for step in range(multigrid.period)
  }
  for shape, steps in multigrid.shapes().items():
    logging.info(
      '%s of %s steps: (b, t, h, w) = %s, %.3f of the base volume',
      steps,
      multigrid.period,
      shape,
      ratio_of[shape],
    )
