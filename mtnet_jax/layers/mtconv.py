"""Multi-Temporal convolution (thesis, 5.1–5.4).

Most channels see the clip as it is: the local branch. The others see half its
frames at half its size, so that one kernel covers twice the time and space: the
prolonged branch, which also reads the output of the local branch.
"""

import functools
from collections.abc import Callable

from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.frame_choice import choose_frames
from mtnet_jax.layers.norm import BatchNorm
from mtnet_jax.ops.activation import relu
from mtnet_jax.ops.channels import join, split
from mtnet_jax.ops.frame_selection import gather_frames, select_frame_indices
from mtnet_jax.ops.kept_times import interpolate_times
from mtnet_jax.ops.pooling import pool, pool_with_residual, split_pooling
from mtnet_jax.ops.up_sample import up_sample
from mtnet_jax.typing import Array, Float

Branches = tuple[Float[Array, '...'], Float[Array, '...']]


def branch_features(
  features: int, local_ratio: float, groups: int = 1
) -> tuple[int, int]:
  """Returns the output channels of the local and the prolonged branch (5.1).

  `⌊local_ratio · features⌋`, less what is more than a multiple of `groups`, and
  the rest.

  Raises:
    UserError: `local_ratio` outside (0, 1], or no channel left for the local
      branch, which the prolonged one needs (5.4.6).
  """
  if not 0 < local_ratio <= 1:
    raise UserError(
      f'`local_ratio` (={local_ratio}) must lie in (0, 1]: 1 is the plain '
      'convolution, and the prolonged branch reads the local one, which '
      'therefore cannot be empty. The default is 7/8.'
    )
  # The floor of the exact product: 0.29 · 100 is 28.999… in floating point.
  local = int(local_ratio * features + 1e-9) // groups * groups
  if local == 0:
    raise UserError(
      f'`local_ratio` (={local_ratio}) leaves none of {features} channels for '
      f'the local branch. It must be at least 1/{features} here.'
    )
  return local, features - local


