"""Joins the processes of a run, and exchanges data between them.

Every process runs the same loop on its own part of each batch. Process 0 alone
writes logs and figures; checkpoints are written by all of them together.
"""

import socket
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from mtnet_jax.errors import UserError

# Seconds of JAX's own watch, which aborts all processes when one is gone. Ours
# names that process before.
_HEARTBEAT_SECONDS = 360


def join(
  coordinator: str = '',
  count: int | None = None,
  index: int | None = None,
  timeout: int = 300,
) -> None:
  """Makes this process one of several; to be called before any use of devices.

  Args:
    coordinator: address `HOST:PORT` of process 0, or '' to ask the cluster.
    count: number of processes; None: ask the cluster.
    index: number of this process, from 0; None: ask the cluster.
    timeout: seconds to wait for the others.

  Raises:
    UserError: no cluster says who is who, or the others do not come.
  """
  # The service's handler of SIGTERM would replace ours.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
      coordinator_address=coordinator or None,
      num_processes=count,
      process_id=index,
      initialization_timeout=timeout,
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )
  except (RuntimeError, ValueError) as error:
    raise UserError(
      f'{socket.gethostname()} cannot join the other processes: {error}. Where '
      'no cluster (TPU pod, Slurm, Kubernetes, MPI) says who is who, give '
      '--coordinator=HOST:PORT --num_processes=N --process_id=I to each.'
    ) from error
  if not is_main():
    logging.set_verbosity(logging.WARNING)


def is_main() -> bool:
  """Returns whether this is the process that writes logs and figures."""
  return jax.process_index() == 0


def wait_for_all(what: str) -> None:
  """Returns when all processes have called it.

  Args:
    what: a name for what the processes have done; the same in all.
  """
  multihost_utils.sync_global_devices(what)


def gather(data: bytes) -> list[bytes]:
  """Returns all processes' data, in order; all processes must call it."""
  if jax.process_count() == 1:
    return [data]
  sizes = multihost_utils.process_allgather(np.array(len(data), np.int32))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[: len(data)] = np.frombuffer(data, np.uint8)
  rows = multihost_utils.process_allgather(padded)
  return [
    row[:size].tobytes() for row, size in zip(rows, sizes.tolist(), strict=True)
  ]


class KeyValueBoard:
  """A `watchdog.MessageBoard` in the store that JAX keeps for its processes."""

  _PREFIX = 'mtnet_jax/watchdog/'

  def __init__(self, client: Any):
    """Takes JAX's client of the store."""
    self._client = client

  def put(self, line: str) -> None:
    """Replaces this process's line."""
    key = f'{self._PREFIX}{jax.process_index()}'
    self._client.key_value_set(key, line, allow_overwrite=True)

  def read(self) -> dict[int, str]:
    """Returns the lines by process."""
    entries = self._client.key_value_dir_get(self._PREFIX)
    return {int(key.rsplit('/', 1)[1]): line for key, line in entries}


def board() -> KeyValueBoard | None:
  """Returns the board of the processes' watchdogs; None for one process.

  None, too, where this JAX hides its store: then each process watches itself.
  """
  if jax.process_count() == 1:
    return None
  try:
    # JAX has no public access to the store; orbax uses this one too.
    from jax._src import distributed

    return KeyValueBoard(distributed.global_state.client)
  except (ImportError, AttributeError) as error:
    logging.warning(
      'With JAX %s processes do not watch each other: %s',
      jax.__version__,
      error,
    )
    return None
