"""Lays out and draws the graph of a Class Feature Pyramid.

Layers are columns, in the order in which the network applies them; the class
stands at the right. A channel's node grows with its importance.
"""

import dataclasses
import pathlib

import matplotlib
import matplotlib.figure
import matplotlib.patches
import matplotlib.path
import matplotlib.patheffects
import numpy as np

from mtnet_jax.errors import printable
from mtnet_jax.explain import overlay
from mtnet_jax.explain.back_step import WHOLE_SET
from mtnet_jax.explain.class_feature_pyramids import Level, Pyramid

MOST_NODES = 16  # of a level: more are named by their number only

# The most nodes over all levels: lines, and the file, grow with the square.
_MOST_DRAWN = 128
_COLUMN, _ROW = 2.4, 0.3  # inches
_EDGE_COLORS = {'kernel': '#2b6cb0', 'residual': '#b45309'}
_SET_OFFSET = 0.16  # of a column: where the bracket of a whole set stands


@dataclasses.dataclass(frozen=True)
class Node:
  """A channel that is drawn.

  Attributes:
    channel: the channel's number in the layer.
    importance: the importance, in [0, 1].
    row: the node's row, from the top.
  """

  channel: int
  importance: float
  row: float


@dataclasses.dataclass(frozen=True)
class Column:
  """A level of the pyramid.

  Attributes:
    layer: the layer's name.
    num_channels: the number of channels that the layer has.
    num_kept: the number of channels that the pyramid keeps.
    nodes: the most important kept channels, from the top.
    more_row: the row of the number of nodes that are not drawn; None where all
      are.
    is_source: whether lines start from the whole set of channels.
  """

  layer: str
  num_channels: int
  num_kept: int
  nodes: tuple[Node, ...]
  more_row: float | None
  is_source: bool


@dataclasses.dataclass(frozen=True)
class Line:
  """An edge that is drawn.

  Attributes:
    level: the level of the column where it starts; -1 is the class.
    source: the channel that it starts from; `WHOLE_SET`: also the class;
      None: one of the channels that are not drawn.
    start: the row there.
    target: the channel of column `level + span` where it ends.
    end: the row there.
    importance: the importance, in [0, 1].
    via: 'kernel' or 'residual'.
    span: columns that it crosses.
  """

  level: int
  source: int | None
  start: float
  target: int
  end: float
  importance: float
  via: str = 'kernel'
  span: int = 1


@dataclasses.dataclass(frozen=True)
class Layout:
  """The places of nodes and lines in the picture.

  Attributes:
    columns: a level each, from the classes to the first.
    lines: the lines, from the least important to the most.
    num_rows: the rows of the highest column.
  """

  columns: tuple[Column, ...]
  lines: tuple[Line, ...]
  num_rows: int

  @property
  def middle(self) -> float:
    """The row of the class, and of lines that a whole set sends."""
    return (self.num_rows - 1) / 2


def layout(pyramid: Pyramid, most_nodes: int = MOST_NODES) -> Layout:
  """Places the most important channels of each level.

  Args:
    pyramid: levels, and the edges between them.
    most_nodes: the most nodes of a level, ≥ 1. A line from another channel
      starts at the number of these; one to another channel is left out.
  """
  heights = [
    min(len(level.importance), most_nodes)
    + (len(level.importance) > most_nodes)
    for level in pyramid.levels
  ]
  num_rows = max([1, *heights])
  sources = {edge.level for edge in pyramid.edges if edge.source == WHOLE_SET}
  columns = tuple(
    _place_column(level, (num_rows - height) / 2, most_nodes, index in sources)
    for index, (level, height) in enumerate(
      zip(pyramid.levels, heights, strict=True)
    )
  )
  lines = _place_lines(pyramid, columns, (num_rows - 1) / 2)
  return Layout(columns, lines, num_rows)


def _place_column(
  level: Level,
  first_row: float,
  most_nodes: int,
  is_source: bool,
) -> Column:
  ranked = sorted(level.importance.items(), key=lambda item: -item[1])
  nodes = tuple(
    Node(int(channel), float(importance), first_row + place)
    for place, (channel, importance) in enumerate(ranked[:most_nodes])
  )
  more_row = first_row + most_nodes if len(ranked) > most_nodes else None
  return Column(
    level.layer, level.num_channels, len(ranked), nodes, more_row, is_source
  )


def _place_lines(
  pyramid: Pyramid,
  columns: tuple[Column, ...],
  middle: float,
) -> tuple[Line, ...]:
  rows = [{n.channel: n.row for n in column.nodes} for column in columns]
  lines = [
    Line(-1, WHOLE_SET, middle, n.channel, n.row, n.importance)
    for n in (columns[0].nodes if columns else ())
  ]
  merged = {}  # of the channels that are not drawn, the most important
  for edge in pyramid.edges:
    ends = rows[edge.level + edge.span]
    if edge.target not in ends:
      continue
    places = {WHOLE_SET: middle} | rows[edge.level]
    is_drawn = edge.source in places
    start = places.get(edge.source, columns[edge.level].more_row)
    line = Line(
      edge.level,
      edge.source if is_drawn else None,
      start,
      edge.target,
      ends[edge.target],
      float(np.clip(edge.importance, 0, 1)),
      edge.via,
      edge.span,
    )
    key = (line.level, start, line.target, line.via, line.span)
    if key not in merged or merged[key].importance < line.importance:
      merged[key] = line
  lines += merged.values()
  return tuple(sorted(lines, key=lambda line: line.importance))


