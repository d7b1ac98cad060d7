"""Exports a trained network as files that do not need this library.

`model.stablehlo` is a JAX program (`jax.export`) from uint8 clips to logits and
probabilities, with weights and preprocessing inside; `params.safetensors` holds
the weights by name; `model.json` says what the program expects and what its
outputs mean.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import safetensors.numpy
from flax import linen as nn

from mtnet_jax import locations, preprocessing
from mtnet_jax.data.class_names import number_labels
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError
from mtnet_jax.files import NO_ROOM, parse_json
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.folder import make_folder
from mtnet_jax.runs.leaves import leaf_paths
from mtnet_jax.typing import Array, Float, UInt8

PROGRAM = 'model.stablehlo'
PARAMETERS = 'params.safetensors'
ONNX = 'model.onnx'
METADATA = 'model.json'
PLATFORMS = ('cpu', 'cuda', 'tpu')
LICENSE_NOTE = (
  'Weights inherit the license of the data that they were trained on: read it '
  'before you pass them on.'
)
FILES = (METADATA, PROGRAM, PARAMETERS, ONNX)
_REMEDY = 'Copy its folder again, or write it again with mtnet export.'
_FORMAT, _VERSION = 'mtnet_jax', 2
# Keys of the configuration that say how a video becomes the program's input.
_DATA_KEYS = ('num_frames', 'frame_stride', 'sampling', 'short_videos')
_EVAL_KEYS = (
  'num_clips',
  'num_crops',
  'crop_size',
  'input_size',
  'clips_per_step',
)


def write_export(
  directory: str | pathlib.Path,
  model: nn.Module,
  variables: dict,
  config: ml_collections.ConfigDict,
  class_names: tuple[str, ...],
  step: int,
  *,
  license: str | None = None,
  onnx: bytes | None = None,
  check: Callable[[pathlib.Path], None] | None = None,
) -> None:
  """Writes `model.stablehlo`, `params.safetensors` and `model.json`.

  The program takes any number of clips, on any of `PLATFORMS`. The files are
  written and checked in a folder of their own inside `directory`, and moved
  into place after that: until then, whatever goes wrong, an earlier export
  stays as it was.

  Args:
    directory: made if need be; files of an earlier export are replaced.
    model: a network from `runs.model.build_model`.
    variables: `params` and `batch_stats`.
    config: the run's configuration; `data` and `eval` say what clips are,
      `model` what the network is.
    class_names: the names of the k outputs.
    step: the training step that the weights are of.
    license: the license of the weights; None: unknown.
    onnx: the network as ONNX, from `export.onnx.convert`: `model.onnx`.
    check: is given the folder with the new files, and raises where they are
      not to replace those of an earlier export.

  Raises:
    UserError: the directory cannot be written, or holds files of these names
      that are no export; or the weights are not finite.
  """
  directory = make_folder(directory)
  check_place(directory)
  # The shapes name no device: the program is for one device, wherever the
  # variables lie.
  variables = jax.device_get(variables)
  check_finite(variables, step)
  stamp = {'project': _FORMAT, 'model': config.model.name, 'step': str(step)}
  files = {
    PROGRAM: _compile(
      model, variables, model_lib.evaluation_clip_shape(config)
    ),
    PARAMETERS: safetensors.numpy.save(leaf_paths(variables), metadata=stamp),
  }
  if onnx is not None:
    files[ONNX] = onnx
  metadata = {
    'format': _FORMAT,
    'version': _VERSION,
    **_describe_files(
      files, model_lib.evaluation_clip_shape(config), len(class_names)
    ),
    **_describe_model(model, variables, config),
    'step': step,
    'license': license,
    'license_note': LICENSE_NOTE,
    'class_names': class_names,
  }
  # The description is written last, since it describes files that are there.
  files[METADATA] = json.dumps(metadata, indent=2).encode()
  _replace(directory, files, check)


def classify(
  model: nn.Module, variables: dict, clips: UInt8[Array, 'n t s s 3']
) -> tuple[Float[Array, 'n k'], Float[Array, 'n k']]:
  """Returns float32 logits and probabilities, as exported programs do.

  Args:
    model: a network from `runs.model.build_model`.
    variables: `params` and `batch_stats`.
    clips: RGB, 0 to 255.
  """
  x = preprocessing.prepare(clips, model)
  logits, _ = model.apply(variables, x, train=False)
  logits = logits.astype(jnp.float32)
  return logits, jax.nn.softmax(logits)


def _compile(model: nn.Module, variables: dict, shape: tuple) -> bytes:
  (batch,) = jax.export.symbolic_shape('n')
  clips = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
  program = jax.jit(lambda clips: classify(model, variables, clips))
  exported = jax.export.export(program, platforms=PLATFORMS)(clips)
  return bytes(exported.serialize())


def check_finite(variables: dict, step: int) -> None:
  """Raises a UserError where weights are NaN or infinite."""
  for name, leaf in leaf_paths(variables).items():
    if not np.isfinite(leaf).all():
      raise UserError(
        f'The weights of step {step} are not finite, {name} for instance: '
        'export another checkpoint, or train again from an earlier one at a '
        'lower learning rate.'
      )


def _describe_files(
  files: dict[str, bytes], shape: tuple, num_classes: int
) -> dict[str, Any]:
  sections = {
    'program': {
      'input': ['b', *shape],
      'dtype': 'uint8',
      'layout': 'n t h w c',
      'color': 'RGB, 0 to 255',
      'logits': ['b', num_classes],
      'probabilities': ['b', num_classes],
      'platforms': PLATFORMS,
      'jax_version': jax.__version__,
    },
    'parameters': {},
    'onnx': {
      'input': [1, *shape],
      'logits': [1, num_classes],
      'probabilities': [1, num_classes],
    },
  }
  names = zip(sections, (PROGRAM, PARAMETERS, ONNX), strict=True)
  return {
    section: {
      'file': name,
      'sha256': hashlib.sha256(files[name]).hexdigest(),
      **sections[section],
    }
    for section, name in names
    if name in files
  }


def _describe_model(
  model: nn.Module, variables: dict, config: ml_collections.ConfigDict
) -> dict[str, Any]:
  chosen = {k: v for k, v in config.model.items() if v is not None}
  params = jax.tree.leaves(variables['params'])
  return {
    'model': {
      'name': chosen.pop('name'),
      'overrides': chosen,
      'num_parameters': sum(leaf.size for leaf in params),
    },
    # This is for those who use only the parameters.
    'normalization': {
      'mean': model.input_mean,
      'std': model.input_std,
      'inside_program': True,
    },
    'data': {key: config.data[key] for key in _DATA_KEYS},
    'eval': {key: config.eval[key] for key in _EVAL_KEYS},
  }


def check_place(directory: pathlib.Path) -> None:
  """Raises a UserError where an export would overwrite other files."""
  present = [name for name in FILES if os.path.lexists(directory / name)]
  if not present:
    return
  try:
    ours = parse_json((directory / METADATA).read_text('utf-8'))
    ours = isinstance(ours, dict) and ours.get('format') == _FORMAT
  except (OSError, ValueError):
    ours = False
  if not ours:
    raise UserError(
      f'{directory} holds {" and ".join(present)} of something else than an '
      'export, which would be overwritten. Name another folder, or remove them.'
    )


def _replace(
  directory: pathlib.Path,
  files: dict[str, bytes],
  check: Callable[[pathlib.Path], None] | None,
) -> None:
  with explaining_failure(directory):
    folder = tempfile.TemporaryDirectory(dir=directory, prefix='.export-')
  with folder:
    new = pathlib.Path(folder.name)
    with explaining_failure(directory):
      for name, content in files.items():
        (new / name).write_bytes(content)
    if check is not None:
      check(new)
    with explaining_failure(directory):
      for name in set(FILES) - files.keys():  # of other weights than these
        (directory / name).unlink(missing_ok=True)
      for name in files:
        (new / name).replace(directory / name)


@contextlib.contextmanager
def explaining_failure(directory: pathlib.Path) -> Iterator[None]:
  """Raises a UserError where a folder cannot be written to."""
  try:
    yield
  except OSError as error:
    raise UserError(
      f'{directory} cannot be written: {error.strerror}. '
      f'{NO_ROOM.get(error.errno, "Allow it")}, or name another folder.'
    ) from error


def load_export(
  directory: str | pathlib.Path,
) -> tuple[Callable[[UInt8[Array, 'n t s s 3']], Array], dict[str, Any]]:
  """Reads what `write_export` wrote.

  Args:
    directory: the folder that holds `model.json`.

  Returns:
    A function of uint8 clips `(n, t, s, s, 3)` to float32 probabilities
    `(n, k)`, and the contents of `model.json`.

  Raises:
    UserError: the files are missing, damaged, foreign or of a newer version.
  """
  directory = locations.as_path(directory)
  metadata = _read_metadata(directory / METADATA)
  number_labels(metadata['class_names'], directory / METADATA)
  path = directory / PROGRAM
  try:
    contents = path.read_bytes()
  except OSError as error:
    raise UserError(
      f'{path} cannot be read: {locations.cause(error)}. {_REMEDY}'
    ) from error
  if hashlib.sha256(contents).hexdigest() != metadata['program']['sha256']:
    raise UserError(
      f'{path} is not the program that {METADATA} beside it describes: it is '
      f'damaged or of another export. {_REMEDY}'
    )
  try:
    exported = jax.export.deserialize(bytearray(contents))
  except Exception as error:  # whatever JAX says of a format that it has left
    raise UserError(
      f'{path} cannot be loaded by JAX {jax.__version__}: {error}. {_REMEDY}'
    ) from error
  _check_program(exported, metadata, directory)
  if mesh_lib.platform() not in _platforms(exported):
    raise UserError(
      f'{path} runs on {", ".join(exported.platforms)}, this machine has '
      f'{mesh_lib.platform()}. Set JAX_PLATFORMS=cpu.'
    )

  @jax.jit
  def probabilities(clips):
    return exported.call(clips)[1]

  return probabilities, metadata


def _check_program(
  exported: jax.export.Exported,
  metadata: dict[str, Any],
  directory: pathlib.Path,
) -> None:
  """Raises a UserError unless the program takes the described clips."""
  frames, size = metadata['data']['num_frames'], metadata['eval']['input_size']
  scores = (len(metadata['class_names']),), jnp.float32
  # Clips; logits and probabilities.
  expected = [((frames, size, size, 3), jnp.uint8), scores, scores]
  # The first axis is that of the clips.
  found = [
    (aval.shape[1:], aval.dtype)
    for aval in (*exported.in_avals, *exported.out_avals)
  ]
  if found != expected:
    raise UserError(
      f'{directory / METADATA} does not describe {PROGRAM} beside it: it tells '
      f'of clips {expected[0][0]} and {expected[1][0][0]} classes, the program '
      f'has {", ".join(f"{dtype} {shape}" for shape, dtype in found)}. '
      f'{_REMEDY}'
    )


def _platforms(exported: jax.export.Exported) -> set[str]:
  names = set(exported.platforms)
  return names | ({'gpu'} if names & {'cuda', 'rocm'} else set())


def _read_metadata(path: locations.Path) -> dict[str, Any]:
  try:
    metadata = parse_json(path.read_text('utf-8'))
    if metadata['format'] != _FORMAT:
      raise ValueError(f'its format is {metadata["format"]!r}')
    version = metadata['version']
    if type(version) is not int or version < _VERSION:
      raise ValueError(f'its version is {version!r}')
    if version == _VERSION:
      _check(metadata)
  except OSError as error:
    raise UserError(
      f'{path} cannot be read: {locations.cause(error)}. Give the folder of an '
      'exported model.'
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path} does not describe an exported model of mtnet_jax: {error!r}. '
      f'{_REMEDY}'
    ) from error
  if version > _VERSION:
    raise UserError(
      f'{path} has version {version}, this mtnet_jax reads up to {_VERSION}. '
      f'Update mtnet_jax. {_REMEDY}'
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
  # Exports that are older than this key have this value.
  metadata['data'] = {'sampling': 'clip', **metadata['data']}
  for section, keys in (('data', _DATA_KEYS), ('eval', _EVAL_KEYS)):
    for key in keys:
      metadata[section][key]  # a KeyError names what is missing
