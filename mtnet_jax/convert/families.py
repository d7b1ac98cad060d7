"""Whose weights a file holds, of which network, and what they were trained on.

Pixels' mean and deviation, and the clips: PySlowFast's configs/Kinetics/X3D_*
(which PyTorchVideo shares), torchvision's `VideoClassification` presets with
their 15 frames a second, and network/config.py of SRTG's author.
"""

import re
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mtnet_jax import models, preprocessing
from mtnet_jax.convert import layouts
from mtnet_jax.errors import UserError
from mtnet_jax.models import mtnet, resnet3d


class Origin(NamedTuple):
  """What a file was recognised as.

  Attributes:
    family: one of `FAMILIES`.
    models: the networks that the file may be of, by our names: those that
      differ in their clips alone; () where we have none such.
    text: the same in words.
  """

  family: str
  models: tuple[str, ...]
  text: str


FAMILIES = types.MappingProxyType(
  {
    'pytorchvideo': 'PyTorchVideo',
    'pyslowfast': 'PySlowFast',
    'torchvision': 'torchvision',
    'srtg': "SRTG's author",
  }
)
_X3D_STEMS = types.MappingProxyType(
  {
    'blocks.0.conv.conv_t.weight': 'pytorchvideo',
    's1.pathway0_stem.conv_xy.weight': 'pyslowfast',
  }
)
_BLOCK = re.compile(
  r'blocks\.\d+\.res_blocks\.\d+|s\d+\.pathway0_res\d+|layer\d+\.\d+'
)
_X3D_BY_BLOCKS = types.MappingProxyType(
  {26: ('x3d_xs', 'x3d_s', 'x3d_m'), 55: ('x3d_l',)}
)
# By whether blocks are Bottlenecks, and how many there are.
_DEPTHS = types.MappingProxyType(
  {
    (False, 8): 18,
    (False, 16): 34,
    (True, 16): 50,
    (True, 33): 101,
    (True, 50): 152,
  }
)
# Frames, their stride in the source, pixels of the shorter side and of the crop
# in training, and of the crop in evaluation.
_X3D_CLIPS = types.MappingProxyType(
  {
    'x3d_xs': (4, 12, 228, 160, 182),
    'x3d_s': (13, 6, 228, 160, 182),
    'x3d_m': (16, 5, 320, 224, 256),
    'x3d_l': (16, 5, 446, 312, 356),
  }
)
_RESNET_CLIPS = types.MappingProxyType(
  {'torchvision': (16, 2, 128, 112, 128), 'srtg': (16, 2, 320, 224, 256)}
)
_MEANS = types.MappingProxyType(
  {
    'torchvision': (0.43216, 0.394666, 0.37645),
    'srtg': (124 / 255, 117 / 255, 104 / 255),
  }
)
_STDS = types.MappingProxyType(
  {
    'torchvision': (0.22803, 0.22145, 0.216989),
    'srtg': (1 / (0.0167 * 255),) * 3,
  }
)


def check_model(name: str) -> None:
  """Raises a UserError unless there can be weights of this network."""
  known = [*_X3D_CLIPS, *(n for n in resnet3d.VARIANTS if 'mt_' not in n)]
  if name not in known:
    raise UserError(
      f'There are no PyTorch weights of --model={name} that could be taken '
      f'over. There may be of {", ".join(known)}.'
    )


def recognize(
  tensors: Mapping[str, np.ndarray], prefix: str, family: str | None = None
) -> Origin | None:
  """Tells from the names of tensors what network they are of.

  Args:
    tensors: by name.
    prefix: the prefix that their names had in the file.
    family: one of `FAMILIES`; needed where the names alone leave a choice.

  Returns:
    The origin; None for anything that we do not know.

  Raises:
    UserError: `family` has other names, or is needed; or tensors that tell the
      width of a network are missing.
  """
  blocks = len({m[0] for m in map(_BLOCK.match, tensors) if m})
  possible = tuple(_X3D_STEMS[stem] for stem in _X3D_STEMS if stem in tensors)
  if possible:
    names = _X3D_BY_BLOCKS.get(blocks, ())
    what = ' or '.join(names) or f'X3D of {blocks} blocks'
  elif {'stem.0.weight', 'layer1.0.conv2.1.weight'} <= tensors.keys():
    what = _resnet_name(tensors, blocks)
    names = (what,) if what in models.NAMES else ()
    possible = _resnet_families(tensors, what)
    # torchvision published this one; the author saves what DataParallel wraps.
    likely = what == 'r2plus1d_18' and not prefix.startswith('module.')
    if len(possible) > 1 and not (family or likely):
      raise _ambiguous(what)
  else:
    return None
  if family is not None and family not in possible:
    raise UserError(
      f'--family={family} names tensors otherwise than the file does, which is '
      f'of {" or ".join(possible)}. Leave --family out.'
    )
  chosen = family or possible[0]
  return Origin(chosen, names, f'{what} of {FAMILIES[chosen]}')


