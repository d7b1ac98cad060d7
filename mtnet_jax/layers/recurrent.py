"""Recurrent layers over time, their gates in float32.

The cells of the thesis: the GRU of 5.8–5.11, the LSTM of 4.1–4.5, and the two
that Table 5.7 compares them with, the LSTM with peepholes and the plain RNN.
They share one parameter layout and one scan, and differ in a short step
function each.

What costs time is arranged once for all cells: the input projection of all
frames is one matmul before the scan, and the gradient of the recurrent kernel
is one matmul after it instead of one small sum a frame.

The thesis is A. Stergiou, *Efficient Modelling Across Time of Human Actions
and Interactions*, 2021.
"""

import functools
import types
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax import native
from mtnet_jax.errors import UserError
from mtnet_jax.layers import precision
from mtnet_jax.typing import Array, Float

# Float32 gates stay float32 on accelerators that would round products down.
_PRECISION = jax.lax.Precision.HIGHEST


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
    reset_after: the GRU's reset gate acts after the recurrent matmul, as in
      PyTorch, instead of before it, as in 5.10.
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
    reset_after: see `StackedRecurrence`.
  """

  cell: str
  features: int
  reset_after: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'n t c']) -> Float[Array, 'n t h']:
    """Returns the hidden state after every frame, float32 in (-1, 1)."""
    cell = find_cell(self.cell, self.reset_after)
    n, _, c = x.shape
    h = self.features
    gates = sum(cell.gates)
    # Not orthogonal: over a clip's few frames it changes little, and dozens of
    # QR decompositions double the time to compile a network's initialization.
    init = nn.initializers.lecun_normal()
    kernel_x = self.param('kernel_x', init, (c, gates * h), jnp.float32)
    kernel_h = self.param('kernel_h', init, (h, gates * h), jnp.float32)
    bias = self.param(
      'bias', lambda _: jnp.repeat(jnp.asarray(cell.start, jnp.float32), h)
    )
    vectors = {
      name: self.param(name, nn.initializers.zeros, (h,), jnp.float32)
      for name in cell.vectors
    }
    x = jnp.swapaxes(precision.widen(x), 0, 1)  # t n c
    inputs = jnp.matmul(x, kernel_x, precision=_PRECISION)
    inputs += bias.reshape(1, 1, -1)  # t n k·h
    if native.usable(inputs, kernel_h) and cell.step is _gru:
      hidden = _recur_natively(inputs, kernel_h)
      return jnp.swapaxes(hidden, 0, 1)
    widths = [g * h for g in cell.gates]
    kernels = tuple(
      jnp.split(kernel_h, [sum(widths[:i]) for i in range(1, len(widths))], 1)
    )
    state = (jnp.zeros((n, h), inputs.dtype),) * cell.num_states
    hidden = _recur(cell.step, kernels, inputs, vectors, state)
    return jnp.swapaxes(hidden, 0, 1)


# A step takes the states, the frame's input projection, the recurrent products
# and the extra vectors, and returns the new states, the hidden one first.
# `product(i, a)` is `a` times the i-th block of `kernel_h`.


def _gru(states, x, product, vectors):
  """The thesis, 5.8–5.11."""
  del vectors
  (h,) = states
  x_zr, x_h = jnp.split(x, [2 * h.shape[1]], axis=1)
  z, r = jnp.split(jax.nn.sigmoid(x_zr + product(0, h)), 2, axis=1)
  candidate = jnp.tanh(x_h + product(1, r * h))
  return (z * h + (1 - z) * candidate,)


def _gru_reset_after(states, x, product, vectors):
  """As `_gru`, but r scales the recurrent product: PyTorch's `nn.GRU`."""
  (h,) = states
  split = [2 * h.shape[1]]
  x_zr, x_h = jnp.split(x, split, axis=1)
  p_zr, p_h = jnp.split(product(0, h), split, axis=1)
  z, r = jnp.split(jax.nn.sigmoid(x_zr + p_zr), 2, axis=1)
  candidate = jnp.tanh(x_h + r * (p_h + vectors['bias_h'].reshape(1, -1)))
  return (z * h + (1 - z) * candidate,)


def _lstm(states, x, product, vectors):
  """The thesis, 4.1–4.5."""
  del vectors
  h, c = states
  i, f, g, o = jnp.split(x + product(0, h), 4, axis=1)
  c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _peephole_lstm(states, x, product, vectors):
  """As `_lstm`, but i and f see the cell state, o the new one (Gers et al.)."""
  h, c = states
  peephole = {name: vector.reshape(1, -1) for name, vector in vectors.items()}
  i, f, g, o = jnp.split(x + product(0, h), 4, axis=1)
  i = jax.nn.sigmoid(i + peephole['peephole_i'] * c)
  f = jax.nn.sigmoid(f + peephole['peephole_f'] * c)
  c = f * c + i * jnp.tanh(g)
  o = jax.nn.sigmoid(o + peephole['peephole_o'] * c)
  return o * jnp.tanh(c), c


def _rnn(states, x, product, vectors):
  """The plain recurrence (Elman)."""
  del vectors
  (h,) = states
  return (jnp.tanh(x + product(0, h)),)


