"""Trains a classifier of your own videos: mtnet finetune --data=DIR --out=RUN.

DIR has a folder for each class, or is a CSV file. --from=RUN starts from the
weights of another run, such as a converted checkpoint (docs/weights.md).
Settings that depend on the number and the length of the videos are derived from
them and printed before training starts. Afterwards the held-out videos are
scored. The same command resumes an interrupted run.
"""

import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import flags

from mtnet_jax import cli, files, locations
from mtnet_jax.errors import UserError, printable
from mtnet_jax.runs import folder, given

_PLAN = 'finetune.json'
_PROBED = 300  # videos that are looked at
# The folder of compiled programs, which make a second run start faster.
_PROGRAMS = '~/.cache/mtnet_jax/programs'
_NEXT = """Next:
  mtnet predict --workdir={out} VIDEO
  mtnet explain --workdir={out} --video=VIDEO --out={out}/explanation
  mtnet export --workdir={out} --out={out}/exported"""


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_config(
    values, 'finetune', 'Recipe for all that does not follow from the videos.'
  )
  flags.DEFINE_string(
    'data',
    None,
    'Videos to learn from: a folder with a folder for each class, or a CSV '
    'file.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_string(
    'out',
    None,
    'Folder to write the run to; a run that is there is resumed.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_string(
    'from',
    '',
    'Folder of a run whose weights training starts from; without it they are '
    'random.',
    flag_values=values,
  )
  flags.DEFINE_float(
    'minutes',
    None,
    'Time in minutes that training and scoring may take together; without it '
    'as long as the videos need.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Plans a run for the videos, trains it and scores it."""
  minutes = values.minutes
  if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
    raise UserError(
      f'--minutes={minutes:g} leaves no time to train: give a number above 0, '
      'or leave it out for as long as the videos need.'
    )
  # The imports are here so that mistakes in flags are reported before jax
  # loads.
  from mtnet_jax.devices import host_memory
  from mtnet_jax.training import loop

  host_memory.keep_freed_memory()
  workdir = folder.make_folder(values.out)
  request = _request(values)
  config = _read_plan(workdir, request)
  if config is None:
    config, lines = plan(values, workdir)
    print('\n'.join(map(printable, lines)), flush=True)
    sections = json.loads(config.to_json_best_effort())
    text = json.dumps({'request': request, 'config': sections}, indent=2)
    files.write_text(workdir / _PLAN, text)
  loop.train(config, workdir)
  _score(config, workdir)
  print(_NEXT.format(out=printable(values.out)))


def plan(
  values: flags.FlagValues, workdir: pathlib.Path
) -> tuple[ml_collections.ConfigDict, list[str]]:
  """Looks at the videos and derives a configuration from them.

  Args:
    values: the command's flags.
    workdir: the run's folder, for a list of the videos where one is made.

  Returns:
    The configuration, locked, and what it is and why, in lines.

  Raises:
    UserError: the videos, the weights or the time will not do.
  """
  from mtnet_jax.data import own_videos, probing, sources
  from mtnet_jax.devices import mesh as mesh_lib
  from mtnet_jax.training import pace, recipe

  weights = values['from'].value
  config = _with_weights(cli.get_config(values), weights)
  with config.unlocked():  # what is derived depends on it
    config.update_from_flattened_dict(_overrides(values))
  data, lines = own_videos.divide(
    values.data, workdir / 'data', config.data.frames_per_second
  )
  training = sources.open_source(data, 'train', config.data.frames_per_second)
  counts = {'train': len(training)}
  counts |= {split: _count(data, split) for split in ('val', 'test')}
  facts = recipe.Facts(
    clips=counts['train'],
    validation=counts['val'],
    classes=training.labels,
    pretrained=bool(weights),
    devices=mesh_lib.make_mesh().size,
    **_lengths(probing.probe(training, _PROBED), values.data),
  )
  lines.append(
    f'{counts["train"]} videos for training, {counts["val"]} for validation, '
    f'{counts["test"]} for testing; {len(training.labels)} classes.'
  )
  lines += recipe.fit(config, facts)
  with config.unlocked():
    config.data.dir = data
    config.train.init_from = weights
    if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
      config.train.compilation_cache = os.path.expanduser(_PROGRAMS)
    # The command line overrides what was derived.
    config.update_from_flattened_dict(_overrides(values))
  measured = pace.measure(config, locations.as_path(workdir))
  judged = recipe.judged_clips(config, counts)
  config, more = recipe.limit(config, measured, judged, values.minutes)
  lines += [*more, *filter(None, [recipe.expectations(facts)])]
  return config.lock(), lines


def _score(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Scores the held-out videos, if there are any."""
  from mtnet_jax.evaluation import controls, report, scoring

  if not _count(config.data.dir, config.eval.split):
    print('There are no videos for testing: nothing is scored.')
    return
  predictions, names = scoring.evaluate(config, workdir, 'best')
  report.write(predictions, names, workdir)
  report.show(predictions, names, workdir)
  figures = controls.measure(config, workdir, 'best', predictions, names)
  report.write_controls(figures, workdir)
  report.show_controls(figures)
  print(report.verdict(predictions))


def _request(values: flags.FlagValues) -> dict[str, Any]:
  """Returns what the command line asks for, to recognize it later."""
  return {
    'data': str(pathlib.Path(values.data).absolute()),
    'from': values['from'].value,
    'minutes': values.minutes,
    'config': sorted(_overrides(values).items()),
  }


def _read_plan(
  workdir: pathlib.Path, request: dict[str, Any]
) -> ml_collections.ConfigDict | None:
  """Returns the configuration of a run that was begun, or None.

  Raises:
    UserError: the folder holds another run, or a damaged plan.
  """
  path = workdir / _PLAN
  if not path.is_file():
    if (workdir / 'config.json').exists() or (workdir / 'checkpoints').exists():
      raise UserError(
        f'{workdir} holds another run, which `mtnet finetune` did not make: '
        'name another folder with --out.'
      )
    return None
  try:
    written = files.parse_json(path.read_text('utf-8'))
    before, sections = written['request'], written['config']
    folder.add_newer_keys(sections['data'])
    config = folder.as_config(sections)
    folder.check_config(config, path)
  except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} is damaged: {error}. Name another folder with --out.'
    ) from error
  now = json.loads(json.dumps(request))
  other = [
    f'--{name} was {before.get(name)!r} and is {value!r}'
    for name, value in now.items()
    if before.get(name) != value
  ]
  if other:
    raise UserError(
      f'{workdir} holds another run: {"; ".join(other)}. Name another folder '
      'with --out, or give the same command to go on.'
    )
  return config


def _with_weights(
  config: ml_collections.ConfigDict, weights: str
) -> ml_collections.ConfigDict:
  """Returns the configuration with the network and the clips of a run."""
  config = config.copy_and_resolve_references()
  if not weights:
    return config
  path = locations.as_path(weights)
  if not (path / 'config.json').exists():
    raise UserError(
      f'There is no run in --from={weights}: it has no config.json. Give the '
      'folder of a run, or make one of a file of weights with `mtnet convert` '
      '(docs/weights.md).'
    )
  run = folder.read_config(path / 'config.json')
  with config.unlocked():
    for key in (
      *('num_frames', 'sampling', 'short_side', 'crop_size', 'input_size'),
    ):
      config.data[key] = run.data.get(key, config.data[key])
    for key in ('crop_size', 'input_size'):
      config.eval[key] = run.eval[key]
    for key, value in run.model.items():
      if key in config.model and key not in ('dtype', 'rematerialize'):
        config.model[key] = value
  return config


def _overrides(values: flags.FlagValues) -> dict[str, Any]:
  """Returns what `--config.KEY=VALUE` sets, by dotted key."""
  config = cli.get_config(values)
  found = {}
  for key in given.override_names(values):
    value = config
    for part in key.split('.'):
      value = value[part]
    found[key] = value
  return found


def _count(data: str, split: str) -> int:
  """Returns the number of videos of a split; 0 where there is none."""
  from mtnet_jax.data import sources

  try:
    return len(sources.open_source(data, split))
  except sources.MissingSplitError:
    return 0


def _lengths(probes: Sequence[Any], data: str) -> dict[str, float]:
  """Returns the medians over the videos that can be read."""
  good = [probe for probe in probes if not probe.cause]
  if not good:
    raise UserError(
      f'No video of {data} can be read: {probes[0].id}: {probes[0].cause}.'
    )
  rates = [p.frames / p.seconds for p in good if p.seconds > 0]
  return {
    'frames': float(np.median([p.frames for p in good])),
    'rate': float(np.median(rates)) if rates else math.nan,
    'short_side': int(np.median([min(p.height, p.width) for p in good])),
  }


COMMAND = cli.Command(main, define_flags, resumes=True)

if __name__ == '__main__':
  cli.run(COMMAND)
