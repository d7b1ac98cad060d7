"""A jointed body: proportions, what it is told to do, and inverse kinematics.

Space is in meters, right-handed: x to the right of the picture, y up, z towards
the camera. A body that faces `yaw = 0` looks along +x and `yaw = pi / 2` looks
into the camera. Every array starts with the frame axis, `t`.
"""

import dataclasses

import numpy as np

JOINTS = (
  'pelvis', 'neck', 'head',
  'left_shoulder', 'left_elbow', 'left_hand',
  'right_shoulder', 'right_elbow', 'right_hand',
  'left_hip', 'left_knee', 'left_ankle', 'left_toe',
  'right_hip', 'right_knee', 'right_ankle', 'right_toe',
)  # fmt: skip
INDEX = {name: i for i, name in enumerate(JOINTS)}
LEFT, RIGHT = 0, 1
UP = np.array([0.0, 1.0, 0.0])

# Elbows and knees neither lock nor fold flat: the angle between the two bones
# stays within these limits.
_MIN_ANGLE = np.radians(35.0)
_MAX_ANGLE = np.radians(176.0)


@dataclasses.dataclass(frozen=True)
class Body:
  """Lengths of one person, in meters.

  Attributes:
    height: the height from the floor to the top of the head, in meters.
    thigh: hip to knee.
    shank: knee to ankle.
    foot: ankle to toe.
    ankle: height of the ankle of a foot that stands on the floor.
    trunk: pelvis to neck.
    neck: neck to the middle of the head.
    head: radius of the head.
    upper_arm: shoulder to elbow.
    forearm: elbow to the middle of the hand.
    shoulders: half the distance between the shoulders.
    hips: half the distance between the hips.
    girth: thickness of limbs and trunk relative to the average.
  """

  height: float
  thigh: float
  shank: float
  foot: float
  ankle: float
  trunk: float
  neck: float
  head: float
  upper_arm: float
  forearm: float
  shoulders: float
  hips: float
  girth: float

  @property
  def arm(self) -> float:
    """Shoulder to hand with the arm stretched, in meters."""
    return self.upper_arm + self.forearm

  @property
  def leg(self) -> float:
    """Hip to ankle with the leg stretched, in meters."""
    return self.thigh + self.shank

  @property
  def hip_height(self) -> float:
    """Height of the pelvis of a person who stands at ease, in meters."""
    return self.ankle + 0.985 * self.leg


def sample_body(rng: np.random.Generator, scale: float = 1.0) -> Body:
  """Draws the proportions of one person, 1.5 to 1.9 m tall times `scale`."""
  height = scale * rng.uniform(1.5, 1.9)
  leg = height * rng.uniform(0.43, 0.48)
  arm = height * rng.uniform(0.35, 0.39)
  head = height * rng.uniform(0.072, 0.085)
  ankle = 0.045 * height
  neck = head + 0.025 * height
  return Body(
    height=height,
    thigh=0.5 * leg,
    shank=0.5 * leg,
    foot=0.105 * height,
    ankle=ankle,
    trunk=height - head - neck - ankle - 0.985 * leg,
    neck=neck,
    head=head,
    upper_arm=0.47 * arm,
    forearm=0.53 * arm,
    shoulders=height * rng.uniform(0.095, 0.118),
    hips=height * rng.uniform(0.05, 0.062),
    girth=rng.uniform(0.85, 1.25),
  )


@dataclasses.dataclass
class Motion:
  """The movement of one person, frame by frame.

  Attributes:
    pelvis: (t, 3) where the pelvis wants to be; legs too short pull it down.
    yaw: (t,) heading in radians.
    lean: (t,) of the trunk in radians, forward positive.
    roll: (t,) of the trunk in radians, to the left positive.
    nod: (t,) of the head against the trunk in radians, forward positive.
    arms: (t, 2, 3) left and right arm: `swing` forward and `spread` outward
      from hanging down, in radians, and `reach`, the distance from shoulder to
      hand as a share of the arm's length.
    contact: (t, 2, 3) points in space for the left and the right hand.
    contact_weight: (t, 2) 0 follows `arms`, 1 puts the hand on `contact`.
    feet: (t, 2, 3) left and right ankle.
  """

  pelvis: np.ndarray
  yaw: np.ndarray
  lean: np.ndarray
  roll: np.ndarray
  nod: np.ndarray
  arms: np.ndarray
  contact: np.ndarray
  contact_weight: np.ndarray
  feet: np.ndarray

  def reversed(self) -> 'Motion':
    """Returns the same motion from its end to its start."""
    fields = dataclasses.fields(self)
    return Motion(**{f.name: getattr(self, f.name)[::-1] for f in fields})


