r"""Tests by McNemar whether one of two runs is significantly better.

  mtnet significance \
    A/evaluation/predictions.npz B/evaluation/predictions.npz \
    [--plot=gains.png] [--labels=labels.txt]

Both files must hold predictions for the same videos. The test counts the videos
on which one run is right and the other wrong, not how many each has right
(thesis, section 6.5 and eq. 6.1). --plot draws which classes gain and which
lose, as Figure 6.5 of the thesis does, and writes the figures as CSV beside it.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Sequence

import matplotlib.figure
import numpy as np
import rich.console
import rich.table
from absl import flags

from mtnet_jax import cli, files, locations
from mtnet_jax.analysis.paired import Comparison, Pair, compare_pair, read_pair
from mtnet_jax.errors import UserError, printable
from mtnet_jax.runs import folder as run_folder

# With more classes, names are given to those that change most.
_MOST_NAMED = 40
_BETTER, _WORSE, _EQUAL = 'tab:blue', 'tab:red', '0.7'


@dataclasses.dataclass(frozen=True)
class Gain:
  """The gain of a class from one model to another.

  Attributes:
    name: the class's name.
    videos: the number of its videos, at least 1.
    right_a: the number of these videos on which the first model is right.
    right_b: the number of these videos on which the second model is right.
  """

  name: str
  videos: int
  right_a: int
  right_b: int

  @property
  def top1_a(self) -> float:
    """Share that the first has right, in [0, 1]."""
    return self.right_a / self.videos

  @property
  def top1_b(self) -> float:
    """Share that the second has right, in [0, 1]."""
    return self.right_b / self.videos

  @property
  def gain(self) -> float:
    """Share of the videos, in [-1, 1]; positive: the second is better."""
    # The difference is taken between whole numbers, so that equal gains are
    # equal.
    return (self.right_b - self.right_a) / self.videos


def per_class(pair: Pair, names: Sequence[str]) -> list[Gain]:
  """Returns the classes that have videos, the largest gain first.

  Args:
    pair: the pair from `read_pair`.
    names: the classes' names, by index. Equal gains stay in this order.
  """
  rows = []
  for index, name in enumerate(names):
    own = pair.labels == index
    if own.any():
      counts = own, pair.right_a & own, pair.right_b & own
      rows.append(Gain(name, *(int(count.sum()) for count in counts)))
  return sorted(rows, key=lambda row: -row.gain)


def write_gains(gains: Sequence[Gain], path: str | pathlib.Path) -> None:
  """Writes a CSV of the gains.

  Args:
    gains: the gains from `per_class`.
    path: the CSV file to write.
  """
  with (
    files.replacing(pathlib.Path(path)) as partial,
    partial.open('w', newline='', encoding='utf-8') as file,
  ):
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['class', 'videos', 'top1_a', 'top1_b', 'gain'])
    for row in gains:
      shares = row.top1_a, row.top1_b, row.gain
      writer.writerow([row.name, row.videos, *(f'{s:.4f}' for s in shares)])


def draw_gains(gains: Sequence[Gain]) -> matplotlib.figure.Figure:
  """Draws what each class gains, as the thesis's Figure 6.5.

  Up to 40 classes are all named, with their number of videos. With more
  classes, a curve shows all, and the 20 at either end are named beside it.

  Args:
    gains: the gains from `per_class`.
  """
  if len(gains) <= _MOST_NAMED:
    height = 1.2 + 0.24 * len(gains)
    figure = matplotlib.figure.Figure((7.5, height), layout='constrained')
    _draw_named(figure.subplots(), gains)
  else:
    half = _MOST_NAMED // 2
    figure = matplotlib.figure.Figure((11, 7.5), layout='constrained')
    everything, *ends = figure.subplot_mosaic(
      'AB;AC', width_ratios=(1, 1.3)
    ).values()
    places = np.arange(len(gains))
    everything.barh(places, _points(gains), 1.0, color=_colors(gains))
    everything.set_ylim(len(gains) - 0.5, -0.5)
    everything.set_ylabel('classes, by their gain')
    _label_axis(everything)
    for axes, part, title in zip(
      ends,
      (
        [row for row in gains[:half] if row.gain > 0],
        [row for row in gains[-half:] if row.gain < 0],
      ),
      ('largest gains', 'largest losses'),
      strict=True,
    ):
      _draw_named(axes, part)
      axes.set_title(title, fontsize=10)
  counts = [
    sum(row.gain > 0 for row in gains),
    sum(row.gain < 0 for row in gains),
  ]
  figure.suptitle(
    f'{counts[0]} classes gain, {counts[1]} lose, '
    f'{len(gains) - sum(counts)} stay',
    fontsize=11,
  )
  return figure


def _draw_named(axes, gains):
  axes.barh(range(len(gains)), _points(gains), 0.8, color=_colors(gains))
  labels = [f'{_shorten(row.name)} ({row.videos})' for row in gains]
  axes.set_yticks(range(len(gains)), labels, fontsize=8, parse_math=False)
  axes.set_ylim(len(gains) - 0.4, -0.6)
  _label_axis(axes)


def _shorten(name):
  return name if len(name) <= 40 else name[:39] + '…'


def _label_axis(axes):
  axes.axvline(0, color='0.3', linewidth=0.8)
  axes.set_xlabel('top-1 of B − top-1 of A, percentage points')
  axes.grid(axis='x', alpha=0.3)
  axes.set_axisbelow(True)
  axes.margins(x=0.06)


def _points(gains):
  return [100 * row.gain for row in gains]


def _colors(gains):
  by_sign = {1: _BETTER, -1: _WORSE, 0: _EQUAL}
  return [by_sign[int(np.sign(row.gain))] for row in gains]


def show(
  comparison: Comparison, console: rich.console.Console | None = None
) -> None:
  """Prints who is right where, both accuracies and the p-value.

  Args:
    comparison: the comparison from `compare`.
    console: the console to print to; None: the terminal.
  """
  c, console = comparison, console or rich.console.Console(emoji=False)
  a, b = c.both + c.only_a, c.both + c.only_b
  total = a + c.only_b + c.neither
  table = rich.table.Table('', 'B right', 'B wrong', 'all')
  for name, *row in (
    ('A right', c.both, c.only_a, a),
    ('A wrong', c.only_b, c.neither, total - a),
    ('all', b, total - b, total),
  ):
    table.add_row(name, *map(str, row))
  console.print(table)
  console.print(f'top-1 of A {a / total:.1%}, of B {b / total:.1%}')
  console.print(
    f'McNemar with Edwards correction: chi-square {c.statistic:.3f}, '
    f'p {c.p_value:.2g}'
  )


def main(paths: Sequence[str], plot: str | None, labels: str | None) -> None:
  """Compares the predictions of two files.

  Args:
    paths: the two files.
    plot: PNG for the gains of the classes, or None.
    labels: file that names the classes, a line each; None: `labels.txt` of the
      first file's workdir.

  Raises:
    UserError: there are not two files, the names are missing or of another
      number, the picture or its CSV cannot be written, and as `read_pair`.
  """
  if len(paths) != 2:
    raise UserError(
      f'Two files must be given, not {len(paths)}: mtnet significance '
      'A/evaluation/predictions.npz B/evaluation/predictions.npz.'
    )
  if plot:
    png = run_folder.png_path(plot)
    table = run_folder.file_path(png.with_suffix('.csv'))
  pair = read_pair(*paths)
  show(compare_pair(pair))
  if plot:
    default = locations.absolute(paths[0]).parent.parent / 'labels.txt'
    gains = per_class(pair, _read_names(labels or default, pair.num_classes))
    files.save_figure(draw_gains(gains), png, dpi=130)
    write_gains(gains, table)
    print(printable(f'classes: {png}, {table}'))


def _read_names(path, classes):
  path = locations.as_path(path)
  if not path.exists():
    raise UserError(
      f'The names of the classes are not in {path}. Give --labels=FILE, a line '
      'a class: the labels.txt of the workdir.'
    )
  names = run_folder.read_class_names(path)
  if len(names) != classes:
    raise UserError(
      f'{path} names {len(names)} classes, the predictions have {classes}. '
      'Give the labels.txt of their run as --labels.'
    )
  return names


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_string(
    'plot',
    None,
    'PNG file to write the gain of each class to, beside a CSV file of the '
    'same name; without it neither is written.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'labels',
    None,
    'Text file for --plot with the name of a class a line; without it the '
    'labels.txt of the first run.',
    flag_values=values,
  )


COMMAND = cli.Command(
  lambda values, paths: main(paths, values.plot, values.labels),
  define_flags,
  takes_arguments=True,
)

if __name__ == '__main__':
  cli.run(COMMAND)
