"""Batch normalisation whose statistics keep a constant batch.

Multigrid training (the thesis, 5.4.1) changes the number of clips a step. The
statistics then have to come from sub-batches of one fixed size, or the noise
that regularises the network would change with the schedule.

The thesis is A. Stergiou, *Efficient Modelling Across Time of Human Actions
and Interactions*, 2021.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtnet_jax import native
from mtnet_jax.errors import UserError
from mtnet_jax.layers import precision, sums
from mtnet_jax.layers.activation import KNOWN, scale_and_activate
from mtnet_jax.typing import Array, Float

# The collection that gets every sub-batch's statistics, where it is mutable.
MOMENTS = 'moments'


class BatchNorm(nn.Module):
  """Normalises each channel over sub-batches of clips.

  The batch is split into consecutive sub-batches that are normalised apart.
  The moving statistics take the mean of the sub-batches' means and the mean of
  their variances. Statistics are float32 whatever the dtype
  (float64 where it is).

  Attributes:
    use_running_average: normalise by the moving statistics (evaluation).
    momentum: `new = momentum · old + (1 - momentum) · batch`.
    epsilon: added to the variance.
    batch_size: clips that share statistics; 0: the whole batch.
    dtype: of the output; None: the input's.
    scale_init: initialises the scale; the bias starts at 0.
  """

  use_running_average: bool
  momentum: float = 0.9
  epsilon: float = 1e-5
  batch_size: int = 0
  dtype: jax.typing.DTypeLike | None = None
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'n *d c'],
    activation: Callable[[Array], Array] | None = None,
  ) -> Float[Array, 'n *d c']:
    """Returns x normalised and, if there is an activation, activated.

    Raises:
      UserError: the number of clips is not a multiple of `batch_size`.
    """
    c = x.shape[-1]
    scale = self.param('scale', self.scale_init, (c,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (c,), jnp.float32)
    moving_mean = self.variable('batch_stats', 'mean', jnp.zeros, (c,))
    moving_var = self.variable('batch_stats', 'var', jnp.ones, (c,))
    if self.use_running_average:
      mean, var = moving_mean.value, moving_var.value
      gain = jax.lax.rsqrt(var + self.epsilon) * scale
      offset = bias - mean * gain
      shape = (*[1] * (x.ndim - 1), c)
      gain, offset = gain.reshape(shape), offset.reshape(shape)
      return scale_and_activate(
        x, gain, offset, activation, self.dtype or x.dtype
      )
    groups = _split(x, self.batch_size)  # g b *d c
    y, mean, var = normalize(
      groups, scale, bias, self.epsilon, activation, self.dtype or x.dtype
    )
    if not self.is_initializing():
      self.sow(MOMENTS, 'mean', mean)
      self.sow(MOMENTS, 'var', var)
      for moving, batch in ((moving_mean, mean), (moving_var, var)):
        moving.value = self.momentum * moving.value + (
          1 - self.momentum
        ) * jnp.mean(batch, axis=0)
    return y.reshape(x.shape)


def _split(x: Float[Array, 'n *d c'], size: int) -> Float[Array, 'g b *d c']:
  n = x.shape[0]
  size = size or n
  if n % size:
    raise UserError(
      f"The batch (={n} clips) must be a multiple of BatchNorm's "
      f'`batch_size` (={size}), the clips that share statistics. Change '
      'either, or set `batch_size` to 0 to share over the whole batch.'
    )
  return x.reshape(n // size, size, *x.shape[1:])


def normalize(
  x: Float[Array, 'g *d c'],
  scale: Float[Array, ' c'],
  bias: Float[Array, ' c'],
  epsilon: float,
  activation: Callable[[Array], Array] | None,
  dtype: jax.typing.DTypeLike,
) -> tuple[Float[Array, 'g *d c'], Float[Array, 'g c'], Float[Array, 'g c']]:
  """Returns x normalised by group and activated, and mean and variance.

  No gradient flows through the mean and the variance that are returned.

  Args:
    x: any float dtype; computed in float32 (float64 where it is).
    scale: by channel.
    bias: likewise.
    epsilon: added to the variance.
    activation: takes and returns arrays of `dtype`; None: the identity.
    dtype: of the result.
  """
  if native.usable(x) and dtype == x.dtype and activation in KNOWN:
    y, mean, var = _normalize(x, scale, bias, float(epsilon), activation)
  else:
    wide, axes = precision.widen(x), tuple(range(1, x.ndim - 1))
    mean = jnp.mean(wide, axes)
    # E[x²] - E[x]² may come out just below zero for a constant channel.
    var = jnp.maximum(jnp.mean(wide * wide, axes) - mean * mean, 0)
    gain = jax.lax.rsqrt(var + epsilon) * scale.reshape(1, -1)
    offset = bias.reshape(1, -1) - mean * gain
    y = scale_and_activate(
      x, _spread(gain, x), _spread(offset, x), activation, dtype
    )
  return y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)


def _spread(a, x):
  """`(g, c)` in a shape that broadcasts with x's."""
  return a.reshape(a.shape[0], *[1] * (x.ndim - 2), a.shape[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalize(x, scale, bias, epsilon, activation):
  return _normalize_fwd(x, scale, bias, epsilon, activation)[0]


def _normalize_fwd(x, scale, bias, epsilon, activation):
  result = jax.ShapeDtypeStruct((x.shape[0], x.shape[-1]), x.dtype)
  mean, var, gain, offset = native.call(
    'norm_forward',
    (result,) * 4,
    sums.flat(x),
    scale,
    bias,
    epsilon=np.float32(epsilon),
  )
  y = _spread(gain, x) * x + _spread(offset, x)
  y = activation(y) if activation else y
  return (y, mean, var), (x, scale, mean, var, gain, offset)


def _normalize_bwd(epsilon, activation, residuals, gradients):
  x, scale, mean, var, gain, offset = residuals
  dy, _, _ = gradients
  by_group = jax.ShapeDtypeStruct(mean.shape, x.dtype)
  by_channel = jax.ShapeDtypeStruct(scale.shape, x.dtype)
  slope, shift, d_scale, d_bias = native.call(
    'norm_backward',
    (by_group, by_group, by_channel, by_channel),
    sums.flat(x),
    sums.flat(dy),
    scale,
    mean,
    var,
    gain,
    offset,
    epsilon=np.float32(epsilon),
    activation=np.int64(KNOWN[activation]),
  )
  gain, offset, slope, shift = (
    _spread(a, x) for a in (gain, offset, slope, shift)
  )
  if activation:
    (dy,) = jax.vjp(activation, gain * x + offset)[1](dy)
  return gain * dy + slope * x + shift, d_scale, d_bias


_normalize.defvjp(_normalize_fwd, _normalize_bwd)


def raw_moments(moments: Mapping[str, Any]) -> dict[str, Any]:
  """What all sub-batches of a batch have in common: E[x] and E[x²].

  Args:
    moments: the collection `MOMENTS` after a pass in training.

  Returns:
    A tree like `batch_stats` with E[x] as `mean` and E[x²] as `var`, `(c,)`.
    Means of several batches' trees are the trees of those batches together.
  """

  def pool(norm):
    mean, var = norm['mean'][0], norm['var'][0]  # g c
    return {
      'mean': jnp.mean(mean, axis=0),
      'var': jnp.mean(var + mean * mean, axis=0),
    }

  return _map_norms(pool, moments)


def to_statistics(raw: Mapping[str, Any]) -> dict[str, Any]:
  """Means and variances, as `batch_stats` has them, of E[x] and E[x²]."""

  def center(norm):
    mean = norm['mean']
    return {'mean': mean, 'var': jnp.maximum(norm['var'] - mean * mean, 0)}

  return _map_norms(center, raw)


def _map_norms(change, tree):
  if tree.keys() == {'mean', 'var'}:
    return change(tree)
  return {name: _map_norms(change, below) for name, below in tree.items()}
