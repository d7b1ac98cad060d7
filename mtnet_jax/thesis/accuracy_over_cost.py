"""Draws accuracy over cost, as Figures 4.7, 5.7 and 5.8 of the thesis.

A network is a disc at its printed GFLOPs and top-1; its area shows its number
of parameters. A user's own run is a star, sized alike.
"""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib.figure
import matplotlib.lines
import matplotlib.ticker
import matplotlib.transforms

from mtnet_jax import files
from mtnet_jax.thesis.published import Row, Table

_COLORS = {
  'others': '0.62',
  'without SRTG': '0.62',
  'SRTG': 'tab:blue',
  'MTNet, MTConv': 'tab:red',
}
_AREA = 8.0  # square points for a million parameters
_FAR = 16  # points from a disc: from there a line leads to its label
_LEAST_STAR = 60.0  # square points: what can still be seen
# The files that `draw_all` writes: Figures 4.7, 5.7 and 5.8 of the thesis.
FIGURES = (
  'srtg_accuracy.png',
  'kinetics_accuracy.png',
  'convolutions_accuracy.png',
)
_STAR_COLORS = {'facecolor': 'gold', 'edgecolor': 'black', 'linewidths': 0.9}


@dataclasses.dataclass(frozen=True)
class Disc:
  """A network in a figure.

  Attributes:
    label: the network's name, or '' for none.
    gflops: the cost of one view in GFLOPs, above 0.
    top1: the top-1 accuracy in percent.
    parameters: the number of parameters, in millions.
    group: one of the keys of `_COLORS`.
  """

  label: str
  gflops: float
  top1: float
  parameters: float
  group: str


@dataclasses.dataclass(frozen=True)
class Star:
  """A user's own run.

  Attributes:
    label: the run's name, as the user gave it.
    gflops: multiply-adds of one view, in units of 1e9.
    top1: the top-1 accuracy in percent.
    parameters: the number of parameters, in millions.
  """

  label: str
  gflops: float
  top1: float
  parameters: float

  @property
  def area(self) -> float:
    """The area in square points, as a disc's, but large enough to be seen."""
    return max(_AREA * self.parameters, _LEAST_STAR)


@dataclasses.dataclass(frozen=True)
class Panel:
  """One coordinate system.

  Attributes:
    title: above it.
    discs: the discs in the panel.
    pairs: indices of discs to join by a line.
  """

  title: str
  discs: Sequence[Disc]
  pairs: Sequence[tuple[int, int]] = ()


def draw_all(
  tables: Mapping[str, Table], stars: Sequence[Star], directory: pathlib.Path
) -> list[pathlib.Path]:
  """Draws the three figures.

  Args:
    tables: the tables from `published.read_all`.
    stars: the user's own runs, which stand in each panel.
    directory: the folder to write to.

  Returns:
    The PNG files, those of `FIGURES`.
  """
  paths = [directory / name for name in FIGURES]
  figures = (
    srtg_panels(tables),
    [kinetics_panel(tables)],
    [convolutions_panel(tables)],
  )
  for path, panels in zip(paths, figures, strict=True):
    files.save_figure(draw(panels, stars), path, dpi=150)
  return paths


def srtg_panels(tables: Mapping[str, Table]) -> list[Panel]:
  """Returns Figure 4.7: accuracies of Table 4.5, sizes of Table 4.2.

  Args:
    tables: the tables from `published.read_all`.
  """
  sizes = {row.printed['model']: row for row in _rows(tables, 'table_4_2')}
  panels = []
  for dataset in ('HACS', 'K-700', 'MiT'):
    discs = []
    for row in _rows(tables, 'table_4_5'):
      model = row.printed['model']
      if row.printed['dataset'] == dataset:
        discs += [
          _disc(sizes[model], row.number('top1_without'), 'without SRTG', ''),
          _disc(sizes[f'SRTG {model}'], row.number('top1_srtg'), 'SRTG', model),
        ]
    pairs = [(i, i + 1) for i in range(0, len(discs), 2)]
    panels.append(Panel(dataset, discs, pairs))
  return panels


