"""Trains a network from the first step to the last."""

import contextlib
import functools
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np
from absl import logging

from mtnet_jax import files
from mtnet_jax.data import loading
from mtnet_jax.data.batches import Batch
from mtnet_jax.data.multigrid import Shape
from mtnet_jax.devices import compiler, device_memory, processes
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.devices.watchdog import Watchdog
from mtnet_jax.errors import RESUME
from mtnet_jax.locations import Path
from mtnet_jax.progress import Progress
from mtnet_jax.runs import agreement, configuration, lock
from mtnet_jax.runs.checkpoints import Checkpoints, UnsavedError
from mtnet_jax.runs.folder import make_workdir
from mtnet_jax.runs.metric_writer import MetricWriter, NoWriter
from mtnet_jax.runs.quarantine import Quarantine
from mtnet_jax.runs.state import TrainState
from mtnet_jax.training import programs
from mtnet_jax.training import setup as setup_lib
from mtnet_jax.training.early_stopping import Patience
from mtnet_jax.training.profiling import Profiler
from mtnet_jax.training.setup import Setup
from mtnet_jax.training.step import Metrics
from mtnet_jax.training.step_metrics import StepMetrics

# The number, by the signal that a process got, that it adds to the sum which
# stops all processes. SIGTERM's exceeds what SIGINT of all processes adds up
# to.
_STOP = {'SIGINT': 1.0, 'SIGTERM': 2.0**16}
# Seconds for writing a few lines: a file system that takes longer is stalled.
_WRITING_SECONDS = 60.0


def train(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  profiled: range = range(0),
  *,
  compile_ahead: bool | None = None,
) -> None:
  """Trains `config` in `workdir`, from its last checkpoint if it has one.

  A finished run is left as it is, and the log says so. Every process of a run
  calls it.

  Args:
    config: see configs/base.py.
    workdir: gets `checkpoints/`, `metrics.jsonl`, `tensorboard/`,
      `config.json`, `labels.txt`, and `quarantine.csv` where videos are broken.
      All processes must see it.
    profiled: steps of which `WORKDIR/profile` gets a trace.
    compile_ahead: whether all shapes of clips are compiled before the first
      step, or each when it comes; None: before, except on CPUs, which compile
      with the cores that train.

  Raises:
    UserError: something in the configuration, the data or the workdir must be
      mended, or the loss is no longer finite.
    SystemExit: SIGTERM or Ctrl-C came to one of the processes, with code 75; a
      checkpoint was written before.
  """
  # Before anything is compiled.
  compiler.keep_programs(
    config.train.compilation_cache, 'train.compilation_cache'
  )
  if compile_ahead is None:
    compile_ahead = mesh_lib.platform() != 'cpu'
  main = processes.is_main()
  with (
    _catch_signals() as stop,
    Watchdog(
      config.train.stall_timeout,
      processes.board(),
      index=jax.process_index(),
      ailment=loading.killed_worker,
    ) as watchdog,
  ):
    workdir = make_workdir(workdir)
    with (
      lock.hold(workdir) if main else contextlib.nullcontext(),
      device_memory.explained(setup_lib.LESS_MEMORY),
    ):
      setup = setup_lib.build(config, workdir)
      agreement.check(config, setup.dataset)
      with Checkpoints(workdir) as checkpoints, watchdog.blaming_others():
        state = setup_lib.first_state(config, setup, checkpoints)
        step, end = int(state.step), len(setup.dataset)
        if main:
          _write_run(config, setup.dataset.labels, workdir, step >= end)
        if step >= end:
          _tell_finished(config, workdir, step, end)
          return
        # One process is enough: the others would do the same.
        profiler = Profiler(profiled if main else range(0), workdir / 'profile')
        loop = _Loop(
          config, setup, workdir, checkpoints, watchdog, stop, profiler
        )
        loop.run(state, compile_ahead)


