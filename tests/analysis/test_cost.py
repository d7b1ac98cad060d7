"""Parameters, multiply-adds and activations by hand, and the command."""

import collections
import json
import math

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from flax import linen as nn
from jax.extend.core import jaxprs_in_params

from mtnet_jax import models
from mtnet_jax.analysis import cost
from mtnet_jax.commands import cost as cost_command
from mtnet_jax.errors import UserError
from mtnet_jax.layers import mtconv, recurrent, srtg
from mtnet_jax.layers.class_regularization import ClassRegularization
from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.mtconv import MTConv
from mtnet_jax.layers.norm import BatchNorm
from mtnet_jax.layers.srtg import SqueezeAndRecursion
from mtnet_jax.models.mtnet import SqueezeExcitation
from mtnet_jax.ops import forms
from tests import command_line


class EveryKindOfLayer(nn.Module):
  """A strided and a channel-separated layer, a recurrence, a classifier."""

  @nn.compact
  def __call__(self, x):
    x = Conv3D(4, (1, 3, 3), (1, 2, 2))(x)
    x = BatchNorm(use_running_average=True)(x)
    x = Conv3D(4, (3, 3, 3), groups=4)(x)
    x = recurrent.build('gru', 5, num_layers=2)(x.mean(axis=(2, 3)))
    return nn.Dense(7)(x.mean(axis=1))


class Regularized(nn.Module):
  """Class Regularisation of a convolution by a classifier."""

  @nn.compact
  def __call__(self, x):
    classifier = Classifier(4, 7)
    x = Conv3D(5, (1, 1, 1))(x)
    x, *_ = ClassRegularization(0.5)(x, classifier.kernel.T)
    return classifier(Conv3D(4, (1, 1, 1))(x).mean(axis=(1, 2, 3)))


CLIP = (6, 9, 8, 3)  # after the stride 6 × 5 × 4
POSITIONS = 6 * 9 * 8


def test_macs_by_hand():
  expected = {
    'Conv3D_0': (6 * 5 * 4) * (3 * 9 * 4),  # dense: positions × kernel
    'BatchNorm_0': 0,
    'Conv3D_1': (6 * 5 * 4) * (27 * 4),  # channel-separated
    # Of each layer the input and the recurrent products.
    'StackedRecurrence_0': 6 * (4 * 15 + 5 * 15) + 6 * (5 * 15 + 5 * 15),
    'Dense_0': 5 * 7,
  }
  modules = cost.count(EveryKindOfLayer(), CLIP).modules
  assert {name: m.macs for name, m in modules.items()} == expected
  assert list(modules) == list(expected)  # in the order of their calls
  got = cost.macs(EveryKindOfLayer(), CLIP)
  assert got == sum(expected.values()) and isinstance(got, int)


def test_macs_of_class_regularization():
  expected = (
    POSITIONS * (3 * 5 + 5 * 4)
    + 7 * 4 * 5  # the maps of seven classes
    + 7 * 5  # their scores
    + 4 * 7  # the classifier, once
  )
  assert cost.macs(Regularized(), CLIP) == expected


def test_parameters_by_hand():
  expected = {
    'Conv3D_0': 3 * 9 * 4,
    'BatchNorm_0': 2 * 4,  # the moving statistics do not count
    'Conv3D_1': 27 * 4,
    'StackedRecurrence_0': (4 * 15 + 5 * 15 + 15) + (5 * 15 + 5 * 15 + 15),
    'Dense_0': 5 * 7 + 7,
  }
  modules = cost.count(EveryKindOfLayer(), CLIP).modules
  assert {name: m.parameters for name, m in modules.items()} == expected
  got = cost.parameter_count(EveryKindOfLayer(), CLIP)
  assert got == sum(expected.values()) and isinstance(got, int)


@pytest.mark.parametrize(
  ('cell', 'gates'), [('gru', 3), ('lstm', 4), ('peephole_lstm', 4), ('rnn', 1)]
)
def test_squeeze_and_recursion_with_every_cell(cell, gates):
  # Two layers as wide as the clip; peepholes are element-wise.
  expected = 2 * 6 * gates * (3 * 3 + 3 * 3)
  assert cost.macs(SqueezeAndRecursion(cell), CLIP) == expected


def test_squeeze_and_excitation():
  # 3 / 16 is rounded to 8 hidden channels.
  assert cost.macs(SqueezeExcitation(), CLIP) == 3 * 8 + 8 * 3


def test_dense_mtconv():
  # 5 channels locally, 3 in the prolonged branch at half of every size.
  layer = MTConv(8, (3, 3, 3), (1, 2, 2), local_ratio=5 / 8)
  prolonged = 3 * 3 * 2  # of 3×5×4 pooled frames, the stride takes half
  pooled_local = 3 * 3 * 2  # of 6×5×4
  expected = (
    (6 * 5 * 4) * (27 * 3 * 5)
    + prolonged * (27 * 3 * 3)
    + pooled_local * (5 * 3)  # the point-wise term
  )
  assert cost.macs(layer, CLIP) == expected


