"""Squeeze and Recursion with Temporal Gates (thesis, chapter 4).

A clip's activations are pooled over space, a recurrent network follows the
pooled vectors through time, and its hidden states scale the activations. A gate
allows this only for cycle-consistent clips: those whose pooled vectors and
hidden states agree on the order of frames.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.layers import recurrent
from mtnet_jax.ops import precision
from mtnet_jax.ops.activation import scale_and_activate
from mtnet_jax.ops.mean import mean
from mtnet_jax.typing import Array, Bool, Float


def soft_nearest_neighbor(
  a: Float[Array, 'n t c'], b: Float[Array, 'n t c']
) -> Float[Array, 'n t c']:
  """Returns the soft nearest neighbor in b of every frame of a (4.6).

  `ã_t = Σ_i z_i b_i` with `z = softmax_i(-‖a_t - b_i‖²)`, the distance summed
  over channels.

  Args:
    a: an embedding of each frame, any float dtype, any range.
    b: another embedding of the same frames.

  Returns:
    float32, computed in float32.
  """
  b = precision.widen(b)
  z = jax.nn.softmax(-_squared_distances(a, b), axis=-1)  # n t i
  return jnp.einsum('nti,nic->ntc', z, b, precision=jax.lax.Precision.HIGHEST)


def cycle_consistent(
  a: Float[Array, 'n t c'], b: Float[Array, 'n t c']
) -> Bool[Array, ' n']:
  """Returns which clips' two embeddings are cycle consistent (4.3.2).

  A clip is cycle consistent if every frame t of a has its soft nearest neighbor
  in b nearest to `b_t` (4.7), and every frame of b has its own in a nearest to
  `a_t`. Among equally near frames the first counts.

  Args:
    a: an embedding of each frame, any float dtype, any range.
    b: another embedding of the same frames.
  """
  return _consistent(a, b) & _consistent(b, a)


def _consistent(a, b):
  """Whether every frame of a finds itself in b, `(n,)`."""
  distances = _squared_distances(soft_nearest_neighbor(a, b), b)  # n t i
  found = jnp.argmin(distances, axis=-1)
  return jnp.all(found == jnp.arange(a.shape[1]).reshape(1, -1), axis=-1)


def _squared_distances(a, b):
  """`‖a_t - b_i‖²`, `(n, t, i)`, float32.

  It is computed by differences, since |a|² + |b|² - 2ab loses the digits that
  tell close frames apart.
  """
  a, b = precision.widen(a), precision.widen(b)
  return jnp.sum(jnp.square(a[:, :, None] - b[:, None]), axis=-1)


# What a clip's pooled activations are compared with: the hidden states; their
# product with the pooled activations, which is what 4.3.1 calls a*; or the
# hidden states, both brought to mean 0 over time and to the same size.
GATE_EMBEDDINGS = ('hidden', 'fused', 'normalized')


def embed(
  pooled: Float[Array, 'n t c'], hidden: Float[Array, 'n t c'], kind: str
) -> tuple[Float[Array, 'n t c'], Float[Array, 'n t c']]:
  """Returns the two embeddings of a clip's frames that the gate compares.

  Args:
    pooled: activations, averaged over space.
    hidden: the recurrent network's states.
    kind: one of `GATE_EMBEDDINGS`.
  """
  if kind == 'fused':
    return pooled, pooled * hidden
  if kind == 'normalized':
    return _normalize(pooled), _normalize(hidden)
  assert kind == 'hidden', kind
  return pooled, hidden


def _normalize(x):
  """Brings frames to mean 0 over time, and a clip to deviation 1."""
  x = x - jnp.mean(x, axis=1, keepdims=True)
  deviation = jnp.sqrt(jnp.mean(jnp.square(x), axis=(1, 2), keepdims=True))
  return x / jnp.where(deviation > 0, deviation, 1)


class SqueezeAndRecursion(nn.Module):
  """Scales each frame's channels by recurrent states, where the gate is open.

  The gate has three states (Fig. 4.4). Inactive (`gate=False`): every clip is
  fused. Active and open, for a cycle consistent clip: fused too. Active and
  closed: the clip passes unchanged. A single frame is trivially consistent.

  Attributes:
    cell: `'lstm'` (chapter 4), `'gru'` (chapter 5), `'peephole_lstm'` or
      `'rnn'` (both Table 5.7).
    num_layers: stacked recurrent layers.
    gate: whether the gate is active.
    embedding: the embedding that the gate compares, one of `GATE_EMBEDDINGS`.
    decides: boolean scalar: whether the gate's decision counts; if not, it is
      only measured, and every clip is fused.
  """

  cell: str = 'lstm'
  num_layers: int = 2
  gate: bool = True
  embedding: str = 'hidden'
  decides: Bool[Array, ''] | bool = True

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n t h w c']
  ) -> tuple[Float[Array, 'n t h w c'], Float[Array, ''] | None]:
    """Returns the result in x's dtype, and the share of clips with open gates.

    The share is a float32 scalar in [0, 1], or None where no gate decides: with
    `gate=False`, and for a single frame. No gradient flows through a decision.
    """
    _, t, _, _, c = x.shape
    pooled = mean(x, 2)  # n t c
    hidden = recurrent.build(self.cell, c, self.num_layers, name='recurrence')(
      pooled
    )
    gain, share = hidden, None
    if self.gate and t > 1:
      is_open = cycle_consistent(
        *jax.lax.stop_gradient(embed(pooled, hidden, self.embedding))
      )
      fused = is_open | jnp.logical_not(self.decides)
      gain = jnp.where(fused[:, None, None], hidden, 1)
      share = jnp.mean(is_open, dtype=jnp.float32)
    gain = gain[:, :, None, None, :]
    return scale_and_activate(x, gain, None, None, x.dtype), share
