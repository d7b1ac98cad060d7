"""Actions of two people; each function puts one on an empty stage."""

import itertools

import numpy as np

from mtnet_jax.datasets.stick_figures.movement import Performer, curve, jitter
from mtnet_jax.datasets.stick_figures.skeleton import LEFT, RIGHT, UP
from mtnet_jax.datasets.stick_figures.stage import Stage


def _between(first: Performer, second: Performer):
  """Returns the middle of two people on the floor, (t, 3), and their height."""
  middle = (first.motion.pelvis + second.motion.pelvis) / 2 * [1, 0, 1]
  return middle, (first.body.height + second.body.height) / 2


def approach(stage: Stage) -> None:
  """Walks up to somebody, who may come along too; face to face all the time."""
  rng = stage.rng
  gap, way = rng.uniform(0.6, 0.8), rng.uniform(1.1, 1.5)
  first, second = stage.enter_pair(gap + way)
  share = rng.choice([0.0, 0.5, 1.0]) + rng.uniform(-0.15, 0.15)
  share = float(np.clip(share, 0.0, 1.0))
  for person, part in ((first, share), (second, 1 - share)):
    gone = stage.curve([0.0, 1.0], [0, 1])
    person.walk(part * way * gone, part * way)


def shake_hands(stage: Stage) -> None:
  """Two people give each other the right hand and shake it."""
  rng = stage.rng
  gap = rng.uniform(0.78, 0.88)
  way = rng.uniform(0.0, 0.6)
  first, second = stage.enter_pair(gap + way)
  for person in (first, second):
    person.walk(way / 2 * stage.curve([0.0, 0.3], [0, 1]), way / 2)
    person.motion.lean += 0.09 * stage.curve([0.1, 0.3, 0.8, 1.0], [0, 1, 1, 0])
  point, height = _between(first, second)
  angle = np.clip((stage.phase - 0.28) / 0.52, 0, 1)
  angle = 2 * np.pi * (stage.cycles(0.5, 0.8, 4) + 1) * angle
  level = rng.uniform(0.6, 0.66) + 0.05 * np.sin(angle)
  point = point + (level * height)[:, None] * UP
  weight = stage.curve([0.05, 0.27, 0.82, 1.0], [0, 1, 1, 0])
  for person in (first, second):
    person.reach(RIGHT, point, weight)


def high_five(stage: Stage) -> None:
  """Two people swing one hand each and clap them above their heads."""
  rng = stage.rng
  gap = rng.uniform(0.72, 0.85)
  way = rng.uniform(0.0, 0.5)
  first, second = stage.enter_pair(gap + way)
  levels = []
  for person in (first, second):
    person.walk(way / 2 * stage.curve([0.0, 0.4], [0, 1]), way / 2)
    raised = stage.curve([0.0, 0.12, 0.85, 1.0], [0, 1, 1, 0])
    swing = stage.curve([0.06, 0.35, 0.62, 0.92], [35, 165, 165, 35])
    person.arm(RIGHT, raised, swing, 12, 0.62)
    person.motion.lean += 0.12 * stage.pulse(0.3, 0.52, 0.8)
    person.motion.nod -= 0.3 * stage.pulse(0.1, 0.5, 0.9)
    shoulder = person.joint('right_shoulder').max(0)[1]
    aside = np.hypot(gap / 2, person.body.shoulders)
    levels.append(shoulder + np.sqrt((0.95 * person.body.arm) ** 2 - aside**2))
  point = _between(first, second)[0] + min(levels) * UP  # both reach as high
  hit = jitter(rng, [0.36, 0.52, 0.6, 0.85])
  weight = curve(stage.phase, hit, [0, 1, 1, 0])
  for person in (first, second):
    person.reach(RIGHT, point, weight)


def hug(stage: Stage) -> None:
  """Two people step together and put their arms around each other."""
  rng = stage.rng
  gap = rng.uniform(0.3, 0.36)
  way = rng.uniform(0.55, 0.95)
  first, second = stage.enter_pair(gap + way)
  let_go = float(rng.uniform() < 0.5)
  opened = stage.curve([0.02, 0.25, 0.85, 1.0], [0, 1, 1, 1 - let_go])
  wrap = stage.curve([0.22, 0.45, 0.75, 0.95], [0, 1, 1, 1 - let_go])
  rock = rng.uniform(0.03, 0.08) * wrap
  rock = rock * np.sin(2 * np.pi * rng.uniform(0.4, 0.9) * stage.seconds)
  for person, sign in ((first, 1), (second, -1)):
    person.walk(way / 2 * stage.curve([0.0, 0.42], [0, 1]), way / 2)
    person.motion.lean += 0.1 * wrap
    person.motion.roll += sign * rock
    for side in (LEFT, RIGHT):
      person.arm(side, opened, 70, 30, 0.9)
  high = int(rng.integers(2))
  for person, other in ((first, second), (second, first)):
    spine = other.joint('pelvis') + 0.7 * other.body.trunk * UP
    for side, sign in ((LEFT, 1), (RIGHT, -1)):
      level = (0.1 if side == high else -0.12) * other.body.trunk
      back = spine + level * UP - 0.07 * other.body.height * other.forward
      person.reach(side, back + 0.14 * sign * person.left, wrap)


