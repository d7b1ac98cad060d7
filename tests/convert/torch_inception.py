"""I3D of Inception-v1 and MF-Net in PyTorch, written from their facts.

Submodules have the authors' names, so that state dicts have too. Only tests
that have found PyTorch import this file.
"""

import torch
from torch import nn
from torch.nn import functional as F

# Of 1³; of 1³ and 3³, twice; of 1³ after a pool.
_MIXED = {
  'Mixed_3b': (64, 96, 128, 16, 32, 32),
  'Mixed_3c': (128, 128, 192, 32, 96, 64),
  'Mixed_4b': (192, 96, 208, 16, 48, 64),
  'Mixed_4c': (160, 112, 224, 24, 64, 64),
  'Mixed_4d': (128, 128, 256, 24, 64, 64),
  'Mixed_4e': (112, 144, 288, 32, 64, 64),
  'Mixed_4f': (256, 160, 320, 32, 128, 128),
  'Mixed_5b': (256, 160, 320, 32, 128, 128),
  'Mixed_5c': (384, 192, 384, 48, 128, 128),
}


def _pad(x, kernel, strides, same, value=0.0):
  """TensorFlow's SAME padding, or the same number of elements both sides."""
  pads = []
  for n, k, s in zip(x.shape[2:], kernel, strides, strict=True):
    if same:
      total = max(k - s if n % s == 0 else k - n % s, 0)
      pads.append((total // 2, total - total // 2))
    else:
      pads.append(((k - 1) // 2,) * 2)
  return F.pad(x, [p for pair in reversed(pads) for p in pair], value=value)


class _Unit(nn.Module):
  def __init__(self, c, f, k, stride=1, same=True):
    super().__init__()
    self.conv3d = nn.Conv3d(c, f, k, stride, bias=False)
    self.bn = nn.BatchNorm3d(f, eps=1e-3)
    self.same = same

  def forward(self, x):
    conv = self.conv3d
    x = _pad(x, conv.kernel_size, conv.stride, self.same)
    return F.relu(self.bn(conv(x)))


def _pool(x, kernel, strides, same):
  x = _pad(x, kernel, strides, same, -torch.inf)
  return F.max_pool3d(x, kernel, strides)


class _Mixed(nn.Module):
  def __init__(self, c, features, same):
    super().__init__()
    b0, b1a, b1b, b2a, b2b, b3b = features
    self.same = same
    self.b0 = _Unit(c, b0, 1)
    self.b1a, self.b1b = _Unit(c, b1a, 1), _Unit(b1a, b1b, 3)
    self.b2a, self.b2b = _Unit(c, b2a, 1), _Unit(b2a, b2b, 3)
    self.b3b = _Unit(c, b3b, 1)

  def forward(self, x):
    greatest = _pool(x, (3, 3, 3), (1, 1, 1), self.same)
    branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x))
    return torch.cat([*branches, self.b3b(greatest)], 1)


class I3D(nn.Module):
  """DeepMind's network, as the port to PyTorch names it.

  Args:
    classes: their number.
    same: whether padding is TensorFlow's; else symmetric, the trap.
    channels: the number of input channels; 2: optical flow.
  """

  def __init__(self, classes, same=True, channels=3):
    super().__init__()
    self.same = same
    self.Conv3d_1a_7x7 = _Unit(channels, 64, 7, 2, same)
    self.Conv3d_2b_1x1 = _Unit(64, 64, 1)
    self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
    c = 192
    for name, features in _MIXED.items():
      setattr(self, name, _Mixed(c, features, same))
      c = features[0] + features[2] + features[4] + features[5]
    self.logits = nn.Module()
    self.logits.conv3d = nn.Conv3d(c, classes, 1)

  def forward(self, x):
    x = _pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2), self.same)
    x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
    pools = {
      'Mixed_3b': ((1, 3, 3), (1, 2, 2)),
      'Mixed_4b': ((3, 3, 3), (2, 2, 2)),
      'Mixed_5b': ((2, 2, 2), (2, 2, 2)),
    }
    for name in _MIXED:
      if name in pools:
        x = _pool(x, *pools[name], self.same)
      x = getattr(self, name)(x)
    # 7×7 of clips of 224², which are then single positions.
    window = (2, *(min(7, size) for size in x.shape[3:]))
    logits = self.logits.conv3d(F.avg_pool3d(x, window, 1))
    return logits.mean((2, 3, 4))


class _PreActivated(nn.Module):
  def __init__(self, c, f, kernel, stride=1, groups=1):
    super().__init__()
    padding = [k // 2 for k in kernel]
    self.bn = nn.BatchNorm3d(c)
    self.conv = nn.Conv3d(
      c, f, kernel, stride, padding, groups=groups, bias=False
    )

  def forward(self, x):
    return self.conv(F.relu(self.bn(x)))


class _MultiFiber(nn.Module):
  def __init__(self, c, width, stride, first):
    super().__init__()
    point = (1, 1, 1)
    self.conv_i1 = _PreActivated(c, width // 4, point)
    self.conv_i2 = _PreActivated(width // 4, c, point)
    self.conv_m1 = _PreActivated(c, width, (3, 3, 3), stride, 16)
    if first:
      self.conv_m2 = _PreActivated(width, width, point)
      self.conv_w1 = _PreActivated(c, width, point, stride)
    else:
      self.conv_m2 = _PreActivated(width, width, (1, 3, 3), groups=16)

  def forward(self, x):
    mixed = x + self.conv_i2(self.conv_i1(x))
    y = self.conv_m2(self.conv_m1(mixed))
    return y + (self.conv_w1(x) if hasattr(self, 'conv_w1') else x)


class MFNet(nn.Module):
  """The authors' network of sixteen fibers."""

  def __init__(self, classes):
    super().__init__()
    self.conv1 = nn.ModuleDict(
      {
        'conv': nn.Conv3d(3, 16, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False),
        'bn': nn.BatchNorm3d(16),
      }
    )
    c = 16
    rows = zip((96, 192, 384, 768), (3, 4, 6, 3), strict=True)
    for i, (width, count) in enumerate(rows, start=2):
      blocks = nn.ModuleDict()
      for j in range(1, count + 1):
        stride = 1 if j > 1 else ((2, 1, 1) if i == 2 else (1, 2, 2))
        blocks[f'B{j:02}'] = _MultiFiber(c, width, stride, j == 1)
        c = width
      setattr(self, f'conv{i}', blocks)
    self.tail = nn.ModuleDict({'bn': nn.BatchNorm3d(c)})
    self.classifier = nn.Linear(c, classes)

  def forward(self, x):
    x = F.relu(self.conv1['bn'](self.conv1['conv'](x)))
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for i in (2, 3, 4, 5):
      for block in getattr(self, f'conv{i}').values():
        x = block(x)
    return self.classifier(F.relu(self.tail['bn'](x)).mean((2, 3, 4)))
