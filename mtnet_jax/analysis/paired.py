"""Two runs on the same videos, and McNemar's test of them (thesis, eq. 6.1)."""

import dataclasses
import pathlib

import numpy as np
from scipy import stats

from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import predictions_file
from mtnet_jax.typing import Bool, Int


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two models on the same videos.

  Attributes:
    both: videos that both have right.
    only_a: the number that the first alone has right.
    only_b: the number that the second alone has right.
    neither: the number that none has right.
    statistic: chi-square, 0 or more.
    p_value: the probability of such a difference, or a larger one, if the
      models were equally good.
  """

  both: int
  only_a: int
  only_b: int
  neither: int
  statistic: float
  p_value: float


def mcnemar(both: int, only_a: int, only_b: int, neither: int) -> Comparison:
  """Tests by McNemar with Edwards's correction (thesis, eq. 6.1).

  `(|only_a - only_b| - 1)² / (only_a + only_b)`. The correction takes one off
  the difference where there is one; a difference of 0 stays 0.

  Args:
    both: videos that both models have right.
    only_a: the number that the first alone has right.
    only_b: the number that the second alone has right.
    neither: the number that none has right.

  Returns:
    The counts, and the chi-square statistic of one degree of freedom with its
    p-value: 0 and 1 where each is as often alone in being right.
  """
  difference, variance = abs(only_a - only_b), only_a + only_b
  return chi_square(both, only_a, only_b, neither, difference, variance)


def chi_square(
  both: int,
  only_a: int,
  only_b: int,
  neither: int,
  difference: int,
  variance: int,
) -> Comparison:
  """Tests a difference of two counts whose variance is known.

  Args:
    both: videos that both models have right.
    only_a: the number that the first alone has right.
    only_b: the number that the second alone has right.
    neither: the number that none has right.
    difference: the difference of the two models' counts, 0 or more.
    variance: the variance of the difference if both models were equally good; 0
      if there is none.

  Returns:
    The counts, `(difference - 1)² / variance` as chi-square statistic of one
    degree of freedom, and its p-value.
  """
  statistic = float(max(difference - 1, 0) ** 2 / max(variance, 1))
  p_value = float(stats.chi2.sf(statistic, df=1))
  return Comparison(both, only_a, only_b, neither, statistic, p_value)


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two evaluations of the same videos.

  Attributes:
    labels: true classes of the n videos, 0 to `num_classes` - 1.
    right_a: whether the first model is right on each video.
    right_b: whether the second model is right on each video.
    num_classes: the number of classes of the data set.
  """

  labels: Int[np.ndarray, ' n']
  right_a: Bool[np.ndarray, ' n']
  right_b: Bool[np.ndarray, ' n']
  num_classes: int


def read_pair(path_a: str | pathlib.Path, path_b: str | pathlib.Path) -> Pair:
  """Reads two evaluations and brings their videos into one order.

  Args:
    path_a: `predictions.npz` of the first, as `mtnet eval` writes it.
    path_b: the file of the second, with predictions for the same videos in any
      order.

  Raises:
    UserError: a file is missing or of another kind, or they differ in their
      videos or in the videos' classes.
  """
  a, b = predictions_file.read(path_a), predictions_file.read(path_b)
  alone = np.setxor1d(a.ids, b.ids).tolist()
  if alone:
    known = set(a.ids.tolist())
    examples = ', '.join(
      f'{name} only in {path_a if name in known else path_b}'
      for name in alone[:3]
    )
    raise UserError(
      f'{path_a} and {path_b} are not of the same videos: {len(alone)} are in '
      f'one of them alone, {examples}. Evaluate both runs on the same split, '
      'with every video readable.'
    )
  first, second = a.ids.argsort(), b.ids.argsort()
  labels, classes = a.labels[first], a.probabilities.shape[1]
  if b.probabilities.shape[1] != classes:
    raise UserError(
      f'{path_a} has probabilities of {classes} classes, {path_b} of '
      f'{b.probabilities.shape[1]}. Evaluate both on the same data.'
    )
  other = labels != b.labels[second]
  if other.any():
    raise UserError(
      f'{path_a} and {path_b} do not agree on the classes of {other.sum()} '
      f'videos, {a.ids[first][other][0]} for instance: their runs number the '
      'classes in another way. Evaluate both on the same data.'
    )
  return Pair(
    labels,
    a.predicted[first] == labels,
    b.predicted[second] == labels,
    classes,
  )


def compare(
  path_a: str | pathlib.Path, path_b: str | pathlib.Path
) -> Comparison:
  """Compares the top-1 predictions of two evaluations, see `read_pair`."""
  return compare_pair(read_pair(path_a, path_b))


def compare_pair(pair: Pair) -> Comparison:
  """Compares the top-1 predictions of two evaluations that have been read.

  Args:
    pair: the pair from `read_pair`.
  """
  return mcnemar(*count(pair))


def count(pair: Pair) -> list[int]:
  """Counts the videos that both, only A, only B and neither has right.

  Args:
    pair: the pair from `read_pair`.
  """
  a, b = pair.right_a, pair.right_b
  return [int(own.sum()) for own in (a & b, a & ~b, ~a & b, ~a & ~b)]
