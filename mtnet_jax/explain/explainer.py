"""Explains one clip of a video by every method."""

import dataclasses
import difflib
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from mtnet_jax import preprocessing
from mtnet_jax.errors import UserError, printable
from mtnet_jax.explain import class_feature_pyramids, graph_drawing
from mtnet_jax.explain.class_regularization_tubes import (
  amplified_kernels,
  class_regularization_tubes,
)
from mtnet_jax.explain.class_rows import class_row
from mtnet_jax.explain.explanation import METHODS, Explanation, Tube
from mtnet_jax.explain.faithfulness import faithfulness
from mtnet_jax.explain.grad_cam import grad_cams
from mtnet_jax.explain.network_layers import layer_chain
from mtnet_jax.explain.saliency_tubes import interpolate, saliency_tube
from mtnet_jax.prediction import Predictor
from mtnet_jax.prediction.user_videos import Video
from mtnet_jax.progress import Progress
from mtnet_jax.typing import Float, UInt8

ALL = 'all'
# Methods that show the effect of Class Regularisation.
_OF_REGULARIZED = frozenset({'class_regularization', 'amplified_kernels'})
# The stem is left out: it is close to the pixels and says little of a class.
_GRAD_CAM_LAYERS = ('stage_1', 'stage_2', 'stage_3', 'stage_4', 'last')


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings of an explanation.

  Attributes:
    label: name of the class; None: the predicted one.
    methods: keys of `METHODS`, or `('all',)`: those that the network has.
    layers: the depth of the pyramid: steps back, or the path of the layer to go
      back to.
    mode: the pyramid's mode, one of `class_feature_pyramids.MODES`.
    threshold: the pyramid's θ in [0.5, 0.731); None: the network's own.
    at: seconds from the video's start that the clip is about; None: its middle.
    faithfulness_steps: the number of steps of the faithfulness curves; 0: none
      are measured.
    seed: the seed of what these curves leave to chance.
  """

  label: str | None = None
  methods: Sequence[str] = (ALL,)
  layers: int | str = 3
  mode: str = class_feature_pyramids.MODES[0]
  threshold: float | None = None
  at: float | None = None
  faithfulness_steps: int = 5
  seed: int = 0


def explain(
  predictor: Predictor, video: Video, settings: Settings
) -> Explanation:
  """Explains one clip of a video.

  Args:
    predictor: a run's predictor; an exported model cannot be looked into.
    video: a video, as the predictor takes it.
    settings: the settings of the explanation.

  Raises:
    UserError: a setting that is not allowed, a video that cannot be read, or a
      network whose output is not finite.
  """
  if predictor.model is None:
    raise UserError(
      f'{predictor.source} cannot be looked into: it is one closed program. '
      'Give the --workdir of the run that it was made from.'
    )
  chain = layer_chain(predictor.variables['params'])[::-1]
  methods = _methods(
    settings.methods, predictor.model.class_regularization, bool(chain)
  )
  if chain:
    class_feature_pyramids.count_steps(chain, settings.layers)
  if settings.threshold is not None:
    class_feature_pyramids.check_threshold(settings.threshold)
  label = None
  if settings.label is not None:
    label = find_label(settings.label, predictor.class_names)
  clip, seconds = predictor.central_clip(video, settings.at)
  explainer = _Explainer(predictor, clip, label, settings)
  tubes = [tube for method in methods for tube in explainer.tubes(method)]
  if settings.faithfulness_steps:
    tubes = list(_measure(predictor, clip, tubes, settings))
  return Explanation(
    title=_title(video),
    clip=clip,
    seconds=seconds,
    class_names=predictor.class_names,
    probabilities=explainer.probabilities,
    label=explainer.label,
    tubes=tuple(tubes),
    pyramid=explainer.pyramid,
    node_tubes=explainer.node_tubes,
  )


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


def _methods(
  names: Sequence[str], regularized: bool, chained: bool
) -> list[str]:
  """Returns the methods by their names, in the order of `METHODS`."""
  unknown = [name for name in names if name not in (*METHODS, ALL)]
  if unknown or not names:
    raise UserError(
      f'Unknown method {", ".join(map(repr, unknown)) or repr("")}; allowed: '
      f'{ALL}, {", ".join(METHODS)}.'
    )
  if _OF_REGULARIZED.intersection(names) and not regularized:
    raise UserError(
      'This network has no Class Regularisation to show. Train one with '
      '--config.model.class_regularization=True or '
      '--config=class_regularization:CONFIG, or choose another method.'
    )
  if 'class_feature_pyramids' in names and not chained:
    raise UserError(
      'Class Feature Pyramids step back through one chain of layers, and this '
      'network has two pathways. Choose another method.'
    )
  has = dict.fromkeys(_OF_REGULARIZED, regularized)
  has['class_feature_pyramids'] = chained
  return [
    name
    for name in METHODS
    if name in names or (ALL in names and has.get(name, True))
  ]


class _Explainer:
  """The methods, on one clip; all but Grad-CAM from one forward pass."""

  def __init__(
    self,
    predictor: Predictor,
    clip: UInt8[np.ndarray, 't h w 3'],
    label: int | None,
    settings: Settings,
  ):
    self._model, self._variables = predictor.model, predictor.variables
    self._names, self._settings = predictor.class_names, settings
    self._shape = clip.shape[:3]
    self._clip = preprocessing.prepare(clip[None], self._model)
    self._observation = class_feature_pyramids.observe(
      self._model, self._variables, self._clip, settings.layers
    )
    self.probabilities = np.asarray(jax.nn.softmax(self._observation.logits))
    self.label = int(self.probabilities.argmax()) if label is None else label
    self.pyramid, self.node_tubes = None, {}

  def tubes(self, method: str) -> list[Tube]:
    """Returns a method's tubes, from the first layer to the last."""
    return {
      'saliency_tubes': self._saliency_tubes,
      'class_feature_pyramids': self._pyramid,
      'class_regularization': self._class_regularization,
      'amplified_kernels': self._amplified_kernels,
      'grad_cam': self._grad_cam,
    }[method]()

  def _saliency_tubes(self) -> list[Tube]:
    params, last = (
      self._variables['params'],
      self._observation.endpoints['last'][0],
    )
    row = class_row(params, self._observation.features, self.label)
    return [self._tube('saliency_tubes', 'last', saliency_tube(last, row))]

  def _grad_cam(self) -> list[Tube]:
    # Without a head, the last stage's activations are the last.
    has_head = 'head' in self._variables['params']
    layers = [
      layer for layer in _GRAD_CAM_LAYERS if layer != 'stage_4' or has_head
    ]
    maps = grad_cams(
      self._model, self._variables, self._clip[0], self.label, layers
    )
    return [self._tube('grad_cam', layer, maps[layer]) for layer in layers]

  def _class_regularization(self) -> list[Tube]:
    tubes = class_regularization_tubes(
      self._variables['params'], self._observation.endpoints
    )
    note = 'what this layer takes the clip for, whatever is asked'
    return [
      self._tube('class_regularization', layer, saliency, early, note)
      for layer, (early, saliency) in tubes.items()
    ]

  def _amplified_kernels(self) -> list[Tube]:
    stages = amplified_kernels(
      self._variables['params'], self._observation.endpoints
    )
    return [
      self._tube(
        'amplified_kernels',
        f'{layer}/channel_{channel}',
        saliency,
        early,
        f'rank {rank}: this channel alone',
      )
      for layer, (early, kernels) in stages.items()
      for rank, (channel, saliency) in enumerate(kernels, start=1)
    ]

  def _pyramid(self) -> list[Tube]:
    settings, params = self._settings, self._variables['params']
    threshold = settings.threshold
    if threshold is None:
      threshold = class_feature_pyramids.default_threshold(self._model)
    self.pyramid = class_feature_pyramids.build(
      self._observation, params, self.label, settings.mode, threshold
    )
    self.node_tubes = class_feature_pyramids.channel_tubes(
      self.pyramid, self._observation, graph_drawing.MOST_NODES
    )
    levels = class_feature_pyramids.level_tubes(self.pyramid, self._observation)
    tubes = [
      self._tube(
        'class_feature_pyramids',
        level.layer,
        saliency,
        note=f'{len(level.importance)} of {level.num_channels} channels kept',
      )
      for level, saliency in zip(self.pyramid.levels, levels, strict=True)
    ]
    return tubes[::-1]

  def _tube(
    self,
    method: str,
    layer: str,
    saliency: Float[np.ndarray, 't h w'],
    label: int | None = None,
    note: str = '',
  ) -> Tube:
    name = self._names[self.label if label is None else label]
    return Tube(method, layer, interpolate(saliency, self._shape), name, note)


def _measure(
  predictor: Predictor,
  clip: UInt8[np.ndarray, 't h w 3'],
  tubes: Sequence[Tube],
  settings: Settings,
) -> Iterator[Tube]:
  """Measures the faithfulness of the tubes.

  For a pyramid only that of its first and last level is measured, and for
  single kernels none.
  """
  levels = [t.layer for t in tubes if t.method == 'class_feature_pyramids']
  left_out = {('class_feature_pyramids', layer) for layer in levels[1:-1]} | {
    (t.method, t.layer) for t in tubes if t.method == 'amplified_kernels'
  }
  with Progress('measuring', len(tubes), 'tubes') as progress:
    for tube in tubes:
      if (tube.method, tube.layer) not in left_out:
        label = predictor.class_names.index(tube.class_name)
        measured = faithfulness(
          lambda clips, label=label: predictor.probabilities(clips)[:, label],
          clip,
          tube.saliency,
          settings.faithfulness_steps,
          settings.seed,
          predictor.clips_per_step,
        )
        tube = dataclasses.replace(tube, faithfulness=measured)
      yield tube
      progress.advance()


def _title(video: Video) -> str:
  if isinstance(video, np.ndarray):
    return 'array'
  return printable(pathlib.Path(video).name)
