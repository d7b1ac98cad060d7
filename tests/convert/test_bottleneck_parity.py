"""Converted networks of other authors say what PyTorch's modules do.

PyTorchVideo's are its own; those of other projects, which no longer install,
are modules written from their facts. On random weights and BN statistics,
through whole networks.
"""

import sys
import types

import numpy as np
import pytest

from mtnet_jax.convert import published

torch = pytest.importorskip('torch')
from torch import nn  # noqa: E402

from benchmarks import torch_tsm  # noqa: E402
from tests.convert import torch_bottlenecks, torch_resnets  # noqa: E402
from tests.convert.parity import CLASSES, compare  # noqa: E402

pytestmark = [
  pytest.mark.usefixtures('quick_compilation'),
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),  # torch's own
]
_LATE = ((1,), (1,), (3,), (3,))
_ALTERNATING = ((3,), (3, 1), (3, 1), (1, 3))


@pytest.fixture
def pytorchvideo(monkeypatch):
  """PyTorchVideo's builders, which import a name that they do not need."""
  pytest.importorskip('pytorchvideo')
  if 'torchvision' not in sys.modules:
    package, ops = (types.ModuleType(n) for n in ('torchvision', 'ops'))
    package.ops, ops.RoIAlign = ops, None
    monkeypatch.setitem(sys.modules, 'torchvision', package)
    monkeypatch.setitem(sys.modules, 'torchvision.ops', ops)
  from pytorchvideo.models import csn, r2plus1d, resnet, slowfast

  return types.SimpleNamespace(
    resnet=resnet.create_resnet,
    csn=csn.create_csn,
    r2plus1d=r2plus1d.create_r2plus1d,
    slowfast=slowfast.create_slowfast,
  )


