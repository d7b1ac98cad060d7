"""Every array of ours has its tensors, and every tensor its array."""

import functools
import re

import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.convert import conversion, families, layouts
from mtnet_jax.errors import UserError
from mtnet_jax.models import slowfast, video_resnet
from mtnet_jax.runs.leaves import leaf_paths
from tests.convert import tensor_names

_RESNETS = [
  f'{srtg}{kind}_{depth}'
  for srtg in ('', 'srtg_')
  for kind in ('r3d', 'r2plus1d')
  for depth in tensor_names.DEPTHS
]
_RESNETS += ['wide_r3d_50', 'srtg_wide_r3d_50']
_X3D = list(tensor_names.X3D_DEPTHS)
_PAIRS = [
  *(
    (name, family) for name in _X3D for family in ('pytorchvideo', 'pyslowfast')
  ),
  *((name, 'torchvision') for name in ('r3d_18', 'r2plus1d_18')),
  *((name, 'srtg') for name in _RESNETS),
]


def _paths(name, norm_all_shortcuts):
  """A network's leaves. The deeper repeat the blocks of the others."""
  if name in _X3D:
    traced, depths = (
      _traced('x3d_xs', norm_all_shortcuts),
      tensor_names.X3D_DEPTHS,
    )
    wanted, period = depths[name], 2  # every other block has other parts
  else:
    depth = name.split('_')[-1]
    shallow = '18' if int(depth) < 50 else '50'
    traced = _traced(name.removesuffix(depth) + shallow, False)
    wanted, period = tensor_names.DEPTHS[depth], 1
  paths = [path for path in traced if 'stage_' not in path]
  for i, count in enumerate(wanted, start=1):
    for j in range(1, count + 1):
      like = j if j == 1 else 2 + (j - 2) % period
      start = f'/stage_{i}_block_{like}/'
      paths += [
        path.replace(start, f'/stage_{i}_block_{j}/')
        for path in traced
        if start in path
      ]
  return paths


@functools.cache
def _traced(name, norm_all_shortcuts):
  fields = {'norm_all_shortcuts': norm_all_shortcuts} if name in _X3D else {}
  model = models.build(name, 5, **fields)
  return [*leaf_paths(conversion.variable_shapes(model, (2, 32, 32, 3)))]


def test_the_repeated_blocks_are_those_of_the_network():
  assert sorted(_paths('r3d_34', False)) == sorted(_traced('r3d_34', False))
  assert sorted(_paths('x3d_s', True)) == sorted(_traced('x3d_s', True))


@pytest.mark.parametrize(('name', 'family'), _PAIRS)
def test_each_is_taken_once(name, family):
  layout = families.layout(family, name)
  paths = _paths(name, norm_all_shortcuts=family == 'pyslowfast')
  taken = [source for path in paths for source in layout.sources(path)]
  listed = tensor_names.of(name, family)
  wanted = [n for n in listed if not n.endswith('num_batches_tracked')]
  assert sorted(taken) == sorted(wanted)
  assert all(layout.sources(path) for path in paths)
  counters = len(listed) - len(wanted)
  assert counters == sum(path.endswith('/var') for path in paths)


def test_every_network_is_in_a_family_or_refused():
  known = {name for name, _ in _PAIRS}
  known |= {*video_resnet.VARIANTS, *slowfast.VARIANTS}
  known |= {'hara_r3d_18', 'hara_r3d_34', 'mc3_18'}
  known |= {'r2plus1d_34_ig65m', 'r2plus1d_34_mmaction2'}
  known |= {'i3d_inception', 'mfnet'}
  for name in models.NAMES:
    if name in known:
      families.check_model(name)
    else:
      assert re.match('mtnet_|mt_r3d|x3d_xl', name)
      with pytest.raises(
        UserError, match=f'no PyTorch weights for --model={name}'
      ):
        families.check_model(name)


@pytest.mark.parametrize(('name', 'family'), _PAIRS)
def test_files_are_recognized(name, family):
  tensors = dict.fromkeys(tensor_names.of(name, family), np.zeros(1))
  width = 128 if 'wide' in name else 64
  tensors |= (
    {
      'layer1.0.conv1.0.weight': np.zeros((width, 64, 1, 1, 1)),
      'layer1.0.conv3.0.weight': np.zeros((64, width, 1, 1, 1)),
    }
    if 'layer1.0.conv3.0.weight' in tensors
    else {}
  )
  origin = families.recognize(
    tensors, '', family if name.startswith('r2plus1d') else None
  )
  assert origin.family == family and name in origin.models
  assert name in _X3D or origin.models == (name,)


