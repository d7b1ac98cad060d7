"""Poolings of the prolonged branch (thesis, Table 5.8).

The symmetric ones pool windows of frames, rows and columns; those with `+cos`
pool rows and columns alone and choose frames by the temporal triplet cosine.
"""

import itertools

import jax
import jax.numpy as jnp

from mtnet_jax.errors import UserError
from mtnet_jax.ops import precision
from mtnet_jax.ops.frame_selection import gather_frames
from mtnet_jax.ops.soft_pool import soft_pool, soft_pool_with_residual
from mtnet_jax.typing import Array, Float, Int

POOLINGS = ('avg', 'max', 'stochastic', 'softpool', 'avg+cos', 'softpool+cos')


def split_pooling(pooling: str) -> tuple[str, bool]:
  """Returns the kind of a pooling's windows, and whether it selects frames.

  Args:
    pooling: one of `POOLINGS`.

  Raises:
    UserError: an unknown pooling.
  """
  if pooling not in POOLINGS:
    raise UserError(
      f'Unknown `pooling` (={pooling!r}) of MTConv. Choose one of '
      f'{", ".join(map(repr, POOLINGS))}.'
    )
  kind, _, selection = pooling.partition('+')
  return kind, bool(selection)


def pool(
  x: Float[Array, 'n t h w c'],
  kind: str,
  window: tuple[int, int, int] = (2, 2, 2),
  key: Array | None = None,
) -> Float[Array, 'n t2 h2 w2 c']:
  """Returns one value a window and channel, a weighted sum `Σ_r w_r a_r`.

  The weights w are the same for all elements (`'avg'`), 1 for the first of the
  largest (`'max'`), as `soft_pool` has them (`'softpool'`), or proportional to
  softplus(a) (`'stochastic'`). With a key a stochastic window draws one of its
  elements with these probabilities; without, it takes their expectation. Where
  a window does not divide a size, the last one is smaller, over its real
  elements only.

  Gradients are the derivatives, but for `'softpool'`, where they are the
  weights (Fig. 5.3). That of a drawn element flows to it alone.

  Args:
    x: activations, any float dtype; computed in float32, where the sum of a
      window's magnitudes must be finite.
    kind: `'avg'`, `'max'`, `'stochastic'` or `'softpool'`.
    window: size of a window in frames, rows, columns.
    key: random key of the draws in training; None in evaluation.

  Returns:
    `⌈size / window⌉` frames, rows and columns in x's dtype.
  """
  if kind == 'softpool':
    return soft_pool(x, window=window)
  a = _elements(precision.widen(x), window)  # r n t2 h2 w2 c
  real = _elements(jnp.ones((1, *x.shape[1:4], 1)), window) > 0
  if kind == 'avg':
    weights = real / jnp.sum(real, axis=0, keepdims=True)
  elif kind == 'max':
    first = jnp.argmax(jnp.where(real, a, -jnp.inf), axis=0)
    weights = jax.nn.one_hot(first, len(a), axis=0)
  else:
    assert kind == 'stochastic', kind
    weights = jax.nn.softmax(jnp.where(real, _log_softplus(a), -jnp.inf), 0)
    if key is not None:
      weights = _draw(key, weights)
  return jnp.sum(weights * a, axis=0).astype(x.dtype)


def pool_with_residual(
  x: Float[Array, 'n t h w c'],
  kind: str,
  frames: Int[Array, 'n k'] | None = None,
) -> tuple[Float[Array, 'n t h w c'], Float[Array, 'n k h2 w2 c']]:
  """Returns x, for its other uses, and frames of it at half the size.

  Args:
    x: activations, any float dtype, of magnitudes as `pool` takes them.
    kind: `'avg'`, `'max'` or `'softpool'`.
    frames: indices in [0, t) of the frames of each clip that are pooled, in
      their order, none twice; None: all.
  """
  if kind == 'softpool':
    return soft_pool_with_residual(x, frames)
  chosen = x if frames is None else gather_frames(x, frames)
  return x, pool(chosen, kind, (1, 2, 2))


def _elements(x, window):
  """Returns the elements of every window, `r n t2 h2 w2 c`, padded by zeros."""
  pads = [(0, -size % w) for size, w in zip(x.shape[1:4], window, strict=True)]
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  n, t, h, w, c = x.shape
  st, sh, sw = window
  x = x.reshape(n, t // st, st, h // sh, sh, w // sw, sw, c)
  x = x.transpose(2, 4, 6, 0, 1, 3, 5, 7)
  return x.reshape(-1, *x.shape[3:])


def _draw(key, probabilities):
  """Draws one element of each window: it gets weight 1, and the others 0."""
  # There is one random number per window, and the element is drawn in whose
  # interval it falls. The interval of an element beyond the border is empty,
  # since its probability is exactly zero.
  above = jnp.stack([*itertools.accumulate(probabilities)])
  below = jnp.concatenate([jnp.zeros_like(above[:1]), above[:-1]])
  u = above[-1:] * jax.random.uniform(key, (1, *above.shape[1:]))
  return ((below <= u) & (u < above)).astype(u.dtype)


def _log_softplus(a):
  # Far below zero softplus(a) is exp(a), and underflows.
  softplus = jax.nn.softplus(jnp.maximum(a, -20))
  return jnp.where(a < -20, a, jnp.log(softplus))
