"""Recurrent layers against loops of the printed equations, and PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.layers import recurrent

N, T, C, H = 2, 5, 3, 4
GATES = {
  'gru': 3,
  'gru_reset_after': 3,
  'lstm': 4,
  'peephole_lstm': 4,
  'rnn': 1,
}
CELLS = tuple(GATES)
VECTORS = {
  'gru_reset_after': ('bias_h',),
  'peephole_lstm': ('peephole_i', 'peephole_f', 'peephole_o'),
}


def build(cell, num_layers=2):
  if cell == 'gru_reset_after':
    return recurrent.build('gru', H, num_layers, reset_after=True)
  return recurrent.build(cell, H, num_layers)


def random_parameters(cell, num_layers=2, seed=0):
  """Every parameter drawn from N(0, 0.7²), biases too."""
  rng = np.random.default_rng(seed)
  width = GATES[cell] * H
  params = {}
  for i in range(num_layers):
    shapes = {
      'kernel_x': (H if i else C, width),
      'kernel_h': (H, width),
      'bias': (width,),
    }
    shapes |= dict.fromkeys(VECTORS.get(cell, ()), (H,))
    params[f'layer_{i}'] = {
      k: rng.normal(0, 0.7, s).astype(np.float32) for k, s in shapes.items()
    }
  return params


def random_input(seed=1):
  return np.random.default_rng(seed).normal(size=(N, T, C)).astype(np.float32)


def plain_step(xp, cell, p, x, h, c):
  """One frame as the thesis prints it; `xp` is numpy or jax.numpy."""

  def sigmoid(a):
    return 1 / (1 + xp.exp(-a))

  def gate(i, h):
    cols = slice(i * H, (i + 1) * H)
    return (
      x @ p['kernel_x'][:, cols]
      + h @ p['kernel_h'][:, cols]
      + p['bias'][None, cols]
    )

  if cell == 'rnn':
    return xp.tanh(gate(0, h)), c
  if cell == 'lstm':
    i, f, g, o = (gate(k, h) for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * xp.tanh(g)
    return sigmoid(o) * xp.tanh(c), c
  if cell == 'peephole_lstm':
    i = sigmoid(gate(0, h) + p['peephole_i'][None] * c)
    f = sigmoid(gate(1, h) + p['peephole_f'][None] * c)
    c = f * c + i * xp.tanh(gate(2, h))
    o = sigmoid(gate(3, h) + p['peephole_o'][None] * c)
    return o * xp.tanh(c), c
  z, r = sigmoid(gate(0, h)), sigmoid(gate(1, h))
  if cell == 'gru':
    candidate = xp.tanh(gate(2, r * h))
  else:
    recurrent_part = h @ p['kernel_h'][:, 2 * H :] + p['bias_h'][None]
    input_part = x @ p['kernel_x'][:, 2 * H :] + p['bias'][None, 2 * H :]
    candidate = xp.tanh(input_part + r * recurrent_part)
  return z * h + (1 - z) * candidate, c


def plain_network(xp, cell, params, x):
  for i in range(len(params)):
    h = c = xp.zeros((x.shape[0], H), x.dtype)
    hidden = []
    for t in range(x.shape[1]):
      h, c = plain_step(xp, cell, params[f'layer_{i}'], x[:, t], h, c)
      hidden.append(h)
    x = xp.stack(hidden, axis=1)
  return x


def in_float64(tree):
  return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


@pytest.mark.parametrize('cell', CELLS)
def test_equals_a_float64_loop_of_the_equations(cell):
  params, x = random_parameters(cell), random_input()
  got = jax.jit(build(cell).apply)({'params': params}, x)
  expected = plain_network(np, cell, in_float64(params), in_float64(x))
  assert got.shape == (N, T, H) and got.dtype == jnp.float32
  np.testing.assert_allclose(got, expected, atol=2e-6)


def test_one_lstm_step_by_hand():
  # One channel, one frame, from a zero state: h = σ(o)·tanh(σ(i)·tanh(g)),
  # and the forget gate, here wide open, has nothing to keep.
  params = {
    'layer_0': {
      'kernel_x': np.array([[0.5, 9.0, 2.0, -1.0]], np.float32),  # i f g o
      'kernel_h': np.full((1, 4), 7.0, np.float32),
      'bias': np.array([0.5, 9.0, -1.0, 1.0], np.float32),
    }
  }
  module = recurrent.build('lstm', 1, num_layers=1)
  got = module.apply({'params': params}, np.ones((1, 1, 1), np.float32))
  # i = σ(1), g = tanh(1), o = σ(0) = 1/2.
  expected = 0.5 * np.tanh(0.731058579 * 0.761594156)
  np.testing.assert_allclose(got, [[[expected]]], rtol=1e-5)


def test_two_rnn_steps_by_hand():
  # One channel: h_1 = tanh(2·1 - 1), h_2 = tanh(2·0 - 1 + 3·h_1).
  params = {
    'kernel_x': np.float32([[2.0]]),
    'kernel_h': np.float32([[3.0]]),
    'bias': np.float32([-1.0]),
  }
  module = recurrent.build('rnn', 1, num_layers=1)
  x = np.float32([1.0, 0.0]).reshape(1, 2, 1)
  got = module.apply({'params': {'layer_0': params}}, x)
  expected = [0.761594156, np.tanh(-1 + 3 * 0.761594156)]
  np.testing.assert_allclose(got.ravel(), expected, rtol=1e-6)


def test_two_peephole_lstm_steps_by_hand():
  # No weight but the peepholes and g's bias: g = tanh(1) = 0.761594156.
  params = {
    'kernel_x': np.zeros((1, 4), np.float32),
    'kernel_h': np.zeros((1, 4), np.float32),
    'bias': np.float32([0.0, 0.0, 1.0, 0.0]),  # i f g o
    'peephole_i': np.float32([2.0]),
    'peephole_f': np.float32([-3.0]),
    'peephole_o': np.float32([4.0]),
  }
  module = recurrent.build('peephole_lstm', 1, num_layers=1)
  x = np.zeros((1, 2, 1), np.float32)
  got = module.apply({'params': {'layer_0': params}}, x).ravel()
  # From zero i sees nothing: c_1 = g/2. o sees c_1, not the zero before it.
  c1 = 0.380797078
  np.testing.assert_allclose(got[0], np.tanh(c1) / (1 + np.exp(-4 * c1)), 1e-6)
  # i and f see c_1, the cell state before this step.
  c2 = c1 / (1 + np.exp(3 * c1)) + 0.761594156 / (1 + np.exp(-2 * c1))
  np.testing.assert_allclose(got[1], np.tanh(c2) / (1 + np.exp(-4 * c2)), 1e-6)


def test_peepholes_start_shut_and_learn():
  x = random_input()
  module = build('peephole_lstm', 1)
  variables = jax.jit(module.init)(jax.random.key(0), x)
  layer = variables['params']['layer_0']
  plain = {k: v for k, v in layer.items() if not k.startswith('peephole')}
  np.testing.assert_array_equal(
    module.apply(variables, x),
    build('lstm', 1).apply({'params': {'layer_0': plain}}, x),
  )

  @jax.jit
  @jax.grad
  def gradient(variables):
    return jnp.sum(jnp.square(module.apply(variables, x)))

  gradients = gradient(variables)['params']['layer_0']
  for name in VECTORS['peephole_lstm']:
    assert not np.any(layer[name])
    assert np.all(gradients[name] != 0), name


# The thesis's two; the others are slow.
MANY_CELLS = [
  pytest.param(cell, marks=[pytest.mark.slow] * (cell not in ('gru', 'lstm')))
  for cell in CELLS
]


@pytest.mark.parametrize('cell', MANY_CELLS)
def test_gradients_equal_autodiff_of_a_plain_loop(cell):
  params, x = random_parameters(cell, 1), random_input()
  weights = np.random.default_rng(2).normal(size=(N, T, H)).astype(np.float32)
  module = build(cell, 1)

  def loss(params, x, network):
    return jnp.sum(weights * jnp.square(network(params, x)))

  def gradient(network):
    return jax.jit(jax.grad(functools.partial(loss, network=network), (0, 1)))(
      params, x
    )

  got = gradient(lambda p, x: module.apply({'params': p}, x))
  expected = gradient(lambda p, x: plain_network(jnp, cell, p, x))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
    got,
    expected,
  )


@pytest.mark.parametrize('cell', MANY_CELLS)
def test_gradient_equals_finite_differences(cell):
  params, x = random_parameters(cell, 1), random_input()
  p64, x64 = in_float64(params), in_float64(x)

  def loss():
    return np.sum(np.square(plain_network(np, cell, p64, x64)))

  module = build(cell, 1)
  got = jax.grad(lambda p: jnp.sum(jnp.square(module.apply({'params': p}, x))))(
    params
  )
  for name, values in p64['layer_0'].items():
    # One element of each gate.
    for column in range(0, values.shape[-1], H):
      index = (*[1] * (values.ndim - 1), column + 1)
      values[index] += 1e-5
      above = loss()
      values[index] -= 2e-5
      below = loss()
      values[index] += 1e-5
      np.testing.assert_allclose(
        got['layer_0'][name][index],
        (above - below) / 2e-5,
        rtol=1e-4,
        atol=1e-5,
        err_msg=f'{name}{index}',
      )


def torch_order(params, cell):
  """PyTorch's rows are gates: LSTM i f g o as here, GRU r z n."""
  h = [*range(H)]
  order = [*range(GATES[cell] * H)]
  if cell == 'gru_reset_after':
    order = [H + i for i in h] + h + [2 * H + i for i in h]
  return {
    'weight_ih': params['kernel_x'].T[order],
    'weight_hh': params['kernel_h'].T[order],
    'bias_ih': params['bias'][order],
  }


