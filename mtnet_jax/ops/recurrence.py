"""Recurrent cells, and the scan that carries them over a clip's frames.

The cells of the thesis: the GRU of 5.8–5.11, the LSTM of 4.1–4.5, and the two
that Table 5.7 compares them with, the LSTM with peepholes and the plain RNN.
They share one parameter layout and one scan, and differ in a short step
function each.

The gradient of the recurrent kernel is one matmul after the scan instead of one
small sum a frame.
"""

import functools
import types
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtnet_jax.errors import UserError
from mtnet_jax.ops import native
from mtnet_jax.ops.forms import Form, Operation, keep
from mtnet_jax.typing import Array, Float

# Float32 gates stay float32 on accelerators that would round products down.
PRECISION = jax.lax.Precision.HIGHEST


# A GPU launches kernels for the loop itself besides those of the frames: the
# more frames the loop's body has, the fewer such launches.
_FRAMES_OF_A_BODY = 4

# A step takes the states, the frame's input projection, the recurrent products
# and the extra vectors, and returns the new states, the hidden one first.
# `product(i, a)` is `a` times the i-th block of the recurrent kernel.


def _gru(states, x, product, vectors):
  """The thesis, 5.8–5.11."""
  del vectors
  (h,) = states
  x_zr, x_h = jnp.split(x, [2 * h.shape[1]], axis=1)
  z, r = jnp.split(jax.nn.sigmoid(x_zr + product(0, h)), 2, axis=1)
  candidate = jnp.tanh(x_h + product(1, r * h))
  return (z * h + (1 - z) * candidate,)


def _gru_reset_after(states, x, product, vectors):
  """Steps as `_gru`, but r scales the recurrent product: PyTorch's `nn.GRU`."""
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
  """Steps as `_lstm`, but i, f see the cell state, o the new (Gers et al.)."""
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


