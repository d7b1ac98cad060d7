"""The train step's programs: one for each shape of clips, ready before use."""

import concurrent.futures
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from mtnet_jax.data.multigrid import Shape
from mtnet_jax.data.pipeline import TrainingBatches
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.devices import processes
from mtnet_jax.progress import Progress
from mtnet_jax.runs.state import TrainState
from mtnet_jax.training.step import TrainStep
from mtnet_jax.training.step_metrics import COUNTERS

# Of this machine, for each program that is compiled at the same time.
_CORES = 4


def shapes_to_come(dataset: TrainingBatches, start: int) -> list[Shape]:
  """Returns the shapes (b, t, h, w) of a run's batches, as they come.

  Args:
    dataset: the batches of the run.
    start: the first batch's number.
  """
  multigrid = dataset.multigrid
  steps = range(start, min(len(dataset), start + multigrid.period))
  return list(dict.fromkeys(map(multigrid.shape, steps)))


def compile_all(
  train_step: TrainStep,
  state: TrainState,
  shapes: Sequence[Shape],
  mesh: jax.sharding.Mesh,
) -> dict[Shape, TrainStep]:
  """Compiles the train step for shapes of clips, and runs nothing.

  All processes of a run must call it with the same shapes. It returns when all
  of them have compiled: who finds programs in a cache waits for the others
  here, where waiting has no limit.

  Args:
    train_step: the function from `make_train_step`.
    state: the state that the next step takes, or one that lies as it does.
    shapes: (b, t, h, w) over all processes; compiled in this order, several at
      once for TPUs.
    mesh: the devices of all processes.

  Returns:
    The programs by shape. Each takes what `train_step` takes, and donates the
    state too.
  """
  programs = {}
  silent = len(shapes) == 1 or not processes.is_main()
  progress = Progress('compiling', len(shapes), 'shapes', silent=silent)
  pool = concurrent.futures.ThreadPoolExecutor(_at_once(mesh))
  lock = threading.Lock()

  def finish(shape, lowered):
    before = time.monotonic()
    program = lowered.compile()
    seconds = time.monotonic() - before
    with lock:
      programs[shape] = program
      progress.advance()
      logging.info(
        'Compiled for clips of %s in %.0f s (%s of %s)',
        shape,
        seconds,
        len(programs),
        len(shapes),
      )

  try:
    with progress:
      futures = []
      for shape in shapes:
        logging.info('Compiling for clips of %s', shape)
        # Traced in this thread: the order of programs is that of the shapes.
        lowered = train_step.lower(state, abstract_batch(shape, mesh))
        futures.append(pool.submit(finish, shape, lowered))
      for future in futures:
        future.result()
  finally:
    pool.shutdown(cancel_futures=True)
  processes.wait_for_all('compiled the train step')
  return programs


def _at_once(mesh: jax.sharding.Mesh) -> int:
  """Returns how many programs are compiled at the same time.

  A GPU's compiler times kernels on the device, and must be alone there.
  """
  on_tpu = mesh.devices.flat[0].platform == 'tpu'
  return max(1, (os.cpu_count() or 1) // _CORES) if on_tpu else 1


def abstract_batch(shape: Shape, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """Returns what a step gets besides the state, without its numbers.

  Args:
    shape: (b, t, h, w) over all devices.
    mesh: the devices.
  """
  split = mesh_lib.split_batch(mesh)

  def rows(dtype, *axes):
    return jax.ShapeDtypeStruct((shape[0], *axes), dtype, sharding=split)

  return {
    'clips': rows(jnp.uint8, *shape[1:], 3),
    'labels': rows(jnp.int32),
    'counters': {name: rows(jnp.float32) for name in COUNTERS},
  }