def test_channel_separated_mtconv():
  layer = MTConv(8, (3, 3, 3), local_ratio=5 / 8, channel_separated=True)
  half = 3 * 3 * 2
  expected = (6 * 5 * 4) * (27 * 5) + half * (27 * 3) + half * (5 * 3)
  assert cost.macs(layer, (6, 5, 4, 8)) == expected


def test_block_of_mtnet():
  model = models.build('mtnet_xs', 5).copy(blocks=(1, 0, 0, 0))
  # 16 channels of the stem to 32 (28 + 4), and to 16 (14 + 2); at 8 × 16².
  whole, strided, quarter = 8 * 16 * 16, 8 * 8 * 8, 4 * 8 * 8
  small = 4 * 4 * 4  # where the prolonged branch meets the strided clip
  expected = (
    whole * 16 * 28 + quarter * (16 * 4 + 28 * 4)  # expand
    + strided * 27 * 28 + small * (27 * 4 + 28 * 4)  # separated
    + strided * 32 * 14 + small * (32 * 2 + 14 * 2)  # project
    + 2 * 8 * 3 * (16 * 16 + 16 * 16)  # two layers of a GRU
    + strided * 16 * 16  # shortcut
  )  # fmt: skip
  modules = cost.count(model, (8, 32, 32, 3)).modules
  assert modules['stage_1_block_1'].macs == expected


def test_plain_sums_of_a_network_stage_by_stage():
  # X3D-S's stem and head, the parts that no block repeats, at 13×160².
  half = 13 * 80 * 80
  stem = half * (27 * 24) + half * (5 * 24)
  head = 13 * 5 * 5 * (192 * 432) + 432 * 2048 + 2048 * 400
  model = models.build('x3d_s', 400)
  without_blocks = model.copy(blocks=(0, 0, 0, 0))
  # Without blocks the head's convolution sees the stem.
  got = cost.macs(without_blocks, (13, 160, 160, 3))
  assert got == stem + head - 13 * 5 * 5 * (192 * 432) + half * (24 * 432)


def test_frames_scale_the_macs_not_the_parameters():
  model = models.build('mtnet_xs', 5, recurrence=False)
  a, b = (8, 32, 32, 3), (16, 32, 32, 3)
  assert cost.parameter_count(model, a) == cost.parameter_count(model, b)
  head = 96 * 128 + 128 * 5
  assert cost.macs(model, b) - head == 2 * (cost.macs(model, a) - head)


def test_nothing_is_allocated():
  before = sum(a.nbytes for a in jax.live_arrays())
  cost.macs(models.build('r3d_18', 400), (16, 112, 112, 3))
  after = sum(a.nbytes for a in jax.live_arrays())
  assert after - before < 10_000  # the network has 133 MB


class TwoLayers(nn.Module):
  """A convolution and its BN, and an activation in between that is no layer."""

  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x):
    x = nn.relu(Conv3D(4, (1, 3, 3), (1, 2, 2), dtype=self.dtype)(x))
    return BatchNorm(use_running_average=True)(x)


@pytest.mark.parametrize(('dtype', 'size'), [('float32', 4), ('bfloat16', 2)])
def test_activations_by_hand(dtype, size):
  costs = cost.count(TwoLayers(jnp.dtype(dtype)), CLIP)
  outputs = 6 * 5 * 4 * 4
  assert costs.modules['Conv3D_0'].activation_bytes == outputs * size
  assert costs.modules['BatchNorm_0'].activation_bytes == outputs * size
  assert costs.total.activation_bytes == 2 * outputs * size
  assert costs.largest_layer_bytes == (POSITIONS * 3 + outputs) * size


def test_gates_stay_float32():
  # The convolution's two bytes, the recurrence's four.
  costs = cost.count(
    models.build('mtnet_xs', 5, dtype='bfloat16'), (8, 32, 32, 3)
  )
  assert costs.modules['stem_norm'].activation_bytes == 8 * 16 * 16 * 16 * 2
  assert costs.modules['linear'].activation_bytes == 128 * 4


# A network of each family; where blocks only repeat, with fewer. Edges that are
# repeated are convolved and thrown away: no part of the mathematical shape.
FAMILIES = (
  ('mtnet_xs', {'class_regularization': True, 'repeat_edges': False}),
  ('x3d_s', {}),
  ('r3d_18', {}),
  ('r2plus1d_18', {'class_regularization': True}),
  ('srtg_r3d_18', {}),
  ('mt_r3d_50', {}),
)


