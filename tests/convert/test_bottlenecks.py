"""Networks of other authors: their names, and what names do not tell."""

import re

import jax
import numpy as np
import pytest

from configs import base
from mtnet_jax import models
from mtnet_jax.convert import (
  bottlenecks,
  conversion,
  families,
  layouts,
  published,
  torch_files,
  torch_weights,
)
from mtnet_jax.errors import UserError
from mtnet_jax.models import slowfast, video_resnet
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.leaves import leaf_paths
from tests.convert import tensor_names

_NETWORKS = (
  *video_resnet.VARIANTS,
  *slowfast.VARIANTS,
  *('mc3_18', 'hara_r3d_18', 'hara_r3d_34'),
  *('r2plus1d_34_ig65m', 'r2plus1d_34_mmaction2'),
  *('i3d_inception', 'mfnet'),
)
_PAIRS = [
  (network, family)
  for network in _NETWORKS
  for family in families.FAMILIES
  if families.layout(family, network) is not None
]
_OPTIONS = {
  'mmaction2': {'lateral_norm': False, 'slow_frames': 'nearest'},
}


def _shapes(network, **options):
  frames = network.startswith('tanet') and models.DEFAULT_CLIPS[network][0]
  clip = (frames or 8, 32, 32, 3)
  model = models.build(network, 5, **options)
  shapes = leaf_paths(model_lib.variable_shapes(model, clip))
  return {path: leaf.shape for path, leaf in shapes.items()}


def _options(network, family):
  return _OPTIONS.get(family, {}) if 'slowfast' in network else {}


# Of the deepest, tracing takes long.
_CASES = [
  pytest.param(
    *pair, marks=[pytest.mark.slow] * ('101' in pair[0] or '152' in pair[0])
  )
  for pair in _PAIRS
]


def test_each_family_has_what_its_authors_publish():
  assert len({row.name for row in published.rows()}) == 104
  for row in published.rows():
    assert families.layout(row.family, row.network) is not None, row.name


@pytest.mark.parametrize(('network', 'family'), _CASES)
def test_each_array_has_a_tensor_of_its_own(network, family):
  layout = families.layout(family, network)
  paths = _shapes(network, **_options(network, family))
  sources = [layout.sources(path) for path in paths]
  assert all(len(names) == 1 for names in sources)
  assert len({names[0] for names in sources}) == len(paths)


@pytest.mark.parametrize(
  ('network', 'family', 'path', 'name'),
  [
    (
      'slow_r50',
      'pytorchvideo',
      'stage_2_block_1/conv_2/conv/kernel',
      'blocks.2.res_blocks.0.branch2.conv_b.weight',
    ),
    # A pooling layer comes between.
    (
      'i3d_r50',
      'pytorchvideo',
      'stage_2_block_1/shortcut/norm/scale',
      'blocks.3.res_blocks.0.branch1_norm.weight',
    ),
    ('c2d_r50', 'pytorchvideo', 'classifier/bias', 'blocks.6.proj.bias'),
    (
      'slowfast_r50_8x8',
      'pytorchvideo',
      'fast_stage_4_block_3/conv_1/conv/kernel',
      'blocks.4.multipathway_blocks.1.res_blocks.2.branch2.conv_a.weight',
    ),
    (
      'slowfast_r50_8x8',
      'mmaction2',
      'lateral_3/conv/kernel',
      'backbone.slow_path.layer3_lateral.conv.weight',
    ),
    (
      'tanet_r50_8',
      'mmaction2',
      'stage_1_block_2/adaptive/kernel_output/kernel',
      'backbone.layer1.1.tam.G.3.weight',
    ),
    # Of 101 layers every other block shifts.
    (
      'tsm_r101',
      'tsm',
      'stage_3_block_23/conv_1/conv/kernel',
      'base_model.layer3.22.conv1.net.weight',
    ),
    (
      'tsm_r101',
      'tsm',
      'stage_3_block_22/conv_1/conv/kernel',
      'base_model.layer3.21.conv1.weight',
    ),
    (
      'ip_csn_152',
      'vmz',
      'stage_1_block_1/conv_2/conv/kernel',
      'layer1.0.conv2.0.2.weight',
    ),
    (
      'ip_csn_152',
      'mmaction2',
      'stage_1_block_1/mix/norm/bias',
      'backbone.layer1.0.conv2.0.bn.bias',
    ),
    # Time comes first, and its kernel is called that of space elsewhere.
    (
      'ptv_r2plus1d_r50',
      'pytorchvideo',
      'stage_3_block_1/temporal/conv/kernel',
      'blocks.3.res_blocks.0.branch2.conv_b.conv_t.weight',
    ),
    (
      'ptv_r2plus1d_r50',
      'pytorchvideo',
      'stage_3_block_1/conv_2/norm/scale',
      'blocks.3.res_blocks.0.branch2.norm_b.weight',
    ),
    (
      'r2plus1d_34_ig65m',
      'vmz',
      'stage_2_block_1/conv_2/temporal/kernel',
      'layer2.0.conv2.0.3.weight',
    ),
    (
      'r2plus1d_34_mmaction2',
      'mmaction2',
      'stage_2_block_1/shortcut/spatial_norm/mean',
      'backbone.layer2.0.downsample.conv.bn_s.running_mean',
    ),
    (
      'resnext3d_101',
      'hara',
      'stage_3_block_23/conv_2/conv/kernel',
      'layer3.22.conv2.weight',
    ),
    ('hara_r3d_18', 'hara', 'stem/conv/kernel', 'conv1.weight'),
    ('mc3_18', 'torchvision', 'stem/norm/mean', 'stem.1.running_mean'),
    (
      'i3d_inception',
      'pytorch_i3d',
      'stage_1_block_1/cubic/conv/kernel',
      'Conv3d_2c_3x3.conv3d.weight',
    ),
    (
      'i3d_inception',
      'pytorch_i3d',
      'stage_3_block_5/branch_3_reduce/norm/scale',
      'Mixed_4f.b2a.bn.weight',
    ),
    (
      'i3d_inception',
      'pytorch_i3d',
      'classifier/bias',
      'logits.conv3d.bias',
    ),
    (
      'mfnet',
      'mfnet',
      'stage_3_block_6/multiplex_2/norm/var',
      'conv4.B06.conv_i2.bn.running_var',
    ),
    (
      'mfnet',
      'mfnet',
      'stage_1_block_1/shortcut/conv/kernel',
      'conv2.B01.conv_w1.conv.weight',
    ),
    ('mfnet', 'mfnet', 'last_norm/mean', 'tail.bn.running_mean'),
  ],
)
def test_names(network, family, path, name):
  layout = families.layout(family, network)
  assert layout.sources(f'params/{path}') == (name,)


