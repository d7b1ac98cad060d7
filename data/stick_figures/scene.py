"""One video: an action, its camera, its surroundings, and its frames."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from mtnet_jax.datasets.stick_figures import (
  actions,
  backdrop,
  camera,
  clutter,
  figure,
  formats,
  movement,
  shapes,
  skeleton,
  stage,
)


class Scene:
  """The contents of one video.

  Attributes:
    form: size, length and frame rate.
    stage: the performance.
    joints: the joints of each actor, (t, 17, 3) in meters.
  """

  def __init__(
    self,
    label: str,
    form: formats.Format,
    rng: np.random.Generator,
    perform: Callable[..., stage.Stage] = actions.perform,
  ):
    """Rehearses an action, puts up the camera and dresses the actors.

    Args:
      label: a class that `perform` knows.
      form: size, length and frame rate.
      rng: everything else follows from it.
      perform: the `perform` of a set, see `actions.perform`.
    """
    acting, filming, self._dressing, self._developing = rng.spawn(4)
    self.form = form
    self.stage = perform(label, form.phase, form.seconds, acting)
    people = self.stage.performers
    self.joints = [skeleton.solve(p.body, p.motion) for p in people]
    seen = [j.reshape(-1, 3) for j in self.joints]
    seen += [prop.center for prop in self.stage.props]
    if self.stage.room is not None:
      seen = [self.stage.room]
    height = float(np.mean([p.body.height for p in people]))
    self._view = camera.fit(np.concatenate(seen), height, form, filming)
    self._hand = camera.Hand(form, filming)
    self._depth = filming.uniform(0.5, 3.0)  # of the floor behind, in meters
    rise = self._depth * self._view.scale * np.sin(self._view.pitch)
    self._horizon = round(self._view.origin[1] - rise) - 2
    self._margin = round(0.14 * form.width) + 4
    self._still = backdrop.paint(
      self._dressing,
      form.width + 2 * self._margin,
      form.height + 2 * self._margin,
      self._horizon + self._margin,
    )
    self._around = tuple(int(c) for c in self._still.mean((0, 1)))
    self._actors = [
      self._dress(person, joints)
      for person, joints in zip(people, self.joints, strict=True)
    ]

  def boxes(self) -> np.ndarray:
    """Returns the actors' boxes, (t, actors, 4) int16; see `shapes.boxes`."""
    size = self.form.width, self.form.height
    return np.stack([shapes.boxes(a, *size) for a in self._actors], 1)

  def frames(self) -> Iterator[np.ndarray]:
    """Yields (height, width, 3) uint8 RGB frames; a scene is filmed once."""
    rng, (width, height) = self._developing, (self.form.width, self.form.height)
    behind = shapes.Painting(self._surroundings())
    front = [layer for actor in self._actors for layer in actor]
    front = shapes.Painting(front + self._props())
    gain = rng.uniform(0.85, 1.15)
    gain = gain * (1 + movement.sway(rng, self.form.seconds, 0.02))
    noise = rng.normal(0, rng.uniform(1, 4), (2 * height, 2 * width, 3))
    noise = noise.astype(np.int16)
    for i in range(self.form.frames):
      matrix = self._hand.matrix(i, self._margin)
      image = cv2.warpAffine(self._still, matrix, (width, height))
      behind.paint(image, i)
      front.paint(image, i)
      image = cv2.convertScaleAbs(image, alpha=gain[i])
      y, x = rng.integers(0, (height, width))
      grain = noise[y : y + height, x : x + width]
      yield cv2.add(image, grain, dtype=cv2.CV_8U)

  def _film(self, layers: list[shapes.Layer]) -> list[shapes.Layer]:
    """Moves layers as the camera in the hand moves."""
    return [
      shapes.Layer(
        layer.depth, [(self._hand.move(p), color) for p, color in layer.shapes]
      )
      for layer in layers
    ]

  def _dress(
    self,
    person: movement.Performer,
    joints: np.ndarray,
    fade: float = 0.0,
  ) -> list[shapes.Layer]:
    """Returns a person's layers; `fade` is the share of the surroundings."""
    look = figure.sample_look(self._dressing, self._around)
    look = figure.faded(look, self._around, fade)
    tilt = (person.motion.nod + 0.7 * person.motion.lean)[:, None]
    gaze = np.cos(tilt) * person.forward - np.sin(tilt) * skeleton.UP
    points, depth = self._view.project(joints)
    dressed = figure.Figure(
      person.body, look, points, depth, self._view.turn(gaze), self._view.scale
    )
    return self._film(dressed.layers)

  def _props(self) -> list[shapes.Layer]:
    look = figure.sample_look(self._dressing, self._around)
    layers = []
    for prop in self.stage.props:
      draw = self._ball if prop.ball else self._box
      layers.append(draw(prop, look.shirt))
    return self._film(layers)

  def _ball(self, prop: stage.Prop, color: shapes.Color) -> shapes.Layer:
    pixels, depth = self._view.project(prop.center)
    radius = self._view.scale * prop.size[0]
    highlight = pixels - 0.25 * radius
    drawn = [
      (shapes.ellipse(center, r, r), shapes.shade(color, light))
      for center, r, light in (
        (pixels, radius + 0.7, 0.45),
        (pixels, radius, 1.0),
        (highlight, 0.5 * radius, 1.25),
      )
    ]
    return shapes.Layer(depth, drawn)

  def _box(self, prop: stage.Prop, color: shapes.Color) -> shapes.Layer:
    forward, left = skeleton.heading(np.array([prop.yaw]))
    axes = np.concatenate([forward, skeleton.UP[None], left])
    signs = np.array(np.meshgrid(*3 * [(-1, 1)])).reshape(3, -1).T
    corners = prop.center[:, None] + (signs * prop.size) @ axes
    pixels, depth = self._view.project(corners)
    outline = shapes.hull(pixels)
    out = outline - pixels.mean(1, keepdims=True)
    out = 0.7 * out / np.linalg.norm(out, axis=-1, keepdims=True)
    dark = shapes.shade(color, 0.45)
    drawn = [(outline + out, dark), (outline, color)]
    return shapes.Layer(depth.mean(1), drawn)

  def _surroundings(self) -> list[shapes.Layer]:
    """Returns what moves behind the actors, their shadows last."""
    rng, form = self._dressing, self.form
    things = clutter.sample(rng, form, self._horizon, self._around)
    groups = [self._film(things)]
    for _ in range(rng.choice(3, p=[0.6, 0.32, 0.08])):
      groups.append(self._passer_by())
    if len(self.joints) == 1 and rng.uniform() < 0.2:
      groups.append(self._onlooker())
    groups.append(self._film([self._shadow(j) for j in self.joints]))
    for i, group in enumerate(groups):
      for layer in group:
        layer.depth = layer.depth + 100 * i  # one group in front of the other
    return [layer for group in groups for layer in group]

  def _passer_by(self) -> list[shapes.Layer]:
    """Returns somebody small in the background, who stands or walks."""
    rng, form = self._dressing, self.form
    aside = rng.uniform(-0.5, 0.5) * form.width / self._view.scale
    place = aside, -rng.uniform(0.3, 0.9) * self._depth
    yaw = rng.choice([0.0, np.pi]) + rng.uniform(-0.3, 0.3)
    body = skeleton.sample_body(rng, rng.uniform(0.45, 0.65))
    person = movement.Performer(body, form.seconds, rng, place, yaw)
    if rng.uniform() < 0.5:
      way = rng.uniform(0.5, 1.3) * form.seconds[-1]
      person.walk(np.linspace(0, way, form.frames), way)
    joints = skeleton.solve(body, person.motion)
    return self._dress(person, joints, fade=rng.uniform(0.4, 0.65))

  def _onlooker(self) -> list[shapes.Layer]:
    """Returns somebody as large as the actor, who stands by and does nothing.

    The number of people alone must not tell the actions of one from those of
    two.
    """
    rng = self._dressing
    aside = rng.uniform(0.9, 1.3) * rng.choice([-1, 1])
    yaw = (np.pi if aside > 0 else 0.0) + rng.uniform(-0.4, 0.4)
    place = aside, -rng.uniform(0.1, 0.4)
    body = skeleton.sample_body(rng)
    person = movement.Performer(body, self.form.seconds, rng, place, yaw)
    return self._dress(person, skeleton.solve(body, person.motion), fade=0.15)

  def _shadow(self, joints: np.ndarray) -> shapes.Layer:
    """Returns the dark patch on the floor below a person."""
    pelvis = joints[:, skeleton.INDEX['pelvis']] * [1, 0, 1]
    center, depth = self._view.project(pelvis)
    size = 0.28 * self._view.scale
    row = round(self._view.origin[1]) + self._margin
    color = shapes.shade(self._still[row].mean(0), 0.72)
    return shapes.Layer(
      depth, [(shapes.ellipse(center, size, 0.22 * size), color)]
    )
