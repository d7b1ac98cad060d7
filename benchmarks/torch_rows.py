"""Runs in PyTorch the peers of the CPU benchmark's rows, on all cores."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks import torch_peers, torch_tsm
from benchmarks.programs import CLASSES

torch.set_num_threads(len(os.sched_getaffinity(0)))


def network(
  name: str, kind: str, shape: tuple[int, int, int], layout: str
) -> Callable[[], torch.Tensor]:
  """A network on random normal clips.

  Args:
    name: one of the networks of `cpu.cases`.
    kind: 'train step' or 'inference'.
    shape: clips, frames, height and width in pixels.
    layout: one of `torch_peers.LAYOUTS`.
  """
  n, frames, size = shape
  order = torch_peers.LAYOUTS[layout]
  if name == 'x3d_m':
    model = torch_peers.x3d_m(CLASSES, frames, size)
  elif name == 'srtg_r3d_34':
    model = torch_peers.srtg_r3d_34(CLASSES)
  elif name == 'tsm_r50':
    model = torch_tsm.TSM(CLASSES, frames)
  else:
    model = torch_peers.of_pytorchvideo(name, CLASSES, frames, size)
  flat = {torch.channels_last_3d: torch.channels_last}  # of 2-D kernels
  own = flat.get(order, order) if name == 'tsm_r50' else order
  model = model.to(memory_format=own)
  clips = torch.randn(n, 3, frames, size, size).to(memory_format=order)
  if kind == 'inference':
    return torch_peers.inference(model, clips)
  labels = torch.zeros(n, dtype=torch.long)
  return torch_peers.train_step(model, clips, labels)


def separated(
  shape: Sequence[int],
  strides: Sequence[int],
  y_shape: Sequence[int],
  backward: bool,
  layout: str,
) -> Callable[[], Any]:
  """The channel-separated 3×3×3 convolution.

  Args:
    shape: the shape of the input, `n t h w c`.
    strides: frames, rows, columns.
    y_shape: the shape of the output.
    backward: whether both passes are made.
    layout: one of `torch_peers.LAYOUTS`.
  """
  order = torch_peers.LAYOUTS[layout]

  def channels_second(s):
    n, t, h, w, c = s
    return torch.randn(n, c, t, h, w).to(memory_format=order)

  x, dy = map(channels_second, (shape, y_shape))
  kernel = torch.randn(shape[-1], 1, 3, 3, 3).to(memory_format=order)
  if not backward:
    infer = torch.inference_mode()(torch_peers.separated_conv)
    return functools.partial(infer, x, kernel, strides)
  inputs = [a.requires_grad_() for a in (x, kernel)]
  return lambda: torch.autograd.grad(
    torch_peers.separated_conv(*inputs, strides), inputs, dy
  )


def copy(num_bytes: int) -> Callable[[], torch.Tensor]:
  """A copy of so many bytes."""
  source = torch.ones(num_bytes // 4)
  target = torch.zeros_like(source)
  return lambda: target.copy_(source)
