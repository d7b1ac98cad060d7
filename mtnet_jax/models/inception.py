"""I3D: Inception-v1 inflated to time.

Source: J. Carreira, A. Zisserman, *Quo Vadis, Action Recognition? A New Model
and the Kinetics Dataset*, 2017, Fig. 3. Padding is TensorFlow's SAME, in which
the authors trained; BN adds 1e-3 to variances.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.models.network import Network, check_clips
from mtnet_jax.models.units import ConvUnit
from mtnet_jax.ops import precision
from mtnet_jax.ops.conv import Triple
from mtnet_jax.ops.max_pool import max_pool
from mtnet_jax.typing import Array, Float

Pool = tuple[Triple, Triple]

_POINT, _CUBE = (1, 1, 1), (3, 3, 3)
# For stages 2 to 4: the window and the strides of the max-pool before the
# stage, and the features of each block's convolutions, see `Mixed`.
_STAGES = (
  (
    ((1, 3, 3), (1, 2, 2)),
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
  ),
  (
    ((3, 3, 3), (2, 2, 2)),
    (
      (192, 96, 208, 16, 48, 64),
      (160, 112, 224, 24, 64, 64),
      (128, 128, 256, 24, 64, 64),
      (112, 144, 288, 32, 64, 64),
      (256, 160, 320, 32, 128, 128),
    ),
  ),
  (
    ((2, 2, 2), (2, 2, 2)),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
  ),
)
_FEATURES = (192, 480, 832, 1024)  # that the stages give


class Pair(nn.Module):
  """The stage before the first `Mixed`: submodules `reduce` and `cubic`.

  Attributes:
    unit: factory of a convolution with BN and ReLU.
  """

  unit: Callable[..., nn.Module]

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n t h w c']
  ) -> tuple[Float[Array, 'n t h w d'], None]:
    """Returns 192 channels, and None: there is no gate."""
    x = self.unit(64, _POINT, name='reduce')(x)
    return self.unit(_FEATURES[0], _CUBE, name='cubic')(x), None


class Mixed(nn.Module):
  """Four branches of convolutions side by side, their channels concatenated.

  Submodules in the order of their channels: `branch_1`, 1×1×1; `branch_2`,
  3×3×3 after `branch_2_reduce`, 1×1×1; `branch_3` is like `branch_2`;
  `branch_4`, 1×1×1 after a max-pool of 3×3×3.

  Attributes:
    features: channels that `branch_1`, `branch_2_reduce`, `branch_2`,
      `branch_3_reduce`, `branch_3`, `branch_4` give.
    unit: factory of a convolution with BN and ReLU.
    pool: window and strides of a max-pool before all of them; None: there is
      none.
  """

  features: tuple[int, int, int, int, int, int]
  unit: Callable[..., nn.Module]
  pool: Pool | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n t h w c']
  ) -> tuple[Float[Array, 'n t2 h2 w2 c2'], None]:
    """Returns the block's output, and None: it has no gate."""
    if self.pool is not None:
      x = max_pool(x, *self.pool, same=True)
    first, *middle, last = self.features
    branches = [self.unit(first, _POINT, name='branch_1')(x)]
    for i, few, many in zip((2, 3), middle[::2], middle[1::2], strict=True):
      reduced = self.unit(few, _POINT, name=f'branch_{i}_reduce')(x)
      branches.append(self.unit(many, _CUBE, name=f'branch_{i}')(reduced))
    greatest = max_pool(x, _CUBE, (1, 1, 1), same=True)
    branches.append(self.unit(last, _POINT, name='branch_4')(greatest))
    return jnp.concatenate(branches, -1), None


class Inception(Network):
  """I3D of Inception-v1.

  Submodules: `stem`; `stage_1_block_1`, a `Pair`; `stage_{i}_block_{j}`, each a
  `Mixed`, 2, 5 and 2 of them; `classifier`; with Class Regularisation
  `class_regularization_{i}`. The authors' names are Conv3d_1a, Conv3d_2b and
  2c, Mixed_3b and 3c, 4b to 4f, 5b and 5c.

  It has the attributes of `Network` too.
  """

  _: dataclasses.KW_ONLY
  dropout: float = 0.5
  norm_epsilon: float = 1e-3

  def __post_init__(self):
    self.check_stages(_FEATURES)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, clips: Float[Array, '...'], *, train: bool = False
  ) -> tuple[Float[Array, 'n k'], dict[str, Any]]:
    """Returns logits and endpoints; `models.build` says which.

    The endpoint `stem` is what its max-pool returns, and `last` is `stage_4`.
    `features` is the mean over all windows of two successive frames of `last`,
    so the first and the last frame count half.

    Args:
      clips: normalized pixels, `(n, t, h, w, 3)`.
      train: whether there are batch statistics and dropout; needs
        `mutable=['batch_stats']` and an rng `dropout`.

    Raises:
      UserError: clips of another shape.
    """
    check_clips(clips)
    parts = self.make_parts(train, same_padding=True)
    unit = functools.partial(ConvUnit, **parts)
    classifier = Classifier(_FEATURES[-1], self.num_classes, name='classifier')
    x = unit(64, (7, 7, 7), strides=(2, 2, 2), name='stem')(clips)
    x = max_pool(x, (1, 3, 3), (1, 2, 2), same=True)
    stages = _make_stages(unit)
    longest = max(map(len, stages))  # no two blocks are alike
    x, endpoints = self.run_stages(
      x, stages, classifier, train, 0, period=longest
    )
    features = _mean(x)
    endpoints |= {'last': x, 'features': features}
    dropout = nn.Dropout(self.dropout, deterministic=not train, name='dropout')
    return classifier(dropout(features)), endpoints


def _make_stages(unit):
  stages = [[Pair(unit, name='stage_1_block_1')]]
  for i, (pool, rows) in enumerate(_STAGES, start=2):
    blocks = [
      Mixed(row, unit, None if j > 1 else pool, name=f'stage_{i}_block_{j}')
      for j, row in enumerate(rows, start=1)
    ]
    stages.append(blocks)
  return stages


def _mean(x):
  """Averages windows of two frames, and all windows, as the authors do."""
  frames = jnp.mean(precision.widen(x), axis=(2, 3))  # n t c
  if frames.shape[1] > 1:
    frames = (frames[:, 1:] + frames[:, :-1]) / 2
  return jnp.mean(frames, axis=1)