class Cell(NamedTuple):
  """A row of the table of cells.

  Attributes:
    step: one frame; see above.
    gates: numbers of gates that each recurrent product feeds, in gate order.
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
    'gru': Cell(_gru, gates=(2, 1), num_states=1, start=_GRU_START),
    'lstm': Cell(_lstm, gates=(4,), num_states=2, start=_LSTM_START),
    'peephole_lstm': Cell(
      _peephole_lstm,
      gates=(4,),
      num_states=2,
      start=_LSTM_START,
      vectors=('peephole_i', 'peephole_f', 'peephole_o'),
    ),
    'rnn': Cell(_rnn, gates=(1,), num_states=1, start=(1.5,)),
  }
)
_GRU_RESET_AFTER = Cell(
  _gru_reset_after,
  gates=(3,),
  num_states=1,
  start=_GRU_START,
  vectors=('bias_h',),
)


def find_cell(cell: str, reset_after: bool = False) -> Cell:
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


def recur(
  cell: Cell,
  inputs: Float[Array, 't n k'],
  kernel: Float[Array, 'h k'],
  vectors: Mapping[str, Float[Array, ' h']],
) -> Float[Array, 't n h']:
  """Returns the hidden state after each frame, from a zero state.

  Args:
    cell: a row of the table of cells, from `find_cell`.
    inputs: each frame's projection with its bias, all gates in their order.
    kernel: weights of the recurrent products, all gates in their order.
    vectors: the cell's further parameters by name.
  """
  if cell.step is _gru:
    return _recur_gru(inputs, kernel)
  return _recur_any(inputs, kernel, vectors, cell=cell)


def _zero_states(cell, inputs, kernel):
  return (jnp.zeros((inputs.shape[1], len(kernel)), inputs.dtype),) * (
    cell.num_states
  )


def _blocks(cell, kernel):
  """Returns the parts of the kernel for the recurrent products, in order."""
  widths = [g * len(kernel) for g in cell.gates]
  ends = [sum(widths[:i]) for i in range(1, len(widths))]
  return tuple(jnp.split(kernel, ends, axis=1))


def _define(inputs, kernel, vectors, cell):
  """Computes frame after frame, each with its own products."""
  blocks, hidden = _blocks(cell, kernel), []
  states = _zero_states(cell, inputs, kernel)

  def product(i, a):
    return jnp.matmul(a, blocks[i], precision=PRECISION)

  for x in inputs:
    states = cell.step(states, x, product, vectors)
    hidden.append(states[0])
  return jnp.stack(hidden)


def _scan_frames(inputs, kernel, vectors, cell, unroll=1):
  states, kernels = _zero_states(cell, inputs, kernel), _blocks(cell, kernel)
  return _recur(cell.step, unroll, kernels, inputs, vectors, states)


_recur_any = Operation(
  _define,
  xla=_scan_frames,
  gpu=functools.partial(_scan_frames, unroll=_FRAMES_OF_A_BODY),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recur(step, unroll, kernels, inputs, vectors, states):
  """Returns the hidden state after each frame, `(t, n, h)`."""
  zeros = _zero_shifts(kernels, inputs)
  return _scan(step, unroll, kernels, inputs, vectors, states, zeros)[0]


def _recur_fwd(step, unroll, kernels, inputs, vectors, states):
  def run(inputs, vectors, states, shifts):
    return _scan(step, unroll, kernels, inputs, vectors, states, shifts)

  hidden, vjp, factors = jax.vjp(
    run, inputs, vectors, states, _zero_shifts(kernels, inputs), has_aux=True
  )
  return keep((hidden, (vjp, factors)))


def _recur_bwd(step, unroll, residuals, d_hidden):
  del step, unroll
  vjp, factors = residuals
  d_inputs, d_vectors, d_states, d_shifts = vjp(d_hidden)
  # A product p = a @ K + shift has dK = aᵀ dp and dp = d shift, so that the sum
  # over frames is one matmul here and no part of the scan.
  d_kernels = tuple(
    jnp.einsum('tni,tnj->ij', a, d, precision=PRECISION)
    for a, d in zip(factors, d_shifts, strict=True)
  )
  return d_kernels, d_inputs, d_vectors, d_states


_recur.defvjp(_recur_fwd, _recur_bwd)


def _zero_shifts(kernels, inputs):
  """Returns zeros to add to each recurrent product, to catch its gradient."""
  t, n, _ = inputs.shape
  return tuple(jnp.zeros((t, n, k.shape[1]), k.dtype) for k in kernels)


def _scan(step, unroll, kernels, inputs, vectors, states, shifts):
  """Returns the hidden states, and the left factors of the products."""

  def body(states, frame):
    x, shift = frame
    factors = {}

    def product(i, a):
      factors[i] = a
      return jnp.matmul(a, kernels[i], precision=PRECISION) + shift[i]

    states = step(states, x, product, vectors)
    return states, (states[0], tuple(factors[i] for i in sorted(factors)))

  _, (hidden, factors) = jax.lax.scan(
    body, states, (inputs, shifts), unroll=unroll
  )
  return hidden, factors


# All forms of the GRU keep the hidden states, the gates z, r and the candidate,
# and the kernel.


def _define_gru(inputs, kernel):
  return _define(inputs, kernel, {}, find_cell('gru'))


# Splits and joins in the loop's body are operations of their own in each frame.


def _gru_scan_forward(inputs, kernel, unroll=1):
  n, h = inputs.shape[1], len(kernel)
  kernel_zr, kernel_c = jnp.split(kernel, [2 * h], axis=1)

  def body(state, x):
    x_zr, x_c = x
    recurrent = jnp.matmul(state, kernel_zr, precision=PRECISION)
    zr = jax.nn.sigmoid(x_zr + recurrent)
    z, r = jnp.split(zr, 2, axis=1)
    product = jnp.matmul(r * state, kernel_c, precision=PRECISION)
    candidate = jnp.tanh(x_c + product)
    state = z * state + (1 - z) * candidate
    return state, (state, zr, candidate)

  zeros = jnp.zeros((n, h), inputs.dtype)
  split = tuple(jnp.split(inputs, [2 * h], axis=2))
  _, (hidden, zr, candidate) = jax.lax.scan(body, zeros, split, unroll=unroll)
  gates = jnp.concatenate([zr, candidate], axis=2)
  return keep((hidden, (hidden, gates, kernel)))


def _gru_scan_backward(kept, d_hidden, unroll=1):
  hidden, gates, kernel = kept
  h = len(kernel)
  kernel_zr, kernel_c = jnp.split(kernel.T, [2 * h])

  def body(d_state, frame):
    d_own, z, r, candidate, before = frame
    d_state = d_state + d_own
    dz = d_state * (before - candidate) * z * (1 - z)
    dc = d_state * (1 - z) * (1 - candidate * candidate)
    d_product = jnp.matmul(dc, kernel_c, precision=PRECISION)
    dr = d_product * before * r * (1 - r)
    d_zr = jnp.concatenate([dz, dr], axis=1)
    d_state = d_state * z + d_product * r
    d_state += jnp.matmul(d_zr, kernel_zr, precision=PRECISION)
    return d_state, (d_zr, dc)

  frames = d_hidden, *jnp.split(gates, 3, axis=2), _before(hidden)
  zeros = jnp.zeros_like(hidden[0])
  _, d_inputs = jax.lax.scan(body, zeros, frames, reverse=True, unroll=unroll)
  d_inputs = jnp.concatenate(d_inputs, axis=2)
  return d_inputs, _gru_kernel_gradient(hidden, gates, d_inputs)


def _gru_kernel_forward(inputs, kernel):
  t, n, width = inputs.shape
  results = [
    jax.ShapeDtypeStruct((t, n, size), inputs.dtype)
    for size in (len(kernel), width)
  ]
  hidden, gates = native.call('gru_forward', results, inputs, kernel)
  return hidden, (hidden, gates, kernel)


def _gru_kernel_backward(kept, d_hidden):
  hidden, gates, kernel = kept
  d_inputs = native.call('gru_backward', gates, d_hidden, hidden, gates, kernel)
  return d_inputs, _gru_kernel_gradient(hidden, gates, d_inputs)


def _before(hidden):
  """Returns the state before each frame."""
  return jnp.concatenate([jnp.zeros_like(hidden[:1]), hidden[:-1]])


def _gru_kernel_gradient(hidden, gates, d_inputs):
  h = hidden.shape[2]
  before, r = _before(hidden), gates[:, :, h : 2 * h]
  parts = [
    jnp.einsum('tni,tnj->ij', a, d, precision=PRECISION)
    for a, d in (
      (before, d_inputs[:, :, : 2 * h]),
      (r * before, d_inputs[:, :, 2 * h :]),
    )
  ]
  return jnp.concatenate(parts, axis=1)


_recur_gru = Operation(
  _define_gru,
  xla=Form(_gru_scan_forward, _gru_scan_backward),
  gpu=Form(
    functools.partial(_gru_scan_forward, unroll=_FRAMES_OF_A_BODY),
    functools.partial(_gru_scan_backward, unroll=_FRAMES_OF_A_BODY),
  ),
  cpu_kernel=Form(_gru_kernel_forward, _gru_kernel_backward),
)
