"""Scores a run: mtnet eval --workdir=DIR [--config.data.dir=DATA].

Cuts ten clips by three crops from every video of the split `eval.split` and
averages their softmax scores. The configuration is the run's own; flags such as
--config.eval.num_clips=1 change how it is evaluated. Prints a table and writes
the predictions and figures to WORKDIR/evaluation. With --controls it also
prints the accuracy of cues that a network should not need.
"""

from collections.abc import Sequence

from absl import flags

from mtnet_jax import cli, locations
from mtnet_jax.commands import process_flags
from mtnet_jax.runs import given


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  given.define_flags(values)
  process_flags.define(values)
  cli.define_run(values)
  flags.DEFINE_bool(
    'controls',
    False,
    'Also measure the accuracy of trivial cues, such as the length of a '
    'video, and of the network on shuffled frames.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Scores the run that the flags name."""
  # The imports are here so that mistakes in flags are reported before jax
  # loads.
  import jax

  from mtnet_jax.devices import host_memory, processes
  from mtnet_jax.devices.watchdog import Watchdog
  from mtnet_jax.evaluation import controls, report, scoring
  from mtnet_jax.runs import configuration, folder

  process_flags.join(values)
  host_memory.keep_freed_memory()
  workdir, checkpoint = locations.as_path(values.workdir), values.checkpoint
  asked = given.read(values)
  with Watchdog(
    asked.config.train.stall_timeout,
    processes.board(),
    index=jax.process_index(),
  ):
    config = configuration.read(workdir, asked)
    if values.controls:
      path = workdir / 'labels.txt'
      known = folder.read_class_names(path) if path.exists() else ()
      controls.check(config, known)
  predictions, names = scoring.evaluate(config, workdir, checkpoint)
  if processes.is_main():
    report.write(predictions, names, workdir)
    report.show(predictions, names, workdir)
  if not values.controls:
    return
  figures = controls.measure(config, workdir, checkpoint, predictions, names)
  if processes.is_main():
    report.write_controls(figures, workdir)
    report.show_controls(figures)


COMMAND = cli.Command(main, define_flags)