@pytest.mark.slow
@pytest.mark.parametrize('cell', ['lstm', 'gru_reset_after', 'rnn'])
def test_equals_pytorch(cell):
  torch = pytest.importorskip('torch')
  params, x = random_parameters(cell), random_input()
  kind = {'lstm': 'LSTM', 'gru_reset_after': 'GRU', 'rnn': 'RNN'}[cell]
  network = getattr(torch.nn, kind)(C, H, num_layers=2, batch_first=True)
  state = {}
  for i in range(2):
    layer = params[f'layer_{i}']
    for name, value in torch_order(layer, cell).items():
      state[f'{name}_l{i}'] = torch.tensor(value)
    # Here one bias a gate; PyTorch adds a second, zero but for the candidate.
    second = np.zeros(GATES[cell] * H, np.float32)
    if cell == 'gru_reset_after':
      second[2 * H :] = layer['bias_h']
    state[f'bias_hh_l{i}'] = torch.tensor(second)
  network.load_state_dict(state)
  expected = network(torch.tensor(x))[0].detach().numpy()
  got = build(cell).apply({'params': params}, x)
  np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize('cell', CELLS)
def test_parameter_layout(cell):
  variables = jax.eval_shape(
    build(cell).init, jax.random.key(0), np.zeros((1, T, C), np.float32)
  )
  got = jax.tree.map(lambda a: a.shape, variables['params'])
  assert got == jax.tree.map(np.shape, random_parameters(cell))
  dtypes = {a.dtype for a in jax.tree.leaves(variables)}
  assert dtypes == {jnp.dtype('float32')}


