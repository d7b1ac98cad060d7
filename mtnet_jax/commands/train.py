"""Trains a video classifier: mtnet train --config=NAME --workdir=DIR.

The same command resumes an interrupted run from its last checkpoint. To train
on several machines, give the command on each of them, as docs/scale.md shows.
"""

import os
from collections.abc import Sequence

from absl import flags

from mtnet_jax import cli
from mtnet_jax.commands import process_flags
from mtnet_jax.devices import targets
from mtnet_jax.errors import UserError

# Flags that --dry_run does not allow.
_OF_A_RUN = ('profile', *process_flags.NAMES)


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_config(values)
  process_flags.define(values)
  flags.DEFINE_string(
    'workdir',
    None,
    'Folder to write the run to; a run that is there is resumed. Needed '
    'unless --dry_run is given.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'profile',
    '',
    'FROM:TO, the steps to profile: their trace is written to '
    'WORKDIR/profile. Without it no step is profiled.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'dry_run',
    False,
    'Train nothing: compile the train step for --target, which need not be '
    "here, and print the compiler's estimates of memory and time.",
    flag_values=values,
  )
  flags.DEFINE_string(
    'target',
    '',
    'Devices that --dry_run compiles for: a TPU topology such as v5e:4x4 or '
    'v5p:4x4x4, or the GPUs h100 or h200.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Trains the configuration of the flags, or makes a dry run of it."""
  if values.dry_run or values.target:
    _try(values)
    return
  if values.workdir is None:
    raise UserError('--workdir=DIR is needed: the folder of the run.')
  # The imports are here so that mistakes in flags are reported before jax
  # loads.
  from mtnet_jax.devices import host_memory
  from mtnet_jax.training import loop, profiling

  profiled = profiling.parse(values.profile)
  process_flags.join(values)
  host_memory.keep_freed_memory()
  loop.train(cli.get_config(values), values.workdir, profiled)


def _try(values: flags.FlagValues) -> None:
  """Prints what the run would need on devices that are not here."""
  if not (values.dry_run and values.target):
    raise UserError(
      '--dry_run and --target belong together: for instance --dry_run '
      '--target=v5e:4x4.'
    )
  idle = [f'--{name}' for name in _OF_A_RUN if values[name].present]
  if idle:
    raise UserError(
      f'--dry_run compiles in this process, for all devices of --target, and '
      f'runs nothing: leave out {", ".join(idle)}.'
    )
  targets.check(values.target)
  config = cli.get_config(values)
  os.environ.update(targets.ENVIRONMENT)  # before jax is loaded
  from mtnet_jax.training import dry_run

  print(dry_run.describe(config, values.target))


COMMAND = cli.Command(main, define_flags, resumes=True)
