"""Seconds of what several contenders do with the same work, taken in turns.

A machine's speed changes from minute to minute. Contenders that run in turns
see the same changes, so that the ratio of their medians means more than either.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

# Threads of OpenMP, PyTorch's for instance, wait busily for about 15 ms after
# their work; XLA's would share the cores with them.
_REST = 0.02


class Timing(NamedTuple):
  """Seconds of one contender.

  Attributes:
    median: of the runs.
    low: their lower quartile.
    high: their upper quartile.
    runs: so many, warm-up not counted.
  """

  median: float
  low: float
  high: float
  runs: int


def race(
  runs: Mapping[str, Callable[[], Any]],
  seconds: float = 2.0,
  least: int = 5,
  clock: Callable[[], float] = time.perf_counter,
  rest: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
  """Runs each in turns and returns what it took, by name.

  Args:
    runs: by name, what is measured. Each returns when its result is there.
    seconds: for each contender, rests between the runs included.
    least: rounds, however long they take; a first one warms up besides.
    clock: seconds since any moment.
    rest: pauses for so many seconds, before each run.
  """
  taken = {name: [] for name in runs}
  until = None
  rounds = 0
  while until is None or rounds < least or clock() < until:
    for name, run in runs.items():
      rest(_REST)
      start = clock()
      run()
      end = clock()
      if until is not None:
        taken[name].append(end - start)
    if until is None:
      until = clock() + seconds * len(runs)
    else:
      rounds += 1
  return {name: _timing(values) for name, values in taken.items()}


def _timing(seconds):
  low, median, high = np.percentile(seconds, (25, 50, 75))
  return Timing(float(median), float(low), float(high), len(seconds))


def ready(function: Callable, *args) -> Callable[[], None]:
  """A function that calls `function(*args)` and waits for its arrays."""
  return lambda: jax.block_until_ready(function(*args))
