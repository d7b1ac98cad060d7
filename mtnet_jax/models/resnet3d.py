"""3-D residual networks, plain, with SRTG, and with MTConv.

The backbones of the thesis: r3d, r2plus1d and wide_r3d (Table 6.1a), and the
places in a residual block at which SRTG can stand (Fig. 4.5). All convolutions
of a block have the same width (expansion 1), as Table 6.1a prints.

The thesis is A. Stergiou, *Efficient Modelling Across Time of Human Actions
and Interactions*, 2021.
"""

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.layers import mtconv, precision, recurrent
from mtnet_jax.layers.activation import relu
from mtnet_jax.layers.class_regularization import (
  ClassRegularization,
  check_affection_rates,
)
from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.norm import BatchNorm
from mtnet_jax.layers.pooling import split_pooling
from mtnet_jax.layers.srtg import SqueezeAndRecursion
from mtnet_jax.models import repetition
from mtnet_jax.typing import Array, Float

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
SIMPLE_PLACEMENTS = ('start', 'mid', 'res', 'final')
BOTTLENECK_PLACEMENTS = ('start', 'top', 'mid', 'end', 'res', 'final')


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
  return types.MappingProxyType(
    {name: types.MappingProxyType(row) for name, row in rows.items()}
  )


# Fields of `ResNet3D` by model name.
VARIANTS = _variants()


