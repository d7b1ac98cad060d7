"""Converts networks to ONNX by `jax2onnx`, and runs them in ONNX Runtime.

Operations take their `onnx` form: forms that are fast in XLA would be thousands
of nodes, or have more dimensions than ONNX Runtime allows.
"""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtnet_jax.devices import compiler
from mtnet_jax.errors import UserError
from mtnet_jax.export import program as program_lib
from mtnet_jax.ops import forms
from mtnet_jax.typing import Float, UInt8

_INSTALL = (
  "pip install 'mtnet_jax[onnx]' && pip install --no-deps jax2onnx==0.17.1"
)


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
  `probabilities`, float32 `(1, k)`; preprocessing is inside. It computes in
  float32, whatever the dtype of the network.

  Args:
    model: a network from `runs.model.build_model`.
    variables: `params` and `batch_stats`.
    clip_shape: `(t, s, s, 3)`.

  Raises:
    UserError: a package is missing, or the converter refuses the network.
  """
  jax2onnx, _ = find_packages()
  variables = jax.device_get(variables)
  run = functools.partial(program_lib.classify, as_float32(model), variables)
  clips = jax.ShapeDtypeStruct((1, *clip_shape), jnp.uint8)
  with forms.use('onnx'):
    # The network is traced here, because the converter's own tracing replaces
    # functions of JAX by others that do not know all arguments.
    traced = compiler.traced(run, clips)
  try:
    proto = jax2onnx.to_onnx(
      traced,
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
  """Returns the network of which the ONNX file is a copy."""
  return model.clone(dtype=jnp.dtype('float32'))


def load(
  contents: bytes,
) -> Callable[[UInt8[np.ndarray, '1 t s s 3']], Float[np.ndarray, '1 k']]:
  """Returns a function of one clip to logits, run by ONNX Runtime on a CPU.

  Args:
    contents: the file's bytes, from `convert`.
  """
  _, onnxruntime = find_packages()
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3  # errors; it warns of each unused constant
  session = onnxruntime.InferenceSession(
    contents, options, providers=['CPUExecutionProvider']
  )
  return lambda clip: session.run(['logits'], {'clips': clip})[0]