def test_initialization_keeps_the_scale():
  module = recurrent.build('gru', 64, num_layers=1)
  params = jax.jit(module.init)(
    jax.random.key(0), np.zeros((1, 1, 16), np.float32)
  )
  layer = params['params']['layer_0']
  assert np.std(layer['kernel_x']) == pytest.approx(16**-0.5, rel=0.1)
  assert np.std(layer['kernel_h']) == pytest.approx(64**-0.5, rel=0.1)


def test_half_precision_input_is_computed_in_float32():
  params, x = random_parameters('gru'), random_input()
  half = jnp.asarray(x, jnp.bfloat16)
  module = build('gru')
  got = module.apply({'params': params}, half)
  assert got.dtype == jnp.float32
  expected = module.apply({'params': params}, half.astype(jnp.float32))
  np.testing.assert_array_equal(got, expected)


def test_unknown_cell_lists_the_cells():
  message = r"`cell` \(='gur'\).*'gru', 'lstm', 'peephole_lstm', 'rnn'"
  with pytest.raises(UserError, match=message):
    recurrent.build('gur', H)


def test_reset_after_is_of_the_gru_alone():
  with pytest.raises(UserError, match=r"`reset_after`.*`cell` is 'lstm'"):
    recurrent.build('lstm', H, reset_after=True)


@pytest.mark.parametrize(
  'cell, expected',
  [
    # (1 - σ(-1))·tanh(1.5), from a zero state and without input
    ('gru', 0.731059 * 0.905148),
    ('gru_reset_after', 0.731059 * 0.905148),
    # σ(2)·tanh(σ(1)·tanh(1.5))
    ('lstm', 0.880797 * np.tanh(0.731059 * 0.905148)),
    ('peephole_lstm', 0.880797 * np.tanh(0.731059 * 0.905148)),
    ('rnn', 0.905148),
  ],
)
def test_states_start_well_above_zero(cell, expected):
  module = build(cell, 1)
  x = np.zeros((1, 1, C), np.float32)
  first = module.apply(module.init(jax.random.key(0), x), x)
  np.testing.assert_allclose(first, np.full((1, 1, H), expected), rtol=1e-5)
  # Two layers, over the frames of a clip of random inputs.
  module = recurrent.build(cell.split('_reset')[0], 64, 2)
  x = np.random.default_rng(0).normal(size=(4, 8, 64)).astype(np.float32)
  hidden = module.apply(module.init(jax.random.key(0), x), x)
  assert 0.4 < np.mean(hidden[:, 2:]) < 1
