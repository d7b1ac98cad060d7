"""Class Feature Pyramids: the features behind a class (thesis, chapter 7).

First the channels of the last activations that matter for a class are found.
Then the back step finds, layer by layer, the channels that matter for those
(7.2–7.5). Importances are normalized to [0, 1] by their minimum and maximum,
and channels are kept whose sigmoid exceeds the threshold θ. (Eq. 7.3 as printed
is always true.)

Layer-wise, the kept kernels of a layer are averaged and make one set below.
Feature-wise, every kept kernel finds its own: a tree whose nodes are channels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.explain.back_step import MODES, Edge, step_back
from mtnet_jax.explain.class_rows import class_row
from mtnet_jax.explain.layer_kernels import (
  find_kernels,
  inflate,
  inflate_branches,
)
from mtnet_jax.explain.network_layers import (
  Convolution,
  Importance,
  Step,
  count_steps,
  layer_chain,
  normalize,
  select_channels,
)
from mtnet_jax.explain.recording import record
from mtnet_jax.explain.saliency_tubes import saliency_tube
from mtnet_jax.models.inception import Inception
from mtnet_jax.models.mtnet import MTNet
from mtnet_jax.models.resnet3d import ResNet3D
from mtnet_jax.models.video_resnet import DEPTHS, VideoResNet
from mtnet_jax.ops import precision
from mtnet_jax.typing import Array, Float

# σ of [0, 1] lies in [0.5, 0.731]: other thresholds keep all or nothing.
_LOWEST, _HIGHEST = 0.5, 0.731
_THRESHOLD = 0.6
_R3D_50 = 0.55
_I3D = 0.65
_MTNET = 0.67


@dataclasses.dataclass(frozen=True)
class Level:
  """The kept channels of one layer's activations.

  Attributes:
    layer: path of the layer that made them.
    num_channels: kept or not.
    importance: the importance of each kept channel, in (0, 1], the largest
      first.
  """

  layer: str
  num_channels: int
  importance: Importance


@dataclasses.dataclass(frozen=True)
class Pyramid:
  """The dependencies of a class, from the last activations down.

  Attributes:
    label: the class.
    threshold: the threshold θ.
    mode: one of `MODES`.
    levels: the last activations first.
    edges: between channels of two levels; of a residual connection whose block
      begins below the last level there are none.
  """

  label: int
  threshold: float
  mode: str
  levels: tuple[Level, ...]
  edges: tuple[Edge, ...]

  def to_json(self) -> dict[str, Any]:
    """Returns the same in dicts and lists; channels as keys become strings."""
    graph = dataclasses.asdict(self)
    for level in graph['levels']:
      level['importance'] = {str(c): v for c, v in level['importance'].items()}
    return graph


@dataclasses.dataclass(frozen=True)
class Observation:
  """One forward pass, for pyramids of any class, mode and threshold.

  Attributes:
    logits: float32 `(k,)`.
    features: means of the last activations, `(C',)`.
    steps: the steps from the last layer down.
    activations: the activations of every level, `(t, h, w, c)` on the device,
      by the path of the layer that made them.
    endpoints: the network's other outputs, with `n` = 1.
  """

  logits: Float[np.ndarray, ' k']
  features: Float[np.ndarray, ' f']
  steps: tuple[Step, ...]
  activations: Mapping[str, Float[Array, 't h w c']]
  endpoints: Mapping[str, Any]


def class_feature_pyramid(
  model: nn.Module,
  variables: dict,
  clip: Float[Array, '...'],
  label: int | None = None,
  layers: int | str = 3,
  mode: str = 'layer',
  threshold: float | None = None,
) -> tuple[Pyramid, list[Float[np.ndarray, 't h w']]]:
  """Returns a class's pyramid and a tube for each of its levels.

  Args:
    model: a network from `mtnet_jax.models.build`.
    variables: the model's.
    clip: one clip (1, t, h, w, 3), normalized.
    label: the class; None: the predicted one.
    layers: steps back, so that there are `layers + 1` levels, or fewer where
      the network begins; or the path of the layer to step back to.
    mode: one of `MODES`. Feature-wise there may be as many edges between two
      levels as the product of their kept channels.
    threshold: θ in [0.5, 0.731); None: `default_threshold`.

  Returns:
    The pyramid, and for each level a saliency tube over its kept channels in
    [0, 1], as small as the layer's activations.

  Raises:
    UserError: an argument outside its range, a layer that does not exist, or
      activations that are not finite.
  """
  if threshold is None:
    threshold = default_threshold(model)
  observation = observe(model, variables, clip, layers)
  if label is None:
    label = int(np.argmax(observation.logits))
  pyramid = build(observation, variables['params'], label, mode, threshold)
  return pyramid, level_tubes(pyramid, observation)


def default_threshold(model: nn.Module) -> float:
  """Returns θ from Table 7.1 for the model's family, else 0.6."""
  if isinstance(model, MTNet):
    return _MTNET if model.local_ratio < 1 else _THRESHOLD
  if isinstance(model, Inception):
    return _I3D
  return _R3D_50 if _is_r3d_50(model) else _THRESHOLD


def _is_r3d_50(model):
  """Returns whether a model is the thesis's r3d-50, or that of Hara et al."""
  if isinstance(model, ResNet3D):
    kind = (model.convolution, model.width, model.depth)
    return kind == ('r3d', 1, 50)
  if isinstance(model, VideoResNet):
    middle = model.middle or model.pathway.middle
    return (middle, model.pathway.blocks) == ('cubic', DEPTHS[50])
  return False


