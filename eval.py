"""`python eval.py --help` says what it does."""

if __name__ == '__main__':
  from mtnet_jax import cli
  from mtnet_jax.commands import eval

  cli.run(eval.COMMAND)
