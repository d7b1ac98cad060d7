"""Weighs each channel of the last activations for a class."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtnet_jax.errors import UserError
from mtnet_jax.typing import Array, Float


def class_row(
  params: Mapping[str, Any], features: Float[Array, ' c'], label: int
) -> Float[np.ndarray, ' c']:
  """Returns a class's row over the channels of the last activations.

  The row times the features plus the class's bias is its logit. It is a column
  of the classifier's kernel. Where another linear layer and a ReLU precede the
  classifier (MTNet, X3D), it is folded back through them: hidden units that are
  0 for this clip pass nothing on.

  Args:
    params: the network's parameters.
    features: `endpoints['features']` of one clip, the means of the last
      activations.
    label: the class, 0 to k - 1.

  Raises:
    UserError: no such class.
  """
  kernel = np.asarray(params['classifier']['kernel'])  # d k
  if not 0 <= label < kernel.shape[1]:
    raise UserError(
      f'`label` (={label}) must be one of the {kernel.shape[1]} classes, '
      'counted from 0.'
    )
  row = kernel[:, label]
  if 'linear' not in params:
    return row
  linear = np.asarray(params['linear']['kernel'])  # c d
  return linear @ np.where(np.asarray(features) @ linear > 0, row, 0)
