"""MTNet and X3D (thesis, 5.3, Fig. 5.2 and Table 6.1b).

An MTNet is an X3D network (C. Feichtenhofer, *X3D*, 2020) whose convolutions
are Multi-Temporal and whose squeeze-and-excitation is Squeeze and Recursion.
One module implements both; the table below lists the parts of each network.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.models.network import Network, check_clips, check_range
from mtnet_jax.ops import forms, lanes
from mtnet_jax.ops.activation import (
  add_and_rectify,
  relu,
  scale_and_activate,
  swish,
)
from mtnet_jax.ops.fork import fork
from mtnet_jax.ops.mean import mean
from mtnet_jax.typing import Array, Bool, Float

_WIDTHS = ((54, 24), (108, 48), (216, 96), (432, 192))
# Blocks of each stage.
_MEDIUM_DEPTH = (3, 5, 11, 7)
_LARGE_DEPTH = (5, 10, 25, 15)


def _row(**fields) -> Mapping[str, Any]:
  return types.MappingProxyType(fields)


_X3D = _row(
  local_ratio=1.0,
  recurrence=False,
  squeeze_excitation=True,
  separated_activation=swish,
)

# Fields of `MTNet` by model name.
VARIANTS = _row(
  mtnet_xs=_row(
    blocks=(1, 1, 1, 1),
    stem_features=16,
    stages=((32, 16), (48, 24), (96, 48), (128, 64)),
    head_features=(96, 128),
    repeat_edges=True,
  ),
  mtnet_s=_row(blocks=_MEDIUM_DEPTH),
  mtnet_m=_row(blocks=_MEDIUM_DEPTH),
  # The reading that has MTNet-M's published parameters: see
  # docs/thesis_readings.md.
  mtnet_m_published=_row(
    blocks=_MEDIUM_DEPTH,
    branch_inputs='split',
    separated_groups=2,
    recurrent_layers=1,
  ),
  mtnet_l=_row(blocks=_LARGE_DEPTH),
  x3d_xs=_row(blocks=_MEDIUM_DEPTH, **_X3D),
  x3d_s=_row(blocks=_MEDIUM_DEPTH, **_X3D),
  x3d_m=_row(blocks=_MEDIUM_DEPTH, **_X3D),
  x3d_l=_row(blocks=_LARGE_DEPTH, **_X3D),
  x3d_xl=_row(
    blocks=_LARGE_DEPTH,
    stem_features=32,
    stages=((72, 32), (162, 72), (306, 136), (630, 280)),
    head_features=(630, 2048),
    **_X3D,
  ),
)


class MTNet(Network):
  """Multi-Temporal network, or the X3D that it builds on.

  Submodules: `stem_spatial`, `stem_temporal`, `stem_norm`, then
  `stage_{i}_block_{j}` counted from 1, `head`, `head_norm`, `linear`,
  `classifier`; with Class Regularisation `class_regularization_{i}`.

  It has the attributes of `Network` too.

  Attributes:
    blocks: number of blocks of each stage.
    stem_features: channels of the stem.
    stages: inner and outer width of each stage's blocks.
    head_features: channels of the head's convolution and of its linear layer.
    squeeze_excitation: whether every other block of a stage has X3D's own.
    separated_activation: activation after the channel-separated convolution.
    temporal_kernels: whether kernels see several frames; if not, every kernel
      has a temporal extent of 1. If `recurrence=False` and `pooling='avg'` too,
      a clip of an even number of frames and its reversal have the same logits:
      a control for what is known of time. Frame selection breaks ties towards
      the earlier frame, and so tells a clip that begins and ends with stills
      from its reversal.
    repeat_edges: whether a clip's frames go on beyond its ends, rather than
      zeros. Zeros make the first and last frames unlike their neighbors
      whatever they show, and the frame selection keeps them. MTNet-XS, whose
      clips are short, repeats; the others have zeros, as X3D has.
    recurrence: whether Squeeze and Recursion ends every block's branch.
    separated_groups: the number of groups of the channels that each branch of a
      block's middle convolution reads; 0: each channel is one, and the
      convolution is channel-separated.
    norm_all_shortcuts: whether BN follows every projected residual connection,
      not only those that change the width.
  """

  blocks: tuple[int, ...]
  stem_features: int = 24
  stages: tuple[tuple[int, int], ...] = _WIDTHS
  head_features: tuple[int, int] = (432, 2048)
  separated_activation: Callable[[Array], Array] = relu
  _: dataclasses.KW_ONLY
  dropout: float = 0.5
  temporal_kernels: bool = True
  repeat_edges: bool = False
  recurrence: bool = True
  squeeze_excitation: bool = False
  cell: str = 'gru'
  gate: bool = False
  separated_groups: int = 0
  norm_all_shortcuts: bool = False

  def __post_init__(self):
    groups = self.separated_groups
    check_range('separated_groups', groups, groups >= 0, 'at least 0')
    self.check_stages([min(widths) for widths in self.stages])
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    clips: Float[Array, '...'],
    *,
    train: bool = False,
    gates_decide: Bool[Array, ''] | bool = True,
  ) -> tuple[Float[Array, 'n k'], dict[str, Any]]:
    """Returns logits and endpoints; `models.build` says which.

    The endpoint `last` is what the head computes, and `features` its mean.

    Args:
      clips: normalized pixels, `(n, t, h, w, 3)`.
      train: whether there are batch statistics, dropout and stochastic
        pooling's draws; needs `mutable=['batch_stats']` and rngs `dropout` and
        `pooling`.
      gates_decide: whether the decisions of SRTG's gates count.

    Raises:
      UserError: clips of another shape.
    """
    check_clips(clips)
    parts = self.make_parts(train, repeat_edges=self.repeat_edges)
    conv, norm = parts['conv'], parts['norm']
    parts['mtconv'] = self.make_mtconv(train, parts, clips)
    classifier = Classifier(
      self.head_features[1], self.num_classes, name='classifier'
    )
    groups = self._fitting_groups(clips.shape[3])
    with forms.side_by_side(groups):
      x = self._stem(clips, conv, norm)
    x, endpoints = self.run_stages(
      x,
      self._make_stages(parts, self.make_recursion(gates_decide)),
      classifier,
      train,
      groups,
      keep_calls=True,
      period=2 if self.squeeze_excitation else 1,
    )
    x = conv(self.head_features[0], (1, 1, 1), name='head')(x)
    x = norm(name='head_norm')(x, relu)
    features = mean(x, 1)  # n c
    endpoints |= {'last': x, 'features': features}
    return classifier(self._embed(features, train)), endpoints

  def _fitting_groups(self, width):
    """Returns into how many groups a TPU cuts rows; see `lanes`.

    The channel-separated kernels, which become dense, then fit into the lanes;
    or the blocks' outputs do, where those kernels do not cost the most.
    """
    inner, outer = self.stages[0]
    separated_alone = self.local_ratio == 1 and not self.recurrence
    # The stem and the first stage halve the columns.
    return lanes.fitting_groups(inner if separated_alone else outer, width, 4)

  def _stem(self, x, conv, norm):
    """1×3×3, then one 5×1×1 kernel a channel, BN, ReLU."""
    c, frames = self.stem_features, 5 if self.temporal_kernels else 1
    x = conv(c, (1, 3, 3), (1, 2, 2), name='stem_spatial')(x)
    x = conv(c, (frames, 1, 1), groups=c, name='stem_temporal')(x)
    return norm(name='stem_norm')(x, relu)

  def _embed(self, x, train):
    """A linear layer without bias, ReLU, dropout; float32."""
    linear = nn.Dense(
      self.head_features[1],
      use_bias=False,
      kernel_init=nn.initializers.he_normal(),
      name='linear',
    )
    dropout = nn.Dropout(self.dropout, deterministic=not train, name='dropout')
    return dropout(relu(linear(x)))

  def _make_stages(self, parts, recursion):
    """The blocks of each stage."""
    return [
      [
        self._make_block(
          inner, outer, j, parts, recursion, f'stage_{i}_block_{j}'
        )
        for j in range(1, self.blocks[i - 1] + 1)
      ]
      for i, (inner, outer) in enumerate(self.stages, start=1)
    ]

  def _make_block(self, inner, outer, j, parts, recursion, name):
    """The j-th block of a stage; the first halves height and width."""
    return MTBlock(
      inner,
      outer,
      stride=2 if j == 1 else 1,
      kernel_frames=3 if self.temporal_kernels else 1,
      recursion=recursion if self.recurrence else None,
      groups=self.separated_groups,
      squeeze_excitation=self.squeeze_excitation and j % 2 == 1,
      separated_activation=self.separated_activation,
      norm_all_shortcuts=self.norm_all_shortcuts,
      **parts,
      name=name,
    )


class MTBlock(nn.Module):
  """Expand, convolve each channel, project, recur; add the input; ReLU.

  Submodules: the MTConvs `expand`, `separated` and `project`; `recursion` or
  `squeeze_excitation`; `shortcut` where the shape changes, `shortcut_norm`.

  Attributes:
    inner: channels of the two first convolutions.
    outer: channels of the block's output.
    stride: distance between windows in height and width.
    conv: factory of the residual connection's projection.
    norm: factory of the projection's normalization.
    mtconv: factory of Multi-Temporal convolutions.
    kernel_frames: temporal extent of the channel-separated convolution.
    recursion: factory of Squeeze and Recursion; None: there is none.
    groups: the groups of the middle convolution, see `MTNet.separated_groups`.
    squeeze_excitation: whether squeeze-and-excitation follows the
      channel-separated convolution.
    separated_activation: function after the channel-separated convolution, and
      after squeeze-and-excitation where there is one.
    norm_all_shortcuts: whether every projection has a normalization, see
      `MTNet`.
  """

  inner: int
  outer: int
  stride: int
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]
  mtconv: Callable[..., nn.Module]
  kernel_frames: int
  recursion: Callable[..., nn.Module] | None
  groups: int
  squeeze_excitation: bool
  separated_activation: Callable[[Array], Array]
  norm_all_shortcuts: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n t h w c']
  ) -> tuple[Float[Array, 'n t h2 w2 c2'], Float[Array, ''] | None]:
    """Returns the block's output, and the share of open gates or None."""
    strides = (1, self.stride, self.stride)
    excite = self.squeeze_excitation
    x, y = fork(x)
    # The concatenation serves those who read intermediates. A TPU's program
    # leaves it out, unless groups cut the array elsewhere.
    joined = not forms.traces_for_tpu() or self.groups > 0
    y = self.mtconv(self.inner, (1, 1, 1), joined=joined, name='expand')(y)
    y = self.mtconv(
      self.inner,
      (self.kernel_frames, 3, 3),
      strides,
      channel_separated=True,
      groups=self.groups,
      activation=None if excite else self.separated_activation,
      name='separated',
    )(y)
    if excite:
      excitation = SqueezeExcitation(name='squeeze_excitation')
      y = excitation(y, self.separated_activation)
    y = self.mtconv(self.outer, (1, 1, 1), activation=None, name='project')(y)
    share = None
    if self.recursion is not None:
      y, share = self.recursion(name='recursion')(y)
    if x.shape != y.shape:
      widens = x.shape[-1] != self.outer
      x = self.conv(self.outer, (1, 1, 1), strides, name='shortcut')(x)
      if widens or self.norm_all_shortcuts:
        x = self.norm(name='shortcut_norm')(x)
    return add_and_rectify(x, y), share


class SqueezeExcitation(nn.Module):
  """Scales channels by a gate computed from their means, as X3D does.

  Attributes:
    ratio: hidden width over the input's, rounded to a multiple of 8.
  """

  ratio: float = 1 / 16

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'n t h w c'],
    activation: Callable[[Array], Array] | None = None,
  ) -> Float[Array, 'n t h w c']:
    """Returns x scaled and activated, in its dtype; the gate is float32."""
    c = x.shape[-1]
    x, y = fork(x)
    pooled = mean(y, 1)  # n c
    hidden = nn.Dense(round_width(c * self.ratio), name='reduce')(pooled)
    gate = nn.sigmoid(nn.Dense(c, name='expand')(relu(hidden)))
    gate = gate[:, None, None, None, :]
    return scale_and_activate(x, gate, None, activation, x.dtype)


def round_width(width: float, divisor: int = 8) -> int:
  """Returns the nearest multiple of `divisor`, never below 0.9 `width`."""
  rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * width else rounded
