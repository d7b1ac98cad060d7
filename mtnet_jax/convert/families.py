"""Recognizes the authors, the network and the settings of a file of weights.

Clips and pixels are those of `published`; for SRTG's author, those of his
network/config.py.
"""

import pathlib
import re
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mtnet_jax import models
from mtnet_jax.convert import (
  bottlenecks,
  hara,
  i3d_mfnet,
  layouts,
  published,
)
from mtnet_jax.errors import UserError
from mtnet_jax.models import mtnet, resnet3d, slowfast
from mtnet_jax.training.optim import CLASSIFIER


class Origin(NamedTuple):
  """The authors and networks that a file was recognized as.

  Attributes:
    family: one of `FAMILIES`.
    models: the networks that the file may be of, by our names: those that
      differ in their clips alone; () where we have none such.
    text: a description of the file, in words.
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
    'mmaction2': 'MMAction2',
    'tsm': "TSM's author",
    'vmz': 'VMZ',
    'hara': 'K. Hara',
    'pytorch_i3d': 'pytorch-i3d',
    'mfnet': "MF-Net's authors",
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
# The depth, by whether blocks are Bottlenecks, and by their number.
_DEPTHS = types.MappingProxyType(
  {
    (False, 8): 18,
    (False, 16): 34,
    (True, 16): 50,
    (True, 33): 101,
    (True, 50): 152,
  }
)
# SRTG's author has published no weights.
_SRTG = types.MappingProxyType(
  {
    'data.num_frames': 16,
    'data.frame_stride': 2,
    'data.sampling': 'clip',
    'data.short_side': 320,
    'data.crop_size': 224,
    'data.input_size': 224,
    'eval.crop_size': 256,
    'eval.input_size': 256,
    'model.input_mean': (124 / 255, 117 / 255, 104 / 255),
    'model.input_std': (1 / (0.0167 * 255),) * 3,
  }
)


def check_model(name: str) -> None:
  """Raises a UserError unless there can be weights of this network."""
  known = [n for n in models.NAMES if not re.match('mtnet_|mt_r3d|x3d_xl', n)]
  if name not in known:
    raise UserError(
      f'There are no PyTorch weights for --model={name}. Weights can be '
      f'converted for {", ".join(known)}; `mtnet convert --list` lists those '
      'that are published.'
    )


def recognize(
  tensors: Mapping[str, np.ndarray], prefix: str, family: str | None = None
) -> Origin | None:
  """Recognizes a network by the names of its tensors.

  Args:
    tensors: the tensors by name.
    prefix: the prefix that their names had in the file.
    family: one of `FAMILIES`; needed where the names alone leave a choice.

  Returns:
    The origin; None for anything that we do not know.

  Raises:
    UserError: `family` has other names, or is needed; tensors that tell the
      width of a network are missing; or it is a network of optical flow.
  """
  for module in (bottlenecks, hara, i3d_mfnet):
    found = module.recognize(tensors)
    if found is None:
      continue
    _check_family(family, (found.family,))
    names = (found.model,) if found.model in models.NAMES else ()
    return _origin(found.family, names, found.model)
  blocks = len({m[0] for m in map(_BLOCK.match, tensors) if m})
  possible = tuple(_X3D_STEMS[stem] for stem in _X3D_STEMS if stem in tensors)
  if possible:
    names = _X3D_BY_BLOCKS.get(blocks, ())
    what = ' or '.join(names) or f'X3D of {blocks} blocks'
  elif {'stem.0.weight', 'layer1.0.conv2.1.weight'} <= tensors.keys():
    what = _resnet_name(tensors, blocks)
    names = (what,) if what in models.NAMES else ()
    possible = _resnet_families(tensors, what)
    # torchvision published this file; SRTG's author saves networks that
    # DataParallel wraps.
    likely = what == 'r2plus1d_18' and not prefix.startswith('module.')
    if len(possible) > 1 and not (family or likely):
      raise _ambiguous(what)
  else:
    return None
  _check_family(family, possible)
  return _origin(family or possible[0], names, what)


def _origin(family: str, names: tuple[str, ...], what: str) -> Origin:
  return Origin(family, names, f'{what} of {FAMILIES[family]}')


def _check_family(family: str | None, possible: tuple[str, ...]) -> None:
  if family is not None and family not in possible:
    raise UserError(
      f'The tensors of the file are not named as in --family={family}, but as '
      f'in {" or ".join(possible)}. Leave --family out.'
    )


def _resnet_name(tensors: Mapping[str, np.ndarray], blocks: int) -> str:
  first, last = 'layer1.0.conv1.0.weight', 'layer1.0.conv3.0.weight'
  bottleneck = last in tensors
  kind = 'r2plus1d' if 'layer1.0.conv2.0.3.weight' in tensors else 'r3d'
  second = np.shape(tensors.get('layer2.0.conv1.0.weight', ()))
  # The first kernel of a bottleneck is 1×1×1.
  flat = not bottleneck and len(second) == 5 and second[2] == 1
  if kind == 'r3d' and flat:
    kind = 'mc3'
  if bottleneck:
    for name in (first, last):
      if name not in tensors or not tensors[name].ndim:
        raise UserError(
          f'The file has {last}, but {name} is missing or a single number: it '
          'belongs to no known network. Give another one.'
        )
    inner, outer = tensors[first].shape[0], tensors[last].shape[0]
    kind = f'wide_{kind}' if inner == 2 * outer else kind
  if any('.sar.' in name for name in tensors):
    kind = f'srtg_{kind}'
  depth = _DEPTHS.get((bottleneck, blocks))
  # The width between the halves of the second stage's second convolution.
  mid = np.shape(tensors.get('layer2.0.conv2.0.0.weight', ()))[:1]
  if (kind, depth, mid) == ('r2plus1d', 34, (288,)):
    return 'r2plus1d_34_ig65m'
  return f'{kind}_{depth}' if depth else f'{kind} of {blocks} blocks'


def _resnet_families(
  tensors: Mapping[str, np.ndarray], name: str
) -> tuple[str, ...]:
  """Returns the families that use these names."""
  if name.endswith('_ig65m'):
    return ('vmz',)
  if 'layer1.0.conv2.0.weight' in tensors:
    return ('torchvision',)
  return ('torchvision', 'srtg') if name.startswith('r2plus1d') else ('srtg',)


def _ambiguous(name: str) -> UserError:
  theirs = published.find('r3d_18', 'torchvision', '').settings
  sizes = [
    f'{keys["data.num_frames"]} × {keys["data.input_size"]}²'
    for keys in (theirs, _SRTG)
  ]
  return UserError(
    f"The file is of {name}, which torchvision and SRTG's author name alike. "
    'Say who trained it: --family=torchvision (pixels by the mean and '
    f'deviation of its own, clips of {sizes[0]}) or --family=srtg '
    f"(ImageNet's mean, clips of {sizes[1]})."
  )


def layout(family: str, model: str) -> layouts.Layout | None:
  """Returns the layout of a family's network; None: it has no such network."""
  if family in ('pytorchvideo', 'pyslowfast'):
    x3d = {
      'pytorchvideo': layouts.PYTORCHVIDEO_X3D,
      'pyslowfast': layouts.PYSLOWFAST_X3D,
    }
    if model in mtnet.VARIANTS:
      return x3d[family]
  if family == 'hara':
    return hara.layout(model)
  if family in ('pytorch_i3d', 'mfnet'):
    return i3d_mfnet.layout(family, model)
  if model not in resnet3d.VARIANTS:
    return bottlenecks.layout(family, model)
  if model == 'r2plus1d_34_mmaction2':
    return layouts.MMACTION2_R2PLUS1D if family == 'mmaction2' else None
  own = {'r2plus1d_34_ig65m': ('vmz',), 'mc3_18': ('torchvision',)}
  both = () if model.startswith('hara_') else ('torchvision', 'srtg')
  if family not in own.get(model, both):
    return None
  row = resnet3d.VARIANTS[model]
  return layouts.resnet(
    bottleneck=row['depth'] >= 50,
    factorized=row['convolution'] == 'r2plus1d',
    contained=family == 'srtg',
  )