def _resnet_name(tensors: Mapping[str, np.ndarray], blocks: int) -> str:
  first, last = 'layer1.0.conv1.0.weight', 'layer1.0.conv3.0.weight'
  bottleneck = last in tensors
  kind = 'r2plus1d' if 'layer1.0.conv2.0.3.weight' in tensors else 'r3d'
  if bottleneck:
    for name in (first, last):
      if name not in tensors or not tensors[name].ndim:
        raise UserError(
          f'The file has {last}, but {name} is missing or a single number: it '
          'is of no network that we know. Give another one.'
        )
    inner, outer = tensors[first].shape[0], tensors[last].shape[0]
    kind = f'wide_{kind}' if inner == 2 * outer else kind
  if any('.sar.' in name for name in tensors):
    kind = f'srtg_{kind}'
  depth = _DEPTHS.get((bottleneck, blocks))
  return f'{kind}_{depth}' if depth else f'{kind} of {blocks} blocks'


def _resnet_families(
  tensors: Mapping[str, np.ndarray], name: str
) -> tuple[str, ...]:
  """Those whose names these are."""
  if 'layer1.0.conv2.0.weight' in tensors:
    return ('torchvision',)
  return ('torchvision', 'srtg') if name.startswith('r2plus1d') else ('srtg',)


def _ambiguous(name: str) -> UserError:
  frames, _, _, theirs, _ = _RESNET_CLIPS['torchvision']
  *_, authors, _ = _RESNET_CLIPS['srtg']
  return UserError(
    f"The file is of {name}, which torchvision and SRTG's author name alike. "
    'Say who trained it: --family=torchvision (pixels by the mean and '
    f'deviation of its own, clips of {frames} × {theirs}²) or --family=srtg '
    f"(ImageNet's mean, clips of {frames} × {authors}²)."
  )


def layout(family: str, model: str) -> layouts.Layout | None:
  """Returns what a family calls a network's layers; None: it has no such."""
  if family in ('pytorchvideo', 'pyslowfast'):
    x3d = {
      'pytorchvideo': layouts.PYTORCHVIDEO_X3D,
      'pyslowfast': layouts.PYSLOWFAST_X3D,
    }
    return x3d[family] if model in mtnet.VARIANTS else None
  if model not in resnet3d.VARIANTS:
    return None
  row = resnet3d.VARIANTS[model]
  return layouts.resnet(
    bottleneck=row['depth'] >= 50,
    factorized=row['convolution'] == 'r2plus1d',
    contained=family == 'srtg',
  )


def settings(
  family: str, model: str, tensors: Mapping[str, np.ndarray], bgr: bool = False
) -> dict[str, Any]:
  """Returns the keys of a configuration that weights ask for, with values.

  Args:
    family: one of `FAMILIES`.
    model: the network's name.
    tensors: the tensors of the file, by name.
    bgr: the network was trained on frames with blue first.
  """
  frames, stride, short_side, crop, eval_crop = (
    _X3D_CLIPS[model] if model in _X3D_CLIPS else _RESNET_CLIPS[family]
  )
  mean = _MEANS.get(family, preprocessing.MEAN)
  std = _STDS.get(family, preprocessing.STD)
  keys = {
    'data.num_frames': frames,
    'data.frame_stride': stride,
    'data.short_side': short_side,
    'data.crop_size': crop,
    'data.input_size': crop,
    'model.name': model,
    'model.input_mean': mean[::-1] if bgr else mean,
    'model.input_std': std[::-1] if bgr else std,
    'eval.crop_size': eval_crop,
    'eval.input_size': eval_crop,
  }
  if model in _X3D_CLIPS:
    # The first stage's projection keeps its width. PySlowFast normalises it all
    # the same, PyTorchVideo does not.
    sources = layout(family, model).sources(
      'params/stage_1_block_1/shortcut_norm/scale'
    )
    keys['model.norm_all_shortcuts'] = sources[0] in tensors
  else:
    keys['model.stem_pool'] = False
  if model.startswith('srtg_'):
    keys['model.gate'] = False
  return keys
