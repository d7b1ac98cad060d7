"""Multigrid training: the shape of a batch changes with the step.

Batches of many short, small clips come first and cost as much as few long,
large ones: b·t·h·w = B·T·H·W, up to rounding. Source: thesis, Fig. 4.6 and
Sections 4.4.1 and 5.4.1, after Wu et al., *A Multigrid Method for Efficiently
Training Video Models*, CVPR 2020.
"""

import bisect
import collections
import dataclasses
import functools
import math

from mtnet_jax.errors import UserError

Shape = tuple[int, int, int, int]

# Times the batch, over the frames, over the area: (8B, T/4, H/√2), …
_LONG = ((8, 4, 2), (4, 2, 2), (2, 2, 1), (1, 1, 1))
_SHORT = ((4, 1, 4), (2, 1, 2), (1, 1, 1))
_CONSTANT = ((1, 1, 1),)

_SIZE_MULTIPLE = 8
_MIN_SIZE = 24


@dataclasses.dataclass(frozen=True)
class Multigrid:
  """The shape of every training batch, a pure function of its number.

  The long cycle's four phases, (8B, T/4, H/√2), (4B, T/2, H/√2), (2B, T/2, H)
  and (B, T, H), have equally many steps each: the fewest with which one pass of
  the four draws an epoch's samples. Then the next pass begins. The short cycle
  is, step by step and from the beginning in each phase, (4b, t, h/2),
  (2b, t, h/√2) and (b, t, h), where b, t and h are the phase's. With neither,
  every batch has the base shape.

  Sizes are rounded to the nearest multiple of 8, and are at least 24 and at
  most H; H itself is taken as it is. Frames are rounded to the nearest number,
  batches to the nearest multiple of `batch_multiple`; both are at least one of
  it. Halves go up: 13 / 2 frames are 7. Batch sizes do not compensate for
  rounding, so `volume_ratio` may differ a little from 1.

  Attributes:
    batch: clips of a batch of the base shape, B.
    frames: the frames of a clip, T.
    size: pixels, the height and the width of a clip, H.
    samples_per_epoch: the training videos.
    long_cycle: whether there is a long cycle.
    short_cycle: whether there is a short cycle.
    batch_multiple: every batch is a multiple of it.

  Raises:
    UserError: a number is below 1.

  Example:
    >>> multigrid = Multigrid(64, 16, 224, samples_per_epoch=9_537)
    >>> [multigrid.shape(step) for step in (0, 1, 15)]
    [(2048, 4, 80, 80), (1024, 4, 112, 112), (256, 16, 112, 112)]
  """

  batch: int
  frames: int
  size: int
  samples_per_epoch: int
  long_cycle: bool = True
  short_cycle: bool = True
  batch_multiple: int = 1

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not isinstance(value, bool) and value < 1:
        raise UserError(
          f"Multigrid's {field.name} (={value}) must be at least 1."
        )

  def shape(self, step: int) -> Shape:
    """Returns (b, t, h, w) of batch `step` ≥ 0: clips, frames, pixels."""
    phase, place = self._locate(step)
    return self._cycles[phase][place]

  def learning_rate_factor(self, step: int) -> float:
    """Returns the factor of the learning rate: 8, 4, 2 or 1.

    It is the long cycle's batch over B; the short cycle leaves it as it is.
    """
    return float(self._phases[self._locate(step)[0]][0])

  def volume_ratio(self, step: int) -> float:
    """Returns b·t·h·w of a batch over B·T·H·W, which rounding leaves near 1."""
    volume = self.batch * self.frames * self.size**2
    return math.prod(self.shape(step)) / volume

  def first_sample(self, step: int) -> int:
    """Returns how many samples the batches before `step` ≥ 0 have drawn."""
    passes, step = divmod(step, self.period)
    phase, step = divmod(step, self._phase_steps)
    drawn = sum(self._drawn(p, self._phase_steps) for p in range(phase))
    return passes * self._samples_per_period + drawn + self._drawn(phase, step)

  def num_steps(self, samples: float) -> int:
    """Returns the fewest steps that draw at least so many samples, ≥ 0."""
    passes, rest = divmod(samples, self._samples_per_period)
    steps = range(self.period + 1)
    more = bisect.bisect_left(steps, rest, key=self.first_sample)
    return int(passes) * self.period + more

  @functools.cached_property
  def period(self) -> int:
    """The number of steps after which the shapes repeat.

    With the long cycle it is an epoch, rounded up to whole phases of equal
    length; with the short one alone it is three steps, else one.
    """
    return len(self._phases) * self._phase_steps

  @property
  def steps_per_epoch(self) -> float:
    """The number of steps that draw `samples_per_epoch`, on average."""
    return self.period * self.samples_per_epoch / self._samples_per_period

  def shapes(self) -> dict[Shape, int]:
    """Returns how many steps of a period have each shape, in order."""
    counts = collections.Counter()
    for cycle in self._cycles:
      for place, shape in enumerate(cycle):
        counts[shape] += len(range(place, self._phase_steps, len(cycle)))
    return {shape: count for shape, count in counts.items() if count}

  @property
  def _phases(self) -> tuple[tuple[int, int, int], ...]:
    return _LONG if self.long_cycle else _CONSTANT

  @functools.cached_property
  def _cycles(self) -> tuple[tuple[Shape, ...], ...]:
    """Returns the shapes of each phase's short cycle."""
    short = _SHORT if self.short_cycle else _CONSTANT
    return tuple(
      tuple(
        self._round(*(of * by for of, by in zip(phase, place, strict=True)))
        for place in short
      )
      for phase in self._phases
    )

  @functools.cached_property
  def _phase_steps(self) -> int:
    """The steps of a phase, or without the long cycle those of a short one."""
    if not self.long_cycle:
      return len(self._cycles[0])

    def samples(steps):
      return sum(self._drawn(p, steps) for p in range(len(_LONG)))

    wanted = self.samples_per_epoch
    return bisect.bisect_left(range(wanted), wanted, lo=1, key=samples)

  @functools.cached_property
  def _samples_per_period(self) -> int:
    phases = range(len(self._phases))
    return sum(self._drawn(phase, self._phase_steps) for phase in phases)

  def _locate(self, step: int) -> tuple[int, int]:
    """Returns a step's phase and its place in the short cycle."""
    phase, step = divmod(step % self.period, self._phase_steps)
    return phase, step % len(self._cycles[phase])

  def _drawn(self, phase: int, steps: int) -> int:
    """Returns the samples that a phase's first steps draw."""
    batches = [shape[0] for shape in self._cycles[phase]]
    cycles, rest = divmod(steps, len(batches))
    return cycles * sum(batches) + sum(batches[:rest])

  def _round(self, times_batch: int, over_frames: int, over_area: int) -> Shape:
    multiple = self.batch_multiple
    size = self.size
    if over_area > 1:
      size = math.sqrt(self.size**2 / over_area)
      size = max(_MIN_SIZE, _nearest(size / _SIZE_MULTIPLE) * _SIZE_MULTIPLE)
      size = min(size, self.size)
    return (
      max(1, _nearest(times_batch * self.batch / multiple)) * multiple,
      max(1, _nearest(self.frames / over_frames)),
      size,
      size,
    )


def _nearest(number: float) -> int:
  return math.floor(number + 0.5)
