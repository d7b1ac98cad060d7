"""The set `speed`: pairs of classes that differ in nothing but their speed.

Each movement is a closed path of poses, repeated all through the video from
anywhere on it. The slow class of a pair goes through the path in 1.5 to 2.25
seconds and the fast one in 0.5 to 0.75: one path, the same poses, no lean or
height of the arms that only one of the two has. A video is longer than the
slowest repetition, so that both show the whole path, and no single frame tells
which of the two it is.
"""

import numpy as np

from mtnet_jax.datasets.stick_figures import idle, solo
from mtnet_jax.datasets.stick_figures.skeleton import LEFT, RIGHT, UP
from mtnet_jax.datasets.stick_figures.stage import Stage

SLOWEST = 2.25  # seconds, of one repetition of a slow class
_SHORTEST = {'fast': 0.5, 'slow': 1.5}
_SPREAD = 1.5  # longest over shortest, in both


def perform(
  name: str,
  phase: np.ndarray,
  seconds: np.ndarray,
  rng: np.random.Generator,
) -> Stage:
  """Returns the stage after a movement has been put on it.

  Args:
    name: one of `NAMES`.
    phase: not used, as the movement fills the video.
    seconds: (t,) time, evenly spaced.
    rng: the two classes of a pair given the same generator take the same path
      of poses from the same point on, one three times as fast; only the sway
      of somebody who stands goes by time.
  """
  del phase
  pace, movement = name.split('_', 1)
  period = _SHORTEST[pace] * _SPREAD ** rng.uniform()
  stage = Stage((rng.uniform() + seconds / period) % 1.0, seconds, rng)
  _PERFORMED[movement](stage)
  return stage


def wave(stage: Stage) -> None:
  """Holds one hand up and waves it from side to side."""
  rng = stage.rng
  person = stage.enter(yaw=rng.uniform(0.8, np.pi / 2))
  swing = np.sin(2 * np.pi * stage.phase)
  spread = rng.uniform(125, 138) + rng.uniform(26, 36) * swing
  all_the_time = np.ones(len(swing))
  person.arm(
    int(rng.integers(2)),
    all_the_time,
    rng.uniform(0, 25),
    spread,
    rng.uniform(0.78, 0.9),
  )
  person.motion.roll += 0.04 * swing


def walk(stage: Stage) -> None:
  """Walks on the spot, as on a treadmill."""
  rng = stage.rng
  person = stage.enter(yaw=rng.uniform(-0.2, 0.7))
  height = person.body.height
  stride = height * rng.uniform(0.1, 0.14)
  lift = height * rng.uniform(0.05, 0.09)
  swing = rng.uniform(0.35, 0.6)
  person.lower(np.full(len(stage.phase), 0.02 * height))
  for side in (LEFT, RIGHT):
    share = (stage.phase + 0.5 * side) % 1.0
    air = np.clip((share - 0.55) / 0.45, 0, 1)  # the rest is on the floor
    ahead = np.where(air > 0, -np.cos(np.pi * air), 1 - 2 * share / 0.55)
    foot = stride * ahead[:, None] * person.forward
    foot = foot + lift * np.sin(np.pi * air)[:, None] * UP
    person.motion.feet[:, side] += foot
    person.motion.arms[:, 1 - side, 0] += swing * ahead
    person.motion.arms[:, side, 2] = rng.uniform(0.88, 0.95)


def squat(stage: Stage) -> None:
  """Goes down on bent knees and up again; see `solo.squat`."""
  solo.squat(stage, stage.enter(yaw=stage.rng.uniform(-0.2, np.pi / 2)))


def bow(stage: Stage) -> None:
  """Bends the trunk forward and up again; see `solo.bow`."""
  solo.bow(stage, stage.enter(yaw=stage.rng.uniform(-0.2, 0.8)))


def punch(stage: Stage) -> None:
  """Strikes at the head of another with one fist, out of a guard."""
  first, second = stage.enter_pair(stage.rng.uniform(0.84, 0.94))
  all_the_time = np.ones(len(stage.phase))
  for side in (LEFT, RIGHT):
    first.arm(side, all_the_time, stage.rng.uniform(88, 105), 8, 0.46)
  idle.strike_at_head(stage, first, second, [0.0, 0.42, 1.0])


def shake_hands(stage: Stage) -> None:
  """Two people hold each other's right hand and shake it."""
  first, second = stage.enter_pair(stage.rng.uniform(0.78, 0.88))
  middle = (first.motion.pelvis + second.motion.pelvis) / 2 * [1, 0, 1]
  height = (first.body.height + second.body.height) / 2
  level = stage.rng.uniform(0.58, 0.64)
  level = level + 0.055 * np.sin(2 * np.pi * stage.phase)
  point = middle + (level * height)[:, None] * UP
  for person in (first, second):
    person.motion.lean += 0.09
    person.reach(RIGHT, point, np.ones(len(level)))


_PERFORMED = {
  'bow': bow,
  'punch': punch,
  'shake_hands': shake_hands,
  'squat': squat,
  'walk': walk,
  'wave': wave,
}
PAIRS = tuple((f'fast_{name}', f'slow_{name}') for name in _PERFORMED)
NAMES = tuple(sorted(name for pair in PAIRS for name in pair))
