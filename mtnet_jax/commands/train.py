"""Trains a video classifier: python train.py --config=FILE.py --workdir=DIR.

Run on the same workdir again, it goes on from the last checkpoint. On several
machines, each runs it: docs/scale.md.
"""

from collections.abc import Sequence

from absl import flags

from mtnet_jax import cli
from mtnet_jax.commands import process_flags


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_config(values)
  process_flags.define(values)
  flags.DEFINE_string(
    'workdir', None, 'Folder of the run.', required=True, flag_values=values
  )
  flags.DEFINE_string(
    'profile',
    '',
    'FROM:TO: writes a trace of these steps to WORKDIR/profile.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Trains what the flags name."""
  # Not above: a mistake in the flags is told before jax is loaded.
  from mtnet_jax.devices import host_memory
  from mtnet_jax.training import loop, profiling

  profiled = profiling.parse(values.profile)
  process_flags.join(values)
  host_memory.keep_freed_memory()
  loop.train(cli.get_config(values), values.workdir, profiled)


COMMAND = cli.Command(main, define_flags, resumes=True)
