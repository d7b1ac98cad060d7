"""The names of layers in K. Hara's 3-D ResNets.

Source: the modules of his repositories 3D-ResNets-PyTorch and
video-classification-3d-cnn-pytorch.
"""

import re
from collections.abc import Mapping

import numpy as np

from mtnet_jax.convert.bottlenecks import Found, units
from mtnet_jax.convert.layouts import Layout
from mtnet_jax.models import resnet3d, video_resnet

# The depth, by whether blocks are Bottlenecks, and by their number.
_DEPTHS = {(False, 8): 18, (False, 16): 34, (True, 16): 50, (True, 33): 101,
           (True, 50): 152}  # fmt: skip
_BLOCK = re.compile(r'layer\d+\.\d+')
# The tensor of the residual connection at the start of the second stage; his
# first networks have none.
PROJECTION = 'layer2.0.downsample.0.weight'


def recognize(tensors: Mapping[str, np.ndarray]) -> Found | None:
  """Recognizes one of Hara's networks by its tensors' names and shapes.

  Args:
    tensors: the tensors by name, without a prefix that all have.

  Returns:
    What was found; None: nothing that this module knows.
  """
  stem = tensors.get('conv1.weight', np.zeros(())).shape
  middle = tensors.get('layer1.0.conv2.weight', np.zeros(())).shape
  if len(stem) != 5 or stem[2:] != (7, 7, 7) or len(middle) != 5:
    return None
  bottleneck = 'layer1.0.conv3.weight' in tensors
  blocks = len({m[0] for m in map(_BLOCK.match, tensors) if m})
  depth = _DEPTHS.get((bottleneck, blocks), f'of {blocks} blocks')
  features, inputs = middle[:2]
  kind = 'hara_r3d'
  if bottleneck and (features, inputs) == (128, 4):
    kind = 'resnext3d'
  elif features != 64:
    kind = 'wide_hara_r3d'
  return Found('hara', f'{kind}_{depth}')


def layout(model: str) -> Layout | None:
  """Returns the layout of Hara's network; None: he has no such network.

  Args:
    model: our name of the network.
  """
  if not re.match('hara_|resnext3d_', model):
    return None
  convolutions = (1, 2) if model in resnet3d.VARIANTS else (1, 2, 3)
  assert model in (*resnet3d.VARIANTS, *video_resnet.VARIANTS), model
  names = {f'conv_{k}': (f'conv{k}', f'bn{k}') for k in convolutions}
  names['shortcut'] = ('downsample.0', 'downsample.1')
  return Layout(
    modules={**units({'stem': ('conv1', 'bn1')}), 'classifier': 'fc'},
    block=lambda i, j: f'layer{i}.{j - 1}',
    inside=units(names),
  )
