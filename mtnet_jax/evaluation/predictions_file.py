"""Reads `evaluation/predictions.npz`, as `mtnet eval` writes it."""

import pathlib

import numpy as np

from mtnet_jax import locations
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation.predictions import Predictions

# Sums of float32 probabilities stray from 1 by less.
_ROUNDING = 1e-3


def read(path: str | pathlib.Path) -> Predictions:
  """Reads the predictions of a run.

  Args:
    path: the file `predictions.npz`.

  Returns:
    The videos, their classes and their probabilities, one video at least.
    Early predictions and the videos that could not be scored are left out.

  Raises:
    UserError: it is missing, damaged, or something else.
  """
  try:
    with locations.as_path(path).open('rb') as file, np.load(file) as stored:
      arrays = stored['ids'], stored['labels'], stored['probabilities']
    _check(*arrays)
  except Exception as error:  # numpy raises anything of damaged files
    raise UserError(
      f'{path} is not what mtnet eval writes: {_cause(error)}. Give the '
      'evaluation/predictions.npz of a workdir, or evaluate again.'
    ) from error
  return Predictions(*arrays, broken={})


def _cause(error: Exception) -> str:
  cause = str(error).rstrip('.')
  # numpy takes unknown data for a pickle, and its message tells how to run it.
  return 'it holds no plain arrays' if 'allow_pickle' in cause else cause


def _check(ids: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> None:
  """Raises a ValueError that says what is wrong."""
  names = ids.tolist()
  count, classes = scores.shape
  if not len(set(names)) == len(labels) == count > 0:
    raise ValueError(
      f'it names {len(set(names))} videos and {len(labels)} labels in {count} '
      'rows'
    )
  if not (labels.dtype.kind in 'iu' and np.isin(labels, range(classes)).all()):
    raise ValueError(f'its labels are not numbers from 0 to {classes - 1}')
  if not np.isfinite(scores).all():
    raise ValueError('its probabilities are not all finite')
  sums = scores.sum(axis=1)
  if (scores < 0).any() or (np.abs(sums - 1) > _ROUNDING).any():
    raise ValueError('its rows are no probabilities, which sum to 1')
