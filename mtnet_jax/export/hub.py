"""Writes networks as models for Hugging Face's hub, and reads them.

`config.json` says what the network and its classes are, `model.safetensors`
holds the weights by name, `preprocessor_config.json` says how clips are cut,
and `README.md` is the model's card.
"""

import json
import os
import pathlib
from typing import Any

import jax
import ml_collections
import safetensors.numpy
from flax import linen as nn

from mtnet_jax import files, locations, preprocessing
from mtnet_jax.data.class_names import number_labels
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError, printable
from mtnet_jax.export import program
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.leaves import leaf_paths

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
PREPROCESSOR = 'preprocessor_config.json'
CARD = 'README.md'
NEEDED = (CONFIG, WEIGHTS, PREPROCESSOR)  # to load the model
FILES = (*NEEDED, CARD)
MODEL_TYPE = 'mtnet_jax'
# Keys of a run's configuration that define the network and its clips.
_SECTIONS = ('model', 'data', 'eval')
_REMEDY = (
  'Copy or download the whole folder again, or write it again with mtnet '
  'export --format=hub.'
)


def write(
  directory: str | os.PathLike,
  model: nn.Module,
  variables: dict,
  config: ml_collections.ConfigDict,
  class_names: tuple[str, ...],
  step: int,
  card: str,
) -> None:
  """Writes the four files.

  They are written in a folder of their own inside `directory`, and moved into
  place when all are whole.

  Args:
    directory: made if need be; files of an earlier export are replaced.
    model: a network from `runs.model.build_model`.
    variables: `params` and `batch_stats`.
    config: the run's configuration.
    class_names: the names of the k outputs.
    step: the training step that the weights are of.
    card: the text of `README.md`, from `export.model_card`.

  Raises:
    UserError: the directory cannot be written, or holds files of these names
      that are no export; or the weights are not finite.
  """
  directory = run_folder.make_folder(directory)
  _check_place(directory)
  variables = jax.device_get(variables)
  program.check_finite(variables, step)
  sections = json.loads(config.to_json_best_effort())
  # The path of the data is private.
  sections['data']['dir'] = data_name(config)
  description = {
    'architectures': [type(model).__name__],
    'model_type': MODEL_TYPE,
    'library_name': MODEL_TYPE,
    'step': step,
    'id2label': dict(enumerate(class_names)),
    'label2id': _numbers(class_names),
    **{name: sections[name] for name in _SECTIONS},
  }
  contents = {
    WEIGHTS: safetensors.numpy.save(
      leaf_paths(variables), metadata={'format': 'flax'}
    ),
    CONFIG: _as_json(description),
    PREPROCESSOR: _as_json(_describe_clips(config)),
    CARD: card.encode(),
  }
  with (
    program.explaining_failure(directory),
    files.writing_folder(directory) as folder,
  ):
    for name, content in contents.items():
      (folder / name).write_bytes(content)


def data_name(config: ml_collections.ConfigDict) -> str:
  """Returns the name of a run's data: the name of their folder, no path."""
  place = pathlib.PurePath(str(config.data.get('dir', '')))
  name = str(place)
  # 'tfds:NAME/CONFIG' is a name as a whole, 'tfds:/FOLDER' is a path.
  is_name = name.startswith('tfds:') and not name.startswith('tfds:/')
  return name if is_name else place.name


def is_hub_folder(folder: locations.Path) -> bool:
  """Returns whether a folder holds a model of the hub, of any library."""
  return (folder / WEIGHTS).is_file() or _model_type(folder) is not None


def read_class_names(folder: locations.Path) -> tuple[str, ...]:
  """Reads the names of the classes.

  Args:
    folder: a folder that `write` wrote, or of another model of the hub.

  Raises:
    UserError: `config.json` is missing, damaged, or of another library.
  """
  path = folder / CONFIG
  description = _read_json(path)
  if description.get('model_type') != MODEL_TYPE:
    raise UserError(
      f'{path} has the model_type {description.get("model_type")!r}, and '
      f'models of this library have {MODEL_TYPE!r}. Give a folder that mtnet '
      'export --format=hub has written.'
    )
  names = description.get('id2label')
  names = names if isinstance(names, dict) else {}
  found = tuple(names.get(str(i)) for i in range(len(names)))
  if (
    not found
    or not all(isinstance(name, str) for name in found)
    or description.get('label2id', _numbers(found)) != _numbers(found)
  ):
    raise UserError(
      f'{path} does not name the classes, by numbers from 0 in id2label and '
      f'the same by name in label2id. {_REMEDY}'
    )
  number_labels(found, path)
  return found


