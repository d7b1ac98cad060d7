"""Loads the configurations of this folder that others vary."""

import importlib
import pathlib

import ml_collections

_FINETUNE = '/finetune'


# Files of this folder that other configurations cannot vary.
_NO_RECIPES = {
  '__init__',
  '_recipes',
  'ablations',
  'base',
  'class_regularization',
  'finetune',
  'transfer',
}


def load(recipe: str) -> ml_collections.ConfigDict:
  """Returns a configuration of this folder that others vary, locked.

  Args:
    recipe: FILE or FILE:ARGUMENT, 'mtnet_m' or 'srtg:r3d_50' for instance.

  Raises:
    ValueError: there is no such file; the message lists them.
  """
  name, *argument = recipe.split(':', 1)
  if name not in recipes():
    raise ValueError(
      f'There is no configs/{name}.py to vary. Choose one of '
      f'{", ".join(recipes())}.'
    )
  return importlib.import_module(f'mtnet_jax.configs.{name}').get_config(
    *argument
  )


def load_for(
  file: str, argument: str
) -> tuple[ml_collections.ConfigDict, bool]:
  """Returns a configuration that another file changes, and how.

  Args:
    file: a file of this folder, without its suffix; for the message.
    argument: CONFIG or CONFIG/finetune, CONFIG as `load` takes it.

  Returns:
    The configuration of CONFIG, and whether `/finetune` stands behind it.

  Raises:
    ValueError: an unknown CONFIG; the message lists them.
  """
  recipe = argument.removesuffix(_FINETUNE)
  if not recipe or '/' in recipe:
    raise ValueError(
      f'There is no recipe to start from in {argument!r}. Give '
      f'--config={file}:CONFIG or --config={file}:CONFIG{_FINETUNE} with '
      f'CONFIG one of {", ".join(recipes())}.'
    )
  return load(recipe), argument != recipe


def recipes() -> list[str]:
  """Returns the files of this folder that `load` takes."""
  names = {path.stem for path in pathlib.Path(__file__).parent.glob('*.py')}
  return sorted(names - _NO_RECIPES)
