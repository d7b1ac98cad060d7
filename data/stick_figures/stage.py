"""The stage of an action: its actors, its floor and its props."""

import dataclasses

import numpy as np

from mtnet_jax.datasets.stick_figures import movement, skeleton
from mtnet_jax.datasets.stick_figures.movement import curve, jitter


@dataclasses.dataclass
class Prop:
  """A box, or a ball, that belongs to an action.

  Attributes:
    center: (t, 3) in meters.
    size: half of its extent along its own x, y and z, in meters.
    yaw: the prop's heading in radians.
    ball: drawn as a ball of radius `size[0]`.
  """

  center: np.ndarray
  size: tuple[float, float, float]
  yaw: float = 0.0
  ball: bool = False


class Stage:
  """The place of a performance.

  Attributes:
    phase: (t,) progress of the action, from 0 (not begun) to 1 (over).
    seconds: (t,) time.
    rng: whatever differs from one performance to the next comes from it.
    performers: the people, in the order in which they entered.
    props: chairs and things to pick up.
    room: (k, 3) points in meters that the camera has in view, whatever is done;
      None: all that the people and the props reach.
  """

  def __init__(
    self, phase: np.ndarray, seconds: np.ndarray, rng: np.random.Generator
  ):
    """Sets up an empty stage."""
    self.phase = phase
    self.seconds = seconds
    self.rng = rng
    self.performers: list[movement.Performer] = []
    self.props: list[Prop] = []
    self.room: np.ndarray | None = None

  def enter(self, place=(0.0, 0.0), yaw=0.0) -> movement.Performer:
    """Adds a person of new proportions; see `movement.Performer`."""
    body = skeleton.sample_body(self.rng)
    performer = movement.Performer(
      body, self.seconds, self.rng, place=place, yaw=yaw
    )
    self.performers.append(performer)
    return performer

  def enter_pair(self, gap: float):
    """Adds two people who face each other, `gap` meters apart."""
    left = self.enter((-gap / 2, 0.0), 0.0)
    right = self.enter((gap / 2, 0.0), np.pi)
    return left, right

  def curve(self, times, values) -> np.ndarray:
    """`movement.curve` over this action's phase, its inner times jittered."""
    return curve(self.phase, jitter(self.rng, times), values)

  def pulse(self, start: float, top: float, end: float) -> np.ndarray:
    """Rises from 0 to 1 between `start` and `top` and falls until `end`."""
    return self.curve([start, top, end], [0, 1, 0])

  def cycles(self, shortest: float, longest: float, most: int) -> int:
    """Draws how often a movement repeats, given the seconds that one takes."""
    duration = np.ptp(self.seconds[(self.phase > 0) & (self.phase < 1)])
    count = round(duration / self.rng.uniform(shortest, longest))
    return int(np.clip(count, 1, most))
