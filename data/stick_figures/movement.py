"""Building blocks of a performance: timing, idle sway, steps and reaching."""

from collections.abc import Sequence

import numpy as np

from mtnet_jax.datasets.stick_figures import skeleton

_REST = np.radians([4.0, 7.0])  # swing and spread of an arm that hangs


def ease(x: np.ndarray) -> np.ndarray:
  """Maps 0..1 to 0..1, starting and stopping gently (minimum jerk)."""
  x = np.clip(x, 0.0, 1.0)
  return x**3 * (10 - 15 * x + 6 * x**2)


def curve(
  phase: np.ndarray, times: Sequence[float], values: Sequence[float]
) -> np.ndarray:
  """Moves gently from one value to the next.

  Args:
    phase: (t,) position within the action, 0 to 1.
    times: rising positions of the key values.
    values: the key values.

  Returns:
    (t,) the first value before the first time, the last after the last.
  """
  result = np.full(len(phase), float(values[0]))
  for i in range(len(times) - 1):
    share = ease((phase - times[i]) / (times[i + 1] - times[i]))
    result = result + (values[i + 1] - values[i]) * share
  return result


def jitter(
  rng: np.random.Generator, times: Sequence[float], amount: float = 0.035
) -> list[float]:
  """Shifts inner key times by up to `amount` of the action, in order still."""
  times = np.asarray(times, float)
  room = np.minimum(np.diff(times)[:-1], np.diff(times)[1:])
  shift = rng.uniform(-1, 1, len(times) - 2) * np.minimum(amount, 0.4 * room)
  times[1:-1] += shift
  return times.tolist()


def sway(
  rng: np.random.Generator, seconds: np.ndarray, amount: float
) -> np.ndarray:
  """Slow aimless movement, (t,), of about `amount`, as nobody stands still."""
  result = np.zeros_like(seconds)
  for frequency in rng.uniform((0.15, 0.4, 0.8), (0.35, 0.7, 1.2)):
    angle = 2 * np.pi * (frequency * seconds + rng.uniform())
    result += np.sin(angle) / (1 + 2 * frequency)
  return amount * result


class Performer:
  """One person on the stage, standing at ease until told to do more.

  Attributes:
    body: the proportions.
    motion: what the person does; actions write to its arrays.
  """

  def __init__(
    self,
    body: skeleton.Body,
    seconds: np.ndarray,
    rng: np.random.Generator,
    place: tuple[float, float] = (0.0, 0.0),
    yaw: float = 0.0,
  ):
    """Puts a person at `place` (x and z in meters), looking along `yaw`."""
    self.body = body
    frames = len(seconds)
    self._rng = rng
    headings = np.full(frames, yaw)
    self.forward, self.left = skeleton.heading(headings)
    root = np.broadcast_to([place[0], 0.0, place[1]], (frames, 3))
    feet = np.stack(
      [root + s * 1.3 * body.hips * self.left for s in (1, -1)], 1
    )
    feet = feet + body.ankle * skeleton.UP
    # One foot stands a little in front of the other.
    stagger = rng.uniform(-0.05, 0.05) * body.height
    feet[:, 0] += stagger * self.forward
    feet[:, 1] -= stagger * self.forward
    arms = np.zeros((frames, 2, 3))
    for side in (skeleton.LEFT, skeleton.RIGHT):
      for angle in (0, 1):
        rest = _REST[angle] * rng.uniform(0.6, 1.6)
        arms[:, side, angle] = rest + sway(rng, seconds, 0.035)
      arms[:, side, 2] = rng.uniform(0.94, 0.98)
    pelvis = root + body.hip_height * skeleton.UP
    pelvis = pelvis + sway(rng, seconds, 0.008)[:, None] * self.left
    self.motion = skeleton.Motion(
      pelvis=pelvis,
      yaw=headings,
      lean=rng.uniform(0.0, 0.07) + sway(rng, seconds, 0.012),
      roll=sway(rng, seconds, 0.012),
      nod=rng.uniform(-0.05, 0.15) + sway(rng, seconds, 0.04),
      arms=arms,
      contact=np.zeros((frames, 2, 3)),
      contact_weight=np.zeros((frames, 2)),
      feet=feet,
    )

  def joint(self, name: str) -> np.ndarray:
    """Returns where a joint is as the motion stands now, (t, 3) in meters."""
    joints = skeleton.solve(self.body, self.motion)
    return joints[:, skeleton.INDEX[name]]

  def arm(
    self,
    side: int,
    weight: np.ndarray,
    swing: float | np.ndarray,
    spread: float | np.ndarray,
    reach: float | np.ndarray,
  ) -> None:
    """Blends an arm from what it did to other angles.

    Args:
      side: `skeleton.LEFT` or `skeleton.RIGHT`.
      weight: (t,) 0 keeps, 1 replaces.
      swing: forward from hanging down, in degrees, or (t,) of them.
      spread: outward, in degrees, or (t,) of them.
      reach: distance of the hand as a share of the arm's length.
    """
    for i, value in enumerate((np.radians(swing), np.radians(spread), reach)):
      arm = self.motion.arms[:, side, i]
      self.motion.arms[:, side, i] = (1 - weight) * arm + weight * value

  def reach(self, side: int, target: np.ndarray, weight: np.ndarray) -> None:
    """Takes a hand to points in space, (t, 3), by weights of 0 to 1, (t,)."""
    self.motion.contact[:, side] = target
    self.motion.contact_weight[:, side] = weight

  def shift(self, along: np.ndarray) -> None:
    """Moves the pelvis (t,) meters forward over feet that stay."""
    self.motion.pelvis += along[:, None] * self.forward

  def lower(self, depth: np.ndarray) -> None:
    """Lowers the pelvis by (t,) meters."""
    self.motion.pelvis[:, 1] -= depth

  def walk(self, travel: np.ndarray, total: float, swing: float = 0.8) -> None:
    """Walks along the heading with feet that never slide on the floor.

    Args:
      travel: (t,) meters gone so far, between 0 and `total`.
      total: meters in all; negative walks backwards.
      swing: how far the arms swing against the legs.
    """
    if abs(total) < 0.02:
      return
    body = self.body
    stride = 0.27 * body.height * self._rng.uniform(0.85, 1.15)
    count = max(1, round(abs(total) / stride))
    share = travel / total * (count + 1)  # in footfalls: the last one closes up
    first = int(self._rng.integers(2))
    lift = 0.06 * body.height * self._rng.uniform(0.8, 1.4)
    offsets = np.zeros((len(travel), 2))
    for side in (skeleton.LEFT, skeleton.RIGHT):
      where = 0.0
      for step in range((side + first) % 2, count + 1, 2):
        landing = min(step + 1, count) / count * total
        local = np.clip(share - step, 0.0, 1.0)
        offsets[:, side] += (landing - where) * local**2 * (3 - 2 * local)
        self.motion.feet[:, side, 1] += lift * np.sin(np.pi * local)
        where = landing
      step = offsets[:, side, None] * self.forward
      self.motion.feet[:, side] += step
    self.shift(travel)
    for side in (skeleton.LEFT, skeleton.RIGHT):
      ahead = (offsets[:, 1 - side] - travel) / body.leg
      self.motion.arms[:, side, 0] += swing * ahead
