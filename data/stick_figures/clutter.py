"""Things that move behind the people and have nothing to do with them."""

import numpy as np

from mtnet_jax.datasets.stick_figures.formats import Format
from mtnet_jax.datasets.stick_figures.shapes import (
  Color,
  Layer,
  capsule,
  ellipse,
  mix,
  random_color,
  shade,
)

Shapes = list[tuple[np.ndarray, Color]]


def sample(
  rng: np.random.Generator, form: Format, horizon: int, around: Color
) -> list[Layer]:
  """Returns up to two things that move behind the people.

  Args:
    rng: decides which.
    form: the video's size and length.
    horizon: the row where the floor begins.
    around: the color into which the things partly sink.
  """
  layers = []
  for _ in range(rng.integers(0, 3)):
    color = random_color(rng, (0, 1), (0.2, 0.9), (0.2, 1.0))
    color = mix(color, around, rng.uniform(0.35, 0.6))
    thing = _THINGS[rng.integers(len(_THINGS))]
    drawn = thing(rng, form, horizon, color)
    layers.append(Layer(np.zeros(form.frames), drawn))
  return layers


def _path(rng, form: Format, speeds) -> np.ndarray:
  """Returns x of what crosses the picture, either way, (t,) in pixels."""
  speed = rng.uniform(*speeds) * rng.choice([-1, 1])
  middle = rng.uniform(0, form.seconds[-1])
  return form.width * (rng.uniform(0.1, 0.9) + speed * (form.seconds - middle))


def _ball(rng, form: Format, horizon: int, color: Color) -> Shapes:
  """A ball that rolls or bounces past."""
  radius = rng.uniform(0.03, 0.06) * form.height
  bounce = rng.uniform(0, 0.25) * form.height
  hops = np.abs(np.sin(rng.uniform(2, 5) * form.seconds + rng.uniform(0, 6)))
  y = horizon + 0.02 * form.height - radius - bounce * hops
  x = _path(rng, form, (0.1, 0.6))
  center = np.stack([x, y], -1)
  light = center - 0.3 * radius
  return [
    (ellipse(center, radius, radius), color),
    (ellipse(light, 0.4 * radius, 0.4 * radius), shade(color, 1.2)),
  ]


def _car(rng, form: Format, horizon: int, color: Color) -> Shapes:
  """A car that drives past."""
  size = rng.uniform(0.12, 0.2) * form.height
  x = _path(rng, form, (0.15, 0.8))
  y = np.full_like(x, horizon + 0.01 * form.height)
  at = np.stack([x, y], -1)
  wheel = 0.2 * size
  parts = [
    (at + [-0.5 * size, -0.75 * size], at + [0.5 * size, -0.75 * size], 0.3),
    (at + [-1.0 * size, -0.4 * size], at + [1.0 * size, -0.4 * size], 0.28),
  ]
  shapes = [(capsule(p, q, r * size, r * size), color) for p, q, r in parts]
  for dx in (-0.7, 0.7):
    wheels = ellipse(at + [dx * size, -wheel], wheel, wheel)
    shapes.append((wheels, shade(color, 0.4)))
  return shapes


def _balloon(rng, form: Format, horizon: int, color: Color) -> Shapes:
  """A balloon that rises or sinks."""
  radius = rng.uniform(0.04, 0.07) * form.height
  x = rng.uniform(0, form.width) + 0.03 * form.width * np.sin(
    1.5 * form.seconds
  )
  speed = form.height * rng.uniform(0.05, 0.25) * rng.choice([-1, 1])
  y = rng.uniform(0.1, 0.6) * form.height + speed * form.seconds
  center = np.stack([x, y], -1)
  string = center + [0, 2.2 * radius]
  return [
    (capsule(center, string, 0.5, 0.5), shade(color, 0.6)),
    (ellipse(center, radius, 1.2 * radius), color),
  ]


def _sign(rng, form: Format, horizon: int, color: Color) -> Shapes:
  """A sign whose bar of light runs from end to end."""
  half = rng.uniform(0.06, 0.14) * form.width
  center = np.array(
    [rng.uniform(0, form.width), rng.uniform(0.1, 0.5) * horizon]
  )
  center = np.broadcast_to(center, (form.frames, 2))
  thick = rng.uniform(0.02, 0.05) * form.height
  run = np.sin(rng.uniform(2, 8) * form.seconds)[:, None] * [0.8 * half, 0]
  board = capsule(center - [half, 0], center + [half, 0], thick, thick)
  light = ellipse(center + run, 0.7 * thick, 0.7 * thick)
  return [(board, shade(color, 0.7)), (light, shade(color, 1.3))]


def _bird(rng, form: Format, horizon: int, color: Color) -> Shapes:
  """A bird that flaps across the sky."""
  size = rng.uniform(0.03, 0.06) * form.height
  x = _path(rng, form, (0.1, 0.5))
  y = rng.uniform(0.05, 0.4) * horizon + 0.02 * form.height * np.sin(
    2 * form.seconds
  )
  body = np.stack([x, y], -1)
  flap = np.sin(rng.uniform(9, 16) * form.seconds)
  shapes = []
  for side in (-1, 1):
    tip = np.stack([np.full_like(x, side * size), -0.7 * size * flap], -1)
    shapes.append((capsule(body, body + tip, 0.25 * size, 0.08 * size), color))
  return shapes


def _pendulum(rng, form: Format, horizon: int, color: Color) -> Shapes:
  """A lamp, or a swing, that swings to and fro."""
  length = rng.uniform(0.15, 0.4) * form.height
  angle = rng.uniform(0.15, 0.6) * np.sin(rng.uniform(1.5, 4) * form.seconds)
  top = np.array(
    [rng.uniform(0, form.width), rng.uniform(-0.1, 0.2) * form.height]
  )
  top = np.broadcast_to(top, (form.frames, 2))
  lamp = top + length * np.stack([np.sin(angle), np.cos(angle)], -1)
  radius = rng.uniform(0.03, 0.06) * form.height
  return [
    (capsule(top, lamp, 0.6, 0.6), shade(color, 0.6)),
    (ellipse(lamp, radius, 0.8 * radius), color),
  ]


_THINGS = (_ball, _car, _balloon, _sign, _bird, _pendulum)
