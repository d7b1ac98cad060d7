"""MTNet and X3D: the thesis, 5.3, Fig. 5.2 and Table 6.1b.

An MTNet is an X3D network (C. Feichtenhofer, *X3D*, 2020) whose convolutions
are Multi-Temporal and whose squeeze-and-excitation is Squeeze and Recursion.
One module is both; the table below says which parts each network has.

The thesis is A. Stergiou, *Efficient Modelling Across Time of Human Actions
and Interactions*, 2021.
"""

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.layers import recurrent, sums
from mtnet_jax.layers.activation import relu, scale_and_activate, swish
from mtnet_jax.layers.class_regularization import (
  ClassRegularization,
  check_affection_rates,
)
from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.mtconv import MTConv, branch_features
from mtnet_jax.layers.norm import BatchNorm
from mtnet_jax.layers.pooling import split_pooling
from mtnet_jax.layers.srtg import SqueezeAndRecursion
from mtnet_jax.models import repetition
from mtnet_jax.typing import Array, Float

_STAGES = ((54, 24), (108, 48), (216, 96), (432, 192))
_SMALL = (3, 5, 11, 7)
_LARGE = (5, 10, 25, 15)


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
  mtnet_s=_row(blocks=_SMALL),
  mtnet_m=_row(blocks=_SMALL),
  mtnet_l=_row(blocks=_LARGE),
  x3d_xs=_row(blocks=_SMALL, **_X3D),
  x3d_s=_row(blocks=_SMALL, **_X3D),
  x3d_m=_row(blocks=_SMALL, **_X3D),
  x3d_l=_row(blocks=_LARGE, **_X3D),
)


