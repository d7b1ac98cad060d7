"""Batch normalization in training, by the statistics of groups of clips."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import lanes, native, precision
from mtnet_jax.ops.activation import KERNEL_CODES
from mtnet_jax.ops.forms import Form, Operation, keep
from mtnet_jax.typing import Array, Float


def normalize(
  x: Float[Array, 'g *d c'],
  scale: Float[Array, ' c'],
  bias: Float[Array, ' c'],
  near: Float[Array, ' c'],
  epsilon: float,
  activation: Callable[[Array], Array] | None,
  dtype: jax.typing.DTypeLike,
) -> tuple[Float[Array, 'g *d c'], Float[Array, 'g c'], Float[Array, 'g c']]:
  """Returns x normalized by group and activated, and mean and variance.

  `activation((x - mean) / sqrt(variance + epsilon) · scale + bias)`, mean and
  variance over all axes but the first and the last. No gradient flows through
  the mean and the variance that are returned.

  Args:
    x: activations in g groups, any float dtype; computed in float32 (float64
      where it is).
    scale: factor of each channel.
    bias: offset of each channel.
    near: a guess of each channel's mean, such as that of batches before. A form
      may sum differences from it, so that a mean far from zero takes fewer
      digits of the variance; the result does not depend on it.
    epsilon: small number that is added to the variance.
    activation: function from an array of `dtype` to one of the same shape and
      dtype; None: the identity.
    dtype: float type of the result.
  """
  y, mean, variance = _normalize(
    x,
    scale,
    bias,
    near,
    epsilon=float(epsilon),
    activation=activation,
    dtype=jnp.dtype(dtype),
  )
  return y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance)


def _define(x, scale, bias, near, epsilon, activation, dtype):
  del near
  wide, axes = precision.widen(x), _positions(x)
  mean = jnp.mean(wide, axes, keepdims=True)
  variance = jnp.mean((wide - mean) ** 2, axes, keepdims=True)
  y = (wide - mean) / jnp.sqrt(variance + epsilon)
  y = (y * _spread(scale, x) + _spread(bias, x)).astype(dtype)
  y = activation(y) if activation else y
  return y, jnp.squeeze(mean, axes), jnp.squeeze(variance, axes)


def _positions(x):
  return tuple(range(1, x.ndim - 1))


def _spread(a, x):
  """Reshapes `(g, c)` or `(c,)` to broadcast with x."""
  a = lanes.repeat(a, x.shape[-1])
  return a.reshape(*a.shape[:-1], *[1] * (x.ndim - a.ndim), a.shape[-1])


# The forms differ in how they sum the statistics and the gradients.


def _with_sums(statistics, gradients):
  def forward(x, scale, bias, near, epsilon, activation, dtype, groups=0):
    c, x = x.shape[-1], lanes.fold(x, groups if x.ndim == 6 else 0)
    known = keep(statistics(x, scale, bias, near, epsilon))
    mean, variance, gain, offset = known
    y = precision.widen(x) * _spread(gain, x) + _spread(offset, x)
    y = y.astype(dtype)
    y = lanes.unfold(activation(y) if activation else y, c)
    return (y, mean, variance), (x, scale, *known)

  def backward(kept, d_results, epsilon, activation, dtype, groups=0):
    x, *_, gain, offset = kept
    c, dy = d_results[0].shape[-1], d_results[0].reshape(x.shape)
    d = dy
    if activation:
      y = precision.widen(x) * _spread(gain, x) + _spread(offset, x)
      (d,) = jax.vjp(activation, y.astype(dtype))[1](dy)
    d = precision.widen(d)
    slope, shift, d_scale, d_bias = gradients(kept, dy, d, epsilon, activation)
    dx = _spread(gain, x) * d
    dx += _spread(slope, x) * precision.widen(x) + _spread(shift, x)
    dx = lanes.unfold(dx.astype(x.dtype), c)
    return dx, d_scale, d_bias, jnp.zeros_like(kept[1])

  return Form(forward, backward)


def _statistics(x, scale, bias, near, epsilon):
  """Returns mean and variance, and the gain and offset that normalize x."""
  axes = _positions(x)
  away = precision.widen(x) - _spread(near.astype(precision.wide_dtype(x)), x)
  count, c = x.shape[-1] // scale.size, scale.size
  first = lanes.add_up(jnp.mean(away, axes), c) / count
  second = lanes.add_up(jnp.mean(away * away, axes), c) / count
  # E[x²] - E[x]² may come out just below zero for a constant channel.
  variance = jnp.maximum(second - first * first, 0)
  mean = near.reshape(1, -1) + first
  gain = jax.lax.rsqrt(variance + epsilon) * scale.reshape(1, -1)
  return mean, variance, gain, bias.reshape(1, -1) - mean * gain


def _gradients(kept, dy, d, epsilon, activation):
  """Returns slope and shift of x's gradient, and scale's and bias's gradients.

  The gradient of x is `gain · d + slope · x + shift`, where d is dy times the
  activation's derivative.
  """
  del dy, activation  # Kernels compute d again.
  x, scale, mean, variance, gain, _ = kept
  axes, rows = _positions(x), x.size // gain.size
  inverse = jax.lax.rsqrt(variance + epsilon)
  centered = precision.widen(x) - _spread(mean, x)
  product = lanes.add_up(jnp.sum(d * centered, axes), scale.size)
  product *= inverse  # by group, of scale
  total = lanes.add_up(jnp.sum(d, axes), scale.size)
  # A constant channel does not change with x, whatever rounding says.
  slope = jnp.where(variance > 0, -gain * product * inverse / rows, 0)
  shift = -gain * total / rows - slope * mean
  d_scale, d_bias = product.sum(axis=0), total.sum(axis=0)
  return slope, shift, d_scale.astype(scale.dtype), d_bias.astype(scale.dtype)


def _kernel_statistics(x, scale, bias, near, epsilon):
  result = jax.ShapeDtypeStruct((x.shape[0], x.shape[-1]), x.dtype)
  return native.call(
    'norm_forward',
    (result,) * 4,
    native.as_rows(x, 1),
    scale,
    bias,
    jnp.broadcast_to(near.reshape(1, -1), result.shape),
    epsilon=np.float32(epsilon),
  )


def _kernel_gradients(kept, dy, d, epsilon, activation):
  del d
  x, scale, mean, variance, gain, offset = kept
  return native.call(
    'norm_backward',
    (mean, mean, scale, scale),  # the likes of slope, shift, d_scale, d_bias
    native.as_rows(x, 1),
    native.as_rows(dy, 1),
    mean,
    variance,
    gain,
    offset,
    epsilon=np.float32(epsilon),
    activation=np.int64(KERNEL_CODES[activation]),
  )


def _kernel_takes(x, scale, bias, near, epsilon, activation, dtype):
  del scale, bias, near, epsilon
  return dtype == x.dtype and activation in KERNEL_CODES


_normalize = Operation(
  _define,
  _kernel_takes,
  xla=_with_sums(_statistics, _gradients),
  tpu=_with_sums(_statistics, _gradients),
  cpu_kernel=_with_sums(_kernel_statistics, _kernel_gradients),
)