def draw(
  pyramid: Pyramid,
  class_name: str,
  path: str | pathlib.Path,
) -> None:
  """Draws a pyramid's graph: up to 16 nodes a level, and 128 in all.

  Args:
    pyramid: levels, and the edges between them.
    class_name: the name of the class that it explains.
    path: the PNG to write.

  Raises:
    UserError: the file cannot be written.
  """
  share = _MOST_DRAWN // max(len(pyramid.levels), 1)
  placed = layout(pyramid, min(MOST_NODES, max(share, 1)))
  num_columns = len(placed.columns) + 1
  size = _COLUMN * num_columns, _ROW * (placed.num_rows + 5)
  figure = matplotlib.figure.Figure(size, layout='constrained')
  axes = figure.add_subplot()
  axes.set_axis_off()
  axes.set_xlim(-0.5, num_columns - 0.5)
  axes.set_ylim(placed.num_rows + 0.6, -3.2)
  _draw_lines(axes, placed)
  for level, column in enumerate(placed.columns):
    _draw_column(axes, column, len(placed.columns) - 1 - level)
  _draw_class(axes, class_name, len(placed.columns), placed.middle)
  how = 'per channel' if pyramid.mode == 'feature' else 'per layer'
  axes.text(
    -0.45,
    placed.num_rows + 0.2,
    f'Steps back {how}, θ = {pyramid.threshold:g}. Larger: more important. '
    'Dashed: residual.',
    fontsize=8,
    color='0.35',
    parse_math=False,
  )
  overlay.save_figure(figure, path, dpi=150)


def _draw_lines(axes, placed: Layout) -> None:
  last = len(placed.columns) - 1
  for line in placed.lines:
    x = last - line.level
    from_set = line.level >= 0 and line.source == WHOLE_SET
    axes.add_patch(
      _curve(
        (x - (_SET_OFFSET if from_set else 0), line.start),
        (x - line.span, line.end),
        # The bow passes the nodes between: a curve reaches 3/4 of this.
        bow=2 / 3 * (line.span - 1),
        color=_EDGE_COLORS[line.via],
        linestyle='--' if line.via == 'residual' else '-',
        linewidth=0.5 + 1.5 * line.importance,
        alpha=0.1 + 0.6 * line.importance**2,
      )
    )


def _curve(start, end, bow: float, **style) -> matplotlib.patches.PathPatch:
  """Returns a line; it bows upwards past the nodes of columns between."""
  (x0, y0), (x1, y1) = start, end
  bend = (x0 + x1) / 2
  path = matplotlib.path.Path(
    [(x0, y0), (bend, y0 - bow), (bend, y1 - bow), (x1, y1)], [1, 4, 4, 4]
  )
  return matplotlib.patches.PathPatch(path, fill=False, **style)


def _draw_column(axes, column: Column, x: int) -> None:
  importance = np.array([node.importance for node in column.nodes])
  rows = [node.row for node in column.nodes]
  blues = matplotlib.colormaps['Blues'](0.3 + 0.65 * importance)
  axes.scatter(
    np.full(len(rows), x),
    rows,
    s=20 + 130 * importance,
    c=blues,
    edgecolors='white',
    linewidths=0.8,
    zorder=3,
  )
  # Lines pass behind the numbers.
  halo = [matplotlib.patheffects.withStroke(linewidth=2.5, foreground='white')]
  style = {'va': 'center', 'parse_math': False, 'path_effects': halo}
  for node in column.nodes:
    axes.text(x + 0.09, node.row, str(node.channel), fontsize=7.5, **style)
  if column.more_row is not None:
    text = f'+ {column.num_kept - len(column.nodes)} more'
    axes.text(x - 0.06, column.more_row, text, fontsize=8, **style)
  if column.is_source and rows:
    ends = min(rows) - 0.4, max([*rows, column.more_row or 0]) + 0.4
    axes.plot([x - _SET_OFFSET] * 2, ends, color=_EDGE_COLORS['kernel'], lw=1.2)
  _draw_heading(axes, column.layer, x)
  counts = f'{column.num_kept} of {column.num_channels} channels'
  axes.text(x, -1.1, counts, fontsize=8, color='0.35', ha='center')


def _draw_heading(axes, name: str, x: int) -> None:
  """Writes a name; one too long for its column loses its middle."""
  name, room = printable(name), 26
  if len(name) > room:
    name = name[: room // 2] + '…' + name[-(room // 2) :]
  style = {'ha': 'center', 'fontsize': 9, 'weight': 'bold'}
  axes.text(x, -1.9, name, parse_math=False, **style)


def _draw_class(axes, class_name: str, x: int, row: float) -> None:
  axes.scatter([x], [row], s=180, c='black', zorder=3)
  _draw_heading(axes, class_name, x)
  axes.text(x, -1.1, 'class', fontsize=8, color='0.35', ha='center')
