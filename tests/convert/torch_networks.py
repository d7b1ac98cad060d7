"""The networks of other authors in PyTorch, written from their layer lists.

Submodules have the authors' names, so that state dicts have too. Only tests
that have found PyTorch import this file.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

_DEPTHS = {
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
}


def randomize(network, seed=0):
  """Draws weights that keep activations' size, and BN's statistics too."""
  generator = torch.Generator().manual_seed(seed)

  def draw(shape, low, high):
    return torch.rand(shape, generator=generator) * (high - low) + low

  with torch.no_grad():
    for module in network.modules():
      if isinstance(module, nn.modules.batchnorm._BatchNorm):
        shape = module.weight.shape
        for tensor, low, high in (
          (module.weight, 0.5, 1.5),
          (module.bias, -0.3, 0.3),
          (module.running_mean, -0.5, 0.5),
          (module.running_var, 0.5, 2),
        ):
          tensor.copy_(draw(shape, low, high))
      elif isinstance(module, nn.LSTM):
        for name, tensor in module.named_parameters():
          # States near zero, block after block, would leave nothing to see.
          low = 1.0 if 'bias' in name else -0.5
          tensor.copy_(draw(tensor.shape, low, low + 1))
      else:
        for tensor in module.parameters(recurse=False):
          bound = math.sqrt(6 / max(tensor[0].numel(), 6))
          tensor.copy_(draw(tensor.shape, -bound, bound))
  return network.eval()


def _conv(c_in, c_out, kernel, stride=(1, 1, 1), groups=1):
  return nn.Conv3d(
    c_in,
    c_out,
    kernel,
    stride,
    padding=[k // 2 for k in kernel],
    groups=groups,
    bias=False,
  )


class VideoResNet(nn.Module):
  """torchvision's network, or the one of SRTG's author.

  Args:
    name: ours, 'srtg_wide_r3d_50' for instance.
    contained: cubic kernels are in a container, as the author has them.
    widths: the widths of the four stages.
  """

  def __init__(self, name, contained, classes=400, widths=(64, 128, 256, 512)):
    super().__init__()
    c = widths[0]
    if 'r2plus1d' in name:
      self.stem = nn.Sequential(
        _conv(3, 45, (1, 7, 7), (1, 2, 2)),
        nn.BatchNorm3d(45),
        nn.ReLU(),
        _conv(45, c, (3, 1, 1)),
        nn.BatchNorm3d(c),
        nn.ReLU(),
      )
    else:
      self.stem = nn.Sequential(
        _conv(3, c, (3, 7, 7), (1, 2, 2)), nn.BatchNorm3d(c), nn.ReLU()
      )
    for i, width in enumerate(widths):
      blocks = []
      for j in range(_DEPTHS[int(name.split('_')[-1])][i]):
        stride = 2 if i > 0 and j == 0 else 1
        blocks.append(_Block(name, contained, c, width, stride))
        c = width
      setattr(self, f'layer{i + 1}', nn.Sequential(*blocks))
    self.fc = nn.Linear(c, classes)

  def forward(self, x):
    x = self.stem(x)
    for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
      x = layer(x)
    return self.fc(x.mean((2, 3, 4)))


class _Block(nn.Module):
  def __init__(self, name, contained, c_in, c_out, stride):
    super().__init__()
    mid = 27 * c_in * c_out // (9 * c_in + 3 * c_out)

    def main(c, f, stride):
      if 'r2plus1d' in name:
        return nn.Sequential(
          _conv(c, mid, (1, 3, 3), (1, stride, stride)),
          nn.BatchNorm3d(mid),
          nn.ReLU(),
          _conv(mid, f, (3, 1, 1), (stride, 1, 1)),
        )
      conv = _conv(c, f, (3, 3, 3), (stride,) * 3)
      return nn.Sequential(conv) if contained else conv

    def unit(conv, f, *activation):
      return nn.Sequential(conv, nn.BatchNorm3d(f), *activation)

    if int(name.split('_')[-1]) < 50:
      self.conv1 = unit(main(c_in, c_out, stride), c_out, nn.ReLU())
      self.conv2 = unit(main(c_out, c_out, 1), c_out)
    else:
      inner = c_out * (2 if 'wide' in name else 1)
      # The author widens the space between the halves as well.
      mid *= 2 if 'wide' in name else 1
      point = (1, 1, 1)
      self.conv1 = unit(_conv(c_in, inner, point), inner, nn.ReLU())
      self.conv2 = unit(main(inner, inner, stride), inner, nn.ReLU())
      self.conv3 = unit(_conv(inner, c_out, point), c_out)
    if stride > 1 or c_in != c_out:
      self.downsample = unit(
        _conv(c_in, c_out, (1, 1, 1), (stride,) * 3), c_out
      )
    if 'srtg' in name:
      self.sar = _Recursion(c_out)

  def forward(self, x):
    y = self.conv2(self.conv1(x))
    if hasattr(self, 'conv3'):
      y = self.conv3(y)
    if hasattr(self, 'downsample'):
      x = self.downsample(x)
    y = F.relu(x + y)
    return self.sar(y) if hasattr(self, 'sar') else y


class _Recursion(nn.Module):
  def __init__(self, c):
    super().__init__()
    self.lstm = nn.LSTM(c, c, num_layers=2)

  def forward(self, x):
    hidden, _ = self.lstm(x.mean((3, 4)).permute(2, 0, 1))  # t n c
    return x * hidden.permute(1, 2, 0)[..., None, None]


class X3D(nn.Module):
  """PySlowFast's network.

  Args:
    blocks: the number of blocks of each stage.
    norm_all_shortcuts: whether shortcuts that keep their width have BN too, as
      in PySlowFast; those of PyTorchVideo have none.
  """

  def __init__(self, blocks, classes=400, norm_all_shortcuts=True):
    super().__init__()
    self.s1 = nn.ModuleDict(
      {
        'pathway0_stem': _modules(
          conv_xy=_conv(3, 24, (1, 3, 3), (1, 2, 2)),
          conv=_conv(24, 24, (5, 1, 1), groups=24),
          bn=nn.BatchNorm3d(24),
        )
      }
    )
    c = 24
    for i, width in enumerate((24, 48, 96, 192)):
      stage = nn.ModuleDict()
      for j in range(blocks[i]):
        stage[f'pathway0_res{j}'] = _X3DBlock(c, width, j, norm_all_shortcuts)
        c = width
      setattr(self, f's{i + 2}', stage)
    self.head = _modules(
      conv_5=_conv(192, 432, (1, 1, 1)),
      conv_5_bn=nn.BatchNorm3d(432),
      lin_5=_conv(432, 2048, (1, 1, 1)),
      projection=nn.Linear(2048, classes),
    )

  def forward(self, x):
    stem, head = self.s1['pathway0_stem'], self.head
    x = F.relu(stem['bn'](stem['conv'](stem['conv_xy'](x))))
    for stage in (self.s2, self.s3, self.s4, self.s5):
      for block in stage.values():
        x = block(x)
    x = F.relu(head['conv_5_bn'](head['conv_5'](x)))
    x = F.relu(head['lin_5'](x.mean((2, 3, 4), keepdim=True)))
    return head['projection'](x.flatten(1))


class _X3DBlock(nn.Module):
  def __init__(self, c, width, j, norm_all_shortcuts):
    super().__init__()
    inner, stride = width * 9 // 4, (1, 2, 2) if j == 0 else (1, 1, 1)
    if j == 0:
      self.branch1 = _conv(c, width, (1, 1, 1), stride)
      if c != width or norm_all_shortcuts:
        self.branch1_bn = nn.BatchNorm3d(width)
    self.branch2 = _modules(
      a=_conv(c, inner, (1, 1, 1)),
      a_bn=nn.BatchNorm3d(inner),
      b=_conv(inner, inner, (3, 3, 3), stride, groups=inner),
      b_bn=nn.BatchNorm3d(inner),
      c=_conv(inner, width, (1, 1, 1)),
      c_bn=nn.BatchNorm3d(width),
    )
    if j % 2 == 0:
      # A sixteenth, to a multiple of 8 that is not below nine tenths of it.
      few = max(8, (inner // 16 + 4) // 8 * 8)
      few += 8 if few < 0.9 * inner / 16 else 0
      self.branch2['se'] = _modules(
        fc1=nn.Conv3d(inner, few, 1), fc2=nn.Conv3d(few, inner, 1)
      )

  def forward(self, x):
    branch = self.branch2
    y = F.relu(branch['a_bn'](branch['a'](x)))
    y = branch['b_bn'](branch['b'](y))
    if 'se' in branch:
      gate = F.relu(branch['se']['fc1'](y.mean((2, 3, 4), keepdim=True)))
      y = y * torch.sigmoid(branch['se']['fc2'](gate))
    y = branch['c_bn'](branch['c'](F.silu(y)))
    if hasattr(self, 'branch1'):
      x = self.branch1(x)
      if hasattr(self, 'branch1_bn'):
        x = self.branch1_bn(x)
    return F.relu(x + y)


def _modules(**named):
  return nn.ModuleDict(named)
