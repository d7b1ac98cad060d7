"""Draws a table: every seed, and the confidence intervals of the means."""

import pathlib
from collections.abc import Sequence

from matplotlib.figure import Figure

from mtnet_jax import files
from mtnet_jax.experiments.plan import Plan
from mtnet_jax.experiments.summary import Line

_MARGIN = 2  # points beyond 0 and 100 %, for marks that lie there


def draw(table: Plan, lines: Sequence[Line], path: str | pathlib.Path) -> None:
  """Writes the picture of `make_figure` as PNG."""
  files.save_figure(make_figure(table, lines), path, dpi=110)


def make_figure(table: Plan, lines: Sequence[Line]) -> Figure:
  """Draws the top-1 of each run in percent, in the order of the thesis.

  Args:
    table: the plan.
    lines: the lines of the runs that have a seed scored, at least one.

  Returns:
    The figure. The runs are at 0, 1, … from left to right: a wide bar is the
    interval over videos, a thin one that over seeds, a dash the mean, and
    points a little to the right the seeds.
  """
  width = max(6.4, 1.6 + 0.9 * len(lines))
  figure = Figure(figsize=(width, 4.4), layout='constrained')
  axes = figure.add_subplot()
  _draw_interval(
    axes,
    [(line.mean, line.video_interval) for line in lines],
    label='95 %, other videos',
    color='#b9cfe6',
    linewidth=12,
  )
  _draw_interval(
    axes,
    [(line.mean, line.seed_interval) for line in lines],
    label='95 %, training again',
    color='#2a5783',
    linewidth=1.5,
  )
  axes.plot(
    [100 * line.mean for line in lines],
    '_',
    color='#2a5783',
    markersize=18,
    markeredgewidth=2,
    label='mean',
  )
  points = [
    (x + 0.3 + 0.07 * i, 100 * top1)
    for x, line in enumerate(lines)
    for i, top1 in enumerate(line.top1)
  ]
  axes.plot(
    *zip(*points, strict=True), '.', color='#c44e2b', label='of each seed'
  )
  _dress(axes, table, [line.run for line in lines])
  return figure


def _draw_interval(
  axes, ranges: Sequence[tuple[float, float | None]], **style
) -> None:
  """Draws a bar from mean - half to mean + half where there is a half."""
  known = [
    (x, 100 * (mean - half), 100 * (mean + half))
    for x, (mean, half) in enumerate(ranges)
    if half is not None
  ]
  if known:
    axes.vlines(*zip(*known, strict=True), **style)


def _dress(axes, table: Plan, names: Sequence[str]) -> None:
  low, high = axes.get_ylim()
  axes.set_ylim(max(low, -_MARGIN), min(high, 100 + _MARGIN))
  axes.set_xlim(-0.5, len(names) - 0.3)
  axes.set_xticks(range(len(names)), names, rotation=30, ha='right')
  axes.set_ylabel('top-1, %')
  axes.set_title(f'Table {table.table}: {table.varies}')
  axes.grid(axis='y', alpha=0.3)
  axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
