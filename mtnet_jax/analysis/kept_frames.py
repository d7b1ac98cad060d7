r"""Draws which frames a trained MTNet keeps, and measures their motion.

  mtnet kept-frames --workdir=DIR --out=kept.png [--ids=a.mp4,b.mp4] \
    [--config.data.dir=DIR]

The prolonged branch of a Multi-Temporal convolution keeps half of the frames,
those that differ most from their neighbors (thesis, eq. 5.6–5.7). The picture
shows the frames of a few videos' middle views, how much moves in each, and
which of them each convolution keeps. The printed number is the motion of the
kept frames over that of all frames, averaged over the whole split.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence

import jax
import matplotlib.figure
import numpy as np
from absl import flags, logging
from flax import linen as nn

from mtnet_jax import cli, files, locations, preprocessing
from mtnet_jax.data import loading
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import scoring
from mtnet_jax.models import mtnet
from mtnet_jax.progress import Progress
from mtnet_jax.runs import configuration, given
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs import model as model_lib
from mtnet_jax.typing import Array, Bool, Float, UInt8

_MOST_SHOWN = 4
_CONVOLUTIONS = ('expand', 'separated', 'project')  # of a block


def kept_frames(
  model: nn.Module, variables: Mapping, clips: UInt8[Array, 'n t h w c']
) -> dict[str, Bool[np.ndarray, 'n t']]:
  """Returns which frames each Multi-Temporal convolution keeps.

  Args:
    model: an MTNet, from `models.build`: all its layers see all frames.
    variables: the network's parameters and statistics.
    clips: uint8 clips.

  Returns:
    Masks under the layers' names, 'stage_1_block_1/expand' for instance, in the
    order of depth.

  Raises:
    UserError: the network is no MTNet, or selects no frames.
  """
  if not isinstance(model, mtnet.MTNet):
    raise UserError(
      'Only an MTNet keeps all frames to its last layer, so that what it '
      'selects can be shown. Name one: --config.model.name=mtnet_m.'
    )
  masks = {}
  for path, indices in jax.tree_util.tree_leaves_with_path(
    jax.device_get(_sow(model, variables, clips))
  ):
    *names, what = (p.key for p in path if hasattr(p, 'key'))
    if what == 'kept_frames':
      mask = np.zeros(clips.shape[:2], bool)
      np.put_along_axis(mask, indices, True, axis=1)
      masks['/'.join(names)] = mask
  if not masks:
    raise UserError(
      'This network selects no frames: model.local_ratio is 1, or '
      'model.pooling takes windows of frames (those with +cos select).'
    )
  return dict(sorted(masks.items(), key=lambda item: _depth(item[0])))


@functools.partial(jax.jit, static_argnums=0)
def _sow(model, variables, clips):
  clips = preprocessing.prepare(clips, model)
  _, sown = model.apply(
    variables, clips, train=False, mutable=['intermediates']
  )
  return sown.get('intermediates', {})


def _depth(layer: str) -> tuple[int, ...]:
  """Returns a layer's place, for 'stage_2_block_11/separated' for instance."""
  block, convolution = layer.split('/')
  _, stage, _, number = block.split('_')
  return int(stage), int(number), _CONVOLUTIONS.index(convolution)


def motion(clips: UInt8[np.ndarray, 'n t h w c']) -> Float[np.ndarray, 'n t']:
  """Returns how much each frame differs from its neighbors.

  The mean absolute difference of pixels, of 255, summed over the frame before
  and the frame after; the first and the last frame have one neighbor, which
  counts twice, as in the selection by cosines.
  """
  clips = clips.astype(np.float32)
  steps = np.abs(clips[:, 1:] - clips[:, :-1]).mean(axis=(2, 3, 4))  # n t-1
  return np.concatenate([steps[:, :1], steps], 1) + np.concatenate(
    [steps, steps[:, -1:]], 1
  )


def relative_motion(
  masks: Mapping[str, Bool[np.ndarray, 'n t']],
  clips: UInt8[np.ndarray, 'n t h w c'],
) -> dict[str, float]:
  """Returns the motion of each layer's kept frames over that of all frames.

  A selection that ignores motion has 1 on average.
  """
  moved = motion(clips)
  moved = moved / np.maximum(moved.mean(axis=1, keepdims=True), 1e-6)
  return {name: float(moved[mask].mean()) for name, mask in masks.items()}


