"""Draws the scenery: rooms, streets, parks, halls, and mist."""

import cv2
import numpy as np

from mtnet_jax.datasets.stick_figures.shapes import mix, random_color, shade


def _rectangle(image, x0, y0, x1, y1, color, thickness=-1) -> None:
  corners = (round(x0), round(y0)), (round(x1), round(y1))
  cv2.rectangle(image, *corners, color, thickness)


def _gradient(image, top: int, bottom: int, first, last) -> None:
  """Fills the rows from `top` to `bottom` with colors from first to last."""
  share = np.linspace(0, 1, max(bottom - top, 1))[:, None, None]
  rows = (1 - share) * np.array(first) + share * np.array(last)
  image[top:bottom] = rows[: image[top:bottom].shape[0]]


def _room(rng, image, horizon: int) -> None:
  """A wall with pictures, a window, a door or shelves above a floor."""
  height, width = image.shape[:2]
  wall = random_color(rng, (0, 1), (0.05, 0.35), (0.35, 0.95))
  _gradient(image, 0, horizon, shade(wall, 1.08), shade(wall, 0.92))
  floor = random_color(rng, (0.03, 0.15), (0.1, 0.5), (0.25, 0.75))
  _gradient(image, horizon, height, shade(floor, 0.85), shade(floor, 1.05))
  for x in np.arange(-2.0, 3.0, rng.uniform(0.12, 0.3)):  # boards
    start = round((0.5 + 0.5 * x) * width), horizon
    end = round((0.5 + 1.1 * x) * width), height
    cv2.line(image, start, end, shade(floor, 0.8), 1, cv2.LINE_AA)
  _rectangle(image, 0, horizon - 3, width, horizon, shade(wall, 0.7))
  for _ in range(rng.integers(2, 6)):
    x, y = rng.uniform(0, width), rng.uniform(0.1, 0.5) * horizon
    w, h = rng.uniform(0.08, 0.25, 2) * height
    inner = random_color(rng, (0, 1), (0.1, 0.6), (0.3, 0.95))
    kind = rng.integers(4)
    if kind == 0:  # a door
      y, h, w = 0.25 * horizon, 0.75 * horizon, 0.4 * horizon
    _rectangle(image, x, y, x + w, y + h, inner)
    _rectangle(image, x, y, x + w, y + h, shade(wall, 0.55), 2)
    if kind == 1:  # a window
      _rectangle(image, x + w / 2, y, x + w / 2, y + h, shade(wall, 0.6), 1)
      _rectangle(image, x, y + h / 2, x + w, y + h / 2, shade(wall, 0.6), 1)
    if kind == 2:  # books
      for left in np.arange(x, x + w, 4):
        book = random_color(rng, (0, 1), (0.2, 0.7), (0.2, 0.9))
        _rectangle(image, left, y + 3, left + 2, y + h - 2, book)


def _street(rng, image, horizon: int) -> None:
  """Houses with rows of windows above a road."""
  height, width = image.shape[:2]
  sky = random_color(rng, (0.52, 0.65), (0.05, 0.5), (0.5, 1.0))
  _gradient(image, 0, horizon, shade(sky, 0.9), shade(sky, 1.1))
  x = -rng.uniform(0, 30)
  while x < width:
    w, top = rng.uniform(0.12, 0.35) * width, rng.uniform(0.1, 0.7) * horizon
    house = random_color(rng, (0, 1), (0.02, 0.4), (0.3, 0.85))
    glass = mix(house, sky, 0.5) if rng.uniform() < 0.5 else shade(house, 0.6)
    _rectangle(image, x, top, x + w, horizon, house)
    size = rng.uniform(4, 9)
    for left in np.arange(x + size / 2, x + w - size, 1.8 * size):
      for y in np.arange(top + size, horizon - size, 2.0 * size):
        _rectangle(image, left, y, left + 0.8 * size, y + 1.1 * size, glass)
    x += w + rng.choice([0, 0, 6])
  road = random_color(rng, (0, 1), (0.0, 0.1), (0.3, 0.6))
  _gradient(image, horizon, height, shade(road, 1.1), shade(road, 0.9))
  curb = horizon + rng.uniform(0.15, 0.35) * (height - horizon)
  _rectangle(image, 0, curb, width, curb + 1, shade(road, 1.35))


