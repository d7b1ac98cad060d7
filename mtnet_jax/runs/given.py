"""The flags that change the configuration of an existing run."""

import dataclasses

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from mtnet_jax import cli


@dataclasses.dataclass(frozen=True)
class Given:
  """The parts of a command line that `configuration.read` applies to a run.

  Attributes:
    config: the file of `--config`, or the defaults, with the values of
      `--config.KEY=VALUE`.
    from_file: whether `--config` named a file.
    keys: the keys and sections that `--config.KEY=VALUE` set, with dots.
    allow_other: whether the command line may ask for another network than the
      run's, or for other clips.
  """

  config: ml_collections.ConfigDict
  from_file: bool = False
  keys: frozenset[str] = frozenset()
  allow_other: bool = False


def define_flags(values: flags.FlagValues) -> None:
  """Declares `--config`, which is optional, and `--allow_other_config`.

  Args:
    values: the flag values to declare the flags in.
  """
  # Without a file, its keys are those of the defaults and have their types.
  cli.define_config(
    values,
    'base',
    "Recipe whose `eval` section is used; its network must be the run's.",
  )
  values['config'].default_as_str = "the run's own configuration"
  flags.DEFINE_bool(
    'allow_other_config',
    False,
    'Use the given configuration even if it asks for another network or other '
    'clips than the run was trained with; without it that is an error.',
    flag_values=values,
  )


def read(values: flags.FlagValues) -> Given:
  """Returns what a parsed command line says.

  Args:
    values: the flags that `define_flags` declared.

  Raises:
    UserError: the file of `--config` does not exist.
  """
  flag = values['config']
  return Given(
    config=cli.get_config(values),
    from_file=bool(flag.present),
    keys=override_names(values),
    allow_other=values.allow_other_config,
  )


def override_names(values: flags.FlagValues) -> frozenset[str]:
  """Returns the keys and sections that `--config.KEY=VALUE` set, with dots."""
  return frozenset(
    '.'.join(map(str, config_path.split(key)))
    for key in config_flags.get_override_values(values['config'])
  )
