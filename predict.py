"""`python predict.py --help` says what it does."""

if __name__ == '__main__':
  from mtnet_jax import cli
  from mtnet_jax.commands import predict

  cli.run(predict.COMMAND)
