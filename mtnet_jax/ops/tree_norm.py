"""The norm of all of a network's arrays together, for the log."""

import jax
import jax.numpy as jnp

from mtnet_jax.ops import native
from mtnet_jax.ops.forms import Operation
from mtnet_jax.typing import Array, Float, PyTree


def tree_norm(tree: PyTree) -> Float[Array, '']:
  """Returns the square root of the sum of all elements' squares.

  `optax.tree.norm` computes the same.

  Args:
    tree: a tree of floating-point arrays.
  """
  return _norm(*jax.tree.leaves(tree))


def _define(*leaves):
  return jnp.sqrt(sum(jnp.sum(a * a) for a in leaves))


def _join(*leaves):
  # A network's hundreds of vectors are joined before they are squared: a
  # reduction for each of them takes longer to compile than a block of the
  # network.
  vectors = [jnp.zeros(0), *(jnp.ravel(a) for a in leaves if jnp.ndim(a) < 2)]
  return _define(
    jnp.concatenate(vectors), *(a for a in leaves if jnp.ndim(a) > 1)
  )


def _kernel(*leaves):
  result = jax.ShapeDtypeStruct((), jnp.float32)
  return jnp.sqrt(native.call('square_sum', result, *leaves))


_norm = Operation(_define, xla=_join, cpu_kernel=_kernel)
