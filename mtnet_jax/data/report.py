r"""Looks at a data set: its classes, lengths and sizes, and the loader's speed.

  mtnet inspect --dir=DIR [--split=train] [--out=report.png] \
    [--config=NAME] [--step_time=SECONDS --batch_size=N]

DIR is what --config.data.dir would be. A sample of the videos is opened, and
the first and the last frame of each are decoded. Then one loader process makes
training clips as the configuration asks for them, and its speed is compared
with that of a single thread that only decodes the same videos. At the end the
command advises what to mend in the data set before training, and how.
"""

import collections
import math
import os
from collections.abc import Mapping, Sequence

import cv2
import ml_collections
import numpy as np
import rich.console
import rich.markup
import rich.table
from absl import flags

from mtnet_jax import cli
from mtnet_jax.configs import base
from mtnet_jax.data import (
  class_names,
  pipeline,
  probing,
  report_drawing,
  shared_videos,
  sources,
)
from mtnet_jax.data.advice import Facts, advise
from mtnet_jax.data.probing import Probe, Speed
from mtnet_jax.data.report_drawing import format_share
from mtnet_jax.errors import UserError, printable

_MAX_NAMED = 20  # broken videos that are printed


def class_counts(
  source: sources.Source,
  directory: str,
  split: str,
  probes: Sequence[Probe],
) -> tuple[dict[str, int], bool]:
  """Counts the videos of each class.

  Args:
    source: the split's videos.
    directory: the folder of the data set.
    split: the split's name.
    probes: probes of some of the videos, or all.

  Returns:
    The numbers by class, of all videos where they can be had without reading
    them (of plain files; of records that have a manifest.json), else of those
    that were looked at; and whether they are of all.

  Raises:
    UserError: the manifest.json is damaged, or of other records.
  """
  if counts := sources.count_videos(source, directory, split):
    return counts, True
  found = collections.Counter(probe.label for probe in probes)
  by_name = {source.labels[i]: n for i, n in found.items() if i >= 0}
  complete = len(probes) == len(source)
  return dict.fromkeys(source.labels, 0) | by_name, complete


