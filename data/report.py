r"""Looks at a data set: its classes, lengths and sizes, and the loader's speed.

  python -m data.report --dir=DIR [--split=train] [--out=report.png] \
    [--config=FILE.py] [--step_time=SECONDS --batch_size=N]

DIR is what --config.data.dir would be. A sample of the videos is opened, and
the first and the last frame of each are decoded. Then one loader process makes
training clips as the configuration has them, by itself, beside the rate at
which a single thread decodes the same videos.
"""

import collections
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import ml_collections
import numpy as np
import rich.console
import rich.markup
import rich.table
from absl import flags

from configs import base
from mtnet_jax import cli
from mtnet_jax.data import pipeline, preparation, probing, sources
from mtnet_jax.data.probing import Probe, Speed
from mtnet_jax.errors import UserError

_MAX_NAMED = 20  # broken videos that are printed
_MAX_BARS = 8  # sizes, and causes of failures, that are drawn
_MAX_NAME = 38  # letters of a class's name
_CLASS_COLUMNS = 5
_FEW_CLASSES = 12  # that stand in one column
# What JSON that is no manifest raises.
_ILL_FORMED = (AttributeError, LookupError, TypeError, ValueError)


def class_counts(
  source: sources.Source,
  directory: str,
  split: str,
  probes: Sequence[Probe],
) -> tuple[dict[str, int], bool]:
  """Counts the videos of each class.

  Args:
    source: the split's videos.
    directory: of the data set.
    split: its name.
    probes: of some of the videos, or all.

  Returns:
    The numbers by class, of all videos where they can be had without reading
    them (of plain files; of records that have a manifest.json), else of those
    that were looked at; and whether they are of all.

  Raises:
    UserError: the manifest.json is damaged, or of other records.
  """
  manifest = pathlib.Path(directory) / preparation.MANIFEST_NAME
  counts, complete = dict.fromkeys(source.labels, 0), True
  if isinstance(source.examples, tuple):
    found = collections.Counter(example.label for example in source.examples)
  elif manifest.is_file():
    return counts | _read_manifest(manifest, split), True
  else:
    found = collections.Counter(probe.label for probe in probes)
    complete = len(probes) == len(source)
  by_name = {source.labels[i]: n for i, n in found.items() if i >= 0}
  return counts | by_name, complete


def _read_manifest(path: pathlib.Path, split: str) -> dict[str, int]:
  try:
    shown = json.loads(path.read_text('utf-8'))['splits'][split]['classes']
    return {str(name): int(count) for name, count in shown.items()}
  except (OSError, *_ILL_FORMED) as error:
    raise UserError(
      f'{path} is damaged, or not of these records: {error!r}. Delete it: then '
      'the classes of those videos are counted that are looked at.'
    ) from error


def describe(
  probes: Sequence[Probe],
  counts: Mapping[str, int],
  total: int,
  num_frames: int,
) -> list[tuple[str, str]]:
  """Says in words what there is.

  Args:
    probes: of the videos that were looked at.
    counts: videos by class.
    total: videos in the split.
    num_frames: of a clip.

  Returns:
    What, and how much of it, line by line.
  """
  good = [probe for probe in probes if not probe.cause]
  short = sum(probe.frames < num_frames for probe in good)
  videos = sorted(counts.values())
  empty = videos.count(0)
  lines = [
    ('videos', f'{total:,}; looked at: {len(probes):,}'),
    ('cannot be read', _share(len(probes) - len(good), len(probes))),
    (f'shorter than a clip ({num_frames} frames)', _share(short, len(probes))),
    (
      'classes',
      f'{len(counts):,}' + (f'; without a video: {empty}' * (empty > 0)),
    ),
    ('videos a class', _spread(videos, '.0f')),
    ('frames', _spread([probe.frames for probe in good], '.0f')),
    ('seconds', _spread([probe.seconds for probe in good], '.1f')),
  ]
  sizes = collections.Counter((p.width, p.height) for p in good)
  common = [f'{w} × {h} ({n})' for (w, h), n in sizes.most_common(3)]
  rest = f', and {len(sizes) - 3} more' if len(sizes) > 3 else ''
  return [*lines, ('width × height', ', '.join(common) + rest or '–')]


def _share(part: int, whole: int) -> str:
  return f'{part:,} ({part / max(whole, 1):.1%})'


def _spread(values: Sequence[float], form: str) -> str:
  values = np.array(values, float)
  if not values.size or np.isnan(values).all():
    return 'unknown'
  low, middle, high = np.nanpercentile(values, [0, 50, 100])
  return f'{low:{form}} to {high:{form}}, median {middle:{form}}'


