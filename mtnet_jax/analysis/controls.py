"""Controls: what accuracy is left without what it ought to rest on.

A classifier that never looks at a picture tells what the files give away by
their length, frame rate and size. The trained network on clips whose frames are
shuffled tells what it gets from single frames.
"""

import itertools
import pathlib
from collections.abc import Sequence

import ml_collections
import numpy as np

from mtnet_jax import evaluation
from mtnet_jax.data import sources
from mtnet_jax.data.video import VideoError, VideoReader
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import Predictions
from mtnet_jax.progress import Progress
from mtnet_jax.typing import Float, Int

# More say no more, and opening them takes its time.
_MOST_VIDEOS = 2_000
_WIDTHS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # in standard deviations of a cue


def measure(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  checkpoint: str,
  predictions: Predictions,
  names: tuple[str, ...],
) -> dict[str, float]:
  """Measures all controls of an evaluated run.

  Args:
    config: of the run; `eval.reversed_pairs` names the classes that are each
      other's reversal in time.
    workdir: of the run.
    checkpoint: 'best' or 'last', as `predictions` were made with.
    predictions: of the frames in order.
    names: of the classes, by index.

  Returns:
    Shares of videos in [0, 1]: `top1`; `chance`, of the most frequent class;
    `trivial_cues`; `shuffled_top1`; and, where there are reversed pairs,
    `pairs` and `shuffled_pairs`, see `pair_accuracy`.

  Raises:
    UserError: as `evaluation.evaluate`, or a pair names an unknown class.
  """
  pairs = _find_pairs(config.eval.reversed_pairs, names)
  shuffled, _ = evaluation.evaluate(
    config, workdir, checkpoint, shuffle_frames=True
  )
  train, test = (
    _read_cues(config.data.dir, split) for split in ('train', config.eval.split)
  )
  figures = {
    'top1': predictions.accuracy(1),
    'chance': float(np.bincount(predictions.labels).max())
    / len(predictions.ids),
    'trivial_cues': classify_cues(*train, *test),
    'shuffled_top1': shuffled.accuracy(1),
  }
  if pairs:
    figures['pairs'] = pair_accuracy(predictions, pairs)
    figures['shuffled_pairs'] = pair_accuracy(shuffled, pairs)
  return figures


def pair_accuracy(
  predictions: Predictions, pairs: Sequence[tuple[int, int]]
) -> float:
  """Returns how often the right one of two classes is the more probable one.

  Only videos of these pairs count, and only the two probabilities of a video's
  own pair: someone who knows the pair and guesses the direction has 1/2. Equal
  probabilities count half.

  Args:
    predictions: of every video.
    pairs: indices of classes; none is in two pairs.

  Raises:
    UserError: there is no video of these classes.
  """
  other = dict(itertools.chain(pairs, (pair[::-1] for pair in pairs)))
  scores = []
  for label, row in zip(
    predictions.labels.tolist(), predictions.probabilities, strict=True
  ):
    if label in other:
      own, opposite = row[label], row[other[label]]
      scores.append((own > opposite) + 0.5 * (own == opposite))
  if not scores:
    raise UserError(
      'No video of eval.reversed_pairs could be scored. Leave the key empty, '
      'or name classes of the split that is evaluated.'
    )
  return float(np.mean(scores))


def classify_cues(
  cues: Float[np.ndarray, 'n d'],
  labels: Int[np.ndarray, ' n'],
  test_cues: Float[np.ndarray, 'm d'],
  test_labels: Int[np.ndarray, ' m'],
) -> float:
  """Returns the test accuracy of a kernel density classifier.

  A class's density at a point is the sum of Gaussians around its training
  videos; the width is the one that, on the training videos, tells each from all
  the others best.

  Args:
    cues: numbers that say something about each training video.
    labels: their classes, 0 and up.
    test_cues: the same numbers of the test videos.
    test_labels: their classes.
  """
  mean, spread = cues.mean(axis=0), cues.std(axis=0)
  spread = np.where(spread > 0, spread, 1)
  train, test = ((c - mean) / spread for c in (cues, test_cues))
  own = _squared_distances(train, train)
  np.fill_diagonal(own, np.inf)
  accuracies = {
    width: (_densest(own, labels, width) == labels).mean() for width in _WIDTHS
  }
  width = max(accuracies, key=accuracies.get)
  between = _squared_distances(test, train)
  return float((_densest(between, labels, width) == test_labels).mean())


def _densest(distances, labels, width):
  """The class with the highest density at each point, `(m,)`."""
  # Relative to the nearest: far from everything all densities are zero.
  exponent = -(distances - distances.min(axis=1, keepdims=True))
  weights = np.exp(exponent / (2 * width**2))
  return (weights @ np.eye(labels.max() + 1)[labels]).argmax(axis=1)


def _squared_distances(a, b):
  return np.square(a[:, None] - b[None]).sum(axis=-1)


def _read_cues(directory, split) -> tuple[np.ndarray, np.ndarray]:
  """Logarithms of length, frame rate and size, and the classes.

  Of a large split, videos evenly spread over it stand for all of them.
  """
  source = sources.open_source(directory, split)
  count = min(len(source), _MOST_VIDEOS)
  rows, labels = [], []
  with Progress(f'sizes of {split}', count, 'videos') as progress:
    for index in np.linspace(0, len(source) - 1, count).round().astype(int):
      example = source[index]
      progress.advance()
      try:
        with VideoReader(example.video, example.start, example.end) as video:
          frames, size = video.num_frames, (video.width, video.height)
          cues = frames, video.fps, frames / video.fps, *size, size[0] / size[1]
      except VideoError:
        continue  # the evaluation has named it
      rows.append(np.log(cues))
      labels.append(example.label)
  if not rows:
    raise UserError(f'No video of split {split!r} in {directory} can be read.')
  return np.array(rows), np.array(labels)


def _find_pairs(
  pairs: Sequence[Sequence[str]], names: tuple[str, ...]
) -> list[tuple[int, int]]:
  for pair in pairs:
    if len(pair) != 2 or not set(pair) <= set(names):
      raise UserError(
        f'eval.reversed_pairs has {tuple(pair)!r}: each must be two classes of '
        f'the data, which are {", ".join(names)}.'
      )
  return [(names.index(first), names.index(second)) for first, second in pairs]
