"""The flags of runs on several processes."""

from typing import Any

from absl import flags

from mtnet_jax.errors import UserError

NAMES = ('distributed', 'coordinator', 'num_processes', 'process_id')


def define(values: flags.FlagValues) -> None:
  """Declares the flags of a run on several processes."""
  flags.DEFINE_bool(
    'distributed',
    False,
    'This process is one of several, whose number and address the cluster '
    '(Cloud TPU, Slurm, Open MPI) tells. Without it, and without '
    '--coordinator, the process runs alone.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'coordinator',
    '',
    'HOST:PORT of process 0, for machines where no cluster tells it; needs '
    '--num_processes and --process_id.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'num_processes',
    None,
    'Number of processes in all; needs --coordinator.',
    1,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'process_id',
    None,
    'Number of this process, from 0; needs --coordinator.',
    0,
    flag_values=values,
  )


def get(values: flags.FlagValues) -> dict[str, Any] | None:
  """Returns the arguments of `processes.join`; None for a single process.

  Raises:
    UserError: the flags do not belong together.
  """
  given = {
    'coordinator': values.coordinator,
    'count': values.num_processes,
    'index': values.process_id,
  }
  explicit = [value not in ('', None) for value in given.values()]
  if any(explicit) and not all(explicit):
    raise UserError(
      '--coordinator=HOST:PORT, --num_processes=N and --process_id=I belong '
      'together: give all three, or --distributed for a cluster that says.'
    )
  if not (values.distributed or all(explicit)):
    return None
  if all(explicit) and values.process_id >= values.num_processes:
    raise UserError(
      f'--process_id={values.process_id} must be below --num_processes='
      f'{values.num_processes}.'
    )
  return given


def join(values: flags.FlagValues) -> None:
  """Makes this process one of several, where the flags say so."""
  # The import is here so that mistakes in flags are reported before jax loads.
  from mtnet_jax.devices import processes

  found = get(values)
  if found is not None:
    processes.join(**found)
