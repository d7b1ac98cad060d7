"""A network's predictions for the videos of a split, and their accuracy."""

import csv
import dataclasses
import json
import pathlib

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.typing import Float, Int


@dataclasses.dataclass(frozen=True)
class Predictions:
  """The output of a model for each video of a split.

  Attributes:
    ids: `(n,)` names of the videos that could be scored.
    labels: `(n,)` their true classes, 0 to k - 1.
    probabilities: `(n, k)` float32, averaged over the views; rows sum to 1.
    broken: the videos that could not be scored and why, by id.
    early: the `(n,)` classes that Class Regularisation picks, by stage, if any.
  """

  ids: np.ndarray
  labels: Int[np.ndarray, ' n']
  probabilities: Float[np.ndarray, 'n k']
  broken: dict[str, str]
  early: dict[str, Int[np.ndarray, ' n']] = dataclasses.field(
    default_factory=dict
  )

  @property
  def predicted(self) -> Int[np.ndarray, ' n']:
    """The class with the highest probability; the lowest index among equals."""
    return self.probabilities.argmax(axis=1)

  def accuracy(self, k: int = 1) -> float:
    """Returns the share of videos whose class is among the k likeliest."""
    correct = metrics.top_k_correct(self.probabilities, self.labels, k)
    return float(correct.mean())

  def early_accuracy(self) -> dict[str, float]:
    """Returns the top-1 accuracy of the early predictions of each stage."""
    return {
      stage: float((chosen == self.labels).mean())
      for stage, chosen in self.early.items()
    }


def write_predictions(
  predictions: Predictions, names: tuple[str, ...], directory: pathlib.Path
) -> None:
  """Writes `predictions.npz`, `per_class.csv` and `summary.json`.

  Args:
    predictions: the predictions of every video.
    names: the classes' names, by index.
    directory: made if need be.
  """
  directory.mkdir(parents=True, exist_ok=True)
  np.savez(
    directory / 'predictions.npz',
    ids=predictions.ids,
    labels=predictions.labels,
    probabilities=predictions.probabilities,
    **{f'early_{stage}': chosen for stage, chosen in predictions.early.items()},
  )
  path = directory / 'per_class.csv'
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(['class', 'videos', 'top1', 'top5'])
    for name, videos, top1, top5 in per_class(predictions, names):
      writer.writerow([name, videos, f'{top1:.4f}', f'{top5:.4f}'])
  summary = {
    'top1': predictions.accuracy(1),
    'top5': predictions.accuracy(5),
    'early_top1': predictions.early_accuracy(),
    'videos': len(predictions.ids),
    'not_scored': predictions.broken,
  }
  (directory / 'summary.json').write_text(json.dumps(summary, indent=2))


def per_class(
  predictions: Predictions, names: tuple[str, ...]
) -> list[tuple[str, int, float, float]]:
  """Returns rows `(class, videos, top-1, top-5)` of classes with videos."""
  rows = []
  for index, name in enumerate(names):
    own = predictions.labels == index
    if own.any():
      scores = predictions.probabilities[own], predictions.labels[own]
      shares = [float(metrics.top_k_correct(*scores, k).mean()) for k in (1, 5)]
      rows.append((name, int(own.sum()), *shares))
  return rows