def judge(
  speed: Speed, batch_size: int, step_time: float, num_workers: int
) -> list[tuple[str, str]]:
  """Says how fast clips come, and whether a training step would wait for them.

  Args:
    speed: as measured.
    batch_size: clips a step.
    step_time: seconds; 0: unknown.
    num_workers: loader processes that the configuration has. More than the
      machine has cores count as many as those.

  Returns:
    What, and how much of it, line by line.
  """
  share = speed.loaded / speed.decoded
  lines = [
    ('one thread, decoding alone', f'{speed.decoded:.2f} clips/s'),
    ('one loader process', f'{speed.loaded:.2f} clips/s'),
    ('of the decoding rate', f'{share:.0%} ({speed.clips} clips)'),
  ]
  if not step_time:
    return lines
  needed = batch_size / step_time
  workers, cores = math.ceil(needed / speed.loaded), os.cpu_count() or 1
  waits = workers > min(num_workers, cores)
  verdict = 'would wait for input' if waits else 'would not wait'
  return [
    *lines,
    (
      f'a step of {batch_size} clips in {step_time:g} s',
      f'{needed:.1f} clips/s',
    ),
    (
      'loader processes for that',
      f'{workers}; this machine has {cores} cores',
    ),
    (f'training with data.num_workers={num_workers}', verdict),
  ]


def draw(
  probes: Sequence[Probe],
  counts: Mapping[str, int],
  title: str,
  path: str | os.PathLike,
) -> None:
  """Draws lengths, sizes, failures and classes.

  Args:
    probes: of the videos that were looked at.
    counts: videos by class.
    title: stands above.
    path: of the PNG.

  Raises:
    UserError: the picture cannot be written.
  """
  columns = min(_CLASS_COLUMNS, math.ceil(len(counts) / _FEW_CLASSES))
  rows = math.ceil(len(counts) / columns)
  top, bottom = 3.4, 0.6 + 0.155 * max(rows, 3)
  figure = matplotlib.figure.Figure(
    figsize=(16, top + bottom), layout='constrained'
  )
  upper, lower = figure.subfigures(2, 1, height_ratios=(top, bottom))
  # Names of files and classes may hold a dollar sign, and are no formulas.
  upper.suptitle(title, parse_math=False)
  seconds, frames, sizes, causes = upper.subplots(1, 4)
  good = [probe for probe in probes if not probe.cause]
  _draw_histogram(seconds, [p.seconds for p in good], 'seconds')
  _draw_histogram(frames, [p.frames for p in good], 'frames')
  names = [f'{p.width} × {p.height}' for p in good]
  _draw_most_common(sizes, names, 'width × height, pixels', 'C0')
  broken = [p.cause for p in probes if p.cause]
  share = _share(len(broken), len(probes))
  _draw_most_common(causes, broken, f'cannot be read: {share}', 'C3')
  _draw_classes(lower, counts, columns, rows)
  try:
    figure.savefig(path, dpi=100)
  except (OSError, ValueError) as error:  # no folder; a suffix of no picture
    raise UserError(f'--out={path} cannot be written: {error}.') from error


def _draw_histogram(
  axes: matplotlib.axes.Axes, values: Sequence[float], name: str
):
  values = np.array([v for v in values if not math.isnan(v)])
  axes.set_title(name)
  axes.set_ylabel('videos')
  axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
  if not values.size:
    _say(axes, 'unknown')
    return
  # A few very long videos would hide all others.
  most = min(values.max(), 4 * float(np.median(values))) + 1e-9
  over = int((values > most).sum())
  axes.hist(values[values <= most], bins=40, range=(0, most), color='C0')
  median = float(np.median(values))
  axes.axvline(median, color='black', linewidth=1, linestyle='--')
  label = f'median {median:.3g}'
  if over:
    label += f'; {over} above, to {values.max():.4g}'
  axes.set_xlabel(label)


def _draw_most_common(
  axes: matplotlib.axes.Axes, names: Sequence[str], title: str, color: str
):
  axes.set_title(title)
  if not names:
    _say(axes, 'none')
    return
  counts = collections.Counter(names)
  bars = counts.most_common(_MAX_BARS)
  others = len(names) - sum(count for _, count in bars)
  if others:
    bars.append((f'{len(counts) - _MAX_BARS} others', others))
  _draw_bars(axes, bars, _MAX_BARS + 1, max(n for _, n in bars), color)


def _draw_classes(
  figure: matplotlib.figure.SubFigure,
  counts: Mapping[str, int],
  columns: int,
  rows: int,
):
  figure.suptitle('videos a class')
  bars = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
  all_axes = figure.subplots(1, columns, squeeze=False)[0]
  most = max(count for _, count in bars)
  for column, axes in enumerate(all_axes):
    part = bars[column * rows : (column + 1) * rows]
    _draw_bars(axes, part, max(rows, 3), most, 'C0')


