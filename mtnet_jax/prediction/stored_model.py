"""Reads the model of a folder: a run, an export, or a model of the hub."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import ml_collections
from flax import linen as nn

from mtnet_jax import locations
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import scoring
from mtnet_jax.export import hub
from mtnet_jax.export import program as program_lib
from mtnet_jax.runs import configuration
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.given import Given
from mtnet_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class StoredModel:
  """A model that was read from a folder.

  Attributes:
    config: the run's configuration; of an exported model, what is known of its
      sections `data` and `eval`.
    class_names: the names of the k classes.
    source: the origin of the weights, in words.
    mesh: the devices that the model is on.
    classify: a function of `variables`, and of clips on the devices, to float32
      probabilities.
    model: the network; None for an exported model.
    variables: the network's `params` and `batch_stats`; None likewise.
    step: the training step that the weights are of; None likewise.
  """

  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]
  source: str
  mesh: jax.sharding.Mesh
  classify: Callable[[dict | None, Array], Array]
  model: nn.Module | None = None
  variables: dict | None = None
  step: int | None = None


def read(
  workdir: locations.Path, checkpoint: str, given: Given | None
) -> StoredModel:
  """Reads the model that a folder holds.

  Args:
    workdir: a folder that is there: a run's, an exported model's, or a hub
      folder.
    checkpoint: the checkpoint of a run: 'best' (on validation) or 'last'.
    given: the command line's changes to the run's configuration.

  Raises:
    UserError: there is no model, its files are damaged, or another network
      was given.
  """
  # Finished checkpoints are named by their step.
  steps = (workdir / 'checkpoints').glob('*')
  if not any(path.name.isdecimal() for path in steps):
    if hub.is_hub_folder(workdir):
      return _read_hub_folder(workdir, given)
    exported = _find_export(workdir)
    if exported is not None:
      return _read_export(exported, given)
  return _read_run(workdir, checkpoint, given)


def _read_run(
  workdir: locations.Path, checkpoint: str, given: Given | None
) -> StoredModel:
  config = _read_config(workdir, given)
  class_names = run_folder.read_class_names(workdir / 'labels.txt')
  source = f'the {checkpoint} checkpoint of {workdir}'
  restore = functools.partial(
    model_lib.restore_variables, config, workdir, checkpoint
  )
  with model_lib.explained(workdir / 'config.json'):
    return _build(config, class_names, source, restore)


def _read_hub_folder(
  folder: locations.Path, given: Given | None
) -> StoredModel:
  class_names = hub.read_class_names(folder)
  config = _read_config(folder, given)
  source = f'the hub folder {folder}'
  restore = functools.partial(hub.restore_variables, config, folder)
  with model_lib.explained(folder / hub.CONFIG):
    return _build(config, class_names, source, restore)


def _read_config(
  folder: locations.Path, given: Given | None
) -> ml_collections.ConfigDict:
  if given:
    return configuration.read(folder, given)
  return run_folder.read_config(folder / 'config.json')


def _build(
  config: ml_collections.ConfigDict,
  class_names: tuple[str, ...],
  source: str,
  restore: Callable[[nn.Module, jax.sharding.Mesh], tuple[dict, int]],
) -> StoredModel:
  mesh = mesh_lib.make_mesh(devices=jax.local_devices())
  model = model_lib.build_model(config, len(class_names))
  variables, step = restore(model, mesh)
  eval_step = scoring.make_eval_step(model, mesh)
  return StoredModel(
    config,
    class_names,
    source,
    mesh,
    lambda variables, clips: eval_step(variables, clips)[0],
    model,
    variables,
    step,
  )


def _read_export(directory: locations.Path, given: Given | None) -> StoredModel:
  classify, metadata = program_lib.load_export(directory)
  source = f'the exported model in {directory}'
  run_folder.add_newer_keys(metadata['data'])
  config = run_folder.as_config(
    {name: metadata[name] for name in ('data', 'eval')}
  )
  if given:
    config = configuration.adapt_export(config, given, source)
  # An exported program is for one device.
  mesh = mesh_lib.make_mesh(devices=jax.local_devices()[:1])
  names = tuple(metadata['class_names'])
  return StoredModel(
    config, names, source, mesh, lambda _, clips: classify(clips)
  )


def _find_export(workdir: locations.Path) -> locations.Path | None:
  """Returns where the exported model is that stands in for a checkpoint."""
  places = (workdir / 'export', workdir)
  found = [
    place for place in places if (place / program_lib.METADATA).is_file()
  ]
  if not found and (workdir / 'checkpoints').is_dir():
    return None  # where its messages are
  if not found:
    raise UserError(
      f'There is neither a checkpoint nor an exported model in {workdir}. '
      'Train first: mtnet train --config=... --workdir=DIR.'
    )
  return found[0]