def check_threshold(threshold: float) -> None:
  """Raises a `UserError` for a θ that keeps nothing or everything."""
  if not _LOWEST <= threshold < _HIGHEST:
    raise UserError(
      f'`threshold` (={threshold}) must lie in [{_LOWEST}, {_HIGHEST}): it is '
      'compared with the sigmoid of an importance in [0, 1], and another one '
      f'keeps every channel or none. Defaults are {_R3D_50} to {_MTNET}.'
    )


def observe(
  model: nn.Module,
  variables: dict,
  clip: Float[Array, '...'],
  layers: int | str = 3,
) -> Observation:
  """Runs the network once; see `class_feature_pyramid`."""
  if clip.ndim != 5 or len(clip) != 1:
    raise UserError(
      f'`clip` (of shape {clip.shape}) must be one clip, (1, t, h, w, 3).'
    )
  params = variables['params']
  chain = layer_chain(params)[::-1]  # from the last layer down
  depth = count_steps(chain, layers) if chain else 0
  paths = [layer.path for layer in chain[:depth]]
  shortcuts = [
    path
    for k, layer in enumerate(chain[:depth])
    if k + layer.block <= depth
    for path in layer.shortcut
  ]
  convolutions = [p for layer in chain[:depth] for p in layer.convolutions]
  kernels = {p: find_kernels(params, p) for p in (*convolutions, *shortcuts)}
  logits, endpoints, recorded = record(
    model, variables, clip, whole=sorted({*paths, *kernels})
  )
  # Only means leave the device; activations stay there until a tube is drawn.
  logits, features, kernels, means = jax.device_get(
    (logits[0], endpoints['features'][0], *_pool(kernels, recorded))
  )
  _check_finite(logits, features, means)
  activations = {layer.path: endpoints['last'][0] for layer in chain[:1]}
  for k, path in enumerate(paths):
    activations[chain[k + 1].path] = recorded[path]['input'][0]
  steps = _steps(chain[:depth], kernels, means)
  return Observation(logits, features, steps, activations, endpoints)


@jax.jit
def _pool(kernels, recorded):
  """Averages one clip's activations over frames, height and width."""
  kernels = jax.tree.map(lambda k: jnp.mean(k, axis=(0, 1, 2)), kernels)
  means = jax.tree.map(
    lambda a: jnp.mean(precision.widen(a[0]), axis=(0, 1, 2)), recorded
  )
  return kernels, means


def _check_finite(*values):
  if not all(np.isfinite(a).all() for a in jax.tree.leaves(values)):
    raise UserError(
      'The network gives activations that are not finite, so that nothing can '
      'be explained. Its weights or the clip hold NaN or infinite values.'
    )


def _steps(chain, kernels, means):
  steps = []
  for layer in chain:
    inputs, outputs = (means[layer.path][key] for key in ('input', 'output'))
    own = {}
    if not layer.branches:
      own = inflate_branches(kernels[layer.path], len(inputs))
    shortcut, *branches = (
      _convolutions(paths, kernels, means)
      for paths in (layer.shortcut, *layer.branches)
    )
    steps.append(Step(layer, own, inputs, outputs, shortcut, tuple(branches)))
  return tuple(steps)


def _convolutions(paths, kernels, means):
  """Returns the convolutions of a branch or a shortcut that were observed."""
  return tuple(
    Convolution(
      inflate(kernels[path]['local'], len(means[path]['input'])),
      means[path]['input'],
    )
    for path in paths
    if path in kernels
  )


def build(
  observation: Observation,
  params: Mapping[str, Any],
  label: int,
  mode: str,
  threshold: float,
) -> Pyramid:
  """Returns the pyramid of a class; see `class_feature_pyramid`.

  It starts from the importance of the last activations' channels, the class's
  row times their means, normalized (7.2).
  """
  if mode not in MODES:
    raise UserError(f'`mode` (={mode!r}) must be one of {MODES}.')
  check_threshold(threshold)
  row = np.float64(class_row(params, observation.features, label))
  _check_finite(row)
  start = select_channels(normalize(row * observation.features), threshold)
  kept, edges = step_back(start, observation.steps, mode, threshold)
  levels = [
    Level(path, activations.shape[-1], importance)
    for (path, activations), importance in zip(
      observation.activations.items(), kept, strict=True
    )
  ]
  return Pyramid(
    int(label), float(threshold), mode, tuple(levels), tuple(edges)
  )


def level_tubes(
  pyramid: Pyramid, observation: Observation
) -> list[Float[np.ndarray, 't h w']]:
  """Returns a saliency tube of each level's kept channels, in [0, 1].

  As small as the level's activations; zeros where no channel is kept.
  """
  tubes = []
  for level in pyramid.levels:
    kept = _kept_activations(level, observation)
    if level.importance:
      # A tube stretches each channel by itself, so weights would have no
      # effect.
      tubes.append(saliency_tube(kept, np.ones(len(level.importance))))
    else:
      tubes.append(np.zeros(kept.shape[:3], np.float32))
  return tubes


def channel_tubes(
  pyramid: Pyramid, observation: Observation, most: int = 8
) -> dict[tuple[str, int], Float[np.ndarray, 't h w']]:
  """Returns a tube of each of a level's `most` important channels.

  By layer and channel: the channel's activations normalized to [0, 1] by their
  minimum and maximum, float32; zeros where they are constant.
  """
  tubes = {}
  for level in pyramid.levels:
    kept = _kept_activations(level, observation)
    channels = list(level.importance)[:most]
    for channel, values in zip(
      channels, np.moveaxis(kept, -1, 0), strict=False
    ):
      low, extent = values.min(), np.ptp(values)
      tube = (values - low) / extent if extent else np.zeros_like(values)
      tubes[level.layer, channel] = tube
  return tubes


def _kept_activations(level, observation):
  """Returns the kept activations in the order of their importance, float32."""
  activations = np.asarray(observation.activations[level.layer])
  return activations[..., list(level.importance)].astype(np.float32)
