"""The PyTorch peers do the same work as our networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mtnet_jax import models
from mtnet_jax.analysis import cost
from mtnet_jax.layers import srtg
from mtnet_jax.ops import separated_conv

torch = pytest.importorskip('torch')
from benchmarks import torch_peers  # noqa: E402

pytestmark = [
  pytest.mark.usefixtures('quick_compilation'),
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),  # torch's own
]


def _trained(network):
  return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _clips(n, t, size, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(n, t, size, size, 3)).astype(np.float32)


def _to_torch(x):
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def _fill(network, variables):
  """Gives the peer our values; returns how many numbers it took."""
  state = network.state_dict()
  count = 0
  for path, value in traverse_util.flatten_dict(variables, sep='/').items():
    _, *modules, leaf = path.split('/')
    value = np.asarray(value)
    if 'layer_' in modules[-1]:
      layer = modules.pop()[-1]
      name = {
        'kernel_x': 'weight_ih_l',
        'kernel_h': 'weight_hh_l',
        'bias': 'bias_ih_l',
      }[leaf] + layer
      value = value.T
    else:
      name = {
        'kernel': 'weight',
        'scale': 'weight',
        'bias': 'bias',
        'mean': 'running_mean',
        'var': 'running_var',
      }[leaf]
      if value.ndim == 5:
        value = value.transpose(4, 3, 0, 1, 2)
      elif value.ndim == 2:
        value = value.T
    tensor = state['.'.join([*modules, name])]
    assert tensor.shape == value.shape, path
    tensor.copy_(torch.from_numpy(value.copy()))
    count += value.size
  return count


def test_srtg_says_what_ours_says():
  widths = (4, 6, 8, 10)
  model = models.build('srtg_r3d_18', 5, stage_features=widths)
  clips = _clips(2, 8, 16)
  shapes = jax.eval_shape(model.init, jax.random.key(0), clips)
  rng = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes
  )
  network = torch_peers.SRTGResNet(5, (2, 2, 2, 2), widths)
  filled = _fill(network, variables)
  assert filled == sum(leaf.size for leaf in jax.tree.leaves(variables))
  ours, _ = jax.jit(model.apply)(variables, clips)
  assert np.ptp(ours, axis=0).max() > 1e-3 * np.abs(ours).max()
  for layout in torch_peers.LAYOUTS.values():
    peer = torch_peers.inference(
      network.to(memory_format=layout),
      _to_torch(clips).to(memory_format=layout),
    )()
    np.testing.assert_allclose(ours, peer.numpy(), rtol=1e-4)


def test_gates_are_ours():
  rng = np.random.default_rng(0)
  a = rng.normal(size=(40, 4, 3)).astype(np.float32)
  b = a + rng.normal(size=a.shape).astype(np.float32)
  ours = np.asarray(srtg.cycle_consistent(jnp.asarray(a), jnp.asarray(b)))
  assert 0 < ours.mean() < 1
  peer = torch_peers.cycle_consistent(torch.from_numpy(a), torch.from_numpy(b))
  np.testing.assert_array_equal(ours, peer.numpy())


def test_srtg_has_as_many_parameters_as_ours():
  model = models.build('srtg_r3d_34', 400)
  with torch.device('meta'):
    network = torch_peers.srtg_r3d_34(400)
  assert _trained(network) == cost.parameter_count(model, (16, 112, 112, 3))


def test_x3d_has_as_many_parameters_as_ours():
  pytest.importorskip('pytorchvideo')
  model = models.build('x3d_m', 400)
  network = torch_peers.x3d_m(400, 4, 32)
  assert _trained(network) == cost.parameter_count(model, (4, 32, 32, 3))
  logits = torch_peers.inference(network, _to_torch(_clips(1, 4, 32)))()
  assert logits.shape == (1, 400)


@pytest.mark.parametrize('strides', [(1, 1, 1), (1, 2, 2)])
def test_separated_conv_is_ours(strides):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 4, 6, 7, 3)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 3, 1, 3)).astype(np.float32)
  ours = separated_conv.channel_separated_conv3d(
    jnp.asarray(x), jnp.asarray(kernel), strides
  )
  peer = torch_peers.separated_conv(
    _to_torch(x), torch.from_numpy(kernel.transpose(4, 3, 0, 1, 2)), strides
  )
  np.testing.assert_allclose(
    np.moveaxis(ours, -1, 1), peer.numpy(), rtol=1e-5, atol=1e-5
  )


def test_a_step_follows_momentum_and_decay_by_hand():
  network = torch.nn.Linear(2, 2, bias=False)
  with torch.no_grad():
    network.weight.zero_()
  step = torch_peers.train_step(
    network, torch.tensor([[1.0, 0.0]]), torch.tensor([0])
  )
  assert step().item() == pytest.approx(np.log(2))
  # Probabilities are a half each: gradients -1/2 and 1/2 of the first column.
  first = np.array([[0.005, 0.0], [-0.005, 0.0]])
  np.testing.assert_allclose(network.weight.detach(), first, rtol=1e-6)
  step()
  p = 1 / (1 + np.exp(-0.01))
  gradient = np.array([[p - 1, 0], [1 - p, 0]]) + 5e-5 * first
  momentum = 0.9 * np.array([[-0.5, 0], [0.5, 0]]) + gradient
  np.testing.assert_allclose(
    network.weight.detach(), first - 0.01 * momentum, rtol=1e-5
  )
