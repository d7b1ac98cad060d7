"""Ends a training whose validation no longer improves."""

import json

import ml_collections
from absl import logging

from mtnet_jax.devices import processes
from mtnet_jax.errors import UserError
from mtnet_jax.locations import Path
from mtnet_jax.runs import metric_writer


def check(train: ml_collections.ConfigDict) -> None:
  """Raises a UserError where early stopping has no validation to wait for.

  Args:
    train: the configuration's `train`.

  Raises:
    UserError: `patience` is negative, or there is no validation.
  """
  if train.patience < 0:
    raise UserError(
      f'train.patience (={train.patience}) must be at least 0: the validations '
      'without a better top-1 after which training ends, or 0 for never.'
    )
  if train.patience and not (train.validation_split and train.eval_every > 0):
    raise UserError(
      f'train.patience (={train.patience}) needs validations: name a '
      '--config.train.validation_split and set --config.train.eval_every above '
      '0, or set train.patience to 0.'
    )


class Patience:
  """Counts a run's validations since its best one."""

  def __init__(self, validations: int, workdir: Path, step: int):
    """Reads how the validations so far went; all processes must call it.

    Args:
      validations: the number of validations without a better top-1 after which
        the run is over; 0: no limit.
      workdir: the run's folder.
      step: the step that the run goes on from; what was validated later does
        not count.
    """
    self._validations = validations
    self._scores = _past_scores(workdir, step) if validations else []
    self._tell()

  def add(self, score: float) -> None:
    """Takes the top-1 accuracy of the next validation."""
    self._scores.append(score)
    self._tell()

  @property
  def is_over(self) -> bool:
    """Whether the last validations were no better than one before them."""
    if not self._validations or not self._scores:
      return False
    best = self._scores.index(max(self._scores))  # the first of equals
    return len(self._scores) - 1 - best >= self._validations

  def _tell(self) -> None:
    if self.is_over:
      logging.info(
        'Training ends: none of the last %s validations was better than one '
        'before, with a top-1 of %.4f (train.patience).',
        self._validations,
        max(self._scores),
      )


def _past_scores(workdir: Path, step: int) -> list[float]:
  scores = []
  if processes.is_main():
    scores = [
      record['val/top1']
      for record in metric_writer.read(workdir / 'metrics.jsonl')
      if 'val/top1' in record and record['step'] <= step
    ]
  # All processes must end at the same step, whatever each reads from the file.
  return json.loads(processes.gather(json.dumps(scores).encode())[0])
