"""Bottleneck ResNets of other authors in PyTorch, written from their facts.

Submodules have the authors' names, so that state dicts have too. Each takes
clips `(n, 3, t, h, w)`. Only tests that have found PyTorch import this file.
"""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_tsm import DEPTHS, Shift

_CONVS = {2: nn.Conv2d, 3: nn.Conv3d}
_NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def conv(dims, c_in, c_out, kernel, stride=(1, 1, 1), groups=1):
  """A convolution over all three axes, or over rows and columns alone."""
  kernel, stride = kernel[3 - dims :], stride[3 - dims :]
  return _CONVS[dims](
    c_in,
    c_out,
    kernel,
    stride,
    [k // 2 for k in kernel],
    groups=groups,
    bias=False,
  )


class ConvModule(nn.Module):
  """MMAction2's convolution with BN; without it where eps is None."""

  def __init__(self, dims, c_in, c_out, kernel, stride=(1, 1, 1), groups=1,
               eps=1e-5):  # fmt: skip
    super().__init__()
    self.conv = conv(dims, c_in, c_out, kernel, stride, groups)
    if eps is not None:
      self.bn = _NORMS[dims](c_out, eps=eps)

  def forward(self, x):
    x = self.conv(x)
    return self.bn(x) if hasattr(self, 'bn') else x


class Block(nn.Module):
  """MMAction2's bottleneck.

  middle: 'spatial', 'ir' or 'ip'.
  """

  def __init__(self, dims, c_in, width, frames, stride, middle, eps):
    super().__init__()
    unit = lambda *args, **kw: ConvModule(dims, *args, **kw, eps=eps)  # noqa: E731
    self.conv1 = unit(c_in, width, (frames, 1, 1))
    if middle == 'spatial':
      self.conv2 = unit(width, width, (1, 3, 3), stride)
    else:
      mix = [unit(width, width, (1, 1, 1))] if middle == 'ip' else []
      self.conv2 = nn.Sequential(
        *mix, unit(width, width, (3, 3, 3), stride, groups=width)
      )
    self.conv3 = unit(width, 4 * width, (1, 1, 1))
    if c_in != 4 * width:
      self.downsample = unit(c_in, 4 * width, (1, 1, 1), stride)

  def forward(self, x, after_first=lambda y: y):
    y = after_first(F.relu(self.conv1(x)))
    y = self.conv3(F.relu(self.conv2(y)))
    return F.relu(
      y + (self.downsample(x) if hasattr(self, 'downsample') else x)
    )


class TAM(nn.Module):
  """TANet's."""

  def __init__(self, channels, segments):
    super().__init__()
    self.segments = segments
    self.G = nn.Sequential(
      nn.Linear(segments, 2 * segments, bias=False),
      nn.BatchNorm1d(2 * segments),
      nn.ReLU(),
      nn.Linear(2 * segments, 3, bias=False),
      nn.Softmax(-1),
    )
    self.L = nn.Sequential(
      nn.Conv1d(channels, channels // 4, 3, padding=1, bias=False),
      nn.BatchNorm1d(channels // 4),
      nn.ReLU(),
      nn.Conv1d(channels // 4, channels, 1, bias=False),
      nn.Sigmoid(),
    )

  def forward(self, x):
    c, h, w = x.shape[1:]
    x = x.view(-1, self.segments, c, h, w).transpose(1, 2)  # n c t h w
    n, c, t = x.shape[:3]
    means = x.mean((3, 4))
    kernel = self.G(means.reshape(n * c, t))
    x = x * self.L(means)[..., None, None]
    y = F.conv2d(
      x.reshape(1, n * c, t, h * w),
      kernel.view(n * c, 1, 3, 1),
      padding=(1, 0),
      groups=n * c,
    )
    return y.view(n, c, t, h, w).transpose(1, 2).reshape(n * t, c, h, w)


class TABlock(nn.Module):
  def __init__(self, block, segments):
    super().__init__()
    self.block = block
    self.tam = TAM(block.conv1.conv.out_channels, segments)

  def forward(self, x):
    return self.block(x, self.tam)


class Body(nn.Module):
  """MMAction2's backbone of one pathway.

  frames: of each stage's first convolutions, repeated.
  laterals: how many frames lateral connections see; 0: there are none.
  """

  def __init__(self, dims=3, depth=50, width=64, stem=(1, 7, 7),
               stride=(1, 2, 2), frames=((1,),) * 4, middle='spatial',
               halves=False, eps=1e-5, laterals=0, ratio=1):  # fmt: skip
    super().__init__()
    self.conv1 = ConvModule(dims, 3, width, stem, stride, eps=eps)
    c = width
    thin = width // 8
    if laterals:
      lateral = ((laterals, 1, 1), (ratio, 1, 1))
      self.conv1_lateral = ConvModule(3, thin, 2 * thin, *lateral, eps=None)
      c += 2 * thin
    for i, count in enumerate(DEPTHS[depth]):
      blocks = []
      for j in range(count):
        space = 2 if i and not j else 1
        time = 2 if halves and space == 2 else 1
        seen = frames[i][j % len(frames[i])]
        blocks.append(
          Block(dims, c, width * 2**i, seen, (time, space, space), middle, eps)
        )
        c = 4 * width * 2**i
      setattr(self, f'layer{i + 1}', nn.Sequential(*blocks))
      if laterals and i < 3:
        wide = 4 * thin * 2**i
        unit = ConvModule(3, wide, 2 * wide, *lateral, eps=None)
        setattr(self, f'layer{i + 1}_lateral', unit)
        c += 2 * wide

  @property
  def stages(self):
    return [getattr(self, f'layer{i}') for i in range(1, 5)]


class Head(nn.Module):
  def __init__(self, channels, classes):
    super().__init__()
    self.fc_cls = nn.Linear(channels, classes)


class Recognizer3D(nn.Module):
  """MMAction2's Slow-only, I3D and CSN."""

  def __init__(self, classes, pool=(1, 2, 2), pairs=False, **body):
    super().__init__()
    self.backbone = Body(**body)
    self.cls_head = Head(2048, classes)
    self.pool, self.pairs = pool, pairs

  def forward(self, x):
    x = F.relu(self.backbone.conv1(x))
    x = F.max_pool3d(x, (1, 3, 3), self.pool, (0, 1, 1))
    for i, stage in enumerate(self.backbone.stages):
      x = stage(x)
      if self.pairs and i == 0:
        x = F.max_pool3d(x, (2, 1, 1), (2, 1, 1))
    return self.cls_head.fc_cls(x.mean((2, 3, 4)))


class Recognizer2D(nn.Module):
  """MMAction2's TSM, and TANet where `adaptive`."""

  def __init__(self, classes, segments, depth=50, adaptive=False):
    super().__init__()
    self.backbone = Body(2, depth)
    self.cls_head = Head(2048, classes)
    every = 2 if depth == 101 else 1
    for stage in self.backbone.stages:
      for j, block in enumerate(stage):
        if adaptive:
          stage[j] = TABlock(block, segments)
        elif j % every == 0:
          block.conv1.conv = Shift(block.conv1.conv, segments)

  def forward(self, x):
    n, _, t = x.shape[:3]
    x = x.transpose(1, 2).flatten(0, 1)
    x = F.max_pool2d(F.relu(self.backbone.conv1(x)), 3, 2, 1)
    for stage in self.backbone.stages:
      x = stage(x)
    logits = self.cls_head.fc_cls(x.mean((2, 3)))
    return logits.view(n, t, -1).mean(1)


class SlowFast(nn.Module):
  """MMAction2's: each ratio-th frame, laterals without BN, fast head first."""

  def __init__(self, classes, ratio, lateral, depth=50):
    super().__init__()
    late = ((1,), (1,), (3,), (3,))
    self.backbone = nn.Module()
    self.backbone.slow_path = Body(
      depth=depth, frames=late, laterals=lateral, ratio=ratio
    )
    self.backbone.fast_path = Body(
      depth=depth, width=8, stem=(5, 7, 7), frames=((3,),) * 4
    )
    self.cls_head = Head(2048 + 256, classes)
    self.ratio = ratio

  def forward(self, x):
    slow_path, fast_path = self.backbone.slow_path, self.backbone.fast_path
    slow, fast = slow_path.conv1(x[:, :, :: self.ratio]), fast_path.conv1(x)
    slow, fast = (
      F.max_pool3d(F.relu(y), (1, 3, 3), (1, 2, 2), (0, 1, 1))
      for y in (slow, fast)
    )
    slow = torch.cat([slow, slow_path.conv1_lateral(fast)], 1)
    for i in range(1, 5):
      slow = getattr(slow_path, f'layer{i}')(slow)
      fast = getattr(fast_path, f'layer{i}')(fast)
      if i < 4:
        lateral = getattr(slow_path, f'layer{i}_lateral')
        slow = torch.cat([slow, lateral(fast)], 1)
    features = [y.mean((2, 3, 4)) for y in (fast, slow)]
    return self.cls_head.fc_cls(torch.cat(features, 1))


class _VmzBlock(nn.Module):
  def __init__(self, c_in, width, stride, kind):
    super().__init__()
    norm = lambda c: nn.BatchNorm3d(c, eps=1e-3)  # noqa: E731
    self.conv1 = nn.Sequential(
      conv(3, c_in, width, (1, 1, 1)), norm(width), nn.ReLU()
    )
    separated = conv(3, width, width, (3, 3, 3), (stride,) * 3, groups=width)
    if kind == 'ip':
      separated = nn.Sequential(
        conv(3, width, width, (1, 1, 1)), norm(width), separated
      )
    self.conv2 = nn.Sequential(separated, norm(width), nn.ReLU())
    self.conv3 = nn.Sequential(
      conv(3, width, 4 * width, (1, 1, 1)), norm(4 * width)
    )
    if c_in != 4 * width:
      self.downsample = nn.Sequential(
        conv(3, c_in, 4 * width, (1, 1, 1), (stride,) * 3), norm(4 * width)
      )

  def forward(self, x):
    y = self.conv3(self.conv2(self.conv1(x)))
    return F.relu(
      y + (self.downsample(x) if hasattr(self, 'downsample') else x)
    )


class CSN(nn.Module):
  """VMZ's."""

  def __init__(self, classes, kind, depth=50):
    super().__init__()
    self.stem = nn.Sequential(
      conv(3, 3, 64, (3, 7, 7), (1, 2, 2)),
      nn.BatchNorm3d(64, eps=1e-3),
      nn.ReLU(),
      nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    )
    c = 64
    for i, count in enumerate(DEPTHS[depth]):
      blocks = []
      for j in range(count):
        stride = 2 if i and not j else 1
        blocks.append(_VmzBlock(c, 64 * 2**i, stride, kind))
        c = 256 * 2**i
      setattr(self, f'layer{i + 1}', nn.Sequential(*blocks))
    self.fc = nn.Linear(2048, classes)

  def forward(self, x):
    x = self.stem(x)
    for i in range(1, 5):
      x = getattr(self, f'layer{i}')(x)
    return self.fc(x.mean((2, 3, 4)))