@pytest.mark.parametrize(('network', 'family'), _CASES)
def test_files_are_recognized(network, family):
  origin = families.recognize(_tensors(network, family), '')
  assert (origin.family, origin.models) == (family, (network,))


def test_x3d_is_none_of_them():
  names = tensor_names.of('x3d_s', 'pytorchvideo')
  kernels = {
    n: np.zeros((8, 1, 3, 3, 3)) for n in names if n.endswith('weight')
  }
  assert bottlenecks.recognize(kernels) is None
  assert 'x3d_s' in families.recognize(kernels, '').models


def _tensors(network, family):
  """Zeros of the shapes that a file has, of 2-D networks without frames."""
  layout = families.layout(family, network)
  flat = network.startswith(('tsm', 'tanet'))
  tensors = {}
  for path, shape in _shapes(network, **_options(network, family)).items():
    (name,) = layout.sources(path)
    possible = layouts.torch_shapes(path, shape)
    planes = [s for s in possible if len(s) == 4]
    if re.search('kernel_(hidden|output)/', path):
      chosen = possible[-1]
    else:
      chosen = planes[0] if flat and planes else possible[0]
    tensors[name] = np.broadcast_to(np.float32(0), chosen)
  return tensors


# Traps: what the names of tensors do not tell.


def test_rows_tell_the_clips():
  def settings(model, family, *more):
    return published.find(model, family, *(more or ('',))).settings

  slow = settings('slow_r50_8x8_mmaction2', 'mmaction2')
  assert (slow['data.num_frames'], slow['data.frame_stride']) == (8, 8)
  # PyTorchVideo spreads 8 frames over 64: 0, 9, ..., 63.
  address = 'downloads/SLOW_8x8_R50.pyth'
  slow = settings('slow_r50', 'pytorchvideo', address, 400)
  assert (slow['data.num_frames'], slow['data.frame_stride']) == (8, 9)
  assert slow['model.input_mean'] == (0.45, 0.45, 0.45)
  # The same file name, and other classes.
  other = settings('slow_r50', 'pytorchvideo', address, 174)
  assert other['data.sampling'] == 'uniform'
  dense = settings('tsm_r50_8_dense_tsm', 'tsm')
  assert dense['data.sampling'] == 'dense' and dense['data.frame_stride'] == 8
  uniform = settings('tsm_r50_8_ssv2_mmaction2', 'mmaction2')
  assert uniform['data.sampling'] == 'uniform'
  assert (uniform['eval.num_clips'], uniform['eval.num_crops']) == (2, 3)
  # ImageNet's, where MMAction2 writes 123.675 of 255.
  assert abs(uniform['model.input_mean'][0] * 255 - 123.675) < 1e-3


def test_epsilon_of_csn_and_r2plus1d_34():
  for row in published.rows():
    epsilon = row.settings.get('model.norm_epsilon', 1e-5)
    large = 'csn' in row.network and row.family != 'pytorchvideo'
    large |= row.network.startswith(('r2plus1d_34_', 'i3d_inception'))
    assert epsilon == (1e-3 if large else 1e-5), row.name