def _park(rng, image, horizon: int) -> None:
  """Hills and trees above grass."""
  height, width = image.shape[:2]
  sky = random_color(rng, (0.5, 0.65), (0.1, 0.5), (0.6, 1.0))
  _gradient(image, 0, horizon, sky, mix(sky, (255, 255, 255), 0.5))
  grass = random_color(rng, (0.18, 0.4), (0.25, 0.6), (0.3, 0.75))
  for _ in range(4):
    center = round(rng.uniform(0, width)), horizon
    axes = round(rng.uniform(0.2, 0.5) * width), round(rng.uniform(5, 30))
    hill = mix(shade(grass, rng.uniform(0.6, 0.9)), sky, 0.35)
    cv2.ellipse(image, center, axes, 0, 0, 360, hill, -1, cv2.LINE_AA)
  _gradient(image, horizon, height, shade(grass, 0.85), shade(grass, 1.1))
  for _ in range(rng.integers(2, 7)):
    x, size = rng.uniform(0, width), rng.uniform(0.1, 0.22) * height
    bark = random_color(rng, (0.05, 0.1), (0.2, 0.5), (0.2, 0.4))
    leaf = mix(shade(grass, rng.uniform(0.5, 0.9)), sky, 0.2)
    _rectangle(image, x - 1, horizon - 1.6 * size, x + 2, horizon + 3, bark)
    for dx, dy in rng.uniform(-0.5, 0.5, (6, 2)):
      center = round(x + dx * size), round(horizon - (1.9 + dy) * size)
      cv2.circle(image, center, round(0.5 * size), leaf, -1, cv2.LINE_AA)


def _hall(rng, image, horizon: int) -> None:
  """A stage or a gym: a striped wall and lines on the floor."""
  height, width = image.shape[:2]
  wall = random_color(rng, (0, 1), (0.1, 0.6), (0.2, 0.85))
  _gradient(image, 0, horizon, wall, shade(wall, 0.85))
  step = rng.uniform(0.06, 0.2) * width
  for x in np.arange(0, width, step):
    other = shade(wall, rng.uniform(0.82, 1.15))
    _rectangle(image, x, 0, x + step / 2, horizon, other)
  floor = random_color(rng, (0.02, 0.7), (0.1, 0.5), (0.3, 0.8))
  _gradient(image, horizon, height, shade(floor, 0.9), floor)
  for y in rng.uniform(horizon, height, 3):
    _rectangle(image, 0, y, width, y + 1, shade(floor, 1.25))


def _mist(rng, image, horizon: int) -> None:
  """Draws nothing but blurred patches of color."""
  height, width = image.shape[:2]
  base = np.array(random_color(rng, (0, 1), (0.05, 0.5), (0.3, 0.9)), float)
  cells = rng.uniform(0.7, 1.3, (4, 6, 3)) * base
  image[:] = cv2.resize(
    np.clip(cells, 0, 255).astype(np.uint8), (width, height),
    interpolation=cv2.INTER_CUBIC,
  )  # fmt: skip
  _gradient(image, horizon, height, shade(base, 0.75), shade(base, 0.9))


_PLACES = (_room, _street, _park, _hall, _mist)


def paint(
  rng: np.random.Generator, width: int, height: int, horizon: int
) -> np.ndarray:
  """Paints a background, (height, width, 3) uint8 RGB.

  Args:
    rng: decides the place and everything in it.
    width: the width in pixels.
    height: the height in pixels.
    horizon: the row where the floor meets what is behind.
  """
  image = np.zeros((height, width, 3), np.uint8)
  _PLACES[rng.integers(len(_PLACES))](rng, image, horizon)
  grain = rng.normal(0, 1, (2, height // 4 + 1, width // 4 + 1, 1))
  coarse = cv2.resize(grain[0], (width, height), interpolation=cv2.INTER_CUBIC)
  texture = 1 + rng.uniform(0.0, 0.035) * coarse[..., None]
  # Less contrast than people have, and slightly out of focus.
  mean = image.mean((0, 1))
  image = mean + rng.uniform(0.35, 0.65) * (image - mean)
  image = np.clip(image * texture, 0, 255).astype(np.uint8)
  return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.3))