def _draw_bars(
  axes: matplotlib.axes.Axes,
  bars: Sequence[tuple[str, int]],
  places: int,
  most: int,
  color: str,
):
  """Draws bars to the right, from the top down, with names and numbers."""
  names, counts = zip(*bars, strict=True)
  axes.barh(range(len(bars)), counts, color=color, height=0.7)
  axes.set_yticks(
    range(len(bars)), map(_shorten, names), fontsize=7, parse_math=False
  )
  for place, count in enumerate(counts):
    axes.text(
      count + 0.02 * most,
      place,
      f'{count:,}',
      va='center',
      fontsize=7,
      color='C3' if count == 0 else 'black',
    )
  axes.set_xlim(0, 1.25 * max(most, 1))
  axes.set_ylim(places - 0.5, -0.5)
  axes.set_xticks([])
  axes.tick_params(length=0)
  for side in ('top', 'right', 'bottom'):
    axes.spines[side].set_visible(False)


def _say(axes: matplotlib.axes.Axes, text: str):
  axes.text(0.5, 0.5, text, ha='center', transform=axes.transAxes)
  axes.set_axis_off()


def _shorten(name: str) -> str:
  return name if len(name) <= _MAX_NAME else f'{name[: _MAX_NAME - 1]}…'


def show(
  lines: Sequence[tuple[str, str]],
  broken: Sequence[Probe],
  console: rich.console.Console | None = None,
) -> None:
  """Prints a table, and the videos that cannot be read."""
  console = console or rich.console.Console(emoji=False)
  table = rich.table.Table(show_header=False)
  for line in lines:
    table.add_row(*map(rich.markup.escape, line))
  console.print(table)
  for probe in broken[:_MAX_NAMED]:
    text = f'cannot be read: {probe.id}: {probe.cause}'
    console.print(text, markup=False, highlight=False)
  if len(broken) > _MAX_NAMED:
    console.print(f'and {len(broken) - _MAX_NAMED} more')


def _config(given: ml_collections.ConfigDict | None, batch_size: int):
  """Returns a run's configuration with the batches that are measured."""
  config = given or base.get_config()
  with config.unlocked():
    config.data.dir = flags.FLAGS.dir
    config.train.batch_size = batch_size or config.train.batch_size
    config.train.long_cycle = config.train.short_cycle = False
  return config


def main(_: Sequence[str]) -> None:
  """Reports on the data set that the flags name."""
  values = flags.FLAGS
  config = _config(values.config, values.batch_size)
  cv2.setNumThreads(1)  # a loader process has one, too
  if values.split == 'train':
    batches = pipeline.build(config, 'train')
    source = batches.source
  else:  # it is not loaded as clips for training
    batches, source = None, sources.open_source(values.dir, values.split)
  probes = probing.probe(source, values.sample)
  counts, complete = class_counts(source, values.dir, values.split, probes)
  broken = [probe for probe in probes if probe.cause]
  lines = describe(probes, counts, len(source), config.data.num_frames)
  title = f'{values.dir}, {values.split}: {len(source):,} videos'
  if len(probes) < len(source):
    title += f'; lengths, sizes{"" if complete else ", classes"} and failures '
    title += f'of {len(probes):,}'
  draw(probes, counts, title, values.out)
  show(lines, broken)
  if batches and len(broken) < len(probes):
    prefetch, seconds = config.data.prefetch, values.seconds
    speed = probing.measure(batches, probes, prefetch, seconds)
    size, workers = config.train.batch_size, config.data.num_workers
    show(judge(speed, size, values.step_time, workers), [])
  print(f'picture: {values.out}')


def _define_flags():
  cli.define_config()
  flags.DEFINE_string('dir', None, 'The data set, as --config.data.dir.')
  flags.DEFINE_enum('split', 'train', sources.SPLITS, 'Which videos.')
  flags.DEFINE_string('out', 'report.png', 'The picture that is written.')
  flags.DEFINE_integer('sample', 1_000, 'Videos to look at; 0: all.', 0)
  flags.DEFINE_integer(
    'batch_size', 0, "Clips a step; 0: the configuration's train.batch_size.", 0
  )
  flags.DEFINE_float(
    'step_time', 0.0, 'Seconds of a training step, to compare with.', 0.0
  )
  flags.DEFINE_float('seconds', 10.0, 'For measuring the loader.', 0.0)
  flags.mark_flag_as_required('dir')


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
