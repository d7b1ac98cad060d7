"""The 3-D convolution layer: dense, grouped or channel-separated."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.layers.parameters import parameter
from mtnet_jax.ops.conv import Triple, conv3d
from mtnet_jax.ops.grouped_conv import grouped_conv3d
from mtnet_jax.ops.same_padding import convolve_same
from mtnet_jax.ops.separated_conv import channel_separated_conv3d
from mtnet_jax.typing import Array, Float


class Conv3D(nn.Module):
  """Dense, grouped or channel-separated 3-D convolution, padding `k // 2`.

  Attributes:
    features: output channels.
    kernel_size: size of the kernel in frames, rows, columns.
    strides: distance between windows in frames, rows, columns.
    groups: the number of groups of channels, each of which sees only itself. 1:
      a dense convolution; as many as the input channels and `features`: a
      channel-separated one; else a divisor of both.
    repeat_edges: whether a clip's first and last frame go on beyond its ends,
      rather than zeros; around rows and columns there are zeros either way.
    same_padding: whether padding is TensorFlow's SAME rather than `k // 2`
      zeros on both sides; see `ops.same_padding`.
    dtype: float type of the computation and the output; None: the widest of
      the input's and the parameters', which are float32.
  """

  features: int
  kernel_size: Triple
  strides: Triple = (1, 1, 1)
  groups: int = 1
  repeat_edges: bool = False
  same_padding: bool = False
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n t h w c']) -> Float[Array, 'n u v x f']:
    """Returns x convolved.

    Raises:
      UserError: `groups` does not divide both channel counts.
    """
    c = x.shape[-1]
    if self.groups < 1 or c % self.groups or self.features % self.groups:
      raise UserError(
        f'`groups` (={self.groups}) of a Conv3D must divide both the input '
        f'channels (={c}) and `features` (={self.features}); 1 is a dense one.'
      )
    # He initialization for the ReLU that follows, over what a unit feeds.
    fan_out = math.prod(self.kernel_size) * self.features // self.groups
    kernel = parameter(
      self,
      'kernel',
      nn.initializers.normal(math.sqrt(2 / fan_out)),
      (*self.kernel_size, c // self.groups, self.features),
    )
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    edge = self.kernel_size[0] // 2 if self.repeat_edges else 0
    if edge:
      assert self.strides[0] == 1, self.strides
      first, last = (jnp.repeat(a, edge, 1) for a in (x[:, :1], x[:, -1:]))
      x = jnp.concatenate([first, x, last], axis=1)
    convolve = grouped_conv3d
    if self.groups == 1:
      convolve = conv3d
    elif self.groups == c == self.features:
      convolve = channel_separated_conv3d
    if self.same_padding:
      assert not edge
      convolve = functools.partial(convolve_same, convolve)
    y = convolve(x, kernel, self.strides)
    return y[:, edge : y.shape[1] - edge]  # drops what padding touched
