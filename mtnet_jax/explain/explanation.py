"""The parts of an explanation of one clip."""

import dataclasses
import types
from collections.abc import Mapping

import numpy as np

from mtnet_jax.explain.class_feature_pyramids import Pyramid
from mtnet_jax.typing import Float, UInt8

# The methods' titles, by their names in flags and files.
METHODS: Mapping[str, str] = types.MappingProxyType(
  {
    'saliency_tubes': 'Saliency Tubes',
    'class_feature_pyramids': 'Class Feature Pyramids',
    'class_regularization': 'Class Regularisation',
    'amplified_kernels': 'Kernels that Class Regularisation amplifies',
    'grad_cam': 'Grad-CAM',
  }
)


def layer_name(layer: str) -> str:
  """Returns the title of an endpoint."""
  return 'last activations' if layer == 'last' else layer


@dataclasses.dataclass(frozen=True)
class Faithfulness:
  """Probabilities of the class as the most salient voxels change.

  Attributes:
    shares: `(k,)` of the voxels that were changed, from 0 to 1.
    deletion: `(k,)` probabilities while the most salient voxels go first.
    insertion: `(k,)` probabilities while they come first.
    random_deletion: `(k,)` the same where the saliency is moved to random
      places, the mean over m of them.
    random_insertion: `(k,)` likewise.
    random_areas: `(m, 2)` under deletion and insertion, of each place.
    spot_areas: `(2,)` the same of a plain spot in the middle of every frame.
  """

  shares: Float[np.ndarray, ' k']
  deletion: Float[np.ndarray, ' k']
  insertion: Float[np.ndarray, ' k']
  random_deletion: Float[np.ndarray, ' k']
  random_insertion: Float[np.ndarray, ' k']
  random_areas: Float[np.ndarray, 'm 2']
  spot_areas: Float[np.ndarray, ' 2']

  @property
  def areas(self) -> Float[np.ndarray, ' 2']:
    """The areas under the deletion and the insertion curve, in [0, 1]."""
    return np.trapezoid([self.deletion, self.insertion], self.shares)

  @property
  def score(self) -> float:
    """The area under insertion minus that under deletion, in [-1, 1]."""
    return float(self.areas[1] - self.areas[0])

  @property
  def random_score(self) -> float:
    """The mean score of the map at random places: about what chance gives."""
    removed, shown = self.random_areas.mean(axis=0)
    return float(shown - removed)


@dataclasses.dataclass(frozen=True)
class Tube:
  """The saliency of one method for one class in one layer.

  Attributes:
    method: a key of `METHODS`.
    layer: name of the layer.
    saliency: `(t, h, w)` float32 in [0, 1], of the clip's frames and pixels.
    class_name: the class that it speaks for.
    note: a few words on what is special, or ''.
    faithfulness: the scores of the test; None where it was not made.
  """

  method: str
  layer: str
  saliency: Float[np.ndarray, 't h w']
  class_name: str
  note: str = ''
  faithfulness: Faithfulness | None = None


@dataclasses.dataclass(frozen=True)
class Explanation:
  """An explanation of one clip, with everything that the report shows.

  Attributes:
    title: the video's name.
    clip: uint8 `(t, h, w, 3)`, as the model saw it.
    seconds: `(t,)` of the frames in the video.
    class_names: the names of all k classes.
    probabilities: `(k,)` float32, of this clip.
    label: the class that is explained, 0 to k - 1.
    tubes: the tubes by method, and by layer from the first to the last.
    pyramid: the pyramid of the class, or None.
    node_tubes: low-resolution saliency `(t', h', w')` in [0, 1] of the
      pyramid's most important channels, by layer and channel.
  """

  title: str
  clip: UInt8[np.ndarray, 't h w 3']
  seconds: Float[np.ndarray, ' t']
  class_names: tuple[str, ...]
  probabilities: Float[np.ndarray, ' k']
  label: int
  tubes: tuple[Tube, ...]
  pyramid: Pyramid | None = None
  node_tubes: Mapping[tuple[str, int], np.ndarray] = dataclasses.field(
    default_factory=dict
  )
