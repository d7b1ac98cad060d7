"""Declares the parameters of layers without tracing their initial values.

Flax's `param` traces a parameter's initial value again in every trace of a
network, to learn its shape: that is half the time of tracing a large network.
Here layers state the shape.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.typing import Array


def parameter(
  module: nn.Module,
  name: str,
  initial: Callable[..., Array],
  shape: tuple[int, ...],
) -> Array:
  """Returns a float32 parameter of a module, made where it is initialized.

  Args:
    module: the module that the parameter belongs to.
    name: the parameter's name.
    initial: a function of a random key, a shape and a dtype that gives its
      initial value.
    shape: the parameter's shape.

  Raises:
    ValueError: the parameter that the module is given has another shape.
  """
  if not module.has_variable('params', name):
    return module.param(name, initial, shape, jnp.float32)
  value = module.get_variable('params', name)
  if value.shape != shape:
    raise ValueError(
      f'The parameter {"/".join((*module.path, name))} must have the shape '
      f'{shape}, but has {value.shape}.'
    )
  return value
