"""Scores videos: softmax averaged over their views, every video once."""

import csv
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import ml_collections
import msgpack
import numpy as np
from absl import logging
from flax import linen as nn

from mtnet_jax import distributed, metrics, models, preprocessing, state
from mtnet_jax.checkpoints import Checkpoints, make_workdir
from mtnet_jax.compiler import jit
from mtnet_jax.data import loading, pipeline
from mtnet_jax.errors import UserError
from mtnet_jax.progress import Progress
from mtnet_jax.stepwise import in_steps
from mtnet_jax.typing import Array, Batch, Float, Int
from mtnet_jax.watch import Watch

EvalStep = Callable[[dict, Array], tuple[Array, dict[str, Array]]]


@dataclasses.dataclass(frozen=True)
class Predictions:
  """What a model says of each video of a split.

  Attributes:
    ids: `(n,)` names of the videos that could be scored.
    labels: `(n,)` their true classes, 0 to k - 1.
    probabilities: `(n, k)` float32, averaged over the views; rows sum to 1.
    broken: the videos that could not be scored and why, by id.
    early: by stage the `(n,)` classes that Class Regularisation picks, if any.
  """

  ids: np.ndarray
  labels: Int[np.ndarray, ' n']
  probabilities: Float[np.ndarray, 'n k']
  broken: dict[str, str]
  early: dict[str, Int[np.ndarray, ' n']] = dataclasses.field(
    default_factory=dict
  )

  @property
  def predicted(self) -> Int[np.ndarray, ' n']:
    """The class with the highest probability; the lowest index among equals."""
    return self.probabilities.argmax(axis=1)

  def accuracy(self, k: int = 1) -> float:
    """The share of videos whose class is among the k most probable ones."""
    correct = metrics.top_k_correct(self.probabilities, self.labels, k)
    return float(correct.mean())

  def early_accuracy(self) -> dict[str, float]:
    """By stage, the share of videos whose class is its early prediction."""
    return {
      stage: float((chosen == self.labels).mean())
      for stage, chosen in self.early.items()
    }


@functools.lru_cache(maxsize=1)  # evaluated twice, compiled once
def make_eval_step(model: nn.Module) -> EvalStep:
  """A jitted `(variables, clips uint8) -> probabilities, early predictions`.

  Args:
    model: from `mtnet_jax.models.build`; its BN in inference mode.

  Returns:
    The function; probabilities are float32 `(n, k)`, early predictions int32
    `(n,)` by stage, of networks with Class Regularisation.
  """

  @jit
  def eval_step(variables, clips):
    clips = preprocessing.prepare(clips, model)
    logits, endpoints = model.apply(variables, clips, train=False)
    return jax.nn.softmax(logits), endpoints['early_predictions']

  return eval_step


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
    eval_step: from `make_eval_step`.
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
      scores, chosen = in_steps(
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
  """Of each video, by stage, what most views have; the lowest of equals."""
  rows = {stage: views.reshape(videos, -1) for stage, views in chosen.items()}
  return [
    {stage: int(np.bincount(row[i]).argmax()) for stage, row in rows.items()}
    for i in range(videos)
  ]


def _of_all_processes(found: list[tuple], broken: dict) -> Predictions:
  own = msgpack.packb({'found': found, 'broken': broken})
  parts = [msgpack.unpackb(part) for part in distributed.gather(own)]
  found = [video for part in parts for video in part['found']]
  broken = {name: why for part in parts for name, why in part['broken'].items()}
  if not found:
    name, why = next(iter(broken.items()), ('', 'there are none'))
    raise UserError(f'No video could be scored. {name}: {why}.')
  ids, labels, rows, early = zip(*found, strict=True)
  scores = np.frombuffer(b''.join(rows), np.float32).reshape(len(ids), -1)
  # Here and not above: all processes learn of it, and none waits for another.
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


def build_model(
  config: ml_collections.ConfigDict, num_classes: int, **overrides
) -> nn.Module:
  """The network of `config.model`; unset overrides are the model's own.

  Args:
    config: of the run.
    num_classes: of the data set.
    **overrides: fields of the network that follow from the run.

  Returns:
    A linen module.
  """
  chosen = {k: v for k, v in config.model.items() if v is not None}
  return models.build(num_classes=num_classes, **chosen, **overrides)


def clip_shape(config: ml_collections.ConfigDict) -> tuple[int, int, int, int]:
  """`(t, h, w, c)` of the clips that the model sees."""
  size = config.data.input_size
  return config.data.num_frames, size, size, 3


def evaluate(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  checkpoint: str = 'best',
  shuffle_frames: bool = False,
) -> tuple[Predictions, tuple[str, ...]]:
  """Scores `config.eval.split` with a checkpoint of `workdir`.

  Args:
    config: of the run; split and views come from `config.eval`.
    workdir: of the run.
    checkpoint: 'best' (on validation) or 'last'.
    shuffle_frames: put each view's frames in an order drawn from `config.seed`:
      what is left of the accuracy does not come from time.

  Returns:
    The predictions and the names of the classes.

  Raises:
    UserError: no checkpoint, or one of another model, number of classes or
      class names; no data.
  """
  mesh = state.make_mesh(devices=jax.local_devices())
  dataset = pipeline.build_evaluation(
    config, config.eval.split, jax.process_index(), jax.process_count()
  )
  check_class_names(workdir, dataset.labels)
  model = build_model(config, len(dataset.labels))
  variables = restore_variables(
    config, workdir, checkpoint, model, state.make_mesh()
  )
  # Better to hear now than after the work that there is no place for it.
  make_workdir(pathlib.Path(workdir) / 'evaluation')
  batches = loading.iterate(dataset, num_workers=config.data.num_workers)
  if shuffle_frames:
    batches = _shuffle_frames(batches, config.seed)
  what = 'shuffled frames' if shuffle_frames else 'evaluating'
  silent = not distributed.is_main()
  count = dataset.num_videos // jax.process_count()
  with (
    Watch(
      config.train.stall_timeout,
      distributed.board(),
      index=jax.process_index(),
    ) as watch,
    Progress(what, count, 'videos', silent=silent) as progress,
  ):
    predictions = score_videos(
      make_eval_step(model),
      state.to_own_devices(variables, mesh),
      watch.iterate(batches, step=0),
      clips_per_step=config.eval.clips_per_step,
      mesh=mesh,
      progress=progress,
    )
  return predictions, dataset.labels


def _shuffle_frames(batches: Iterable[Batch], seed: int) -> Iterator[Batch]:
  """The batches with the frames of each view in a random order of its own."""
  rng = np.random.default_rng(seed)
  for batch in batches:
    clips = batch['clips']  # b v t h w c
    order = rng.random(clips.shape[:3]).argsort(axis=2)
    yield batch | {
      'clips': np.take_along_axis(clips, order[..., None, None, None], axis=2)
    }


def restore_variables(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  checkpoint: str,
  model: nn.Module,
  mesh: jax.sharding.Mesh,
) -> dict:
  """Reads what `model.apply` takes from a run.

  Args:
    config: of the run.
    workdir: of the run.
    checkpoint: 'best' (on validation) or 'last'.
    model: from `build_model`.
    mesh: the devices, all of which get everything.

  Returns:
    `params` and `batch_stats`.

  Raises:
    UserError: no checkpoint, or one of another model or number of classes.
  """
  if not (pathlib.Path(workdir) / 'checkpoints').is_dir():
    raise UserError(
      f'There is no checkpoint in --workdir={workdir}. Train first: '
      'python train.py --config=... --workdir=DIR.'
    )
  clips = jax.ShapeDtypeStruct((1, *clip_shape(config)), jnp.float32)
  like = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), clips
  )
  like = jax.tree.map(
    lambda leaf: leaf.update(sharding=state.replicated(mesh)), dict(like)
  )
  with Checkpoints(workdir, read_only=True) as checkpoints:
    steps = {'best': checkpoints.best_step, 'last': checkpoints.last_step}
    step = steps[checkpoint]
    if step is None:
      raise UserError(
        f'{workdir}/checkpoints holds no finished checkpoint yet: run the same '
        'train.py command again, it goes on by itself.'
      )
    logging.info('Evaluating the checkpoint of step %s', step)
    return checkpoints.restore_variables(step, like)


