"""SoftPool: exponentially weighted spatial down-sampling, the thesis, 5.5.

The thesis is A. Stergiou, *Efficient Modelling Across Time of Human Actions
and Interactions*, 2021.
"""

import functools

import jax
import jax.numpy as jnp

from mtnet_jax.errors import UserError
from mtnet_jax.typing import Array, Float

_GRADIENTS = ('weights', 'exact')


def soft_pool(
  x: Float[Array, 'n t h w c'], gradient: str = 'weights'
) -> Float[Array, 'n t h2 w2 c']:
  """Halves height and width by the softmax-weighted sum of 2×2 windows.

  Per frame, channel and window with elements `a_r`: `ã = Σ_r w_r a_r`, where
  `w = softmax(a)` over the window (5.5). With an odd height or width the last
  row or column forms a smaller window over its real elements only.

  Args:
    x: activations, any float dtype, any finite range; computed in float32.
    gradient: `'weights'` sends the forward weights back, `∂ã/∂a_r := w_r`
      (Fig. 5.3); `'exact'` is the derivative, `w_r (1 + a_r - ã)`.

  Returns:
    `(n, t, ⌈h/2⌉, ⌈w/2⌉, c)` in x's dtype, each within its window's range.

  Raises:
    UserError: an unknown `gradient`.
  """
  if gradient not in _GRADIENTS:
    raise UserError(
      f'Unknown `gradient` (={gradient!r}) of soft_pool. Choose one of '
      f'{", ".join(map(repr, _GRADIENTS))}.'
    )
  return _pool(x, gradient)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool(x, gradient):
  del gradient  # Of the backward pass only.
  quarters = _quarters(_pad(x))
  largest = functools.reduce(jnp.maximum, quarters)
  exps = [jnp.exp(a - largest) for a in quarters]
  weighted = sum(a * e for a, e in zip(quarters, exps, strict=True))
  return (weighted / sum(exps)).astype(x.dtype)


def _pool_fwd(x, gradient):
  return _pool(x, gradient), x


def _pool_bwd(gradient, x, dy):
  # All elements at once rather than by quarters: were these the exponentials
  # of the forward pass again, the compiler would keep them in memory for here.
  h, w = x.shape[2:4]
  padded = _pad(x)
  largest = functools.reduce(jnp.maximum, _quarters(padded))
  exps = jnp.exp(padded - _spread(largest))
  total = sum(_quarters(exps))
  dx = exps * _spread(dy.astype(jnp.float32) / total)
  if gradient == 'exact':
    y = sum(_quarters(padded * exps)) / total
    dx *= 1 + padded - _spread(y)
  return (dx[:, :, :h, :w].astype(x.dtype),)


_pool.defvjp(_pool_fwd, _pool_bwd)


def _pad(x):
  """x in float32, with odd sizes made even.

  What is added has an exponential, and so a weight, of zero in its window.
  """
  h, w = x.shape[2:4]
  return jnp.pad(
    x.astype(jnp.float32),
    ((0, 0), (0, 0), (0, h % 2), (0, w % 2), (0, 0)),
    constant_values=jnp.finfo(jnp.float32).min,
  )


def _quarters(x):
  """The four elements of every window, each `n t h2 w2 c`."""
  return [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def _spread(y):
  """Gives every element of a window the window's value."""
  n, t, h2, w2, c = y.shape
  y = jnp.broadcast_to(y[:, :, :, None, :, None], (n, t, h2, 2, w2, 2, c))
  return y.reshape(n, t, 2 * h2, 2 * w2, c)
