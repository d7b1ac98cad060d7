"""Random arrays for layers and networks, and plain layers to compare with."""

import itertools
import math

import jax
import numpy as np


def random_clips(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_variables(module, x, seed=1):
  """Every parameter and statistic random; variances and scales positive."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)

  def draw(path, leaf):
    if path[-1].key in ('scale', 'var'):
      return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    # Small biases: no channel is below zero everywhere.
    std = math.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.2
    return rng.normal(0, std, leaf.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def conv(x, kernel, strides=(1, 1, 1)):
  """Tap by tap; a kernel of one input channel is channel-separated."""
  padding = [(0, 0), *((k // 2, k // 2) for k in kernel.shape[:3]), (0, 0)]
  padded = np.pad(x, padding)
  sizes = [math.ceil(n / s) for n, s in zip(x.shape[1:4], strides, strict=True)]
  out = 0
  for tap in itertools.product(*map(range, kernel.shape[:3])):
    index = [
      slice(o, o + s * (n - 1) + 1, s)
      for o, s, n in zip(tap, strides, sizes, strict=True)
    ]
    window = padded[(slice(None), *index)]
    if kernel.shape[3] == 1:
      out = out + window * kernel[tap][0]
    else:
      out = out + window @ kernel[tap]
  return out


def norm(x, params, stats):
  """BN by the moving statistics."""
  scale = params['scale'] / np.sqrt(stats['var'] + 1e-5)
  return (x - stats['mean']) * scale + params['bias']


def relu(x):
  return np.maximum(x, 0)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))
