"""Builds the programs of a network that are timed: train step and inference."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks import measure
from configs import base
from mtnet_jax import preprocessing
from mtnet_jax.devices import compiler
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.runs import state as state_lib
from mtnet_jax.training import optim
from mtnet_jax.training.step import make_train_step

# The number of classes of Kinetics-400.
CLASSES = 400

Shape = tuple[int, int, int, int]


class Program(NamedTuple):
  """A jitted function and what it takes.

  Attributes:
    function: a function of the arguments.
    arguments: abstract arrays, or pytrees of them.
    has_state: the first result is the first argument of the next call.
  """

  function: Callable
  arguments: tuple[Any, ...]
  has_state: bool = False

  def compile(self) -> Callable:
    """Returns the function, compiled."""
    return self.function.lower(*self.arguments).compile()

  def start(self, compiled: Callable) -> Callable[[], None]:
    """Returns a function of no arguments that runs once and waits.

    Args:
      compiled: a program from `compile`.
    """
    arguments = draw(self.arguments)
    if not self.has_state:
      return measure.ready(compiled, *arguments)
    state, *rest = arguments

    def step():
      nonlocal state
      state, _ = jax.block_until_ready(compiled(state, *rest))

    return step


def train_step(model: nn.Module, shape: Shape, batch: int) -> Program:
  """A train step with momentum and weight decay, on uint8 clips.

  Args:
    model: a network from `models.build`; the step computes in its dtype.
    shape: frames, height, width, channels of a clip.
    batch: clips a step.
  """
  tx = optim.build(base.get_config().optim, lambda _: 0.01)
  abstract = jax.eval_shape(
    functools.partial(state_lib.create, model, tx, shape, 0)
  )
  arguments = {
    'clips': jax.ShapeDtypeStruct((batch, *shape), jnp.uint8),
    'labels': jax.ShapeDtypeStruct((batch,), jnp.int32),
  }
  step = make_train_step(model, lambda _: 0.01, tx, 0, one_device())
  return Program(step, (abstract, arguments), has_state=True)


def inference(model: nn.Module, shape: Shape, batch: int) -> Program:
  """The logits of uint8 clips; arguments as those of `train_step`."""
  clips = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
  normalized = jax.ShapeDtypeStruct(clips.shape, model.dtype or jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), normalized)

  def infer(variables, clips):
    clips = preprocessing.prepare(clips, model)
    return model.apply(variables, clips, train=False)[0]

  return Program(compiler.jit(infer, one_device()), (variables, clips))


def one_device() -> jax.sharding.Mesh:
  """Returns a mesh of the first device: the programs are timed on one."""
  return mesh_lib.make_mesh(devices=jax.devices()[:1])


def draw(abstract: Any) -> Any:
  """Returns arrays in place of abstract ones.

  Kernels, and arrays without a name, keep the size of activations; scales and
  variances are one, and everything else is zero. Bytes are random.
  """
  rng = np.random.default_rng(0)

  def values(path, leaf):
    name = str(getattr(path[-1], 'key', 'kernel'))
    if leaf.dtype == jnp.uint8:
      return jnp.asarray(rng.integers(0, 256, leaf.shape, np.uint8))
    if name in ('scale', 'var'):
      return jnp.ones(leaf.shape, leaf.dtype)
    if not name.startswith('kernel') or leaf.ndim < 2:
      return jnp.zeros(leaf.shape, leaf.dtype)
    deviation = math.prod(leaf.shape[:-1]) ** -0.5
    drawn = rng.standard_normal(leaf.shape, np.float32)
    return jnp.asarray(deviation * drawn, leaf.dtype)

  return jax.tree_util.tree_map_with_path(values, abstract)
