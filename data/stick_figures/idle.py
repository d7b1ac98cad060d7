"""The set `idle`: short actions of people who stand idle most of the time.

Nothing but the action tells the class. Two people stand face to face in every
class, also where only one of them acts; they stand as far apart, are seen by a
camera that has the same room in view, and are back in their places and at ease
when the action is over. Given the same generator, two classes look the same to
the bit in every frame outside the action.

The classes are those of the set `actions` that allow this. `sit_down`,
`stand_up`, `pick_up`, `approach` and `part` are left out: the chair, the thing
on the floor or the distance between the people would tell them while nothing
happens. `raise_arms` and `lower_arms` would be told by where the arms are then:
`stretch`, which raises and lowers them, takes the place of both. `squat` and
`bow` are added.
"""

import numpy as np

from mtnet_jax.datasets.stick_figures import solo
from mtnet_jax.datasets.stick_figures.movement import Performer, curve, jitter
from mtnet_jax.datasets.stick_figures.skeleton import LEFT, RIGHT, UP
from mtnet_jax.datasets.stick_figures.stage import Stage


def perform(
  name: str,
  phase: np.ndarray,
  seconds: np.ndarray,
  rng: np.random.Generator,
) -> Stage:
  """Returns the stage after an action has been put on it.

  Args:
    name: one of `NAMES`.
    phase: (t,) progress, 0 to 1, of the action. What is done does not depend
      on how fast it is done.
    seconds: (t,) time, evenly spaced.
    rng: decides who stands there, and how the action is performed.
  """
  stage = Stage(phase, seconds, rng)
  first, second = stage.enter_pair(rng.uniform(0.78, 0.88))
  tall = max(first.body.height, second.body.height)
  # The hands of raised arms are at 1.2 times the body's height.
  corners = np.array(np.meshgrid([-0.72, 0.72], [0.0, 1.15], [-0.15, 0.15]))
  stage.room = corners.reshape(3, 8).T * [1, tall, 1]
  _PERFORMED[name](stage, first, second)
  return stage


def _there_and_back(stage: Stage, start: float, end: float) -> np.ndarray:
  """Returns a weight, (t,): 1 between `start` and `end`, 0 outside."""
  return stage.curve([0.0, start, end, 1.0], [0, 1, 1, 0])


def _between(first: Performer, second: Performer) -> np.ndarray:
  """Returns the middle of two people on the floor, (t, 3)."""
  return (first.motion.pelvis + second.motion.pelvis) / 2 * [1, 0, 1]


def stretch(stage: Stage, first: Performer, _: Performer) -> None:
  """Takes both arms above the head in front of the body, and down again."""
  rng = stage.rng
  up = _there_and_back(stage, 0.42, 0.58)
  top = rng.uniform(150, 172)
  for side in (LEFT, RIGHT):
    swing = (top + rng.uniform(-5, 5)) * up
    # Bent on the way, as the other one stands there.
    reach = 0.7 + rng.uniform(0.2, 0.26) * up**2
    first.arm(side, np.minimum(1.0, 8 * up), swing, 12, reach)
  first.motion.nod -= rng.uniform(0, 0.3) * up


def wave(stage: Stage, first: Performer, _: Performer) -> None:
  """Raises one hand and waves it twice."""
  rng = stage.rng
  side = int(rng.integers(2))
  up = _there_and_back(stage, 0.2, 0.8)
  angle = 4 * np.pi * np.clip((stage.phase - 0.18) / 0.64, 0, 1)
  swing = rng.uniform(138, 150) + rng.uniform(24, 34) * np.sin(angle)
  first.arm(side, up, swing, rng.uniform(15, 40), rng.uniform(0.78, 0.9))
  first.motion.lean += 0.04 * np.sin(angle) * up