def test_where_names_leave_a_choice():
  tensors = dict.fromkeys(tensor_names.of('r2plus1d_18', 'srtg'), np.zeros(1))
  assert families.recognize(tensors, '').family == 'torchvision'
  assert families.recognize(tensors, '', 'srtg').family == 'srtg'
  for prefix in ('module.', 'module.model.'):
    with pytest.raises(UserError, match=r'r2plus1d_18, which torchv.* alike'):
      families.recognize(tensors, prefix)
  assert families.recognize(tensors, 'module.', 'torchvision').text == (
    'r2plus1d_18 of torchvision'
  )
  with pytest.raises(UserError, match='but as in torchvision or srtg'):
    families.recognize(tensors, '', 'pyslowfast')
  assert families.recognize({'conv1.weight': np.zeros(1)}, '') is None
  deeper = dict.fromkeys(tensor_names.of('r2plus1d_34', 'srtg'), np.zeros(1))
  with pytest.raises(
    UserError, match=r'--family=torchvision .*16 × 112².*224²'
  ):
    families.recognize(deeper, '')
  assert families.recognize(deeper, '', 'srtg').models == ('r2plus1d_34',)


@pytest.mark.parametrize('change', [None, np.zeros(())])
def test_bottlenecks_without_a_width(change):
  name = 'layer1.0.conv1.0.weight'
  tensors = dict.fromkeys(tensor_names.of('r3d_50', 'srtg'), np.zeros(1))
  tensors[name] = change
  if change is None:
    del tensors[name]
  with pytest.raises(UserError, match=f'{name} is missing or a single number'):
    families.recognize(tensors, '')


def test_networks_that_we_have_not():
  tensors = tensor_names.of('r3d_18', 'torchvision') + [
    'layer4.2.conv1.0.weight'
  ]
  origin = families.recognize(dict.fromkeys(tensors, np.zeros(1)), '')
  assert origin.models == () and origin.text == (
    'r3d of 9 blocks of torchvision'
  )


def test_kernels_by_hand():
  kernel = np.arange(2 * 3 * 1 * 2 * 2.0).reshape(2, 3, 1, 2, 2)  # f c t h w
  shape = (1, 2, 2, 3, 2)
  assert (
    layouts.torch_shapes('params/stem/conv/kernel', shape)[0] == kernel.shape
  )
  turned = layouts.from_torch([kernel], shape)
  assert (
    turned.shape == shape and turned[0, 1, 0, 2, 1] == kernel[1, 2, 0, 1, 0]
  )
  dense = np.arange(6.0).reshape(2, 3)
  shapes = layouts.torch_shapes('params/classifier/kernel', (3, 2))
  assert shapes == ((2, 3), (2, 3, 1, 1, 1))
  np.testing.assert_array_equal(layouts.from_torch([dense], (3, 2)), dense.T)
  # As a convolution, it is the same.
  wanted = (2, 3, 1, 1, 1)
  assert layouts.torch_shapes('params/linear/kernel', (3, 2))[0] == wanted
  np.testing.assert_array_equal(
    layouts.from_torch([dense[:, :, None, None, None]], (3, 2)), dense.T
  )
  both = layouts.from_torch([np.array([1.0, 2]), np.array([10.0, 20])], (2,))
  np.testing.assert_array_equal(both, [11, 22])


def test_settings_of_a_family():
  names = tensor_names.of('x3d_l', 'pytorchvideo')
  keys = families.settings('pytorchvideo', 'x3d_l', dict.fromkeys(names))
  assert keys['model.norm_all_shortcuts'] is False
  assert keys['data.num_frames'] == 16 and keys['data.input_size'] == 312
  names = tensor_names.of('x3d_xs', 'pyslowfast')
  keys = families.settings('pyslowfast', 'x3d_xs', dict.fromkeys(names))
  assert keys['model.norm_all_shortcuts'] is True
  assert keys['data.num_frames'] == 4 and keys['data.frame_stride'] == 16
  keys = families.settings('srtg', 'srtg_r3d_50', {}, bgr=True)
  assert keys['model.gate'] is keys['model.stem_pool'] is False
  np.testing.assert_allclose(
    np.array(keys['model.input_mean']) * 255, [104, 117, 124]
  )
  np.testing.assert_allclose(keys['model.input_std'], [0.2348] * 3, atol=1e-4)


@pytest.mark.parametrize(
  ('model', 'family', 'kernel'),
  [
    # A bottleneck's first kernel is a point, of a Simple block it tells MC3.
    ('wide_r3d_50', 'srtg', (1, 1, 1)),
    ('r3d_50', 'torchvision', (1, 1, 1)),
    ('r3d_18', 'torchvision', (3, 3, 3)),
    ('mc3_18', 'torchvision', (1, 3, 3)),
  ],
)
def test_flat_kernels_of_simple_blocks_are_mc3_s(model, family, kernel):
  names = tensor_names.resnet(model, family)
  tensors = {
    name: np.zeros((64, 64, *((3, 3, 3) if '.conv2.' in name else kernel)))
    for name in names
  }
  if model.startswith('wide'):
    tensors['layer1.0.conv1.0.weight'] = np.zeros((128, 64, 1, 1, 1))
  origin = families.recognize(tensors, '', family)
  assert model in origin.models, origin
