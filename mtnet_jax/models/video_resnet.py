"""Bottleneck ResNets for video: C2D, Slow-only, I3D, TSM, CSN, 3-D ResNeXts.

All networks share one backbone. Their rows say how many frames each block's
first convolution sees, what replaces its second convolution, where time is
halved, and what else is done between neighboring frames. Convolutions have
symmetric padding and no bias; BN follows each.

Sources: C. Feichtenhofer et al., *SlowFast Networks*, 2019, Table 1
(Slow-only); X. Wang et al., *Non-local Neural Networks*, 2018, Table 1 (C2D,
and I3D as a ResNet); J. Lin et al., *TSM*, 2019; Z. Liu et al., *TAM*, 2021
(TANet); D. Tran et al., *Video Classification with Channel-Separated
Convolutional Networks*, 2019 (CSN); K. Hara et al., *Can Spatiotemporal 3D CNNs
Retrace the History of 2D CNNs and ImageNet?*, 2018 (3-D ResNets and ResNeXts of
cubic kernels). PyTorchVideo's R(2+1)D-50 is the library's own.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.layers.mtconv import MTConv
from mtnet_jax.layers.temporal_adaptive import TemporalAdaptive
from mtnet_jax.models.network import Network, check_clips, check_range
from mtnet_jax.models.residual import ResidualBlock, check_placement
from mtnet_jax.models.units import ConvUnit
from mtnet_jax.ops import forms, lanes, precision
from mtnet_jax.ops.conv import Triple
from mtnet_jax.ops.max_pool import max_pool
from mtnet_jax.typing import Array, Bool, Float

# Blocks a stage by depth.
DEPTHS = types.MappingProxyType(
  {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
)


class Part(NamedTuple):
  """A convolution between a block's first and last one.

  Attributes:
    name: the name of the convolution's module.
    kernel_size: the kernel's frames, rows, columns. A block's stride is taken
      where the kernel sees several of them.
    groups: the number of groups of channels that see only themselves; 0: each
      channel is one.
    rectified: whether ReLU follows BN.
    branches: 2 of a Multi-Temporal convolution, else 1.
  """

  name: str
  kernel_size: Triple
  groups: int = 1
  rectified: bool = True
  branches: int = 1


# What can stand between a block's first and last convolution.
MIDDLES = types.MappingProxyType(
  {
    'spatial': (Part('conv_2', (1, 3, 3)),),
    # CSN: "interaction-reduced" and "interaction-preserved".
    'ir': (Part('conv_2', (3, 3, 3), groups=0),),
    'ip': (
      Part('mix', (1, 1, 1), rectified=False),
      Part('conv_2', (3, 3, 3), groups=0),
    ),
    'cubic': (Part('conv_2', (3, 3, 3)),),
    'grouped': (Part('conv_2', (3, 3, 3), groups=32),),
    # Time first, unlike the thesis's (2+1)D.
    'factorized': (Part('temporal', (3, 1, 1)), Part('conv_2', (1, 3, 3))),
    'mtconv': (Part('conv_2', (3, 3, 3), branches=2),),
  }
)


@dataclasses.dataclass(frozen=True)
class Pathway:
  """A stem and four stages of blocks, as numbers.

  Attributes:
    blocks: the number of blocks of each stage.
    width: channels of the stem; the first stage's blocks give four times as
      many, and each stage twice what the one before gives.
    inner_factor: channels of the first stage's convolutions but the last, as a
      multiple of `width`; of the others', likewise.
    stem_kernel: size of the stem's kernel in frames, rows, columns.
    stem_strides: the strides of the stem's convolution.
    stem_pool: frames, rows and columns of its max-pool's windows, and their
      strides; None: there is none.
    pool_pairs: whether the second stage begins with the greatest of each two
      frames.
    frames: frames that the first convolutions of a stage's blocks see: as many
      as blocks, or fewer, which then repeat.
    middle: the kind of convolution between a block's first and last one, one of
      `MIDDLES`.
    temporal_strides: strides over frames of each stage's first block.
    spatial_strides: the strides of the stages over rows and columns.
    shift_every: the distance between the blocks of a stage, from the first,
      that shift their branch's input in time; 0: none does.
    adaptive_frames: frames of the clips that temporal adaptive modules, after
      each block's first convolution, are made for; 0: there are none.
  """

  blocks: tuple[int, ...]
  width: int = 64
  inner_factor: int = 1
  stem_kernel: Triple = (1, 7, 7)
  stem_strides: Triple = (1, 2, 2)
  stem_pool: tuple[Triple, Triple] | None = ((1, 3, 3), (1, 2, 2))
  pool_pairs: bool = False
  frames: tuple[tuple[int, ...], ...] = ((1,), (1,), (1,), (1,))
  middle: str = 'spatial'
  temporal_strides: tuple[int, ...] = (1, 1, 1, 1)
  spatial_strides: tuple[int, ...] = (1, 2, 2, 2)
  shift_every: int = 0
  adaptive_frames: int = 0

  @property
  def widths(self) -> tuple[int, ...]:
    """The output channels of the stages."""
    return tuple(4 * self.width * 2**i for i in range(len(self.blocks)))

  @property
  def period(self) -> int:
    """The distance from one block of a stage to the next equal one, from 1."""
    return max(2 if self.shift_every == 2 else 1, *map(len, self.frames))


def apply_stem(
  pathway: Pathway,
  unit: Callable[..., nn.Module],
  x: Float[Array, 'n t h w 3'],
  name: str,
) -> Float[Array, 'n u v x c']:
  """Applies a pathway's stem to clips, its max-pool included.

  Args:
    pathway: the pathway.
    unit: factory of a convolution with BN and ReLU.
    x: the clips.
    name: the unit's name.
  """
  stem = unit(
    pathway.width, pathway.stem_kernel, strides=pathway.stem_strides, name=name
  )
  with forms.side_by_side(lanes.fitting_groups(pathway.width, x.shape[3], 2)):
    x = stem(x)
    return max_pool(x, *pathway.stem_pool) if pathway.stem_pool else x


def make_stages(
  pathway: Pathway,
  parts: Mapping[str, Callable[..., nn.Module]],
  prefix: str = '',
  mtconv: Callable[..., nn.Module] = MTConv,
  zero_init_residual: bool = False,
  **srtg,
) -> list[list[ResidualBlock]]:
  """Returns the blocks of each stage.

  Args:
    pathway: the pathway.
    parts: factories of convolutions and normalizations, from
      `Network.make_parts`.
    prefix: the prefix of the blocks' names.
    mtconv: factory of Multi-Temporal convolutions.
    zero_init_residual: whether the last BN of each block starts with a scale of
      0, so that the block is its shortcut.
    **srtg: `placement` and `srtg` of the blocks.
  """
  return [
    [
      _make_block(pathway, parts, i, j, mtconv, zero_init_residual)(
        name=f'{prefix}stage_{i + 1}_block_{j + 1}', **srtg
      )
      for j in range(count)
    ]
    for i, count in enumerate(pathway.blocks)
  ]


def _make_block(pathway, parts, i, j, mtconv, zero_init_residual):
  """Makes block j of stage i, both from 0; a stage's first block strides."""
  unit = functools.partial(ConvUnit, **parts)
  inner = pathway.inner_factor * pathway.width * 2**i
  frames = pathway.frames[i]
  space = pathway.spatial_strides[i]
  strides = (1, 1, 1) if j else (pathway.temporal_strides[i], space, space)
  first = functools.partial(unit, inner, (frames[j % len(frames)], 1, 1))
  units = [('conv_1', first)]
  if pathway.adaptive_frames:
    units.append(('adaptive', functools.partial(TemporalAdaptive, **parts)))
  middle = [
    (part.name, _make_part(part, inner, strides, parts, mtconv))
    for part in MIDDLES[pathway.middle]
  ]
  last = {
    'features': pathway.widths[i],
    'kernel_size': (1, 1, 1),
    'activation': None,
  }
  end = functools.partial(unit, **last)
  if zero_init_residual:
    zeros = nn.initializers.zeros
    end = functools.partial(
      end, norm=functools.partial(parts['norm'], scale_init=zeros)
    )
  return functools.partial(
    ResidualBlock,
    (
      *((name, make, None) for name, make in units[:-1]),
      (*units[-1], 'top'),
      *((name, make, None) for name, make in middle[:-1]),
      (*middle[-1], 'mid'),
      ('conv_3', end, 'end'),
    ),
    functools.partial(unit, **last, strides=strides),
    pool_pairs=pathway.pool_pairs and (i, j) == (1, 0),
    shifted=bool(pathway.shift_every) and j % pathway.shift_every == 0,
  )


