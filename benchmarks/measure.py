"""Measures the seconds of several contenders with the same work, in turns.

A machine's speed changes from minute to minute. Contenders that run in turns
see the same changes, so that the ratio of their medians means more than either.
"""

import contextlib
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

# Threads of OpenMP, PyTorch's for instance, wait busily for about 15 ms after
# their work; XLA's would share the cores with them.
_REST = 0.02
# A processor that was idle takes some milliseconds to come up to speed.
_WARM_UP = 0.05


class Timing(NamedTuple):
  """Seconds of one contender.

  Attributes:
    median: the median of the runs, in seconds.
    low: their lower quartile.
    high: their upper quartile.
    runs: the number of runs, without the warm-up.
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
  """Runs the contenders in turns and returns their timings, by name.

  Args:
    runs: functions to measure, by name. Each returns when its result is there.
    seconds: the time to measure each contender, in seconds, with the rests
      between the runs.
    least: rounds, however long they take; a first one warms up besides.
    clock: seconds since any moment.
    rest: pauses for so many seconds, before each run.
  """

  def timed(run):
    start = clock()
    run()
    return clock() - start

  contenders = {k: functools.partial(timed, run) for k, run in runs.items()}
  return turns(contenders, seconds, least, clock, rest)


def turns(
  contenders: Mapping[str, Callable[[], float]],
  seconds: float = 2.0,
  least: int = 5,
  clock: Callable[[], float] = time.perf_counter,
  rest: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
  """Does the same as `race` for contenders that return their own time."""
  taken = {name: [] for name in contenders}
  until = None
  rounds = 0
  while until is None or rounds < least or clock() < until:
    for name, contend in contenders.items():
      rest(_REST)
      took = contend()
      if until is not None:
        taken[name].append(took)
    if until is None:
      until = clock() + seconds * len(contenders)
    else:
      rounds += 1
  return {name: _timing(values) for name, values in taken.items()}


@contextlib.contextmanager
def apart(
  make: Callable[..., Callable[[], Any]], *args: Any
) -> Iterator[Callable[[], float]]:
  """A contender in a process of its own, as its user would run it.

  In one process, contenders share threads and memory: what one frees the other
  gets, in pieces. Each run follows others that are not timed, so that another's
  turn has not emptied the caches, and the processor is up to speed.

  Args:
    make: returns what is to be run; both it and `args` can be pickled.
    *args: arguments of `make`.

  Yields:
    What runs it and returns the seconds; the first call makes it.
  """
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  process = context.Process(target=_serve, args=(theirs, make, args))
  process.start()
  theirs.close()

  def contend():
    ours.send(None)
    return ours.recv()

  try:
    yield contend
  finally:
    ours.close()
    process.join()


def _serve(connection, make, args):
  run = make(*args)
  with contextlib.suppress(EOFError):
    while True:
      connection.recv()
      begin = time.perf_counter()
      run()
      while time.perf_counter() < begin + _WARM_UP:
        run()
      start = time.perf_counter()
      run()
      connection.send(time.perf_counter() - start)


def _timing(seconds):
  low, median, high = np.percentile(seconds, (25, 50, 75))
  return Timing(float(median), float(low), float(high), len(seconds))


def ready(function: Callable, *args) -> Callable[[], None]:
  """A function that calls `function(*args)` and waits for its arrays."""
  return lambda: jax.block_until_ready(function(*args))
