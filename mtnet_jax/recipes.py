"""Finds the configuration of `--config`: a recipe's name, or a file."""

import difflib
import os
import pathlib

from ml_collections.config_flags import config_flags

from mtnet_jax import configs

_FOLDER = pathlib.Path(configs.__path__[0])
_DEFAULTS = 'base'  # nobody trains it


class Parser(config_flags.ConfigFileFlagParser):
  """Loads `NAME[:ARGUMENT]` or `FILE.py[:ARGUMENT]`."""

  def parse(self, path: str):
    """Returns the configuration, locked.

    Raises:
      ValueError: as `find`, or the file imports what is not there.
    """
    try:
      return super().parse(find(path))
    except ImportError as error:
      raise ValueError(
        f'It imports what is not there: {error}. Recipes of ours are imported '
        'with `from mtnet_jax.configs import base`.'
      ) from error


def find(text: str) -> str:
  """Returns the file of a configuration, with its argument if there is one.

  Args:
    text: 'mtnet_l' or 'srtg:r3d_34', which are `mtnet_jax.configs`; or a path
      such as 'my/config.py' or 'my/config.py:ARGUMENT', which is left as it is.

  Raises:
    ValueError: it is neither; the message names the nearest.
  """
  name, *argument = text.split(':', 1)
  if name in _names():
    return ':'.join([str(_FOLDER / f'{name}.py'), *argument])
  if name.endswith('.py') or os.path.exists(name) or os.sep in name:
    return text
  near = difflib.get_close_matches(name, _names(), n=1)
  hint = f'Did you mean {near[0]!r}? ' if near else ''
  raise ValueError(
    f'There is no configuration {name!r}. {hint}Give a FILE.py, or one of '
    f'{", ".join(_shown(_names()))}.'
  )


def available() -> str:
  """Returns what `--config` may be: files of `configs/` here, or names."""
  files = {
    path.stem: str(path) for path in pathlib.Path('configs').glob('*.py')
  }
  return ', '.join(files[name] for name in _shown(files)) or ', '.join(
    _shown(_names())
  )


def defaults_file() -> str:
  """Returns the file that lists every key, as it is found from here."""
  path = _FOLDER / f'{_DEFAULTS}.py'
  here = pathlib.Path().resolve()
  return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _names() -> list[str]:
  return sorted(path.stem for path in _FOLDER.glob('[!_]*.py'))


def _shown(names) -> list[str]:
  return sorted(n for n in names if n != _DEFAULTS and not n.startswith('_'))