def kinetics_panel(tables: Mapping[str, Table]) -> Panel:
  """Returns Figure 5.7, of Table 5.1: without Class Regularisation.

  Args:
    tables: the tables from `published.read_all`.
  """
  rows = [
    row
    for row in _rows(tables, 'table_5_1')
    if '(CR)' not in row.printed['model']
  ]
  discs = []
  for row in rows:
    model = row.printed['model']
    family = model.partition(' ')[0].partition('-')[0]
    group = {'SRTG': 'SRTG', 'MTNet': 'MTNet, MTConv'}.get(family, 'others')
    discs.append(_disc(row, row.number('top1'), group, model))
  return Panel('Kinetics-400', discs)


def convolutions_panel(tables: Mapping[str, Table]) -> Panel:
  """Returns Figure 5.8, of Table 5.2.

  Args:
    tables: the tables from `published.read_all`.
  """
  discs = []
  for row in _rows(tables, 'table_5_2'):
    method = row.printed['method']
    group = 'MTNet, MTConv' if method == 'MTConv' else 'others'
    discs.append(_disc(row, row.number('top1'), group, method))
  return Panel('Kinetics-400, convolutions of a ResNet-50', discs)


def _rows(tables, prefix) -> Sequence[Row]:
  return next(t.rows for name, t in tables.items() if name.startswith(prefix))


def _disc(row, top1, group, label) -> Disc:
  gflops = row.number('gflops_per_view', 'gflops')
  return Disc(label, gflops, top1, row.number('params_m'), group)


def draw(
  panels: Sequence[Panel], stars: Sequence[Star]
) -> matplotlib.figure.Figure:
  """Draws panels side by side.

  Args:
    panels: the panels, one or more.
    stars: the stars in each panel.
  """
  width = 4.4 * len(panels) if len(panels) > 1 else 8.4
  figure = matplotlib.figure.Figure((width, 5.2), layout='constrained')
  all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
  for axes, panel in zip(all_axes, panels, strict=True):
    _draw_panel(axes, panel, stars)
  all_axes[0].set_ylabel('top-1, %')
  groups = list(dict.fromkeys(b.group for panel in panels for b in panel.discs))
  _draw_legend(figure, groups, bool(stars))
  # Labels move to where there is room, once everything else stands.
  figure.draw_without_rendering()
  figure.set_layout_engine('none')
  for axes, panel in zip(all_axes, panels, strict=True):
    _place_labels(axes, panel.discs, stars)
  return figure


def _draw_panel(axes, panel, stars) -> None:
  for first, second in panel.pairs:
    ends = panel.discs[first], panel.discs[second]
    axes.plot(
      [b.gflops for b in ends],
      [b.top1 for b in ends],
      color='0.75',
      linewidth=1,
      zorder=1,
    )
  for disc in sorted(panel.discs, key=lambda disc: -disc.parameters):
    # Discs are transparent; the white below them hides lines and grid.
    for color, alpha, order in (
      ('white', 1, 1.5),
      (_COLORS[disc.group], 0.75, 2),
    ):
      axes.scatter(
        disc.gflops,
        disc.top1,
        _AREA * disc.parameters,
        color=color,
        edgecolor='white',
        linewidths=0.8,
        alpha=alpha,
        zorder=order,
      )
  for star in stars:
    axes.scatter(
      star.gflops, star.top1, star.area, marker='*', zorder=3, **_STAR_COLORS
    )
  axes.set_title(panel.title, fontsize=11)
  axes.set_xscale('log')
  axes.set_xlabel('GFLOPs a view, as printed')
  axes.margins(x=0.16, y=0.14)
  low, high = axes.get_xlim()
  ticks = (1,) if high > 300 * low else (1, 2, 5)
  if high < 10 * low:
    ticks = (1, 2, 3, 4, 5, 6, 8)
  axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=ticks))
  axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter('%g'))
  axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
  axes.grid(alpha=0.25)
  axes.set_axisbelow(True)