class ResNet3D(nn.Module):
  """A 3-D residual network.

  Submodules: `stem`, `stage_{i}_block_{j}` counted from 1, `classifier`; with
  Class Regularisation `class_regularization_{i}`.

  Attributes:
    num_classes: classes.
    depth: 18 or 34 (Simple blocks), 50, 101 or 152 (Bottlenecks).
    convolution: of the kernels that see time and space: `'r3d'` 3×3×3,
      `'r2plus1d'` 1×3×3 then 3×1×1, `'mt_r3d'` a dense 3×3×3 MTConv.
    width: factor on the Bottlenecks' inner width.
    placement: where SRTG stands in every block, one of `SIMPLE_PLACEMENTS` or
      `BOTTLENECK_PLACEMENTS`; None: nowhere.
    cell: SRTG's recurrent cell.
    gate: whether SRTG's gate is active.
    local_ratio: MTConv's δ, of `'mt_r3d'`.
    pooling: of MTConv's prolonged branch, one of `pooling.POOLINGS`.
    shared_selection: its two inputs keep the same frames.
    stage_features: channels of each stage; the stem has the first's.
    stem_frames: temporal extent of the stem's kernel.
    stem_pool: a max-pool of stride 2 after the stem.
    class_regularization: after every stage (the thesis, chapter 6).
    affection_rates: its λ for each stage, in [0, 1].
    dropout: before the classifier, in [0, 1).
    dtype: of the computation; parameters, statistics and logits are float32.
    norm_batch_size: clips that share BN statistics; 0: the whole batch.
    freeze_norm: normalise by the moving statistics in training too.
    input_mean: of the brightness in [0, 1] by channel that `preprocessing`
      normalises clips with.
    input_std: the deviation likewise.
    rematerialize: in training, blocks are computed again in the backward pass.
  """

  num_classes: int
  depth: int
  convolution: str
  width: int = 1
  placement: str | None = None
  cell: str = 'lstm'
  gate: bool = True
  local_ratio: float = 7 / 8
  pooling: str = 'softpool+cos'
  shared_selection: bool = True
  stage_features: tuple[int, ...] = (64, 128, 256, 512)
  stem_frames: int = 3
  stem_pool: bool = True
  class_regularization: bool = False
  affection_rates: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6)
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike = jnp.float32
  norm_batch_size: int = 0
  freeze_norm: bool = False
  input_mean: tuple[float, ...] = (0.45,) * 3
  input_std: tuple[float, ...] = (0.225,) * 3
  rematerialize: bool = False

  def __post_init__(self):
    assert self.depth in _DEPTHS, self.depth
    assert self.convolution in ('r3d', 'r2plus1d', 'mt_r3d'), self.convolution
    recurrent.find_cell(self.cell)
    mtconv.branch_features(min(self.stage_features), self.local_ratio)
    split_pooling(self.pooling)
    bottleneck = self.depth >= 50
    allowed = BOTTLENECK_PLACEMENTS if bottleneck else SIMPLE_PLACEMENTS
    if self.placement is not None and self.placement not in allowed:
      raise UserError(
        f'`placement` (={self.placement!r}) of SRTG is not one of the '
        f'{"Bottleneck" if bottleneck else "Simple"} blocks of depth '
        f'{self.depth}. Choose one of {", ".join(map(repr, allowed))}.'
      )
    if self.class_regularization:
      check_affection_rates(self.affection_rates, len(self.stage_features))
    super().__post_init__()

  @nn.compact
  def __call__(
    self, clips: Float[Array, 'n t h w c'], *, train: bool = False
  ) -> tuple[Float[Array, 'n k'], dict[str, Any]]:
    """Returns float32 logits, and the activations by name.

    The names: `stem` (after its max-pool); `stage_1` … `stage_4`, as the next
    stage sees them; `last`, which is `stage_4`; `features` (its mean, float32,
    the classifier's input); `early_predictions`, the class that Class
    Regularisation picks for each clip by stage; and `gate_open`, the share of
    open gates by block, without the blocks that have no gate or a single frame.

    Args:
      clips: normalised pixels.
      train: batch statistics, dropout and stochastic pooling's draws; needs
        `mutable=['batch_stats']` and rngs `dropout` and `pooling`.
    """
    units = self.make_units(train)
    classifier = Classifier(
      self.stage_features[-1], self.num_classes, name='classifier'
    )
    x = units.stem(
      self.stage_features[0],
      (self.stem_frames, 7, 7),
      strides=(1, 2, 2),
      name='stem',
    )(clips)
    if self.stem_pool:
      x = nn.max_pool(x, (3, 3, 3), (2, 2, 2), [(1, 1)] * 3)
    shared = train and not self.is_initializing()
    x, endpoints = self._stages(x, units, classifier, shared)
    features = jnp.mean(precision.widen(x), axis=(1, 2, 3))  # n c
    endpoints |= {'last': x, 'features': features}
    dropout = nn.Dropout(self.dropout, deterministic=not train, name='dropout')
    return classifier(dropout(features)), endpoints

  def _stages(self, x, units, classifier, shared):
    """The last stage's activations, and what `__call__` tells of all."""
    endpoints, early, gate_open = {'stem': x}, {}, {}
    stages = zip(self.stage_features, _DEPTHS[self.depth], strict=True)
    in_features = x.shape[-1]
    for i, (features, count) in enumerate(stages, start=1):
      blocks = []
      for j in range(1, count + 1):
        strides = (2, 2, 2) if i > 1 and j == 1 else (1, 1, 1)
        sizes, name = (in_features, features, strides), f'stage_{i}_block_{j}'
        blocks.append(self.make_block(units, *sizes, name=name))
        in_features = features
      x, shares = repetition.run(blocks, x, shared, self.rematerialize)
      gate_open |= shares
      if self.class_regularization:
        regularization = ClassRegularization(
          self.affection_rates[i - 1], name=f'class_regularization_{i}'
        )
        x, early[f'stage_{i}'] = regularization(x, classifier.kernel.T)
      endpoints[f'stage_{i}'] = x
    return x, endpoints | {'early_predictions': early, 'gate_open': gate_open}

  @nn.nowrap
  def make_units(self, train: bool) -> 'Units':
    """Returns the factories, with dtype and mode bound."""
    parts = {
      'conv': functools.partial(Conv3D, dtype=self.dtype),
      'norm': functools.partial(
        BatchNorm,
        use_running_average=self.freeze_norm or not train,
        batch_size=self.norm_batch_size,
        dtype=self.dtype,
      ),
    }
    plain = stem = main = functools.partial(ConvUnit, **parts)
    if self.convolution == 'r2plus1d':
      main = functools.partial(FactorizedUnit, **parts)
      stem = functools.partial(main, mid_features=45)
    elif self.convolution == 'mt_r3d':
      main = functools.partial(
        mtconv.MTConv,
        local_ratio=self.local_ratio,
        pooling=self.pooling,
        shared_selection=self.shared_selection,
        train=train,
        **parts,
      )
    return Units(plain, stem, main)

  @nn.nowrap
  def make_block(
    self,
    units: 'Units',
    in_features: int,
    features: int,
    strides: tuple[int, int, int],
    **kw,
  ) -> 'ResidualBlock':
    """Returns a block of this network; `kw` may name it."""
    shortcut = functools.partial(
      units.plain, features, (1, 1, 1), strides=strides, activation=None
    )
    return ResidualBlock(
      self._convolutions(units, in_features, features, strides),
      shortcut,
      self.placement,
      functools.partial(SqueezeAndRecursion, self.cell, gate=self.gate),
      **kw,
    )

  def _convolutions(self, units, in_features, features, strides):
    """The block's units in order, each with the placement that follows it."""
    main = functools.partial(units.main, kernel_size=(3, 3, 3))
    if self.convolution == 'r2plus1d':
      main = functools.partial(
        main, mid_features=factorized_features(in_features, features)
      )
    if self.depth < 50:
      return (
        (functools.partial(main, features, strides=strides), 'mid'),
        (functools.partial(main, features, activation=None), None),
      )
    pointwise = functools.partial(units.plain, kernel_size=(1, 1, 1))
    inner = features * self.width
    return (
      (functools.partial(pointwise, inner), 'top'),
      (functools.partial(main, inner, strides=strides), 'mid'),
      (functools.partial(pointwise, features, activation=None), 'end'),
    )