def jump(stage: Stage, first: Performer, _: Performer) -> None:
  """Leaves the floor with both feet once."""
  rng, motion, height = stage.rng, first.motion, first.body.height
  times = jitter(rng, [0.0, 0.28, 0.4, 0.72, 0.82, 1.0], 0.02)
  flight = (stage.phase - times[2]) / (times[3] - times[2])
  flight = np.clip(flight, 0, 1)
  rise = rng.uniform(0.16, 0.22) * height * 4 * flight * (1 - flight)
  bent = curve(stage.phase, times, [0, 1, 0, 0, 0.9, 0])
  first.lower(rng.uniform(0.09, 0.13) * height * bent)
  motion.pelvis[:, 1] += rise
  motion.feet[:, :, 1] += rise[:, None]
  motion.lean += 0.4 * bent
  swing = curve(stage.phase, times, [0, -45, 60, 40, 20, 0])
  spread = curve(stage.phase, times, [7, 15, 30, 35, 20, 7])
  weight = _there_and_back(stage, 0.2, 0.85)
  for side in (LEFT, RIGHT):
    first.arm(side, weight, swing, spread, 0.92)


def squat(stage: Stage, first: Performer, _: Performer) -> None:
  """Goes down on bent knees and up again; see `solo.squat`."""
  solo.squat(stage, first)


def bow(stage: Stage, first: Performer, _: Performer) -> None:
  """Bends the trunk forward and up again; see `solo.bow`."""
  solo.bow(stage, first)


def shake_hands(stage: Stage, first: Performer, second: Performer) -> None:
  """Both give each other the right hand and shake it twice."""
  height = (first.body.height + second.body.height) / 2
  angle = 4 * np.pi * np.clip((stage.phase - 0.25) / 0.5, 0, 1)
  level = stage.rng.uniform(0.6, 0.66) + 0.05 * np.sin(angle)
  point = _between(first, second) + (level * height)[:, None] * UP
  weight = _there_and_back(stage, 0.25, 0.78)
  for person in (first, second):
    person.motion.lean += 0.09 * weight
    person.reach(RIGHT, point, weight)


def high_five(stage: Stage, first: Performer, second: Performer) -> None:
  """Both swing one hand and clap them above their heads."""
  levels = []
  for person in (first, second):
    raised = _there_and_back(stage, 0.15, 0.85)
    swing = stage.curve([0.06, 0.35, 0.62, 0.92], [35, 165, 165, 35])
    person.arm(RIGHT, raised, swing, 12, 0.62)
    person.motion.lean += 0.12 * stage.pulse(0.2, 0.5, 0.85)
    person.motion.nod -= 0.3 * stage.pulse(0.1, 0.5, 0.9)
    shoulder = person.joint('right_shoulder').max(0)[1]
    aside = np.hypot(0.42, person.body.shoulders)
    levels.append(shoulder + np.sqrt((0.95 * person.body.arm) ** 2 - aside**2))
  point = _between(first, second) + min(levels) * UP  # both reach as high
  weight = curve(stage.phase, [0.3, 0.46, 0.56, 0.85], [0, 1, 1, 0])
  for person in (first, second):
    person.reach(RIGHT, point, weight)


def hug(stage: Stage, first: Performer, second: Performer) -> None:
  """Both step together, put their arms around each other, and step back."""
  way = np.ptp([first.motion.pelvis[0, 0], second.motion.pelvis[0, 0]])
  way = (way - stage.rng.uniform(0.3, 0.36)) / 2
  gone = way * _there_and_back(stage, 0.38, 0.64)
  opened = _there_and_back(stage, 0.22, 0.8)
  wrap = curve(stage.phase, [0.2, 0.42, 0.6, 0.85], [0, 1, 1, 0])
  for person in (first, second):
    person.walk(gone, way)
    person.motion.lean += 0.1 * wrap
    for side in (LEFT, RIGHT):
      person.arm(side, opened, 70, 30, 0.9)
  high = int(stage.rng.integers(2))
  for person, other in ((first, second), (second, first)):
    spine = other.joint('pelvis') + 0.7 * other.body.trunk * UP
    for side, sign in ((LEFT, 1), (RIGHT, -1)):
      # One arm goes over the other's shoulder, the other under it.
      level = 0.09 if (side == high) else -0.07
      back = spine + level * UP - 0.07 * other.body.height * other.forward
      person.reach(side, back + 0.14 * sign * person.left, wrap)