def settings(
  family: str,
  model: str,
  tensors: Mapping[str, np.ndarray],
  bgr: bool = False,
  source: str | pathlib.Path = '',
) -> dict[str, Any]:
  """Returns the keys of a configuration that weights ask for, with values.

  Args:
    family: one of `FAMILIES`.
    model: the network's name, or that of a row of `published`.
    tensors: the tensors of the file, by name.
    bgr: the network was trained on frames with blue first.
    source: the file.

  Raises:
    UserError: the file could be of several kinds of clips.
  """
  network = published.network_of(model)
  (bias,) = layout(family, network).sources(f'params/{CLASSIFIER}/bias')
  classes = np.size(tensors[bias]) if bias in tensors else 0
  row = None
  if family != 'srtg':
    row = published.find(model, family, source, classes)
  keys = {**(row.settings if row else _SRTG), 'model.name': network}
  if bgr:
    for key in ('model.input_mean', 'model.input_std'):
      keys[key] = keys[key][::-1]
  if network in mtnet.VARIANTS:
    # The first stage's projection keeps its width. PySlowFast normalizes it all
    # the same, PyTorchVideo does not.
    sources = layout(family, network).sources(
      'params/stage_1_block_1/shortcut_norm/scale'
    )
    keys['model.norm_all_shortcuts'] = sources[0] in tensors
  elif family in ('torchvision', 'srtg'):
    keys['model.stem_pool'] = False
  elif family == 'hara' and network in resnet3d.VARIANTS:
    keys['model.project_shortcuts'] = hara.PROJECTION in tensors
  if network.startswith('srtg_'):
    keys['model.gate'] = False
  if network in slowfast.VARIANTS:
    keys |= _slowfast_settings(family, network, tensors)
  return keys


def _slowfast_settings(family, network, tensors):
  """Returns what differs between PyTorchVideo's SlowFast and MMAction2's."""
  (kernel,) = layout(family, network).sources('params/lateral_0/conv/kernel')
  keys = {'model.lateral_frames': tensors[kernel].shape[2]}
  if family == 'mmaction2':
    keys |= {'model.lateral_norm': False, 'model.slow_frames': 'nearest'}
  return keys
