"""Scores a run: python eval.py --config=FILE.py --workdir=DIR.

Ten clips by three crops of every video of `config.eval.split`, their softmax
averaged. Writes into WORKDIR/evaluation and prints a table; with `--controls`
also what the accuracy would be without what it should rest on.
"""

import pathlib

from absl import flags

from mtnet_jax import cli

_CONFIG = cli.define_config()
_PROCESSES = cli.define_processes()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run.', required=True
)
_CHECKPOINT = flags.DEFINE_enum(
  'checkpoint', 'best', ['best', 'last'], 'Best on validation, or the last.'
)
_CONTROLS = flags.DEFINE_bool(
  'controls', False, 'Also: trivial cues alone, and frames shuffled.'
)


def main(_) -> None:
  # Not above: loader processes read this file again and have no use for jax.
  from mtnet_jax import distributed, evaluation, memory
  from mtnet_jax.analysis import controls, report

  distributed.join(_PROCESSES())
  memory.keep()
  config, checkpoint = cli.get_config(_CONFIG), _CHECKPOINT.value
  workdir = pathlib.Path(_WORKDIR.value)
  if _CONTROLS.value:
    controls.check(config)
  predictions, names = evaluation.evaluate(config, workdir, checkpoint)
  if distributed.is_main():
    report.write(predictions, names, workdir)
    report.show(predictions, names, workdir)
  if not _CONTROLS.value:
    return
  figures = controls.measure(config, workdir, checkpoint, predictions, names)
  if distributed.is_main():
    report.write_controls(figures, workdir)
    report.show_controls(figures)


if __name__ == '__main__':
  cli.run(main)
