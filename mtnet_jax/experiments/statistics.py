"""Computes intervals and tests over the seeds of a table's runs."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from mtnet_jax.analysis import paired
from mtnet_jax.analysis.paired import Comparison, Pair

_LEVEL = 0.95


def half_interval(values: Sequence[float]) -> float | None:
  """Returns half of the 95 % confidence interval of a mean, by Student's t.

  Args:
    values: drawn independently; of any unit.

  Returns:
    t · s / √n with n − 1 degrees of freedom, in the same unit; None of less
    than two values.
  """
  n = len(values)
  if n < 2:
    return None
  t = stats.t.ppf((1 + _LEVEL) / 2, df=n - 1)
  return float(t * np.std(values, ddof=1) / math.sqrt(n))


def pool(pairs: Sequence[tuple[Sequence[str], Pair]]) -> Comparison:
  """Tests several trainings by McNemar, clustered by video.

  All seeds see the same videos and fail on the same ones, so that pairs of
  video and seed are not independent; videos are. For each video, let d be the
  number of seeds with which only B is right, less those with which only A is
  right. The statistic is `(|Σd| - 1)² / Σd²`: V. Durkalski et al., *Analysis of
  clustered matched-pair data for a non-inferiority study design*, Statistics in
  Medicine 22, 2003, with Edwards's correction. With one seed it is eq. 6.1 of
  the thesis.

  Args:
    pairs: the videos' names, and the two evaluations of them in this order; a
      seed each.

  Returns:
    The counts summed over the seeds, and this test.
  """
  counts, differences = np.zeros(4, int), defaultdict(int)
  for names, pair in pairs:
    counts += paired.count(pair)
    more = pair.right_b.astype(int) - pair.right_a
    for name, difference in zip(names, more.tolist(), strict=True):
      differences[name] += difference
  d = np.array([*differences.values()])
  return paired.chi_square(*counts.tolist(), abs(d.sum()), (d**2).sum())


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
  """Corrects p-values for their number, after Holm.

  The smallest of m counts m times, the next m − 1 times, and none gets below
  one before it. If those below 5 % are called differences, the probability of
  one or more mistakes is at most 5 %.

  Args:
    p_values: p-values in [0, 1] by name.

  Returns:
    The corrected ones, at most 1, in the same order.
  """
  corrected, before = {}, 0.0
  for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
    weighted = (len(p_values) - rank) * p_values[name]
    before = corrected[name] = min(max(before, weighted), 1.0)
  return {name: corrected[name] for name in p_values}
