"""Scores a run: mtnet eval --config=NAME --workdir=DIR.

Ten clips by three crops of every video of `config.eval.split`, their softmax
averaged. Writes into WORKDIR/evaluation and prints a table; with `--controls`
also what the accuracy would be without what it should rest on.
"""

from collections.abc import Sequence

from absl import flags

from mtnet_jax import cli, locations
from mtnet_jax.commands import process_flags


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_config(values)
  process_flags.define(values)
  cli.define_run(values)
  flags.DEFINE_bool(
    'controls',
    False,
    'Also: trivial cues alone, and frames shuffled.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Scores the run that the flags name."""
  # Not above: a mistake in the flags is told before jax is loaded.
  from mtnet_jax.devices import host_memory, processes
  from mtnet_jax.evaluation import controls, report, scoring
  from mtnet_jax.runs import folder

  process_flags.join(values)
  host_memory.keep_freed_memory()
  config, checkpoint = cli.get_config(values), values.checkpoint
  workdir = locations.as_path(values.workdir)
  if values.controls:
    path = workdir / 'labels.txt'
    names = folder.read_class_names(path) if path.exists() else ()
    controls.check(config, names)
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
