"""3-D residual networks, plain, with SRTG, and with MTConv.

The backbones of the thesis: r3d, r2plus1d and wide_r3d (Table 6.1a). All
convolutions of a block have the same width (expansion 1), as Table 6.1a prints.

Networks of other authors are mc3_18 (D. Tran et al., *A Closer Look at
Spatiotemporal Convolutions*, 2018), the R(2+1)D-34 whose weights of IG65M are
published (D. Ghadiyaram et al., 2019), MMAction2's, and the shallow ones of K.
Hara et al., 2018.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.models.network import (
  MTCONV_OPTIONS,
  RECURSION_OPTIONS,
  Network,
  check_clips,
  check_range,
)
from mtnet_jax.models.residual import ResidualBlock, check_placement
from mtnet_jax.models.units import (
  ConvUnit,
  FactorizedUnit,
  PaddedShortcut,
  factorized_features,
)
from mtnet_jax.ops import forms, lanes, precision
from mtnet_jax.ops.conv import Triple
from mtnet_jax.ops.max_pool import max_pool
from mtnet_jax.typing import Array, Bool, Float

# Blocks a stage by depth; from 50 layers on they are Bottlenecks.
_DEPTHS = types.MappingProxyType(
  {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
  }
)


def _variants() -> Mapping[str, Mapping[str, Any]]:
  rows = {}
  for convolution in ('r3d', 'r2plus1d'):
    for depth in _DEPTHS:
      rows[f'{convolution}_{depth}'] = {
        'depth': depth,
        'convolution': convolution,
      }
  rows['wide_r3d_50'] = {'depth': 50, 'convolution': 'r3d', 'width': 2}
  for name, row in list(rows.items()):
    rows[f'srtg_{name}'] = {**row, 'placement': 'final'}
  rows['mt_r3d_50'] = {'depth': 50, 'convolution': 'mt_r3d'}
  rows['mc3_18'] = {'depth': 18, 'convolution': 'mc3', 'stem_pool': False}
  for depth in (18, 34):
    rows[f'hara_r3d_{depth}'] = {
      'depth': depth,
      'convolution': 'r3d',
      'stem_frames': 7,
    }
  others = {'depth': 34, 'convolution': 'r2plus1d', 'norm_epsilon': 1e-3}
  rows['r2plus1d_34_ig65m'] = {**others, 'factors': 'own', 'stem_pool': False}
  rows['r2plus1d_34_mmaction2'] = {
    **others,
    'factors': 'all',
    'pools_frames': False,
  }
  return types.MappingProxyType(
    {name: types.MappingProxyType(row) for name, row in rows.items()}
  )


# Fields of `ResNet3D` by model name.
VARIANTS = _variants()


class ResNet3D(Network):
  """A 3-D residual network.

  Submodules: `stem`, `stage_{i}_block_{j}` counted from 1, `classifier`; with
  Class Regularisation `class_regularization_{i}`.

  It has the attributes of `Network` too.

  Attributes:
    depth: 18 or 34 (Simple blocks), 50, 101 or 152 (Bottlenecks).
    convolution: kind of the kernels that see time and space: `'r3d'` 3×3×3,
      `'r2plus1d'` 1×3×3 then 3×1×1, `'mt_r3d'` a dense 3×3×3 MTConv, `'mc3'`
      3×3×3 in the first stage and 1×3×3 in the others, which keep all frames.
    width: factor on the Bottlenecks' inner width.
    factors: which channels tell the width between the halves of a (2+1)D
      convolution: `'block'`, those that enter and leave the block; `'own'`, the
      convolution's; `'all'`, these, of the stem and of (2+1)D projections too.
    pools_frames: whether the stem's max-pool sees three frames and takes every
      other one.
    placement: place where SRTG stands in every block, one of
      `residual.SIMPLE_PLACEMENTS` or `BOTTLENECK_PLACEMENTS`; None for nowhere.
    stage_features: channels of each stage; the stem has the first's.
    stem_frames: temporal extent of the stem's kernel.
    stem_pool: whether a max-pool of stride 2 follows the stem.
    project_shortcuts: whether a convolution fits residual connections to what
      they are added to; else they skip positions, and zeros are new channels.
  """

  depth: int
  convolution: str
  width: int = 1
  factors: str = 'block'
  pools_frames: bool = True
  _: dataclasses.KW_ONLY
  placement: str | None = None
  stage_features: tuple[int, ...] = (64, 128, 256, 512)
  stem_frames: int = 3
  stem_pool: bool = True
  project_shortcuts: bool = True

  def __post_init__(self):
    assert self.depth in _DEPTHS, self.depth
    kinds = ('r3d', 'r2plus1d', 'mt_r3d', 'mc3')
    assert self.convolution in kinds, self.convolution
    self._check_stem_and_stages()
    check_placement(self.placement, self.depth >= 50)
    super().__post_init__()

  @nn.nowrap
  def _check_stem_and_stages(self):
    frames, widths = self.stem_frames, self.stage_features
    check_range('stem_frames', frames, frames >= 1, 'at least 1')
    stages = len(_DEPTHS[self.depth])
    check_range(
      'stage_features',
      widths,
      len(widths) == stages and all(type(w) is int and w >= 1 for w in widths),
      f'the channels of {stages} stages, (64, 128, 256, 512) for instance',
    )
    self.check_stages(widths)

  @nn.compact
  def __call__(
    self,
    clips: Float[Array, '...'],
    *,
    train: bool = False,
    gates_decide: Bool[Array, ''] | bool = True,
  ) -> tuple[Float[Array, 'n k'], dict[str, Any]]:
    """Returns logits and endpoints; `models.build` says which.

    The endpoint `stem` is what its max-pool returns, `last` is `stage_4`, and
    `features` its mean.

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
    units = self.make_units(train, clips, gates_decide)
    classifier = Classifier(
      self.stage_features[-1], self.num_classes, name='classifier'
    )
    features = self.stage_features[0]
    stem = units.stem(
      features, (self.stem_frames, 7, 7), strides=(1, 2, 2), name='stem'
    )
    width = clips.shape[3]
    with forms.side_by_side(lanes.fitting_groups(features, width, 2)):
      x = stem(clips)
      # The stem has as many groups as the max-pool's result has columns: with
      # fewer, a TPU copies more.
      if self.stem_pool:
        frames = (3, 2) if self.pools_frames else (1, 1)
        x = max_pool(x, (frames[0], 3, 3), (frames[1], 2, 2))
    columns = 4 if self.stem_pool else 2
    groups = lanes.fitting_groups(features, width, columns)
    x, endpoints = self.run_stages(
      x, self._make_stages(units), classifier, train, groups
    )
    features = jnp.mean(precision.widen(x), axis=(1, 2, 3))  # n c
    endpoints |= {'last': x, 'features': features}
    dropout = nn.Dropout(self.dropout, deterministic=not train, name='dropout')
    return classifier(dropout(features)), endpoints

  def _make_stages(self, units):
    """The blocks of each stage; those after the first stage halve the size."""
    in_features = self.stage_features[0]
    counts = _DEPTHS[self.depth]
    stages = []
    for i, features in enumerate(self.stage_features, start=1):
      blocks = []
      for j in range(1, counts[i - 1] + 1):
        strides = (2, 2, 2) if i > 1 and j == 1 else (1, 1, 1)
        kernel_size = (3, 3, 3)
        if self.convolution == 'mc3' and i > 1:
          strides, kernel_size = (1, *strides[1:]), (1, 3, 3)
        block = self.make_block(
          units,
          in_features,
          features,
          strides,
          kernel_size,
          name=f'stage_{i}_block_{j}',
        )
        blocks.append(block)
        in_features = features
      stages.append(blocks)
    return stages

  @nn.nowrap
  def make_units(
    self,
    train: bool,
    clips: Float[Array, 'n t h w 3'] | None = None,
    gates_decide: Bool[Array, ''] | bool = True,
  ) -> 'Units':
    """Returns the factories, with dtype and mode bound."""
    parts = self.make_parts(train)
    plain = stem = main = functools.partial(ConvUnit, **parts)
    if self.convolution == 'r2plus1d':
      main = functools.partial(FactorizedUnit, **parts)
      own = factorized_features(3, self.stage_features[0], 7 * 7)
      mid_features = own if self.factors == 'all' else 45
      stem = functools.partial(main, mid_features=mid_features)
    elif self.convolution == 'mt_r3d':
      main = self.make_mtconv(train, parts, clips)
    return Units(plain, stem, main, self.make_recursion(gates_decide))

  @nn.nowrap
  def make_block(
    self,
    units: 'Units',
    in_features: int,
    features: int,
    strides: Triple,
    kernel_size: Triple = (3, 3, 3),
    **kw,
  ) -> ResidualBlock:
    """Returns a block of this network; `kw` may name it."""
    return ResidualBlock(
      self._convolutions(units, in_features, features, strides, kernel_size),
      self._shortcut(units, in_features, features, strides),
      self.placement,
      units.recursion,
      **kw,
    )

  def _shortcut(self, units, in_features, features, strides):
    if not self.project_shortcuts:
      return functools.partial(PaddedShortcut, features, strides)
    unit = units.plain
    if self.factors == 'all':
      mid_features = factorized_features(in_features, features, 1)
      unit = functools.partial(units.main, mid_features=mid_features)
    return functools.partial(
      unit, features, (1, 1, 1), strides=strides, activation=None
    )

  def _convolutions(self, units, in_features, features, strides, kernel_size):
    """Returns the block's units in order, each with the placement after it."""
    main = second = functools.partial(units.main, kernel_size=kernel_size)
    if self.convolution == 'r2plus1d':
      main, second = (
        functools.partial(main, mid_features=factorized_features(c, features))
        for c in (
          in_features,
          in_features if self.factors == 'block' else features,
        )
      )
    if self.depth < 50:
      return (
        ('conv_1', functools.partial(main, features, strides=strides), 'mid'),
        ('conv_2', functools.partial(second, features, activation=None), None),
      )
    pointwise = functools.partial(units.plain, kernel_size=(1, 1, 1))
    inner = features * self.width
    return (
      ('conv_1', functools.partial(pointwise, inner), 'top'),
      ('conv_2', functools.partial(main, inner, strides=strides), 'mid'),
      (
        'conv_3',
        functools.partial(pointwise, features, activation=None),
        'end',
      ),
    )


def unread_options(row: Mapping[str, Any]) -> frozenset[str]:
  """Returns the options of `ResNet3D` that a row's network does not read.

  Args:
    row: one of the rows of `VARIANTS`.
  """
  unread = set()
  if 'placement' not in row:
    unread |= {'placement', *RECURSION_OPTIONS}
  if row['convolution'] != 'mt_r3d':
    unread |= MTCONV_OPTIONS
  return frozenset(unread)


class Units(NamedTuple):
  """Factories of convolution, BN and activation in one module.

  Called with `features`, `kernel_size`, `strides`, `activation`, `name`.

  Attributes:
    plain: factory of units with one convolution.
    stem: factory of the stem's unit.
    main: factory of units that see time and space; it takes `mid_features` too
      where they are (2+1)D.
    recursion: factory of SRTG.
  """

  plain: Callable[..., nn.Module]
  stem: Callable[..., nn.Module]
  main: Callable[..., nn.Module]
  recursion: Callable[..., nn.Module]
