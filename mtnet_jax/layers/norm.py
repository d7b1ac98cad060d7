"""Batch normalization whose statistics keep a constant batch.

Multigrid training (thesis, 5.4.1) changes the number of clips per step. The
statistics then have to come from sub-batches of one fixed size, or the noise
that regularizes the network would change with the schedule.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.layers.parameters import parameter
from mtnet_jax.ops.activation import scale_and_activate
from mtnet_jax.ops.batch_norm import normalize
from mtnet_jax.typing import Array, Float

# The collection that gets every sub-batch's statistics, where it is mutable.
MOMENTS = 'moments'


class BatchNorm(nn.Module):
  """Normalizes each channel over sub-batches of clips.

  The batch is split into consecutive sub-batches that are normalized apart.
  The moving statistics take the mean of the sub-batches' means and the mean of
  their variances. Statistics are float32 whatever the dtype
  (float64 where it is).

  Attributes:
    use_running_average: whether the moving statistics normalize (evaluation).
    momentum: share of the old moving statistics, in [0, 1]:
      `new = momentum · old + (1 - momentum) · batch`.
    epsilon: small number that is added to the variance.
    batch_size: number of clips that share statistics; 0: the whole batch.
    dtype: float type of the output; None: the input's.
    scale_init: initializer of the scale.
  """

  use_running_average: bool
  momentum: float = 0.9
  epsilon: float = 1e-5
  batch_size: int = 0
  dtype: jax.typing.DTypeLike | None = None
  scale_init: Callable[..., Array] = nn.initializers.ones

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'n *d c'],
    activation: Callable[[Array], Array] | None = None,
  ) -> Float[Array, 'n *d c']:
    """Returns x normalized and, if there is an activation, activated.

    Raises:
      UserError: the number of clips is not a multiple of `batch_size`.
    """
    c = x.shape[-1]
    scale = parameter(self, 'scale', self.scale_init, (c,))
    bias = parameter(self, 'bias', nn.initializers.zeros, (c,))
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
      groups,
      scale,
      bias,
      moving_mean.value,
      self.epsilon,
      activation,
      self.dtype or x.dtype,
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


def raw_moments(moments: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what all sub-batches of a batch have in common: E[x] and E[x²].

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
  """Returns means and variances, as in `batch_stats`, from E[x] and E[x²]."""

  def center(norm):
    mean = norm['mean']
    return {'mean': mean, 'var': jnp.maximum(norm['var'] - mean * mean, 0)}

  return _map_norms(center, raw)


def _map_norms(change, tree):
  if tree.keys() == {'mean', 'var'}:
    return change(tree)
  return {name: _map_norms(change, below) for name, below in tree.items()}