def describe(
  probes: Sequence[Probe],
  counts: Mapping[str, int],
  total: int,
  num_frames: int,
) -> list[tuple[str, str]]:
  """Describes the data set in words.

  Args:
    probes: the probes of the videos that were looked at.
    counts: videos by class.
    total: videos in the split.
    num_frames: the frames of a clip.

  Returns:
    What, and how much of it, line by line.
  """
  good = [probe for probe in probes if not probe.cause]
  short = sum(probe.frames < num_frames for probe in good)
  videos = sorted(counts.values())
  empty = videos.count(0)
  lines = [
    ('videos', f'{total:,}; looked at: {len(probes):,}'),
    ('cannot be read', format_share(len(probes) - len(good), len(probes))),
    (
      f'shorter than a clip ({num_frames} frames)',
      format_share(short, len(probes)),
    ),
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
    speed: the measured speed.
    batch_size: clips a step.
    step_time: the seconds of a step; 0: unknown.
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


def gather_facts(
  source: sources.Source,
  directory: str,
  probes: Sequence[Probe],
  training_counts: Mapping[str, int],
  data: ml_collections.ConfigDict,
) -> Facts:
  """Returns the facts that the advice on a data set is based on.

  Args:
    source: the videos of a split.
    directory: the folder of the data set.
    probes: the probes of the videos that were looked at.
    training_counts: training videos by class, or nothing.
    data: the section of a configuration.

  Raises:
    UserError: the data set cannot be listed.
  """
  sizes, absent, shared = {}, {}, []
  if isinstance(source.examples, tuple):  # of plain files
    splits = sources.list_videos(directory, data.frames_per_second).splits
    sizes = {split: len(videos) for split, videos in splits.items()}
    shared = shared_videos.find(splits, shared_videos.look_at_files(splits))
  for split in sources.SPLITS:
    if split in sizes:
      continue
    try:
      sizes[split] = len(sources.open_source(directory, split))
    except UserError as error:
      absent[split] = str(error)
  return Facts(
    sizes=sizes,
    absent=absent,
    training_counts=training_counts,
    looked_at=len(probes),
    broken=[probe.id for probe in probes if probe.cause],
    frames=[probe.frames for probe in probes if not probe.cause],
    num_frames=data.num_frames,
    frame_stride=data.frame_stride,
    sampling=data.sampling,
    shared=shared,
    look_alikes=class_names.look_alikes(source.labels),
  )


def show_advice(lines: Sequence[str]) -> None:
  """Prints what should be mended, or that nothing needs to be."""
  print('advice:' if lines else 'advice: nothing to mend was found.')
  for number, line in enumerate(lines, 1):
    print(printable(f'{number}. {line}'))


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
    text = printable(f'cannot be read: {probe.id}: {probe.cause}')
    console.print(text, markup=False, highlight=False)
  if len(broken) > _MAX_NAMED:
    console.print(f'and {len(broken) - _MAX_NAMED} more')


def _config(
  given: ml_collections.ConfigDict | None, directory: str, batch_size: int
) -> ml_collections.ConfigDict:
  """Returns a run's configuration with the batches that are measured."""
  config = given or base.get_config()
  with config.unlocked():
    config.data.dir = directory
    config.train.batch_size = batch_size or config.train.batch_size
    config.train.long_cycle = config.train.short_cycle = False
  return config


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Reports on the data set that the flags name."""
  config = _config(values.config, values.dir, values.batch_size)
  cv2.setNumThreads(1)  # a loader process has one, too
  if values.split == 'train':
    batches = pipeline.build(config, 'train')
    source = batches.source
  else:  # it is not loaded as clips for training
    batches, source = (
      None,
      sources.open_source(
        values.dir, values.split, config.data.frames_per_second
      ),
    )
  probes = probing.probe(source, values.sample)
  counts, complete = class_counts(source, values.dir, values.split, probes)
  broken = [probe for probe in probes if probe.cause]
  lines = describe(probes, counts, len(source), config.data.num_frames)
  title = f'{values.dir}, {values.split}: {len(source):,} videos'
  if len(probes) < len(source):
    title += f'; lengths, sizes{"" if complete else ", classes"} and failures '
    title += f'of {len(probes):,}'
  report_drawing.draw(probes, counts, title, values.out)
  show(lines, broken)
  if batches and len(broken) < len(probes):
    prefetch, seconds = config.data.prefetch, values.seconds
    speed = probing.measure(batches, probes, prefetch, seconds)
    size, workers = config.train.batch_size, config.data.num_workers
    show(judge(speed, size, values.step_time, workers), [])
  print(printable(f'picture: {values.out}'))
  known = counts if complete and values.split == 'train' else {}
  facts = gather_facts(source, values.dir, probes, known, config.data)
  show_advice(advise(facts))


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_config(values)
  flags.DEFINE_string(
    'dir',
    None,
    'Data set to look at: a folder or a CSV file, as --config.data.dir takes '
    'it.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_enum(
    'split',
    'train',
    sources.SPLITS,
    'Split whose videos are looked at.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'out',
    'report.png',
    'PNG file to write the picture of the data set to.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'sample',
    1_000,
    'Number of videos to open, drawn at random; 0 opens all.',
    0,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'batch_size',
    0,
    "Number of clips per training step; 0 takes the configuration's "
    'train.batch_size.',
    0,
    flag_values=values,
  )
  flags.DEFINE_float(
    'step_time',
    0.0,
    'Time in seconds of a training step, to say whether it would wait for '
    'clips; 0 says nothing of it.',
    0.0,
    flag_values=values,
  )
  flags.DEFINE_float(
    'seconds',
    10.0,
    'Time in seconds to measure the speed of loading.',
    0.0,
    flag_values=values,
  )


COMMAND = cli.Command(main, define_flags)

if __name__ == '__main__':
  cli.run(COMMAND)
