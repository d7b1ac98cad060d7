"""A trained network as ONNX, by `jax2onnx`, checked in ONNX Runtime.

Convolutions and max-pools are put in a few nodes that ONNX has: what is fast in
XLA would be thousands of them, or of more dimensions than ONNX Runtime takes.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from unittest import mock

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtnet_jax import export
from mtnet_jax.errors import UserError
from mtnet_jax.layers import conv
from mtnet_jax.typing import Array, Float, UInt8

_INSTALL = "pip install -e '.[onnx]' && pip install --no-deps jax2onnx==0.17.1"


def find_packages() -> tuple[ModuleType, ModuleType]:
  """Returns the modules `jax2onnx` and `onnxruntime`.

  Raises:
    UserError: one is not installed.
  """
  try:
    return tuple(map(importlib.import_module, ('jax2onnx', 'onnxruntime')))
  except ImportError as error:
    raise UserError(
      f'--onnx needs packages that are not here ({error}): {_INSTALL}.'
    ) from error


def convert(
  model: nn.Module, variables: dict, clip_shape: tuple[int, int, int, int]
) -> bytes:
  """Returns the network as an ONNX file's contents.

  It takes one clip, `clips`, uint8 `(1, t, s, s, 3)`, and gives `logits` and
  `probabilities`, float32 `(1, k)`; preprocessing is inside. Computed in
  float32, whatever the dtype of the network.

  Args:
    model: from `evaluation.build_model`.
    variables: `params` and `batch_stats`.
    clip_shape: `(t, s, s, 3)`.

  Raises:
    UserError: a package is missing, or the converter refuses the network.
  """
  jax2onnx, _ = find_packages()
  variables = jax.device_get(variables)
  run = functools.partial(export.classify, as_float32(model), variables)
  clips = jax.ShapeDtypeStruct((1, *clip_shape), jnp.uint8)
  with _formulations_of_onnx():
    # Traced here: the converter's own tracing replaces functions of JAX's by
    # such as do not know all arguments.
    traced = jax.make_jaxpr(run)(clips)
  try:
    proto = jax2onnx.to_onnx(
      jax.extend.core.jaxpr_as_fun(traced),
      [clips],
      input_names=['clips'],
      output_names=['logits', 'probabilities'],
    )
  except Exception as error:  # whatever the converter says of what it lacks
    cause = (str(error).strip() or repr(error)).splitlines()[0]
    raise UserError(
      f'jax2onnx cannot convert this network: {cause}. Leave out --onnx.'
    ) from error
  return proto.SerializeToString()


def as_float32(model: nn.Module) -> nn.Module:
  """The network of which the ONNX file is a copy."""
  return model.clone(dtype=jnp.dtype('float32'))


def load(
  contents: bytes,
) -> Callable[[UInt8[np.ndarray, '1 t s s 3']], Float[np.ndarray, '1 k']]:
  """Returns a function of one clip to logits, run by ONNX Runtime on a CPU.

  Args:
    contents: from `convert`.
  """
  _, onnxruntime = find_packages()
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3  # errors; it warns of each unused constant
  session = onnxruntime.InferenceSession(
    contents, options, providers=['CPUExecutionProvider']
  )
  return lambda clip: session.run(['logits'], {'clips': clip})[0]


@contextlib.contextmanager
def _formulations_of_onnx() -> Iterator[None]:
  with (
    mock.patch.object(conv, 'conv3d', _convolve),
    mock.patch.object(conv, 'channel_separated_conv3d', _convolve),
    mock.patch.object(nn, 'max_pool', _max_pool),
  ):
    yield


def _convolve(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k d f'],
  strides: tuple[int, int, int] = (1, 1, 1),
) -> Float[Array, 'n u v x f']:
  """`conv.conv3d` and `conv.channel_separated_conv3d`, frame by frame.

  The converter knows convolutions of two dimensions alone.
  """
  n, t, h, w, c = x.shape
  kt, kh, kw, d, _ = kernel.shape
  x = jnp.pad(x, ((0, 0), (kt // 2, kt // 2), (0, 0), (0, 0), (0, 0)))
  last = t + 2 * (kt // 2) - kt  # where the last window begins
  y = 0.0
  for i in range(kt):
    frames = jax.lax.slice_in_dim(x, i, i + last + 1, strides[0], axis=1)
    y += jax.lax.conv_general_dilated(
      frames.reshape(-1, h, w, c),
      kernel[i],
      strides[1:],
      [(kh // 2, kh // 2), (kw // 2, kw // 2)],
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=c // d,
    )
  return y.reshape(n, -1, *y.shape[1:])


def _max_pool(x, window_shape, strides, padding):
  """`nn.max_pool` as the greatest of slices, one axis at a time."""
  for axis, (size, stride, pads) in enumerate(
    zip(window_shape, strides, padding, strict=True), start=1
  ):
    widths = [(0, 0)] * x.ndim
    widths[axis] = pads
    x = jnp.pad(x, widths, constant_values=jnp.finfo(x.dtype).min)
    last = x.shape[axis] - size
    x = functools.reduce(
      jnp.maximum,
      (
        jax.lax.slice_in_dim(x, i, last + i + 1, stride, axis)
        for i in range(size)
      ),
    )
  return x
