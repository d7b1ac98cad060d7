"""Trains a video classifier: python train.py --config=FILE.py --workdir=DIR.

Run on the same workdir again, it goes on from the last checkpoint. On several
machines, each runs it: docs/scale.md.
"""

from absl import flags

from mtnet_jax import cli

_CONFIG = cli.define_config()
_PROCESSES = cli.define_processes()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run.', required=True
)


def main(_) -> None:
  # Not above: loader processes read this file again and have no use for jax.
  from mtnet_jax import distributed, memory, training

  distributed.join(_PROCESSES())
  memory.keep()
  training.train(cli.get_config(_CONFIG), _WORKDIR.value)


if __name__ == '__main__':
  cli.run(main, goes_on=True)
