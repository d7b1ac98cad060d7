"""Explains one clip of a video by every method."""

import dataclasses
import difflib
import pathlib
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from mtnet_jax import preprocessing
from mtnet_jax.errors import UserError
from mtnet_jax.explain import (
  class_feature_pyramids,
  graph_drawing,
  recording,
)
from mtnet_jax.explain.class_regularization_tubes import (
  class_regularization_tubes,
)
from mtnet_jax.explain.class_rows import class_row
from mtnet_jax.explain.explanation import METHODS, Explanation, Tube
from mtnet_jax.explain.faithfulness import faithfulness
from mtnet_jax.explain.grad_cam import grad_cams
from mtnet_jax.explain.saliency_tubes import interpolate, saliency_tube
from mtnet_jax.inputs import Video, printable
from mtnet_jax.prediction import Predictor
from mtnet_jax.progress import Progress
from mtnet_jax.typing import Array, Float

ALL = 'all'
# The stem, which is as near to the pixels, says little of any class.
_GRAD_CAM_LAYERS = ('stage_1', 'stage_2', 'stage_3', 'stage_4', 'last')


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a clip is explained.

  Attributes:
    label: name of the class; None: the predicted one.
    methods: keys of `METHODS`, or `('all',)`: those that the network has.
    layers: of the pyramid: steps back, or the path of the layer to go back to.
    mode: of the pyramid, one of `class_feature_pyramids.MODES`.
    threshold: of the pyramid, θ in [0.5, 0.731); None: the network's own.
    at: seconds from the video's start that the clip is about; None: its middle.
    faithfulness_steps: of the faithfulness curves; 0: none are measured.
    seed: of what these curves leave to chance.
  """

  label: str | None = None
  methods: Sequence[str] = (ALL,)
  layers: int | str = 3
  mode: str = class_feature_pyramids.MODES[0]
  threshold: float | None = None
  at: float | None = None
  faithfulness_steps: int = 10
  seed: int = 0


def explain(
  predictor: Predictor, video: Video, settings: Settings
) -> Explanation:
  """Explains one clip of a video.

  Args:
    predictor: of a run; an exported model cannot be looked into.
    video: as the predictor takes it.
    settings: how.

  Raises:
    UserError: a setting that is not allowed, a video that cannot be read, or a
      network whose output is not finite.
  """
  if predictor.model is None:
    raise UserError(
      f'{predictor.source} cannot be looked into: it is one closed program. '
      'Give the --workdir of the run that it was made from.'
    )
  methods = _methods(settings.methods, predictor.model.class_regularization)
  if settings.threshold is not None:
    class_feature_pyramids.check_threshold(settings.threshold)
  label = None
  if settings.label is not None:
    label = find_label(settings.label, predictor.class_names)
  clip, seconds = predictor.central_clip(video, settings.at)
  probabilities = predictor.probabilities(clip[None])[0]
  found = Explanation(
    title=_title(video),
    clip=clip,
    seconds=seconds,
    class_names=predictor.class_names,
    probabilities=probabilities,
    label=int(np.argmax(probabilities)) if label is None else label,
    tubes=(),
  )
  found = _Looking(predictor, found, settings).look(methods)
  if not settings.faithfulness_steps:
    return found
  measured = tuple(_measure(predictor, found, settings))
  return dataclasses.replace(found, tubes=measured)


def find_label(name: str, class_names: Sequence[str]) -> int:
  """Returns the number of a class.

  Raises:
    UserError: there is no such class; the nearest names are offered.
  """
  if name in class_names:
    return class_names.index(name)
  near = difflib.get_close_matches(name, class_names, n=3, cutoff=0.4)
  offer = (
    f'Did you mean {" or ".join(map(repr, near))}?'
    if near
    else f'Some that it knows: {", ".join(class_names[:5])}.'
  )
  raise UserError(
    f'The network knows no class {name!r} (label). {offer} labels.txt in its '
    f'workdir lists all {len(class_names)}.'
  )


def _methods(names: Sequence[str], regularized: bool) -> list[str]:
  """The methods by their names, in the order of `METHODS`."""
  unknown = [name for name in names if name not in (*METHODS, ALL)]
  if unknown or not names:
    raise UserError(
      f'Unknown method {", ".join(map(repr, unknown)) or repr("")}; allowed: '
      f'{ALL}, {", ".join(METHODS)}.'
    )
  if 'class_regularization' in names and not regularized:
    raise UserError(
      'This network has no Class Regularisation to show. Train one with '
      '--config.model.class_regularization=True or '
      'configs/class_regularization.py, or choose another method.'
    )
  return [
    name
    for name in METHODS
    if name in names
    or (ALL in names and (regularized or name != 'class_regularization'))
  ]


class _Looking:
  """The methods, on one clip."""

  def __init__(
    self, predictor: Predictor, found: Explanation, settings: Settings
  ):
    self._model, self._variables = predictor.model, predictor.variables
    self._found, self._settings = found, settings
    self._shape = found.clip.shape[:3]

  def look(self, methods: Sequence[str]) -> Explanation:
    """Adds the tubes of each method, and the pyramid."""
    tubes, changes = [], {}
    for method in methods:
      if method == 'class_feature_pyramids':
        own, changes = self._pyramid()
      else:
        own = getattr(self, f'_{method}')()
      tubes += own
    return dataclasses.replace(self._found, tubes=tuple(tubes), **changes)

  def _saliency_tubes(self) -> list[Tube]:
    _, endpoints, _ = recording.record(
      self._model, self._variables, self._normalized()
    )
    features = np.asarray(endpoints['features'][0])
    row = class_row(self._variables['params'], features, self._found.label)
    last = np.asarray(endpoints['last'][0])
    return [self._tube('saliency_tubes', 'last', saliency_tube(last, row))]

  def _grad_cam(self) -> list[Tube]:
    maps = grad_cams(
      self._model,
      self._variables,
      self._normalized()[0],
      self._found.label,
      _GRAD_CAM_LAYERS,
    )
    return [
      self._tube('grad_cam', layer, maps[layer]) for layer in _GRAD_CAM_LAYERS
    ]

  def _class_regularization(self) -> list[Tube]:
    _, endpoints, _ = recording.record(
      self._model, self._variables, self._normalized()
    )
    tubes = class_regularization_tubes(self._variables['params'], endpoints)
    return [
      self._tube(
        'class_regularization',
        layer,
        saliency,
        label=early,
        note='what this layer takes the clip for, whatever is asked',
      )
      for layer, (early, saliency) in tubes.items()
    ]

  def _pyramid(self) -> tuple[list[Tube], dict]:
    model, settings = self._model, self._settings
    threshold = settings.threshold
    if threshold is None:
      threshold = class_feature_pyramids.default_threshold(model)
    seen = class_feature_pyramids.observe(
      model, self._variables, self._normalized(), settings.layers
    )
    pyramid = class_feature_pyramids.build(
      seen,
      self._variables['params'],
      self._found.label,
      settings.mode,
      threshold,
    )
    levels = class_feature_pyramids.level_tubes(pyramid, seen)
    tubes = [
      self._tube(
        'class_feature_pyramids',
        level.layer,
        saliency,
        note=f'{len(level.importance)} of {level.num_channels} channels kept',
      )
      for level, saliency in zip(pyramid.levels, levels, strict=True)
    ]
    nodes = class_feature_pyramids.channel_tubes(
      pyramid, seen, graph_drawing.MOST_NODES
    )
    # From the first layer to the last, as the other methods.
    return tubes[::-1], {'pyramid': pyramid, 'node_tubes': nodes}

  def _normalized(self) -> Float[Array, '1 t h w 3']:
    clip = jnp.asarray(self._found.clip)[None]
    return preprocessing.normalize(clip, self._model.dtype or jnp.float32)

  def _tube(
    self,
    method: str,
    layer: str,
    saliency: np.ndarray,
    label: int | None = None,
    note: str = '',
  ) -> Tube:
    label = self._found.label if label is None else label
    name = self._found.class_names[label]
    return Tube(method, layer, interpolate(saliency, self._shape), name, note)


def _measure(
  predictor: Predictor, found: Explanation, settings: Settings
) -> Iterator[Tube]:
  """The tubes with their faithfulness."""
  with Progress('measuring', len(found.tubes), 'tubes') as progress:
    for tube in found.tubes:
      label = found.class_names.index(tube.class_name)
      measured = faithfulness(
        lambda clips, label=label: predictor.probabilities(clips)[:, label],
        found.clip,
        tube.saliency,
        settings.faithfulness_steps,
        settings.seed,
      )
      yield dataclasses.replace(tube, faithfulness=measured)
      progress.advance()


def _title(video: Video) -> str:
  if isinstance(video, np.ndarray):
    return 'array'
  return printable(pathlib.Path(video).name)
