"""The training loop."""

import contextlib
import dataclasses
import functools
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np
from absl import logging

from mtnet_jax import (
  cli,
  distributed,
  evaluation,
  optim,
  state,
  train_step,
  transfer,
)
from mtnet_jax.checkpoints import Checkpoints, UnsavedError, make_workdir
from mtnet_jax.data import loading, pipeline
from mtnet_jax.errors import UserError
from mtnet_jax.metric_writer import MetricWriter, NoWriter
from mtnet_jax.progress import Progress
from mtnet_jax.quarantine import Quarantine
from mtnet_jax.state import TrainState
from mtnet_jax.typing import Batch
from mtnet_jax.watch import Watch
from mtnet_jax.window import Window

_FEW_VIDEOS = 1_000
# For a few lines: a file system that takes longer stands still.
_WRITING_SECONDS = 60.0


def train(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> None:
  """Trains `config` in `workdir`, from its last checkpoint if it has one.

  Where there are several processes, each of them calls it.

  Args:
    config: see configs/base.py.
    workdir: gets `checkpoints/`, `metrics.jsonl`, `tensorboard/`,
      `config.json`, `labels.txt`, and `quarantine.csv` where videos are broken.
      All processes must see it.

  Raises:
    UserError: something in the configuration, the data or the workdir must be
      mended, or the loss is no longer finite.
    SystemExit: SIGTERM came to one of the processes, with code 75; a checkpoint
      was written before.
  """
  workdir = make_workdir(workdir)
  run = _build(config, workdir)
  with (
    _catch_sigterm() as stop,
    Checkpoints(workdir) as checkpoints,
    # Inside: of an error it tells the others before anything waits for them.
    Watch(
      config.train.stall_timeout,
      distributed.board(),
      index=jax.process_index(),
    ) as watch,
  ):
    current = _first_state(config, run, checkpoints)
    if distributed.is_main():
      _write_run(config, run.dataset.labels, workdir)
    _Loop(config, run, workdir, checkpoints, watch, stop).go(current)


def due(step: int, every: int) -> bool:
  """Whether `step` (from 1) is a multiple of `every`; never where that is 0."""
  return every > 0 and step % every == 0


@dataclasses.dataclass(frozen=True)
class _Run:
  """What a configuration and a data set make of each other."""

  dataset: pipeline.TrainingBatches
  mesh: jax.sharding.Mesh
  initial_state: Callable[[], TrainState]
  shardings: TrainState
  train_step: train_step.TrainStep
  # (state, what watches batches) -> (state with precise statistics, figures)
  validate: Callable[..., tuple[TrainState, dict[str, float] | None]]


class _Loop:
  """The steps of a run, and what is due between them."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    run: _Run,
    workdir: pathlib.Path,
    checkpoints: Checkpoints,
    watch: Watch,
    stop: threading.Event,
  ):
    self._config, self._run, self._workdir = config, run, workdir
    self._checkpoints, self._watch, self._stop = checkpoints, watch, stop
    self._window = Window(watch)
    self._shapes = set()
    self._quarantine = Quarantine(
      workdir,
      run.dataset.num_videos,
      config.data.max_broken_share,
      jax.process_index(),
    )

  def go(self, current: TrainState) -> None:
    """Trains from `current` to the end, or until SIGTERM."""
    data, dataset = self._config.data, self._run.dataset
    start, end = int(current.step), len(dataset)
    main = distributed.is_main()
    batches = loading.iterate(dataset, start, data.num_workers, data.prefetch)
    writer = MetricWriter(self._workdir, start) if main else NoWriter()
    with (
      contextlib.closing(batches),
      contextlib.closing(writer),
      Progress(
        'training', end, 'steps', done=start, silent=not main
      ) as progress,
    ):
      for step in range(start + 1, end + 1):
        current = self._train(step, current, batches)
        last = step == end
        stopping = self._window.agreed('stop') > 0 and not last
        note = ''
        if due(step, self._config.train.log_every) or last:
          figures = self._window.close()
          self._write(writer, step, figures)
          note = f'loss {figures["train/loss"]:.3f}'
        progress.advance(1, note)

        scores = None
        wanted = due(step, self._config.train.eval_every) or last
        if wanted and not stopping:
          with self._window.paused(step, 'validating'):
            watched = functools.partial(self._watch.iterate, step=step)
            current, scores = self._run.validate(current, watched)
          if scores:
            named = {f'val/{name}': value for name, value in scores.items()}
            self._write(writer, step, named)

        wanted = scores or last or stopping
        if wanted or due(step, self._config.train.checkpoint_every):
          with self._window.paused(step, 'saving', limit=None):
            self._save(current, scores)
        if stopping or last:
          self._watch.note('saving', step)
          self._checkpoints.wait()
        if stopping:
          logging.warning('Stopped by SIGTERM at step %s; run again.', step)
          sys.exit(cli.RESUME)

  def _train(
    self, step: int, current: TrainState, batches: Iterator[Batch]
  ) -> TrainState:
    batch = self._window.wait_for(step, batches)
    self._quarantine.add(batch['broken'].tolist())
    self._quarantine.check(round(self._window.agreed('broken')))
    rows = len(batch['labels'])
    notes = {
      # Only what all know in the same step can make all of them stop.
      'stop': np.full(rows, self._stop.is_set(), np.float32),
      'broken': np.full(rows, len(self._quarantine) / rows, np.float32),
    }
    arrays = {name: batch[name] for name in ('clips', 'labels')}
    shape = arrays['clips'].shape
    arrays = state.to_devices(arrays | {'notes': notes}, self._run.mesh)
    if shape in self._shapes:
      current, values = self._run.train_step(current, arrays)
    else:
      self._shapes.add(shape)
      logging.info('Compiling for clips of %s', arrays['clips'].shape)
      with self._window.paused(step, 'compiling'):
        current, values = self._run.train_step(current, arrays)
    self._window.add(step, values, arrays['clips'].shape[0])
    return current

  def _write(self, writer, step: int, figures: dict[str, float]) -> None:
    with (
      self._window.paused(step, 'writing figures', _WRITING_SECONDS),
      self._perhaps_unsaved(),
    ):
      writer.write(step, figures)

  def _save(self, current: TrainState, scores) -> None:
    self._window.check_finite()
    with self._perhaps_unsaved():
      self._checkpoints.save(current, scores)

  @contextlib.contextmanager
  def _perhaps_unsaved(self) -> Iterator[None]:
    try:
      yield
    except (UnsavedError, OSError) as error:
      if self._config.train.stop_if_unsaved:
        raise
      logging.warning('%s Going on (train.stop_if_unsaved=False).', error)


def _build(config, workdir: pathlib.Path) -> _Run:
  mesh = state.make_mesh(config.mesh.data, config.mesh.fsdp)
  batch_size = config.train.batch_size
  state.check_divisible(batch_size, mesh, 'train.batch_size')
  if config.train.log_every < 1:
    raise UserError(
      f'train.log_every (={config.train.log_every}) must be at least 1.'
    )
  transfer.check(config)
  dataset = pipeline.build(
    config,
    'train',
    jax.process_index(),
    jax.process_count(),
    batch_multiple=mesh.size,
  )
  evaluation.check_class_names(workdir, dataset.labels)
  model = evaluation.build_model(
    config,
    len(dataset.labels),
    norm_batch_size=config.train.norm_batch_size or batch_size // mesh.size,
    freeze_norm=config.optim.trained != 'all',
  )
  schedule = _make_schedule(config, dataset)
  tx = optim.sgd(config.optim, schedule)
  initial_state = functools.partial(
    state.create, model, tx, evaluation.clip_shape(config), config.seed
  )
  abstract = jax.eval_shape(initial_state)
  shardings = state.shardings(abstract, mesh)
  _log_plan(config, dataset, abstract, mesh)
  return _Run(
    dataset=dataset,
    mesh=mesh,
    initial_state=initial_state,
    shardings=shardings,
    train_step=train_step.make_train_step(
      model, schedule, tx, config.seed, shardings, config.optim.trained
    ),
    validate=_make_validation(config, model, dataset, mesh, shardings),
  )


def _make_schedule(config, dataset):
  multigrid = dataset.multigrid
  return optim.learning_rate(
    config.optim,
    batch_size=config.train.batch_size,
    steps_per_epoch=multigrid.steps_per_epoch,
    num_steps=len(dataset),
    factors=[
      multigrid.learning_rate_factor(step) for step in range(multigrid.period)
    ],
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


def _make_validation(config, model, dataset, mesh, shardings):
  """A function `state -> (state, figures or None)`, on one view a video."""
  steps, split = config.train.precise_norm_steps, config.train.validation_split
  measure = train_step.make_precise_norm(model, shardings) if steps else None
  score = _make_scoring(config, model, split) if split else None

  def validate(current, watched):
    if measure:
      batches = watched(loading.iterate(dataset.at_base_shape(steps)))
      clips = (
        state.to_devices({'clips': batch['clips']}, mesh)['clips']
        for batch in batches
      )
      current = measure(current, clips)
    return current, score(current.variables, watched) if score else None

  return validate


def _make_scoring(config, model, split):
  config = config.copy_and_resolve_references()
  config.eval.num_clips = config.eval.num_crops = 1
  try:
    dataset = pipeline.build_evaluation(
      config, split, jax.process_index(), jax.process_count()
    )
  except UserError as error:
    raise UserError(
      f'{error} Validation during training needs this split: name another with '
      '--config.train.validation_split=NAME, or none with '
      '--config.train.validation_split=.'
    ) from error
  eval_step = evaluation.make_eval_step(model)
  mesh = state.make_mesh(devices=jax.local_devices())
  # Starting loader processes takes seconds: too long for a few videos.
  few = dataset.num_videos < _FEW_VIDEOS
  num_workers = 0 if few else config.data.num_workers

  def score(variables, watched):
    predictions = evaluation.score_videos(
      eval_step,
      state.to_own_devices(variables, mesh),
      watched(loading.iterate(dataset, num_workers=num_workers)),
      clips_per_step=config.eval.clips_per_step,
      mesh=mesh,
    )
    for name, cause in predictions.broken.items():
      logging.warning('Not validated: %s: %s', name, cause)
    return {'top1': predictions.accuracy(1), 'top5': predictions.accuracy(5)}

  return score


def _first_state(config, run, checkpoints) -> TrainState:
  """The last checkpoint's state, or a new one, perhaps from another run's."""
  abstract = jax.tree.map(
    lambda leaf, sharding: leaf.update(sharding=sharding),
    jax.eval_shape(run.initial_state),
    run.shardings,
  )
  current = checkpoints.restore_last(abstract)
  if current is not None:
    logging.info('Going on from the checkpoint of step %s', int(current.step))
    return current
  # It runs once: time spent on optimizing its code would be lost.
  options = {'xla_backend_optimization_level': 0}
  new = jax.jit(
    run.initial_state, out_shardings=run.shardings, compiler_options=options
  )()
  init_from = config.train.init_from
  return (
    transfer.start_from(
      init_from, new, run.dataset.labels, config.optim.trained
    )
    if init_from
    else new
  )


@contextlib.contextmanager
def _catch_sigterm() -> Iterator[threading.Event]:
  """An event that SIGTERM sets, so that the loop can end in good order."""
  event = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield event  # only the main thread may handle signals
    return
  before = signal.signal(signal.SIGTERM, lambda *_: event.set())
  try:
    yield event
  finally:
    signal.signal(signal.SIGTERM, before)


def _write_run(config, labels: tuple[str, ...], workdir: pathlib.Path) -> None:
  """Notes what is trained, and what a resumed run does differently."""
  path = workdir / 'config.json'
  text = config.to_json_best_effort(indent=2, sort_keys=True)
  if path.exists() and path.read_text() != text:
    logging.warning('%s: going on with another configuration than before', path)
  for name, content in (
    (path.name, text),
    ('labels.txt', '\n'.join(labels) + '\n'),
  ):
    # In one go: a run that is killed here must find its labels again.
    partial = workdir / f'{name}.partial'
    partial.write_text(content)
    partial.replace(workdir / name)
