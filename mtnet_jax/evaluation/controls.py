"""Controls: the accuracy without the evidence that it should rest on.

A classifier that never looks at a picture shows what the files reveal by their
length, frame rate and size. The trained network on clips with shuffled frames
shows what it gets from single frames.
"""

import itertools
import pathlib
from collections.abc import Sequence

import ml_collections
import numpy as np
from absl import logging

from mtnet_jax.data import sources
from mtnet_jax.data.batches import open_clip
from mtnet_jax.data.video import VideoError
from mtnet_jax.errors import UserError, first_causes
from mtnet_jax.evaluation import scoring
from mtnet_jax.evaluation.predictions import Predictions
from mtnet_jax.progress import Progress
from mtnet_jax.typing import Float, Int

# More videos would not change the result, and take time to open.
_MOST_VIDEOS = 2_000
_WIDTHS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # in standard deviations of a cue


def check(config: ml_collections.ConfigDict, names: Sequence[str] = ()) -> None:
  """Raises a UserError where `measure` would fail after all its work.

  Args:
    config: the run's configuration.
    names: the run's classes; none: those of the data.

  Raises:
    UserError: there are no training videos, or `eval.reversed_pairs` is wrong.
  """
  data = config.data.dir
  sources.open_source(data, 'train')
  source = sources.open_source(data, config.eval.split)
  _find_pairs(config.eval.reversed_pairs, tuple(names) or source.labels)


def measure(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  checkpoint: str,
  predictions: Predictions,
  names: tuple[str, ...],
) -> dict[str, float]:
  """Measures all controls of an evaluated run.

  Args:
    config: the run's configuration; `eval.reversed_pairs` names the classes
      that are each other's reversal in time. Pairs of other data are left out.
    workdir: the run's folder.
    checkpoint: 'best' or 'last', as `predictions` were made with.
    predictions: the predictions on the frames in order.
    names: the classes' names, by index.

  Returns:
    Shares of videos in [0, 1]: `top1`; `chance`, of the most frequent class;
    `trivial_cues`; `shuffled_top1`; and, where videos of reversed pairs were
    scored, `pairs` and `shuffled_pairs`, see `pair_accuracy`.

  Raises:
    UserError: what `check` and `scoring.evaluate` raise.
  """
  pairs = _find_pairs(config.eval.reversed_pairs, names)
  shuffled, _ = scoring.evaluate(
    config, workdir, checkpoint, shuffle_frames=True
  )
  train, test = (
    _read_cues(config.data.dir, split, config.data.frames_per_second)
    for split in ('train', config.eval.split)
  )
  most_frequent = np.bincount(predictions.labels).max()
  figures = {
    'top1': predictions.accuracy(1),
    'chance': float(most_frequent / len(predictions.labels)),
    'trivial_cues': classify_cues(*train, *test),
    'shuffled_top1': shuffled.accuracy(1),
  }
  if np.isin(predictions.labels, pairs).any():
    figures['pairs'] = pair_accuracy(predictions, pairs)
    figures['shuffled_pairs'] = pair_accuracy(shuffled, pairs)
  return figures


def pair_accuracy(
  predictions: Predictions, pairs: Sequence[tuple[int, int]]
) -> float:
  """Returns how often the right one of two classes is the likelier one.

  Only videos of these pairs count, and only the two probabilities of a video's
  own pair: knowing the pair and guessing the direction gives 1/2. Equal
  probabilities count half.

  Args:
    predictions: the predictions of every video, one of these classes at least.
    pairs: indices of classes; none is in two pairs.
  """
  other = dict(itertools.chain(pairs, (pair[::-1] for pair in pairs)))
  scores = []
  for label, row in zip(
    predictions.labels.tolist(), predictions.probabilities, strict=True
  ):
    if label in other:
      own, opposite = row[label], row[other[label]]
      scores.append((own > opposite) + 0.5 * (own == opposite))
  return float(np.mean(scores))


def classify_cues(
  cues: Float[np.ndarray, 'n d'],
  labels: Int[np.ndarray, ' n'],
  test_cues: Float[np.ndarray, 'm d'],
  test_labels: Int[np.ndarray, ' m'],
) -> float:
  """Returns the test accuracy of a kernel density classifier.

  A class's density at a point is the sum of Gaussians around its training
  videos; their width is the one that best classifies each training video by all
  the others.

  Args:
    cues: numbers that say something about each training video.
    labels: the videos' classes, 0 and up.
    test_cues: the same numbers of the test videos.
    test_labels: the test videos' classes.
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
  """Returns the class with the highest density at each point, `(m,)`."""
  # Distances are relative to the nearest: far from everything all densities are
  # zero.
  exponent = -(distances - distances.min(axis=1, keepdims=True))
  weights = np.exp(exponent / (2 * width**2))
  return (weights @ np.eye(labels.max() + 1)[labels]).argmax(axis=1)


def _squared_distances(a, b):
  # Cues are added one at a time: all at once take as much memory again for
  # each.
  cues = zip(a.T, b.T, strict=True)
  return sum(np.square(x[:, None] - y[None]) for x, y in cues)


def _read_cues(directory, split, fps=None) -> tuple[np.ndarray, np.ndarray]:
  """Returns logarithms of length, frame rate and size, and the classes.

  In a large split, videos evenly spread over it stand for all.
  """
  source = sources.open_source(directory, split, fps)
  count = min(len(source), _MOST_VIDEOS)
  rows, labels, broken = [], [], []
  with Progress(f'sizes of {split}', count, 'videos') as progress:
    for index in np.linspace(0, len(source) - 1, count).round().astype(int):
      progress.advance()
      example = None
      try:
        example = source[index]
        with open_clip(example) as video:
          frames, seconds = video.num_frames, video.times[-1]
          size = video.width, video.height
          cues = frames, frames / seconds, seconds, *size, size[0] / size[1]
      except VideoError as error:
        name = example.id if example else error.name
        broken.append((name, error.cause))
        continue
      # An unknown frame rate is 0 for every video, and so no cue.
      rows.append(np.nan_to_num(np.log(cues)))
      labels.append(example.label)
  if broken:
    logging.warning(
      '%d videos of split %r have no trivial cues, the first is %s',
      len(broken),
      split,
      ': '.join(broken[0]),
    )
  if not rows:
    raise UserError(
      f'No video of split {split!r} in {directory} can be read: '
      f'{first_causes(broken)}. Look at the files.'
    )
  return np.array(rows), np.array(labels)


def _find_pairs(
  pairs: Sequence[Sequence[str]], names: tuple[str, ...]
) -> list[tuple[int, int]]:
  """Returns pairs of class numbers, without pairs of unknown classes."""
  seen, known = set(), []
  for pair in pairs:
    is_pair = isinstance(pair, tuple | list) and len(set(pair)) == 2 == len(
      pair
    )
    if is_pair and all(isinstance(n, str) and n not in names for n in pair):
      logging.warning(
        'eval.reversed_pairs has %r, and the data have neither class here: the '
        'pair is left out.',
        pair,
        extra={'once': True},
      )
      continue
    if not is_pair or not set(pair) <= set(names) or seen & set(pair):
      raise UserError(
        f'eval.reversed_pairs has {pair!r}: each must be two classes, none of '
        'them in another pair. Write (("sit_down", "stand_up"),) for instance. '
        f'The classes are {", ".join(names)}.'
      )
    seen |= set(pair)
    known.append(pair)
  return [(names.index(first), names.index(second)) for first, second in known]
