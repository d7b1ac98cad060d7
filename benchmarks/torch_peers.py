"""The PyTorch networks that the benchmarks compare with.

PyTorchVideo's X3D, the residual network with Squeeze and Recursion, as plain
layers, and what training and inference are of any of them. Only those import
this file who have found PyTorch.
"""

import contextlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F

# PyTorch's default, n c t h w in memory, and n t h w c, as ours.
LAYOUTS = types.MappingProxyType(
  {
    'default': torch.contiguous_format,
    'channels_last_3d': torch.channels_last_3d,
  }
)


def x3d_m(num_classes: int, frames: int, size: int) -> nn.Module:
  """PyTorchVideo's X3D-M without dropout, `(n, 3, t, h, w)` to logits.

  Args:
    num_classes: classes.
    frames: the number of frames of the clips, for its last pooling.
    size: height and width of the clips in pixels, likewise.
  """
  with _boxes():
    from pytorchvideo.models.x3d import create_x3d
  return create_x3d(
    input_clip_length=frames,
    input_crop_size=size,
    model_num_class=num_classes,
    dropout_rate=0.0,
    depth_factor=2.2,
    width_factor=2.0,
    bottleneck_factor=2.25,
    head_activation=None,
  )


def of_pytorchvideo(
  name: str, num_classes: int, frames: int, size: int
) -> nn.Module:
  """PyTorchVideo's Slow-only, SlowFast or CSN, `(n, 3, t, h, w)` to logits.

  Args:
    name: 'slow_r50', 'slowfast_r50_8x8' or 'ir_csn_101'.
    num_classes: classes.
    frames: the number of frames of the clips, for the last pooling.
    size: height and width of the clips in pixels, likewise.
  """
  with _boxes():
    from pytorchvideo.models import csn, resnet, slowfast
  side = -(-size // 32)
  more = {'model_num_class': num_classes, 'dropout_rate': 0.0}
  if name == 'slow_r50':
    pool = (frames, side, side)
    return resnet.create_resnet(
      model_depth=50, head_pool_kernel_size=pool, **more
    )
  if name == 'ir_csn_101':
    pool = (-(-frames // 8), side, side)
    return csn.create_csn(
      model_depth=101,
      stem_pool=nn.MaxPool3d,
      head_pool_kernel_size=pool,
      **more,
    )
  pools = ((frames // 4, side, side), (frames, side, side))
  network = slowfast.create_slowfast(
    model_depth=50,
    slowfast_fusion_conv_kernel_size=(7, 1, 1),
    head_pool_kernel_sizes=pools,
    **more,
  )
  return _TwoRates(network)


class _TwoRates(nn.Module):
  """SlowFast of one clip, of which the slow pathway gets each fourth frame."""

  def __init__(self, network):
    super().__init__()
    self.network = network

  def forward(self, clips):
    t = clips.shape[2]
    indices = torch.linspace(0, t - 1, t // 4).long()
    return self.network([clips[:, :, indices], clips])


@contextlib.contextmanager
def _boxes() -> Iterator[None]:
  """Spares torchvision: PyTorchVideo imports its boxes, which X3D has not."""
  if importlib.util.find_spec('torchvision'):
    yield
    return
  package, ops = (types.ModuleType(n) for n in ('torchvision', 'ops'))
  package.ops, ops.RoIAlign = ops, None
  sys.modules |= {'torchvision': package, 'torchvision.ops': ops}
  try:
    yield
  finally:
    del sys.modules['torchvision'], sys.modules['torchvision.ops']


def srtg_r3d_34(num_classes: int) -> nn.Module:
  """Our network of that name, `(n, 3, t, h, w)` to logits."""
  return SRTGResNet(num_classes)


class SRTGResNet(nn.Module):
  """A 3-D residual network of Simple blocks with Squeeze and Recursion.

  Submodules have the names that ours have.

  Args:
    num_classes: classes.
    blocks: the number of blocks of each stage.
    widths: channels of each stage.
  """

  def __init__(
    self,
    num_classes: int,
    blocks: Sequence[int] = (3, 4, 6, 3),
    widths: Sequence[int] = (64, 128, 256, 512),
  ):
    super().__init__()
    c = widths[0]
    self.stem = _Unit(3, c, (3, 7, 7), (1, 2, 2))
    self.blocks = []
    for i, (width, count) in enumerate(
      zip(widths, blocks, strict=True), start=1
    ):
      for j in range(1, count + 1):
        name = f'stage_{i}_block_{j}'
        self.add_module(name, _Block(c, width, 2 if i > 1 and j == 1 else 1))
        self.blocks.append(name)
        c = width
    self.classifier = nn.Linear(c, num_classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns logits `(n, k)`."""
    x = F.max_pool3d(self.stem(x), 3, 2, 1)
    for name in self.blocks:
      x = getattr(self, name)(x)
    return self.classifier(x.mean((2, 3, 4)))


class _Unit(nn.Module):
  def __init__(self, c, width, kernel, strides, activation=F.relu):
    super().__init__()
    padding = [k // 2 for k in kernel]
    self.conv = nn.Conv3d(c, width, kernel, strides, padding, bias=False)
    self.norm = nn.BatchNorm3d(width)
    self.activation = activation

  def forward(self, x):
    x = self.norm(self.conv(x))
    return self.activation(x) if self.activation else x


class _Block(nn.Module):
  def __init__(self, c, width, stride):
    super().__init__()
    strides, cube = (stride,) * 3, (3, 3, 3)
    self.conv_1 = _Unit(c, width, cube, strides)
    self.conv_2 = _Unit(width, width, cube, (1, 1, 1), None)
    self.shortcut = nn.Identity()
    if stride > 1 or c != width:
      self.shortcut = _Unit(c, width, (1, 1, 1), strides, None)
    self.srtg = _SqueezeAndRecursion(width)

  def forward(self, x):
    return self.srtg(F.relu(self.conv_2(self.conv_1(x)) + self.shortcut(x)))


class _SqueezeAndRecursion(nn.Module):
  """Scales by hidden states those clips whose gate is open."""

  def __init__(self, c):
    super().__init__()
    self.recurrence = nn.LSTM(c, c, num_layers=2, batch_first=True)
    # We have one bias a gate, where PyTorch has a second one.
    for name, bias in self.recurrence.named_parameters():
      if name.startswith('bias_hh'):
        nn.init.zeros_(bias).requires_grad_(False)

  def forward(self, x):
    pooled = x.mean((3, 4)).transpose(1, 2)  # n t c
    hidden, _ = self.recurrence(pooled)
    fused = x * hidden.transpose(1, 2)[..., None, None]
    if x.shape[2] == 1:
      return fused
    with torch.no_grad():
      is_open = cycle_consistent(pooled, hidden)
    return torch.where(is_open[:, None, None, None, None], fused, x)


def cycle_consistent(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
  """Returns which clips' embeddings `(n, t, c)` agree on the order, `(n,)`."""
  return _finds_itself(a, b) & _finds_itself(b, a)


def _finds_itself(a, b):
  """Whether every frame of a is found again from its neighbor in b, `(n,)`."""
  neighbors = torch.softmax(-_squared_distances(a, b), -1) @ b
  found = _squared_distances(neighbors, b).argmin(-1)
  return (found == torch.arange(a.shape[1], device=a.device)).all(-1)


def _squared_distances(a, b):
  return (a[:, :, None] - b[:, None]).square().sum(-1)  # n t t


def separated_conv(
  x: torch.Tensor, kernel: torch.Tensor, strides: Sequence[int]
) -> torch.Tensor:
  """Each channel of x convolved with its own kernel, padded as ours is.

  Args:
    x: `(n, c, t, h, w)`.
    kernel: `(c, 1, i, j, k)`.
    strides: frames, rows, columns.
  """
  padding = [k // 2 for k in kernel.shape[2:]]
  return F.conv3d(x, kernel, None, strides, padding, groups=x.shape[1])


def train_step(
  network: nn.Module, clips: torch.Tensor, labels: torch.Tensor
) -> Callable[[], torch.Tensor]:
  """A function that makes one step and returns its loss.

  BN normalizes by the batch; SGD with momentum 0.9 and weight decay 5e-5.

  Args:
    network: a network in the memory layout of the clips.
    clips: `(n, 3, t, h, w)`, normalized before: PyTorch's easier case.
    labels: `(n,)`.
  """
  network.train()
  optimizer = torch.optim.SGD(
    [p for p in network.parameters() if p.requires_grad],
    lr=0.01,
    momentum=0.9,
    weight_decay=5e-5,
    fused=True,
  )

  def step():
    optimizer.zero_grad()
    loss = F.cross_entropy(network(clips), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()

  return step


def inference(
  network: nn.Module, clips: torch.Tensor
) -> Callable[[], torch.Tensor]:
  """A function that returns logits; BN by its moving statistics.

  Args:
    network: a network in the memory layout of the clips.
    clips: `(n, 3, t, h, w)`, normalized before.
  """
  network.eval()

  def infer():
    with torch.inference_mode():
      return network(clips)

  return infer