class MTConv(nn.Module):
  """Convolution, BN and activation in a local and a prolonged branch.

  The channel-separated form hands the first channels of its input to the local
  branch and the others to the prolonged one; the dense form hands all of them
  to both. Submodules: `local`, `local_norm`, and where `local_ratio` < 1
  `prolonged`, `prolonged_norm`, `pointwise`, `pointwise_norm`.

  Attributes:
    features: output channels of both branches together.
    kernel_size: size of the kernel in frames, height, width.
    strides: distance between windows in frames, height, width.
    local_ratio: share δ of the output channels that the local branch makes, in
      (0, 1]; 1 is the plain convolution.
    channel_separated: whether each channel has a kernel of its own; input
      channels then equal `features`.
    activation: function after BN; None: the identity.
    pooling: pooling of the prolonged branch's inputs, one of
      `pooling.POOLINGS`.
    shared_selection: whether both inputs of the prolonged branch keep the same
      frames, those chosen on the layer's input; else each keeps its own, as
      5.4 prints. It matters to poolings that select frames.
    selection_input: the input of frame selection, one of `SELECTION_INPUTS`.
    stillness: `(n, t)`, the scores `ops.still_scores` of the frames' pixels,
      for `'motion'`.
    keep_times: whether the frames kept are put back at their own times, rather
      than evenly.
    branch_inputs: `'all'`: both branches of a dense layer read all channels; or
      `'split'`: the first share of them is the local branch's, the rest the
      prolonged one's, as in a channel-separated layer.
    groups: the number of groups of the channels of each branch of a
      channel-separated layer; 0: each channel is one.
    joined: whether both branches are returned as one array, or apart, for a
      channel-separated layer of the same widths.
    train: whether `'stochastic'` pooling draws, from an rng `pooling`.
    conv: factory of convolutions; `Conv3D`, perhaps with a dtype bound.
    norm: factory of normalizations; `BatchNorm` with `use_running_average`
      bound.
  """

  features: int
  kernel_size: tuple[int, int, int]
  strides: tuple[int, int, int] = (1, 1, 1)
  local_ratio: float = 7 / 8
  channel_separated: bool = False
  activation: Callable[[Array], Array] | None = relu
  pooling: str = 'softpool+cos'
  shared_selection: bool = True
  selection_input: str = 'branch'
  stillness: Float[Array, 'n t'] | None = None
  keep_times: bool = False
  branch_inputs: str = 'all'
  groups: int = 0
  joined: bool = True
  train: bool = False
  conv: Callable[..., nn.Module] = Conv3D
  norm: Callable[..., nn.Module] = functools.partial(
    BatchNorm, use_running_average=False
  )

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n t h w c'] | Branches
  ) -> Float[Array, 'n t2 h2 w2 c2'] | Branches:
    """Returns `concat(local, prolonged)` on channels (5.2), or both apart.

    A channel-separated layer takes what its branches read as one array or
    apart. Where there is no prolonged branch, there is one array. Sizes are
    `⌈size / stride⌉`. Where `intermediates` are mutable it leaves there
    `kept_frames`, int32 `(n, k)`: the frames that the prolonged branch keeps of
    the layer's input, among frames 0, σ, 2σ, … at a stride of σ.

    Raises:
      UserError: see `branch_features`, `split_pooling`; or a channel-separated
        form whose input does not have `features` channels.
    """
    local, prolonged = self._share(self.features)
    if self.channel_separated:
      self._check_channels(x)
    strides = self.strides
    local_unit = self._unit('local', local, self.kernel_size, strides)
    if not prolonged:
      return local_unit(x)
    whole = self._read(x)
    x, pooled = self._pool(whole[-1], strides[0])
    if len(whole) > 1:
      x = whole[0]
    y_local = local_unit(x)
    kept, y_local, pooled, pooled_local = self._select(y_local, pooled, whole)
    y = self._unit('prolonged', prolonged, self.kernel_size, (1, *strides[1:]))(
      pooled
    )
    y += self._unit('pointwise', prolonged)(pooled_local)  # 5.3
    t, *space = y_local.shape[1:4]
    if self.keep_times and kept is not None:
      y = up_sample(y, (y.shape[1], *space))
      y = interpolate_times(y, kept, t)
    else:
      y = up_sample(y, (t, *space))
    return join(y_local, y) if self.joined else (y_local, y)

  def _share(self, features):
    """Returns how many of the channels belong to each branch."""
    groups = max(1, self.groups) if self.channel_separated else 1
    return branch_features(features, self.local_ratio, groups)

  def _read(self, x):
    """Returns what both branches read, together or one after the other."""
    if isinstance(x, tuple):
      return x
    if not (self.channel_separated or self.branch_inputs == 'split'):
      return (x,)
    local, _ = self._share(x.shape[-1])
    return split(x, local)

  def _check_channels(self, x):
    branches = x if isinstance(x, tuple) else (x,)
    c = sum(branch.shape[-1] for branch in branches)
    if c != self.features:
      raise UserError(
        f'A channel-separated MTConv keeps its channels: `features` '
        f'(={self.features}) must equal the input channels (={c}).'
      )

  def _unit(self, name, features, kernel_size=(1, 1, 1), strides=(1, 1, 1)):
    """Convolution, BN, activation; the point-wise term is always dense."""
    separated = self.channel_separated and name != 'pointwise'
    conv = self.conv(
      features,
      kernel_size,
      strides,
      groups=(self.groups or features) if separated else 1,
      name=name,
    )
    norm = self.norm(name=f'{name}_norm')
    return lambda x: norm(conv(x), self.activation)

  def _pool(self, x, stride=1, frames=None):
    """Returns x, and every stride-th frame of it, or the given ones, pooled."""
    kind, selects_frames = split_pooling(self.pooling)
    if selects_frames and stride == 1:
      return pool_with_residual(x, kind, frames)
    # Frames are strided before they are chosen, so that frame i of one input
    # and of the other are the same moment.
    strided = x[:, ::stride]
    if selects_frames:
      return x, pool(strided, kind, (1, 2, 2))
    draws = self.train and kind == 'stochastic'
    return x, pool(
      strided, kind, key=self.make_rng('pooling') if draws else None
    )

  def _select(self, y_local, pooled, whole):
    """Frames kept, the local branch; both inputs down-sampled, of half of them.

    None and all frames' windows where the pooling selects none.
    """
    if not split_pooling(self.pooling)[1]:
      return None, y_local, pooled, self._pool(y_local)[1]
    draws = self.train and self.selection_input == 'random'
    indices = choose_frames(
      self.selection_input,
      pooled,
      [x[:, :: self.strides[0]] for x in whole],
      self.stillness,
      self.make_rng('pooling') if draws else None,
    )
    self.sow('intermediates', 'kept_frames', indices)
    pooled = gather_frames(pooled, indices)
    if self.shared_selection:
      # Pooling works frame by frame, so only the kept frames are pooled.
      y_local, pooled_local = self._pool(y_local, frames=indices)
      return indices, y_local, pooled, pooled_local
    y_local, pooled_local = self._pool(y_local)
    own = select_frame_indices(pooled_local)
    return indices, y_local, pooled, gather_frames(pooled_local, own)
