"""Writes and prints the results of `mtnet eval`."""

import json
from collections.abc import Mapping

import rich.console
import rich.markup
import rich.table
from scipy import stats

from mtnet_jax import files, metrics
from mtnet_jax.errors import printable
from mtnet_jax.evaluation import plots
from mtnet_jax.evaluation.predictions import (
  Predictions,
  per_class,
  write_predictions,
)
from mtnet_jax.locations import Path
from mtnet_jax.runs import metric_writer


def write(
  predictions: Predictions, names: tuple[str, ...], workdir: Path
) -> None:
  """Writes `WORKDIR/evaluation`, and the training's curves beside it.

  The curves include the shares of open gates, if the network has gates.

  Args:
    predictions: the predictions of every video.
    names: the classes' names, by index.
    workdir: the run's folder.
  """
  matrix = metrics.confusion_matrix(
    predictions.predicted, predictions.labels, len(names)
  )
  records = metric_writer.read(workdir / 'metrics.jsonl')
  with files.writing_folder(workdir) as folder:
    directory = folder / 'evaluation'
    write_predictions(predictions, names, directory)
    plots.draw_confusion(matrix, names, directory / 'confusion.png')
    if records:
      plots.draw_curves(records, folder / 'curves.png')
    if any(plots.is_gate(name) for record in records for name in record):
      plots.draw_gates(records, folder / 'gates.png')


def show(
  predictions: Predictions,
  names: tuple[str, ...],
  workdir: Path,
  console: rich.console.Console | None = None,
) -> None:
  """Prints accuracies by class, what could not be scored, and the files.

  For networks with Class Regularisation it prints each stage's accuracy, too.
  """
  console = console or rich.console.Console(emoji=False)
  table = rich.table.Table('class', 'videos', 'top-1', 'top-5')
  for name, videos, *shares in per_class(predictions, names):
    table.add_row(
      rich.markup.escape(printable(name)),
      str(videos),
      *(f'{s:.1%}' for s in shares),
    )
  overall = [f'{predictions.accuracy(k):.1%}' for k in (1, 5)]
  table.add_section()
  table.add_row('all', str(len(predictions.ids)), *overall, style='bold')
  console.print(table)
  if predictions.early:
    by_layer = predictions.early_accuracy() | {
      'network': predictions.accuracy()
    }
    table = rich.table.Table('layer', 'top-1')
    for layer, share in by_layer.items():
      table.add_row(layer, f'{share:.1%}')
    console.print(table)
  if predictions.broken:
    console.print(f'Not scored, {len(predictions.broken)} videos:')
    for video, cause in predictions.broken.items():
      console.print(printable(f'  {video}: {cause}'), markup=False)
  for what, path in (
    ('predictions, accuracies, confusion', workdir / 'evaluation'),
    ('training curves', workdir / 'curves.png'),
    ('open gates', workdir / 'gates.png'),
    ('checkpoints', workdir / 'checkpoints'),
  ):
    if what == 'open gates' and not path.exists():
      continue  # the network has none
    line = printable(f'{what}: {path}')
    console.print(line, markup=False, highlight=False)


_FEW_TESTS = 30
# The figures that `controls.measure` returns, in words.
_CONTROLS = {
  'top1': 'the network, top-1',
  'chance': 'always the most frequent class',
  'trivial_cues': 'length, frame rate and size alone',
  'shuffled_top1': 'the network on shuffled frames, top-1',
  'pairs': 'which of two reversed classes',
  'shuffled_pairs': 'the same on shuffled frames (a guess: 50%)',
}


def write_controls(figures: Mapping[str, float], workdir: Path) -> None:
  """Writes `WORKDIR/evaluation/controls.json`.

  Args:
    figures: the figures from `controls.measure`.
    workdir: the run's folder.
  """
  path = workdir / 'evaluation' / 'controls.json'
  files.write_text(path, json.dumps(dict(figures), indent=2))


def show_controls(
  figures: Mapping[str, float], console: rich.console.Console | None = None
) -> None:
  """Prints the controls as a table.

  Args:
    figures: the figures from `controls.measure`.
    console: the console to print to; None: the terminal.
  """
  table = rich.table.Table('control', 'accuracy')
  for name, value in figures.items():
    table.add_row(_CONTROLS[name], f'{value:.1%}')
  (console or rich.console.Console()).print(table)


def verdict(predictions: Predictions) -> str:
  """Returns a sentence with the accuracy and its confidence interval.

  Args:
    predictions: the predictions of every video.
  """
  total = len(predictions.ids)
  right = round(predictions.accuracy(1) * total)
  low, high = stats.binomtest(right, total).proportion_ci(method='wilson')
  few = (
    f' {total} videos are too few to tell networks apart: hold out 30 or more.'
    if total < _FEW_TESTS
    else ''
  )
  return (
    f'{right} of {total} held-out videos are right, {right / total:.1%}: of '
    f'others like them {low:.0%} to {high:.0%} (95 % interval, Wilson).{few}'
  )
