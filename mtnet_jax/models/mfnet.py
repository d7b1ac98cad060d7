"""MF-Net: grouped convolutions ("fibers"), which a multiplexer connects.

Source: Y. Chen et al., *Multi-Fiber Networks for Video Recognition*, 2018, Fig.
2 and Table 1.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.models.network import Network, check_clips
from mtnet_jax.models.units import ConvUnit
from mtnet_jax.ops import forms, lanes, precision
from mtnet_jax.ops.activation import relu
from mtnet_jax.ops.conv import Triple
from mtnet_jax.ops.max_pool import max_pool
from mtnet_jax.typing import Array, Float

_FIBERS = 16
_STEM = 16  # channels
_FEATURES = (96, 192, 384, 768)
_STRIDES = ((2, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))
_POINT = (1, 1, 1)


class PreActivatedUnit(nn.Module):
  """BN, ReLU, convolution: submodules `norm` and `conv`.

  Attributes:
    features: output channels.
    kernel_size: size of the kernel in frames, rows, columns.
    conv: factory of the convolution.
    norm: factory of the normalization.
    strides: distance between windows in frames, rows, columns.
    groups: the number of groups of channels that see only themselves.
  """

  features: int
  kernel_size: Triple
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]
  strides: Triple = (1, 1, 1)
  groups: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'n t h w c']) -> Float[Array, 'n *d c2']:
    """Returns activations of sizes `⌈size / stride⌉`."""
    x = self.norm(name='norm')(x, relu)
    return self.conv(
      self.features,
      self.kernel_size,
      self.strides,
      groups=self.groups,
      name='conv',
    )(x)


class MultiFiber(nn.Module):
  """A multiplexer, and two convolutions in fibers; each adds its input.

  The input of the second residual connection is the block's, before the
  multiplexer. Submodules: `multiplex_1` and `multiplex_2`, 1×1×1 to a quarter
  of `features` and back; `conv_1` and `conv_2`; `shortcut` where the shape
  changes, and there `conv_2` is 1×1×1 and dense.

  Attributes:
    features: output channels.
    unit: factory of BN, ReLU and a convolution.
    strides: the strides of `conv_1`, in frames, rows, columns.
  """

  features: int
  unit: Callable[..., nn.Module]
  strides: Triple = (1, 1, 1)

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n t h w c']
  ) -> tuple[Float[Array, 'n t2 h2 w2 c2'], None]:
    """Returns the block's output, and None: it has no gate."""
    c = x.shape[-1]
    y = self.unit(self.features // 4, _POINT, name='multiplex_1')(x)
    y = x + self.unit(c, _POINT, name='multiplex_2')(y)
    in_fibers = functools.partial(self.unit, groups=_FIBERS)
    y = in_fibers(
      self.features, (3, 3, 3), strides=self.strides, name='conv_1'
    )(y)
    if x.shape == y.shape:
      return x + in_fibers(self.features, (1, 3, 3), name='conv_2')(y), None
    y = self.unit(self.features, _POINT, name='conv_2')(y)
    shortcut = self.unit(
      self.features, _POINT, strides=self.strides, name='shortcut'
    )
    return shortcut(x) + y, None


class MFNet(Network):
  """MF-Net of sixteen fibers.

  Submodules: `stem`; `stage_{i}_block_{j}` counted from 1, each a `MultiFiber`;
  `last_norm`; `classifier`; with Class Regularisation
  `class_regularization_{i}`.

  It has the attributes of `Network` too.

  Attributes:
    blocks: number of blocks of each stage.
  """

  blocks: tuple[int, int, int, int] = (3, 4, 6, 3)

  def __post_init__(self):
    self.check_stages(_FEATURES)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, clips: Float[Array, '...'], *, train: bool = False
  ) -> tuple[Float[Array, 'n k'], dict[str, Any]]:
    """Returns logits and endpoints; `models.build` says which.

    The endpoint `stem` is what its max-pool returns. The other endpoints are
    sums before the next block's BN and ReLU, except `stage_4`, which equals
    `last` and comes after them; `features` is its mean.

    Args:
      clips: normalized pixels, `(n, t, h, w, 3)`.
      train: whether there are batch statistics and dropout; needs
        `mutable=['batch_stats']` and an rng `dropout`.

    Raises:
      UserError: clips of another shape.
    """
    check_clips(clips)
    parts = self.make_parts(train)
    classifier = Classifier(_FEATURES[-1], self.num_classes, name='classifier')
    stem = ConvUnit(_STEM, (3, 5, 5), strides=(1, 2, 2), name='stem', **parts)
    groups = lanes.fitting_groups(_STEM, clips.shape[3], 2)
    with forms.side_by_side(groups):
      x = max_pool(stem(clips), (1, 3, 3), (1, 2, 2))
    x, endpoints = self.run_stages(
      x, _make_stages(self.blocks, parts), classifier, train, 0
    )
    x = parts['norm'](name='last_norm')(x, relu)
    features = jnp.mean(precision.widen(x), axis=(1, 2, 3))  # n c
    endpoints |= {'stage_4': x, 'last': x, 'features': features}
    dropout = nn.Dropout(self.dropout, deterministic=not train, name='dropout')
    return classifier(dropout(features)), endpoints


def _make_stages(blocks, parts):
  unit = functools.partial(PreActivatedUnit, **parts)
  rows = zip(_FEATURES, blocks, _STRIDES, strict=True)
  return [
    [
      MultiFiber(
        features,
        unit,
        _POINT if j > 1 else strides,
        name=f'stage_{i}_block_{j}',
      )
      for j in range(1, count + 1)
    ]
    for i, (features, count, strides) in enumerate(rows, start=1)
  ]
