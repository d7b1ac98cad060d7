"""Counts what networks cost, and times them: mtnet cost --model=NAME.

  mtnet cost --model=mtnet_m [--clip=16x256x256]
  mtnet cost --all

Counts parameters, multiply-adds and the size of activations, and measures the
latency on this device. docs/costs.md defines the figures. The latencies of the
thesis are those of a single clip (Table 5.7) and of a clip in a batch of 32
(Table 5.5).
"""

import ast
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import rich.console
import rich.table
from absl import flags, logging
from flax import linen as nn

from mtnet_jax import cli, files, models
from mtnet_jax.analysis import cost, latency
from mtnet_jax.analysis.cost import ClipShape
from mtnet_jax.errors import UserError, printable
from mtnet_jax.progress import Progress


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_string(
    'model',
    '',
    f'Network to count, one of {", ".join(models.NAMES)}. Needed unless --all '
    'is given.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'all',
    False,
    'Count every network and print a row for each.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'clip',
    '',
    'Size of a clip as FRAMESxHEIGHTxWIDTH, for instance 16x256x256; without '
    'it the usual clip of each network.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'num_classes',
    400,
    'Number of classes of the network.',
    1,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'views',
    30,
    'Number of views of a video that an evaluation averages; it multiplies '
    'the GMACs of a clip.',
    1,
    flag_values=values,
  )
  flags.DEFINE_string(
    'dtype',
    'float32',
    'Data type that the network computes in, such as float32 or bfloat16.',
    flag_values=values,
  )
  flags.DEFINE_multi_string(
    'override',
    [],
    'KEY=VALUE, a field of the network to set, such as pooling=avg',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'latency',
    None,
    'Also compile the network and time it on this device. Default: yes with '
    '--model, no with --all.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'batch',
    32,
    'Number of clips in the larger of the two timed batches; the other is one '
    'clip.',
    1,
    flag_values=values,
  )
  flags.DEFINE_string(
    'json',
    '',
    'JSON file to write all figures to; without it they are only printed.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str] = ()) -> None:
  """Counts and times the networks; prints the figures and writes the JSON.

  Args:
    values: the parsed flags that `define_flags` declares.

  Raises:
    UserError: a flag's value is not allowed, or the JSON cannot be written.
    OSError: the disk is full.
  """
  if bool(values.model) == values.all:
    raise UserError(
      'Give one of --model=NAME and --all. There are '
      f'{", ".join(models.NAMES)}.'
    )
  timed = not values.all if values.latency is None else values.latency
  report = {'device': _device(), 'jax': jax.__version__, 'networks': []}
  names = models.NAMES if values.all else [values.model]
  built = [_build(name, values) for name in names]
  silent = not values.all
  with Progress('counting', len(built), 'networks', silent=silent) as progress:
    for network, model, shape in built:
      costs = cost.count(model, shape)
      network |= dataclasses.asdict(costs.total) | dataclasses.asdict(costs)
      report['networks'].append(network)
      progress.advance()
  _write(report, values.json)
  console = rich.console.Console(emoji=False)
  if values.all:
    show_networks(report['networks'], console)
  else:
    show_modules(report['networks'][0], console)
  if timed:
    for network, model, shape in built:
      network['latency'] = [
        measure_latency(model, shape, n) for n in sorted({1, values.batch})
      ]
      _write(report, values.json)  # what is there survives an interruption
      show_latency(network, report['device'], console)


def _device():
  device = jax.devices()[0]
  if device.platform == 'cpu':
    return f'a CPU of {os.cpu_count()} cores'
  return device.device_kind


def _build(name, values):
  """Returns a network's report entry, the network, and the clip shape."""
  overrides = _parse_overrides(name, values.override)
  fields = {'dtype': values.dtype, **overrides}
  model = models.build(name, values.num_classes, **fields)
  frames, size = models.DEFAULT_CLIPS[name]
  shape = _parse_clip(values.clip) if values.clip else (frames, size, size)
  network = {
    'model': name,
    'clip': 'x'.join(map(str, shape)),
    'num_classes': values.num_classes,
    'views': values.views,
    'dtype': str(jnp.dtype(model.dtype)),
    'overrides': overrides,
  }
  return network, model, (*shape, 3)


def _parse_clip(text):
  match = re.fullmatch(r'(\d+)x(\d+)x(\d+)', text)
  shape = tuple(map(int, match.groups())) if match else ()
  if not shape or min(shape) < 1:
    raise UserError(
      f'--clip={text} must be frames, height and width, each at least 1, for '
      'instance 16x256x256.'
    )
  return shape


def _parse_overrides(name, texts):
  """Converts the values to the types of the network's fields."""
  default = models.build(name, 1)
  overrides = {}
  for text in texts:
    key, equals, value = text.partition('=')
    if not equals:
      raise UserError(
        f'--override={text} must be KEY=VALUE, for instance pooling=avg.'
      )
    if key in ('name', 'num_classes'):
      instead = '--model' if key == 'name' else '--num_classes'
      raise UserError(f'--override={text}: give {instead}={value} instead.')
    own = getattr(default, key, None)
    try:
      overrides[key] = _convert(value, own)
    except (KeyError, SyntaxError, ValueError):
      raise UserError(
        f'--override={text}: {value!r} is no value for {key!r}, which is {own} '
        f'in {name}.'
      ) from None
  return overrides


def _convert(text, own):
  if isinstance(own, bool):
    return {'true': True, 'false': False}[text.lower()]
  if isinstance(own, int | float):
    return type(own)(text)
  if isinstance(own, tuple):
    return tuple(ast.literal_eval(f'[{text.strip("()[]")}]'))
  return text


def _write(report, path):
  if not path:
    return
  try:
    files.write_text(pathlib.Path(path), json.dumps(report, indent=2) + '\n')
  except OSError as error:
    if error.errno in files.NO_ROOM:
      raise
    raise UserError(
      f'--json={path} cannot be written: {error.strerror}. Name a file in a '
      'folder that exists and is yours.'
    ) from error


def measure_latency(
  model: nn.Module, clip_shape: ClipShape, batch: int
) -> dict[str, Any]:
  """Returns the seconds per clip of both passes, ready for JSON.

  Args:
    model: a network from `mtnet_jax.models.build`.
    clip_shape: frames, height, width, channels of a clip.
    batch: clips at once.

  Returns:
    `batch`; under `forward` and `forward_backward` the fields of a
    `latency.Timing`, or `error`, why there is none; `backward`, the difference
    of their medians or None.
  """
  logging.info('Timing %d clip(s) at once: compiling may take minutes.', batch)
  timings = {'batch': batch}
  for name, measure in (
    ('forward', latency.measure_forward),
    ('forward_backward', latency.measure_step),
  ):
    try:
      timing = measure(model, clip_shape, batch)
      timings[name] = dataclasses.asdict(timing)
    except latency.DoesNotFitError as error:
      timings[name] = {'error': str(error)}
  medians = [
    timings[name].get('median') for name in ('forward_backward', 'forward')
  ]
  timings['backward'] = None if None in medians else medians[0] - medians[1]
  return timings


def show_modules(
  network: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints a network's costs by module.

  Args:
    network: one of the report's `networks`.
    console: the console to print to.
  """
  table = rich.table.Table(
    'module',
    title=f'{network["model"]}, a clip of {network["clip"]}, '
    f'{network["num_classes"]} classes, {network["dtype"]}',
  )
  for column in ('parameters', 'share', 'MMACs', 'share', 'activations, MB'):
    table.add_column(column, justify='right')
  rows = {**network['modules'], 'all': network}
  for name, row in rows.items():
    table.add_row(
      name,
      f'{row["parameters"]:,}',
      f'{row["parameters"] / network["parameters"]:.1%}',
      f'{row["macs"] / 1e6:,.1f}',
      f'{row["macs"] / network["macs"]:.1%}',
      f'{row["activation_bytes"] / 1e6:,.2f}',
      style='bold' if row is network else None,
      end_section=name == list(rows)[-2],
    )
  console.print(table)
  gmacs = network['macs'] / 1e9
  console.print(
    f'{gmacs:.2f} GMACs a view, {gmacs * network["views"]:,.1f} for '
    f'{network["views"]} views: multiply-adds, not FLOPs. The largest layer '
    f'has {network["largest_layer_bytes"] / 1e6:.1f} MB of input and output.',
    highlight=False,
  )


def show_networks(
  networks: Sequence[Mapping[str, Any]], console: rich.console.Console
) -> None:
  """Prints a row for each of the report's `networks`."""
  views = networks[0]['views']
  table = rich.table.Table(
    'network',
    'clip',
    caption='GMACs: multiply-adds, not FLOPs. MB: activations of a clip.',
  )
  for column in ('parameters', 'GMACs', f'× {views} views', 'MB'):
    table.add_column(column, justify='right')
  for network in networks:
    table.add_row(
      network['model'],
      network['clip'],
      f'{network["parameters"]:,}',
      f'{network["macs"] / 1e9:.2f}',
      f'{network["macs"] * views / 1e9:,.1f}',
      f'{network["activation_bytes"] / 1e6:,.1f}',
    )
  console.print(table)


def show_latency(
  network: Mapping[str, Any], device: str, console: rich.console.Console
) -> None:
  """Prints a network's timings, and a sentence where there are none.

  Args:
    network: one of the report's `networks`.
    device: the name of the device that the network was timed on.
    console: the console to print to.
  """
  table = rich.table.Table(
    'clips', 'pass', title=f'{network["model"]} on {device}, {network["dtype"]}'
  )
  for column in ('ms a clip', 'quartiles', 'compiling, s', 'MB'):
    table.add_column(column, justify='right')
  errors = []
  for timings in network['latency']:
    batch = str(timings['batch'])
    for title, key in (('forward', 'forward'), ('both', 'forward_backward')):
      timing = timings[key]
      if 'error' in timing:
        errors.append(timing['error'])
      else:
        table.add_row(batch, title, *_cells(timing))
    if timings['backward'] is not None:
      table.add_row(batch, 'backward', f'{1e3 * timings["backward"]:,.1f}')
    table.add_section()
  console.print(table)
  for error in errors:
    console.print(printable(error), markup=False, highlight=False)


def _cells(timing):
  median, low, high = (
    1e3 * timing[key] for key in ('median', 'lower_quartile', 'upper_quartile')
  )
  memory = timing['temporary_bytes']
  return (
    f'{median:,.1f}',
    f'{low:,.1f}–{high:,.1f}',
    f'{timing["compile_seconds"]:.1f}',
    '' if memory is None else f'{memory / 1e6:,.1f}',
  )


COMMAND = cli.Command(main, define_flags)

if __name__ == '__main__':
  cli.run(COMMAND)
