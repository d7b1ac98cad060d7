"""Draws the lengths, sizes, failures and classes of a data set."""

import collections
import math
import os
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from mtnet_jax import files
from mtnet_jax.data.probing import Probe
from mtnet_jax.errors import UserError

_MAX_BARS = 8  # sizes, and causes of failures, that are drawn
_MAX_NAME = 38  # letters of a class's name
_CLASS_COLUMNS = 5
_FEW_CLASSES = 12  # that stand in one column


def format_share(part: int, whole: int) -> str:
  """Returns a number and its percentage of the whole: '3 (1.5%)'."""
  return f'{part:,} ({part / max(whole, 1):.1%})'


def draw(
  probes: Sequence[Probe],
  counts: Mapping[str, int],
  title: str,
  path: str | os.PathLike,
) -> None:
  """Draws lengths, sizes, failures and classes.

  Args:
    probes: the probes of the videos that were looked at.
    counts: videos by class.
    title: stands above.
    path: the PNG to write.

  Raises:
    UserError: the picture cannot be written.
    OSError: the disk is full.
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
  share = format_share(len(broken), len(probes))
  _draw_most_common(causes, broken, f'cannot be read: {share}', 'C3')
  _draw_classes(lower, counts, columns, rows)
  try:
    files.save_figure(figure, path, dpi=100)
  except (OSError, ValueError) as error:  # no folder; a suffix of no picture
    if getattr(error, 'errno', None) in files.NO_ROOM:
      raise
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
