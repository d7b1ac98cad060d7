"""PyTorch's side of the GPU's benchmark. Only those who have it import this."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import torch_peers
from benchmarks.gpu_common import Contender
from mtnet_jax.typing import Array, Float

LAYOUTS = torch_peers.LAYOUTS
# Of activations, to PyTorch's order and from it; of channel-separated kernels.
_TO_TORCH, _FROM_TORCH = (0, 4, 1, 2, 3), (0, 2, 3, 4, 1)
_KERNEL_TO_TORCH, _KERNEL_FROM_TORCH = (4, 3, 0, 1, 2), (2, 3, 4, 1, 0)


def on_same_device() -> bool:
  """Whether this PyTorch runs where JAX does: on a GPU, or on none."""
  return torch.cuda.is_available() == (jax.default_backend() == 'gpu')


def separated(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k 1 c'],
  dy: Float[Array, 'n u v x c'],
  strides: Sequence[int],
  what: str,
  layout: str,
) -> Contender:
  """The channel-separated convolution of x, or a gradient; see `to_jax`.

  Args:
    x: activations.
    kernel: the kernel, of the same dtype.
    dy: the gradient by the output.
    strides: frames, rows, columns.
    what: 'forward', 'input gradient' or 'kernel gradient'.
    layout: one of `LAYOUTS`.
  """
  torch.backends.cudnn.benchmark = True
  x, dy = (
    torch.from_dlpack(a)
    .permute(_TO_TORCH)
    .contiguous(memory_format=LAYOUTS[layout])
    for a in (x, dy)
  )
  kernel = torch.from_dlpack(kernel).permute(_KERNEL_TO_TORCH).contiguous()
  if what == 'forward':
    run = functools.partial(torch_peers.separated_conv, x, kernel, strides)
    return Contender(torch.inference_mode()(run), _wait)
  padding = [k // 2 for k in kernel.shape[2:]]
  by_input = what == 'input gradient'

  def differentiate():
    gradients = torch.ops.aten.convolution_backward(
      grad_output=dy,
      input=x,
      weight=kernel,
      bias_sizes=None,
      stride=strides,
      padding=padding,
      dilation=(1, 1, 1),
      transposed=False,
      output_padding=(0, 0, 0),
      groups=x.shape[1],
      output_mask=(by_input, not by_input, False),
    )
    return gradients[0 if by_input else 1]

  return Contender(differentiate, _wait)


def to_jax(result: torch.Tensor, what: str) -> Float[Array, '*d']:
  """Returns what `separated` computes, float32, with its axes in our order."""
  is_kernel = what == 'kernel gradient'
  axes = _KERNEL_FROM_TORCH if is_kernel else _FROM_TORCH
  return jnp.from_dlpack(result.float().permute(axes).contiguous())


def train(name: str, clips: Sequence[int], layout: str) -> Contender:
  """A train step of a network, parameters float32, the rest bfloat16.

  Args:
    name: 'x3d_m' or 'r3d_50'.
    clips: their shape, `(n, t, h, w, 3)`.
    layout: one of `LAYOUTS`.
  """
  network, clips, labels = _prepare(name, clips, layout)
  return Contender(torch_peers.train_step(network, clips, labels), _wait)


def inference(name: str, clips: Sequence[int], layout: str) -> Contender:
  """Logits in evaluation; arguments as `train`'s."""
  network, clips, _ = _prepare(name, clips, layout)
  return Contender(torch_peers.inference(network, clips), _wait)


def free() -> None:
  """Gives the memory back that PyTorch keeps for what is to come."""
  torch.cuda.empty_cache()


def r3d_50(num_classes: int) -> nn.Module:
  """Our network of that name, `(n, 3, t, h, w)` to logits."""
  layers, c = [*_unit(3, 64, (3, 7, 7), (1, 2, 2)), nn.ReLU()], 64
  layers.append(nn.MaxPool3d(3, 2, 1))
  for i, (width, count) in enumerate(
    zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)
  ):
    for j in range(count):
      layers.append(_Bottleneck(c, width, 2 if i > 0 and j == 0 else 1))
      c = width
  return nn.Sequential(
    *layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(c, num_classes)
  )


class _Bottleneck(nn.Module):
  def __init__(self, c, width, stride):
    super().__init__()
    strides = (stride,) * 3
    self.convolutions = nn.Sequential(
      *_unit(c, width),
      nn.ReLU(),
      *_unit(width, width, (3, 3, 3), strides),
      nn.ReLU(),
      *_unit(width, width),
    )
    self.shortcut = nn.Sequential()
    if stride > 1 or c != width:
      self.shortcut = nn.Sequential(*_unit(c, width, (1, 1, 1), strides))

  def forward(self, x):
    return F.relu(self.convolutions(x) + self.shortcut(x))


def _unit(c, width, kernel=(1, 1, 1), strides=(1, 1, 1)):
  padding = [k // 2 for k in kernel]
  return (
    nn.Conv3d(c, width, kernel, strides, padding, bias=False),
    nn.BatchNorm3d(width),
  )


class _HalfPrecision(nn.Module):
  """Computes in bfloat16 where PyTorch thinks it right; float32 logits."""

  def __init__(self, network, device):
    super().__init__()
    self.network, self.device = network, device

  def forward(self, x):
    with torch.autocast(self.device, torch.bfloat16):
      logits = self.network(x)
    return logits.float()


def _prepare(name, clips, layout):
  """The network, random clips and their labels where JAX runs, too."""
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')
  n, frames, height, width, channels = clips
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  classes = 400
  if name == 'x3d_m':
    network = torch_peers.x3d_m(classes, frames, height)
  else:
    network = r3d_50(classes)
  network = _HalfPrecision(network, device)
  network = network.to(device, memory_format=LAYOUTS[layout])
  if device == 'cuda':  # elsewhere it needs a compiler of C++
    network = torch.compile(network)
  clips = torch.randn(
    (n, channels, frames, height, width), device=device, dtype=torch.bfloat16
  ).contiguous(memory_format=LAYOUTS[layout])
  return network, clips, torch.zeros(n, dtype=torch.long, device=device)


def _wait(result):
  if torch.cuda.is_available():
    torch.cuda.synchronize()
  return result
