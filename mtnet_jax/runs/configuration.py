"""Merges a run's own configuration with what a command line sets.

A run's own configuration says what its network and its clips are. A command
line may change where the data lie, how they are loaded and how the run is
evaluated; what would make another network, or other clips than the network has
learned from, is a mistake.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import logging

from mtnet_jax import files, locations
from mtnet_jax.configs import base
from mtnet_jax.errors import UserError
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs.given import Given

# Values of these keys in a --config file count if they differ from the
# defaults; a file that does not set a key has the default.
_FREE = {
  'data.dir',
  'data.frames_per_second',
  'data.num_workers',
  'data.prefetch',
  'data.read_attempts',
  'train.stall_timeout',
  'mesh.data',
  'mesh.fsdp',
  'model.dtype',
  'model.rematerialize',
}
_CLIPS = {
  'data.num_frames',
  'data.frame_stride',
  'data.sampling',
  'data.crop_size',
  'data.input_size',
  'data.short_videos',
}
# Keys that may be changed for an exported model, whose program is compiled.
_OF_EXPORTS = (
  'data.frames_per_second',
  'eval.num_clips',
  'eval.num_crops',
  'eval.crop_size',
  'eval.clips_per_step',
)


def read(workdir: str | os.PathLike, given: Given) -> ml_collections.ConfigDict:
  """Reads a run's configuration and applies what a command line changes.

  Args:
    workdir: the run's folder.
    given: the relevant parts of the command line.

  Returns:
    All keys of configs/base.py, locked. A key that the run lacks, because it is
    older than the key, has its default.

  Raises:
    UserError: the configuration is missing or damaged, or the command line
      asks for another network or other clips.
  """
  path = locations.as_path(workdir) / 'config.json'
  own = flatten(run_folder.read_config(path))
  defaults = flatten(base.get_config())
  _check_types(own, defaults, path)
  known = defaults | own
  changes = _changes(given, defaults)
  other = {
    key: value
    for key, value in changes.items()
    if _is_fixed(key) and value != known.get(key)
  }
  if other:
    _tell(other, known, workdir, given)
  return run_folder.as_config(_nest(known | changes))


def adapt_export(
  config: ml_collections.ConfigDict, given: Given, source: str
) -> ml_collections.ConfigDict:
  """Applies what a command line changes of an exported model's description.

  Args:
    config: a configuration, of which the sections `data` and `eval` are set.
    given: the relevant parts of the command line.
    source: the place of the model, in words.

  Raises:
    UserError: the command line asks for what the program cannot do.
  """
  changes = _overrides(given)
  wrong = [f'--config.{key}' for key in changes if key not in _OF_EXPORTS]
  if given.from_file:
    wrong.insert(0, '--config=FILE')
  if wrong:
    raise UserError(
      f'{source} is compiled, and {wrong[0]} cannot be applied to it. Leave it '
      f'out; what may be set is {", ".join(_OF_EXPORTS)}.'
    )
  return run_folder.as_config(_nest(flatten(config) | changes))


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the values by dotted key, as JSON has them."""
  return _flat(json.loads(config.to_json_best_effort()))


def differences(
  path: locations.Path, config: ml_collections.ConfigDict
) -> list[str]:
  """Returns in words what a configuration changes of one that was written.

  Args:
    path: the file `config.json`, which is there. A key that it lacks, because
      it is older than the key, had its default.
    config: the new one.

  Returns:
    'KEY was A and is B' of each key that differs, in alphabetical order.
  """
  try:
    written = _flat(files.parse_json(path.read_bytes()))
  except (AttributeError, ValueError):
    return ['the file was damaged']
  before, now = flatten(base.get_config()) | written, flatten(config)
  return [
    f'{key} was {before.get(key)!r} and is {now.get(key)!r}'
    for key in sorted({**before, **now})
    if before.get(key) != now.get(key)
  ]


def _changes(given: Given, defaults: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a command line sets, by dotted key; also for training."""
  changes = {}
  if given.from_file:
    for key, value in flatten(given.config).items():
      stated = key in _FREE and value != defaults.get(key)
      if stated or _is_fixed(key) or key.startswith('eval.'):
        changes[key] = value
  return changes | _overrides(given)


def _overrides(given: Given) -> dict[str, Any]:
  """Returns what `--config.KEY=VALUE` sets for a key or a whole section."""
  return {
    key: value
    for key, value in flatten(given.config).items()
    if any(key == name or key.startswith(f'{name}.') for name in given.keys)
  }


def _is_fixed(key: str) -> bool:
  """Returns whether another value makes another network, or other clips."""
  return key in _CLIPS or (key.startswith('model.') and key not in _FREE)


def _tell(
  other: Mapping[str, Any],
  known: Mapping[str, Any],
  workdir: str | os.PathLike,
  given: Given,
) -> None:
  """Raises a `UserError` of values that are not the run's; or only warns."""
  values = '; '.join(
    f'{key} is {known.get(key)!r} in the run, {value!r} was given'
    for key, value in other.items()
  )
  if not given.allow_other:
    what = '--config=FILE' if given.from_file else 'it'
    raise UserError(
      f'{workdir} was trained with another configuration: {values}. Leave '
      f'{what} out, since a run knows its own configuration, to which '
      '--config.eval.KEY=VALUE may be added; or give --allow_other_config to '
      'go by the given one all the same.'
    )
  logging.warning(
    '%s was trained with another configuration: %s. The given one is '
    'used (--allow_other_config), which is not what the run has learned.',
    workdir,
    values,
  )


def _check_types(
  own: Mapping[str, Any],
  defaults: Mapping[str, Any],
  path: locations.Path,
) -> None:
  """Raises a `UserError` for a value that is of another kind than its default.

  Errors in the section `model` are reported where the network is made.
  """
  for key, value in own.items():
    if key not in defaults:
      # Neither a value where there is a section, nor the other way round.
      wrong = [n for n in defaults if f'{n}.'.startswith(f'{key}.')]
      wrong += [n for n in defaults if f'{key}.'.startswith(f'{n}.')]
      if wrong:
        raise UserError(
          f'{path} has a key {key}, and should have {wrong[0]}. '
          f'{run_folder.COPY_RUN_AGAIN}'
        )
      continue
    kind = type(defaults[key])
    if key.startswith('model.') or type(value) is kind:
      continue
    if not (kind is float and type(value) is int):
      name = 'tuple' if kind is list else kind.__name__
      raise UserError(
        f'{key} (={value!r}) of {path} must be of the type {name}. '
        f'{run_folder.COPY_RUN_AGAIN}'
      )


def _flat(keys: Mapping[str, Any]) -> dict[str, Any]:
  flat = {}
  for name, value in keys.items():
    if isinstance(value, dict):
      flat |= {f'{name}.{key}': item for key, item in _flat(value).items()}
    else:
      flat[name] = value
  return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
  nested = {}
  for name, value in flat.items():
    *sections, key = name.split('.')
    section = nested
    for part in sections:
      section = section.setdefault(part, {})
    section[key] = value
  return nested
