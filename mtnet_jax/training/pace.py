"""Measures how long a training will take on this machine."""

import os
import time

import jax
import ml_collections
import numpy as np

from mtnet_jax.devices import compiler
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.locations import Path
from mtnet_jax.training import programs
from mtnet_jax.training import setup as setup_lib
from mtnet_jax.training.recipe import Pace
from mtnet_jax.training.step_metrics import COUNTERS

_STEPS = 3  # that are measured, after one that is not
# The time of scoring clips, as a share of a training step on the same clips.
_FORWARD_SHARE = 0.4


def measure(config: ml_collections.ConfigDict, workdir: Path) -> Pace:
  """Compiles the train step and runs it a few times, on the first clips.

  Args:
    config: the run's configuration.
    workdir: the run's folder, in which nothing changes.

  Raises:
    UserError: something in the configuration or the data must be mended.
  """
  start = time.monotonic()
  compiler.keep_programs(
    config.train.compilation_cache, 'train.compilation_cache'
  )
  setup = setup_lib.build(config, workdir)
  state = compiler.quick_jit(
    setup.initial_state, out_shardings=setup.shardings
  )()
  shape = setup.dataset.multigrid.shape(0)
  step = programs.compile_all(setup.train_step, state, [shape], setup.mesh)[
    shape
  ]
  compiled = time.monotonic() - start
  batch = setup.dataset[0]
  start = time.monotonic()
  batch = setup.dataset[1]
  loading = time.monotonic() - start
  rows = len(batch['labels'])
  arrays = {name: batch[name] for name in ('clips', 'labels')} | {
    'counters': {name: np.zeros(rows, np.float32) for name in COUNTERS}
  }
  for index in range(_STEPS + 1):
    start = time.monotonic() if index == 1 else start
    state, metrics = step(state, mesh_lib.to_devices(arrays, setup.mesh))
    jax.block_until_ready(metrics)
  took = (time.monotonic() - start) / _STEPS
  return combine(config, compiled, took, loading, mesh_lib.platform())


def combine(
  config: ml_collections.ConfigDict,
  compiled: float,
  took: float,
  loading: float,
  platform: str,
) -> Pace:
  """Returns a training's pace from what was measured of it.

  Args:
    config: the run's configuration.
    compiled: seconds until the first step could begin.
    took: seconds of a step.
    loading: seconds in which this process loads a step's clips.
    platform: the platform of the devices; on 'cpu' they load the clips, too.
  """
  loading /= max(1, min(config.data.num_workers, os.cpu_count() or 1))
  # Loaders work beside a device, and share a CPU with the steps.
  each = took + loading if platform == 'cpu' else max(took, loading)
  judging = (_FORWARD_SHARE * took + loading) / config.train.batch_size
  # A view may have more pixels than a training clip.
  pixels = (config.eval.input_size / config.data.input_size) ** 2
  return Pace(compiled, each, judging * pixels)
