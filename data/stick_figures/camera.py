"""Projects meters on the stage to pixels of the picture."""

import dataclasses

import numpy as np

from mtnet_jax.datasets.stick_figures import formats, movement


@dataclasses.dataclass(frozen=True)
class View:
  """A camera without perspective that looks slightly down on the stage.

  Attributes:
    azimuth: how far it has walked around the stage, in radians.
    pitch: how far it looks down, in radians.
    mirror: -1 swaps left and right, else 1.
    scale: pixels a meter.
    origin: where the middle of the stage's floor is in the picture, in pixels.
  """

  azimuth: float
  pitch: float
  mirror: int
  scale: float = 1.0
  origin: tuple[float, float] = (0.0, 0.0)

  def turn(self, points: np.ndarray) -> np.ndarray:
    """Turns (..., 3) points to the picture's axes: right, up and near."""
    x, y, z = np.moveaxis(points, -1, 0)
    cos, sin = np.cos(self.azimuth), np.sin(self.azimuth)
    right, near = self.mirror * (x * cos + z * sin), z * cos - x * sin
    cos, sin = np.cos(self.pitch), np.sin(self.pitch)
    return np.stack([right, y * cos - near * sin, near * cos + y * sin], -1)

  def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (..., 2) pixels and (...,) depth in meters of (..., 3) points."""
    turned = self.turn(points)
    pixels = self.scale * turned[..., :2] * [1, -1] + self.origin
    return pixels, turned[..., 2]


def fit(
  points: np.ndarray,
  body_height: float,
  form: formats.Format,
  rng: np.random.Generator,
) -> View:
  """Draws a view that keeps an action inside the middle square of the picture.

  Args:
    points: (n, 3) in meters, all that must be seen.
    body_height: the height of the actors, in meters.
    form: the picture's size.
    rng: decides the direction, the scale and the place.
  """
  view = View(
    azimuth=rng.uniform(-0.35, 0.35),
    pitch=rng.uniform(0.08, 0.22),
    mirror=int(rng.choice([-1, 1])),
  )
  turned = view.turn(points)[:, :2]
  # Joints lie inside the body: leave room for heads, hands and feet.
  low = turned.min(0) - 0.07 * body_height
  high = turned.max(0) + 0.09 * body_height
  side = min(form.width, form.height)
  wanted = rng.uniform(0.58, 0.76) * form.height / body_height
  scale = min(wanted, *(0.88 * side / (high - low)))
  free = (0.94 * side - scale * (high - low)) / 2
  middle = np.array([0.5 * form.width, 0.52 * form.height])
  middle = middle + rng.uniform(-1, 1, 2) * free * [1.0, 0.6]
  origin = middle - scale * (low + high) / 2 * [1, -1]
  return dataclasses.replace(view, scale=scale, origin=tuple(origin))


class Hand:
  """The hand that holds the camera: it shakes, pans, zooms and rolls."""

  def __init__(self, form: formats.Format, rng: np.random.Generator):
    """Draws how steady it is and where it drifts."""
    time, height = form.seconds, form.height
    shake = rng.uniform(0.1, 1.0)
    drift = np.linspace(-0.5, 0.5, form.frames)
    pan = rng.uniform(-1, 1, 2) * [0.04, 0.02] * height
    shift = [
      movement.sway(rng, time, 0.005 * shake * height)
      + rng.normal(0, 0.002 * shake * height, form.frames)
      + pan[axis] * drift
      for axis in (0, 1)
    ]
    zoom = 1 + rng.uniform(-0.06, 0.06) * drift
    roll = movement.sway(rng, time, 0.008 * shake)
    self._middle = np.array([form.width, form.height]) / 2
    self._shift = np.stack(shift, -1)
    cos, sin = zoom * np.cos(roll), zoom * np.sin(roll)
    self._turn = np.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)

  def move(self, points: np.ndarray) -> np.ndarray:
    """Moves pixels, (t, k, 2), as the hand moves the picture."""
    moved = (points - self._middle) @ self._turn.transpose(0, 2, 1)
    return moved + self._middle + self._shift[:, None]

  def matrix(self, frame: int, margin: int) -> np.ndarray:
    """Returns the same for one frame of a picture with a margin, (2, 3)."""
    turn = self._turn[frame]
    shift = self._middle + self._shift[frame] - turn @ (self._middle + margin)
    return np.concatenate([turn, shift[:, None]], 1)
