"""The classes, and how each is performed.

Three pairs of classes are one performance shown forwards and backwards, so that
only the direction of time tells them apart: see `REVERSED`. No class depends on
left and right: scenes are mirrored half of the time.
"""

import numpy as np

from mtnet_jax.datasets.stick_figures import duo, solo
from mtnet_jax.datasets.stick_figures.stage import Stage

_PERFORMED = {
  'sit_down': solo.sit_down,
  'raise_arms': solo.raise_arms,
  'pick_up': solo.pick_up,
  'approach': duo.approach,
  'wave': solo.wave,
  'jump': solo.jump,
  'shake_hands': duo.shake_hands,
  'high_five': duo.high_five,
  'hug': duo.hug,
  'push': duo.push,
  'punch': duo.punch,
  'kick': duo.kick,
}
REVERSED = {
  'stand_up': 'sit_down',
  'lower_arms': 'raise_arms',
  'part': 'approach',
}
NAMES = tuple(sorted((*_PERFORMED, *REVERSED)))


def perform(
  name: str,
  phase: np.ndarray,
  seconds: np.ndarray,
  rng: np.random.Generator,
) -> Stage:
  """Returns the stage after an action has been put on it.

  Args:
    name: one of `NAMES`.
    phase: (t,) progress, 0 to 1, of the action; of the one that `REVERSED`
      names where there is one, which is then played backwards.
    seconds: (t,) time, evenly spaced.
    rng: two actions of a pair given the same generator are mirror images in
      time, to the bit.
  """
  stage = Stage(phase, seconds, rng)
  _PERFORMED[REVERSED.get(name, name)](stage)
  if name in REVERSED:
    for person in stage.performers:
      person.motion = person.motion.reversed()
    for prop in stage.props:
      prop.center = prop.center[::-1]
  return stage
