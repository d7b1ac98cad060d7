"""Every kept channel has its place, and lines say where they come from."""

import cv2
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.explain import graph_drawing
from mtnet_jax.explain.class_feature_pyramids import Edge, Level, Pyramid
from mtnet_jax.explain.graph_drawing import Line, Node
from tests.explain.example import HOSTILE, make_pyramid


def _pyramid(edges, mode='feature'):
  levels = (
    Level('last', 8, {5: 1.0, 2: 0.7}),
    Level('middle', 16, {9: 0.9, 1: 0.8, 4: 0.6, 7: 0.5}),
    Level('first', 4, {3: 1.0}),
  )
  return Pyramid(0, 0.6, mode, levels, tuple(edges))


def test_columns_hold_the_most_important_and_stand_in_the_middle():
  placed = graph_drawing.layout(_pyramid([]), most_nodes=2)
  last, middle, first = placed.columns
  assert placed.num_rows == 3  # two nodes and the number of the others
  assert last.nodes == (Node(5, 1.0, 0.5), Node(2, 0.7, 1.5))
  assert middle.nodes == (Node(9, 0.9, 0), Node(1, 0.8, 1))
  assert (middle.more_row, middle.num_kept, middle.num_channels) == (2, 4, 16)
  assert first.nodes == (Node(3, 1.0, 1),)
  assert last.more_row is first.more_row is None
  assert placed.middle == 1


def test_the_least_important_drawn_channel_is_no_number_of_others():
  (_, middle, _) = graph_drawing.layout(_pyramid([]), most_nodes=4).columns
  assert len(middle.nodes) == 4 and middle.more_row is None


def test_lines_of_a_tree():
  edges = [
    Edge(0, 5, 1, 0.4),
    Edge(0, 2, 9, 0.3),
    Edge(0, 5, 3, 0.2, 'residual', span=2),
    Edge(1, 4, 3, 0.5),
    Edge(1, 7, 3, 0.6),  # neither source is drawn: one line for both
    Edge(0, 5, 7, 0.9),  # the target is not drawn
  ]
  placed = graph_drawing.layout(_pyramid(edges), most_nodes=2)
  assert placed.lines == (
    Line(0, 5, 0.5, 3, 1, 0.2, 'residual', 2),
    Line(0, 2, 1.5, 9, 0, 0.3),
    Line(0, 5, 0.5, 1, 1, 0.4),
    Line(1, None, 2, 3, 1, 0.6),
    Line(-1, -1, 1, 2, 1.5, 0.7),
    Line(-1, -1, 1, 5, 0.5, 1.0),
  )
  assert not any(column.is_source for column in placed.columns)


def test_a_whole_set_sends_lines_from_the_middle():
  edges = [Edge(0, -1, 9, 0.4), Edge(0, -1, 1, 0.3)]
  placed = graph_drawing.layout(_pyramid(edges, 'layer'))
  assert [column.is_source for column in placed.columns] == [True, False, False]
  assert placed.lines[:2] == (
    Line(0, -1, 1.5, 1, 1, 0.3),
    Line(0, -1, 1.5, 9, 0, 0.4),
  )


def test_a_level_without_channels_has_a_column():
  levels = (Level('last', 8, {5: 1.0}), Level('first', 4, {}))
  placed = graph_drawing.layout(Pyramid(0, 0.6, 'layer', levels, ()))
  assert placed.columns[1].nodes == () and placed.num_rows == 1


@pytest.mark.parametrize('mode', ['feature', 'layer'])
def test_fifty_channels_a_level_are_readable(tmp_path, mode):
  path = tmp_path / 'new' / 'a.png'
  graph_drawing.draw(make_pyramid(50, mode), 'wave', path)
  picture = cv2.imread(str(path))
  # 16 nodes and the number of the others, each in more than 40 pixels.
  assert picture.shape[0] > 17 * 40
  assert 1200 < picture.shape[1] < 2000
  assert (picture < 250).any(axis=2).mean() > 0.02


def test_importance_makes_nodes_larger(tmp_path):
  inks = []
  for i, importance in enumerate((0.1, 1.0)):
    pyramid = Pyramid(0, 0.6, 'layer', (Level('a', 4, {3: importance}),), ())
    graph_drawing.draw(pyramid, 'wave', tmp_path / f'{i}.png')
    picture = cv2.imread(str(tmp_path / f'{i}.png')).astype(int)
    left = picture[:, : picture.shape[1] * 3 // 10]
    blue = left[..., 0] - left[..., 2] > 30
    inks.append(np.count_nonzero(blue))
  assert inks[1] > 2 * inks[0] > 0


@pytest.mark.parametrize(
  'name', [HOSTILE, 'a' * 300, '$\\frac$', '', '波\u202e\n']
)
def test_any_name_can_be_drawn(tmp_path, name):
  pyramid = Pyramid(0, 0.6, 'layer', (Level(name, 4, {3: 0.5}),), ())
  graph_drawing.draw(pyramid, name, tmp_path / 'a.png')
  assert (tmp_path / 'a.png').stat().st_size > 1000


def test_many_levels_make_a_small_file(tmp_path):
  # Every kept channel depends on every other: 16 a level would be 7 MB.
  importance = {c: 1 - 0.01 * c for c in range(20)}
  levels = tuple(Level(f'layer_{i}', 64, importance) for i in range(20))
  edges = tuple(
    Edge(level, source, target, 0.9)
    for level in range(19)
    for source in importance
    for target in importance
  )
  path = tmp_path / 'a.png'
  graph_drawing.draw(Pyramid(20, 0.6, 'feature', levels, edges), 'wave', path)
  assert path.stat().st_size < 2_500_000


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('not a folder')
  with pytest.raises(UserError, match='cannot be written'):
    graph_drawing.draw(make_pyramid(2), 'wave', tmp_path / 'file' / 'a.png')