class MTNet(nn.Module):
  """Multi-Temporal network, or the X3D that it builds on.

  Submodules: `stem_spatial`, `stem_temporal`, `stem_norm`, then
  `stage_{i}_block_{j}` counted from 1, `head`, `head_norm`, `linear`,
  `classifier`; with Class Regularisation `class_regularization_{i}`.

  Attributes:
    num_classes: classes.
    blocks: blocks of each stage.
    stem_features: channels of the stem.
    stages: inner and outer width of each stage's blocks.
    head_features: channels of the head's convolution and of its linear layer.
    local_ratio: MTConv's δ in (0, 1]; 1: plain convolutions.
    pooling: of MTConv's prolonged branch, one of `pooling.POOLINGS`.
    shared_selection: its two inputs keep the same frames.
    temporal_kernels: False gives every kernel a temporal extent of 1. With
      `recurrence=False` and `pooling='avg'` too, a clip of an even number of
      frames and its reversal have the same logits: a control for what is known
      of time. Frame selection breaks ties towards the earlier frame, and so
      tells a clip that begins and ends with stills from its reversal.
    repeat_edges: beyond a clip's ends its frames go on, rather than zeros.
      Zeros make the first and last frames unlike their neighbors whatever they
      show, and the frame selection keeps them. MTNet-XS, whose clips are short,
      repeats; the others have zeros, as X3D has.
    recurrence: Squeeze and Recursion at the end of every block's branch.
    cell: of Squeeze and Recursion.
    gate: whether its cycle-consistency gate is active.
    squeeze_excitation: X3D's own, in every other block of a stage.
    separated_activation: after the channel-separated convolution.
    norm_all_shortcuts: BN on every projected residual connection, not only on
      those that change the width.
    class_regularization: after every stage (the thesis, chapter 6).
    affection_rates: its λ for each stage, in [0, 1].
    dropout: before the classifier, in [0, 1).
    dtype: of the computation; parameters, statistics and logits are float32.
    norm_batch_size: clips that share BN statistics; 0: the whole batch.
    freeze_norm: normalise by the moving statistics in training too.
    input_mean: of the brightness in [0, 1] by channel that `preprocessing`
      normalises clips with, not the network itself.
    input_std: the deviation likewise.
    rematerialize: in training the backward pass computes each block again from
      its input: less memory for about a third more work.
  """

  num_classes: int
  blocks: tuple[int, ...]
  stem_features: int = 24
  stages: tuple[tuple[int, int], ...] = _STAGES
  head_features: tuple[int, int] = (432, 2048)
  local_ratio: float = 7 / 8
  pooling: str = 'softpool+cos'
  shared_selection: bool = True
  temporal_kernels: bool = True
  repeat_edges: bool = False
  recurrence: bool = True
  cell: str = 'gru'
  gate: bool = False
  squeeze_excitation: bool = False
  separated_activation: Callable[[Array], Array] = relu
  norm_all_shortcuts: bool = False
  class_regularization: bool = False
  affection_rates: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6)
  dropout: float = 0.5
  dtype: jax.typing.DTypeLike = jnp.float32
  norm_batch_size: int = 0
  freeze_norm: bool = False
  input_mean: tuple[float, ...] = (0.45,) * 3
  input_std: tuple[float, ...] = (0.225,) * 3
  rematerialize: bool = False

  def __post_init__(self):
    recurrent.find_cell(self.cell)
    split_pooling(self.pooling)
    for widths in self.stages:
      branch_features(min(widths), self.local_ratio)
    if self.class_regularization:
      check_affection_rates(self.affection_rates, len(self.stages))
    super().__post_init__()

  @nn.compact
  def __call__(
    self, clips: Float[Array, 'n t h w c'], *, train: bool = False
  ) -> tuple[Float[Array, 'n k'], dict[str, Any]]:
    """Returns float32 logits, and the activations by name.

    The names: `stem`; `stage_1` … `stage_4`, as the next stage sees them;
    `last`, of which the head pools the mean; `features` (that mean, float32);
    `early_predictions`, the class that Class Regularisation picks for each clip
    by stage; and `gate_open`, the share of open gates by block, without the
    blocks that have no gate or a single frame.

    Args:
      clips: normalised pixels.
      train: batch statistics, dropout and stochastic pooling's draws; needs
        `mutable=['batch_stats']` and rngs `dropout` and `pooling`.
    """
    parts = self._parts(train)
    conv, norm = parts['conv'], parts['norm']
    classifier = Classifier(
      self.head_features[1], self.num_classes, name='classifier'
    )
    x = self._stem(clips, conv, norm)
    shared = train and not self.is_initializing()
    x, endpoints = self._stages(x, parts, classifier, shared)
    x = conv(self.head_features[0], (1, 1, 1), name='head')(x)
    x = norm(name='head_norm')(x, relu)
    features = sums.mean(x, 1)  # n c
    endpoints |= {'last': x, 'features': features}
    return classifier(self._embed(features, train)), endpoints

  def _parts(self, train):
    """What makes layers, with dtype and mode bound."""
    parts = {
      'conv': functools.partial(
        Conv3D, repeat_edges=self.repeat_edges, dtype=self.dtype
      ),
      'norm': functools.partial(
        BatchNorm,
        use_running_average=self.freeze_norm or not train,
        batch_size=self.norm_batch_size,
        dtype=self.dtype,
      ),
    }
    mtconv = functools.partial(
      MTConv,
      local_ratio=self.local_ratio,
      pooling=self.pooling,
      shared_selection=self.shared_selection,
      train=train,
      **parts,
    )
    return {**parts, 'mtconv': mtconv}

  def _stem(self, x, conv, norm):
    """1×3×3, then one 5×1×1 kernel a channel, BN, ReLU."""
    c, frames = self.stem_features, 5 if self.temporal_kernels else 1
    x = conv(c, (1, 3, 3), (1, 2, 2), name='stem_spatial')(x)
    x = conv(c, (frames, 1, 1), groups=c, name='stem_temporal')(x)
    return norm(name='stem_norm')(x, relu)

  def _stages(self, x, parts, classifier, shared):
    """The last stage's activations, and what `__call__` tells of all."""
    endpoints, early, gate_open = {'stem': x}, {}, {}
    period = 2 if self.squeeze_excitation else 1
    for i, widths in enumerate(self.stages, start=1):
      blocks = [
        self._block(*widths, j, parts, f'stage_{i}_block_{j}')
        for j in range(1, self.blocks[i - 1] + 1)
      ]
      x, shares = repetition.run(
        blocks, x, shared, self.rematerialize, called=True, period=period
      )
      gate_open |= shares
      if self.class_regularization:
        regularization = ClassRegularization(
          self.affection_rates[i - 1], name=f'class_regularization_{i}'
        )
        x, early[f'stage_{i}'] = regularization(x, classifier.kernel.T)
      endpoints[f'stage_{i}'] = x
    return x, endpoints | {'early_predictions': early, 'gate_open': gate_open}

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

  def _block(self, inner, outer, j, parts, name):
    """The j-th block of a stage; the first halves height and width."""
    recursion = functools.partial(
      SqueezeAndRecursion, self.cell, gate=self.gate
    )
    return MTBlock(
      inner,
      outer,
      stride=2 if j == 1 else 1,
      kernel_frames=3 if self.temporal_kernels else 1,
      recursion=recursion if self.recurrence else None,
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
    stride: in height and width.
    conv: makes the projection of the residual connection.
    norm: makes its normalisation.
    mtconv: makes Multi-Temporal convolutions.
    kernel_frames: temporal extent of the channel-separated convolution.
    recursion: makes Squeeze and Recursion, or None.
    squeeze_excitation: after the channel-separated convolution.
    separated_activation: after the channel-separated convolution, and after
      squeeze-and-excitation where there is one.
    norm_all_shortcuts: see `MTNet`.
  """

  inner: int
  outer: int
  stride: int
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]
  mtconv: Callable[..., nn.Module]
  kernel_frames: int
  recursion: Callable[..., nn.Module] | None
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
    y = self.mtconv(self.inner, (1, 1, 1), name='expand')(x)
    y = self.mtconv(
      self.inner,
      (self.kernel_frames, 3, 3),
      strides,
      channel_separated=True,
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
    return relu(x + y), share


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
    pooled = sums.mean(x, 1)  # n c
    hidden = nn.Dense(round_width(c * self.ratio), name='reduce')(pooled)
    gate = nn.sigmoid(nn.Dense(c, name='expand')(relu(hidden)))
    gate = gate[:, None, None, None, :]
    return scale_and_activate(x, gate, 0.0, activation, x.dtype)


def round_width(width: float, divisor: int = 8) -> int:
  """Returns the nearest multiple of `divisor`, never below 0.9 `width`."""
  rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * width else rounded
