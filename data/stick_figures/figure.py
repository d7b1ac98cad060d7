"""Draws a person: clothes, hair and skin over the jointed body."""

import dataclasses

import numpy as np

from mtnet_jax.datasets.stick_figures import shapes, skeleton
from mtnet_jax.datasets.stick_figures.shapes import (
  Color,
  capsule,
  ellipse,
  shade,
)

_SKIN = (
  (255, 219, 190), (241, 194, 155), (224, 172, 125), (198, 134, 92),
  (141, 85, 52), (100, 62, 42),
)  # fmt: skip
_HAIR = (
  (28, 22, 20), (62, 40, 26), (105, 66, 36), (176, 128, 64), (222, 188, 110),
  (150, 62, 34), (150, 150, 150),
)  # fmt: skip
_HAIRCUTS = ('short', 'short', 'long', 'bun', 'bald', 'cap')
_LEGWEAR = ('trousers', 'trousers', 'shorts', 'skirt')


@dataclasses.dataclass(frozen=True)
class Look:
  """Colors (RGB) and the cut of hair and clothes."""

  skin: Color
  hair: Color
  shirt: Color
  trousers: Color
  shoes: Color
  cap: Color
  haircut: str
  legwear: str
  long_sleeves: bool


def sample_look(rng: np.random.Generator, around: Color) -> Look:
  """Draws clothes that stand out from the color of what is `around`."""
  return Look(
    skin=_SKIN[rng.integers(len(_SKIN))],
    hair=_HAIR[rng.integers(len(_HAIR))],
    shirt=_cloth_color(rng, around, (0.25, 1.0), (0.3, 1.0)),
    trousers=_cloth_color(rng, around, (0.1, 0.7), (0.12, 0.75)),
    shoes=((35, 32, 34), (235, 235, 230), (120, 60, 40))[rng.integers(3)],
    cap=_cloth_color(rng, around, (0.4, 0.9), (0.3, 0.9)),
    haircut=_HAIRCUTS[rng.integers(len(_HAIRCUTS))],
    legwear=_LEGWEAR[rng.integers(len(_LEGWEAR))],
    long_sleeves=bool(rng.uniform() < 0.5),
  )


def _cloth_color(rng, around: Color, saturation, value) -> Color:
  """Draws a color until it differs enough from its surroundings."""
  while True:
    color = shapes.random_color(rng, (0, 1), saturation, value)
    if np.abs(np.subtract(color, around)).sum() > 150:
      return color


def faded(look: Look, around: Color, share: float) -> Look:
  """Returns a look that sinks into its surroundings, for people far away."""
  colors = ('skin', 'hair', 'shirt', 'trousers', 'shoes', 'cap')
  return dataclasses.replace(
    look,
    **{name: shapes.mix(getattr(look, name), around, share) for name in colors},
  )


