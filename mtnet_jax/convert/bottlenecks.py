"""The names of layers in other authors' bottleneck ResNets.

Sources: the modules of PyTorchVideo 0.1.5 (`create_resnet`, `create_csn`,
`create_slowfast`), MMAction2 1.2 (`ResNet3d`, `ResNet3dSlowFast`,
`ResNet3dCSN`, `ResNetTSM`, `TANet`), the repository temporal-shift-module of
TSM's author, and VMZ (`pt/vmz/models/csn.py`).
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mtnet_jax.convert.layouts import Layout
from mtnet_jax.models import slowfast, video_resnet

Shapes = Mapping[str, tuple[int, ...]]


class Found(NamedTuple):
  """The family and network that a file was recognized as.

  Attributes:
    family: one of `families.FAMILIES`.
    model: our name of the network, or of one that we have not.
  """

  family: str
  model: str


def recognize(tensors: Mapping[str, np.ndarray]) -> Found | None:
  """Recognizes a bottleneck ResNet by the names and shapes of its tensors.

  Args:
    tensors: the tensors by name, without a prefix that all have.

  Returns:
    What was found; None: nothing that this module knows.
  """
  shapes = {name: tensor.shape for name, tensor in tensors.items()}
  for sign, axes, tell in _SIGNS:
    if len(shapes.get(sign, ())) == axes and (found := tell(shapes)):
      return found
  return None


def _depth(shapes: Shapes, third: str) -> str:
  """Returns the depth, by how many blocks the third stage has."""
  pattern = re.compile(re.escape(third) + r'(\d+)\.')
  count = len({m[1] for m in map(pattern.match, shapes) if m})
  depths = {6: '50', 23: '101', 36: '152'}
  return depths.get(count, f'of {count} blocks in its third stage')


def _pytorchvideo_slowfast(shapes):
  third = 'blocks.3.multipathway_blocks.0.res_blocks.'
  lateral = 'blocks.0.multipathway_fusion.conv_fast_to_slow.weight'
  last = f'{third}22.branch2.conv_a.weight'
  depth = _depth(shapes, third)
  return Found('pytorchvideo', _slowfast(shapes, depth, lateral, last))


def _mmaction2_slowfast(shapes):
  third = 'backbone.slow_path.layer3.'
  lateral = 'backbone.slow_path.conv1_lateral.conv.weight'
  last = f'{third}22.conv1.conv.weight'
  depth = _depth(shapes, third)
  return Found('mmaction2', _slowfast(shapes, depth, lateral, last))


def _slowfast(shapes, depth, lateral, last):
  if depth == '101':
    few = shapes.get(last, (0, 0, 3))[2] == 1
    return f'slowfast_r101_{"16x8" if few else "8x8"}'
  if depth == '50' and len(shapes.get(lateral, ())) == 5:
    kind = {5: '4x16', 7: '8x8'}.get(shapes[lateral][2])
    return f'slowfast_r50_{kind}' if kind else None
  return f'slowfast_r{depth}'


def _pytorchvideo(shapes):
  branch = 'blocks.1.res_blocks.0.branch2.conv_b'
  if len(shapes.get(f'{branch}.conv_t.weight', ())) == 5:
    depth = _depth(shapes, 'blocks.3.res_blocks.')
    return Found('pytorchvideo', f'ptv_r2plus1d_r{depth}')
  middle = shapes.get(f'{branch}.weight', ())
  if len(middle) != 5:
    return None
  stem = shapes['blocks.0.conv.weight']
  pools = 'blocks.6.proj.weight' in shapes
  depth = _depth(shapes, f'blocks.{4 if pools else 3}.res_blocks.')
  if middle[1] == 1:
    model = f'ir_csn_{depth}'
  elif pools:
    model = f'{"i3d" if stem[2] == 5 else "c2d"}_r{depth}'
  else:
    model = f'slow_r{depth}'
  return Found('pytorchvideo', model)


def _mmaction2(shapes):
  stem = shapes.get('backbone.conv1.conv.weight', (0, 0, 0))
  depth = _depth(shapes, 'backbone.layer3.')
  name = f'i3d_r{depth}_32x2' if stem[2] == 5 else f'slow_r{depth}'
  return Found('mmaction2', name)


def _mmaction2_r2plus1d(shapes):
  depth = _depth(shapes, 'backbone.layer3.')
  basic = 'backbone.layer1.0.conv3.conv.weight' not in shapes
  if basic and depth == '50':  # as many blocks as of 34 layers
    depth = '34'
  return Found('mmaction2', f'r2plus1d_{depth}_mmaction2')


def _mmaction2_csn(shapes):
  kind = 'ip' if 'backbone.layer1.0.conv2.1.conv.weight' in shapes else 'ir'
  depth = _depth(shapes, 'backbone.layer3.')
  return Found('mmaction2', f'{kind}_csn_{depth}')


def _mmaction2_tsm(shapes):
  return Found('mmaction2', f'tsm_r{_depth(shapes, "backbone.layer3.")}')


def _tsm(shapes):
  return Found('tsm', f'tsm_r{_depth(shapes, "base_model.layer3.")}')


def _mmaction2_tanet(shapes):
  frames = shapes['backbone.layer1.0.tam.G.0.weight'][1]
  depth = _depth(shapes, 'backbone.layer3.')
  return Found('mmaction2', f'tanet_r{depth}_{frames}')


def _vmz_ir(shapes):
  # torchvision's cubic kernels have the same name.
  if shapes['layer1.0.conv2.0.weight'][1] != 1:
    return None
  return Found('vmz', f'ir_csn_{_depth(shapes, "layer3.")}')


def _vmz_ip(shapes):
  # The author of SRTG has a cubic or a spatial kernel there.
  if shapes['layer1.0.conv2.0.0.weight'][2:] != (1, 1, 1):
    return None
  return Found('vmz', f'ip_csn_{_depth(shapes, "layer3.")}')


# A tensor that only one kind of file has, its axes, and what distinguishes
# further.
_SIGNS: tuple[tuple[str, int, Callable[[Shapes], Found | None]], ...] = (
  ('blocks.0.multipathway_blocks.0.conv.weight', 5, _pytorchvideo_slowfast),
  ('backbone.slow_path.conv1.conv.weight', 5, _mmaction2_slowfast),
  # X3D's stem has two convolutions, of other names.
  ('blocks.0.conv.weight', 5, _pytorchvideo),
  ('backbone.layer1.0.tam.G.0.weight', 2, _mmaction2_tanet),
  ('backbone.layer1.0.conv1.conv.net.weight', 4, _mmaction2_tsm),
  ('backbone.layer1.0.conv2.0.conv.weight', 5, _mmaction2_csn),
  ('backbone.layer1.0.conv2.conv.weight', 5, _mmaction2),
  ('backbone.layer1.0.conv2.conv.conv_s.weight', 5, _mmaction2_r2plus1d),
  ('base_model.layer1.0.conv1.net.weight', 4, _tsm),
  ('layer1.0.conv2.0.weight', 5, _vmz_ir),
  ('layer1.0.conv2.0.0.weight', 5, _vmz_ip),
)


def layout(family: str, model: str) -> Layout | None:
  """Returns the layout of a family's network; None: it has no such network.

  Args:
    family: one of `families.FAMILIES`.
    model: our name of the network.
  """
  if not re.match(_NETWORKS.get(family, '$'), model):
    return None
  if model in slowfast.VARIANTS:
    both = {
      'pytorchvideo': _PYTORCHVIDEO_SLOWFAST,
      'mmaction2': _MMACTION2_SLOWFAST,
    }
    return both[family]
  make = {
    'pytorchvideo': _pytorchvideo_layout,
    'mmaction2': _mmaction2_layout,
    'tsm': _tsm_layout,
    'vmz': _vmz_layout,
  }
  return make[family](video_resnet.VARIANTS[model])


# The networks for which a family has names.
_NETWORKS = {
  'pytorchvideo': 'c2d_|slow|i3d_r50$|ir_csn|ptv_',
  'mmaction2': 'slow|i3d_r50_32x2|tsm_|tanet_|i[rp]_csn',
  'tsm': 'tsm_',
  'vmz': 'i[rp]_csn',
}


def units(names: Mapping[str, tuple[str, str]]) -> dict[str, str]:
  """Returns the modules of units of a convolution and its BN.

  Args:
    names: the names of the units' modules, by unit.
  """
  return {
    f'{unit}/{part}': name
    for unit, pair in names.items()
    for part, name in zip(('conv', 'norm'), pair, strict=True)
  }


_IN_PYTORCHVIDEO = units(
  {
    'conv_1': ('branch2.conv_a', 'branch2.norm_a'),
    'conv_2': ('branch2.conv_b', 'branch2.norm_b'),
    'conv_3': ('branch2.conv_c', 'branch2.norm_c'),
    'shortcut': ('branch1_conv', 'branch1_norm'),
  }
)


def _pytorchvideo_layout(pathway):
  # There is a pooling layer among the stages, in I3D and C2D.
  pool = int(pathway.pool_pairs)
  stem = units({'stem': ('blocks.0.conv', 'blocks.0.norm')})
  factors = {}
  if pathway.middle == 'factorized':
    factors = units(
      {
        'temporal': ('branch2.conv_b.conv_t', 'branch2.conv_b.norm'),
        'conv_2': ('branch2.conv_b.conv_xy', 'branch2.norm_b'),
      }
    )
  return Layout(
    modules={**stem, 'classifier': f'blocks.{5 + pool}.proj'},
    block=lambda i, j: f'blocks.{i + pool * (i > 1)}.res_blocks.{j - 1}',
    inside={**_IN_PYTORCHVIDEO, **factors},
  )


def _multipathway(i, pathway):
  return f'blocks.{i}.multipathway_blocks.{pathway}'


_PYTORCHVIDEO_SLOWFAST = Layout(
  modules={
    **units(
      {
        f'{name}stem': (f'{start}.conv', f'{start}.norm')
        for name, pathway in (('', 0), ('fast_', 1))
        for start in [_multipathway(0, pathway)]
      }
    ),
    **units(
      {
        f'lateral_{i}': (f'{start}.conv_fast_to_slow', f'{start}.norm')
        for i in range(4)
        for start in [f'blocks.{i}.multipathway_fusion']
      }
    ),
    'classifier': 'blocks.6.proj',
  },
  block=lambda i, j: f'{_multipathway(i, 0)}.res_blocks.{j - 1}',
  fast_block=lambda i, j: f'{_multipathway(i, 1)}.res_blocks.{j - 1}',
  inside=_IN_PYTORCHVIDEO,
)


def _mm_units(names: Mapping[str, str]) -> dict[str, str]:
  """Returns names as in MMAction2: a module has a `conv` and a `bn`."""
  return units({k: (f'{name}.conv', f'{name}.bn') for k, name in names.items()})


def _mmaction2_layout(pathway):
  block, conv_2 = '', {'conv_2': 'conv2'}
  if pathway.adaptive_frames:
    block = 'block.'
  if pathway.middle == 'ir':
    conv_2 = {'conv_2': 'conv2.0'}
  elif pathway.middle == 'ip':
    conv_2 = {'mix': 'conv2.0', 'conv_2': 'conv2.1'}
  names = {'conv_1': 'conv1', **conv_2, 'conv_3': 'conv3'}
  names |= {'shortcut': 'downsample'}
  inside = _mm_units({unit: f'{block}{name}' for unit, name in names.items()})
  plain = inside['conv_1/conv']
  shifted = {}
  if pathway.shift_every:
    shifted = {'conv_1/conv': f'{plain}.net'}
  if pathway.adaptive_frames:
    inside |= _adaptive('tam')
  return Layout(
    modules={
      **_mm_units({'stem': 'backbone.conv1'}),
      'classifier': 'cls_head.fc_cls',
    },
    block=lambda i, j: f'backbone.layer{i}.{j - 1}',
    inside={**inside, **shifted},
    even={'conv_1/conv': plain} if pathway.shift_every == 2 else {},
  )


def _adaptive(name):
  names = {
    'kernel_hidden': 'G.0',
    'kernel_norm': 'G.1',
    'kernel_output': 'G.3',
    'gate_reduce': 'L.0',
    'gate_norm': 'L.1',
    'gate_expand': 'L.3',
  }
  return {f'adaptive/{k}': f'{name}.{below}' for k, below in names.items()}


_MMACTION2_SLOWFAST = Layout(
  modules={
    **_mm_units(
      {
        'stem': 'backbone.slow_path.conv1',
        'fast_stem': 'backbone.fast_path.conv1',
        'lateral_0': 'backbone.slow_path.conv1_lateral',
        **{
          f'lateral_{i}': f'backbone.slow_path.layer{i}_lateral'
          for i in (1, 2, 3)
        },
      }
    ),
    'classifier': 'cls_head.fc_cls',
  },
  block=lambda i, j: f'backbone.slow_path.layer{i}.{j - 1}',
  fast_block=lambda i, j: f'backbone.fast_path.layer{i}.{j - 1}',
  inside=_mm_units(
    {
      **{f'conv_{k}': f'conv{k}' for k in (1, 2, 3)},
      'shortcut': 'downsample',
    }
  ),
  head_first=256,  # the fast pathway's channels
)


def _tsm_layout(pathway):
  start = 'base_model'
  inside = units({f'conv_{k}': (f'conv{k}', f'bn{k}') for k in (1, 2, 3)})
  inside |= units({'shortcut': ('downsample.0', 'downsample.1')})
  shifted = {'conv_1/conv': 'conv1.net'}
  return Layout(
    modules={
      **units({'stem': (f'{start}.conv1', f'{start}.bn1')}),
      'classifier': 'new_fc',
    },
    block=lambda i, j: f'{start}.layer{i}.{j - 1}',
    inside={**inside, **shifted},
    even={'conv_1/conv': 'conv1'} if pathway.shift_every == 2 else {},
  )


def _vmz_layout(pathway):
  middles = {
    'ir': {'conv_2': ('conv2.0', 'conv2.1')},
    'ip': {
      'mix': ('conv2.0.0', 'conv2.0.1'),
      'conv_2': ('conv2.0.2', 'conv2.1'),
    },
  }
  names = {f'conv_{k}': (f'conv{k}.0', f'conv{k}.1') for k in (1, 3)}
  names |= middles[pathway.middle]
  names |= {'shortcut': ('downsample.0', 'downsample.1')}
  return Layout(
    modules={**units({'stem': ('stem.0', 'stem.1')}), 'classifier': 'fc'},
    block=lambda i, j: f'layer{i}.{j - 1}',
    inside=units(names),
  )
