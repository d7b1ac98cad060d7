"""What `eval.py` leaves behind and shows."""

import pathlib

import rich.console
import rich.markup
import rich.table

from mtnet_jax import evaluation, metric_writer, metrics
from mtnet_jax.analysis import plots
from mtnet_jax.evaluation import Predictions


def write(
  predictions: Predictions, names: tuple[str, ...], workdir: pathlib.Path
) -> None:
  """Writes `WORKDIR/evaluation`, and the training curves beside it.

  Args:
    predictions: of every video.
    names: of the classes, by index.
    workdir: of the run.
  """
  directory = workdir / 'evaluation'
  evaluation.write(predictions, names, directory)
  matrix = metrics.confusion_matrix(
    predictions.predicted, predictions.labels, len(names)
  )
  plots.draw_confusion(matrix, names, directory / 'confusion.png')
  records = metric_writer.read(workdir / 'metrics.jsonl')
  if records:
    plots.draw_curves(records, workdir / 'curves.png')


def show(
  predictions: Predictions,
  names: tuple[str, ...],
  workdir: pathlib.Path,
  console: rich.console.Console | None = None,
) -> None:
  """Prints accuracies by class, what could not be scored, and the files."""
  console = console or rich.console.Console()
  table = rich.table.Table('class', 'videos', 'top-1', 'top-5')
  for name, videos, *shares in evaluation.per_class(predictions, names):
    table.add_row(
      rich.markup.escape(name), str(videos), *(f'{s:.1%}' for s in shares)
    )
  overall = [f'{predictions.accuracy(k):.1%}' for k in (1, 5)]
  table.add_section()
  table.add_row('all', str(len(predictions.ids)), *overall, style='bold')
  console.print(table)
  if predictions.broken:
    console.print(f'Not scored, {len(predictions.broken)} videos:')
    for video, cause in predictions.broken.items():
      console.print(f'  {video}: {cause}', markup=False)
  for what, path in (
    ('predictions, accuracies, confusion', workdir / 'evaluation'),
    ('training curves', workdir / 'curves.png'),
    ('checkpoints', workdir / 'checkpoints'),
  ):
    console.print(f'{what}: {path}', markup=False, highlight=False)
