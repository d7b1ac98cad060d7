"""Recurrent layers over time, their gates in float32.

The input projection of all frames is one matmul before the recurrence.
"""

import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.layers.parameters import parameter
from mtnet_jax.ops import precision
from mtnet_jax.ops.recurrence import PRECISION, find_cell, recur
from mtnet_jax.typing import Array, Float


def build(
  cell: str, features: int, num_layers: int = 2, **kw
) -> 'StackedRecurrence':
  """Returns recurrent layers `(n, t, c) -> (n, t, features)`.

  Args:
    cell: `'gru'`, `'lstm'`, `'peephole_lstm'` or `'rnn'`.
    features: width of the hidden state of every layer.
    num_layers: layers, each reading the hidden states of the one before.
    **kw: `reset_after` of the GRU, or `name` of the linen module.

  Raises:
    UserError: an unknown cell, or `reset_after` with another cell than a GRU.
  """
  find_cell(cell, kw.get('reset_after', False))
  return StackedRecurrence(cell, features, num_layers, **kw)


class StackedRecurrence(nn.Module):
  """Recurrent layers on top of each other, named `layer_0`, `layer_1`, ...

  Attributes:
    cell: `'gru'`, `'lstm'`, `'peephole_lstm'` or `'rnn'`.
    features: width of the hidden state of every layer.
    num_layers: layers, 2 in the thesis (5.3.2, 8.1.1).
    reset_after: whether the GRU's reset gate acts after the recurrent matmul,
      as in PyTorch, instead of before it, as in 5.10.
  """

  cell: str
  features: int
  num_layers: int = 2
  reset_after: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'n t c']) -> Float[Array, 'n t h']:
    """Returns the hidden states of the last layer, float32 in (-1, 1)."""
    for i in range(self.num_layers):
      x = RecurrentLayer(
        self.cell, self.features, self.reset_after, name=f'layer_{i}'
      )(x)
    return x


class RecurrentLayer(nn.Module):
  """One recurrent layer, from a zero state.

  Parameters, all float32, for k gates of width h: `kernel_x (c, k·h)`,
  `kernel_h (h, k·h)`, `bias (k·h,)`; gate order GRU z r h, both LSTMs i f g o,
  RNN its one. Two forms have vectors `(h,)` besides, which start at zero: with
  `reset_after` a GRU has `bias_h`, added to the candidate's recurrent product
  before the reset gate; the LSTM with peepholes has `peephole_i`, `peephole_f`
  and `peephole_o`, and so starts as the plain one.

  Attributes:
    cell: `'gru'`, `'lstm'`, `'peephole_lstm'` or `'rnn'`.
    features: h, the width of the hidden state.
    reset_after: place of the GRU's reset gate, see `StackedRecurrence`.
  """

  cell: str
  features: int
  reset_after: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'n t c']) -> Float[Array, 'n t h']:
    """Returns the hidden state after every frame, float32 in (-1, 1)."""
    cell = find_cell(self.cell, self.reset_after)
    c, h = x.shape[2], self.features
    gates = sum(cell.gates)
    # Not orthogonal: over a clip's few frames it changes little, and dozens of
    # QR decompositions double the time to compile a network's initialization.
    init = nn.initializers.lecun_normal()
    kernel_x = parameter(self, 'kernel_x', init, (c, gates * h))
    kernel_h = parameter(self, 'kernel_h', init, (h, gates * h))
    bias = parameter(
      self,
      'bias',
      lambda _, shape, dtype: jnp.repeat(jnp.asarray(cell.start, dtype), h),
      (gates * h,),
    )
    vectors = {
      name: parameter(self, name, nn.initializers.zeros, (h,))
      for name in cell.vectors
    }
    x = jnp.swapaxes(precision.widen(x), 0, 1)  # t n c
    inputs = jnp.matmul(x, kernel_x, precision=PRECISION)
    inputs += bias.reshape(1, 1, -1)  # t n k·h
    return jnp.swapaxes(recur(cell, inputs, kernel_h, vectors), 0, 1)
