"""Scores a run: python eval.py --config=FILE.py --workdir=DIR.

Ten clips by three crops of every video of `config.eval.split`, their softmax
averaged. Writes into WORKDIR/evaluation and prints a table.
"""

import pathlib

from absl import flags

from mtnet_jax import cli

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run.', required=True
)
_CHECKPOINT = flags.DEFINE_enum(
  'checkpoint', 'best', ['best', 'last'], 'Best on validation, or the last.'
)


def main(_) -> None:
  # Not above: loader processes read this file again and have no use for jax.
  from mtnet_jax import evaluation
  from mtnet_jax.analysis import report

  workdir = pathlib.Path(_WORKDIR.value)
  predictions, names = evaluation.evaluate(
    cli.get_config(_CONFIG), workdir, _CHECKPOINT.value
  )
  report.write(predictions, names, workdir)
  report.show(predictions, names, workdir)


if __name__ == '__main__':
  cli.run(main)
