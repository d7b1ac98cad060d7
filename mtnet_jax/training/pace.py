"""How long will a training take on this machine?"""

import dataclasses
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
from mtnet_jax.training.step_metrics import COUNTERS

_STEPS = 3  # that are measured, after one that is not
# Of a training step on the same clips, what judging them takes.
_FORWARD_SHARE = 0.4


@dataclasses.dataclass(frozen=True)
class Pace:
  """What a training takes, in seconds.

  Attributes:
    compile: until the first step.
    step: a step, and the loading of its clips.
    clip: a clip that is judged, and its loading.
  """

  compile: float
  step: float
  clip: float

  def of(self, steps: int, judged: int) -> float:
    """Returns the seconds of a run.

    Args:
      steps: of training.
      judged: clips, those of validations and of the evaluation.
    """
    return self.compile + steps * self.step + judged * self.clip


def measure(config: ml_collections.ConfigDict, workdir: Path) -> Pace:
  """Compiles the train step and runs it a few times, on the first clips.

  Args:
    config: the run's configuration.
    workdir: its folder, in which nothing changes.

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
  loading /= max(1, min(config.data.num_workers, os.cpu_count() or 1))
  # Loaders work beside a device, and share a CPU with the steps.
  beside = mesh_lib.platform() != 'cpu'
  each = max(took, loading) if beside else took + loading
  clips = config.train.batch_size
  judging = (_FORWARD_SHARE * took + loading) / clips
  return Pace(compiled, each, judging * _pixels(config))


def _pixels(config) -> float:
  """How many times the pixels of a training clip a view has."""
  return (config.eval.input_size / config.data.input_size) ** 2
