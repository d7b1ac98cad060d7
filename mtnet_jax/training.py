"""The train step, and the loop that calls it."""

import contextlib
import dataclasses
import functools
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import logging
from flax import linen as nn

from mtnet_jax import (
  evaluation,
  losses,
  metrics,
  optim,
  preprocessing,
  state,
  transfer,
)
from mtnet_jax.checkpoints import Checkpoints, make_workdir
from mtnet_jax.data import loading, pipeline
from mtnet_jax.errors import UserError
from mtnet_jax.metric_writer import MetricWriter
from mtnet_jax.progress import Progress
from mtnet_jax.state import TrainState
from mtnet_jax.typing import Batch

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]

# Steps that the host may be ahead of the device.
_IN_FLIGHT = 2
_FEW_VIDEOS = 1_000
_STOPPED = 128 + signal.SIGTERM


def make_train_step(
  model: nn.Module,
  schedule: optax.Schedule,
  tx: optax.GradientTransformation,
  seed: int,
) -> TrainStep:
  """A jitted, pure `(state, batch) -> (state, metrics)` that donates the state.

  Args:
    model: from `mtnet_jax.models.build`.
    schedule: the learning rate that `tx` follows, for the record.
    tx: the optimiser.
    seed: of dropout and of stochastic pooling; a step's randomness is a
      function of (seed, step).

  Returns:
    The function. `batch` holds `clips` uint8 `(n, t, h, w, c)` and `labels`
    `(n,)`; the metrics are float32 scalars: `loss` in nats, `top1`,
    `learning_rate`, `gradient_norm`, `parameter_norm` (after the update, BN's
    moving statistics included), and `gate_open/BLOCK`, the share of clips whose
    temporal gate is open.
  """

  def train_step(current, batch):
    key = jax.random.fold_in(jax.random.key(seed), current.step)
    rngs = {'dropout': key, 'pooling': jax.random.fold_in(key, 1)}
    clips = preprocessing.normalize(batch['clips'], model.dtype or jnp.float32)

    def loss_fn(params):
      (logits, endpoints), updated = model.apply(
        {'params': params, 'batch_stats': current.batch_stats},
        clips,
        train=True,
        mutable=['batch_stats'],
        rngs=rngs,
      )
      loss = losses.cross_entropy(logits, batch['labels']).mean()
      return loss, (logits, endpoints, updated['batch_stats'])

    (loss, (logits, endpoints, batch_stats)), gradients = jax.value_and_grad(
      loss_fn, has_aux=True
    )(current.params)
    updates, opt_state = tx.update(gradients, current.opt_state, current.params)
    following = TrainState(
      step=current.step + 1,
      params=optax.apply_updates(current.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
    )
    correct = metrics.top_k_correct(logits, batch['labels'], 1)
    gates = endpoints['gate_open']
    values = {
      'loss': loss,
      'top1': correct.mean(dtype=jnp.float32),
      'learning_rate': schedule(current.step),
      'gradient_norm': optax.tree.norm(gradients),
      'parameter_norm': optax.tree.norm((following.params, batch_stats)),
    } | {f'gate_open/{block}': share for block, share in gates.items()}
    return following, values

  return jax.jit(train_step, donate_argnums=0)


def train(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> None:
  """Trains `config` in `workdir`, from its last checkpoint if it has one.

  Args:
    config: see configs/base.py.
    workdir: gets `checkpoints/`, `metrics.jsonl`, `tensorboard/`,
      `config.json` and `labels.txt`.

  Raises:
    UserError: something in the configuration, the data or the workdir must be
      mended, or the loss is no longer finite.
    SystemExit: SIGTERM came; a checkpoint was written before.
  """
  workdir = make_workdir(workdir)
  mesh = state.make_mesh()
  dataset = pipeline.build(config, 'train')
  evaluation.check_class_names(workdir, dataset.labels)
  run = _build(config, dataset, mesh)
  broken = _BrokenVideos(dataset.num_videos, config.data.max_broken_share)
  with _catch_sigterm() as stop, Checkpoints(workdir) as checkpoints:
    current = _first_state(config, run, dataset.labels, checkpoints, mesh)
    start = int(current.step)
    _write_run(config, dataset.labels, workdir)
    batches = loading.iterate(
      dataset, start, config.data.num_workers, config.data.prefetch
    )
    with (
      contextlib.closing(batches),
      contextlib.closing(MetricWriter(workdir, start)) as writer,
      Progress('training', run.num_steps, 'steps', done=start) as progress,
    ):
      window = _Window(config.train.batch_size)
      for step in range(start + 1, run.num_steps + 1):
        last = step == run.num_steps
        batch = window.wait_for(batches)
        broken.add(batch['broken'])
        clips = {name: batch[name] for name in ('clips', 'labels')}
        current, values = run.train_step(current, state.to_devices(clips, mesh))
        window.add(step, values)

        note = ''
        if due(step, config.train.log_every) or last:
          figures = window.close()
          writer.write(step, figures)
          note = f'loss {figures["train/loss"]:.3f}'
        progress.advance(1, note)

        scores = None
        if run.validate and (due(step, config.train.eval_every) or last):
          with window.paused():
            scores = run.validate(current.variables)
          writer.write(step, {f'val/{k}': v for k, v in scores.items()})

        wanted = scores or last or stop.is_set()
        if wanted or due(step, config.train.checkpoint_every):
          with window.paused():
            window.check_finite()
            checkpoints.save(current, scores)
        if stop.is_set():
          checkpoints.wait()
          logging.warning('Stopped by SIGTERM at step %s; run again.', step)
          sys.exit(_STOPPED)


def due(step: int, every: int) -> bool:
  """Whether `step` (from 1) is a multiple of `every`; never where that is 0."""
  return every > 0 and step % every == 0


@dataclasses.dataclass(frozen=True)
class _Run:
  """What a configuration and a data set make of each other."""

  num_steps: int
  train_step: TrainStep
  initial_state: Callable[[], TrainState]
  validate: Callable[[dict], dict[str, float]] | None


def _build(config, dataset, mesh) -> _Run:
  batch_size = config.train.batch_size
  state.check_divisible(batch_size, mesh, 'train.batch_size')
  if config.train.log_every < 1:
    raise UserError(
      f'train.log_every (={config.train.log_every}) must be at least 1.'
    )
  steps_per_epoch = dataset.num_videos / batch_size
  num_steps = len(dataset)
  model = evaluation.build_model(
    config,
    len(dataset.labels),
    config.train.norm_batch_size or batch_size // mesh.size,
  )
  schedule = optim.learning_rate(
    config.optim,
    batch_size=batch_size,
    steps_per_epoch=steps_per_epoch,
    num_steps=num_steps,
  )
  tx = optim.sgd(config.optim, schedule)
  initial_state = functools.partial(
    state.create, model, tx, evaluation.clip_shape(config), config.seed
  )
  parameters = jax.eval_shape(initial_state).params
  logging.info(
    '%s: %s parameters; %s videos of %s classes; %s steps of %s clips on %s',
    config.model.name,
    f'{sum(leaf.size for leaf in jax.tree.leaves(parameters)):,}',
    dataset.num_videos,
    len(dataset.labels),
    num_steps,
    batch_size,
    jax.devices(),
  )
  return _Run(
    num_steps=num_steps,
    train_step=make_train_step(model, schedule, tx, config.seed),
    initial_state=initial_state,
    validate=_make_validation(config, model, mesh),
  )


def _make_validation(config, model, mesh):
  """A function `variables -> figures` on one view a video, or None."""
  split = config.train.validation_split
  if not split:
    return None
  config = config.copy_and_resolve_references()
  config.eval.num_clips = config.eval.num_crops = 1
  try:
    dataset = pipeline.build_evaluation(config, split)
  except UserError as error:
    raise UserError(
      f'{error} Validation during training needs this split: name another with '
      '--config.train.validation_split=NAME, or none with '
      '--config.train.validation_split=.'
    ) from error
  eval_step = evaluation.make_eval_step(model)
  # Starting loader processes takes seconds: too long for a few videos.
  few = dataset.num_videos < _FEW_VIDEOS
  num_workers = 0 if few else config.data.num_workers

  def validate(variables):
    predictions = evaluation.score_videos(
      eval_step,
      variables,
      loading.iterate(dataset, num_workers=num_workers),
      clips_per_step=config.eval.clips_per_step,
      mesh=mesh,
    )
    for name, cause in predictions.broken.items():
      logging.warning('Not validated: %s: %s', name, cause)
    return {'top1': predictions.accuracy(1), 'top5': predictions.accuracy(5)}

  return validate


def _first_state(config, run, labels, checkpoints, mesh) -> TrainState:
  """The last checkpoint's state, or a new one, perhaps from another run's."""
  create, sharding = run.initial_state, state.replicated(mesh)
  step = checkpoints.last_step
  if step is None:
    # It runs once: time spent on optimizing its code would be lost.
    options = {'xla_backend_optimization_level': 0}
    new = jax.jit(create, out_shardings=sharding, compiler_options=options)()
    init_from = config.train.init_from
    return transfer.start_from(init_from, new, labels) if init_from else new
  logging.info('Going on from the checkpoint of step %s', step)
  like = jax.tree.map(
    lambda leaf: leaf.update(sharding=sharding), jax.eval_shape(create)
  )
  return checkpoints.restore(step, like)


class _Window:
  """The figures between two lines of the log, on the device until then."""

  def __init__(self, batch_size: int):
    self._batch_size = batch_size
    self._open()

  def _open(self) -> None:
    self._values: dict[int, Metrics] = {}
    self._checked: dict[int, dict[str, float]] = {}
    self._started = time.monotonic()
    self._waited = 0.0

  def wait_for(self, batches: Iterator[Batch]) -> Batch:
    """The next batch; the time that it takes is the host's share."""
    # The device must not be far behind, or waiting for it would look like
    # waiting for the loader.
    recent = list(self._values.values())
    if len(recent) >= _IN_FLIGHT:
      jax.block_until_ready(recent[-_IN_FLIGHT])
    before = time.monotonic()
    batch = next(batches)
    self._waited += time.monotonic() - before
    return batch

  def add(self, step: int, values: Metrics) -> None:
    self._values[step] = values

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """What happens inside does not count as time of training."""
    jax.block_until_ready(self._values)
    before = time.monotonic()
    yield
    self._started += time.monotonic() - before

  def check_finite(self) -> None:
    """Fetches the figures; raises a UserError that names the first bad step."""
    fetched = jax.device_get(self._values)
    self._values = {}
    self._checked |= fetched
    for step, figures in fetched.items():
      for name in ('loss', 'gradient_norm', 'parameter_norm'):
        if not np.isfinite(figures[name]):
          raise UserError(
            f'The {name.replace("_", " ")} at step {step} is {figures[name]}. '
            'The last good checkpoint is kept. Lower optim.learning_rate, '
            'lengthen optim.warmup_steps or look at the data.'
          )

  def close(self) -> dict[str, float]:
    """The means over the window and its speed; a new window begins."""
    self.check_finite()
    seconds = time.monotonic() - self._started
    values = list(self._checked.values())
    figures = {
      f'train/{name}': float(np.mean([v[name] for v in values]))
      for name in values[0]
    }
    figures['train/learning_rate'] = float(values[-1]['learning_rate'])
    figures['train/clips_per_second'] = self._batch_size * len(values) / seconds
    figures['train/host_waiting'] = self._waited / seconds
    self._open()
    return figures


class _BrokenVideos:
  """Counts and names the videos that training left out."""

  def __init__(self, num_videos: int, max_share: float):
    self._num_videos, self._max_share = num_videos, max_share
    self._seen: dict[str, None] = {}

  def add(self, broken: np.ndarray) -> None:
    for video in broken.tolist():
      if video not in self._seen:
        logging.warning('Left out of training: %s', video)
      self._seen[video] = None
    if len(self._seen) > self._max_share * self._num_videos:
      raise UserError(
        f'{len(self._seen)} of {self._num_videos} training videos cannot be '
        f'read, more than data.max_broken_share (={self._max_share:.2%}): '
        f'{"; ".join(list(self._seen)[:3])}. Mend or remove them, or raise the '
        'share.'
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
  path.write_text(text)
  (workdir / 'labels.txt').write_text('\n'.join(labels) + '\n')
