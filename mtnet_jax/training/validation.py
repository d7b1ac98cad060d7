"""Validates a network during training."""

from collections.abc import Callable, Iterable, Iterator

import jax
import ml_collections
from absl import logging
from flax import linen as nn

from mtnet_jax.data import loading, pipeline
from mtnet_jax.data.batches import Batch
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import scoring
from mtnet_jax.runs.state import TrainState
from mtnet_jax.training.step import make_precise_norm

# (state, what watches batches, whether it is the run's last state)
# -> (state, perhaps with precise statistics, metrics)
Watched = Callable[[Iterable[Batch]], Iterator[Batch]]
Validate = Callable[
  [TrainState, Watched, bool], tuple[TrainState, dict[str, float] | None]
]

# Loader processes take seconds to start, too long for fewer clips than this.
_FEW_CLIPS = 1_000


def make_validation(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  dataset: pipeline.TrainingBatches,
  mesh: jax.sharding.Mesh,
  shardings: TrainState,
) -> Validate:
  """Returns a function that validates a state on one view of each video.

  Args:
    config: the run's configuration.
    model: a network from `runs.model.build_model`.
    dataset: the training batches, of which BN's precise statistics are.
    mesh: the devices of all processes.
    shardings: the layout of the state.

  Returns:
    The function. It takes a state, a function that watches an iterable of
    batches, and whether the run ends with this state. It returns the state and
    `top1` and `top5`, or None without a split. Where the configuration says so
    and the state will be kept, for its score or as the last, its BN statistics
    are measured before.

  Raises:
    UserError: there is no such split.
  """
  steps, split = config.train.precise_norm_steps, config.train.validation_split
  measure = make_precise_norm(model, mesh, shardings) if steps else None
  score = _make_scoring(config, model, split) if split else None
  num_clips = steps * config.train.batch_size

  def validate(state, watched, last):
    if measure and (score or last):
      loaded = loading.iterate(
        dataset.at_base_shape(steps),
        num_workers=_num_workers(config.data, num_clips),
        prefetch=config.data.prefetch,
      )
      clips = (
        mesh_lib.to_devices({'clips': batch['clips']}, mesh)['clips']
        for batch in watched(loaded)
      )
      state = measure(state, clips)
    return state, score(state.evaluated, watched) if score else None

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
  mesh = mesh_lib.make_mesh(devices=jax.local_devices())
  eval_step = scoring.make_eval_step(model, mesh)
  num_workers = _num_workers(config.data, dataset.num_videos)

  def score(variables, watched):
    predictions = scoring.score_videos(
      eval_step,
      mesh_lib.to_own_devices(variables, mesh),
      watched(loading.iterate(dataset, num_workers=num_workers)),
      clips_per_step=config.eval.clips_per_step,
      mesh=mesh,
    )
    for name, cause in predictions.broken.items():
      logging.warning('Not validated: %s: %s', name, cause)
    return {'top1': predictions.accuracy(1), 'top5': predictions.accuracy(5)}

  return score


def _num_workers(data, num_clips):
  return 0 if num_clips < _FEW_CLIPS else data.num_workers
