r"""Trains the networks of a table of the thesis, and compares them.

  mtnet compare --table=5.8 --config=quickstart \
    --config.data.dir=DIR --out=runs/ablations/5.8

Trains a small variant for every row of the table (`configs/ablations.py`) with
every seed, scores its last checkpoint, and updates `results.csv`,
`summary.json`, `table.md` and `plot.png` after each run. The same command
resumes interrupted work. docs/ablations.md explains the figures.
"""

from collections.abc import Sequence

from absl import flags

from mtnet_jax import cli, locations
from mtnet_jax.configs import ablations
from mtnet_jax.errors import UserError
from mtnet_jax.experiments import plan


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_config(values)
  flags.DEFINE_enum(
    'table',
    None,
    list(ablations.TABLES),
    'Number of the table of the thesis whose networks are trained.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_string(
    'out',
    None,
    'Folder to write the results to; each run gets a folder OUT/RUN/seed_N.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_list(
    'runs',
    None,
    'Names of runs of the table to train, separated by commas; without it all.',
    flag_values=values,
  )
  flags.DEFINE_list(
    'seeds',
    ['0', '1', '2'],
    'Seeds, separated by commas; every run is trained once with each.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'reference',
    '',
    'Name of the run that the others are compared with; without it the '
    "table's own.",
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> int:
  """Runs the table that the flags describe; returns 1 if a run failed."""
  config = cli.get_config(values)
  if not values.out:
    raise UserError('--out is empty. Name a folder for the table.')
  table = plan.make(
    config,
    values.table,
    locations.local_path(values.out),
    runs=values.runs,
    seeds=_parse_seeds(values.seeds),
    reference=values.reference,
    given=frozenset(values['config'].override_values),
  )
  # Not above: a mistake is told before jax is there.
  from mtnet_jax.experiments import runner

  return 1 if runner.run(table) else 0


def _parse_seeds(words: list[str]) -> list[int]:
  if not words or not all(word.isdecimal() for word in words):
    raise UserError(
      f'--seeds={",".join(words)} must be whole numbers of at least 0, '
      'separated by commas: --seeds=0,1,2.'
    )
  return [int(word) for word in words]


COMMAND = cli.Command(main, define_flags, resumes=True)

if __name__ == '__main__':
  cli.run(COMMAND)