class Figure:
  """One dressed person in the picture.

  Attributes:
    layers: `shapes.Layer`s of legs, trunk, head and arms.
  """

  def __init__(
    self,
    body: skeleton.Body,
    look: Look,
    points: np.ndarray,
    depth: np.ndarray,
    facing: np.ndarray,
    scale: float,
  ):
    """Draws the layers.

    Args:
      body: proportions, for the thickness of the limbs.
      look: colors.
      points: (t, 17, 2) joints in the picture, in pixels.
      depth: (t, 17) of the joints, in meters, nearer is larger.
      facing: (t, 3) where the face looks, in the picture's axes: right, up and
        towards the camera.
      scale: pixels a meter.
    """
    self._look = look
    self._points = {n: points[:, i] for n, i in skeleton.INDEX.items()}
    self._depth = {n: depth[:, i] for n, i in skeleton.INDEX.items()}
    self._facing = facing
    self._pixels = scale * body.height  # of the body's height
    self._girth = self._pixels * body.girth
    self._head = scale * body.head
    self._edge = max(0.5, 0.011 * self._pixels)
    self.layers = [
      self._leg('left'),
      self._leg('right'),
      self._trunk(),
      self._head_and_hair(),
      self._arm('left'),
      self._arm('right'),
    ]

  def _outlined(self, parts) -> list[tuple[np.ndarray, Color]]:
    """Capsules `(p, q, radius at p, at q, color)` over one dark outline."""
    edge = self._edge
    outline = [
      (capsule(p, q, a + edge, b + edge), shade(color, 0.45))
      for p, q, a, b, color in parts
    ]
    fill = [(capsule(p, q, a, b), color) for p, q, a, b, color in parts]
    return outline + fill

  def _light(self, side: str) -> float:
    """Limbs on the far side of the body are a little darker."""
    other = 'right' if side == 'left' else 'left'
    gap = self._depth[f'{side}_shoulder'] - self._depth[f'{other}_shoulder']
    return 1.06 if gap.mean() > -0.05 else 0.8

  def _leg(self, side: str) -> shapes.Layer:
    look, r, light = self._look, self._girth, self._light(side)
    hip, knee, ankle, toe = (
      self._points[f'{side}_{name}'] for name in ('hip', 'knee', 'ankle', 'toe')
    )
    cloth, skin = shade(look.trousers, light), shade(look.skin, light)
    shank = cloth if look.legwear == 'trousers' else skin
    width = 0.027 if look.legwear == 'trousers' else 0.022
    heel = ankle + [0, 0.012 * self._pixels]  # y points down
    parts = [
      (heel, toe, 0.024 * r, 0.019 * r, shade(look.shoes, light)),
      (knee, ankle, 0.036 * r, width * r, shank),
      (hip, knee, 0.052 * r, 0.04 * r, cloth),
    ]
    depth = self._depth[f'{side}_knee'] + self._depth[f'{side}_hip']
    return shapes.Layer(depth / 2, self._outlined(parts))

  def _trunk(self) -> shapes.Layer:
    look, r, at = self._look, self._girth, self._points
    shoulders = at['left_shoulder'], at['right_shoulder'], 0.042 * r, 0.042 * r
    hips = at['left_hip'], at['right_hip'], 0.05 * r, 0.05 * r
    middle = 0.45 * at['pelvis'] + 0.55 * at['neck']
    chest = middle, middle, 0.06 * r, 0.06 * r
    painted = self._cloth([shoulders, chest, hips], look.shirt)
    if look.legwear == 'skirt':
      left, right = (
        0.25 * at[f'{side}_hip'] + 0.75 * at[f'{side}_knee']
        for side in ('left', 'right')
      )
      hem = left, right, 0.055 * r, 0.055 * r
      painted = self._cloth([hips, hem], look.trousers) + painted
    else:
      belt = capsule(at['left_hip'], at['right_hip'], 0.045 * r, 0.045 * r)
      painted.append((belt, look.trousers))
    neck = capsule(at['neck'], at['head'], 0.03 * r, 0.03 * r)
    painted.append((neck, shade(look.skin, 0.8)))
    depth = (self._depth['pelvis'] + self._depth['neck']) / 2
    return shapes.Layer(depth, painted)

  def _cloth(self, parts, color: Color) -> list[tuple[np.ndarray, Color]]:
    """Stretches cloth over `(p, q, radius at p, at q)`, with a dark edge."""
    return [
      (
        shapes.hull(
          np.concatenate(
            [capsule(p, q, a + grow, b + grow) for p, q, a, b in parts], 1
          )
        ),
        paint,
      )
      for grow, paint in ((self._edge, shade(color, 0.45)), (0.0, color))
    ]

  def _head_and_hair(self) -> shapes.Layer:
    look, radius, head = self._look, self._head, self._points['head']
    # In the picture y points down, so `facing` upwards lowers y.
    turn = self._facing[:, :2] * [1, -1]
    painted = []
    if look.haircut == 'long':
      nape = head - 0.4 * radius * turn + [0, 1.1 * radius]
      painted.append((capsule(head, nape, radius, 0.7 * radius), look.hair))
    if look.haircut == 'bun':
      bun = head - 0.85 * radius * turn - [0, 0.8 * radius]
      painted.append((ellipse(bun, 0.42 * radius, 0.42 * radius), look.hair))
    for grow, color in ((self._edge, shade(look.skin, 0.45)), (0, look.skin)):
      size = 0.88 * radius + grow, radius + grow
      painted.append((ellipse(head, *size), color))
    painted += self._eyes(head, radius)
    if look.haircut == 'cap':
      brim = head + 0.6 * radius * turn - [0, 0.35 * radius]
      tip = head + 1.35 * radius * turn - [0, 0.25 * radius]
      brim = capsule(brim, tip, 0.16 * radius, 0.1 * radius)
      painted += [(self._hair(head, turn), look.cap), (brim, look.cap)]
    elif look.haircut != 'bald':
      painted.append((self._hair(head, turn), look.hair))
    return shapes.Layer(self._depth['head'] + 0.02, painted)

  def _hair(self, head: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Returns the part of the head's circle that lies away from the face."""
    side = np.abs(turn[:, 0])
    behind = np.clip(-self._facing[:, 2], 0, 1)  # looks away from the camera
    middle = np.arctan2(-0.6 - 0.4 * behind, -turn[:, 0])
    half = np.radians(62 + 30 * side + 60 * behind)
    angle = middle[:, None] + half[:, None] * np.linspace(-1, 1, 15)
    arc = np.stack([0.97 * np.cos(angle), 1.08 * np.sin(angle)], -1)
    return head[:, None] + self._head * arc

  def _eyes(self, head, radius) -> list[tuple[np.ndarray, Color]]:
    """Two dots on the ball of the head; a hidden one joins the other."""
    right, _, near = self._facing.T
    middle = np.arctan2(np.maximum(near, 0.0), right)
    dots = []
    for sign in (-1, 1):
      angle = np.clip(middle + sign * 0.5, 0.15, np.pi - 0.15)
      x = 0.85 * radius * np.cos(angle)
      eye = head + np.stack([x, np.zeros_like(x)], -1)
      size = 0.07 * radius, 0.1 * radius
      dots.append((ellipse(eye, *size), shade(self._look.skin, 0.35)))
    return dots

  def _arm(self, side: str) -> shapes.Layer:
    look, r, light = self._look, self._girth, self._light(side)
    shoulder, elbow, hand = (
      self._points[f'{side}_{n}'] for n in ('shoulder', 'elbow', 'hand')
    )
    sleeve, skin = shade(look.shirt, 1.04 * light), shade(look.skin, light)
    wrist = 0.18 * elbow + 0.82 * hand
    cuff = 0.4 * shoulder + 0.6 * elbow
    parts = [(wrist, hand, 0.02 * r, 0.026 * r, skin)]
    if look.long_sleeves:
      parts.append((elbow, wrist, 0.026 * r, 0.022 * r, sleeve))
      parts.append((shoulder, elbow, 0.035 * r, 0.028 * r, sleeve))
    else:
      parts.append((elbow, wrist, 0.024 * r, 0.019 * r, skin))
      parts.append((cuff, elbow, 0.025 * r, 0.025 * r, skin))
      parts.append((shoulder, cuff, 0.036 * r, 0.034 * r, sleeve))
    depth = self._depth[f'{side}_elbow'] + self._depth[f'{side}_hand']
    return shapes.Layer(depth / 2, self._outlined(parts))