def test_a_network_without_weights_takes_its_sibling_s_clips():
  row = published.find('ip_csn_50', 'vmz', 'mine.pth')
  assert row.settings['model.name'] == 'ip_csn_50'
  assert row.settings['data.num_frames'] == 32


def test_pixels_of_hara():
  """By the classes of the head: those of 2017 are 0 to 255, less a mean."""
  new = published.find('hara_r3d_50', 'hara', 'mine.pth', 1139).settings
  assert new['model.input_std'] == (0.2768, 0.2713, 0.2737)
  old = published.find('hara_r3d_50', 'hara', 'mine.pth', 400).settings
  np.testing.assert_allclose(np.multiply(old['model.input_std'], 255), 1, 1e-6)
  mean = np.multiply(old['model.input_mean'], 255)
  np.testing.assert_allclose(mean, (114.7748, 107.7354, 99.4750), 1e-5)
  # Or by the file's own name.
  long = published.find(
    'resnext3d_101', 'hara', 'a/resnext-101-64f-kinetics-ucf101_split1.pth', 101
  )
  assert long.settings['data.num_frames'] == 64
  with pytest.raises(UserError, match='does not tell on which clips'):
    published.find('hara_r3d_50', 'hara', 'mine.pth', 7)


def test_residual_connections_of_hara_s_first_networks():
  for network, key in (('hara_r3d_18', True), ('hara_r3d_50', None)):
    tensors = _tensors(network, 'hara')
    keys = families.settings('hara', f'{network}_k_hara', tensors)
    assert keys.get('model.project_shortcuts') is key
  without = {k: v for k, v in tensors.items() if 'downsample' not in k}
  assert families.recognize(without, '').models == ('hara_r3d_50',)
  tensors = _tensors('hara_r3d_34', 'hara')
  without = {k: v for k, v in tensors.items() if 'downsample' not in k}
  model = 'hara_r3d_34_kinetics400_hara'
  keys = families.settings('hara', model, without)
  assert keys['model.project_shortcuts'] is False
  assert families.recognize(without, '').models == ('hara_r3d_34',)


def test_where_the_file_does_not_tell_its_clips():
  with pytest.raises(UserError, match='--model=slow_r50_4x16_pytorchvideo'):
    published.find('slow_r50', 'pytorchvideo', 'mine.pyth')
  with pytest.raises(UserError, match='are weights of mmaction2, and mine'):
    published.find('slow_r50_8x8_mmaction2', 'pytorchvideo', 'mine.pyth')


def test_frames_of_the_slow_pathway():
  assert slowfast.slow_frames(32, 4, 'linspace').tolist() == [
    *(0, 4, 8, 13, 17, 22, 26, 31)
  ]
  assert slowfast.slow_frames(32, 4, 'nearest').tolist() == [
    *(0, 4, 8, 12, 16, 20, 24, 28)
  ]


def test_fast_channels_of_mmaction2_s_head_come_first():
  kernel = np.arange(2304.0)[None] + np.zeros((5, 1))
  result = conversion.convert(
    {'cls_head.fc_cls.weight': kernel},
    {'params/classifier/kernel': (2304, 5)},
    bottlenecks.layout('mmaction2', 'slowfast_r50_8x8'),
  )
  value = result.values['params/classifier/kernel'][:, 0]
  np.testing.assert_array_equal(
    value, np.concatenate([np.arange(256, 2304), np.arange(256)])
  )


def test_another_number_of_frames():
  tensors = _tensors('tanet_r50_16', 'mmaction2')
  assert families.recognize(tensors, '').models == ('tanet_r50_16',)
  model = models.build('tanet_r50_8', 5)
  with pytest.raises(UserError, match=r'takes clips of 8 frames.*not of 16'):
    jax.eval_shape(
      model.init, jax.random.key(0), np.zeros((1, 16, 32, 32, 3), np.float32)
    )


@pytest.mark.parametrize(
  ('file', 'model', 'message'),
  [
    (
      'slow_r50',
      'slow_r101',
      'looks like slow_r50 of .*, which is not --model=',
    ),
    ('slow_r50', 'x3d_m', r'looks like slow_r50 .* Give --model=slow_r50\.'),
    ('tanet_r50_16', 'tanet_r50_8', r'Give --model=tanet_r50_16\.'),
    ('slow_r50', 'slow_r50_8x8_pytorchvideo', 'weights of pytorchvideo, and'),
  ],
)
def test_weights_of_another_network(
  file, model, message, monkeypatch, tmp_path
):
  state = torch_files.State(_tensors(file, 'mmaction2'), '')
  monkeypatch.setattr(torch_files, 'read', lambda path: state)
  config, out = base.get_config(), tmp_path / 'out'
  with pytest.raises(UserError, match=message):
    torch_weights.convert('mine.pth', model, config, out)
  assert not out.exists()
