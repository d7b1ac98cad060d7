"""Reads the files of a run's folder, and makes folders to write to."""

import os
import pathlib
from typing import Any

import ml_collections

from mtnet_jax import files, locations
from mtnet_jax.data import class_names, frame_folders
from mtnet_jax.data.clips import SAMPLINGS, SHORT_VIDEOS
from mtnet_jax.errors import UserError, printable

COPY_RUN_AGAIN = 'Copy the whole folder of the run again.'
# The values of keys of `data` in runs that are older than the keys.
_BEFORE = {
  'short_videos': 'repeat',
  'sampling': 'clip',
  'frames_per_second': frame_folders.FRAMES_PER_SECOND,
}
# The largest values that make sense; a file that says more is damaged, and
# would take all memory.
_LIMITS = {
  'data': {'num_frames': 10_000, 'frame_stride': 10_000},
  'eval': {
    'num_clips': 1_000,
    'num_crops': 1_000,
    'crop_size': 8_192,
    'input_size': 8_192,
    'clips_per_step': 1_000_000,
  },
}


def read_config(path: locations.Path) -> ml_collections.ConfigDict:
  """Reads a run's configuration.

  Args:
    path: the file `config.json`.

  Returns:
    What is written there, locked; `check_config` has found nothing wrong.

  Raises:
    UserError: it is missing, damaged, or something else.
  """
  try:
    sections = files.parse_json(path.read_text('utf-8'))
  except OSError as error:
    raise UserError(
      f'{path} cannot be read: {locations.cause(error)}. It is written when '
      'training starts: run mtnet train again, or copy the whole folder of the '
      'run.'
    ) from error
  except ValueError as error:
    raise UserError(f'{path} is damaged: {error}. {COPY_RUN_AGAIN}') from error
  for name in ('data', 'eval', 'model'):
    if not isinstance(sections, dict) or not isinstance(
      sections.get(name), dict
    ):
      raise UserError(
        f'{path} is no configuration of a run: it has no section {name!r}. '
        f'{COPY_RUN_AGAIN}'
      )
    for key, value in sections[name].items():
      if isinstance(value, dict):
        raise UserError(
          f'{path} has a key {name}.{key}.{printable(next(iter(value), "…"))}, '
          f'and should have {name}.{key}. {COPY_RUN_AGAIN}'
        )
  # In a hub folder, class names need not be names of keys.
  for key in ('id2label', 'label2id'):
    sections.pop(key, None)
  add_newer_keys(sections['data'])
  # An unknown name is told where networks are built, with those that are known.
  sections['model']['name'] = sections['model'].get('name') or ''
  try:
    config = as_config(sections)
  except ValueError as error:  # of names of keys
    raise UserError(f'{path} is damaged: {error} {COPY_RUN_AGAIN}') from error
  check_config(config, path)
  return config


def add_newer_keys(data: dict[str, Any]) -> None:
  """Gives a section `data` the keys that it is older than.

  Args:
    data: the section, which gets what was done before there were these keys.
  """
  for key, value in _BEFORE.items():
    data.setdefault(key, value)


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
  """Raises a UserError unless `data` and `eval` describe clips that can be cut.

  Args:
    config: a configuration with both sections.
    where: the configuration's source, for messages.

  Raises:
    UserError: a value is missing or not allowed.
  """
  for section, limits in _LIMITS.items():
    for key, limit in limits.items():
      value = config[section].get(key)
      # True is an int by descent.
      if type(value) is not int or not 1 <= value <= limit:
        raise UserError(
          f'{section}.{key} (={value!r}) of {where} must be a whole number '
          f'from 1 to {limit:,}.'
        )
  for key, allowed in (('short_videos', SHORT_VIDEOS), ('sampling', SAMPLINGS)):
    if config.data.get(key) not in allowed:
      raise UserError(
        f'data.{key} (={config.data.get(key)!r}) of {where} must be one of '
        f'{allowed}.'
      )
  frame_folders.check_rate(
    config.data.get('frames_per_second'), f'data.frames_per_second of {where}'
  )


def read_class_names(path: locations.Path) -> tuple[str, ...]:
  """Reads the names of a run's classes.

  Args:
    path: the file `labels.txt`, a line a class.

  Raises:
    UserError: it is missing, damaged, or names none, or one twice.
  """
  try:
    names = class_names.parse(path.read_bytes())
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f'{path} cannot be read: {locations.cause(error)}. It names the classes '
      f'and is written when training starts. {COPY_RUN_AGAIN}'
    ) from error
  if not names:
    raise UserError(f'{path} names no class. {COPY_RUN_AGAIN}')
  class_names.number_labels(names, path)
  return names


def check_class_names(
  workdir: str | pathlib.Path, names: tuple[str, ...]
) -> None:
  """Raises a UserError where the workdir was trained on other classes.

  A run without `labels.txt` (a new one) passes.
  """
  path = locations.as_path(workdir) / 'labels.txt'
  if not path.exists():
    return
  trained = read_class_names(path)
  if trained != names:
    how = class_names.differences(trained, names)
    raise UserError(
      f'{workdir} was trained on {len(trained)} classes, the data has '
      f'{len(names)}: {how}. Use the data that it was trained on, or another '
      '--workdir.'
    )


def make_workdir(path: str | os.PathLike) -> locations.Path:
  """Makes the folder of a run if need be, and checks that it can be written.

  Args:
    path: the folder, which may be on a bucket.

  Returns:
    The path.

  Raises:
    UserError: it cannot be written, or has no name.
  """
  if not locations.on_bucket(path):
    return make_folder(path)
  path = locations.as_path(path)
  files.check_writable(path)
  return path


def make_folder(path: str | os.PathLike) -> pathlib.Path:
  """Makes a folder like `make_workdir`, but only on this machine."""
  # An empty name would be the current folder as a Path.
  if not os.fspath(path):
    raise UserError(
      "The name of the folder to write to is empty: was a shell's variable not "
      'set? Name a folder; . is the current one.'
    )
  path = locations.local_path(path)
  try:
    path.mkdir(parents=True, exist_ok=True)
    files.check_writable(path)
  except OSError as error:
    raise UserError(
      f'{path} cannot be written: {error.strerror}. Name a folder that you may '
      'write to.'
    ) from error
  return path


def file_path(path: str | pathlib.Path) -> pathlib.Path:
  """Returns where a file goes, its folder made if need be.

  Args:
    path: the file, which may be there already.

  Raises:
    UserError: it cannot be written.
  """
  path = locations.local_path(path)
  make_folder(path.parent)
  if path.is_dir():
    raise UserError(f'{path} is a folder: remove it, or name another file.')
  if path.exists() and not os.access(path, os.W_OK):
    raise UserError(
      f'{path} cannot be written: name a file that you may write to.'
    )
  return path


def png_path(path: str | pathlib.Path) -> pathlib.Path:
  """Returns where a picture goes, its folder made if need be.

  Args:
    path: the picture's path, as a user gave it.

  Raises:
    UserError: it does not end in `.png`, or cannot be written.
  """
  path = locations.local_path(path)
  if path.suffix != '.png':
    raise UserError(
      f'The picture {path} would not be a PNG: name a file that ends in .png.'
    )
  return file_path(path)
