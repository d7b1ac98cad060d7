"""The names that other authors give to the layers of shared networks.

A layout maps a module of ours to its name in PyTorch; the tensors follow from
the module's leaves. Nothing is matched by shape.

Sources: the modules of PyTorchVideo 0.1.5 (`create_x3d`), PySlowFast (`X3D`),
torchvision 0.28 (`VideoResNet`), the thesis's author's repository
Squeeze-and-Recursion-Temporal-Gates (`VideoResNet`), and MMAction2 1.2
(`ResNet2Plus1d`).
"""

import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

_LEAVES = types.MappingProxyType(
  {
    'kernel': ('weight',),
    'scale': ('weight',),
    'bias': ('bias',),
    'mean': ('running_mean',),
    'var': ('running_var',),
  }
)
# PyTorch's LSTM adds two biases, one for the input and one for the recurrence;
# its gates are in our order, i f g o.
_LSTM_LEAVES = types.MappingProxyType(
  {
    'kernel_x': ('weight_ih_l{}',),
    'kernel_h': ('weight_hh_l{}',),
    'bias': ('bias_ih_l{}', 'bias_hh_l{}'),
  }
)
# Layers that are fully connected in PyTorch too, and no 1×1×1 convolutions.
_LINEAR = 'classifier'


class Layout(NamedTuple):
  """PyTorch's module names by ours.

  Attributes:
    modules: outside of blocks, and those inside that have no common name.
    block: the name of block j of stage i, both counted from 1.
    inside: modules in a block, below its name.
    even: the names within a block that differ in each stage's second block, its
      fourth and so on.
    fast_block: the same as `block`, for SlowFast's fast pathway.
    head_first: the number of the class head's inputs that are the first there,
      and the last here.
  """

  modules: Mapping[str, str]
  block: Callable[[int, int], str]
  inside: Mapping[str, str]
  even: Mapping[str, str] = types.MappingProxyType({})
  fast_block: Callable[[int, int], str] | None = None
  head_first: int = 0

  def sources(self, path: str) -> tuple[str, ...]:
    """Returns the names of a leaf's tensors; () where there are none.

    Args:
      path: the leaf's path, 'params/stage_1_block_2/expand/local/kernel'.
    """
    _, *modules, leaf = path.split('/')
    leaves = _LEAVES
    layer = re.fullmatch(r'layer_(\d)', modules[-1])
    if layer:
      modules.pop()
      leaves = {
        ours: tuple(name.format(layer[1]) for name in names)
        for ours, names in _LSTM_LEAVES.items()
      }
    module = self._module('/'.join(modules))
    if module is None or leaf not in leaves:
      return ()
    return tuple(f'{module}.{name}' for name in leaves[leaf])

  def _module(self, path: str) -> str | None:
    parts = re.fullmatch(r'(fast_)?stage_(\d)_block_(\d+)/(.+)', path)
    if not parts or path in self.modules:
      return self.modules.get(path)
    fast, i, j, module = parts.groups()
    block = self.fast_block if fast else self.block
    names = self.inside if int(j) % 2 else {**self.inside, **self.even}
    below = names.get(module)
    return below and block and f'{block(int(i), int(j))}.{below}'


