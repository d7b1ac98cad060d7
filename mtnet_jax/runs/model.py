"""Builds the network of a run, and restores its weights."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging
from flax import linen as nn

from mtnet_jax import locations, models
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs.checkpoints import Checkpoints


def build_model(
  config: ml_collections.ConfigDict, num_classes: int, **overrides
) -> nn.Module:
  """Returns the network of `config.model`; unset overrides are the model's own.

  Args:
    config: the run's configuration.
    num_classes: the number of classes of the data set.
    **overrides: fields of the network that follow from the run.

  Returns:
    A linen module.
  """
  chosen = {k: v for k, v in config.model.items() if v is not None}
  return models.build(num_classes=num_classes, **chosen, **overrides)


@contextlib.contextmanager
def explained(source: str | os.PathLike) -> Iterator[None]:
  """Raises a `UserError` where a stored configuration makes no network.

  Args:
    source: the origin of the configuration.
  """
  try:
    yield
  except UserError:
    raise
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{source} makes no network: {error!r}. {run_folder.COPY_RUN_AGAIN}'
    ) from error


def training_clip_shape(
  config: ml_collections.ConfigDict,
) -> tuple[int, int, int, int]:
  """Returns `(t, h, w, c)` of the clips that the network is trained on."""
  size = config.data.input_size
  return config.data.num_frames, size, size, 3


def evaluation_clip_shape(
  config: ml_collections.ConfigDict,
) -> tuple[int, int, int, int]:
  """Returns `(t, h, w, c)` of the views that the network is evaluated on."""
  size = config.eval.input_size
  return config.data.num_frames, size, size, 3


def variable_shapes(
  model: nn.Module, clip_shape: tuple[int, int, int, int]
) -> dict[str, Any]:
  """Returns a network's variables as `jax.ShapeDtypeStruct`s; a tree."""
  clips = jax.ShapeDtypeStruct((1, *clip_shape), jnp.float32)
  init = functools.partial(model.init, train=False)
  return dict(jax.eval_shape(init, jax.random.key(0), clips))


def restore_variables(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  checkpoint: str,
  model: nn.Module,
  mesh: jax.sharding.Mesh,
) -> tuple[dict[str, Any], int]:
  """Reads what `model.apply` takes from a run.

  Args:
    config: the run's configuration.
    workdir: the run's folder.
    checkpoint: 'best' (on validation) or 'last'.
    model: a network from `build_model`.
    mesh: the devices, all of which get everything.

  Returns:
    `params` and `batch_stats`, and the step that they are of.

  Raises:
    UserError: no checkpoint, or one of another model or number of classes.
  """
  if not (locations.as_path(workdir) / 'checkpoints').is_dir():
    raise UserError(
      f'There is no checkpoint in --workdir={workdir}. Train first: '
      'mtnet train --config=... --workdir=DIR.'
    )
  like = jax.tree.map(
    lambda leaf: leaf.update(sharding=mesh_lib.replicated(mesh)),
    variable_shapes(model, training_clip_shape(config)),
  )
  with Checkpoints(workdir, read_only=True) as checkpoints:
    steps = {'best': checkpoints.best_step, 'last': checkpoints.last_step}
    step = steps[checkpoint]
    if step is None:
      raise UserError(
        f'{workdir}/checkpoints holds no finished checkpoint yet: run the same '
        'mtnet train command again, it goes on by itself.'
      )
    logging.info('Evaluating the checkpoint of step %s', step)
    return checkpoints.restore_variables(step, like), step
