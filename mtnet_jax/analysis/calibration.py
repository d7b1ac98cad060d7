r"""Measures whether a network is right as often as its probabilities say.

  mtnet calibration \
    A/evaluation/predictions.npz [B/evaluation/predictions.npz ...] \
    [--bins=15] [--out=reliability.png]

The measures are those of C. Guo et al., *On Calibration of Modern Neural
Networks*, 2017. The thesis reports none of them.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import matplotlib.figure
import matplotlib.ticker
import numpy as np
import rich.console
import rich.markup
import rich.table
from absl import flags

from mtnet_jax import cli, files
from mtnet_jax.errors import UserError, printable
from mtnet_jax.evaluation import predictions_file
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.typing import Float, Int

# A smaller probability of the true class counts as this, the smallest normal
# float32: a softmax that underflows would make the mean infinite.
_LEAST = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Calibration:
  """The agreement of confidence and accuracy.

  A video's confidence is its highest probability. Of the m bins, the i-th holds
  confidences in (i/m, (i+1)/m].

  Attributes:
    accuracy: top-1, in [0, 1].
    confidence: mean confidence, in [0, 1].
    expected_error: |accuracy - confidence| of the bins, weighted by their
      videos, in [0, 1].
    maximum_error: the largest of them, in [0, 1].
    negative_log_likelihood: mean, of the true class, in nats, 0 or more.
    brier: mean squared distance of the probabilities from the true class's one
      and the others' zeros, in [0, 2].
    counts: videos of each bin.
    bin_confidence: mean confidence of each bin, NaN where there is no video.
    bin_accuracy: accuracy of each bin, NaN where there is no video.
  """

  accuracy: float
  confidence: float
  expected_error: float
  maximum_error: float
  negative_log_likelihood: float
  brier: float
  counts: Int[np.ndarray, ' m']
  bin_confidence: Float[np.ndarray, ' m']
  bin_accuracy: Float[np.ndarray, ' m']


def calibrate(
  probabilities: Float[np.ndarray, 'n k'],
  labels: Int[np.ndarray, ' n'],
  bins: int = 15,
) -> Calibration:
  """Measures calibration, in float64.

  Args:
    probabilities: the probabilities of k classes for each of n videos, rows sum
      to 1; n > 0.
    labels: true classes, 0 to k - 1.
    bins: the number of bins of equal width over [0, 1], at least 1.
  """
  probabilities = probabilities.astype(np.float64)
  confidence = probabilities.max(axis=1)
  right = probabilities.argmax(axis=1) == labels
  edges = np.arange(bins + 1) / bins
  # On an edge: the bin below. Rounding may leave a confidence just above 1.
  index = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)
  counts = np.bincount(index, minlength=bins)
  totals = np.where(counts > 0, counts, np.nan)
  bin_confidence = np.bincount(index, confidence, bins) / totals
  bin_accuracy = np.bincount(index, right, bins) / totals
  gaps = np.abs(bin_accuracy - bin_confidence)
  own = np.take_along_axis(probabilities, labels[:, None], axis=1)  # n 1
  own = np.clip(own, _LEAST, 1)  # rounding may have put it above 1
  distances = probabilities - np.eye(probabilities.shape[1])[labels]
  return Calibration(
    accuracy=float(right.mean()),
    confidence=float(confidence.mean()),
    expected_error=float(np.nansum(gaps * counts) / counts.sum()),
    maximum_error=float(np.nanmax(gaps)),
    negative_log_likelihood=float(0 - np.log(own).mean()),  # not -0.0
    brier=float(np.square(distances).sum(axis=1).mean()),
    counts=counts,
    bin_confidence=bin_confidence,
    bin_accuracy=bin_accuracy,
  )


def show(
  found: Mapping[str, Calibration], console: rich.console.Console | None = None
) -> None:
  """Prints a column for each run.

  Args:
    found: calibrations by the run's name.
    console: the console to print to; None: the terminal.
  """
  table = rich.table.Table('')
  for name in found:
    table.add_column(
      rich.markup.escape(printable(name)), justify='right', overflow='fold'
    )
  for what, value in (
    ('videos', lambda c: str(c.counts.sum())),
    ('top-1', lambda c: f'{c.accuracy:.1%}'),
    ('mean confidence', lambda c: f'{c.confidence:.1%}'),
    ('expected calibration error', lambda c: f'{c.expected_error:.1%}'),
    ('maximum calibration error', lambda c: f'{c.maximum_error:.1%}'),
    (
      'negative log likelihood, nats',
      lambda c: f'{c.negative_log_likelihood:.3f}',
    ),
    ('Brier score, 0 to 2', lambda c: f'{c.brier:.3f}'),
  ):
    table.add_row(what, *map(value, found.values()))
  (console or rich.console.Console(emoji=False)).print(table)


def draw(found: Mapping[str, Calibration]) -> matplotlib.figure.Figure:
  """Draws accuracy over confidence for each run, and how many videos had it.

  Args:
    found: calibrations by the run's name.
  """
  columns = min(len(found), 3)
  rows = -(-len(found) // columns)
  figure = matplotlib.figure.Figure(
    figsize=(4.6 * columns, 5.2 * rows), layout='constrained'
  )
  grid = figure.subfigures(rows, columns, squeeze=False).flat
  for panel, (name, calibration) in zip(grid, found.items(), strict=False):
    _draw_one(panel, name, calibration)
  return figure


def _draw_one(panel, name: str, c: Calibration) -> None:
  """Bars of accuracy against the diagonal, above counts on a log scale."""
  m = len(c.counts)
  middles, width = (np.arange(m) + 0.5) / m, 1 / m
  top, bottom = panel.subplots(
    2, 1, sharex=True, gridspec_kw={'height_ratios': (3, 1)}
  )
  line = {'edgecolor': 'white', 'linewidth': 0.5}
  accuracy, confidence = (
    np.nan_to_num(values) for values in (c.bin_accuracy, c.bin_confidence)
  )
  both = np.minimum(accuracy, confidence)
  for what, values, base, color in (
    ('as sure as right', both, 0, 'tab:blue'),
    ('more sure than right', confidence - both, both, 'tab:orange'),
    ('more right than sure', accuracy - both, both, 'lightskyblue'),
  ):
    top.bar(middles, values, width, base, color=color, label=what, **line)
  top.plot([0, 1], [0, 1], color='0.4', linestyle='--', linewidth=1)
  top.set_title(name, fontsize=9, parse_math=False, wrap=True)
  top.set_ylabel('accuracy')
  top.set_ylim(0, 1)
  panel.legend(loc='outside lower center', ncols=3, fontsize=8)
  text = (
    f'expected error {c.expected_error:.1%}\nmaximum error '
    f'{c.maximum_error:.1%}\n{c.counts.sum()} videos'
  )
  top.text(
    0.97, 0.04, text, transform=top.transAxes, ha='right', fontsize=8,
    bbox={'facecolor': 'white', 'edgecolor': '0.8'},
  )  # fmt: skip
  bottom.bar(middles, c.counts, width, color='0.6', **line)
  bottom.set_yscale('symlog', linthresh=1)
  bottom.yaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
  bottom.set_ylabel('videos')
  bottom.set_xlabel('confidence')
  bottom.set_xlim(0, 1)


def main(paths: Sequence[str], bins: int, out: str | None) -> None:
  """Measures the predictions of files.

  Args:
    paths: the files.
    bins: see `calibrate`.
    out: PNG for the reliability diagrams, or None.

  Raises:
    UserError: there is no file, or one twice; one is not what `mtnet eval`
      writes; the picture cannot be written.
  """
  if not paths or len(set(paths)) < len(paths):
    raise UserError(
      f'One file or several different ones must be given, not {len(paths)}: '
      'mtnet calibration A/evaluation/predictions.npz.'
    )
  png = run_folder.png_path(out) if out else None
  found = {}
  for path in paths:
    predictions = predictions_file.read(path)
    found[str(path)] = calibrate(
      predictions.probabilities, predictions.labels, bins
    )
  show(found)
  if png:
    files.save_figure(draw(found), png, dpi=130)
    print(printable(f'reliability: {png}'))


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_integer(
    'bins',
    15,
    'Number of bins of equal width that probabilities are sorted into, 1 to '
    '1000.',
    1,
    1000,
    flag_values=values,
  )
  flags.DEFINE_string(
    'out',
    None,
    'PNG file to write the reliability diagrams to; without it none is drawn.',
    flag_values=values,
  )


COMMAND = cli.Command(
  lambda values, paths: main(paths, values.bins, values.out),
  define_flags,
  takes_arguments=True,
)

if __name__ == '__main__':
  cli.run(COMMAND)
