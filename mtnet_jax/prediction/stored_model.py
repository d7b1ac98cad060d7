"""What kind of folder holds a model, and how is it read?"""

import dataclasses
from collections.abc import Callable

import jax
import ml_collections
from flax import linen as nn

from mtnet_jax import locations
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import scoring
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
    source: where the weights come from, in words.
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
    workdir: a folder that is there: a run's, or an exported model's.
    checkpoint: of a run, 'best' (on validation) or 'last'.
    given: what a command line changes of the run's configuration.

  Raises:
    UserError: there is no model, its files are damaged, or another network
      was given.
  """
  exported = _find_export(workdir)
  if exported is None:
    return _read_run(workdir, checkpoint, given)
  return _read_export(exported, given)


def _read_run(
  workdir: locations.Path, checkpoint: str, given: Given | None
) -> StoredModel:
  path = workdir / 'config.json'
  config = (
    configuration.read(workdir, given)
    if given
    else run_folder.read_config(path)
  )
  class_names = run_folder.read_class_names(workdir / 'labels.txt')
  mesh = mesh_lib.make_mesh(devices=jax.local_devices())
  with model_lib.explained(path):
    model = model_lib.build_model(config, len(class_names))
    variables, step = model_lib.restore_variables(
      config, workdir, checkpoint, model, mesh
    )
  eval_step = scoring.make_eval_step(model, mesh)
  return StoredModel(
    config,
    class_names,
    f'the {checkpoint} checkpoint of {workdir}',
    mesh,
    lambda variables, clips: eval_step(variables, clips)[0],
    model,
    variables,
    step,
  )


def _read_export(directory: locations.Path, given: Given | None) -> StoredModel:
  classify, metadata = program_lib.load_export(directory)
  source = f'the exported model in {directory}'
  config = run_folder.as_config(
    {name: metadata[name] for name in ('data', 'eval')}
  )
  if given:
    config = configuration.adapt_export(config, given, source)
  # A program is exported for one device.
  mesh = mesh_lib.make_mesh(devices=jax.local_devices()[:1])
  names = tuple(metadata['class_names'])
  return StoredModel(
    config, names, source, mesh, lambda _, clips: classify(clips)
  )


def _find_export(workdir: locations.Path) -> locations.Path | None:
  """Where the exported model is that stands in for absent checkpoints."""
  checkpoints = workdir / 'checkpoints'
  # Finished ones are named by their step.
  if any(path.name.isdecimal() for path in checkpoints.glob('*')):
    return None
  places = (workdir / 'export', workdir)
  found = [
    place for place in places if (place / program_lib.METADATA).is_file()
  ]
  if not found and checkpoints.is_dir():
    return None  # where its messages are
  if not found:
    raise UserError(
      f'There is neither a checkpoint nor an exported model in {workdir}. '
      'Train first: mtnet train --config=... --workdir=DIR.'
    )
  return found[0]