def _draw_legend(figure, groups, has_stars) -> None:
  handles = [_handle(_COLORS[group], 9, group) for group in groups]
  if has_stars:
    handles.append(
      matplotlib.lines.Line2D(
        [], [], linestyle='', marker='*', markersize=13, color='gold',
        markeredgecolor='black', label='own run, GMACs',
      )
    )  # fmt: skip
  for millions, what in ((10, ''), (50, ''), (100, ' parameters')):
    diameter = math.sqrt(_AREA * millions)
    handles.append(_handle('none', diameter, f' {millions} M{what}'))
  figure.legend(
    handles=handles,
    loc='outside lower center',
    ncols=len(handles),
    fontsize=9,
    frameon=False,
    borderpad=1.2,
    columnspacing=1.2,
    handletextpad=0.5,
  )


def _handle(color, diameter, label):
  return matplotlib.lines.Line2D(
    [], [], linestyle='', marker='o', markersize=diameter, label=label,
    markerfacecolor=color, markeredgecolor='0.4' if color == 'none' else color,
  )  # fmt: skip


def _place_labels(axes, discs, stars) -> None:
  """Writes each label where it covers least, near its disc.

  Places around the disc are tried nearest first; what counts is the area of
  other labels, discs and the world outside that a label would cover.
  """
  points = axes.figure.dpi / 72
  marks = [
    (b.label, b.gflops, b.top1, math.sqrt(_AREA * b.parameters) / 2)
    for b in discs
  ] + [(s.label, s.gflops, s.top1, math.sqrt(s.area) / 2) for s in stars]
  centers = [axes.transData.transform((x, y)) for _, x, y, _ in marks]
  boxes = [
    _box(*center, radius * points, radius * points)
    for center, (*_, radius) in zip(centers, marks, strict=True)
  ]
  taken = []
  for (label, x, y, radius), center in zip(marks, centers, strict=True):
    if not label:
      continue
    text = axes.annotate(
      label, (x, y), (0, 0), textcoords='offset points', fontsize=8.5,
      ha='center', va='center', zorder=4, parse_math=False,
    )  # fmt: skip
    size = text.get_window_extent()
    half = size.width / 2, size.height / 2
    dx, dy, gap, angle = min(
      _places(radius * points, half, points),
      key=lambda place: _cost(place, center, half, taken, boxes, axes.bbox),
    )
    text.set_position((dx / points, dy / points))
    if gap >= _FAR:
      reach = radius + gap
      axes.annotate(
        '',
        (x, y),
        (reach * math.cos(angle), reach * math.sin(angle)),
        textcoords='offset points',
        arrowprops={'arrowstyle': '-', 'color': '0.5', 'linewidth': 0.6},
        zorder=1.8,
      )
    taken.append(_box(center[0] + dx, center[1] + dy, *half))


def _places(radius, half, points):
  """Yields offsets of a label from its disc's middle, in pixels, nearest first.

  Each comes with the gap between the two in points, and the direction.
  """
  for gap, step in itertools.product((2, 8, _FAR, 26), range(16)):
    angle = step * math.pi / 8
    reach = radius + gap * points
    dx = (reach + half[0]) * math.cos(angle)
    dy = (reach + half[1]) * math.sin(angle)
    yield dx, dy, gap, angle


def _cost(place, center, half, taken, boxes, inside) -> float:
  box = _box(center[0] + place[0], center[1] + place[1], *half)
  area = box.width * box.height
  kept = matplotlib.transforms.Bbox.intersection(box, inside)
  outside = area - (kept.width * kept.height if kept else 0)
  covered = sum(overlap(box, other) for other in taken)
  hidden = sum(overlap(box, other) for other in boxes)
  far = math.hypot(*place[:2]) / math.hypot(*half)
  return (20 * outside + 8 * covered + 3 * hidden) / area + 0.05 * far


def overlap(
  a: matplotlib.transforms.Bbox, b: matplotlib.transforms.Bbox
) -> float:
  """Returns the area that two boxes share.

  Args:
    a: one box.
    b: the other, in the same units.
  """
  both = matplotlib.transforms.Bbox.intersection(a, b)
  return both.width * both.height if both else 0.0


def _box(x, y, half_width, half_height):
  return matplotlib.transforms.Bbox.from_extents(
    x - half_width, y - half_height, x + half_width, y + half_height
  )
