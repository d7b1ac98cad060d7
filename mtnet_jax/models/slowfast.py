"""SlowFast: one pathway sees few frames, and a thin one sees all frames.

Source: C. Feichtenhofer et al., *SlowFast Networks for Video Recognition*,
2019, section 3 and Table 1. Each pathway is a `video_resnet.Pathway`.
"""

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.models import repetition
from mtnet_jax.models.network import Network, check_clips, check_range
from mtnet_jax.models.units import ConvUnit
from mtnet_jax.models.video_resnet import (
  DEPTHS,
  Pathway,
  apply_stem,
  make_stages,
)
from mtnet_jax.ops import forms, lanes, precision
from mtnet_jax.typing import Array, Float, Int

SLOW_FRAMES = ('linspace', 'nearest')
_THINNER = 8  # the fast pathway, times
_LATERAL_EXPANSION = 2


def slow_frames(
  num_frames: int, ratio: int, rule: str
) -> Int[np.ndarray, ' u']:
  """Returns which frames of a clip the slow pathway sees.

  Args:
    num_frames: the number of frames of the clip, at least `ratio`.
    ratio: α, frames of the clip for each of the slow pathway.
    rule: 'linspace', from the first to the last frame, rounded down; or
      'nearest', each α-th.
  """
  count = num_frames // ratio
  if rule == 'nearest':
    return np.arange(count) * ratio
  return np.linspace(0, num_frames - 1, count).astype(int)