def check_class_names(
  workdir: str | pathlib.Path, names: tuple[str, ...]
) -> None:
  """Raises a UserError where the workdir was trained on other classes.

  A run without `labels.txt` (a new one) passes.
  """
  path = pathlib.Path(workdir) / 'labels.txt'
  if not path.exists():
    return
  trained = tuple(path.read_text().splitlines())
  if trained != names:
    raise UserError(
      f'{workdir} was trained on {len(trained)} classes, the data has '
      f'{len(names)}: {_name_differences(trained, names)}. Use the data that '
      'it was trained on, or another --workdir.'
    )


def _name_differences(trained: tuple[str, ...], names: tuple[str, ...]) -> str:
  parts = [
    f'{what} {", ".join(sorted(some)[:3])}'
    for what, some in (
      ('new are', set(names) - set(trained)),
      ('missing are', set(trained) - set(names)),
    )
    if some
  ]
  return '; '.join(parts) or 'the same in another order'


def write(
  predictions: Predictions, names: tuple[str, ...], directory: pathlib.Path
) -> None:
  """Writes `predictions.npz`, `per_class.csv` and `summary.json`.

  Args:
    predictions: of every video.
    names: of the classes, by index.
    directory: made if need be.
  """
  directory.mkdir(parents=True, exist_ok=True)
  np.savez(
    directory / 'predictions.npz',
    ids=predictions.ids,
    labels=predictions.labels,
    probabilities=predictions.probabilities,
    **{f'early_{stage}': chosen for stage, chosen in predictions.early.items()},
  )
  path = directory / 'per_class.csv'
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(['class', 'videos', 'top1', 'top5'])
    for name, videos, top1, top5 in per_class(predictions, names):
      writer.writerow([name, videos, f'{top1:.4f}', f'{top5:.4f}'])
  summary = {
    'top1': predictions.accuracy(1),
    'top5': predictions.accuracy(5),
    'early_top1': predictions.early_accuracy(),
    'videos': len(predictions.ids),
    'not_scored': predictions.broken,
  }
  (directory / 'summary.json').write_text(json.dumps(summary, indent=2))


def per_class(
  predictions: Predictions, names: tuple[str, ...]
) -> list[tuple[str, int, float, float]]:
  """Rows `(class, videos, top-1, top-5)`; classes without a video left out."""
  rows = []
  for index, name in enumerate(names):
    own = predictions.labels == index
    if own.any():
      scores = predictions.probabilities[own], predictions.labels[own]
      shares = [float(metrics.top_k_correct(*scores, k).mean()) for k in (1, 5)]
      rows.append((name, int(own.sum()), *shares))
  return rows
