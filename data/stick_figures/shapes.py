"""Flat shapes in pixels, animated over frames, and how they are painted."""

import colorsys
import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

Color = tuple[int, int, int]

_SUBPIXEL_BITS = 4
_ARC = np.linspace(-1.0, 1.0, 7)  # points of a half circle
_CIRCLE = np.linspace(0, 2 * np.pi, 17)[:-1]


@dataclasses.dataclass
class Layer:
  """Shapes that are painted together, one after another.

  Attributes:
    depth: (t,) nearer layers, of larger depth, are painted later.
    shapes: pairs of a convex polygon, (t, k, 2) float x and y in pixels, and
      its RGB color.
  """

  depth: np.ndarray
  shapes: list[tuple[np.ndarray, Color]]


def capsule(
  p: np.ndarray, q: np.ndarray, p_radius: float, q_radius: float
) -> np.ndarray:
  """Returns the outline, (t, 14, 2), around a circle at p and one at q.

  Args:
    p: (t, 2) in pixels.
    q: (t, 2) in pixels.
    p_radius: the radius at p, in pixels.
    q_radius: the radius at q, in pixels.
  """
  axis = q - p
  length = np.maximum(np.linalg.norm(axis, axis=-1), 1e-6)
  angle = np.arctan2(axis[:, 1], axis[:, 0])[:, None]
  # Where the common tangents touch the circles, seen from the axis.
  tangent = np.arccos(np.clip((p_radius - q_radius) / length, -0.95, 0.95))
  tangent = tangent[:, None]
  ahead = angle + tangent * _ARC
  behind = angle + tangent + (2 * np.pi - 2 * tangent) * (_ARC + 1) / 2
  around_q = q[:, None] + q_radius * _direction(ahead)
  around_p = p[:, None] + p_radius * _direction(behind)
  return np.concatenate([around_q, around_p], 1)


def ellipse(center: np.ndarray, x_radius: float, y_radius: float) -> np.ndarray:
  """Returns upright ellipses, (t, 16, 2), around (t, 2) centers, in pixels."""
  return center[:, None] + [x_radius, y_radius] * _direction(_CIRCLE)


def hull(points: np.ndarray) -> np.ndarray:
  """Returns the convex hulls of (t, k, 2) points as polygons of k corners."""
  result = np.empty(points.shape, np.float32)
  for frame, corners in zip(result, points.astype(np.float32), strict=True):
    outline = cv2.convexHull(corners)[:, 0]
    frame[:] = outline[-1]  # repeated corners change nothing
    frame[: len(outline)] = outline
  return result


def _direction(angle: np.ndarray) -> np.ndarray:
  return np.stack([np.cos(angle), np.sin(angle)], -1)


def shade(color: Sequence[float], factor: float) -> Color:
  """Returns a color brighter (factor above 1) or darker, in 0..255."""
  return tuple(int(np.clip(factor * c, 0, 255)) for c in color)


def mix(color: Sequence[float], other: Sequence[float], share: float) -> Color:
  """Returns `color` with a share, 0 to 1, of another one in it."""
  pairs = zip(color, other, strict=True)
  return tuple(int((1 - share) * a + share * b) for a, b in pairs)


def random_color(
  rng: np.random.Generator,
  hue: tuple[float, float],
  saturation: tuple[float, float],
  value: tuple[float, float],
) -> Color:
  """Draws a color from ranges of hue, saturation and value, all in 0..1."""
  hsv = [rng.uniform(*limits) for limits in (hue, saturation, value)]
  return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(*hsv))


class Painting:
  """Layers made ready to be painted quickly, frame by frame."""

  def __init__(self, layers: Sequence[Layer]):
    """Fixes the order and rounds the corners to 1/16 pixel."""
    scale = 1 << _SUBPIXEL_BITS
    self._layers = [
      [
        (np.round(scale * p).astype(np.int32), color)
        for p, color in layer.shapes
      ]
      for layer in layers
    ]
    depths = np.stack([layer.depth for layer in layers], 1) if layers else []
    self._order = [np.argsort(depth, kind='stable') for depth in depths]

  def paint(self, image: np.ndarray, frame: int) -> None:
    """Paints one frame onto (h, w, 3) uint8 RGB, far layers first."""
    if not self._layers:
      return
    for i in self._order[frame]:
      for points, color in self._layers[i]:
        cv2.fillConvexPoly(
          image, points[frame], color, cv2.LINE_AA, _SUBPIXEL_BITS
        )


def boxes(layers: Sequence[Layer], width: int, height: int) -> np.ndarray:
  """Returns the boxes around layers, (t, 4) int16: x0, y0, x1, y1 in pixels.

  Pixels x0 <= x < x1 and y0 <= y < y1 of the picture hold all that is painted.
  """
  points = np.concatenate([p for layer in layers for p, _ in layer.shapes], 1)
  low = np.floor(points.min(1)) - 1
  high = np.ceil(points.max(1)) + 2
  limits = np.array([width, height])
  low, high = np.clip(low, 0, limits), np.clip(high, 0, limits)
  return np.concatenate([low, high], 1).astype(np.int16)
