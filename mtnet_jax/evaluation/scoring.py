"""Scores each video once: softmax averaged over its views."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

import jax
import ml_collections
import msgpack
import numpy as np
from absl import logging
from flax import linen as nn

from mtnet_jax import locations, preprocessing
from mtnet_jax.data import class_names, loading, pipeline, sources
from mtnet_jax.data.batches import Batch, EvaluationBatches
from mtnet_jax.devices import device_memory, processes
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.devices.chunks import map_in_chunks
from mtnet_jax.devices.compiler import jit
from mtnet_jax.devices.watchdog import Watchdog
from mtnet_jax.errors import UserError, first_causes
from mtnet_jax.evaluation.predictions import Predictions
from mtnet_jax.progress import Progress
from mtnet_jax.runs import agreement
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs import model as model_lib
from mtnet_jax.typing import Array

EvalStep = Callable[[dict, Array], tuple[Array, dict[str, Array]]]


@functools.lru_cache(maxsize=1)  # evaluated twice, compiled once
def make_eval_step(model: nn.Module, mesh: jax.sharding.Mesh) -> EvalStep:
  """Returns the jitted evaluation step.

  It is `(variables, clips uint8) -> probabilities, early predictions`.

  Args:
    model: a network from `mtnet_jax.models.build`; its BN in inference mode.
    mesh: the devices that it runs on.

  Returns:
    The function; probabilities are float32 `(n, k)`, early predictions int32
    `(n,)` by stage, of networks with Class Regularisation.
  """

  def eval_step(variables, clips):
    clips = preprocessing.prepare(clips, model)
    logits, endpoints = model.apply(variables, clips, train=False)
    return jax.nn.softmax(logits), endpoints['early_predictions']

  return jit(eval_step, mesh)


def score_videos(
  eval_step: EvalStep,
  variables: dict,
  batches: Iterable[Batch],
  *,
  clips_per_step: int,
  mesh: jax.sharding.Mesh,
  progress: Progress | None = None,
) -> Predictions:
  """Scores every video of `batches` once.

  Args:
    eval_step: a function from `make_eval_step`.
    variables: the model's, replicated over `mesh`.
    batches: evaluation batches: `clips` uint8 `(b, v, t, h, w, c)`, v views a
      video; `mask` tells videos from padding and from broken files, whose cause
      stands in `broken`.
    clips_per_step: views that go through the model at once, rounded up to a
      multiple of the devices. Any number gives the same result.
    mesh: devices of this process.
    progress: advanced by the number of videos of each batch.

  Returns:
    The predictions, in the order of `batches`; of all processes, one after the
    other, where there are several. Each must call it.

  Raises:
    UserError: no video could be scored, or the network's output is not finite.
  """
  found, broken = [], {}
  for batch in batches:
    good = batch['mask']
    if good.any():
      clips = batch['clips'][good]
      videos, views = clips.shape[:2]
      scores, chosen = map_in_chunks(
        functools.partial(eval_step, variables),
        clips.reshape(videos * views, *clips.shape[2:]),
        clips_per_step,
        mesh,
      )
      scores = scores.reshape(videos, views, -1).mean(axis=1)
      found += zip(
        batch['ids'][good].tolist(),
        batch['labels'][good].tolist(),
        [row.astype(np.float32).tobytes() for row in scores],
        _vote(chosen, videos),
        strict=True,
      )
    bad = batch['broken'] != ''
    names, causes = (batch[key][bad].tolist() for key in ('ids', 'broken'))
    broken |= zip(names, causes, strict=True)
    if progress:
      progress.advance(int(good.sum() + bad.sum()))
  return _of_all_processes(found, broken)


def _vote(chosen: dict[str, np.ndarray], videos: int) -> list[dict[str, int]]:
  """Returns each video's most frequent early prediction over its views."""
  rows = {stage: views.reshape(videos, -1) for stage, views in chosen.items()}
  return [
    {stage: int(np.bincount(row[i]).argmax()) for stage, row in rows.items()}
    for i in range(videos)
  ]


def _of_all_processes(found: list[tuple], broken: dict) -> Predictions:
  own = msgpack.packb({'found': found, 'broken': broken})
  parts = [msgpack.unpackb(part) for part in processes.gather(own)]
  found = [video for part in parts for video in part['found']]
  broken = {name: why for part in parts for name, why in part['broken'].items()}
  if not found:
    why = first_causes(broken.items()) or 'There are none'
    raise UserError(f'No video could be scored. {why}.')
  ids, labels, rows, early = zip(*found, strict=True)
  scores = np.frombuffer(b''.join(rows), np.float32).reshape(len(ids), -1)
  # The error is raised here, so that all processes know of it and none waits.
  wrong = ~np.isfinite(scores).all(axis=1)
  if wrong.any():
    raise UserError(
      f'The output of the network is not finite for {wrong.sum()} of '
      f'{len(ids)} videos, {ids[wrong.argmax()]} for instance: its weights '
      'hold NaN or infinity, or its numbers overflow. Take another checkpoint, '
      'compute in float32 (model.dtype), or train at a lower learning rate.'
    )
  return Predictions(
    np.array(ids),
    np.array(labels),
    scores,
    broken,
    {stage: np.array([video[stage] for video in early]) for stage in early[0]},
  )


