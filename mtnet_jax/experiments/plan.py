"""Plans the runs of a table: their folders and their configurations."""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ml_collections

from mtnet_jax.configs import ablations, base
from mtnet_jax.errors import UserError
from mtnet_jax.runs import configuration
from mtnet_jax.runs import folder as run_folder

_START = 'train.init_from'
# Keys that do not change the result of a finished run. Those of devices
# (`mesh`) are not among them: BN's statistics come from a device's clips.
_FREE = {
  'data.dir',
  'data.num_workers',
  'data.prefetch',
  'data.read_attempts',
  'train.stall_timeout',
  'train.log_every',
  'train.checkpoint_every',
  'eval.clips_per_step',
}
_SEED_BITS = 32  # of what jax.random.key takes


@dataclasses.dataclass(frozen=True)
class Job:
  """One run of a table with one seed.

  Attributes:
    run: the run's name in the table.
    seed: `config.seed`.
    config: the configuration to train, locked; `train.init_from` is set when
      the run before it is there.
    workdir: OUT/RUN/seed_N.
    after: workdir of the run that it goes on from, if any.
  """

  run: str
  seed: int
  config: ml_collections.ConfigDict = dataclasses.field(compare=False)
  workdir: pathlib.Path
  after: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
  """The chosen runs of a table.

  Attributes:
    table: a table of the thesis, '5.8' for instance.
    varies: the difference between its runs, in words.
    out: the table's folder.
    against: the run that each run is compared with, by run, in the order of the
      thesis; the run itself where others are compared with it.
    jobs: the jobs in their order: the first seed of all runs first, so that an
      interrupted table compares equals.
  """

  table: str
  varies: str
  out: pathlib.Path
  against: Mapping[str, str]
  jobs: tuple[Job, ...]


def make(
  config: ml_collections.ConfigDict,
  table: str,
  out: pathlib.Path,
  *,
  seeds: Sequence[int],
  runs: Collection[str] | None = None,
  reference: str = '',
  given: Collection[str] = (),
) -> Plan:
  """Plans a table.

  Args:
    config: the recipe, and in `config.model.name` the network that is varied.
    table: a key of `configs.ablations.TABLES`.
    out: folder of the table; a run's workdir is OUT/RUN/seed_N.
    seeds: each run is trained with each of them.
    runs: names of some runs of the table; None for all.
    reference: the run that all are compared with; '' for the table's own.
    given: keys of `config` that hold for every run, as 'train.num_epochs': a
      run's own recipe leaves them. Its network always has what the table says.

  Raises:
    UserError: the table, a run or a seed is not one, or the table does not fit
      the network.
  """
  try:
    rows = ablations.runs(table, config.model.name)
  except ValueError as error:
    raise UserError(str(error)) from error
  names = _choose(table, rows, runs, reference)
  allowed = all(0 <= seed < 2**_SEED_BITS for seed in seeds)
  if not (seeds and allowed and len(set(seeds)) == len(seeds)):
    raise UserError(
      f'The seeds {list(seeds)} must be one or more, each different and from 0 '
      f'to {2**_SEED_BITS - 1}.'
    )
  jobs = []
  for seed in seeds:
    for name in names:
      row = rows[name]
      own = config.copy_and_resolve_references()
      own.seed = seed
      own.update_from_flattened_dict(
        {key: value for key, value in row.recipe.items() if key not in given}
      )
      own.model.update(row.model)
      after = _workdir(out, row.after, seed) if row.after else None
      jobs.append(Job(name, seed, own.lock(), _workdir(out, name, seed), after))
  against = {name: reference or rows[name].against for name in names}
  varies = ablations.TABLES[table].varies
  return Plan(table, varies, out, against, tuple(jobs))


def _workdir(out: pathlib.Path, run: str, seed: int) -> pathlib.Path:
  return out / run / f'seed_{seed}'


def _choose(
  table: str,
  rows: ablations.Runs,
  runs: Collection[str] | None,
  reference: str,
) -> list[str]:
  """Returns the names of the wanted runs, in the order of the thesis."""
  unknown = sorted({*(runs or ()), reference or next(iter(rows))} - set(rows))
  if unknown or (runs is not None and not runs):
    raise UserError(
      f'Table {table} has no run {", ".join(unknown)!r}. For this network it '
      f'has {", ".join(rows)}.'
    )
  names = [name for name in rows if runs is None or name in runs]
  for name in names:
    missing = {rows[name].after, reference} - {*names, ''}
    if missing:
      raise UserError(
        f'{name!r} needs the run {missing.pop()!r}, to go on from or to be '
        f'compared with: add it to --runs={",".join(names)}.'
      )
  return names


def check_workdir(job: Job) -> None:
  """Raises a UserError if a workdir holds a run of another configuration.

  A key that the stored configuration lacks had the default that it has now.
  Keys that cannot change the result may differ: where the data lie, how they
  are loaded, how often something is saved or logged.

  Args:
    job: a job of a plan.

  Raises:
    UserError: it holds another; the first key that differs is named. Or its
      configuration cannot be read.
  """
  path = job.workdir / 'config.json'
  if not path.exists():
    return
  stored = _settings(run_folder.read_config(path), job)
  wanted = _settings(job.config, job)
  for key in sorted({**stored, **wanted}):
    was, now = (
      leaves.get(key, _DEFAULTS.get(key)) for leaves in (stored, wanted)
    )
    if was != now:
      raise UserError(
        f'{job.workdir} holds a run with another configuration: {key} was '
        f'{was!r}, now it is {now!r}. Give the same keys as before, or another '
        '--out.'
      )


def _settings(config: ml_collections.ConfigDict, job: Job) -> dict[str, Any]:
  """Returns the keys that distinguish a run from others, with dots."""
  # The start follows from the folder.
  free = _FREE | {_START} if job.after else _FREE
  values = configuration.flatten(config)
  return {key: v for key, v in values.items() if key not in free}


_DEFAULTS = configuration.flatten(base.get_config())
