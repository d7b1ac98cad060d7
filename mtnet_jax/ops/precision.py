"""Keeps at float32 or above what must not be rounded.

Gates, softmaxes, pools and statistics are computed in float32 whatever the
dtype of the network (thesis, footnote to 5.4.1). A network of float64 stays
float64, so that two ways to compute it can be compared digit by digit.
"""

import jax
import jax.numpy as jnp

from mtnet_jax.typing import Array, Float


def wide_dtype(x: Float[Array, '*d']) -> jax.typing.DTypeLike:
  """Returns float64 where x is, else float32."""
  return jnp.promote_types(x.dtype, jnp.float32)


def widen(x: Float[Array, '*d']) -> Float[Array, '*d']:
  """Returns x in its `wide_dtype`."""
  return x.astype(wide_dtype(x))
