"""uint8 clips to normalised model input, on the device."""

import jax.numpy as jnp
from jax.typing import DTypeLike

from mtnet_jax.typing import Array, Float, UInt8

# The mean and deviation of Kinetics, the same for every channel, as the X3D
# family uses them. In units of [0, 1] brightness.
MEAN = 0.45
STD = 0.225


def normalize(
  clips: UInt8[Array, '*batch t h w c'], dtype: DTypeLike = jnp.float32
) -> Float[Array, '*batch t h w c']:
  """Scales to [0, 1], then to about zero mean and unit deviation.

  Args:
    clips: RGB, 0 to 255.
    dtype: of the result. The arithmetic is float32.

  Returns:
    `(clips / 255 - MEAN) / STD`, from -2 to about 2.4.
  """
  x = clips.astype(jnp.float32) * (1 / (255 * STD)) - MEAN / STD
  return x.astype(dtype)
