"""Actions of one person; each function puts one on an empty stage.

`squat` and `bow` are of the sets `idle` and `speed`, and are given the person.
"""

import numpy as np

from mtnet_jax.datasets.stick_figures.movement import (
  Performer,
  curve,
  jitter,
)
from mtnet_jax.datasets.stick_figures.skeleton import LEFT, RIGHT, UP
from mtnet_jax.datasets.stick_figures.stage import Prop, Stage


def sit_down(stage: Stage) -> None:
  """Lowers oneself onto a chair."""
  rng = stage.rng
  yaw = rng.uniform(-0.25, 0.9)
  person = stage.enter(yaw=yaw)
  body = person.body
  seat = body.height * rng.uniform(0.25, 0.29)
  back = body.height * rng.uniform(0.2, 0.24)
  _chair(stage, person, seat, back + 0.02 * body.height, yaw)
  down = stage.curve([0.0, 1.0], [0, 1])
  person.shift(-back * stage.curve([0.0, 0.8], [0, 1]))
  person.lower((body.hip_height - seat - 0.06 * body.height) * down)
  lean = rng.uniform(0.45, 0.75)
  person.motion.lean += stage.curve([0.0, 0.5, 1.0], [0, lean, 0.02])
  for side in (LEFT, RIGHT):
    person.arm(side, stage.pulse(0.05, 0.5, 0.95), 40, 10, 0.93)
    person.arm(side, stage.curve([0.5, 1.0], [0, 1]), 42, 6, 0.78)


def _chair(stage: Stage, person, seat: float, back: float, yaw: float) -> None:
  """Puts a stool, or a chair, `back` meters behind a person."""
  half = person.body.height * stage.rng.uniform(0.11, 0.14)
  center = (person.motion.pelvis[:1] - back * person.forward[:1]) * [1, 0, 1]
  center = np.broadcast_to(center, person.motion.pelvis.shape)
  forward, left = person.forward, person.left
  for x in (-0.85, 0.85):
    for z in (-0.85, 0.85):
      leg = center + half * (x * forward + z * left) + 0.45 * seat * UP
      stage.props.append(Prop(leg, (0.1 * half, 0.45 * seat, 0.1 * half), yaw))
  top = center + 0.94 * seat * UP
  stage.props.append(Prop(top, (half, 0.06 * seat, half), yaw))
  if stage.rng.uniform() < 0.6:
    tall = stage.rng.uniform(0.35, 0.55) * seat
    rest = center - 1.05 * half * forward + (seat + tall) * UP
    stage.props.append(Prop(rest, (0.08 * half, tall, 0.9 * half), yaw))


def raise_arms(stage: Stage) -> None:
  """Takes both arms from hanging to above the head, in front or sidewards."""
  rng = stage.rng
  person = stage.enter(yaw=rng.uniform(0.6, np.pi / 2))
  top = rng.uniform(150, 172)
  sidewards = rng.uniform() < 0.6
  up = stage.curve([0.0, 1.0], [0, 1])
  for side in (LEFT, RIGHT):
    angle = top * up + rng.uniform(-5, 5)
    swing, spread = (8, angle) if sidewards else (angle, 12)
    weight = np.minimum(1.0, 8 * up)
    person.arm(side, weight, swing, spread, rng.uniform(0.92, 0.98))
  person.motion.nod -= rng.uniform(0, 0.3) * up
  person.motion.lean -= rng.uniform(0, 0.1) * up


def wave(stage: Stage) -> None:
  """Raises one hand and waves it from side to side."""
  rng = stage.rng
  person = stage.enter(yaw=rng.uniform(0.8, np.pi / 2))
  side = int(rng.integers(2))
  count = stage.cycles(0.4, 0.75, 5) + 1
  up = stage.curve([0.0, 0.16, 0.87, 1.0], [0, 1, 1, 0])
  angle = 2 * np.pi * count * np.clip((stage.phase - 0.12) / 0.8, 0, 1)
  spread = rng.uniform(128, 140) + rng.uniform(28, 40) * np.sin(angle)
  person.arm(side, up, rng.uniform(0, 25), spread, rng.uniform(0.78, 0.9))
  person.motion.roll += 0.04 * np.sin(angle) * up


