"""What a network costs: parameters, and multiply-adds a clip.

Both come from abstract evaluation: no parameter and no activation is allocated,
so that the largest network takes seconds on any machine.

Multiply-adds follow from each layer's mathematical shape, kernel elements times
output positions, whatever formulation computes it. Convolutions, linear layers,
the matmuls of recurrent layers and both matmuls of Class Regularisation count;
BN, activations, pooling, interpolation, biases and the element-wise products of
gates do not. Class Regularisation maps the classifier's weights once a batch:
the figure is that of a batch of one clip. Figures of the X3D paper and
PyTorchVideo count alike; some papers print FLOPs of twice as much.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.layers.class_regularization import ClassRegularization
from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.recurrent import RecurrentLayer

ClipShape = tuple[int, int, int, int]


def parameter_count(model: nn.Module, clip_shape: ClipShape) -> int:
  """Returns the number of trainable parameters.

  BN's scales and biases count, its moving statistics do not.

  Args:
    model: one of `mtnet_jax.models`.
    clip_shape: frames, height, width, channels of a clip, (16, 224, 224, 3) for
      instance.
  """
  params = _init_shapes(model, clip_shape)['params']
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def macs(model: nn.Module, clip_shape: ClipShape) -> int:
  """Returns the multiply-adds of one clip's forward pass.

  Args:
    model: one of `mtnet_jax.models`.
    clip_shape: frames, height, width, channels of a clip.

  Example:
    macs(models.build('x3d_s', 400), (13, 160, 160, 3)) / 1e9  # 1.96 GMACs
  """
  total = 0

  def count(next_fun, args, kwargs, context):
    nonlocal total
    out = next_fun(*args, **kwargs)
    module = context.module
    if context.method_name != '__call__':
      return out
    if isinstance(module, (Classifier, Conv3D, nn.Dense, RecurrentLayer)):
      positions = math.prod(out.shape[:-1])
      params = module.variables['params']
      kernels = [v for k, v in params.items() if k.startswith('kernel')]
      total += positions * sum(math.prod(k.shape) for k in kernels)
    elif isinstance(module, ClassRegularization):
      activations, class_weights = args
      classes, channels = class_weights.shape
      # To maps, a class at a time, and from them to scores.
      total += classes * activations.shape[-1] * (channels + 1)
    return out

  with nn.intercept_methods(count):
    _init_shapes(model, clip_shape)
  return total


def _init_shapes(model, clip_shape):
  clips = jax.ShapeDtypeStruct((1, *clip_shape), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), clips)