def draw(
  clips: UInt8[np.ndarray, 'n t h w c'],
  masks: Mapping[str, Bool[np.ndarray, 'n t']],
  titles: Sequence[str],
  path: str | pathlib.Path,
) -> None:
  """Draws the frames of a few clips, their motion, and what each layer keeps.

  Args:
    clips: a few, uint8.
    masks: the masks from `kept_frames`.
    titles: the titles of the clips.
    path: the PNG to write.
  """
  n, t, h, w, _ = clips.shape
  layers = list(masks)
  moved = motion(clips)
  figure = matplotlib.figure.Figure(
    figsize=(t + 2, n * (2.3 + 0.13 * len(layers))), layout='constrained'
  )
  parts = figure.subfigures(n, 1, squeeze=False)[:, 0]
  for i, part in enumerate(parts):
    part.suptitle(titles[i], fontsize=10, parse_math=False)
    top, middle, bottom = part.subplots(
      3, 1, height_ratios=[h / w, 0.5, 0.13 * len(layers)]
    )
    # Each frame above its column.
    strip = np.concatenate(list(clips[i]), axis=1)
    top.imshow(strip, extent=(-0.5, t - 0.5, 0, 1), aspect='auto')
    top.set_axis_off()
    middle.bar(range(t), moved[i], color='#4477aa')
    middle.set_ylabel('motion', fontsize=8)
    grid = np.stack([masks[layer][i] for layer in layers])
    bottom.imshow(grid, cmap='Greens', vmin=0, vmax=1.4, aspect='auto')
    bottom.set_yticks(range(len(layers)), layers, fontsize=6)
    bottom.set_xticks(range(t), [f'{share:.0%}' for share in grid.mean(axis=0)])
    bottom.set_xlabel('kept by so many convolutions', fontsize=8)
    for axes in (top, middle, bottom):
      axes.set_xlim(-0.5, t - 0.5)
    middle.set_xticks([])
  files.save_figure(figure, path, dpi=80)


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  given.define_flags(values)
  cli.define_run(values)
  flags.DEFINE_string(
    'out', None, 'PNG file to write.', required=True, flag_values=values
  )
  flags.DEFINE_list(
    'ids',
    [],
    'Videos to show, separated by commas, as paths in the data set; without '
    'it the first 4 readable ones.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Draws what the flags name, and prints the relative motion by layer."""
  out = run_folder.png_path(values.out)
  config = configuration.read(values.workdir, given.read(values))
  config.eval.num_clips = config.eval.num_crops = 1
  dataset = scoring.open_videos(config, values.workdir)
  with model_lib.explained(locations.as_path(values.workdir) / 'config.json'):
    model = model_lib.build_model(config, len(dataset.labels))
    variables, _ = model_lib.restore_variables(
      config, values.workdir, values.checkpoint, model, mesh_lib.make_mesh()
    )
  shown, ratios = _select_all(dataset, model, variables, values.ids)
  draw(
    np.stack([clip for clip, _ in shown.values()]),
    _stack([masks for _, masks in shown.values()]),
    list(shown),
    out,
  )
  for layer, share in ratios.items():
    print(f'{layer}: motion of kept frames / of all frames = {share:.3f}')


def _select_all(dataset, model, variables, wanted):
  """Returns the clips to show with their masks, and the split's figures."""
  shown, ratios = {}, []
  with Progress('selecting', dataset.num_videos, 'videos') as progress:
    for batch in loading.iterate(dataset):
      masks = kept_frames(model, variables, batch['clips'][:, 0])
      for row in np.flatnonzero(batch['ids'] != ''):
        name, clip = str(batch['ids'][row]), batch['clips'][row, 0]
        progress.advance()
        if not batch['mask'][row]:
          logging.warning('Left out: %s: %s', name, batch['broken'][row])
          continue
        own = {layer: mask[row] for layer, mask in masks.items()}
        ratios.append(
          relative_motion({k: m[None] for k, m in own.items()}, clip[None])
        )
        if name in wanted or (not wanted and len(shown) < _MOST_SHOWN):
          shown[name] = clip, own
  missing = [name for name in wanted if name not in shown]
  if missing or not ratios:
    raise UserError(
      f'The split has no readable video {", ".join(missing) or "at all"}.'
    )
  means = {k: np.mean([r[k] for r in ratios]) for k in ratios[0]}
  return shown, means


def _stack(masks):
  return {layer: np.stack([m[layer] for m in masks]) for layer in masks[0]}


COMMAND = cli.Command(main, define_flags)

if __name__ == '__main__':
  cli.run(COMMAND)