def two_bone(
  root: np.ndarray,
  target: np.ndarray,
  upper: float,
  lower: float,
  pole: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Places the middle and the end of a limb of two bones.

  Args:
    root: (t, 3) shoulder or hip.
    target: (t, 3) where the end should be. One out of reach is approached as
      near as the limits of the joint let it.
    upper: length of the first bone.
    lower: length of the second bone.
    pole: (t, 3) the side to which the middle joint bends.

  Returns:
    (t, 3) elbow or knee and (t, 3) hand or ankle; the bones keep their lengths.
  """
  axis = target - root
  distance = np.linalg.norm(axis, axis=-1, keepdims=True)
  axis = np.where(distance > 1e-6, axis / np.maximum(distance, 1e-6), -UP)
  limits = [
    np.sqrt(upper**2 + lower**2 - 2 * upper * lower * np.cos(angle))
    for angle in (_MIN_ANGLE, _MAX_ANGLE)
  ]
  distance = np.clip(distance, *limits)
  side = pole - (pole * axis).sum(-1, keepdims=True) * axis
  side = side / np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), 1e-9)
  # The law of cosines: how far along the axis the middle joint lies.
  along = (distance**2 + upper**2 - lower**2) / (2 * distance)
  aside = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
  middle = root + along * axis + aside * side
  return middle, root + distance * axis


def heading(yaw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the forward and the left unit vectors, (t, 3) each, of (t,) yaw."""
  zero = np.zeros_like(yaw)
  forward = np.stack([np.cos(yaw), zero, np.sin(yaw)], -1)
  left = np.stack([np.sin(yaw), zero, -np.cos(yaw)], -1)
  return forward, left


def _unit(x: np.ndarray) -> np.ndarray:
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def solve(body: Body, motion: Motion) -> np.ndarray:
  """Returns the joints, (t, 17, 3) in meters in the order of `JOINTS`."""
  forward, left = heading(motion.yaw)
  joints = np.zeros((len(motion.yaw), len(JOINTS), 3))
  pelvis = _reachable_pelvis(body, motion, left)
  lean, roll = motion.lean[:, None], motion.roll[:, None]
  spine = _unit(np.cos(lean) * UP + np.sin(lean) * forward + roll * left)
  neck = pelvis + body.trunk * spine
  tilt = 0.7 * lean + motion.nod[:, None]
  face = _unit(np.cos(tilt) * UP + np.sin(tilt) * forward + roll * left)
  joints[:, INDEX['pelvis']] = pelvis
  joints[:, INDEX['neck']] = neck
  joints[:, INDEX['head']] = neck + body.neck * face
  across = _unit(left - (left * spine).sum(-1, keepdims=True) * spine)
  for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
    outward = sign * left
    shoulder = neck - 0.04 * body.height * spine
    shoulder = shoulder + sign * body.shoulders * across
    hand = _hand_target(body, motion, side, shoulder, forward, outward)
    pole = 0.5 * outward - 0.6 * forward - 0.6 * UP
    elbow, hand = two_bone(shoulder, hand, body.upper_arm, body.forearm, pole)
    hip = pelvis + sign * body.hips * left
    foot = motion.feet[:, side]
    # Knees bend forward in the plane of walking, however high the foot is.
    pole = _unit(np.cross(foot - hip, left)) + 0.12 * outward
    knee, ankle = two_bone(hip, foot, body.thigh, body.shank, pole)
    toe = ankle + body.foot * _foot_direction(body, knee, ankle, forward)
    first = INDEX[('left_shoulder', 'right_shoulder')[side]]
    joints[:, first : first + 3] = np.stack([shoulder, elbow, hand], 1)
    first = INDEX[('left_hip', 'right_hip')[side]]
    joints[:, first : first + 4] = np.stack([hip, knee, ankle, toe], 1)
  return joints


def _reachable_pelvis(
  body: Body, motion: Motion, left: np.ndarray
) -> np.ndarray:
  """Lowers the pelvis until both feet are within a leg's length."""
  pelvis = motion.pelvis.copy()
  for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
    foot = motion.feet[:, side]
    gap = foot - (pelvis + sign * body.hips * left)
    square = (0.99 * body.leg) ** 2 - gap[:, 0] ** 2 - gap[:, 2] ** 2
    highest = foot[:, 1] + np.sqrt(np.maximum(square, 0.0))
    pelvis[:, 1] = np.minimum(pelvis[:, 1], highest)
  return pelvis


def _hand_target(body, motion, side, shoulder, forward, outward) -> np.ndarray:
  """Returns where a hand goes, (t, 3), from angles or to its contact point."""
  swing, spread, reach = np.moveaxis(motion.arms[:, side], -1, 0)[..., None]
  direction = np.cos(spread) * (np.sin(swing) * forward - np.cos(swing) * UP)
  direction = direction + np.sin(spread) * outward
  free = shoulder + reach * body.arm * direction
  weight = motion.contact_weight[:, side, None]
  return (1 - weight) * free + weight * motion.contact[:, side]


def _foot_direction(body, knee, ankle, forward) -> np.ndarray:
  """Feet are level on the floor and follow the shank in the air, (t, 3)."""
  shank = ankle - knee
  pitch = np.arctan2((shank * forward).sum(-1), -shank[:, 1])
  lifted = np.clip((ankle[:, 1] - body.ankle) / (0.08 * body.height), 0, 1)
  pitch = (pitch * lifted)[:, None]
  level = np.cos(pitch) * forward + np.sin(pitch) * UP
  return _unit(level - 0.25 * UP * np.cos(pitch))
