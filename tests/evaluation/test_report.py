"""What a person sees after an evaluation."""

import dataclasses
import io
import json

import cv2
import numpy as np
import rich.console

from mtnet_jax.evaluation import plots, predictions_file, report
from mtnet_jax.evaluation.predictions import Predictions
from mtnet_jax.locations import as_path

_PREDICTIONS = Predictions(
  ids=np.array(['a', 'b', 'c']),
  labels=np.array([0, 1, 1]),
  probabilities=np.array([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]]),
  broken={'d/[red].mp4': 'no video stream'},
)
_NAMES = ('hug', '[bold]kick')


def test_table_names_every_class_and_what_was_not_scored(tmp_path):
  text = io.StringIO()
  console = rich.console.Console(file=text, width=200)
  report.show(_PREDICTIONS, _NAMES, tmp_path, console)
  lines = text.getvalue().splitlines()
  assert any('hug' in line and '100.0%' in line for line in lines)
  # A name is shown as it is, not taken for markup.
  assert any('[bold]kick' in line and '50.0%' in line for line in lines)
  assert any('all' in line and '66.7%' in line for line in lines)
  assert '  d/[red].mp4: no video stream' in lines
  assert any(str(tmp_path / 'evaluation') in line for line in lines)
  assert 'gates' not in text.getvalue()  # this network has none


def test_early_predictions_by_layer(tmp_path):
  early = {'stage_1': np.array([1, 0, 0]), 'stage_2': np.array([0, 0, 1])}
  text = io.StringIO()
  console = rich.console.Console(file=text, width=200)
  predictions = dataclasses.replace(_PREDICTIONS, early=early)
  report.show(predictions, _NAMES, tmp_path, console)
  rows = [line.strip('│ ').split('│') for line in text.getvalue().splitlines()]
  shares = dict([cell.strip() for cell in row] for row in rows if len(row) == 2)
  assert shares == {'stage_1': '0.0%', 'stage_2': '66.7%', 'network': '66.7%'}


def test_files(tmp_path, bucket):
  for workdir in (tmp_path, as_path(bucket)):
    report.write(_PREDICTIONS, _NAMES, workdir)
    report.write_controls({'top1': 0.5}, workdir)
    names = {path.name for path in (workdir / 'evaluation').iterdir()}
    assert names == {
      'confusion.png', 'controls.json', 'per_class.csv', 'predictions.npz',
      'summary.json',
    }  # fmt: skip
    assert not (workdir / 'curves.png').exists()  # nothing was trained here
    assert not (workdir / 'gates.png').exists()
    found = predictions_file.read(workdir / 'evaluation/predictions.npz')
    assert (found.probabilities == _PREDICTIONS.probabilities).all()


def test_names_are_no_formulas(tmp_path):
  path = tmp_path / 'c.png'
  plots.draw_confusion(np.eye(2, dtype=int), ('a$\\frac$', 'b$'), path)
  assert path.stat().st_size > 1_000


def test_confusion_darkens_with_the_share(tmp_path):
  pale, dark = tmp_path / 'pale.png', tmp_path / 'dark.png'
  plots.draw_confusion(np.array([[1, 9], [9, 1]]), ('a', 'b'), pale)
  plots.draw_confusion(np.array([[9, 1], [9, 1]]), ('a', 'b'), dark)
  one, other = (cv2.imread(str(path)).astype(int) for path in (pale, dark))
  assert one.shape == other.shape
  changed = np.argwhere(np.abs(one - other).max(axis=2) > 60)
  # Only the first row of cells differs; it lies in the upper half.
  assert len(changed) > 1_000
  assert changed[:, 0].max() < 0.55 * one.shape[0]


def test_curves_are_drawn_from_any_records(tmp_path):
  records = [
    {'step': 10, 'train/loss': 2.0, 'train/top1': 0.1},
    {'step': 20, 'val/top1': 0.3},
  ]
  plots.draw_curves(records, tmp_path / 'curves.png')
  assert cv2.imread(str(tmp_path / 'curves.png')).std() > 5


def test_controls_are_written_and_shown(tmp_path):
  figures = {'top1': 0.9, 'trivial_cues': 0.0625, 'shuffled_pairs': 0.5}
  (tmp_path / 'evaluation').mkdir()
  report.write_controls(figures, tmp_path)
  path = tmp_path / 'evaluation/controls.json'
  assert json.loads(path.read_text()) == figures
  text = io.StringIO()
  report.show_controls(figures, rich.console.Console(file=text, width=120))
  lines = text.getvalue().splitlines()
  assert any('size alone' in line and '6.2%' in line for line in lines)
  assert any('shuffled' in line and '50.0%' in line for line in lines)


def test_gates_are_drawn_where_there_are_any(tmp_path):
  blocks = [f'train/gate_open/stage_1_block_{i}' for i in range(1, 12)]
  for step in (1, 2, 3):
    record = {'step': step, 'train/loss': 2.0}
    record |= {name: 1 / (i + step) for i, name in enumerate(blocks)}
    with (tmp_path / 'metrics.jsonl').open('a') as file:
      file.write(json.dumps(record) + '\n')
  report.write(_PREDICTIONS, _NAMES, tmp_path)
  image = cv2.imread(str(tmp_path / 'gates.png')).astype(int)
  # A color a block, from violet to yellow.
  blue, green, red = (image[..., i] for i in range(3))
  assert ((red > 200) & (green > 200) & (blue < 120)).any()
  assert ((red < 90) & (green < 30) & (blue > 60)).any()
  text = io.StringIO()
  console = rich.console.Console(file=text, width=200)
  report.show(_PREDICTIONS, _NAMES, tmp_path, console)
  assert str(tmp_path / 'gates.png') in text.getvalue()
