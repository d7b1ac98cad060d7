"""Devices that programs are compiled for, at hand or not.

Published figures: https://docs.cloud.google.com/tpu/docs/v5e, /v5p and /v6e;
https://www.nvidia.com/en-us/data-center/h100/ and /h200/, SXM, half of the
arithmetic with sparsity.

JAX is loaded by `devices` alone, so that `ENVIRONMENT` can be set before.
"""

import importlib.metadata
import re
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mtnet_jax.errors import UserError

if TYPE_CHECKING:
  import jax

# The environment of a process that compiles for a target: no compiler then
# looks for devices of its own.
ENVIRONMENT: Mapping[str, str] = types.MappingProxyType(
  {
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'CUDA_VISIBLE_DEVICES': '-1',
    'JAX_PLATFORMS': 'cpu',
    'TPU_SKIP_MDS_QUERY': '1',
  }
)
_GIB = 2**30


class Chip(NamedTuple):
  """The peak rates of a device.

  Attributes:
    flops: a second, bfloat16, dense.
    bandwidth: bytes a second through its memory.
    memory: bytes that it has.
    clock: cycles a second of a TPU, the peak over what its matrix units do in a
      cycle; None of a GPU, for which no compiler estimates cycles.
  """

  flops: float
  bandwidth: float
  memory: int
  clock: float | None = None


def _tpu(flops, bandwidth, memory, units, side):
  """Returns a TPU with matrix units of `side`² multiply-adds a cycle."""
  return Chip(flops, bandwidth, memory * _GIB, flops / (2 * units * side**2))


CHIPS: Mapping[str, Chip] = types.MappingProxyType(
  {
    'v5e': _tpu(197e12, 0.819e12, 16, units=4, side=128),
    'v5p': _tpu(459e12, 2.765e12, 95, units=8, side=128),
    'v6e': _tpu(918e12, 1.6e12, 32, units=4, side=256),
    'h100': Chip(989e12, 3.35e12, 84929347584),
    'h200': Chip(989e12, 4.8e12, 150754820096),
  }
)
_GPU_NAMES = {'h100': 'NVIDIA H100 80GB HBM3', 'h200': 'NVIDIA H200'}
# As the driver tells them.
_XLA_BANDWIDTHS = {'h100': 3352320000000, 'h200': 4800000000000}
_TPUS = tuple(name for name in CHIPS if name not in _GPU_NAMES)
# What XLA asks of a GPU.
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f}
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: {memory}
  shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 minor: 0 }}
device_description_str: "{name}"
"""


def is_gpu(target: str) -> bool:
  """Returns whether a target is a GPU; else it is a topology of TPUs."""
  return target in _GPU_NAMES


def check(target: str) -> None:
  """Raises a UserError unless `target` names devices that we know."""
  if is_gpu(target) or re.fullmatch(rf'({"|".join(_TPUS)}):\d+(x\d+)+', target):
    return
  raise UserError(
    f'Unknown target (={target!r}). Give {" or ".join(_GPU_NAMES)}, or a '
    f'topology of TPUs: {", ".join(_TPUS)}, then a colon and the chips in each '
    'direction, as in v5e:2x2 or v5p:2x2x1.'
  )


def compiler_versions(target: str) -> dict[str, str]:
  """Returns the versions of JAX and of what compiles for a target.

  Raises:
    UserError: this environment has no compiler for the target.
  """
  compiler = 'jax-cuda13-plugin' if is_gpu(target) else 'libtpu'
  wanted = 'jax[cuda13]' if is_gpu(target) else 'jax[tpu]'
  try:
    return {
      name: importlib.metadata.version(name)
      for name in ('jax', 'jaxlib', compiler)
    }
  except importlib.metadata.PackageNotFoundError as error:
    raise UserError(
      f'Compiling for {target} needs {error.name}, which is not installed '
      f'here: pip install "{wanted}", in an environment of its own, since it '
      'changes the devices that JAX looks for. In a clone, `make accelerators` '
      'installs it in .venv-aot: give the same command to '
      '.venv-aot/bin/python.'
    ) from None


def chip(target: str) -> Chip:
  """Returns the figures of one of a target's devices."""
  return CHIPS[target.partition(':')[0]]


def describe_gpu(target: str) -> str:
  """Returns what XLA asks of a GPU, as a protocol buffer's text."""
  bandwidth, memory = _XLA_BANDWIDTHS[target], CHIPS[target].memory
  return _GPU.format(
    bandwidth=bandwidth, memory=memory, name=_GPU_NAMES[target]
  )


def devices(target: str) -> Sequence['jax.Device']:
  """Returns a target's devices, which can be compiled for and nothing else.

  Args:
    target: one that `check` lets through. TPUs need libtpu, GPUs JAX's plugin
      for CUDA.
  """
  from jax.experimental import topologies

  if is_gpu(target):
    described = topologies.get_topology_desc(
      platform='cuda', target_config=describe_gpu(target), topology='1x1x1'
    )
  else:
    # By default an older libtpu takes four chips for the least of a host.
    one_chip = set(target.partition(':')[2].split('x')) == {'1'}
    bounds = {'chips_per_host_bounds': (1, 1, 1)} if one_chip else {}
    described = topologies.get_topology_desc(target, platform='tpu', **bounds)
  return described.devices
