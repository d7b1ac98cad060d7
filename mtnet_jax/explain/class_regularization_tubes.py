"""Draws what each Class Regularisation layer saw (thesis, 6.3.3).

Fig. 6.4 shows all of a layer's channels together, Fig. 6.3 those that it
amplifies most.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mtnet_jax.errors import UserError
from mtnet_jax.explain.saliency_tubes import Shape, saliency_tube
from mtnet_jax.layers.class_regularization import class_maps
from mtnet_jax.typing import Float


def class_regularization_tubes(
  params: Mapping[str, Any],
  endpoints: Mapping[str, Any],
  label: int | None = None,
  shape: Shape | None = None,
) -> dict[str, tuple[int, Float[np.ndarray, 't h w']]]:
  """Returns a Saliency Tube of each stage that is regularized.

  The weights of a stage's channels are the layer's own map of the class, `V[n]`
  of Algorithm 1.

  Args:
    params: the network's parameters.
    endpoints: the network's endpoints for one clip, `n` = 1.
    label: the class, 0 to k - 1; None: of each stage the one it picked itself,
      its early prediction.
    shape: frames, rows and columns of the result; None: of the stage.

  Returns:
    By stage the class, and float32 saliency in [0, 1].

  Raises:
    UserError: the network has no Class Regularisation or no such class, or its
      activations or weights are not finite.
  """
  return {
    stage: (chosen, saliency_tube(np.asarray(endpoints[stage][0]), row, shape))
    for stage, chosen, row in _rows(params, endpoints, label)
  }


def amplified_kernels(
  params: Mapping[str, Any],
  endpoints: Mapping[str, Any],
  shape: Shape | None = None,
  count: int = 3,
) -> dict[str, tuple[int, list[tuple[int, Float[np.ndarray, 't h w']]]]]:
  """Returns where the kernels that each stage amplifies most are active.

  These are the channels with the largest weights in the layer's map of the
  class that it picked, which scales them least: Fig. 6.3. Among equals the
  lowest index comes first.

  Args:
    params: the network's parameters.
    endpoints: the network's endpoints for one clip, `n` = 1.
    shape: frames, rows and columns of the result; None: of the stage.
    count: kernels of a stage, at least 1.

  Returns:
    By stage the class, and of each kernel the channel and the Saliency Tube of
    it alone, float32 in [0, 1].

  Raises:
    UserError: the network has no Class Regularisation, or its activations or
      weights are not finite.
  """
  found = {}
  for stage, chosen, row in _rows(params, endpoints, None):
    activations = np.asarray(endpoints[stage][0])
    channels = np.argsort(-row, kind='stable')[:count].tolist()
    alone = [
      saliency_tube(activations[..., [channel]], np.ones(1), shape)
      for channel in channels
    ]
    found[stage] = chosen, list(zip(channels, alone, strict=True))
  return found


def _rows(
  params: Mapping[str, Any], endpoints: Mapping[str, Any], label: int | None
) -> Iterator[tuple[str, int, Float[np.ndarray, ' c']]]:
  """Yields each regularized stage, a class, and the layer's map of it."""
  picked = endpoints['early_predictions']
  if not picked:
    raise UserError(
      'This network has no Class Regularisation. Train one with '
      '--config.model.class_regularization=True, or choose another method.'
    )
  class_weights = params['classifier']['kernel'].T  # k d
  if label is not None and not 0 <= label < len(class_weights):
    raise UserError(
      f'`label` (={label}) must be one of the {len(class_weights)} classes, '
      'counted from 0.'
    )
  for stage, early in picked.items():
    number = stage.removeprefix('stage_')
    projection = params[f'class_regularization_{number}']['kernel']
    chosen = int(early[0]) if label is None else label
    row = class_maps(class_weights[chosen][None], projection)[0]
    yield stage, chosen, np.asarray(row)
