"""Tests whether the saliency of a trained network lies on the actors.

  mtnet sanity --workdir=DIR [--data=DIR]

The data set gives the boxes of its actors in `boxes.npz`, as the stick figures
do. Uninformed saliency falls into the boxes in proportion to their area, a
ratio of 1. Actors stand in the middle, however, and a map that is always
brightest there has a higher ratio. So each map is also laid on the boxes of
other videos; the gain is the ratio on its own boxes over that on the others.

The early layers of an untrained network gain a little too, because figures have
more edges than their background; compare a trained network with that. Source of
the comparison with untrained networks: J. Adebayo et al., *Sanity Checks for
Saliency Maps*, 2018.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import linen as nn

from mtnet_jax import cli, preprocessing
from mtnet_jax.data.clips import view_indices
from mtnet_jax.errors import UserError
from mtnet_jax.explain.class_regularization_tubes import (
  class_regularization_tubes,
)
from mtnet_jax.explain.class_rows import class_row
from mtnet_jax.explain.explanation import METHODS
from mtnet_jax.explain.grad_cam import grad_cams
from mtnet_jax.explain.recording import record
from mtnet_jax.explain.saliency_tubes import saliency_tube
from mtnet_jax.prediction import Predictor
from mtnet_jax.progress import Progress
from mtnet_jax.runs import given
from mtnet_jax.typing import Float, Real, UInt8

BOXES = 'boxes.npz'
_RESAMPLES = 2_000
_OTHERS = 5  # whose boxes each map is laid on, too
_COLUMNS = '{:<12} {:<28} {:>8} {:>8} {:>6} {:>13} {:>6} {:>13}'
_HEAD = _COLUMNS.format(
  'network',
  'method, layer',
  'in boxes',
  'picture',
  'ratio',
  '95 %',
  'gain',
  '95 %',
)


@dataclasses.dataclass(frozen=True)
class Sample:
  """A clip whose actors' places are known.

  Attributes:
    clip: the clip as the model sees it.
    boxes: `(t, actors, 4)` of `x0, y0, x1, y1` in pixels of the clip.
  """

  clip: UInt8[np.ndarray, 't h w 3']
  boxes: Real[np.ndarray, 't actors 4']


@dataclasses.dataclass(frozen=True)
class Score:
  """The share of saliency on the actors, over several videos.

  Attributes:
    mass: mean share of the saliency that lies in the boxes.
    covered: mean share of the picture that they cover.
    ratio: mean over videos of mass by covered; 1 without any knowledge.
    ratio_interval: 95 %, by resampling the videos.
    gain: ratio over that of the same maps on other videos' boxes; 1 where a map
      knows only where actors usually are.
    gain_interval: the 95 % interval of `gain`.
  """

  mass: float
  covered: float
  ratio: float
  ratio_interval: tuple[float, float]
  gain: float
  gain_interval: tuple[float, float]


def coverage(
  boxes: Real[np.ndarray, 't actors 4'], shape: tuple[int, int]
) -> Float[np.ndarray, 't h w']:
  """Returns how much of each pixel lies in a box, in [0, 1].

  Args:
    boxes: `x0, y0, x1, y1`; a pixel i reaches from i to i + 1. Where boxes
      overlap the greatest share counts.
    shape: rows and columns.
  """
  x0, y0, x1, y1 = np.moveaxis(np.asarray(boxes, float), -1, 0)
  rows, columns = (
    np.clip(
      np.minimum(high[..., None], start + 1)
      - np.maximum(low[..., None], start),
      0,
      1,
    )
    for low, high, start in (
      (y0, y1, np.arange(shape[0])),
      (x0, x1, np.arange(shape[1])),
    )
  )  # t actors h, t actors w
  return (rows[..., :, None] * columns[..., None, :]).max(axis=1)


def mass_in_boxes(
  saliency: Float[np.ndarray, 't h w'], boxes: Real[np.ndarray, 't actors 4']
) -> tuple[float, float]:
  """Returns the share of saliency in the boxes, and that of the picture.

  Their ratio is the mean saliency inside the boxes over that of the picture: a
  map that does not know where the boxes are has 1.

  Args:
    saliency: 0 or more.
    boxes: `x0, y0, x1, y1` in its pixels, one or more in each frame.

  Returns:
    Both in [0, 1]. A map of zeros is taken as uniform.
  """
  inside = coverage(boxes, saliency.shape[1:])
  covered = float(inside.mean())
  total = float(saliency.sum(dtype=float))
  if total == 0:
    return covered, covered
  return float((saliency * inside).sum(dtype=float)) / total, covered


def boxes_in_view(
  boxes: Real[np.ndarray, 't actors 4'],
  width: int,
  height: int,
  crop_size: int,
  input_size: int,
) -> Real[np.ndarray, 't actors 4']:
  """Returns boxes of a video's pixels in those of evaluation's middle crop.

  Args:
    boxes: `x0, y0, x1, y1` in pixels of the video.
    width: the video's width in pixels.
    height: the video's height in pixels.
    crop_size: the shorter side after resizing, and the crop's side.
    input_size: the size that the crop is resized to.

  Returns:
    float64 within [0, input_size]; empty where nothing of a box is seen.
  """
  scale = crop_size / min(width, height)
  resized = np.array([round(scale * width), round(scale * height)])
  offset = (resized - resized.min()) // 2
  points = np.asarray(boxes, float).reshape(*boxes.shape[:2], 2, 2)
  points = points * (resized / [width, height]) - offset
  points = points * (input_size / crop_size)
  return points.clip(0, input_size).reshape(boxes.shape)


def read_samples(
  predictor: Predictor, data: str | pathlib.Path, split: str, count: int
) -> list[Sample]:
  """Reads the central views of videos evenly spread over a split.

  Args:
    predictor: the run's predictor, which says what a view is.
    data: the data set's directory.
    split: the split of the videos.
    count: the number of videos at most.

  Raises:
    UserError: the data set has no boxes, or of that split less than two.
  """
  path = pathlib.Path(data) / BOXES
  if not path.is_file():
    raise UserError(
      f'{path} is missing: it holds the boxes of the actors. The stick figures '
      'have it: mtnet prepare stick_figures --out=DIR.'
    )
  settings, samples = predictor.config, []
  with np.load(path) as all_boxes:
    names = sorted(n for n in all_boxes.files if n.startswith(f'{split}/'))
    if len(names) < 2:
      raise UserError(
        f'{path} has {len(names)} videos of split {split!r}; two are needed at '
        'least, of which each is compared with others.'
      )
    chosen = np.linspace(0, len(names) - 1, min(count, len(names)))
    for name in (names[i] for i in chosen.round().astype(int)):
      with predictor.open(pathlib.Path(data) / name) as video:
        indices = view_indices(
          video.num_frames,
          settings.data.num_frames,
          settings.data.frame_stride,
          1,
          settings.data.sampling,
        )
        boxes = boxes_in_view(
          all_boxes[name][indices[0]],
          video.width,
          video.height,
          settings.eval.crop_size,
          settings.eval.input_size,
        )
        clip = predictor.read(video, indices, num_crops=1)[0]
      samples.append(Sample(clip, boxes))
  return samples


def saliency_maps(
  model: nn.Module, variables: dict, clip: UInt8[np.ndarray, 't h w 3']
) -> dict[str, Float[np.ndarray, 't h w']]:
  """Returns the saliency of the predicted class by method and layer.

  Args:
    model: a network from `mtnet_jax.models.build`.
    variables: the model's.
    clip: RGB, 0 to 255.
  """
  params, shape = variables['params'], clip.shape[:3]
  clips = preprocessing.prepare(clip[None], model)
  logits, endpoints, _ = record(model, variables, clips)
  label = int(jnp.argmax(logits[0]))
  row = class_row(params, endpoints['features'][0], label)
  maps = {
    ('saliency_tubes', 'last'): saliency_tube(endpoints['last'][0], row, shape)
  }
  if endpoints['early_predictions']:
    tubes = class_regularization_tubes(params, endpoints, shape=shape)
    for layer, (_, tube) in tubes.items():
      maps['class_regularization', layer] = tube
  cams = grad_cams(model, variables, clips[0], label, shape=shape)
  for layer, cam in cams.items():
    maps['grad_cam', layer] = cam
  return {
    f'{METHODS[method]}, {layer}': m for (method, layer), m in maps.items()
  }


def score(
  maps: Sequence[Float[np.ndarray, 't h w']],
  boxes: Sequence[Real[np.ndarray, 't actors 4']],
  rng: np.random.Generator,
) -> Score:
  """Scores the maps of one method, one of each of two or more videos.

  Args:
    maps: saliency of each video.
    boxes: the boxes of each video.
    rng: the generator of the choice of other videos, and of the bootstrap.
  """
  count = len(maps)
  pairs = list(zip(maps, boxes, strict=True))
  own = np.array([mass_in_boxes(*pair) for pair in pairs])  # video, 2
  shifts = 1 + rng.permutation(count - 1)[:_OTHERS]
  others = [
    [_ratio(*mass_in_boxes(a, boxes[(i + by) % count])) for by in shifts]
    for i, a in enumerate(maps)
  ]
  others = np.mean(others, axis=1)
  ratios = np.array([_ratio(*pair) for pair in own])
  draws = rng.integers(count, size=(_RESAMPLES, count))
  drawn = ratios[draws].mean(axis=1)
  gains = drawn / others[draws].mean(axis=1)
  return Score(
    mass=float(own[:, 0].mean()),
    covered=float(own[:, 1].mean()),
    ratio=float(ratios.mean()),
    ratio_interval=_interval(drawn),
    gain=float(ratios.mean() / others.mean()),
    gain_interval=_interval(gains),
  )


def _ratio(mass: float, covered: float) -> float:
  return mass / covered if covered else 1.0


def _interval(drawn) -> tuple[float, float]:
  low, high = np.quantile(drawn, (0.025, 0.975))
  return float(low), float(high)


def networks(
  predictor: Predictor, clip_shape: tuple[int, ...], count: int
) -> Iterator[tuple[str, dict]]:
  """Yields names and variables: the trained network, and untrained ones.

  These have the weights and statistics with which training begins, from seeds
  0, 1, ….

  Args:
    predictor: the run's predictor.
    clip_shape: `(t, h, w, 3)`.
    count: untrained networks.
  """
  yield 'trained', predictor.variables
  init = jax.jit(functools.partial(predictor.model.init, train=False))
  clips = jnp.zeros((1, *clip_shape), predictor.model.dtype)
  for seed in range(count):
    yield f'untrained {seed}', init(jax.random.key(seed), clips)


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_run(values)
  given.define_flags(values)
  flags.DEFINE_string(
    'data',
    None,
    "Data set with the actors' boxes, boxes.npz; without it the run's own.",
    flag_values=values,
  )
  flags.DEFINE_string(
    'split',
    'test',
    'Split of the data set that videos are taken from.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'videos',
    50,
    'Number of videos to measure, spread evenly over the split.',
    2,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'untrained',
    3,
    'Number of untrained networks to compare the run with.',
    0,
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Prints a row for each network, method and layer."""
  predictor = Predictor(
    values.workdir, values.checkpoint, given=given.read(values)
  )
  if predictor.model is None:
    raise UserError(
      f'{predictor.source} cannot be looked into: give the --workdir of the '
      'run that it was exported from.'
    )
  data = values.data or predictor.config.data.dir
  samples = read_samples(predictor, data, values.split, values.videos)
  boxes = [sample.boxes for sample in samples]
  lines = [_HEAD]
  with Progress(
    'saliency', (1 + values.untrained) * len(samples), 'clips'
  ) as progress:
    for name, variables in networks(
      predictor, samples[0].clip.shape, values.untrained
    ):
      maps = []
      for sample in samples:
        maps.append(saliency_maps(predictor.model, variables, sample.clip))
        progress.advance()
      lines += _rows(name, maps, boxes)
  print('\n'.join(lines))


def _rows(name, maps, boxes) -> list[str]:
  rows = []
  for method in maps[0]:
    # Every row has the same other videos and the same resamples.
    own = [each[method] for each in maps]
    s = score(own, boxes, np.random.default_rng(0))
    rows.append(
      _COLUMNS.format(
        name,
        method,
        f'{s.mass:.3f}',
        f'{s.covered:.3f}',
        f'{s.ratio:.2f}',
        '{:.2f} to {:.2f}'.format(*s.ratio_interval),
        f'{s.gain:.2f}',
        '{:.2f} to {:.2f}'.format(*s.gain_interval),
      )
    )
  return rows


COMMAND = cli.Command(main, define_flags)

if __name__ == '__main__':
  cli.run(COMMAND)