class _Cell(NamedTuple):
  """A row of the table of cells.

  Attributes:
    step: one frame; see above.
    gates: how many gates each recurrent product feeds, in gate order.
    num_states: arrays `(n, h)` carried from frame to frame.
    start: initial bias of each gate. Squeeze and Recursion multiplies
      activations by the states. Were they to start near zero, so would every
      branch, and little would be learned at first; they start well above it.
    vectors: names of parameters `(h,)` beyond those that all cells have.
  """

  step: Callable
  gates: tuple[int, ...]
  num_states: int
  start: tuple[float, ...]
  vectors: tuple[str, ...] = ()


_GRU_START = (-1.0, 0.0, 1.5)
_LSTM_START = (1.0, 1.0, 1.5, 2.0)
_CELLS = types.MappingProxyType(
  {
    'gru': _Cell(_gru, gates=(2, 1), num_states=1, start=_GRU_START),
    'lstm': _Cell(_lstm, gates=(4,), num_states=2, start=_LSTM_START),
    'peephole_lstm': _Cell(
      _peephole_lstm,
      gates=(4,),
      num_states=2,
      start=_LSTM_START,
      vectors=('peephole_i', 'peephole_f', 'peephole_o'),
    ),
    'rnn': _Cell(_rnn, gates=(1,), num_states=1, start=(1.5,)),
  }
)
_GRU_RESET_AFTER = _Cell(
  _gru_reset_after,
  gates=(3,),
  num_states=1,
  start=_GRU_START,
  vectors=('bias_h',),
)


def find_cell(cell: str, reset_after: bool = False) -> _Cell:
  """Returns the cell's row of the table.

  Raises:
    UserError: an unknown cell, or `reset_after` with another cell than a GRU.
  """
  if cell not in _CELLS:
    raise UserError(
      f'Unknown recurrent `cell` (={cell!r}). Choose one of '
      f'{", ".join(map(repr, _CELLS))}.'
    )
  if reset_after and cell != 'gru':
    raise UserError(
      f'`reset_after` is a form of the GRU, but `cell` is {cell!r}. Leave '
      "`reset_after` out, or choose `cell='gru'`."
    )
  return _GRU_RESET_AFTER if reset_after else _CELLS[cell]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recur(step, kernels, inputs, vectors, states):
  """Returns the hidden state after each frame, `(t, n, h)`."""
  zeros = _zero_shifts(kernels, inputs)
  return _scan(step, kernels, inputs, vectors, states, zeros)[0]


def _recur_fwd(step, kernels, inputs, vectors, states):
  def run(inputs, vectors, states, shifts):
    return _scan(step, kernels, inputs, vectors, states, shifts)

  hidden, vjp, factors = jax.vjp(
    run, inputs, vectors, states, _zero_shifts(kernels, inputs), has_aux=True
  )
  return hidden, (vjp, factors)


def _recur_bwd(step, residuals, d_hidden):
  del step
  vjp, factors = residuals
  d_inputs, d_vectors, d_states, d_shifts = vjp(d_hidden)
  # A product p = a @ K + shift has dK = aᵀ dp and dp = d shift, so that the sum
  # over frames is one matmul here and no part of the scan.
  d_kernels = tuple(
    jnp.einsum('tni,tnj->ij', a, d, precision=_PRECISION)
    for a, d in zip(factors, d_shifts, strict=True)
  )
  return d_kernels, d_inputs, d_vectors, d_states


_recur.defvjp(_recur_fwd, _recur_bwd)


@jax.custom_vjp
def _recur_natively(inputs, kernel):
  """`_recur` of a GRU, by the kernel in C++."""
  return _recur_natively_fwd(inputs, kernel)[0]


def _recur_natively_fwd(inputs, kernel):
  t, n, width = inputs.shape
  results = [
    jax.ShapeDtypeStruct((t, n, size), inputs.dtype)
    for size in (kernel.shape[0], width)
  ]
  hidden, gates = native.call('gru_forward', results, inputs, kernel)
  return hidden, (hidden, gates, kernel)


def _recur_natively_bwd(residuals, d_hidden):
  hidden, gates, kernel = residuals
  d_inputs = native.call('gru_backward', gates, d_hidden, *residuals)
  h = kernel.shape[0]
  before = jnp.concatenate([jnp.zeros_like(hidden[:1]), hidden[:-1]])
  r = gates[:, :, h : 2 * h]
  d_kernel = [
    jnp.einsum('tni,tnj->ij', a, d, precision=_PRECISION)
    for a, d in (
      (before, d_inputs[:, :, : 2 * h]),
      (r * before, d_inputs[:, :, 2 * h :]),
    )
  ]
  return d_inputs, jnp.concatenate(d_kernel, axis=1)


_recur_natively.defvjp(_recur_natively_fwd, _recur_natively_bwd)


def _zero_shifts(kernels, inputs):
  """Zeros to add to each recurrent product, to catch its gradient."""
  t, n, _ = inputs.shape
  return tuple(jnp.zeros((t, n, k.shape[1]), k.dtype) for k in kernels)


def _scan(step, kernels, inputs, vectors, states, shifts):
  """Returns the hidden states, and the left factors of the products."""

  def body(states, frame):
    x, shift = frame
    factors = {}

    def product(i, a):
      factors[i] = a
      return jnp.matmul(a, kernels[i], precision=_PRECISION) + shift[i]

    states = step(states, x, product, vectors)
    return states, (states[0], tuple(factors[i] for i in sorted(factors)))

  _, (hidden, factors) = jax.lax.scan(body, states, (inputs, shifts))
  return hidden, factors
