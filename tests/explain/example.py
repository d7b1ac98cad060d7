"""An explanation made up for the tests: a bright square that walks right."""

import numpy as np

from mtnet_jax.explain import class_feature_pyramids, explanation

HOSTILE = '<script>alert(1)</script><!-- "wave" & $x$'


def make(
  label_name: str = 'wave',
  clip: np.ndarray | None = None,
  num_nodes: int = 6,
  mode: str = 'feature',
) -> explanation.Explanation:
  """Returns an explanation with two methods, two layers and a pyramid.

  Args:
    label_name: the name of the class that is explained.
    clip: uint8 `(t, h, w, 3)`; None: 8 frames of 48 × 48 pixels.
    num_nodes: kept channels of each of the pyramid's three levels.
    mode: the mode of the pyramid, 'feature' or 'layer'.
  """
  if clip is None:
    clip = walking_square()
  t, h, w, _ = clip.shape
  names = ('jump', 'kick', label_name, 'push', 'sit_down', 'stand_up', 'hug')
  methods = ('saliency_tubes', 'grad_cam', 'class_feature_pyramids')
  tubes = [
    explanation.Tube(
      method,
      layer,
      blob(t, h, w, 0.2 + 0.2 * i, 0.25 + 0.25 * j),
      label_name,
      'speaks early' if method == 'grad_cam' and layer == 'stage2' else '',
      faithfulness(strong=method != 'grad_cam'),
    )
    for i, method in enumerate(methods)
    for j, layer in enumerate(('stage1', 'stage2', 'stage3'))
  ]
  pyramid = make_pyramid(num_nodes, mode)
  node_tubes = {
    (level.layer, channel): blob(
      4, 6, 6, 0.07 * channel % 0.6, 0.2 + 0.3 * depth
    )
    for depth, level in enumerate(pyramid.levels)
    for channel in list(level.importance)[:10]
  }
  return explanation.Explanation(
    title='walk & turn.mp4',
    clip=clip,
    seconds=1.0 + 0.1 * np.arange(t),
    class_names=names,
    probabilities=np.array(
      [0.05, 0.02, 0.75, 0.1, 0.03, 0.01, 0.04], np.float32
    ),
    label=2,
    tubes=tuple(tubes),
    pyramid=pyramid,
    node_tubes=node_tubes,
  )


def walking_square() -> np.ndarray:
  """Returns uint8 (8, 48, 48, 3)."""
  clip = np.full((8, 48, 48, 3), (40, 60, 90), np.uint8)
  for i, frame in enumerate(clip):
    frame[16:32, 4 * i : 4 * i + 12] = (230, 220, 200)
  return clip


def blob(t: int, h: int, w: int, start: float, height: float) -> np.ndarray:
  """Returns saliency (t, h, w) in [0, 1]: a spot that goes right and fades."""
  time = np.linspace(0, 1, t)[:, None, None]
  y = (np.arange(h) + 0.5)[:, None] / h - height
  x = (np.arange(w) + 0.5) / w - (start + 0.4 * time)
  fading = 1 - 0.6 * np.abs(time - 0.6)
  return (fading * np.exp(-(x**2 + y**2) / 0.03)).astype(np.float32)


def faithfulness(strong: bool) -> explanation.Faithfulness:
  """Returns curves that fall faster than the random ones, or just like them."""
  power = 4 if strong else 1
  return powers(power, power, 0.75)


def powers(
  deletion: float,
  insertion: float,
  whole: float = 0.8,
  spot: tuple[float, float] = (1, 1),
) -> explanation.Faithfulness:
  """Returns curves of which every area is known.

  Args:
    deletion: power p of `whole · (1 - share) ** p`, below the line for p > 1.
      The area is `whole / (p + 1)`.
    insertion: power p of `whole · (1 - (1 - share) ** p)`, above it likewise.
      The random places have powers from 0.5 to 1.5 in both.
    whole: probability of the whole clip; without all it is 0.
    spot: the two powers of the plain spot.
  """
  shares = np.linspace(0, 1, 201)

  def curves(p, q):
    left = 1 - shares
    return np.array([whole * left**p, whole * (1 - left**q)])

  random = [curves(p, p) for p in (0.5, 1, 1.5)]
  return explanation.Faithfulness(
    shares,
    *curves(deletion, insertion),
    *np.mean(random, axis=0),
    random_areas=np.trapezoid(random, shares),
    spot_areas=np.trapezoid(curves(*spot), shares),
  )


def make_pyramid(
  num_nodes: int, mode: str = 'feature'
) -> class_feature_pyramids.Pyramid:
  """Returns three levels, `stage3` to `stage1`, of so many channels each."""
  importance = {7 * c: 1 - 0.5 * c / num_nodes for c in range(num_nodes)}
  levels = tuple(
    class_feature_pyramids.Level(layer, 512, dict(importance))
    for layer in ('stage3', 'stage2', 'stage1')
  )
  edges = [
    class_feature_pyramids.Edge(
      level,
      source if mode == 'feature' else -1,
      target,
      importance[target] * (importance[source] if mode == 'feature' else 1),
    )
    for level in (0, 1)
    for source in (importance if mode == 'feature' else [0])
    for target in importance
    if mode == 'layer' or (source + target) % 3 != 1
  ]
  edges += [
    class_feature_pyramids.Edge(0, c, c, importance[c], 'residual', span=2)
    for c in list(importance)[:3]
  ]
  return class_feature_pyramids.Pyramid(2, 0.6, mode, levels, tuple(edges))
