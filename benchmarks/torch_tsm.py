"""TSM in PyTorch, with the names that its author's modules have."""

import torch
from torch import nn
from torch.nn import functional as F

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def _conv(c_in, c_out, size, stride=1):
  return nn.Conv2d(c_in, c_out, size, stride, size // 2, bias=False)


class Shift(nn.Module):
  """TSM's: a convolution of frames of which some channels are shifted."""

  def __init__(self, net, segments):
    super().__init__()
    self.net, self.segments = net, segments

  def forward(self, x):
    frames = x.view(-1, self.segments, *x.shape[1:])
    fold = x.shape[1] // 8
    out = torch.zeros_like(frames)
    out[:, :-1, :fold] = frames[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = frames[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = frames[:, :, 2 * fold :]
    return self.net(out.view_as(x))


class _Bottleneck2D(nn.Module):
  """torchvision's."""

  def __init__(self, c_in, width, stride):
    super().__init__()
    self.conv1 = _conv(c_in, width, 1)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = _conv(width, width, 3, stride)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3 = _conv(width, 4 * width, 1)
    self.bn3 = nn.BatchNorm2d(4 * width)
    if c_in != 4 * width:
      self.downsample = nn.Sequential(
        _conv(c_in, 4 * width, 1, stride),
        nn.BatchNorm2d(4 * width),
      )

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)))
    y = F.relu(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    return F.relu(
      y + (self.downsample(x) if hasattr(self, 'downsample') else x)
    )


class TSM(nn.Module):
  """The network, of clips `(n, 3, t, h, w)`."""

  def __init__(self, classes, segments, depth=50):
    super().__init__()
    base = self.base_model = nn.Module()
    base.conv1 = _conv(3, 64, 7, 2)
    base.bn1 = nn.BatchNorm2d(64)
    c, every = 64, 2 if depth == 101 else 1
    for i, count in enumerate(DEPTHS[depth]):
      blocks = []
      for j in range(count):
        block = _Bottleneck2D(c, 64 * 2**i, 2 if i and not j else 1)
        if j % every == 0:
          block.conv1 = Shift(block.conv1, segments)
        blocks.append(block)
        c = 256 * 2**i
      setattr(base, f'layer{i + 1}', nn.Sequential(*blocks))
    self.new_fc = nn.Linear(2048, classes)

  def forward(self, x):
    n, _, t = x.shape[:3]
    base = self.base_model
    x = F.relu(base.bn1(base.conv1(x.transpose(1, 2).flatten(0, 1))))
    x = F.max_pool2d(x, 3, 2, 1)
    for i in range(1, 5):
      x = getattr(base, f'layer{i}')(x)
    return self.new_fc(x.mean((2, 3))).view(n, t, -1).mean(1)