def _slow_and_fast(ratio):
  def feed(clips):
    t = clips.shape[2]
    indices = torch.linspace(0, t - 1, t // ratio).long()
    return [clips[:, :, indices], clips]

  return feed


def _of_pytorchvideo(builders, row, frames, size):
  """A network as PyTorchVideo's hub builds it, and how it is fed."""
  side = size // 32
  common = {'model_num_class': CLASSES}
  if row.startswith('slowfast'):
    lateral = 5 if '4x16' in row or 'r101' in row else 7
    ratio = 8 if '4x16' in row else 4
    many = {}
    if '16x8' in row:
      third = ((3, 1, 1),) * 6 + ((1, 1, 1),) * 17
      one, three = (1, 1, 1), (3, 1, 1)
      many['stage_conv_a_kernel_sizes'] = (
        (one, one, third, three),
        (three, three, third, three),
      )
    network = builders.slowfast(
      model_depth=101 if 'r101' in row else 50,
      slowfast_fusion_conv_kernel_size=(lateral, 1, 1),
      slowfast_fusion_conv_stride=(ratio, 1, 1),
      slowfast_channel_reduction_ratio=(8,),
      head_pool_kernel_sizes=((frames // ratio, side, side),)
      + ((frames, side, side),),
      **({'slowfast_conv_channel_fusion_ratio': 2} | common | many),
    )
    return network, _slow_and_fast(ratio)
  if 'csn' in row:
    pool = (frames // 8, side, side)
    network = builders.csn(
      model_depth=101,
      stem_pool=nn.MaxPool3d,
      head_pool_kernel_size=pool,
      **common,
    )
    return network, lambda clips: clips
  if row.startswith('ptv_r2plus1d'):
    network = builders.r2plus1d(
      head_pool_kernel_size=(frames // 4, side, side),
      head_activation=None,
      **common,
    )
    return network, lambda clips: clips
  one, three = (1, 1, 1), (3, 1, 1)
  kernels = {
    'c2d': (one,) * 4,
    'i3d': (three, [three, one], [three, one], [one, three]),
    'slow': (one, one, three, three),
  }[row.split('_')[0]]
  pools = not row.startswith('slow')
  network = builders.resnet(
    model_depth=50,
    stem_conv_kernel_size=(5 if row.startswith('i3d') else 1, 7, 7),
    stage1_pool=nn.MaxPool3d if pools else None,
    stage_conv_a_kernel_size=kernels,
    head_pool_kernel_size=(frames // (2 if pools else 1), side, side),
    **common,
  )
  return network, lambda clips: clips


@pytest.mark.slow
@pytest.mark.parametrize(
  'row',
  [
    'slow_r50_8x8_pytorchvideo',
    'i3d_r50_8x8_pytorchvideo',
    'slowfast_r50_8x8_pytorchvideo',
    'ir_csn_101_pytorchvideo',
    'ptv_r2plus1d_r50_16x4_pytorchvideo',
    *(
      pytest.param(f'{name}_pytorchvideo', marks=pytest.mark.check)
      for name in ('c2d_r50_8x8', 'slowfast_r50_4x16', 'slowfast_r101_16x8')
    ),
  ],
)
def test_networks_of_pytorchvideo(pytorchvideo, row):
  clip = (8, 64) if 'slowfast' not in row else (16, 64)
  network, feed = _of_pytorchvideo(pytorchvideo, row, *clip)
  compare(network, row, clip, feed)


def _of_others(row):
  if row.startswith(('hara', 'resnext', 'mc3', 'r2plus1d')):
    return torch_resnets.build(row, CLASSES)
  of = torch_bottlenecks
  if 'csn' in row:
    kind = row[:2]
    if row.endswith('vmz'):
      return of.CSN(CLASSES, kind)
    csn = {'stem': (3, 7, 7), 'middle': kind, 'halves': True, 'eps': 1e-3}
    return of.Recognizer3D(CLASSES, **csn)
  if row.startswith('slowfast'):
    ratio, lateral = (8, 5) if '4x16' in row else (4, 7)
    return of.SlowFast(CLASSES, ratio, lateral, 101 if 'r101' in row else 50)
  if row.startswith('tanet'):
    return of.Recognizer2D(CLASSES, 8, adaptive=True)
  if row.startswith('tsm'):
    network = torch_tsm.TSM if row.endswith('tsm') else of.Recognizer2D
    return network(CLASSES, 8, 101 if 'r101' in row else 50)
  if row.startswith('i3d'):
    return of.Recognizer3D(
      CLASSES,
      stem=(5, 7, 7),
      stride=(2, 2, 2),
      pool=(2, 2, 2),
      pairs=True,
      frames=_ALTERNATING,
    )
  return of.Recognizer3D(CLASSES, frames=_LATE)


@pytest.mark.slow
@pytest.mark.parametrize(
  'row',
  [
    'tsm_r50_8_dense_tsm',
    'tanet_r50_8_dense_mmaction2',
    'slowfast_r50_8x8_mmaction2',
    'i3d_r50_32x2_mmaction2',
    'ir_csn_50_ig65m_mmaction2',
    'hara_r3d_18_kinetics400_hara',
    'hara_r3d_50_kms_hara',
    'resnext3d_101_kinetics400_hara',
    'mc3_18_torchvision',
    'r2plus1d_34_ig65m_8_vmz',
    'r2plus1d_34_8x8_mmaction2',
    *(
      pytest.param(row, marks=pytest.mark.check)
      for row in (
        'tsm_r101_8_ssv2_tsm',
        'tsm_r50_8_mmaction2',
        'tsm_r101_8_ssv2_mmaction2',
        'slow_r50_8x8_mmaction2',
        'slowfast_r50_4x16_mmaction2',
        'slowfast_r101_8x8_mmaction2',
      )
    ),
  ],
)
def test_networks_written_from_facts(row):
  clip = (16, 64) if row.startswith(('slowfast', 'i3d')) else (8, 64)
  compare(_of_others(row), row, clip)


_OF_PYTORCHVIDEO = (
  *('c2d_r50_8x8', 'slow_r50_4x16', 'slow_r50_8x8', 'i3d_r50_8x8'),
  *('slowfast_r50_4x16', 'slowfast_r50_8x8'),
  *('slowfast_r101_8x8', 'slowfast_r101_16x8', 'ir_csn_101'),
  'ptv_r2plus1d_r50_16x4',
)
_OF_OTHERS = (
  *('tsm_r50_8_dense_tsm', 'tsm_r101_8_ssv2_tsm', 'tsm_r50_8_mmaction2'),
  *('tanet_r50_8_dense_mmaction2', 'slow_r50_8x8_mmaction2'),
  *('i3d_r50_32x2_mmaction2', 'slowfast_r50_4x16_mmaction2'),
  *('slowfast_r50_8x8_mmaction2', 'slowfast_r101_8x8_mmaction2'),
  *('ir_csn_50_ig65m_mmaction2', 'hara_r3d_18_kinetics400_hara'),
  *('hara_r3d_50_kms_hara', 'resnext3d_101_kinetics400_hara'),
  *('mc3_18_torchvision', 'r2plus1d_34_ig65m_8_vmz'),
  'r2plus1d_34_8x8_mmaction2',
)


@pytest.mark.check
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
  'row', [*(f'{name}_pytorchvideo' for name in _OF_PYTORCHVIDEO), *_OF_OTHERS]
)
def test_whole_clips(request, row):
  """In float64: float32 rounds, and opens or shuts a gate here or there."""
  settings = next(r.settings for r in published.rows() if r.name == row)
  clip = settings['data.num_frames'], settings['data.input_size']
  feed = lambda clips: clips  # noqa: E731
  if row.endswith('pytorchvideo'):
    builders = request.getfixturevalue('pytorchvideo')
    network, feed = _of_pytorchvideo(builders, row, *clip)
  else:
    network = _of_others(row)
  compare(network, row, clip, feed, dtype=np.float64)
