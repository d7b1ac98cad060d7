"""Estimates how training scales: python -m benchmarks.communication [CLIPS].

The estimate follows from published speeds and is no measurement. CLIPS is the
number of clips per step and device, by default 8. docs/scale.md explains the
formulas, names the sources and says what is left out.
"""

import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax import models
from mtnet_jax.analysis import cost
from mtnet_jax.devices.targets import CHIPS, Chip
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.norm import BatchNorm

NAMES = ('srtg_r3d_34', 'mtnet_m', 'mtnet_l', 'x3d_m')
DEVICES = (8, 64, 512)
_CLASSES = 400
# The gradients of input and kernel cost a forward pass each.
TRAIN_PASSES = 3
# The share of the published peaks. A faster step hides less of what is sent.
_UTILIZATION = 0.5
# XLA puts so many bytes, and so many arrays, into one message on GPUs; assumed
# of TPUs too.
_MESSAGE_BYTES = 30 * 2**20
_MESSAGE_ARRAYS = 256


class Network(NamedTuple):
  """The work of a program: `flops`, `traffic` and `exchanged` are per clip.

  Attributes:
    flops: the floating-point operations of all passes.
    traffic: bytes through the device's memory.
    exchanged: bytes of all gradients and BN statistics.
    messages: into which they are put.
  """

  flops: float
  traffic: float
  exchanged: float
  messages: int


class Machine(NamedTuple):
  """Published speeds of one device.

  Attributes:
    name: the name of the device and of what connects it to the others.
    chip: the device by itself.
    link: a function of the number of devices. It returns the bytes per second
      that a device sends in an all-reduce, and the seconds that the smallest
      message takes; None where there is no such machine.
  """

  name: str
  chip: Chip
  link: Callable[[int], tuple[float, float] | None]


def h100_link(devices: int) -> tuple[float, float]:
  """NVLink in a node of 8; beyond, a rail of InfiniBand for each device."""
  nodes = devices // 8
  if nodes == 1:
    return 450e9, 8.4e-6 + 2 * 7 * 3.4e-6  # a ring
  # Rings or trees through all eight rails of a node.
  return 8 * 50e9, 8.4e-6 + 2 * (7 * 4e-6 + math.log2(nodes) * 14e-6)


def v5e_link(devices: int) -> tuple[float, float] | None:
  """2×4 and 8×8 are no rings, and have half of the speed; 256 is the most."""
  hops = {8: 1 + 3, 64: 7 + 7}.get(devices)
  return hops and (200e9 / 2, 2 * hops * 1e-6)


def v5p_link(devices: int) -> tuple[float, float]:
  """2×2×2 has no rings and half of the speed; 4×4×4 and 8×8×8 have."""
  side = round(devices ** (1 / 3))
  return 600e9 / (2 if side == 2 else 1), 2 * 3 * (side - 1) * 1e-6


MACHINES = (
  Machine('H100, NVLink and 400 Gb/s InfiniBand', CHIPS['h100'], h100_link),
  Machine('TPU v5e, one slice', CHIPS['v5e'], v5e_link),
  Machine('TPU v5p, one slice', CHIPS['v5p'], v5p_link),
)


def measure(name: str, passes: int = TRAIN_PASSES) -> Network:
  """Counts a network's work on its own clip, by abstract evaluation.

  Args:
    name: one of `models.NAMES`.
    passes: the work as a multiple of the forward pass's: 1 for inference,
      `TRAIN_PASSES` for a train step, and one more for a train step whose
      backward pass computes the blocks again.
  """
  frames, size = models.DEFAULT_CLIPS[name]
  model = models.build(name, _CLASSES)
  elements = 0

  def count(next_fun, args, kwargs, context):
    nonlocal elements
    out = next_fun(*args, **kwargs)
    is_layer = isinstance(context.module, (Conv3D, BatchNorm))
    if is_layer and context.method_name == '__call__':
      elements += args[0].size + out.size
    return out

  shape = (frames, size, size, 3)
  with nn.intercept_methods(count):
    variables = jax.eval_shape(
      model.init,
      jax.random.key(0),
      jax.ShapeDtypeStruct((1, *shape), jnp.float32),
    )
  leaves = jax.tree.leaves(variables)
  exchanged = 4 * sum(leaf.size for leaf in leaves)
  return Network(
    flops=passes * 2 * cost.macs(model, shape),
    # Each pass reads or writes a layer's input and output, in bfloat16.
    traffic=passes * 2 * elements,
    exchanged=exchanged,
    messages=max(
      math.ceil(exchanged / _MESSAGE_BYTES),
      math.ceil(len(leaves) / _MESSAGE_ARRAYS),
    ),
  )


def floor_seconds(network: Network, chip: Chip, clips: int) -> float:
  """Returns the time at a device's peaks: arithmetic or memory, the longer."""
  arithmetic = network.flops / chip.flops
  return clips * max(arithmetic, network.traffic / chip.bandwidth)


def step_seconds(network: Network, machine: Machine, clips: int) -> float:
  """Returns the time of computing alone, at half of the peaks."""
  return floor_seconds(network, machine.chip, clips) / _UTILIZATION


def exchange_seconds(
  network: Network, machine: Machine, devices: int
) -> float | None:
  """Returns the time of all all-reduces in turn; None if not possible."""
  link = machine.link(devices)
  if link is None:
    return None
  bandwidth, latency = link
  sent = 2 * (devices - 1) / devices * network.exchanged
  return sent / bandwidth + network.messages * latency


def main(clips: int) -> None:
  """Prints a table of the networks and one of the machines."""
  networks = {name: measure(name) for name in NAMES}
  print('| network | GFLOP a clip | GB a clip | MB exchanged | messages |')
  print('| --- | --- | --- | --- | --- |')
  for name, network in networks.items():
    print(
      f'| {name} | {network.flops / 1e9:.0f} | {network.traffic / 1e9:.2f} | '
      f'{network.exchanged / 1e6:.1f} | {network.messages} |'
    )
  print(f'\n| {clips} clips a device | step, ms |', end='')
  print(''.join(f' {devices} devices |' for devices in DEVICES))
  print('| --- |' + ' --- |' * (1 + len(DEVICES)))
  for machine in MACHINES:
    print(f'| **{machine.name}** |' + ' |' * (1 + len(DEVICES)))
    for name, network in networks.items():
      step = step_seconds(network, machine, clips)
      cells = [f'{1e3 * step:.1f}']
      for devices in DEVICES:
        exchange = exchange_seconds(network, machine, devices)
        cells.append(
          '' if exchange is None
          else f'{1e3 * exchange:.2f} ms: {step / (step + exchange):.0%}'
        )  # fmt: skip
      print(f'| {name} | {" | ".join(cells)} |')


if __name__ == '__main__':
  main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
