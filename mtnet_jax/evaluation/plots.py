"""Draws a run's training curves and the confusion of its classes."""

import pathlib
from collections.abc import Sequence

import matplotlib
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from mtnet_jax import files
from mtnet_jax.typing import Int

_GATES = 'train/gate_open/'


def draw_confusion(
  matrix: Int[np.ndarray, 'k k'],
  names: Sequence[str],
  path: str | pathlib.Path,
) -> None:
  """Draws which class is taken for which, as shares of the true class.

  Args:
    matrix: counts by true class (rows) and predicted class (columns).
    names: the names of the k classes; beyond 40 they are left off the axes.
    path: the PNG to write.
  """
  shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  classes = len(names)
  side = float(np.clip(2.5 + 0.42 * classes, 5, 24))
  figure = matplotlib.figure.Figure(figsize=(side, side), layout='constrained')
  axes = figure.add_subplot()
  axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  if classes <= 40:
    # A class's name may hold a dollar sign, and is no formula.
    axes.set_xticks(
      range(classes), names, rotation=60, ha='right', parse_math=False
    )
    axes.set_yticks(range(classes), names, parse_math=False)
    for row, column in zip(*np.nonzero(matrix), strict=True):
      axes.text(
        column,
        row,
        f'{100 * shares[row, column]:.0f}',
        ha='center',
        va='center',
        color='white' if shares[row, column] > 0.5 else 'black',
        fontsize=8,
      )
  axes.set_xlabel('predicted class')
  axes.set_ylabel('true class')
  axes.set_title(f'{matrix.sum()} videos (cells: % of a row)')
  files.save_figure(figure, path, dpi=110)


def draw_curves(
  records: Sequence[dict[str, float]], path: str | pathlib.Path
) -> None:
  """Draws loss, accuracy and learning rate over the steps.

  Args:
    records: the lines of `metrics.jsonl`, from `metric_writer.read`.
    path: the PNG to write.
  """
  panels = {
    'cross-entropy, nats': ['train/loss'],
    'top-1': ['train/top1', 'val/top1'],
    'learning rate': ['train/learning_rate'],
  }
  figure = matplotlib.figure.Figure(figsize=(12, 3.6), layout='constrained')
  all_axes = figure.subplots(1, len(panels))
  for axes, (title, names) in zip(all_axes, panels.items(), strict=True):
    for name in names:
      points = [(r['step'], r[name]) for r in records if name in r]
      if points:
        axes.plot(*zip(*points, strict=True), label=name, marker='.')
    axes.set_title(title)
    axes.set_xlabel('step')
    axes.grid(alpha=0.3)
    if len(names) > 1 and axes.lines:
      axes.legend()
      axes.set_ylim(0, 1)
  files.save_figure(figure, path, dpi=110)


def is_gate(metric: str) -> bool:
  """Returns whether a name in `metrics.jsonl` is a share of open gates."""
  return metric.startswith(_GATES)


def draw_gates(
  records: Sequence[dict[str, float]], path: str | pathlib.Path
) -> None:
  """Draws the share of open gates over the steps, a line for each block.

  Args:
    records: the lines of `metrics.jsonl`, from `metric_writer.read`, of a
      network that has gates.
    path: the PNG to write.
  """
  blocks = sorted(
    {name for record in records for name in record if is_gate(name)},
    key=lambda name: [int(p) for p in name.split('_') if p.isdigit()],
  )
  figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout='constrained')
  axes = figure.add_subplot()
  colors = matplotlib.colormaps['viridis'](np.linspace(0, 0.95, len(blocks)))
  for name, color in zip(blocks, colors, strict=True):
    points = [(r['step'], r[name]) for r in records if name in r]
    label = name.removeprefix(_GATES)
    axes.plot(*zip(*points, strict=True), color=color, label=label)
  axes.set_title('clips whose temporal gate is open, by block')
  axes.set_xlabel('step')
  axes.set_ylim(-0.02, 1.02)
  axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
  axes.grid(alpha=0.3)
  axes.legend(fontsize=7, ncols=2)
  files.save_figure(figure, path, dpi=110)
