"""Iterates over batches that other processes load ahead."""

import contextlib
import itertools
import multiprocessing
import os
import re
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence

import cv2
from absl import flags

from mtnet_jax.data.batches import Batch
from mtnet_jax.errors import Interruption

# Smaller arrays are sent, larger ones lie in shared memory.
_MIN_SHARED_BYTES = 2**24
# The processes of each loader that is in use.
_workers: list[list[multiprocessing.Process]] = []
# All processes that were ever a loader's, even of one that is closed.
_known: weakref.WeakSet[multiprocessing.Process] = weakref.WeakSet()


def iterate(
  batches: Sequence[Batch],
  start_step: int = 0,
  num_workers: int = 0,
  prefetch: int = 1,
) -> Iterator[Batch]:
  """Iterates over batches from a step on, loading ahead in other processes.

  Args:
    batches: the batches from `pipeline.build`; any picklable sequence.
    start_step: the first batch's number.
    num_workers: loader processes; 0 loads in this one, when asked. The batches
      are the same, byte for byte, for any number.
    prefetch: batches that each process keeps ready, ≥ 1.

  Returns:
    A generator; the processes end with it.

  Raises:
    UserError: what `batches` raise, in whatever process.
    Interruption: a process was killed.
  """
  if num_workers == 0:
    for step in range(start_step, len(batches)):
      yield batches[step]
    return
  # The import is here because grain imports jax, which is slow and not needed
  # without processes.
  import grain

  if not flags.FLAGS.is_parsed():  # in a notebook; grain reads its own flags
    flags.FLAGS.mark_as_parsed()
  dataset = grain.MapDataset.source(batches)[start_step:]
  dataset = dataset.to_iter_dataset(
    grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  )
  # Experimental; without it batches are the same, and come more slowly.
  with contextlib.suppress(AttributeError, TypeError):
    options = grain.experimental.DatasetOptions(min_shm_size=_MIN_SHARED_BYTES)
    dataset = grain.experimental.WithOptionsIterDataset(dataset, options)
  iterator = iter(
    dataset.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers, per_worker_buffer_size=prefetch
      ),
      worker_init_fn=_start_worker,
    )
  )
  with contextlib.closing(iterator), _watching(num_workers) as watch:
    for batch in iterator:
      watch()
      yield batch


def killed_worker() -> str:
  """Returns in a sentence which loader process was killed; '' where none was.

  A reader of its batches may not notice for long.
  """
  for process in tuple(itertools.chain(*_workers)):
    if process.exitcode is not None and process.exitcode < 0:
      return _killed_by(-process.exitcode, f'({process.pid}) ')
  return ''


def _killed_by(number: int, which: str = '') -> str:
  name = signal.Signals(number).name
  return (
    f'a loader process {which}was killed by {name}. If the system did it for '
    'lack of memory, fewer --config.data.num_workers or a smaller '
    '--config.data.prefetch need less.'
  )


@contextlib.contextmanager
def _watching(num_workers: int) -> Iterator[Callable[[], None]]:
  """Yields a function that notes the processes of a loader as they start."""
  others = set(multiprocessing.active_children())
  workers = []

  def take_new() -> None:
    new = set(multiprocessing.active_children()) - others - set(_known)
    workers.extend(new)
    _known.update(new)

  def note() -> None:
    if len(workers) < num_workers:
      take_new()

  _workers.append(workers)
  try:
    yield note
  except RuntimeError as error:
    # Grain looks too, and may be the first to see it; one that is killed before
    # it has loaded anything was never noted.
    told = re.search(r'exit code -(\d+)', str(error))
    killed = killed_worker() or (told and _killed_by(int(told[1])))
    if killed:
      raise Interruption(killed[0].upper() + killed[1:]) from None
    raise
  finally:
    # This happens before the loader ends them, slow ones by SIGKILL: another
    # loader must not take those for its own.
    take_new()
    _workers.remove(workers)


def _start_worker(unused_index: int, unused_count: int):
  """Makes a loader process end with its parent, and leave signals to it."""
  cv2.setNumThreads(0)
  # A terminal and a job manager signal the whole group; only the parent reacts.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
  # A parent that is killed cannot end its children, which would wait forever.
  multiprocessing.parent_process().join()
  os._exit(1)
