"""What the folder of a run tells of it: `config.json` and `labels.txt`."""

import json
import pathlib
from typing import Any

import ml_collections

from mtnet_jax.data.sources import number_labels
from mtnet_jax.errors import UserError

AGAIN = 'Copy the whole folder of the run again.'
_POSITIVE = {
  'data': ('num_frames', 'frame_stride'),
  'eval': (
    *('num_clips', 'num_crops', 'crop_size', 'input_size'),
    'clips_per_step',
  ),
}
_SHORT_VIDEOS = ('repeat', 'error')


def read_config(path: pathlib.Path) -> ml_collections.ConfigDict:
  """Reads a run's configuration.

  Args:
    path: of `config.json`.

  Returns:
    What is written there, locked; `check_config` has found nothing wrong.

  Raises:
    UserError: it is missing, damaged, or something else.
  """
  try:
    sections = json.loads(path.read_text('utf-8'))
  except OSError as error:
    raise UserError(
      f'{path} cannot be read: {error.strerror}. It is written when training '
      'starts: run train.py again, or copy the whole folder of the run.'
    ) from error
  except ValueError as error:
    raise UserError(f'{path} is damaged: {error}. {AGAIN}') from error
  for name in ('data', 'eval', 'model'):
    if not isinstance(sections, dict) or not isinstance(
      sections.get(name), dict
    ):
      raise UserError(
        f'{path} is no configuration of a run: it has no section {name!r}. '
        f'{AGAIN}'
      )
  # Runs from before this key did so.
  sections['data'].setdefault('short_videos', 'repeat')
  # An unknown name is told where networks are built, with those that are known.
  sections['model']['name'] = sections['model'].get('name') or ''
  config = as_config(sections)
  check_config(config, path)
  return config


def as_config(sections: dict[str, Any]) -> ml_collections.ConfigDict:
  """Returns what JSON holds as a locked configuration."""
  return ml_collections.ConfigDict(_tuples_for_lists(sections)).lock()


def _tuples_for_lists(value: Any) -> Any:
  """JSON has no tuples, and networks are made of nothing that can change."""
  if isinstance(value, dict):
    return {key: _tuples_for_lists(item) for key, item in value.items()}
  if isinstance(value, list):
    return tuple(map(_tuples_for_lists, value))
  return value


def check_config(
  config: ml_collections.ConfigDict, where: str | pathlib.Path
) -> None:
  """Sees that clips can be cut as the sections `data` and `eval` say.

  Args:
    config: with both.
    where: it is from, for messages.

  Raises:
    UserError: a value is missing or not allowed.
  """
  for section, keys in _POSITIVE.items():
    for key in keys:
      value = config[section].get(key)
      if type(value) is not int or value < 1:  # True is an int by descent
        raise UserError(
          f'{section}.{key} (={value!r}) of {where} must be a whole number of '
          'at least 1.'
        )
  if config.data.get('short_videos') not in _SHORT_VIDEOS:
    raise UserError(
      f'data.short_videos (={config.data.get("short_videos")!r}) of {where} '
      f'must be one of {_SHORT_VIDEOS}.'
    )


def read_class_names(path: pathlib.Path) -> tuple[str, ...]:
  """Reads the names of a run's classes.

  Args:
    path: of `labels.txt`, a line a class.

  Raises:
    UserError: it is missing, damaged, or names none, or one twice.
  """
  try:
    names = tuple(path.read_text('utf-8').splitlines())
  except (OSError, UnicodeDecodeError) as error:
    cause = getattr(error, 'strerror', None) or str(error)
    raise UserError(
      f'{path} cannot be read: {cause}. It names the classes and is written '
      f'when training starts. {AGAIN}'
    ) from error
  if not names:
    raise UserError(f'{path} names no class. {AGAIN}')
  number_labels(names, path)
  return names
