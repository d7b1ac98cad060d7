"""Trains and scores those runs of a plan that are not finished yet."""

import contextlib
import dataclasses
import datetime
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator

import jax
from absl import logging

from mtnet_jax.data import pipeline
from mtnet_jax.devices import device_memory
from mtnet_jax.errors import RESUME, UserError
from mtnet_jax.evaluation import report, scoring
from mtnet_jax.experiments import plan, results, scored
from mtnet_jax.experiments.plan import Job, Plan
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.checkpoints import UnsavedError
from mtnet_jax.runs.folder import make_folder
from mtnet_jax.training import loop


def run(table: Plan) -> dict[tuple[str, int], str]:
  """Finishes the runs of a table, and rewrites its results after each run.

  Each workdir is as `mtnet train` and `eval` make it, so that these may be used
  on it too. Finished runs (see `scored`) are not repeated; the others are
  trained to their end and scored. A run that fails with a UserError, or for
  which the device has too little memory, is named in the results and the others
  go on. All runs share this process; if it breaks, no finished run is lost.

  Args:
    table: the table from `plan.make`.

  Returns:
    What failed and why, by run and seed.

  Raises:
    UserError: the data cannot be read, a network cannot be built, a workdir
      holds another run, or a disk is full.
    SystemExit: SIGTERM came, with code 75.
  """
  for job in table.jobs:
    plan.check_workdir(job)
  left = {
    number: job
    for number, job in enumerate(table.jobs, start=1)
    if scored.read_step(job.workdir) is None
  }
  _check_parts(list(left.values()))
  make_folder(table.out)
  failed, clock = {}, _Clock(len(left))
  with _exit_on_sigterm():
    for number, job in left.items():
      which = f'run {number} of {len(table.jobs)}: {job.run}, seed {job.seed}'
      logging.info('%s%s', which, clock.time_left())
      try:
        _train_and_score(job, failed)
      except UnsavedError:
        raise  # a full disk is everybody's
      except (UserError, jax.errors.JaxRuntimeError) as error:
        why = _explain(error)
        logging.error('%s failed: %s', which, why)
        failed[job.run, job.seed] = why
      finally:
        jax.clear_caches()  # programs of all networks would fill the memory
      clock.finish_one()
      results.write(table, failed)
  if not left:
    logging.info('All %d runs are finished.', len(table.jobs))
    results.write(table, failed)
  logging.info('Results: %s', table.out / 'table.md')
  return failed


def _check_parts(jobs: list[Job]) -> None:
  """Raises a UserError for what would stop every run, or one after hours."""
  for job in jobs:
    model_lib.build_model(job.config, num_classes=2)
  for job in jobs[:1]:  # the data of one are the data of all
    pipeline.build(job.config, 'train')
    pipeline.build_evaluation(job.config, job.config.eval.split)


def _train_and_score(job: Job, failed: dict[tuple[str, int], str]) -> None:
  config = job.config
  if job.after:
    config = config.copy_and_resolve_references()
    config.train.init_from = str(_start_of(job, failed))
    config.lock()
  scored.unmark(job.workdir)
  loop.train(config, job.workdir)
  # The last checkpoint is scored: choosing by validation would favor runs that
  # vary more.
  predictions, names = scoring.evaluate(config, job.workdir, 'last')
  report.write(predictions, names, job.workdir)
  steps = (job.workdir / 'checkpoints').glob('[0-9]*')
  last = max(int(path.name) for path in steps if path.name.isdecimal())
  scored.mark(job.workdir, last)


def _start_of(job: Job, failed: dict[tuple[str, int], str]) -> pathlib.Path:
  """The last checkpoint of the run that this one starts from."""
  name = job.after.parent.name
  why = failed.get((name, job.seed))
  if why:
    raise UserError(
      f'{job.run!r} starts from {name!r}, which failed; mend that first: {why}'
    )
  start = job.after / 'checkpoints' / str(scored.read_step(job.after))
  if not start.is_dir():
    raise UserError(
      f'{job.run!r} starts from {name!r}, which is finished but has no '
      f'checkpoint {start} any more: remove {job.after} to train it again.'
    )
  return start


def _explain(error: Exception) -> str:
  """Returns why a run failed, in words; unknown errors are raised."""
  if isinstance(error, UserError):
    return str(error)
  if not device_memory.is_exhausted(error):
    raise error
  return (
    f'{device_memory.describe(error)} Give all runs a smaller '
    '--config.train.batch_size with another --out; if it was trained and only '
    'scoring fails, a smaller --config.eval.clips_per_step goes with this one.'
  )


@dataclasses.dataclass
class _Clock:
  """An estimate of how long the remaining runs will take."""

  left: int
  done: int = 0
  start: float = dataclasses.field(default_factory=time.monotonic)

  def finish_one(self) -> None:
    self.left, self.done = self.left - 1, self.done + 1

  def time_left(self) -> str:
    if not self.done:
      return ''
    seconds = (time.monotonic() - self.start) / self.done * self.left
    return f'; about {datetime.timedelta(seconds=round(seconds))} left'


@contextlib.contextmanager
def _exit_on_sigterm() -> Iterator[None]:
  """Makes SIGTERM end the command with code 75 even while nothing is trained.

  A training has a handler of its own, which first saves.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # only the main thread may handle signals
    return
  before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(RESUME))
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
