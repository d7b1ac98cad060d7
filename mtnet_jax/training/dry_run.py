"""Estimates what a run needs on devices that are not at hand.

Its train step is compiled ahead of time for a target of `devices.targets`. The
results are the compiler's estimates; nothing runs.
"""

import functools
from collections.abc import Iterator

import jax
import ml_collections
from flax import linen as nn

from mtnet_jax.data import pipeline
from mtnet_jax.data.multigrid import Multigrid
from mtnet_jax.devices import device_memory, hlo, targets
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs import state as state_lib
from mtnet_jax.runs.state import TrainState
from mtnet_jax.training import optim, programs, setup
from mtnet_jax.training.step import TrainStep, make_train_step

# The number of classes where no data set says it.
_CLASSES = 400
_DAY = 86_400  # seconds


def describe(config: ml_collections.ConfigDict, target: str) -> str:
  """Returns what a compiler says of a run's train step, in lines for people.

  Args:
    config: see configs/base.py. Where `data.dir` is empty, a data set of 400
      classes is assumed.
    target: see `targets.check`.

  Raises:
    UserError: the target is unknown, nothing here compiles for it, the run does
      not fit into its devices' memory, or something in the configuration must
      be mended.
  """
  targets.check(target)
  targets.compiler_versions(target)
  mesh = setup.make_mesh(config, targets.devices(target))
  batch_size = config.train.batch_size
  dataset = None
  if config.data.dir:
    dataset = pipeline.build(config, 'train', batch_multiple=mesh.size)
  classes = len(dataset.labels) if dataset else _CLASSES
  model = setup.build_model(config, classes, mesh)
  shape = model_lib.training_clip_shape(config)
  step, arguments = train_step(config, model, shape, batch_size, mesh)
  with device_memory.explained(setup.LESS_MEMORY):
    compiled = step.lower(*arguments).compile()
  return '\n'.join(_lines(config, target, mesh, shape, dataset, compiled))


def train_step(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  clip_shape: tuple[int, int, int, int],
  clips: int,
  mesh: jax.sharding.Mesh,
) -> tuple[TrainStep, tuple[TrainState, dict]]:
  """Returns a train step, and abstract arrays for its state and a batch.

  Args:
    config: `data`, `optim` and `train` are read from it.
    model: a network from `models.build`.
    clip_shape: `(t, h, w, c)`.
    clips: the number of clips of a batch, over all devices.
    mesh: the devices, which need not be here.
  """
  tx = optim.build(config.optim, lambda _: 0.1, config.train.accumulate)
  average = config.optim.ema_decay > 0
  create = functools.partial(
    state_lib.create, model, tx, clip_shape, 0, average
  )
  state = jax.eval_shape(create)
  shardings = state_lib.shardings(state, mesh)
  state = jax.tree.map(
    lambda leaf, sharding: leaf.update(sharding=sharding), state, shardings
  )

  batch = programs.abstract_batch((clips, *clip_shape[:3]), mesh)
  options = setup.step_options(config, model)
  step = make_train_step(
    model, lambda _: 0.1, tx, 0, mesh, shardings, **options
  )
  return step, (state, batch)


def _lines(
  config: ml_collections.ConfigDict,
  target: str,
  mesh: jax.sharding.Mesh,
  shape: tuple[int, int, int, int],
  dataset: pipeline.TrainingBatches | None,
  compiled: jax.stages.Compiled,
) -> Iterator[str]:
  chip, batch_size = targets.chip(target), config.train.batch_size
  yield (
    f'{config.model.name} in {config.model.dtype} on {target}: '
    f'{mesh.size} x {batch_size // mesh.size} clips of {shape}. Estimates of '
    'the compiler; nothing has been measured.'
  )
  peak = compiled.memory_analysis().peak_memory_in_bytes
  yield (
    f'memory of a device: {peak / 1e9:.1f} of {chip.memory / 1e9:.1f} GB, '
    f'{peak / chip.memory:.0%}'
  )
  seconds = _seconds(compiled, chip)
  if seconds:
    yield (
      f'step: {seconds * 1e3:.1f} ms without the exchange between devices; '
      f'{_DAY / seconds:,.0f} steps a day; the loaders must deliver '
      f'{batch_size / seconds:,.0f} clips a second'
    )
    if dataset:
      days = len(dataset) * seconds / _DAY
      yield f'run: {len(dataset):,} steps, {days:.2g} days without validation'
  else:
    yield 'step: this compiler estimates no time'
  yield from _shapes(config, dataset, mesh.size)


def _seconds(compiled: jax.stages.Compiled, chip: targets.Chip) -> float:
  """Returns the compiler's estimate; 0 where there is none, as for a GPU."""
  if not chip.clock:
    return 0.0
  ran = hlo.steps(hlo.parse(compiled.as_text()))
  return hlo.total_cycles(ran) / chip.clock


def _shapes(config, dataset, devices) -> Iterator[str]:
  train, data = config.train, config.data
  multigrid = (
    dataset.multigrid
    if dataset
    else Multigrid(
      *(train.batch_size, data.num_frames, data.input_size),
      samples_per_epoch=100_000,
      long_cycle=train.long_cycle,
      short_cycle=train.short_cycle,
      batch_multiple=devices,
    )
  )
  others = len(multigrid.shapes()) - 1
  if others:
    yield (
      f'multigrid: {others} other shapes of about equal volume, not compiled '
      'here'
    )