def torch_shapes(
  path: str, shape: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
  """Returns the shapes that the tensors of a leaf may have.

  The first shape has all axes. Kernels of 2-D networks lack the axis of frames,
  kernels over frames alone those of rows and columns, and linear layers all
  three. The classifier may be a convolution.

  Args:
    path: the leaf's path.
    shape: the leaf's shape.
  """
  *_, module, leaf = path.split('/')
  if leaf != 'kernel' or module == _LINEAR:
    backward = tuple(reversed(shape))
    more = [(*backward, 1, 1, 1)] if leaf == 'kernel' else []
    return (backward, *more)
  around, (c, f) = shape[:-2], shape[-2:]
  t, h, w = around or (1, 1, 1)
  shapes = [(f, c, t, h, w)]
  if t == 1:
    shapes.append((f, c, h, w))
  if h == w == 1:
    shapes.append((f, c, t))
  if t == h == w == 1:
    shapes.append((f, c))
  return tuple(shapes)


def from_torch(
  tensors: Sequence[np.ndarray], shape: Sequence[int]
) -> np.ndarray:
  """Returns a leaf.

  Args:
    tensors: the tensors that it is made of, each of one of `torch_shapes`.
      Several are added.
    shape: the leaf's shape.
  """
  tensor = sum(tensors[1:], tensors[0])
  if len(shape) == 5:
    *around, c, f = shape
    tensor = tensor.reshape(f, c, *around)
    return tensor.transpose(2, 3, 4, 1, 0)  # f c t h w -> t h w c f
  return tensor.reshape(tuple(reversed(shape))).T


# PyTorchVideo's `conv_t` is the stem's convolution in space: it stands where in
# other networks the one in time does.
PYTORCHVIDEO_X3D = Layout(
  modules={
    'stem_spatial': 'blocks.0.conv.conv_t',
    'stem_temporal': 'blocks.0.conv.conv_xy',
    'stem_norm': 'blocks.0.norm',
    'head': 'blocks.5.pool.pre_conv',
    'head_norm': 'blocks.5.pool.pre_norm',
    'linear': 'blocks.5.pool.post_conv',
    'classifier': 'blocks.5.proj',
  },
  block=lambda i, j: f'blocks.{i}.res_blocks.{j - 1}',
  inside={
    'expand/local': 'branch2.conv_a',
    'expand/local_norm': 'branch2.norm_a',
    'separated/local': 'branch2.conv_b',
    'separated/local_norm': 'branch2.norm_b.0',
    'squeeze_excitation/reduce': 'branch2.norm_b.1.block.0',
    'squeeze_excitation/expand': 'branch2.norm_b.1.block.2',
    'project/local': 'branch2.conv_c',
    'project/local_norm': 'branch2.norm_c',
    'shortcut': 'branch1_conv',
    'shortcut_norm': 'branch1_norm',
  },
)
PYSLOWFAST_X3D = Layout(
  modules={
    'stem_spatial': 's1.pathway0_stem.conv_xy',
    'stem_temporal': 's1.pathway0_stem.conv',
    'stem_norm': 's1.pathway0_stem.bn',
    'head': 'head.conv_5',
    'head_norm': 'head.conv_5_bn',
    'linear': 'head.lin_5',
    'classifier': 'head.projection',
  },
  block=lambda i, j: f's{i + 1}.pathway0_res{j - 1}',
  inside={
    'expand/local': 'branch2.a',
    'expand/local_norm': 'branch2.a_bn',
    'separated/local': 'branch2.b',
    'separated/local_norm': 'branch2.b_bn',
    'squeeze_excitation/reduce': 'branch2.se.fc1',
    'squeeze_excitation/expand': 'branch2.se.fc2',
    'project/local': 'branch2.c',
    'project/local_norm': 'branch2.c_bn',
    'shortcut': 'branch1',
    'shortcut_norm': 'branch1_bn',
  },
)
# The author of SRTG has torchvision's names, except that cubic kernels are in a
# container and SRTG is added. Factorized kernels are in a container in both.
_FACTORIZED_STEM = {
  'stem/spatial': 'stem.0',
  'stem/spatial_norm': 'stem.1',
  'stem/temporal': 'stem.3',
  'stem/norm': 'stem.4',
}
_CUBIC_STEM = {'stem/conv': 'stem.0', 'stem/norm': 'stem.1'}


def resnet(*, bottleneck: bool, factorized: bool, contained: bool) -> Layout:
  """Returns the layout of torchvision's and of the author's 3-D ResNets.

  Args:
    bottleneck: the second of a block's three convolutions is the one in time
      and space; else both of two are.
    factorized: (2+1)D.
    contained: cubic kernels are in a container of their own.
  """
  inside = {
    'shortcut/conv': 'downsample.0',
    'shortcut/norm': 'downsample.1',
    'srtg/recurrence': 'sar.lstm',
  }
  for k in (1, 2, 3) if bottleneck else (1, 2):
    inside[f'conv_{k}/norm'] = f'conv{k}.1'
    if bottleneck and k != 2:
      inside[f'conv_{k}/conv'] = f'conv{k}.0'
    elif factorized:
      inside[f'conv_{k}/spatial'] = f'conv{k}.0.0'
      inside[f'conv_{k}/spatial_norm'] = f'conv{k}.0.1'
      inside[f'conv_{k}/temporal'] = f'conv{k}.0.3'
    else:
      inside[f'conv_{k}/conv'] = f'conv{k}.0.0' if contained else f'conv{k}.0'
  stem = _FACTORIZED_STEM if factorized else _CUBIC_STEM
  return Layout(
    modules={**stem, 'classifier': 'fc'},
    block=lambda i, j: f'layer{i}.{j - 1}',
    inside=inside,
  )


def _mmaction2_factors(unit: str, name: str) -> dict[str, str]:
  return {
    f'{unit}/spatial': f'{name}.conv.conv_s',
    f'{unit}/spatial_norm': f'{name}.conv.bn_s',
    f'{unit}/temporal': f'{name}.conv.conv_t',
    f'{unit}/norm': f'{name}.bn',
  }


MMACTION2_R2PLUS1D = Layout(
  modules={
    **_mmaction2_factors('stem', 'backbone.conv1'),
    'classifier': 'cls_head.fc_cls',
  },
  block=lambda i, j: f'backbone.layer{i}.{j - 1}',
  inside={
    **_mmaction2_factors('conv_1', 'conv1'),
    **_mmaction2_factors('conv_2', 'conv2'),
    **_mmaction2_factors('shortcut', 'downsample'),
  },
)