def _make_part(part, features, strides, parts, mtconv):
  sees = zip(part.kernel_size, strides, strict=True)
  strides = tuple(stride if size > 1 else 1 for size, stride in sees)
  if part.branches > 1:
    return functools.partial(mtconv, features, part.kernel_size, strides)
  more = {} if part.rectified else {'activation': None}
  conv = functools.partial(parts['conv'], groups=part.groups or features)
  return functools.partial(
    ConvUnit, features, part.kernel_size, conv, parts['norm'], strides, **more
  )


class VideoResNet(Network):
  """A bottleneck ResNet of one pathway.

  Submodules: `stem`, `stage_{i}_block_{j}` counted from 1, `classifier`; with
  Class Regularisation `class_regularization_{i}`.

  It has the attributes of `Network` too.

  Attributes:
    pathway: the network's stem and stages.
    middle: the kind of convolution between a block's first and last one, one of
      `MIDDLES`, instead of the pathway's own.
    placement: place where SRTG stands in every block, one of
      `residual.BOTTLENECK_PLACEMENTS`; None for nowhere.
    zero_init_residual: whether the last BN of each block starts with a scale of
      0, as networks that are trained from nothing want it (P. Goyal et al.,
      *Accurate, Large Minibatch SGD*, 2017, section 5.1).
  """

  pathway: Pathway
  _: dataclasses.KW_ONLY
  dropout: float = 0.5
  middle: str | None = None
  placement: str | None = None
  zero_init_residual: bool = False

  def __post_init__(self):
    if self.middle is not None:
      known = self.middle in MIDDLES
      check_range('middle', self.middle, known, f'one of {tuple(MIDDLES)}')
    check_placement(self.placement, bottleneck=True)
    self.check_stages(self.pathway.widths)
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

    The endpoint `stem` is what its max-pool returns, `last` is `stage_4`, and
    `features` its mean.

    Args:
      clips: normalized pixels, `(n, t, h, w, 3)`.
      train: whether there are batch statistics and dropout; needs
        `mutable=['batch_stats']` and an rng `dropout`.
      gates_decide: whether the decisions of SRTG's gates count.

    Raises:
      UserError: clips of another shape, or of frames that the weights do not
        take.
    """
    check_clips(clips)
    pathway = self.pathway
    if self.middle is not None:
      pathway = dataclasses.replace(pathway, middle=self.middle)
    known = pathway.adaptive_frames
    if known and clips.shape[1] != known:
      raise UserError(
        f'This network takes clips of {known} frames only, for which its '
        f'layers are made, not of {clips.shape[1]}: set data.num_frames='
        f'{known} and no multigrid, or take the network for another number.'
      )
    parts = self.make_parts(train)
    classifier = Classifier(
      pathway.widths[-1], self.num_classes, name='classifier'
    )
    x = apply_stem(pathway, functools.partial(ConvUnit, **parts), clips, 'stem')
    stages = make_stages(
      pathway,
      parts,
      mtconv=self.make_mtconv(train, parts, clips),
      zero_init_residual=self.zero_init_residual,
      placement=self.placement,
      srtg=self.make_recursion(gates_decide),
    )
    x, endpoints = self.run_stages(
      x, stages, classifier, train, 0, period=pathway.period
    )
    features = jnp.mean(precision.widen(x), axis=(1, 2, 3))  # n c
    endpoints |= {'last': x, 'features': features}
    dropout = nn.Dropout(self.dropout, deterministic=not train, name='dropout')
    return classifier(dropout(features)), endpoints


# I3D as a ResNet: blocks that see three frames alternate with others.
_ALTERNATING = ((3,), (3, 1), (3, 1), (1, 3))
_LATE = ((1,), (1,), (3,), (3,))
_HALVING = (1, 2, 2, 2)


def _variants() -> Mapping[str, Pathway]:
  r50, r101 = DEPTHS[50], DEPTHS[101]
  i3d = Pathway(
    r50, stem_kernel=(5, 7, 7), pool_pairs=True, frames=_ALTERNATING
  )
  rows = {
    'c2d_r50': Pathway(r50, pool_pairs=True),
    'slow_r50': Pathway(r50, frames=_LATE),
    'slow_r101': Pathway(r101, frames=_LATE),
    'i3d_r50': i3d,
    'i3d_r50_32x2': dataclasses.replace(
      i3d, stem_strides=(2, 2, 2), stem_pool=((1, 3, 3), (2, 2, 2))
    ),
    'tsm_r50': Pathway(r50, shift_every=1),
    # With so many blocks, the authors shift in half of them.
    'tsm_r101': Pathway(r101, shift_every=2),
    'tanet_r50_8': Pathway(r50, adaptive_frames=8),
    'tanet_r50_16': Pathway(r50, adaptive_frames=16),
    'ptv_r2plus1d_r50': Pathway(
      r50,
      stem_pool=None,
      middle='factorized',
      temporal_strides=(1, 1, 2, 2),
      spatial_strides=(2, 2, 2, 2),
    ),
  }
  for kind in ('ir', 'ip'):
    for depth, blocks in DEPTHS.items():
      rows[f'{kind}_csn_{depth}'] = Pathway(
        blocks,
        stem_kernel=(3, 7, 7),
        middle=kind,
        temporal_strides=_HALVING,
      )
  for depth, blocks in DEPTHS.items():
    hara = Pathway(
      blocks,
      stem_kernel=(7, 7, 7),
      stem_pool=((3, 3, 3), (2, 2, 2)),
      middle='cubic',
      temporal_strides=_HALVING,
    )
    rows[f'hara_r3d_{depth}'] = hara
    rows[f'resnext3d_{depth}'] = dataclasses.replace(
      hara, inner_factor=2, middle='grouped'
    )
  return types.MappingProxyType(rows)


# The pathway of `VideoResNet` by model name.
VARIANTS = _variants()
