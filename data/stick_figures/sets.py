"""The sets of videos that can be made: their classes, lengths and actions."""

import dataclasses
from collections.abc import Callable

import numpy as np

from mtnet_jax.datasets.stick_figures import (
  actions,
  formats,
  idle,
  speed,
  stage,
)

DEFAULT = 'actions'


@dataclasses.dataclass(frozen=True)
class Figures:
  """One set.

  Attributes:
    names: the names of the classes.
    perform: puts a class's action on a stage, see `actions.perform`.
    sample: draws the format of a video, see `formats.sample`.
    entropy: numbers that only this set's videos are seeded with.
    tells_when: the frames of each action are written to `actions.csv`.
  """

  names: tuple[str, ...]
  perform: Callable[..., stage.Stage]
  sample: Callable[[int, np.random.Generator], formats.Format]
  entropy: tuple[int, ...]
  tells_when: bool = False


# 0 to 3 as a last number of the entropy is what a generator's `spawn` adds.
SETS = {
  DEFAULT: Figures(actions.NAMES, actions.perform, formats.sample, ()),
  'idle': Figures(
    idle.NAMES, idle.perform, formats.sample_idle, (101,), tells_when=True
  ),
  'speed': Figures(speed.NAMES, speed.perform, formats.sample_speed, (102,)),
}
