"""Measures what an explanation costs: python -m benchmarks.explanations [NAME].

The rows of Table 7.1 of the thesis for every network: multiply-adds of a clip,
and milliseconds of a forward pass, of a Saliency Tube of the clip's size, and
of a layer-wise Class Feature Pyramid three layers deep with its levels' tubes,
forward pass included in both; of them, as the table counts, the back step
without the forward pass and the tubes. Compilation is apart. Parameters and
statistics are random, as are the clips, of `models.DEFAULT_CLIPS`;
`--clip=small` takes 4 frames of 32². The kept features are those of all levels.

`--table_7_1` measures the table's own rows instead: its networks at the clips
that its GFLOPs are of, with its thresholds and its layers, beside what is
printed. The thesis's times are of a GPU that it does not name.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import linen as nn

from mtnet_jax import models
from mtnet_jax.analysis import cost
from mtnet_jax.explain import class_feature_pyramids as pyramids
from mtnet_jax.explain import class_rows, recording, saliency_tubes
from mtnet_jax.progress import Progress
from mtnet_jax.thesis import published

_CLIP = flags.DEFINE_enum(
  'clip',
  'own',
  ['own', 'small'],
  "Clip to explain: own is each network's usual size, small 4 frames of 32 "
  'x 32 pixels.',
)
_TABLE = flags.DEFINE_bool(
  'table_7_1',
  False,
  'Measure the networks and clips of the thesis, Table 7.1, instead.',
)
_CLASSES = 400
_REPEATS = 5
_SMALL = (4, 32)


class Case(NamedTuple):
  """What is measured.

  Attributes:
    label: the row's name.
    model: the network.
    clip: frames, height, width.
    layers: steps back.
    threshold: θ.
    printed: milliseconds of a back step as the thesis prints them, or ''.
  """

  label: str
  model: nn.Module
  clip: tuple[int, int, int]
  layers: int
  threshold: float
  printed: str = ''


def main(argv: list[str]) -> None:
  """Prints a line a network."""
  cases = table_7_1() if _TABLE.value else own_clips(argv[1:] or models.NAMES)
  print(
    '| network | clip | GMACs | forward, ms | tube, ms | × forward '
    '| pyramid, ms | × forward | back step, ms | printed | layers | kept | θ |'
  )
  print('|' + ' --- |' * 13, flush=True)
  with Progress('explaining', len(cases), 'networks') as progress:
    for case in cases:
      print(_row(case), flush=True)
      progress.advance()


def own_clips(names: Sequence[str]) -> list[Case]:
  """Returns networks at their own clips, or at small ones."""
  cases = []
  for name in names:
    own = _CLIP.value == 'own'
    frames, size = models.DEFAULT_CLIPS[name] if own else _SMALL
    model = models.build(name, _CLASSES)
    threshold = pyramids.default_threshold(model)
    cases.append(Case(name, model, (frames, size, size), 3, threshold))
  return cases


def table_7_1() -> list[Case]:
  """Returns the rows of Table 7.1."""
  rows = published.read_all()['table_7_1_back_step'].rows
  return [
    Case(
      f'{row.printed["model"]}, `{row.network}`',
      models.build(row.network, _CLASSES, **dict(row.overrides)),
      row.clip,
      _layers(row.printed['layers']),
      float(row.printed['theta']),
      row.printed['back_step_ms'],
    )
    for row in rows
  ]


def _layers(printed):
  """Steps back: those printed, or one through "1 + mixed5c" below the class."""
  return int(printed) if printed.isdigit() else 1


def _row(case: Case) -> str:
  shape, model = (*case.clip, 3), case.model
  variables = random_variables(model, shape)
  clip = jax.random.normal(jax.random.key(1), (1, *shape))
  forward = jax.jit(lambda v, x: model.apply(v, x, train=False)[0])
  observation = pyramids.observe(model, variables, clip, case.layers)
  options = {'layers': case.layers, 'threshold': case.threshold}
  pyramid, _ = pyramids.class_feature_pyramid(model, variables, clip, **options)

  times = race(
    lambda: jax.block_until_ready(forward(variables, clip)),
    lambda: _tube(model, variables, clip),
    lambda: pyramids.class_feature_pyramid(model, variables, clip, **options),
    lambda: pyramids.build(
      observation,
      variables['params'],
      pyramid.label,
      'layer',
      case.threshold,
    ),
  )
  passing, tube, whole, back = (1e3 * seconds for seconds in times)
  kept = sum(len(level.importance) for level in pyramid.levels)
  channels = sum(level.num_channels for level in pyramid.levels)
  frames, size, _ = case.clip
  return (
    f'| {case.label} | {frames}×{size}² | '
    f'{cost.macs(model, shape) / 1e9:.2f} | '
    f'{passing:.1f} | {tube:.1f} | {tube / passing:.2f} | {whole:.1f} | '
    f'{whole / passing:.2f} | {back:.1f} | {case.printed} | '
    f'{len(pyramid.levels) - 1} | {kept} of {channels} | {case.threshold} |'
  )


def _tube(model, variables, clip):
  """A Saliency Tube of the predicted class, as large as the clip."""
  logits, endpoints, _ = recording.record(model, variables, clip)
  features = np.asarray(endpoints['features'][0])
  label = int(np.argmax(logits[0]))
  row = class_rows.class_row(variables['params'], features, label)
  return saliency_tubes.saliency_tube(
    np.asarray(endpoints['last'][0]), row, clip.shape[1:4]
  )


def random_variables(model: nn.Module, clip_shape: tuple[int, ...]) -> dict:
  """Returns variables whose activations keep their size through the layers.

  Kernels as He draws them; scales and variances about 1, biases and means
  about 0.
  """
  clips = jax.ShapeDtypeStruct((1, *clip_shape), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), clips)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    values = rng.standard_normal(leaf.shape, np.float32)
    if path[-1].key in ('scale', 'var'):
      return jnp.asarray(np.exp(0.1 * values))
    fan_in = np.prod(leaf.shape[:-1])
    return jnp.asarray(values * (0.1 if leaf.ndim == 1 else fan_in**-0.5))

  return jax.tree_util.tree_map_with_path(draw, shapes)


def race(*runs: Callable[[], object]) -> list[float]:
  """Returns the median seconds of each, taken in turns after one of all."""
  times = [[] for _ in runs]
  for _ in range(_REPEATS + 1):
    for run, kept in zip(runs, times, strict=True):
      start = time.perf_counter()
      run()
      kept.append(time.perf_counter() - start)
  return [statistics.median(kept[1:]) for kept in times]


if __name__ == '__main__':
  app.run(main)