def open_videos(
  config: ml_collections.ConfigDict, workdir: str | os.PathLike
) -> EvaluationBatches:
  """Opens `config.eval.split`, with labels as a run has them.

  Args:
    config: the run's configuration.
    workdir: the run's folder. Its classes number the videos', which may lack
      some of them and have another order.

  Returns:
    This process's batches.

  Raises:
    UserError: no data, or data of classes that the run does not have.
  """
  dataset = pipeline.build_evaluation(
    config, config.eval.split, jax.process_index(), jax.process_count()
  )
  path = locations.as_path(workdir) / 'labels.txt'
  trained = run_folder.read_class_names(path) if path.exists() else ()
  if trained == dataset.labels or not set(dataset.labels) <= set(trained):
    run_folder.check_class_names(workdir, dataset.labels)
    return dataset
  logging.warning(
    'The data have %d of the %d classes of %s, whose labels are used to score '
    'them: %s.',
    len(dataset.labels),
    len(trained),
    workdir,
    class_names.differences(trained, dataset.labels),
    extra={'once': True},
  )
  source = sources.relabel(dataset.source, trained)
  return dataclasses.replace(dataset, source=source)


def evaluate(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  checkpoint: str = 'best',
  shuffle_frames: bool = False,
) -> tuple[Predictions, tuple[str, ...]]:
  """Scores `config.eval.split` with a checkpoint of `workdir`.

  Args:
    config: the run's configuration; split and views come from `config.eval`.
    workdir: the run's folder.
    checkpoint: 'best' (on validation) or 'last'.
    shuffle_frames: put each view's frames in an order drawn from `config.seed`:
      what is left of the accuracy does not come from time.

  Returns:
    The predictions and the names of the run's classes.

  Raises:
    UserError: no checkpoint, or one of another model; no data, or data of
      classes that the run does not have.
  """
  with Watchdog(
    config.train.stall_timeout,
    processes.board(),
    index=jax.process_index(),
    ailment=loading.killed_worker,
  ) as watchdog:
    mesh = mesh_lib.make_mesh(devices=jax.local_devices())
    dataset = open_videos(config, workdir)
    agreement.check(config, dataset)
    path = locations.as_path(workdir)
    with watchdog.blaming_others():
      with model_lib.explained(path / 'config.json'):
        model = model_lib.build_model(config, len(dataset.labels))
        variables, _ = model_lib.restore_variables(
          config, workdir, checkpoint, model, mesh_lib.make_mesh()
        )
      # A folder that cannot be written is reported before the work starts.
      run_folder.make_workdir(path / 'evaluation')
      predictions = _score(
        make_eval_step(model, mesh),
        mesh_lib.to_own_devices(variables, mesh),
        dataset,
        config,
        watchdog,
        mesh,
        shuffle_frames,
      )
  return predictions, dataset.labels


def _score(
  eval_step, variables, dataset, config, watchdog, mesh, shuffle_frames
) -> Predictions:
  batches = loading.iterate(dataset, num_workers=config.data.num_workers)
  if shuffle_frames:
    batches = _shuffle_frames(batches, config.seed)
  what = 'shuffled frames' if shuffle_frames else 'evaluating'
  silent = not processes.is_main()
  count = dataset.num_own_videos
  with (
    Progress(what, count, 'videos', silent=silent) as progress,
    device_memory.explained('a smaller --config.eval.clips_per_step'),
  ):
    return score_videos(
      eval_step,
      variables,
      watchdog.iterate(batches, step=0),
      clips_per_step=config.eval.clips_per_step,
      mesh=mesh,
      progress=progress,
    )


def _shuffle_frames(batches: Iterable[Batch], seed: int) -> Iterator[Batch]:
  """Yields the batches with the frames of each view in a random order."""
  rng = np.random.default_rng(seed)
  for batch in batches:
    clips = batch['clips']  # b v t h w c
    order = rng.random(clips.shape[:3]).argsort(axis=2)
    yield batch | {
      'clips': np.take_along_axis(clips, order[..., None, None, None], axis=2)
    }
