"""3-D ResNets of other authors in PyTorch, written from their facts.

Submodules have the authors' names, so that state dicts have too. Only tests
that have found PyTorch import this file.
"""

import torch
from torch import nn
from torch.nn import functional as F

from mtnet_jax.convert import published
from tests.convert.torch_networks import VideoResNet

_DEPTHS = {
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
}


def build(row, classes):
  """The network of a row of published weights."""
  network = published.network_of(row)
  if network == 'mc3_18':
    return mc3_18(classes)
  if network == 'r2plus1d_34_ig65m':
    return ig65m(classes)
  if network == 'r2plus1d_34_mmaction2':
    return R2Plus1D(classes)
  depth = int(network.split('_')[-1])
  padded = depth < 50 and 'kinetics400' in row
  return Hara(depth, classes, 'resnext' in network, padded)


def conv(c_in, c_out, kernel, stride=1, groups=1):
  padding = [k // 2 for k in kernel]
  return nn.Conv3d(
    c_in, c_out, kernel, stride, padding, groups=groups, bias=False
  )


def mc3_18(classes):
  """torchvision's: space alone, and all frames, from the second stage on."""
  network = VideoResNet('r3d_18', False, classes)
  c = 64
  for layer in (network.layer2, network.layer3, network.layer4):
    for j, block in enumerate(layer):
      for unit, stride in ((block.conv1, 1 + (j == 0)), (block.conv2, 1)):
        f = unit[0].out_channels
        unit[0] = conv(c, f, (1, 3, 3), (1, stride, stride))
        c = f
    layer[0].downsample[0].stride = (1, 2, 2)
  return network


def ig65m(classes):
  """torchvision's, with the widths and the epsilon of Caffe2's."""
  network = VideoResNet('r2plus1d_34', False, classes)
  for layer, c, mid in (
    (network.layer2, 128, 288),
    (network.layer3, 256, 576),
    (network.layer4, 512, 1152),
  ):
    layer[0].conv2[0] = nn.Sequential(
      conv(c, mid, (1, 3, 3)),
      nn.BatchNorm3d(mid),
      nn.ReLU(),
      conv(mid, c, (3, 1, 1)),
    )
  for module in network.modules():
    if isinstance(module, nn.BatchNorm3d):
      module.eps = 1e-3
  return network


class Hara(nn.Module):
  """His ResNet, or ResNeXt; padded: residual connections have no weights."""

  def __init__(self, depth, classes, resnext, padded):
    super().__init__()
    self.conv1 = conv(3, 64, (7, 7, 7), (1, 2, 2))
    self.bn1 = nn.BatchNorm3d(64)
    c = 64
    for i, count in enumerate(_DEPTHS[depth]):
      width = 64 * 2**i
      blocks = []
      for j in range(count):
        stride = 2 if i and not j else 1
        if depth < 50:
          block = _Basic(c, width, stride, padded)
        else:
          block = _Bottleneck(c, width, stride, resnext)
        blocks.append(block)
        c = block.channels
      setattr(self, f'layer{i + 1}', nn.Sequential(*blocks))
    self.fc = nn.Linear(c, classes)

  def forward(self, x):
    x = F.relu(self.bn1(self.conv1(x)))
    x = F.max_pool3d(x, 3, 2, 1)
    for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
      x = layer(x)
    return self.fc(x.mean((2, 3, 4)))


def _projection(c_in, c_out, stride):
  return nn.Sequential(
    conv(c_in, c_out, (1, 1, 1), stride), nn.BatchNorm3d(c_out)
  )


class _Basic(nn.Module):
  def __init__(self, c, width, stride, padded):
    super().__init__()
    self.channels, self.stride = width, stride
    self.conv1 = conv(c, width, (3, 3, 3), stride)
    self.bn1 = nn.BatchNorm3d(width)
    self.conv2 = conv(width, width, (3, 3, 3))
    self.bn2 = nn.BatchNorm3d(width)
    if c != width and not padded:
      self.downsample = _projection(c, width, stride)

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    if hasattr(self, 'downsample'):
      x = self.downsample(x)
    elif x.shape != y.shape:
      x = F.avg_pool3d(x, 1, self.stride)
      zeros = torch.zeros_like(y)[:, : y.shape[1] - x.shape[1]]
      x = torch.cat([x, zeros], 1)
    return F.relu(x + y)


class _Bottleneck(nn.Module):
  def __init__(self, c, width, stride, resnext):
    super().__init__()
    self.channels = 4 * width
    inner, groups = (2 * width, 32) if resnext else (width, 1)
    self.conv1 = conv(c, inner, (1, 1, 1))
    self.bn1 = nn.BatchNorm3d(inner)
    self.conv2 = conv(inner, inner, (3, 3, 3), stride, groups)
    self.bn2 = nn.BatchNorm3d(inner)
    self.conv3 = conv(inner, self.channels, (1, 1, 1))
    self.bn3 = nn.BatchNorm3d(self.channels)
    if c != self.channels:
      self.downsample = _projection(c, self.channels, stride)

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)))
    y = F.relu(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    if hasattr(self, 'downsample'):
      x = self.downsample(x)
    return F.relu(x + y)


class R2Plus1D(nn.Module):
  """MMAction2's of 34 layers: everything but the head is (2+1)D."""

  def __init__(self, classes):
    super().__init__()
    self.backbone = backbone = nn.Module()
    backbone.conv1 = _Factorized(3, 64, 7, 1, 2)
    c = 64
    for i, count in enumerate(_DEPTHS[34]):
      blocks = []
      for j in range(count):
        stride = 2 if i and not j else 1
        blocks.append(_FactorizedBlock(c, 64 * 2**i, stride))
        c = 64 * 2**i
      setattr(backbone, f'layer{i + 1}', nn.Sequential(*blocks))
    self.cls_head = nn.ModuleDict({'fc_cls': nn.Linear(c, classes)})

  def forward(self, x):
    x = F.relu(self.backbone.conv1(x))
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for i in range(1, 5):
      x = getattr(self.backbone, f'layer{i}')(x)
    return self.cls_head['fc_cls'](x.mean((2, 3, 4)))


class _Factorized(nn.Module):
  """With three frames, or one where k is 1; the width reckons with three."""

  def __init__(self, c, f, k, time, space):
    super().__init__()
    mid = int(3 * c * f * k * k / (c * k * k + 3 * f))
    self.conv = nn.Module()
    self.conv.conv_s = conv(c, mid, (1, k, k), (1, space, space))
    self.conv.bn_s = nn.BatchNorm3d(mid, eps=1e-3)
    frames = 1 if k == 1 else 3
    self.conv.conv_t = conv(mid, f, (frames, 1, 1), (time, 1, 1))
    self.bn = nn.BatchNorm3d(f, eps=1e-3)

  def forward(self, x):
    x = F.relu(self.conv.bn_s(self.conv.conv_s(x)))
    return self.bn(self.conv.conv_t(x))


class _FactorizedBlock(nn.Module):
  def __init__(self, c, f, stride):
    super().__init__()
    self.conv1 = _Factorized(c, f, 3, stride, stride)
    self.conv2 = _Factorized(f, f, 3, 1, 1)
    if c != f:
      self.downsample = _Factorized(c, f, 1, stride, stride)

  def forward(self, x):
    y = self.conv2(F.relu(self.conv1(x)))
    return F.relu(
      y + (self.downsample(x) if hasattr(self, 'downsample') else x)
    )