def push(stage: Stage) -> None:
  """One person shoves another with both hands, who stumbles backwards."""
  rng = stage.rng
  gap, way = rng.uniform(0.72, 0.85), rng.uniform(0.15, 0.4)
  first, second = stage.enter_pair(gap + way)
  start, hit, gone = jitter(rng, [0.0, 0.22, 0.42, 0.6, 1.0])[1:4]
  first.walk(way * stage.curve([0.0, hit - 0.04], [0, 1]), way)
  thrust = curve(stage.phase, [start, hit, gone, 0.95], [0, 1, 1, 0])
  first.motion.lean += rng.uniform(0.2, 0.32) * thrust
  first.shift(0.1 * thrust)
  back = rng.uniform(0.7, 1.1)
  second.walk(-back * curve(stage.phase, [hit - 0.04, 0.9], [0, 1]), -back)
  stumble = curve(stage.phase, [hit - 0.03, hit + 0.1, 0.9], [0, 1, 0])
  second.motion.lean -= rng.uniform(0.25, 0.4) * stumble
  chest = second.joint('neck') - 0.25 * second.body.trunk * UP
  chest = chest + 0.1 * second.body.height * second.forward
  for side, sign in ((LEFT, 1), (RIGHT, -1)):
    wound = curve(stage.phase, [0.0, start, gone, 0.95], [0, 1, 1, 0])
    first.arm(side, wound, 70, 12, 0.5)
    touch = curve(stage.phase, [start, hit, gone, 0.9], [0, 1, 1, 0])
    first.reach(side, chest + 0.12 * sign * first.left, touch)
    second.arm(side, stumble, 65, 35, 0.85)


def punch(stage: Stage) -> None:
  """One person strikes at the head of another with the fists."""
  rng = stage.rng
  gap, way = rng.uniform(0.84, 0.94), rng.uniform(0.0, 0.3)
  first, second = stage.enter_pair(gap + way)
  first.walk(way * stage.curve([0.0, 0.25], [0, 1]), way)
  guard = stage.curve([0.0, 0.18, 0.85, 1.0], [0, 1, 1, 0])
  fighters = (first, second) if rng.uniform() < 0.4 else (first,)
  for person in fighters:
    for side in (LEFT, RIGHT):
      person.arm(side, guard, rng.uniform(88, 105), 8, 0.46)
  count = stage.cycles(0.55, 1.0, 3)
  edges = np.linspace(0.18, 0.88, count + 1)
  leading = int(rng.integers(2))
  head = second.joint('head') + second.body.head * second.forward
  for i, (start, end) in enumerate(itertools.pairwise(edges)):
    hit = start + rng.uniform(0.4, 0.5) * (end - start)
    strike = curve(stage.phase, [start, hit, end], [0, 1, 0])
    side = (leading + i) % 2
    weight = np.maximum(first.motion.contact_weight[:, side], strike)
    first.reach(side, head, weight)
    first.motion.lean += 0.16 * strike
    first.shift(0.07 * strike)
    flinch = curve(stage.phase, [hit - 0.02, hit + 0.06, end], [0, 1, 0])
    second.motion.lean -= rng.uniform(0.26, 0.38) * flinch
    second.motion.nod -= rng.uniform(0.3, 0.5) * flinch
  back = rng.uniform(0.1, 0.4)
  second.walk(-back * curve(stage.phase, [hit, 1.0], [0, 1]), -back)


def kick(stage: Stage) -> None:
  """One person kicks another at the hip, who doubles up and gives way."""
  rng = stage.rng
  gap, way = rng.uniform(0.82, 0.92), rng.uniform(0.0, 0.3)
  first, second = stage.enter_pair(gap + way)
  first.walk(way * stage.curve([0.0, 0.25], [0, 1]), way)
  side = int(rng.integers(2))
  height = first.body.height
  times = jitter(rng, [0.0, 0.2, 0.36, 0.48, 0.62, 0.85, 1.0], 0.02)
  forward = curve(stage.phase, times, [0, 0, 0.13, 0.42, 0.13, 0, 0])
  level = rng.uniform(0.4, 0.5)
  up = curve(stage.phase, times, [0, 0, 0.27, level, 0.27, 0, 0])
  foot = forward[:, None] * first.forward + up[:, None] * UP
  first.motion.feet[:, side] += height * foot
  out = curve(stage.phase, times, [0, 0, 0.5, 1, 0.4, 0, 0])
  first.motion.lean -= rng.uniform(0.25, 0.4) * out
  for arm in (LEFT, RIGHT):
    first.arm(arm, out, 20, rng.uniform(30, 60), 0.8)
  hit = curve(stage.phase, [times[3] - 0.03, times[3] + 0.1, 0.9], [0, 1, 0])
  back = rng.uniform(0.25, 0.55)
  second.walk(-back * curve(stage.phase, [times[3], 0.9], [0, 1]), -back)
  second.motion.lean += rng.uniform(0.45, 0.7) * hit
  second.shift(-0.12 * hit)
  for arm in (LEFT, RIGHT):
    second.arm(arm, hit, 50, 15, 0.75)
