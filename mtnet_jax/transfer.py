"""Starts a new run from the weights of another one."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from absl import logging

from mtnet_jax.checkpoints import Checkpoints, leaf_paths
from mtnet_jax.errors import UserError
from mtnet_jax.state import TrainState

# The layer of every network whose rows are classes.
_HEAD = 'params/classifier/'
_MAX_NAMED = 20


def start_from(
  workdir: str | pathlib.Path, current: TrainState, names: tuple[str, ...]
) -> TrainState:
  """Takes over the weights and BN statistics that fit.

  Array by array, those fit that have the same path and shape; the classifier's
  only if the classes have the same names in the same order. Everything else,
  and the optimiser's state, stays as it is, and the log lists it: as a warning
  where less than half fits.

  Args:
    workdir: of the run to start from; its best checkpoint is taken.
    current: a new state, as `state.create` makes it.
    names: of the new run's classes.

  Returns:
    The state at step 0, placed as `current` is.

  Raises:
    UserError: `workdir` has no checkpoint, or nothing of it fits.
  """
  workdir = pathlib.Path(workdir)
  stored = _read(workdir, jax.tree.leaves(current.params)[0].sharding)
  same_classes = _read_names(workdir) == names
  values = leaf_paths(stored)
  new = leaf_paths(current.variables)
  taken = {
    path: values[path]
    for path, leaf in new.items()
    if path in values
    and values[path].shape == leaf.shape
    and (same_classes or not path.startswith(_HEAD))
  }
  if all(path.startswith(_HEAD) for path in taken):
    raise UserError(
      f'Nothing in {workdir} fits this model (train.init_from): its first '
      f'weights are {", ".join(list(values)[:3])}. Start from a run of the '
      'same or a similar model.'
    )
  # Less than half is hardly what was meant.
  level = logging.INFO if 2 * len(taken) > len(new) else logging.WARNING
  logging.log(
    level,
    'Starting from %s: %d of %d arrays are taken over; new are: %s; left '
    'behind: %s',
    workdir,
    len(taken),
    len(new),
    _list(new.keys() - taken.keys()),
    _list(values.keys() - taken.keys()),
  )
  leaves = [taken.get(path, leaf) for path, leaf in new.items()]
  variables = jax.tree.unflatten(jax.tree.structure(current.variables), leaves)
  return current.replace(**variables)


def _read(workdir: pathlib.Path, sharding) -> Mapping[str, Any]:
  if not (workdir / 'checkpoints').is_dir():
    raise UserError(
      f'There is no checkpoint in {workdir} (train.init_from). Give the '
      '--workdir of a run that was trained.'
    )
  with Checkpoints(workdir, read_only=True) as checkpoints:
    step = checkpoints.best_step
    if step is None:
      raise UserError(
        f'{workdir} (train.init_from) holds no finished checkpoint yet.'
      )
    return checkpoints.read_variables(step, sharding)


def _read_names(workdir: pathlib.Path) -> tuple[str, ...]:
  path = workdir / 'labels.txt'
  return tuple(path.read_text().splitlines()) if path.exists() else ()


def _list(paths: Iterable[str]) -> str:
  names = sorted(paths)
  more = len(names) - _MAX_NAMED
  listed = ', '.join(names[:_MAX_NAMED]) or 'none'
  return f'{listed} and {more} more' if more > 0 else listed