@pytest.mark.parametrize(('name', 'overrides'), FAMILIES)
def test_modules_against_the_operations_of_the_program(
  name, overrides, monkeypatch
):
  """Every product in the network's program, whatever layer it belongs to."""
  model = models.build(name, 5, **overrides)
  if name == 'x3d_s':
    model = model.copy(blocks=(2, 2, 2, 2))
  if name == 'mt_r3d_50':
    model = model.copy(depth=18)
  clip = (4, 32, 32, 3)
  costs = cost.count(model, clip)
  # Each convolution one operation; and none of what is not counted.
  monkeypatch.setattr(mtconv, 'up_sample', _no_interpolation)
  monkeypatch.setattr(
    srtg, 'cycle_consistent', lambda a, b: jnp.ones(len(a), bool)
  )
  assert cost.count(model, clip) == costs  # of shapes, not of operations
  x = jax.ShapeDtypeStruct((1, *clip), jnp.float32)
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)
  with forms.use('definition'):
    program = jax.make_jaxpr(model.apply)(variables, x)
  assert _products(program.jaxpr) == costs.total.macs
  parameters = {
    module: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(below))
    for module, below in variables['params'].items()
  }
  assert {n: m.parameters for n, m in costs.modules.items()} == parameters


def _no_interpolation(x, shape):
  return jnp.zeros((x.shape[0], *shape, x.shape[-1]), x.dtype)


def _products(jaxpr):
  """Multiply-adds of all matmuls and convolutions, loops repeated."""
  total = 0
  for equation in jaxpr.eqns:
    out = equation.outvars[0].aval
    if equation.primitive.name == 'dot_general':
      a = equation.invars[0].aval
      (contracted, _), _ = equation.params['dimension_numbers']
      total += math.prod(out.shape) * math.prod(a.shape[i] for i in contracted)
    elif equation.primitive.name == 'conv_general_dilated':
      kernel = equation.invars[1].aval  # its last axis, the outputs, is out's
      total += math.prod(out.shape[:-1]) * math.prod(kernel.shape)
    for below in jaxprs_in_params(equation.params):
      total += equation.params.get('length', 1) * _products(below)
  return total


def test_the_command(tmp_path):
  path = tmp_path / 'cost.json'
  done = command_line.run(
    cost_command.COMMAND,
    '--model=mtnet_xs', '--clip=8x32x24', '--num_classes=5', '--views=3',
    '--dtype=bfloat16', '--override=gate=true', '--override=local_ratio=0.5',
    '--nolatency', f'--json={path}',
  )  # fmt: skip
  assert done.code == 0, done.stderr
  report = json.loads(path.read_text())
  (network,) = report['networks']
  model = models.build(
    'mtnet_xs', 5, dtype='bfloat16', gate=True, local_ratio=0.5
  )
  total = cost.count(model, (8, 32, 24, 3)).total
  assert network['macs'] == total.macs
  assert network['activation_bytes'] == total.activation_bytes
  assert network['overrides'] == {'gate': True, 'local_ratio': 0.5}
  assert (network['clip'], network['dtype']) == ('8x32x24', 'bfloat16')
  assert report['jax'] == jax.__version__ and 'latency' not in network
  sums = collections.Counter()
  for module in network['modules'].values():
    sums.update(module)
  assert sums == {key: network[key] for key in sums}
  assert f'{total.parameters:,}' in done.stdout
  assert 'GMACs a view' in done.stdout and 'not FLOPs' in done.stdout


def _main(*options):
  values = flags.FlagValues()
  cost_command.define_flags(values)
  values(['cost', *options])
  cost_command.main(values)


@pytest.mark.parametrize(
  ('options', 'told'),
  [
    (['--model='], '--model=NAME'),
    (['--model=mtnet_xs', '--all'], '--model=NAME'),
    (['--model=mtnet_q'], 'Did you mean'),
    (['--clip=16x256'], 'frames, height and width'),
    (['--clip=ax2x3'], 'frames, height and width'),
    (['--clip=0x2x3'], 'each at least 1'),
    (['--override=gate'], 'KEY=VALUE'),
    (['--override=gate=maybe'], 'which is False'),
    (['--override=dropout=high'], 'which is 0.5'),
    (['--override=blocks=2'], 'no override'),
    (['--override=name=r3d_18'], 'give --model=r3d_18'),
    (['--override=num_classes=5'], 'give --num_classes=5'),
    (['--model=r3d_18', '--override=stem_frames=-3'], 'at least 1'),
  ],
)
def test_mistakes(options, told):
  if not options[0].startswith('--model'):
    options = ['--model=mtnet_xs', *options]
  with pytest.raises(UserError, match=told):
    _main(*options, '--nolatency')


def test_unwritable_json(tmp_path):
  path = tmp_path / 'none/cost.json'
  with pytest.raises(UserError, match='cannot be written'):
    _main('--model=mtnet_xs', '--clip=2x16x16', f'--json={path}')


def test_a_row_for_each_network(monkeypatch, capsys):
  monkeypatch.setattr(models, 'NAMES', ('mtnet_xs', 'r3d_18'))
  _main('--all', '--clip=2x16x16')
  table, told = capsys.readouterr()
  assert 'counting: 2/2 networks' in told
  assert '204,829' in table and '33,371,472' in table
  assert 'ms a clip' not in table