class Units(NamedTuple):
  """Factories of convolution, BN and activation in one module.

  Called with `features`, `kernel_size`, `strides`, `activation`, `name`.

  Attributes:
    plain: with one convolution.
    stem: of the stem.
    main: of the kernels that see time and space; with `mid_features` where they
      are (2+1)D.
  """

  plain: Callable[..., nn.Module]
  stem: Callable[..., nn.Module]
  main: Callable[..., nn.Module]


def factorized_features(in_features: int, features: int) -> int:
  """Width between the two halves of a (2+1)D convolution.

  `⌊27·c_in·c_out / (9·c_in + 3·c_out)⌋`: as many weights as a 3×3×3 kernel.
  """
  return 27 * in_features * features // (9 * in_features + 3 * features)


class ResidualBlock(nn.Module):
  """Convolutions, their input added to their output, ReLU; perhaps with SRTG.

  Submodules: `conv_1`, `conv_2` and, in a Bottleneck, `conv_3`; `shortcut`
  where the shape changes; `srtg`.

  Attributes:
    convolutions: factories of convolution, BN and activation in order, each
      with the placement that stands after it, if one does.
    shortcut: factory of the residual connection's projection.
    placement: where SRTG stands; None: nowhere.
    srtg: makes the SRTG module.
  """

  convolutions: Sequence[tuple[Callable[..., nn.Module], str | None]]
  shortcut: Callable[..., nn.Module]
  placement: str | None
  srtg: Callable[..., nn.Module]

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n t h w c']
  ) -> tuple[Float[Array, 'n t2 h2 w2 c2'], Float[Array, ''] | None]:
    """Returns the block's output, and the share of open gates or None."""
    shares = []

    def fuse(here, x):
      """Applies SRTG if this is the place for it."""
      if here != self.placement or here is None:
        return x
      x, share = self.srtg(name='srtg')(x)
      shares.append(share)
      return x

    x = fuse('start', x)
    y = x
    for i, (convolution, after) in enumerate(self.convolutions, start=1):
      y = fuse(after, convolution(name=f'conv_{i}')(y))
    if x.shape != y.shape:
      x = self.shortcut(name='shortcut')(x)
    y = fuse('final', relu(y + fuse('res', x)))
    return y, shares[0] if shares else None


class ConvUnit(nn.Module):
  """Convolution, BN, activation: submodules `conv` and `norm`.

  Attributes:
    features: output channels.
    kernel_size: frames, height, width.
    conv: makes the convolution.
    norm: makes the normalisation.
    strides: in time, height and width.
    activation: after BN, or None.
  """

  features: int
  kernel_size: tuple[int, int, int]
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]
  strides: tuple[int, int, int] = (1, 1, 1)
  activation: Callable[[Array], Array] | None = relu

  @nn.compact
  def __call__(self, x: Float[Array, 'n t h w c']) -> Float[Array, 'n *d c2']:
    """Returns activations of sizes `⌈size / stride⌉`."""
    conv = self.conv(self.features, self.kernel_size, self.strides, name='conv')
    return self.norm(name='norm')(conv(x), self.activation)


class FactorizedUnit(nn.Module):
  """(2+1)D: a convolution in space, BN, ReLU, one in time, BN, activation.

  Submodules `spatial`, `spatial_norm`, `temporal`, `norm`.

  Attributes:
    features: output channels.
    kernel_size: frames, height, width.
    mid_features: channels between the two convolutions.
    conv: makes convolutions.
    norm: makes normalisations.
    strides: in time, height and width.
    activation: after the last BN, or None.
  """

  features: int
  kernel_size: tuple[int, int, int]
  mid_features: int
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]
  strides: tuple[int, int, int] = (1, 1, 1)
  activation: Callable[[Array], Array] | None = relu

  @nn.compact
  def __call__(self, x: Float[Array, 'n t h w c']) -> Float[Array, 'n *d c2']:
    """Returns activations of sizes `⌈size / stride⌉`."""
    (kt, kh, kw), (st, sh, sw) = self.kernel_size, self.strides
    spatial = self.conv(
      self.mid_features, (1, kh, kw), (1, sh, sw), name='spatial'
    )
    temporal = self.conv(self.features, (kt, 1, 1), (st, 1, 1), name='temporal')
    x = self.norm(name='spatial_norm')(spatial(x), relu)
    return self.norm(name='norm')(temporal(x), self.activation)
