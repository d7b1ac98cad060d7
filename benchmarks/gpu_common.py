"""Code that the parts of the GPU benchmark share."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import measure
from benchmarks.measure import Timing
from benchmarks.results import Row

# A contender so many times slower than the fastest in a first try is not raced:
# it would take the time of all others together.
_TOO_SLOW = 10
# So many runs are under way at once, so that the device, not what starts the
# runs, is the slower of the two.
_UNDER_WAY = 20


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of the command.

  Attributes:
    out: folder for what is measured.
    small: tiny shapes, to try the benchmark itself on any device.
    batch: clips a step.
    seconds: the time to measure each contender of a race, in seconds.
  """

  out: pathlib.Path
  small: bool = False
  batch: int = 16
  seconds: float = 1.0

  def under_way(self, most: int = _UNDER_WAY) -> int:
    """Runs between two waits for the device."""
    return 1 if self.small else most


class Case(NamedTuple):
  """Something to measure, apart from all else.

  Attributes:
    name: the name of the work and the precision.
    measure: gives one row or several that belong together. It may raise a
      RuntimeError, as both frameworks do where memory is short.
  """

  name: str
  measure: Callable[[], list[Row]]


Part = Callable[[Options], Iterator[Case]]


class Contender(NamedTuple):
  """One way to do a piece of work.

  Attributes:
    start: the work, without waiting for it.
    wait: waits for what `start` returned, and for all work before it.
  """

  start: Callable[[], Any]
  wait: Callable[[Any], Any] = jax.block_until_ready


def contest(
  contenders: Mapping[str, Callable[[], Contender]],
  seconds: float,
  under_way: int,
) -> tuple[dict[str, Timing | float], dict[str, str]]:
  """Returns seconds of a run, and why some have none, by name.

  A contender that is more than ten times slower than the fastest has the
  seconds of a single run.

  Args:
    contenders: functions that prepare them. Those that raise a RuntimeError,
      for want of memory for instance, are left out.
    seconds: the time to measure each contender, in seconds.
    under_way: runs that are started before one waits for them.
  """
  ready, first, failures = {}, {}, {}
  for name, prepare in contenders.items():
    try:
      contender = prepare()
      _run(contender, 2)  # warms up
      start = time.perf_counter()
      _run(contender, 1)
      first[name] = time.perf_counter() - start
      ready[name] = contender
    except RuntimeError as error:
      failures[name] = reason(error)
  too_slow = _TOO_SLOW * min(first.values(), default=0)
  slow = {name: taken for name, taken in first.items() if taken > too_slow}
  raced = measure.race(
    {
      name: functools.partial(_run, contender, under_way)
      for name, contender in ready.items()
      if name not in slow
    },
    seconds,
    rest=lambda _: None,  # No cores to share, and a clock that rests slows.
  )
  timings = {name: scaled(t, 1 / under_way) for name, t in raced.items()}
  return {name: (timings | slow)[name] for name in ready}, failures


def _run(contender, times):
  for _ in range(times):
    result = contender.start()
  contender.wait(result)


def reason(error: RuntimeError) -> str:
  """Returns why a device refused, in a few words."""
  text = str(error)
  if 'RESOURCE_EXHAUSTED' in text or 'out of memory' in text.lower():
    return 'does not fit into memory'
  return (text.strip() or type(error).__name__).splitlines()[0][:200]


def scaled(timing: Timing | float, factor: float) -> Timing | float:
  """The timing of `factor` as much work."""
  if not isinstance(timing, Timing):
    return factor * timing
  *seconds, runs = timing
  return Timing(*(factor * value for value in seconds), runs)


def middle(timing: Timing | float) -> float:
  """The median, or the only number."""
  return timing.median if isinstance(timing, Timing) else timing


def time_copy(options: Options) -> tuple[Timing, int]:
  """Seconds of a large copy, and the bytes that it reads and writes."""
  x = jnp.ones(2**20 if options.small else 2**28, jnp.float32)
  copy = jax.jit(jnp.copy)
  return _time(lambda: copy(x), options), 2 * x.nbytes


def time_matmul(
  options: Options, dtype: str, precision: str = 'default'
) -> tuple[Timing, float]:
  """Seconds of a large product of square matrices, and its operations.

  Args:
    options: the command's options.
    dtype: the dtype of the matrices.
    precision: the precision of the product, as `jnp.matmul` takes it.
  """
  n = 256 if options.small else 8192
  # Numbers drawn at random: of zeros, some devices make less work.
  x = jax.random.normal(jax.random.key(0), (n, n), dtype)
  multiply = jax.jit(functools.partial(jnp.matmul, precision=precision))
  return _time(lambda: multiply(x, x), options), 2.0 * n**3


def copy_rate(options: Options) -> float:
  """Bytes a second, read and written."""
  timing, moved = time_copy(options)
  return moved / timing.median


def matmul_rate(options: Options, dtype: str = 'bfloat16') -> float:
  """Operations a second, a multiplication and an addition being two."""
  timing, operations = time_matmul(options, dtype)
  return operations / timing.median


def _time(start, options):
  timings, failures = contest(
    {'it': lambda: Contender(start)}, options.seconds, options.under_way()
  )
  if failures:
    raise RuntimeError(failures['it'])
  return timings['it']
