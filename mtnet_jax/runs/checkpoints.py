"""Writes and reads checkpoints: the last two, and the best on validation."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from mtnet_jax import files, locations
from mtnet_jax.devices import processes
from mtnet_jax.errors import UserError
from mtnet_jax.runs import hashes
from mtnet_jax.runs.leaves import differences, leaf_paths
from mtnet_jax.runs.state import TrainState

_BEST_METRIC = 'top1'
# The errors that damaged files raise.
_UNREADABLE = (OSError, LookupError, TypeError, ValueError)


class DamagedCheckpointError(UserError):
  """A checkpoint's files are not whole."""


class UnsavedError(UserError):
  """A checkpoint could not be written."""


class Checkpoints:
  """Writes and reads `WORKDIR/checkpoints`; a context manager.

  Writing is asynchronous and atomic: a checkpoint appears under its step's
  name when it is whole, and older ones are deleted only after that.
  """

  def __init__(self, workdir: str | os.PathLike, read_only: bool = False):
    """Opens the folder, making it if need be.

    Args:
      workdir: the run's folder, from `make_workdir`.
      read_only: whether checkpoints are only read, perhaps beside a running
        training, whose half-written checkpoints are left alone.
    """
    self._directory = locations.absolute(workdir) / 'checkpoints'
    self._damaged = self._directory.with_name('damaged_checkpoints')
    self._read_only = read_only
    self._written = 0  # the step that is being written
    self._check_metrics()
    self._manager = self._open()

  def _open(self) -> ocp.CheckpointManager:
    keep = preservation_policy.AnyPreservationPolicy(
      [
        # The one before is kept in case the last is damaged.
        preservation_policy.LatestN(2),
        preservation_policy.BestN(
          get_metric_fn=lambda metrics: metrics[_BEST_METRIC],
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
      ]
    )
    options = ocp.CheckpointManagerOptions(
      preservation_policy=keep,
      # Without it no metrics are kept.
      best_fn=lambda metrics: metrics[_BEST_METRIC],
      cleanup_tmp_directories=not self._read_only,
      create=not self._read_only,
      read_only=self._read_only,
      async_options=ocp.AsyncOptions(
        post_finalization_callback=self._write_hashes
      ),
    )
    with locations.telling_refusal(self._directory):
      return ocp.CheckpointManager(
        self._directory,
        options=options,
        item_handlers={
          'variables': ocp.StandardCheckpointHandler(),
          'optimizer': ocp.StandardCheckpointHandler(),
        },
      )

  def _write_hashes(self) -> None:
    """Adds the hashes of its files to a checkpoint, before it gets its name."""
    # A bucket keeps hashes of its own.
    if processes.is_main() and not locations.on_bucket(self._directory):
      for folder in self._directory.glob(f'{self._written}.*'):
        hashes.write(folder)

  def _check_metrics(self) -> None:
    """Puts aside checkpoints whose metrics a manager could not read.

    Raises:
      DamagedCheckpointError: figures are damaged, and this is a reader.
    """
    told = ''
    if processes.is_main() and not locations.on_bucket(self._directory):
      for folder in sorted(self._directory.glob('[0-9]*')):
        cause = _damage_of_metrics(folder)
        damaged = cause and self._damage(folder.name, cause)
        if damaged and self._read_only:
          told = str(damaged)
        elif damaged:
          logging.warning('%s It is put aside.', damaged)
          self._move_aside(folder.name)
    _raise_in_all(
      told
    )  # no process continues before damaged checkpoints are aside

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused: object) -> None:
    self.wait()
    self._manager.close()

  @property
  def last_step(self) -> int | None:
    """The step of the newest whole checkpoint."""
    return self._manager.latest_step()

  @property
  def best_step(self) -> int | None:
    """The step with the highest validation top-1; the newest where none has."""
    scores = {}
    for step in self._manager.all_steps():
      metrics = self._manager.metrics(step)
      if metrics:
        scores[step] = metrics[_BEST_METRIC]
    if not scores:
      return self.last_step
    # Among equal scores, the later step is the best.
    return max(scores, key=lambda step: (scores[step], step))

  def save(
    self, state: TrainState, metrics: Mapping[str, float] | None = None
  ) -> None:
    """Starts writing `state`; returns before it is on disk.

    Args:
      state: the step is read from it.
      metrics: validation figures of this very state, `top1` among them.

    Raises:
      UnsavedError: an earlier or this write failed (a full disk).
    """
    # A copy: the state's own buffers are donated to the next step, which on a
    # CPU writes into them while they are still being saved.
    copy = jax.tree.map(jnp.copy, state)
    step = int(state.step)
    with self._naming_failure():
      self._manager.wait_until_finished()
      self._written = step
      self._manager.save(
        step,
        args=ocp.args.Composite(
          variables=ocp.args.StandardSave(copy.evaluated),
          optimizer=ocp.args.StandardSave(_optimizer(copy)),
        ),
        metrics=dict(metrics) if metrics else None,
      )

  def wait(self) -> None:
    """Blocks until everything is on disk.

    Raises:
      UnsavedError: a write failed (a full disk).
    """
    with self._naming_failure():
      self._manager.wait_until_finished()

  def restore_last(self, like: TrainState) -> TrainState | None:
    """Reads the newest checkpoint that is whole; None where there is none.

    One that cannot be read (a torn copy, a disk's fault) is put aside, into
    `WORKDIR/damaged_checkpoints`, with a warning, and the one before is read.

    Args:
      like: a state as for `restore`.

    Raises:
      UserError: what `restore` raises, or no checkpoint can be read.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      restored = None
      try:
        restored = self.restore(step, like)
      except DamagedCheckpointError as error:
        logging.warning('%s It is put aside.', error)
      # A checkpoint that one process cannot read is used by none.
      if all(processes.gather(b'' if restored is None else b'read')):
        return restored
      self._put_aside(step)
    # A run that lost its checkpoints at an earlier start does not begin anew,
    # either.
    if self._damaged.is_dir() and any(self._damaged.iterdir()):
      raise UserError(
        f'No checkpoint in {self._directory} can be read; they were moved to '
        f'{self._damaged}. Give another --workdir, or remove the folder to '
        'start anew.'
      )
    return None

  def _put_aside(self, step: int) -> None:
    """Makes room for a new checkpoint of this step; deletes nothing."""
    if processes.is_main():
      self._move_aside(str(step))
    processes.wait_for_all('put aside')
    self._manager.reload()

  def _move_aside(self, name: str) -> None:
    target = self._damaged / f'{name}-{time.time_ns()}'
    files.move_folder(self._directory / name, target)

  def restore(self, step: int, like: TrainState) -> TrainState:
    """Reads the whole state of `step`, to train on.

    Args:
      step: `last_step` or `best_step`.
      like: a state, or abstract arrays in its place, with the shapes, dtypes
        and shardings that are wanted.

    Returns:
      The state, placed like `like`.

    Raises:
      UserError: it is the checkpoint of another model, number of classes or
        optimizer; the first differing leaves are named.
      DamagedCheckpointError: the checkpoint's files are not whole.
    """
    self._check_files(step, 'variables', 'optimizer')
    evaluated = self._restore(step, 'variables', dict(like.evaluated))
    optimizer = self._restore(step, 'optimizer', _optimizer(like))
    # With a moving average, the trained weights are stored beside it.
    trained = optimizer.pop('trained', None)
    if trained is None:
      return TrainState(**evaluated, **optimizer)
    return TrainState(**trained, **optimizer, ema=evaluated)

  def restore_variables(
    self, step: int, like: Mapping[str, Any]
  ) -> dict[str, Any]:
    """Reads `params` and `batch_stats` of `step`; as `restore` otherwise."""
    self._check_files(step, 'variables')
    return self._restore(step, 'variables', dict(like))

  def read_variables(
    self, step: int, sharding: jax.sharding.Sharding
  ) -> dict[str, Any]:
    """Reads `params` and `batch_stats` of `step` as they are, of any model."""
    self._check_files(step, 'variables')
    with self._naming_damage(step):
      stored = self._manager.item_metadata(step)['variables']
      if not stored:
        raise ValueError('it has no variables')
    like = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
      ),
      stored,
      is_leaf=lambda leaf: hasattr(leaf, 'shape'),
    )
    return self._restore(step, 'variables', like)

  def _check_files(self, step: int, *items: str) -> None:
    # One process checks for all, since they read the same files.
    told = ''
    if processes.is_main() and not locations.on_bucket(self._directory):
      try:
        hashes.check(self._directory / str(step), *items)
      except (OSError, hashes.ChangedError) as error:
        told = str(self._damage(str(step), error))
    _raise_in_all(told)

  def _restore(
    self, step: int, item: str, like: Mapping[str, Any]
  ) -> dict[str, Any]:
    with self._naming_damage(step):
      stored = self._manager.item_metadata(step)[item]
      if not stored:
        raise ValueError(f'it has no {item}')
    other = differences(stored, like)
    if other:
      kind = 'model or number of classes'
      if item == 'optimizer':
        kind = 'optimizer, accumulation or moving average'
      raise UserError(
        f'The checkpoint of step {step} in {self._directory} is of another '
        f'{kind}: {"; ".join(other[:3])} '
        f'({len(other)} leaves differ). Use the configuration that it '
        'was trained with, or another --workdir.'
      )
    # The optimizer's state is read as it was stored, because parts that hold no
    # arrays, such as clipping, may change between two starts.
    wanted = leaf_paths(like)
    target = jax.tree.unflatten(
      jax.tree.structure(stored), [wanted[name] for name in leaf_paths(stored)]
    )
    with self._naming_damage(step):
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(**{item: ocp.args.StandardRestore(target)}),
      )
    found = leaf_paths(restored[item])
    leaves = [found[name] for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)

  @contextlib.contextmanager
  def _naming_damage(self, step: int) -> Iterator[None]:
    try:
      yield
    except jax.errors.JaxRuntimeError:
      raise  # of the devices
    except Exception as error:  # whatever a library says of broken files
      if locations.on_bucket(self._directory) and locations.is_refusal(error):
        raise locations.refused(self._directory, str(error)) from error
      raise self._damage(str(step), error) from error

  def _damage(self, step: str, error: Exception) -> DamagedCheckpointError:
    return DamagedCheckpointError(
      f'The checkpoint of step {step} in {self._directory} is damaged: '
      f'{(str(error) or repr(error)).splitlines()[0]}.'
    )

  @contextlib.contextmanager
  def _naming_failure(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:
      if isinstance(error, OSError | ValueError) or locations.is_refusal(error):
        raise self._unwritten(error) from error
      raise

  def _unwritten(self, error: Exception) -> UnsavedError:
    # A manager raises an error again at every later call, so a new manager is
    # opened for the next write. With several processes, only this one may have
    # met the error, and the others would have to open a manager with it, so the
    # run ends.
    if jax.process_count() == 1:
      with contextlib.suppress(OSError, ValueError):
        self._manager.close()
      self._manager = self._open()
    last, code = self.last_step, files.no_room(error)
    cause = os.strerror(code) if code else error
    good = f'The last good one is that of step {last}'
    return UnsavedError(
      f'A checkpoint could not be written to {self._directory}: {cause}. '
      f'{"There is none yet" if last is None else good}: free some space '
      'and run the same command again.'
    )


def _raise_in_all(told: str) -> None:
  """Raises the main process's error, if there is one, in all processes.

  If only one stopped, the others would wait for it within Orbax.
  """
  if told := processes.gather(told.encode())[0].decode():
    error = DamagedCheckpointError(told)
    error.known_to_all = True
    raise error


def _damage_of_metrics(folder: pathlib.Path) -> Exception | None:
  """Returns what is wrong with the figures of a checkpoint, or None."""
  path = folder / 'metrics/metrics'
  try:
    hashes.check(folder, 'metrics')
    if path.exists():
      float(files.parse_json(path.read_bytes())[_BEST_METRIC])
  except (*_UNREADABLE, hashes.ChangedError) as error:
    return error
  return None


def _optimizer(state: TrainState) -> dict[str, Any]:
  item = {'step': state.step, 'opt_state': state.opt_state}
  if state.loss_scale is not None:
    item['loss_scale'] = state.loss_scale
  if state.ema is not None:
    item['trained'] = state.variables
  return item
