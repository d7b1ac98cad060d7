"""Rows of benchmarks: ratios, the table, and the file."""

import json
import os

import pytest

from benchmarks import results
from benchmarks.measure import Timing


def _row(**fields):
  row = {
    'work': 'x3d_m train step',
    'shape': '1×16×224²',
    'precision': 'float32',
    'ours': Timing(0.5, 0.25, 0.75, 7),
    'unit': 's',
    'peers': {'PyTorch': Timing(1.25, 1.0, 1.5, 7), 'limit': 0.25},
    'goals': {'PyTorch': 2.0, 'limit': 0.75},
  }
  return results.Row(**row | fields)


def test_ratios_by_hand():
  assert results.ratios(_row()) == {'PyTorch': 2.5, 'limit': 0.5}
  assert results.ratios(_row(ours=2.0, peers={'a': 1.0})) == {'a': 0.5}


def test_table():
  memory = _row(
    work='memory', ours=3 * 2**30, unit='bytes', peers={}, note='of one step'
  )
  lines = results.table([_row(), memory]).splitlines()
  assert lines[2:] == [
    '| x3d_m train step | 1×16×224² | float32 | 500 ms (250–750) | PyTorch '
    '| 1.25 s (1.00–1.50) | 2.50 | ≥ 2, met |  |',
    '|  |  |  |  | limit | 250 ms | 0.50 | ≥ 0.75, missed |  |',
    '| memory | 1×16×224² | float32 | 3,072 MiB |  |  |  |  | of one step |',
  ]


def test_file_has_all_that_the_figures_depend_on(tmp_path):
  path = results.write([_row()], 'Some CPU (R), 2 cores', 'a command', tmp_path)
  content = json.loads(path.read_text())
  assert path.name == f'{content["date"]}-some-cpu-r-2-cores.json'
  assert content['device'] == 'Some CPU (R), 2 cores'
  assert content['cores'] == len(os.sched_getaffinity(0))
  assert {'python', 'jax', 'jaxlib'} <= content['versions'].keys()
  (row,) = content['rows']
  assert row['command'] == 'a command'
  assert row['ours'] == {'median': 0.5, 'low': 0.25, 'high': 0.75, 'runs': 7}
  assert row['peers']['limit'] == 0.25
  assert row['goals'] == {'PyTorch': 2.0, 'limit': 0.75}
  assert row['ratios'] == {'PyTorch': 2.5, 'limit': 0.5}


def test_rows_of_a_day_add_up(tmp_path):
  other = _row(shape='2×4×112²')
  results.write([_row(), other], 'gpu', 'first', tmp_path)
  path = results.write([_row(ours=0.1)], 'gpu', 'second', tmp_path)
  results.write([_row()], 'another', 'third', tmp_path)
  first, second = json.loads(path.read_text())['rows']
  assert (first['ours'], first['command']) == (0.1, 'second')
  assert (second['shape'], second['command']) == ('2×4×112²', 'first')


def test_a_failure_leaves_the_earlier_file(tmp_path):
  path = results.write([_row()], 'gpu', 'first', tmp_path)
  before = path.read_text()
  with pytest.raises(ValueError, match='JSON'):
    results.write([_row(ours=float('nan'))], 'gpu', 'second', tmp_path)
  assert path.read_text() == before
  assert [file.name for file in tmp_path.iterdir()] == [path.name]
