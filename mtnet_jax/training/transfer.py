"""Starts a new run from the weights of another one."""

import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import logging

from mtnet_jax import locations
from mtnet_jax.errors import UserError
from mtnet_jax.locations import Path
from mtnet_jax.runs.checkpoints import Checkpoints
from mtnet_jax.runs.leaves import leaf_paths
from mtnet_jax.runs.state import TrainState, start_average
from mtnet_jax.training.optim import CLASSIFIER, is_trained

_HEAD = f'params/{CLASSIFIER}/'


def check(config: ml_collections.ConfigDict) -> None:
  """Raises a UserError where a part of a network cannot be trained alone.

  Args:
    config: a run's configuration.

  Raises:
    UserError: without weights of another run, or without the part.
  """
  trained = config.optim.trained
  if trained != 'all' and not config.train.init_from:
    raise UserError(
      f'optim.trained={trained!r} trains a part of the network on the weights '
      'of another run: name that run by --config.train.init_from=WORKDIR.'
    )
  regularized = config.model.class_regularization
  if trained == 'class_regularization' and not regularized:
    raise UserError(
      f'optim.trained={trained!r} has nothing to train in a network without '
      'Class Regularisation: set --config.model.class_regularization=True.'
    )


def start_from(
  path: str | pathlib.Path,
  state: TrainState,
  names: tuple[str, ...],
  trained: str = 'all',
) -> TrainState:
  """Starts a state from the weights and BN statistics that fit.

  An array fits if it has the same path and shape; the classifier's only if the
  classes have the same names in the same order. Everything else, and the
  optimizer's state, stays as it is, and the log lists it: as a warning where
  less than half fits.

  Args:
    path: workdir of the run to start from, of which the best checkpoint is
      taken, or WORKDIR/checkpoints/STEP; where that run has a moving average
      of its weights, that is taken.
    state: a new state, as `state.create` makes it.
    names: the names of the new run's classes.
    trained: the part of the network that will be trained, one of
      `optim.TRAINED`; the others must fit. It itself begins anew where it does
      not, as Class Regularisation's maps do on a run without any: the log alone
      tells whether there were some to train on.

  Returns:
    The state at step 0, placed as `state` is.

  Raises:
    UserError: there is no such checkpoint, nothing of it fits, or something
      does not fit that will not be trained.
  """
  # The step is whole on every device, which no larger array is for sure.
  workdir, variables = _read(locations.as_path(path), state.step.sharding)
  stored = leaf_paths(variables)
  new = leaf_paths(state.variables)
  same_classes = _read_names(workdir) == names
  fitting = {
    name: stored[name]
    for name, leaf in new.items()
    if name in stored
    and stored[name].shape == leaf.shape
    and (same_classes or not name.startswith(_HEAD))
  }
  if all(name.startswith(_HEAD) for name in fitting):
    raise UserError(
      f'Nothing in {path} fits this model (train.init_from): its first '
      f'weights are {", ".join(list(stored)[:3])}. Start from a run of the '
      'same or a similar model.'
    )
  _check_untrained(path, set(new) - set(fitting), trained, same_classes)
  # A user who names weights hardly wants less than half of them.
  level = logging.INFO if 2 * len(fitting) > len(new) else logging.WARNING
  left = {name: leaf for name, leaf in stored.items() if name not in fitting}
  fresh = {name: leaf for name, leaf in new.items() if name not in fitting}
  logging.log(
    level,
    'Starting from %s: %d of %d arrays are taken over.\n%s\n%s',
    path,
    len(fitting),
    len(new),
    _list('New are', fresh),
    _list('Left behind are', left),
  )
  taken = _place_like(fitting, {name: new[name] for name in fitting})
  leaves = [taken.get(name, leaf) for name, leaf in new.items()]
  variables = jax.tree.unflatten(jax.tree.structure(state.variables), leaves)
  started = state.replace(**variables)
  return started if state.ema is None else start_average(started)


def _check_untrained(path, fresh, trained, same_classes):
  """Raises a UserError if something would stay as random as it began."""
  random = sorted(
    name
    for name in fresh
    if name.startswith('params/')
    and not is_trained(name.split('/')[1], trained)
  )
  if random:
    why = '' if same_classes else ', whose classes have other names'
    raise UserError(
      f'optim.trained={trained!r} would leave {len(random)} arrays at their '
      f'random values: {", ".join(random[:3])} cannot be taken over from '
      f'{path}{why} (train.init_from). Start from a run of the same network '
      'and classes, or first train one with --config.optim.trained=all.'
    )


def _read(path: Path, sharding) -> tuple[Path, dict[str, Any]]:
  """Returns the workdir, and `params` and `batch_stats`."""
  is_step = path.parent.name == 'checkpoints' and path.name.isdecimal()
  workdir = path.parent.parent if is_step else path
  if not (path if is_step else path / 'checkpoints').is_dir():
    raise UserError(
      f'There is no checkpoint in {path} (train.init_from). Give the '
      '--workdir of a run that was trained, or one of its checkpoints, '
      'WORKDIR/checkpoints/STEP.'
    )
  with Checkpoints(workdir, read_only=True) as checkpoints:
    step = int(path.name) if is_step else checkpoints.best_step
    if step is None:
      raise UserError(
        f'{path} (train.init_from) holds no finished checkpoint yet.'
      )
    return workdir, checkpoints.read_variables(step, sharding)


def _read_names(workdir: Path) -> tuple[str, ...]:
  path = workdir / 'labels.txt'
  return tuple(path.read_text().splitlines()) if path.exists() else ()


def _place_like(
  values: Mapping[str, jax.Array], like: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
  """Returns the values, each on the devices of its counterpart."""
  # A jitted identity moves arrays between processes, too.
  shardings = {name: leaf.sharding for name, leaf in like.items()}
  return jax.jit(lambda tree: tree, out_shardings=shardings)(values)


def _list(title: str, leaves: Mapping[str, jax.Array]) -> str:
  """Lists all arrays, those of a module on one line."""
  lines = [f'{title} {len(leaves)}:' if leaves else f'{title} none.']
  in_order = sorted(leaves, key=lambda name: (_module(name), name))
  for module, names in itertools.groupby(in_order, _module):
    arrays = [
      f'{name.removeprefix(module)} {leaves[name].shape}' for name in names
    ]
    lines.append(f'  {module} {", ".join(arrays)}')
  return '\n'.join(lines)


def _module(name: str) -> str:
  return name[: name.rindex('/') + 1]