def _stopped_by(total: float, own: list[str]) -> str:
  """Returns the signal that stops the run; `total` is the sum of `_STOP`."""
  if own:
    return own[0]
  return 'SIGTERM' if round(total) >= _STOP['SIGTERM'] else 'SIGINT'


def is_due(step: int, every: int) -> bool:
  """Returns whether `step`, from 1, is a multiple of `every`; never if 0."""
  return every > 0 and step % every == 0


class _Loop:
  """The steps of a run, and the work that is due between them."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    setup: Setup,
    workdir: Path,
    checkpoints: Checkpoints,
    watchdog: Watchdog,
    stop: list[str],
    profiler: Profiler,
  ):
    self._config, self._setup, self._workdir = config, setup, workdir
    self._checkpoints, self._watchdog = checkpoints, watchdog
    self._stop, self._profiler = stop, profiler
    self._metrics = StepMetrics(watchdog)
    self._programs = {}
    self._quarantine = Quarantine(
      workdir,
      setup.dataset.num_videos,
      config.data.max_broken_share,
      jax.process_index(),
    )

  def run(self, state: TrainState, compile_ahead: bool) -> None:
    """Trains from `state` to the end, or until a signal stops it.

    Args:
      state: goes into the first step, which donates it.
      compile_ahead: whether all shapes of clips are compiled before it.
    """
    data, dataset = self._config.data, self._setup.dataset
    start, end = int(state.step), len(dataset)
    self._profiler.check(start, end)
    main = processes.is_main()
    patience = Patience(self._config.train.patience, self._workdir, start)
    if patience.is_over:
      return
    if compile_ahead:
      self._compile(start, state, programs.shapes_to_come(dataset, start))
    batches = loading.iterate(dataset, start, data.num_workers, data.prefetch)
    writer = MetricWriter(self._workdir, start) if main else NoWriter()
    with (
      contextlib.closing(batches),
      contextlib.closing(writer),
      self._profiler.closing(),
      Progress(
        'training', end, 'steps', done=start, silent=not main
      ) as progress,
    ):
      for step in range(start + 1, end + 1):
        self._profiler.begin(step)
        state, metrics = self._train(step, state, batches)
        self._profiler.end(step, metrics)
        last = step == end
        stopping = self._metrics.total('stop') > 0 and not last
        note = ''
        if is_due(step, self._config.train.log_every) or last:
          summary = self._metrics.summarize()
          self._write(writer, step, summary)
          note = f'loss {summary["train/loss"]:.3f}'
        progress.advance(1, note)

        scores = None
        wanted = is_due(step, self._config.train.eval_every) or last
        if wanted and not stopping:
          state, scores = self._validate(step, state, last, writer)
        if scores:
          patience.add(scores['top1'])
        last = last or patience.is_over

        wanted = scores or last or stopping
        if wanted or is_due(step, self._config.train.checkpoint_every):
          with self._metrics.paused(step, 'saving', limit=None):
            self._save(state, scores)
        if stopping or last:
          self._watchdog.heartbeat('saving', step)
          with self._warning_if_unsaved():
            self._checkpoints.wait()
        if stopping:
          name = _stopped_by(self._metrics.total('stop'), self._stop)
          logging.warning(
            'Stopped by %s at step %s; the same command resumes.', name, step
          )
          sys.exit(RESUME)
        if last:
          break

  def _train(
    self, step: int, state: TrainState, batches: Iterator[Batch]
  ) -> tuple[TrainState, Metrics]:
    batch = self._metrics.wait_for(step, batches)
    self._quarantine.add(batch['broken'].tolist())
    self._quarantine.check(round(self._metrics.total('broken')))
    rows = len(batch['labels'])
    counters = {
      # Only what all processes know in the same step can stop all of them.
      'stop': np.full(
        rows, _STOP[self._stop[0]] / rows if self._stop else 0, np.float32
      ),
      'broken': np.full(rows, len(self._quarantine) / rows, np.float32),
    }
    arrays = {name: batch[name] for name in ('clips', 'labels')}
    arrays = mesh_lib.to_devices(
      arrays | {'counters': counters}, self._setup.mesh
    )
    shape = arrays['clips'].shape[:-1]
    if shape not in self._programs:
      self._compile(step, state, [shape])
    state, metrics = self._programs[shape](state, arrays)
    self._metrics.add(step, metrics, arrays['clips'].shape[0])
    return state, metrics

  def _validate(
    self, step: int, state: TrainState, last: bool, writer
  ) -> tuple[TrainState, dict[str, float] | None]:
    with self._metrics.paused(step, 'validating'):
      watched = functools.partial(self._watchdog.iterate, step=step)
      state, scores = self._setup.validate(state, watched, last)
    if scores:
      named = {f'val/{name}': value for name, value in scores.items()}
      self._write(writer, step, named)
    return state, scores

  def _compile(self, step: int, state: TrainState, shapes: list[Shape]) -> None:
    with self._metrics.paused(step, 'compiling'):
      self._programs |= programs.compile_all(
        self._setup.train_step, state, shapes, self._setup.mesh
      )

  def _write(self, writer, step: int, figures: dict[str, float]) -> None:
    with (
      self._metrics.paused(step, 'writing figures', _WRITING_SECONDS),
      self._warning_if_unsaved(),
    ):
      writer.write(step, figures)

  def _save(self, state: TrainState, scores) -> None:
    self._metrics.check_finite()
    with self._warning_if_unsaved():
      self._checkpoints.save(state, scores)

  @contextlib.contextmanager
  def _warning_if_unsaved(self) -> Iterator[None]:
    """Turns a full disk into a warning where the configuration allows it."""
    try:
      yield
    except (UnsavedError, OSError) as error:
      if self._config.train.stop_if_unsaved:
        raise
      logging.warning(
        '%s Training continues (train.stop_if_unsaved=False).', error
      )


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[str]]:
  """Yields a list that gets the names of signals, to end the loop in order.

  SIGTERM and SIGINT, which is Ctrl-C's, ask for that; a second SIGINT ends the
  process at once.
  """
  told = []
  if threading.current_thread() is not threading.main_thread():
    yield told  # only the main thread may handle signals
    return

  def stop(number: int, _: object) -> None:
    name = signal.Signals(number).name
    # `print` cannot be used, since its buffer may be in use just now.
    if name == 'SIGINT' and told:
      os.write(2, b'\nEnded at once; the last checkpoint is whole.\n')
      os._exit(RESUME)
    told.append(name)
    if len(told) == 1:
      os.write(2, b'\nStopping in good order; Ctrl-C ends at once.\n')

  before = {
    number: signal.signal(number, stop)
    for number in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    yield told
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _tell_finished(config, workdir: Path, step: int, end: int) -> None:
  key = 'num_steps' if config.train.num_steps else 'num_epochs'
  logging.info(
    '%s is finished: its last checkpoint is of step %d, and train.%s (=%s) '
    'asks for %d. To train longer, give the same command with a larger '
    '--config.train.%s; the learning rates are then those of the longer run. '
    'To score the run: mtnet eval --workdir=%s.',
    workdir,
    step,
    key,
    config.train[key],
    end,
    key,
    workdir,
  )


def _write_run(
  config, labels: tuple[str, ...], workdir: Path, finished: bool
) -> None:
  """Writes what is trained, and warns where a resumed run does differently.

  For a finished run it writes only what is missing.
  """
  path = workdir / 'config.json'
  if not finished:
    changes = configuration.differences(path, config) if path.exists() else []
    if changes:
      logging.warning(
        '%s: resuming with another configuration than before: %s.',
        path,
        '; '.join(changes),
      )
  texts = {
    path: config.to_json_best_effort(indent=2, sort_keys=True),
    workdir / 'labels.txt': '\n'.join(labels) + '\n',
  }
  for file, text in texts.items():
    if not (finished and file.exists()):
      files.write_text(file, text)