def restore_variables(
  config: ml_collections.ConfigDict,
  folder: locations.Path,
  model: nn.Module,
  mesh: jax.sharding.Mesh,
) -> tuple[dict[str, Any], int]:
  """Reads the weights, and checks that the files describe the same clips.

  Args:
    config: the folder's configuration, perhaps with what a command line
      changes.
    folder: the folder.
    model: a network from `runs.model.build_model`.
    mesh: the devices, all of which get everything.

  Returns:
    `params` and `batch_stats`, and the step that they are of.

  Raises:
    UserError: a file is missing or damaged, or they do not fit each other.
  """
  _check_clips(folder)
  step = _read_json(folder / CONFIG).get('step')
  if type(step) is not int or step < 0:
    raise UserError(
      f'step (={step!r}) of {folder / CONFIG} must be a number of steps. '
      f'{_REMEDY}'
    )
  path = folder / WEIGHTS
  try:
    stored = safetensors.numpy.load(path.read_bytes())
  except OSError as error:
    raise _unreadable(path, error) from error
  except Exception as error:  # whatever the library says of a damaged file
    raise UserError(f'{path} is damaged: {error}. {_REMEDY}') from error
  shapes = model_lib.variable_shapes(
    model, model_lib.evaluation_clip_shape(config)
  )
  _check_leaves(stored, leaf_paths(shapes), path)
  variables = jax.tree.unflatten(
    jax.tree.structure(shapes), [stored[name] for name in leaf_paths(shapes)]
  )
  return jax.device_put(variables, mesh_lib.replicated(mesh)), step


def _check_leaves(stored: dict, wanted: dict, path: locations.Path) -> None:
  stored, wanted = (
    {name: f'{leaf.dtype} {leaf.shape}' for name, leaf in leaves.items()}
    for leaves in (stored, wanted)
  )
  differences = [
    f'{printable(name)} is {stored.get(name, "missing")}, and in the network '
    f'{wanted.get(name, "missing")}'
    for name in sorted(stored | wanted)
    if stored.get(name) != wanted.get(name)
  ]
  if differences:
    raise UserError(
      f'{path} does not hold the weights of the network that {CONFIG} beside '
      f'it describes: {"; ".join(differences[:3])} ({len(differences)} arrays '
      f'differ). {_REMEDY}'
    )


def _check_place(directory: pathlib.Path) -> None:
  present = [name for name in FILES if os.path.lexists(directory / name)]
  if present and _model_type(directory) != MODEL_TYPE:
    raise UserError(
      f'{directory} holds {" and ".join(present)} of something else than an '
      'export for the hub, which would be overwritten. Name another folder, or '
      'remove them.'
    )


def _numbers(class_names: tuple[str, ...]) -> dict[str, int]:
  return {name: i for i, name in enumerate(class_names)}


def _describe_clips(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the contents of `preprocessor_config.json`.

  It uses the hub's names where there are some. Sizes are in pixels; squares of
  `crop_size` are resized to `input_size`.
  """
  at = config.eval
  mean, std = config.model.get('input_mean'), config.model.get('input_std')
  return {
    'do_resize': True,
    'size': {'shortest_edge': at.crop_size},
    'do_center_crop': at.num_crops == 1,
    'crop_size': {'height': at.crop_size, 'width': at.crop_size},
    'input_size': {'height': at.input_size, 'width': at.input_size},
    'num_frames': config.data.num_frames,
    'frame_stride': config.data.frame_stride,
    'sampling': config.data.sampling,
    'num_clips': at.num_clips,
    'num_crops': at.num_crops,
    'do_rescale': True,
    'rescale_factor': 1 / 255,
    'do_normalize': True,
    'image_mean': list(mean or preprocessing.MEAN),
    'image_std': list(std or preprocessing.STD),
  }


def _check_clips(folder: locations.Path) -> None:
  path = folder / PREPROCESSOR
  # Folders that are older than this key have this value.
  described = {'sampling': 'clip'} | _read_json(path)
  expected = _describe_clips(run_folder.read_config(folder / CONFIG))
  for key, value in expected.items():
    if described.get(key) != value:
      raise UserError(
        f'{key} (={described.get(key)!r}) of {path} must be {value!r}, as '
        f'{CONFIG} beside it says. {_REMEDY}'
      )


def _model_type(folder: locations.Path) -> str | None:
  try:
    return str(files.parse_json((folder / CONFIG).read_bytes())['model_type'])
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _read_json(path: locations.Path) -> dict[str, Any]:
  try:
    found = files.parse_json(path.read_text('utf-8'))
  except OSError as error:
    raise _unreadable(path, error) from error
  except ValueError as error:
    raise UserError(f'{path} is damaged: {error}. {_REMEDY}') from error
  if not isinstance(found, dict):
    raise UserError(f'{path} is damaged: it has no keys. {_REMEDY}')
  return found


def _unreadable(path: locations.Path, error: OSError) -> UserError:
  return UserError(
    f'{path} cannot be read: {locations.cause(error)}. {_REMEDY}'
  )


def _as_json(content: dict[str, Any]) -> bytes:
  return (json.dumps(content, indent=2) + '\n').encode()
