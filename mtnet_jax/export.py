"""A trained network as a file that needs none of this library to run.

`model.stablehlo` is a program of JAX's (`jax.export`) from uint8 clips to
probabilities, weights and preprocessing inside; `model.json` says what it
expects and what its outputs mean.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from mtnet_jax import evaluation
from mtnet_jax.checkpoints import make_workdir
from mtnet_jax.data.sources import number_labels
from mtnet_jax.errors import UserError
from mtnet_jax.typing import Array, UInt8

PROGRAM = 'model.stablehlo'
METADATA = 'model.json'
PLATFORMS = ('cpu', 'cuda', 'tpu')
_AGAIN = 'Copy its folder again, or write it with mtnet_jax.export.write.'
_FORMAT, _VERSION = 'mtnet_jax', 1
# Of the configuration: how a video becomes the program's input.
_DATA_KEYS = ('num_frames', 'frame_stride', 'short_videos')
_EVAL_KEYS = (
  'num_clips',
  'num_crops',
  'crop_size',
  'input_size',
  'clips_per_step',
)


def write(
  directory: str | pathlib.Path,
  model: nn.Module,
  variables: dict,
  config: ml_collections.ConfigDict,
  class_names: tuple[str, ...],
  step: int,
) -> None:
  """Writes `model.stablehlo` and `model.json`.

  The program takes any number of clips, on any of `PLATFORMS`.

  Args:
    directory: made if need be; files of an earlier export are replaced.
    model: from `evaluation.build_model`.
    variables: `params` and `batch_stats`.
    config: of the run; `data` and `eval` say what clips are.
    class_names: of the k outputs.
    step: that the weights are of.

  Raises:
    UserError: the directory cannot be written.
  """
  directory = make_workdir(directory)
  (batch,) = jax.export.symbolic_shape('b')
  size = config.eval.input_size
  shape = config.data.num_frames, size, size, 3
  clips = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
  # On no device: the program is for one, wherever the variables lie.
  variables = jax.device_get(variables)
  eval_step = evaluation.make_eval_step(model)
  program = jax.jit(lambda clips: eval_step(variables, clips)[0])
  exported = jax.export.export(program, platforms=PLATFORMS)(clips)
  contents = bytes(exported.serialize())
  metadata = {
    'format': _FORMAT,
    'version': _VERSION,
    'program': {
      'file': PROGRAM,
      'sha256': hashlib.sha256(contents).hexdigest(),
      'input': ['b', *shape],
      'output': ['b', len(class_names)],
      'platforms': PLATFORMS,
    },
    'step': step,
    'class_names': class_names,
    **_describe_clips(config),
  }
  # The description last: without it the folder holds no model.
  (directory / METADATA).unlink(missing_ok=True)
  (directory / PROGRAM).write_bytes(contents)
  (directory / METADATA).write_text(json.dumps(metadata, indent=2))


def _describe_clips(config: ml_collections.ConfigDict) -> dict[str, Any]:
  return {
    'data': {key: config.data[key] for key in _DATA_KEYS},
    'eval': {key: config.eval[key] for key in _EVAL_KEYS},
  }


def load(
  directory: str | pathlib.Path,
) -> tuple[Callable[[UInt8[Array, 'b t s s 3']], Array], dict[str, Any]]:
  """Reads what `write` wrote.

  Args:
    directory: that holds `model.json`.

  Returns:
    A function of uint8 clips `(b, t, s, s, 3)` to float32 probabilities
    `(b, k)`, and the contents of `model.json`.

  Raises:
    UserError: the files are missing, damaged, foreign or of a newer version.
  """
  directory = pathlib.Path(directory)
  metadata = _read_metadata(directory / METADATA)
  number_labels(metadata['class_names'], directory / METADATA)
  path = directory / PROGRAM
  try:
    contents = path.read_bytes()
  except OSError as error:
    raise UserError(
      f'{path} cannot be read: {error.strerror}. {_AGAIN}'
    ) from error
  if hashlib.sha256(contents).hexdigest() != metadata['program']['sha256']:
    raise UserError(
      f'{path} is not the program that {METADATA} beside it describes: it is '
      f'damaged or of another export. {_AGAIN}'
    )
  try:
    exported = jax.export.deserialize(bytearray(contents))
  except Exception as error:  # whatever JAX says of a format that it has left
    raise UserError(
      f'{path} cannot be loaded by JAX {jax.__version__}: {error}. {_AGAIN}'
    ) from error
  _check_program(exported, metadata, directory)
  if jax.default_backend() not in _platforms(exported):
    raise UserError(
      f'{path} runs on {", ".join(exported.platforms)}, this machine has '
      f'{jax.default_backend()}. Set JAX_PLATFORMS=cpu.'
    )
  return jax.jit(exported.call), metadata


def _check_program(
  exported: jax.export.Exported,
  metadata: dict[str, Any],
  directory: pathlib.Path,
) -> None:
  """Raises a UserError where the program is not of the clips described."""
  frames, size = metadata['data']['num_frames'], metadata['eval']['input_size']
  expected = [
    ((frames, size, size, 3), jnp.uint8),
    ((len(metadata['class_names']),), jnp.float32),
  ]
  # The first axis is that of the clips.
  found = [
    (aval.shape[1:], aval.dtype)
    for aval in (*exported.in_avals, *exported.out_avals)
  ]
  if found != expected:
    raise UserError(
      f'{directory / METADATA} does not describe {PROGRAM} beside it: it tells '
      f'of clips {expected[0][0]} and {expected[1][0][0]} classes, the program '
      f'has {", ".join(f"{dtype} {shape}" for shape, dtype in found)}. {_AGAIN}'
    )


def _platforms(exported: jax.export.Exported) -> set[str]:
  names = set(exported.platforms)
  return names | ({'gpu'} if names & {'cuda', 'rocm'} else set())


def _read_metadata(path: pathlib.Path) -> dict[str, Any]:
  try:
    metadata = json.loads(path.read_text('utf-8'))
    if metadata['format'] != _FORMAT:
      raise ValueError(f'its format is {metadata["format"]!r}')
    version = metadata['version']
    if type(version) is not int or version < 1:
      raise ValueError(f'its version is {version!r}')
    if version <= _VERSION:
      _check(metadata)
  except OSError as error:
    raise UserError(
      f'{path} cannot be read: {error.strerror}. Give the folder of an '
      'exported model.'
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path} does not describe an exported model of mtnet_jax: {error!r}. '
      f'{_AGAIN}'
    ) from error
  if version > _VERSION:
    raise UserError(
      f'{path} has version {version}, this mtnet_jax reads up to {_VERSION}. '
      f'Update mtnet_jax. {_AGAIN}'
    )
  return metadata


def _check(metadata: dict[str, Any]) -> None:
  names = metadata['class_names']
  if (
    not names
    or not isinstance(names, list)
    or not all(isinstance(name, str) for name in names)
  ):
    raise ValueError('its class_names are not a list of names')
  metadata['program']['sha256']
  for section, keys in (('data', _DATA_KEYS), ('eval', _EVAL_KEYS)):
    for key in keys:
      metadata[section][key]  # a KeyError names what is missing
