"""Normalizes uint8 clips on the device."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from mtnet_jax.typing import Array, Float, UInt8

# The mean and deviation of Kinetics, the same for every channel, as the X3D
# family uses them. In units of [0, 1] brightness.
MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)


def prepare(
  clips: UInt8[Array, '*batch t h w 3'], model: nn.Module
) -> Float[Array, '*batch t h w 3']:
  """Returns the input of a network: clips normalized by its own numbers.

  Args:
    clips: RGB, 0 to 255.
    model: a network from `mtnet_jax.models.build`.
  """
  return normalize(clips, model.dtype, model.input_mean, model.input_std)


def normalize(
  clips: UInt8[Array, '*batch t h w 3'],
  dtype: DTypeLike,
  mean: tuple[float, ...],
  std: tuple[float, ...],
) -> Float[Array, '*batch t h w 3']:
  """Scales to [0, 1], then to about zero mean and unit deviation.

  Args:
    clips: RGB, 0 to 255.
    dtype: the dtype of the result. The arithmetic is float32.
    mean: the mean of each channel, in units of [0, 1] brightness.
    std: the standard deviation of each channel, in the same units.

  Returns:
    `(clips / 255 - mean) / std`; of `MEAN` and `STD` from -2 to about 2.4.
  """
  shape = (1,) * (clips.ndim - 1) + (3,)
  scale = np.reshape(1 / (255 * np.asarray(std)), shape)
  shift = np.reshape(np.asarray(mean) / np.asarray(std), shape)
  x = clips.astype(jnp.float32) * scale.astype(np.float32)
  return (x - shift.astype(np.float32)).astype(dtype)