def push(stage: Stage, first: Performer, second: Performer) -> None:
  """Shoves the other with both hands, who stumbles back and returns."""
  rng, phase = stage.rng, stage.phase
  start, hit, gone = jitter(rng, [0.0, 0.2, 0.36, 0.5, 1.0])[1:4]
  thrust = curve(phase, [start, hit, gone, 0.9], [0, 1, 1, 0])
  first.motion.lean += rng.uniform(0.2, 0.32) * thrust
  first.shift(0.1 * thrust)
  back = rng.uniform(0.2, 0.3)
  away = curve(phase, [hit - 0.04, 0.6, 0.7, 1.0], [0, 1, 1, 0])
  second.walk(-back * away, -back)
  stumble = curve(phase, [hit - 0.03, hit + 0.1, 0.9], [0, 1, 0])
  second.motion.lean -= rng.uniform(0.25, 0.4) * stumble
  chest = second.joint('neck') - 0.25 * second.body.trunk * UP
  chest = chest + 0.1 * second.body.height * second.forward
  for side, sign in ((LEFT, 1), (RIGHT, -1)):
    wound = curve(phase, [0.0, start, gone, 0.95], [0, 1, 1, 0])
    first.arm(side, wound, 70, 12, 0.5)
    touch = curve(phase, [start, hit, gone, 0.9], [0, 1, 1, 0])
    first.reach(side, chest + 0.12 * sign * first.left, touch)
    second.arm(side, stumble, 65, 35, 0.85)


def punch(stage: Stage, first: Performer, second: Performer) -> None:
  """Strikes at the head of the other with one fist, who flinches."""
  guard = _there_and_back(stage, 0.2, 0.8)
  for side in (LEFT, RIGHT):
    first.arm(side, guard, stage.rng.uniform(88, 105), 8, 0.46)
  strike_at_head(stage, first, second, [0.2, 0.46, 0.8])


def strike_at_head(
  stage: Stage, first: Performer, second: Performer, times
) -> None:
  """Puts one blow on the stage that begins, hits and ends at three times."""
  rng = stage.rng
  start, hit, end = times
  head = second.joint('head') + second.body.head * second.forward
  strike = curve(stage.phase, [start, hit, end], [0, 1, 0])
  first.reach(int(rng.integers(2)), head, strike)
  first.motion.lean += 0.16 * strike
  first.shift(0.07 * strike)
  flinch = curve(stage.phase, [hit - 0.02, hit + 0.08, end], [0, 1, 0])
  second.motion.lean -= rng.uniform(0.26, 0.38) * flinch
  second.motion.nod -= rng.uniform(0.3, 0.5) * flinch


def kick(stage: Stage, first: Performer, second: Performer) -> None:
  """Kicks the other at the hip, who doubles up."""
  rng, phase = stage.rng, stage.phase
  side, height = int(rng.integers(2)), first.body.height
  times = jitter(rng, [0.0, 0.25, 0.42, 0.6, 1.0], 0.02)
  forward = curve(phase, times, [0, 0.13, 0.42, 0.13, 0])
  up = curve(phase, times, [0, 0.27, rng.uniform(0.4, 0.5), 0.27, 0])
  foot = forward[:, None] * first.forward + up[:, None] * UP
  first.motion.feet[:, side] += height * foot
  out = curve(phase, times, [0, 0.5, 1, 0.4, 0])
  first.motion.lean -= rng.uniform(0.25, 0.4) * out
  hit = curve(phase, [times[2] - 0.03, times[2] + 0.12, 0.95], [0, 1, 0])
  second.motion.lean += rng.uniform(0.45, 0.7) * hit
  second.shift(-0.12 * hit)
  for arm in (LEFT, RIGHT):
    first.arm(arm, out, 20, rng.uniform(30, 60), 0.8)
    second.arm(arm, hit, 50, 15, 0.75)


_PERFORMED = {
  'bow': bow,
  'high_five': high_five,
  'hug': hug,
  'jump': jump,
  'kick': kick,
  'punch': punch,
  'push': push,
  'shake_hands': shake_hands,
  'squat': squat,
  'stretch': stretch,
  'wave': wave,
}
NAMES = tuple(_PERFORMED)