def jump(stage: Stage) -> None:
  """Leaves the floor with both feet, once or a few times."""
  rng = stage.rng
  person = stage.enter(yaw=rng.uniform(0.1, np.pi / 2))
  height = person.body.height
  count = stage.cycles(0.7, 1.3, 3)
  u = np.clip(stage.phase, 0, 1 - 1e-9) * count % 1.0
  times = jitter(rng, [0.0, 0.28, 0.4, 0.72, 0.82, 1.0], 0.02)
  flight = np.clip((u - times[2]) / (times[3] - times[2]), 0, 1)
  rise = rng.uniform(0.16, 0.24) * height * 4 * flight * (1 - flight)
  depth = rng.uniform(0.09, 0.13) * height
  person.lower(depth * curve(u, times, [0, 1, 0, 0, 1, 0]))
  person.motion.pelvis[:, 1] += rise
  person.motion.feet[:, :, 1] += rise[:, None]
  person.motion.lean += 0.4 * curve(u, times, [0, 1, 0, 0, 0.8, 0])
  swing = curve(u, times, [0, -45, 60, 40, 20, 0])
  spread = curve(u, times, [7, 15, 30, 35, 20, 7])
  for side in (LEFT, RIGHT):
    person.arm(side, np.full(len(u), 0.9), swing, spread, 0.92)


def squat(stage: Stage, person: Performer) -> None:
  """Goes down on bent knees, the arms forward, and comes up again."""
  rng, height = stage.rng, person.body.height
  down = stage.pulse(0.0, 0.5, 1.0)
  person.lower(rng.uniform(0.17, 0.22) * height * down)
  person.shift(-0.05 * height * down)
  person.motion.lean += rng.uniform(0.35, 0.5) * down
  swing = rng.uniform(60, 80) * down
  for side in (LEFT, RIGHT):
    person.arm(side, np.minimum(1.0, 8 * down), swing, 8, 0.85)


def bow(stage: Stage, person: Performer) -> None:
  """Bends the trunk forward and straightens up again."""
  rng = stage.rng
  down = stage.pulse(0.0, 0.5, 1.0)
  person.shift(-0.06 * person.body.height * down)
  person.motion.lean += rng.uniform(0.8, 1.0) * down
  person.motion.nod += rng.uniform(0.0, 0.2) * down
  for side in (LEFT, RIGHT):
    person.arm(side, down, rng.uniform(-5, 10), 6, 0.95)


def pick_up(stage: Stage) -> None:
  """Bends down to a box or a ball and lifts it to the waist."""
  rng = stage.rng
  yaw = rng.uniform(-0.2, 0.8)
  person = stage.enter(yaw=yaw)
  body, motion = person.body, person.motion
  height = body.height
  half = height * rng.uniform(0.09, 0.125)
  down = stage.curve([0.0, 0.42, 0.5, 0.95], [0, 1, 1, 0])
  person.lower(rng.uniform(0.15, 0.22) * height * down)
  person.shift(-0.07 * height * down)
  motion.lean += rng.uniform(0.95, 1.15) * down
  motion.nod += 0.2 * down
  floor = motion.pelvis[:1] * [1, 0, 1] + half * UP
  floor = floor + rng.uniform(0.24, 0.28) * height * person.forward
  held = motion.pelvis[-1] + 0.16 * height * UP
  held = held + (half + 0.14 * height) * person.forward
  carried = stage.curve([0.45, 0.97], [0, 1])[:, None]
  center = (1 - carried) * floor + carried * held
  # Lifted close to the knees but not through them.
  center += 0.05 * height * np.sin(np.pi * carried) * person.forward
  grip = stage.curve([0.1, 0.42], [0, 1])
  for side, sign in ((LEFT, 1), (RIGHT, -1)):
    person.reach(side, center + sign * 0.85 * half * person.left, grip)
  ball = bool(rng.uniform() < 0.4)
  size = (half, half, half) if ball else (half, half, 1.1 * half)
  stage.props.append(Prop(center, size, yaw, ball))
