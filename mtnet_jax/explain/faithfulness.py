"""Measures whether the network uses what a saliency map points at.

Source: V. Petsiuk, A. Das, K. Saenko, *RISE: Randomized Input Sampling for
Explanation of Black-box Models*, 2018, section 4.2: deletion and insertion.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from mtnet_jax.errors import UserError
from mtnet_jax.explain.explanation import Faithfulness
from mtnet_jax.typing import Float, UInt8

Predict = Callable[[UInt8[np.ndarray, 'n t h w 3']], Float[np.ndarray, ' n']]

# An uninformed picture beats nine others like it in one case of ten.
_RANDOM_PLACES = 9
_BLUR = 1 / 8  # of the shorter side; less leaves figures to be guessed at


def faithfulness(
  predict: Predict,
  clip: UInt8[np.ndarray, 't h w 3'],
  saliency: Float[np.ndarray, '_t _h _w'],
  steps: int = 5,
  seed: int = 0,
  batch_size: int = 8,
) -> Faithfulness:
  """Measures deletion and insertion curves of a saliency map.

  Deletion replaces voxels of the clip by those of its blurred version, the most
  salient first; insertion starts from the blurred clip and puts them back. A
  good map makes the first curve fall early and the second rise early. Voxels
  that are equally salient come in a random order.

  The blurred clip is its mean frame out of focus, held still: nothing moves and
  nothing has edges, yet it is closer to a video than gray is, and borders
  between it and the clip are softer (RISE, section 4.2, of images).

  Competitors show the curves of maps that know nothing of the network. Nine are
  the same map, rolled around by a random offset on each axis: as smooth, while
  every voxel is as likely as any other to come first. A map that knows nothing
  is about as likely to be the best of the ten as any other. One more is a plain
  spot in the middle of every frame, where people put what they film.

  There are 2 + 22 (steps - 1) clips to predict: 90 where `steps` is 5.

  Args:
    predict: the class's probability for each clip; always called with
      `batch_size` clips.
    clip: the clip as the model sees it.
    saliency: the saliency, finite; only its order counts.
    steps: equal shares of the voxels, at least 1.
    seed: the seed of the places, and of the order of equally salient voxels.
    batch_size: clips at once, at least 1.

  Returns:
    Curves of `steps + 1` points.

  Raises:
    UserError: shapes that differ, saliency that is not finite, or a number
      below 1.
  """
  _check(clip, saliency, steps, batch_size)
  rng = np.random.default_rng(seed)
  maps = [saliency, _spot(saliency.shape)]
  maps += [_rolled(saliency, rng) for _ in range(_RANDOM_PLACES)]
  # Drawn once: maps of one order have one curve.
  shuffled = rng.permutation(saliency.size)
  ranks = [_ranks(each, shuffled) for each in maps]
  shares = np.linspace(0, 1, steps + 1)
  mixtures = _mixtures(clip, blur(clip), ranks, shares[1:-1])
  found = _predict_all(predict, mixtures, batch_size)
  # Both ends are the clip and its blurred version, whatever the order.
  whole, blurred, curves = found[0], found[1], found[2:]
  curves = curves.reshape(len(maps), 2, steps - 1)
  first = np.broadcast_to([[whole], [blurred]], (len(maps), 2, 1))
  curves = np.concatenate([first, curves, first[:, ::-1]], axis=2)
  areas = np.trapezoid(curves, shares)
  return Faithfulness(
    shares, *curves[0], *curves[2:].mean(axis=0), areas[2:], areas[1]
  )


def blur(clip: UInt8[np.ndarray, 't h w 3']) -> UInt8[np.ndarray, 't h w 3']:
  """Returns the clip's mean frame, out of focus, in place of every frame.

  By a Gaussian whose deviation is an eighth of the shorter side.
  """
  deviation = _BLUR * min(clip.shape[1:3])
  mean = clip.mean(axis=0, dtype=np.float32)
  blurred = ndimage.gaussian_filter(mean, (deviation, deviation, 0))
  frame = np.rint(blurred).clip(0, 255).astype(np.uint8)
  return np.broadcast_to(frame, clip.shape)


def _check(clip, saliency, steps, batch_size):
  if saliency.shape != clip.shape[:3]:
    raise UserError(
      f'The saliency of shape {saliency.shape} must have the frames, rows and '
      f'columns of the clip, {clip.shape[:3]}: interpolate it first.'
    )
  if not np.isfinite(saliency).all():
    raise UserError('The saliency holds NaN or infinity: there is no order.')
  for name, value in (('steps', steps), ('batch_size', batch_size)):
    if value < 1:
      raise UserError(f'`{name}` (={value}) must be at least 1.')


def _rolled(saliency, rng):
  offsets = [int(rng.integers(size)) for size in saliency.shape]
  return np.roll(saliency, offsets, axis=(0, 1, 2))


def _spot(shape):
  """Falls off from the middle of every frame, as fast on both sides."""
  t, h, w = shape
  y, x = np.mgrid[:h, :w]
  distance = (y - (h - 1) / 2) ** 2 + (x - (w - 1) / 2) ** 2
  return np.broadcast_to(-distance, (t, h, w))


def _ranks(saliency, shuffled):
  """The place of each voxel in the order, `(t, h, w)`, 0 the most salient.

  Equally salient ones have the order of `shuffled`.
  """
  order = shuffled[np.argsort(-saliency.ravel()[shuffled], kind='stable')]
  ranks = np.empty(saliency.size, np.int64)
  ranks[order] = np.arange(saliency.size)
  return ranks.reshape(saliency.shape)


def _mixtures(clip, blurred, ranks, shares) -> Iterator[np.ndarray]:
  """The clip, its blurred version, and by order deletion and insertion."""
  yield clip
  yield blurred
  for order in ranks:
    for before, after in ((clip, blurred), (blurred, clip)):
      for share in shares:
        changed = order < round(share * order.size)
        yield np.where(changed[..., None], after, before)


def _predict_all(predict, clips, batch_size):
  """Probabilities of all clips, float64; the last batch is padded."""
  clips, found = iter(clips), []
  while batch := list(itertools.islice(clips, batch_size)):
    padding = [batch[-1]] * (batch_size - len(batch))
    found.extend(np.asarray(predict(np.stack(batch + padding)))[: len(batch)])
  return np.array(found, float)
