"""Counts a network's parameters, multiply-adds and activations.

Counts come from abstract evaluation: no parameter and no activation is
allocated, so that the largest network takes seconds on any machine. `latency`
measures times.

Multiply-adds follow from each layer's mathematical shape, kernel elements times
output positions, whatever formulation computes it. Convolutions, linear layers,
the matmuls of recurrent layers and both matmuls of Class Regularisation count;
BN, activations, pooling, interpolation, biases and the element-wise products of
gates do not. Class Regularisation maps the classifier's weights once a batch:
the figure is that of a batch of one clip. Figures of the X3D paper and
PyTorchVideo count alike; some papers print FLOPs of twice as much.

Activations are the outputs, in their own dtype, of layers with parameters of
their own: convolutions, BN, linear and recurrent layers, Class Regularisation.
About these are kept for the backward pass where nothing is recomputed. Sums,
pools, gates and interpolations between them do not count: the compiler decides
how much of those is kept.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.layers.class_regularization import ClassRegularization
from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.norm import BatchNorm
from mtnet_jax.layers.recurrent import RecurrentLayer

ClipShape = tuple[int, int, int, int]

_KERNELS = (Classifier, Conv3D, nn.Dense, RecurrentLayer)
_LAYERS = (*_KERNELS, BatchNorm, ClassRegularization)


@dataclasses.dataclass(frozen=True)
class ModuleCosts:
  """The costs of one module.

  Attributes:
    parameters: BN's scales and biases count, its moving statistics do not.
    macs: multiply-adds of one clip's forward pass.
    activation_bytes: the bytes of one clip, see the top of this file.
  """

  parameters: int
  macs: int
  activation_bytes: int


@dataclasses.dataclass(frozen=True)
class Costs:
  """The costs of a network.

  Attributes:
    modules: the cost of each submodule of the network, by name, in the order of
      their calls. A network that is a single layer has that layer's class name.
    largest_layer_bytes: input and output, together, of the layer with a kernel
      where they are largest: inference needs that much of one clip at least.
  """

  modules: Mapping[str, ModuleCosts]
  largest_layer_bytes: int

  @property
  def total(self) -> ModuleCosts:
    """The sum over all modules."""
    rows = [dataclasses.astuple(costs) for costs in self.modules.values()]
    return ModuleCosts(*map(sum, zip(*rows, strict=True)))


def count(model: nn.Module, clip_shape: ClipShape) -> Costs:
  """Returns the costs of a network by module.

  Args:
    model: one of `mtnet_jax.models`, or any of their layers.
    clip_shape: frames, height, width, channels of a clip, (16, 224, 224, 3) for
      instance.

  Example:
    costs = count(models.build('x3d_s', 400), (13, 160, 160, 3))
    costs.total.macs / 1e9  # 1.96 GMACs
    costs.modules['classifier'].parameters  # 819_600
  """
  products, activations = collections.Counter(), collections.Counter()
  largest = 0

  def record(call, args, kwargs, context):
    nonlocal largest
    out = call(*args, **kwargs)
    module = context.module
    if context.method_name != '__call__' or not isinstance(module, _LAYERS):
      return out
    name = module.path[0] if module.path else type(module).__name__
    activation = out[0] if isinstance(out, tuple) else out
    products[name] += _layer_macs(module, args, activation)
    activations[name] += _num_bytes(activation)
    if isinstance(module, _KERNELS):
      largest = max(largest, _num_bytes(args[0]) + _num_bytes(activation))
    return out

  dtype = getattr(model, 'dtype', None) or jnp.float32
  clips = jax.ShapeDtypeStruct((1, *clip_shape), dtype)
  with nn.intercept_methods(record):
    params = jax.eval_shape(model.init, jax.random.key(0), clips)['params']
  parameters = collections.Counter()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = path[0].key if len(path) > 1 else type(model).__name__
    parameters[name] += math.prod(leaf.shape)
  modules = {
    name: ModuleCosts(parameters[name], products[name], activations[name])
    for name in (*products, *(parameters.keys() - products))
  }
  return Costs(modules, largest)


def parameter_count(model: nn.Module, clip_shape: ClipShape) -> int:
  """Returns the number of trainable parameters; the arguments are `count`'s."""
  return count(model, clip_shape).total.parameters


def macs(model: nn.Module, clip_shape: ClipShape) -> int:
  """Returns the multiply-adds of a clip; the arguments are those of `count`."""
  return count(model, clip_shape).total.macs


def _layer_macs(module, args, out):
  if isinstance(module, ClassRegularization):
    activations, class_weights = args
    classes, channels = class_weights.shape
    # To maps, a class at a time, and from them to scores.
    return classes * activations.shape[-1] * (channels + 1)
  if isinstance(module, BatchNorm):
    return 0
  params = module.variables['params']
  kernels = [v for k, v in params.items() if k.startswith('kernel')]
  return math.prod(out.shape[:-1]) * sum(math.prod(k.shape) for k in kernels)


def _num_bytes(array):
  return math.prod(array.shape) * array.dtype.itemsize
