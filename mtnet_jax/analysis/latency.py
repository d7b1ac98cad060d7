"""Measures the time and memory of a network on the device at hand.

Two programs are timed: the forward pass of evaluation, and the gradient of a
training step, which is a forward and a backward pass. The thesis prints the two
passes apart (Tables 5.5 and 5.7): the backward one is the difference of the
medians.

Clips are random, of zero mean and unit deviation, as normalization leaves them,
and lie on the device. Parameters are random too: some devices multiply zeros
faster than other numbers.
"""

import dataclasses
import math
import os
import pathlib
import re
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtnet_jax.devices import compiler, device_memory
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError
from mtnet_jax.training import losses

ClipShape = tuple[int, int, int, int]
Clock = Callable[[], float]

# The number of runs of a program, unless they take longer than the seconds
# below.
_MOST_RUNS = 20
_LEAST_RUNS = 3
_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Timing:
  """One program on one device.

  Attributes:
    median: seconds a clip: those of a run over its clips.
    lower_quartile: the lower quartile of the runs, in seconds a clip.
    upper_quartile: the upper quartile of the runs, in seconds a clip.
    runs: measured, a first one not counted.
    compile_seconds: the time of tracing and compiling; where JAX keeps compiled
      programs (`JAX_COMPILATION_CACHE_DIR`) and has this one, of finding it.
    temporary_bytes: the memory that the compiler sets aside for a run, for all
      its clips, beyond arguments and results; None where it does not tell.
  """

  median: float
  lower_quartile: float
  upper_quartile: float
  runs: int
  compile_seconds: float
  temporary_bytes: int | None


class DoesNotFitError(UserError):
  """The clips are more than the device's memory holds."""


def measure_forward(
  model: nn.Module,
  clip_shape: ClipShape,
  batch: int,
  clock: Clock = time.perf_counter,
) -> Timing:
  """Measures logits in evaluation: BN by its moving statistics, no dropout.

  Args:
    model: a network from `mtnet_jax.models.build`.
    clip_shape: frames, height, width, channels of a clip.
    batch: clips a run.
    clock: seconds since any moment.

  Raises:
    DoesNotFitError: the device has not the memory.
  """

  def forward(variables, clips, key):
    del key
    return model.apply(variables, clips, train=False)[0]

  what = f'The forward pass of {_clips(batch)}'
  return _measure(forward, what, model, clip_shape, batch, clock)


def measure_step(
  model: nn.Module,
  clip_shape: ClipShape,
  batch: int,
  clock: Clock = time.perf_counter,
) -> Timing:
  """Measures the gradient of a training step by all parameters.

  The loss is the cross-entropy; BN normalizes by the batch. The optimizer's
  update is not part of it. Arguments and errors are those of
  `measure_forward`.
  """

  def step(variables, clips, key):
    def loss(params):
      (logits, _), updated = model.apply(
        {**variables, 'params': params},
        clips,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': key, 'pooling': key},
      )
      labels = jnp.zeros(batch, jnp.int32)
      return losses.cross_entropy(logits, labels).mean(), updated

    return jax.grad(loss, has_aux=True)(variables['params'])

  what = f'The forward and backward pass of {_clips(batch)}'
  return _measure(step, what, model, clip_shape, batch, clock)


def _clips(batch):
  return 'one clip' if batch == 1 else f'{batch} clips'


def _measure(program, what, model, clip_shape, batch, clock):
  """Compiles and runs a function of variables, clips and a key."""
  clips = jax.ShapeDtypeStruct(
    (batch, *clip_shape), getattr(model, 'dtype', None) or jnp.float32
  )
  key = jax.random.key(0)
  variables = jax.eval_shape(model.init, key, clips)
  try:
    start = clock()
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
    program = compiler.jit(program, mesh)
    compiled = program.lower(variables, clips, key).compile()
    compile_seconds = clock() - start
    memory = compiled.memory_analysis()
    if memory and jax.devices()[0].platform == 'cpu':
      # If there is too little memory, the system would end the whole process.
      _check_memory(memory, what)
    arguments = (
      jax.tree_util.tree_map_with_path(_draw, variables),
      jax.random.normal(key, clips.shape, clips.dtype),
      key,
    )
    seconds = _time(lambda: jax.block_until_ready(compiled(*arguments)), clock)
  except jax.errors.JaxRuntimeError as error:
    if not device_memory.is_exhausted(error):
      raise
    raise DoesNotFitError(
      f'{what} does not fit into the memory of this device. '
      'Choose fewer with --batch, or a smaller --clip.'
    ) from error
  lower, median, upper = np.percentile(seconds, (25, 50, 75)) / batch
  return Timing(
    float(median),
    float(lower),
    float(upper),
    len(seconds),
    compile_seconds,
    memory.temp_size_in_bytes if memory else None,
  )


def _time(run: Callable[[], object], clock: Clock) -> list[float]:
  """Returns the seconds of each run but the first, which warms up."""
  run()
  seconds = []
  while len(seconds) < _LEAST_RUNS or (
    len(seconds) < _MOST_RUNS and sum(seconds) < _SECONDS
  ):
    start = clock()
    run()
    seconds.append(clock() - start)
  return seconds


def _draw(path, leaf):
  """Draws a random kernel that keeps variances; BN gets ones and zeros."""
  if path[-1].key in ('scale', 'var'):
    return jnp.ones(leaf.shape, leaf.dtype)
  if leaf.ndim < 2:
    return jnp.zeros(leaf.shape, leaf.dtype)
  deviation = math.prod(leaf.shape[:-1]) ** -0.5
  values = np.random.default_rng(0).standard_normal(leaf.shape, np.float32)
  return jnp.asarray(deviation * values, leaf.dtype)


def _check_memory(memory, what):
  needed = (
    memory.temp_size_in_bytes
    + memory.argument_size_in_bytes
    + memory.output_size_in_bytes
  )
  available = _available_memory()
  if needed > available:
    raise DoesNotFitError(
      f'{what} needs {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB of '
      'memory are available here. Choose fewer with --batch, or a smaller '
      '--clip.'
    )


def _available_memory() -> int:
  """Returns the bytes that a new program can have, or if unknown all."""
  try:
    text = pathlib.Path('/proc/meminfo').read_text()
    return int(re.search(r'MemAvailable: *(\d+) kB', text)[1]) * 1024
  except (OSError, TypeError):
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