class SlowFast(Network):
  """Two pathways; the fast one's maps go into the slow one before each stage.

  Submodules: in the slow pathway `stem` and `stage_{i}_block_{j}` counted from
  1, in the fast one the same with the prefix `fast_`; `lateral_{i}` after stage
  i, 0 for the stem; `classifier`; with Class Regularisation, which acts on the
  slow pathway, `class_regularization_{i}`.

  It has the attributes of `Network` too.

  Attributes:
    slow: stem and stages of the slow pathway.
    fast: stem and stages of the fast pathway.
    ratio: α, frames of the fast pathway for each of the slow one.
    lateral_frames: frames that a lateral connection's kernel sees.
    slow_frames: the rule for the frames that the slow pathway sees, one of
      `SLOW_FRAMES`.
    lateral_norm: whether BN and ReLU end the lateral connections.
    zero_init_residual: the same as in `VideoResNet`.
  """

  slow: Pathway
  fast: Pathway
  ratio: int
  _: dataclasses.KW_ONLY
  dropout: float = 0.5
  lateral_frames: int = 7
  slow_frames: str = 'linspace'
  lateral_norm: bool = True
  zero_init_residual: bool = False

  def __post_init__(self):
    check_range(
      'slow_frames',
      self.slow_frames,
      self.slow_frames in SLOW_FRAMES,
      f'one of {SLOW_FRAMES}',
    )
    self.check_stages(self.slow.widths)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, clips: Float[Array, '...'], *, train: bool = False
  ) -> tuple[Float[Array, 'n k'], dict[str, Any]]:
    """Returns logits and endpoints; `models.build` says which.

    The endpoints `stem` and `stage_{i}` are what the slow pathway's next stage
    sees, the lateral connection's channels last. `stage_4` and `last` are both
    pathways' maps, the fast one's frames averaged to the slow one's number, and
    `features` their mean.

    Args:
      clips: normalized pixels, `(n, t, h, w, 3)`, with t a multiple of the
        ratio.
      train: whether there are batch statistics and dropout; needs
        `mutable=['batch_stats']` and an rng `dropout`.

    Raises:
      UserError: clips of another shape.
    """
    check_clips(clips)
    t = clips.shape[1]
    if t % self.ratio:
      raise UserError(
        f'The slow pathway sees one of {self.ratio} frames, and a clip of {t} '
        f'cannot be divided so. Set data.num_frames to a multiple of '
        f'{self.ratio}.'
      )
    parts = self.make_parts(train)
    classifier = Classifier(
      self.slow.widths[-1] + self.fast.widths[-1],
      self.num_classes,
      name='classifier',
    )
    unit = functools.partial(ConvUnit, **parts)
    indices = slow_frames(t, self.ratio, self.slow_frames)
    slow = apply_stem(self.slow, unit, clips[:, indices], 'stem')
    fast = apply_stem(self.fast, unit, clips, 'fast_stem')
    # The fast pathway is so thin that its columns lie side by side on a TPU.
    groups = lanes.fitting_groups(self.fast.widths[0], clips.shape[3], 4)
    slow = self._join(slow, fast, unit, 0, groups)
    endpoints, early, scores = {'stem': slow}, {}, {}
    zero = self.zero_init_residual
    stages = zip(
      make_stages(self.slow, parts, zero_init_residual=zero),
      make_stages(self.fast, parts, 'fast_', zero_init_residual=zero),
      strict=True,
    )
    for i, (slow_blocks, fast_blocks) in enumerate(stages, start=1):
      slow = self._run(slow_blocks, self.slow.frames[i - 1], slow, train)
      with forms.side_by_side(groups):
        fast = self._run(fast_blocks, self.fast.frames[i - 1], fast, train)
      if self.class_regularization:
        name, regularization = f'stage_{i}', self.make_regularization(i)
        slow, early[name], scores[name] = regularization(
          slow, classifier.kernel.T
        )
      if i < len(self.slow.blocks):
        slow = self._join(slow, fast, unit, i, groups)
        endpoints[f'stage_{i}'] = slow
    last = jnp.concatenate([slow, self._thin_out(fast)], -1)
    features = jnp.mean(precision.widen(last), axis=(1, 2, 3))  # n c
    endpoints |= {f'stage_{i}': last, 'last': last, 'features': features}
    endpoints |= {'early_predictions': early, 'early_scores': scores}
    endpoints |= {'gate_open': {}}
    dropout = nn.Dropout(self.dropout, deterministic=not train, name='dropout')
    return classifier(dropout(features)), endpoints

  def _join(self, slow, fast, unit, i, groups):
    """Joins the slow pathway's maps with a convolution of the fast one's."""
    more = {}
    if not self.lateral_norm:
      more = {'norm': _identity, 'activation': None}
    lateral = unit(
      _LATERAL_EXPANSION * fast.shape[-1],
      (self.lateral_frames, 1, 1),
      strides=(self.ratio, 1, 1),
      name=f'lateral_{i}',
      **more,
    )
    with forms.side_by_side(groups):
      return jnp.concatenate([slow, lateral(fast)], -1)

  def _thin_out(self, fast):
    """Averages the frames that belong to each frame of the slow pathway."""
    n, t, *rest = fast.shape
    x = fast.reshape(n, t // self.ratio, self.ratio, *rest)
    return jnp.mean(precision.widen(x), axis=2).astype(fast.dtype)

  def _run(self, blocks, frames, x, train):
    """Applies a pathway's stage, in runs of blocks with equal kernels."""
    shared = train and not self.is_initializing()
    few = [j for j, count in enumerate(frames) if count != frames[0]]
    cut = few[0] if few else len(blocks)
    for run in filter(None, (blocks[:cut], blocks[cut:])):
      x, _ = repetition.run(run, x, shared, self.rematerialize)
    return x


def _identity(**_):
  return lambda x, activation: x


def _row(depth, frames, ratio, lateral_frames) -> Mapping[str, Any]:
  slow = Pathway(DEPTHS[depth], frames=frames)
  fast = Pathway(
    DEPTHS[depth],
    width=slow.width // _THINNER,
    stem_kernel=(5, 7, 7),
    frames=((3,), (3,), frames[2] if len(frames[2]) > 1 else (3,), (3,)),
  )
  return types.MappingProxyType(
    {
      'slow': slow,
      'fast': fast,
      'ratio': ratio,
      'lateral_frames': lateral_frames,
    }
  )


_LATE = ((1,), (1,), (3,), (3,))
# As many of the third stage's 23 blocks see three frames as with 50 layers.
_FEW = ((1,), (1,), (3,) * 6 + (1,) * 17, (3,))
# Fields of `SlowFast` by model name.
VARIANTS = types.MappingProxyType(
  {
    'slowfast_r50_4x16': _row(50, _LATE, 8, 5),
    'slowfast_r50_8x8': _row(50, _LATE, 4, 7),
    'slowfast_r101_8x8': _row(101, _LATE, 4, 5),
    'slowfast_r101_16x8': _row(101, _FEW, 4, 5),
  }
)
