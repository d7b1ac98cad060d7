"""What the accuracies of a few seeds tell of the runs of a table."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from mtnet_jax.analysis import significance
from mtnet_jax.analysis.significance import Comparison

_LEVEL = 0.95


def half_interval(values: Sequence[float]) -> float | None:
  """Half of the 95 % confidence interval of a mean, by Student's t.

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


def pool(comparisons: Sequence[Comparison]) -> Comparison:
  """McNemar's test on the sums of the counts of several comparisons.

  The same videos are seen by each seed. The test takes every pair of video and
  seed for itself: what it says holds for these videos.

  Args:
    comparisons: the comparisons of one run with another, a seed each.

  Returns:
    The sums, and the test on them.
  """
  names = ('both', 'only_a', 'only_b', 'neither')
  sums = [sum(getattr(c, name) for c in comparisons) for name in names]
  return significance.mcnemar(*sums)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
  """Corrects p-values for their number, after Holm.

  The smallest of m counts m times, the next m − 1 times, and none gets below
  one before it. Who calls those below 5 % differences is mistaken in one or
  more of them with a probability of 5 % at most.

  Args:
    p_values: by name, 0 to 1.

  Returns:
    The corrected ones, at most 1, in the same order.
  """
  corrected, before = {}, 0.0
  for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
    weighted = (len(p_values) - rank) * p_values[name]
    before = corrected[name] = min(max(before, weighted), 1.0)
  return {name: corrected[name] for name in p_values}
