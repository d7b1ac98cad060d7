"""`python train.py --help` says what it does."""

if __name__ == '__main__':
  from mtnet_jax import cli
  from mtnet_jax.commands import train

  cli.run(train.COMMAND)
