"""Compiles a network's train step for an accelerator that is not here.

  python -m tests.compiled_for tpu mtnet_xs

`tpu` needs libtpu, which `jax[tpu]` installs; `cuda` needs `jax-cuda13-plugin`
and `jax-cuda13-pjrt`. The last line is a JSON object: seconds of compilation on
this machine, and bytes by the compiler's own count.
"""

import functools
import json
import os
import sys
import time

# A compiler may end the process, or look for a device that is not here.
_ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'CUDA_VISIBLE_DEVICES': '-1',
}
_CLIPS = 8  # a device
# What XLA asks of a GPU: the published figures of an H100 SXM.
_H100 = """
gpu_device_info {
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
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 minor: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def topology(platform: str):
  """Returns the devices to compile for: four chips of v5e, or an H100."""
  from jax.experimental import topologies

  if platform == 'tpu':
    return topologies.get_topology_desc('v5e:2x2', platform='tpu')
  return topologies.get_topology_desc(
    platform='cuda', target_config=_H100, topology='1x1x1'
  )


def compile_for(platform: str, name: str) -> dict[str, float]:
  """Compiles the train step in bfloat16, its batch split over the devices.

  Args:
    platform: 'tpu' or 'cuda'.
    name: one of `models.NAMES`; the network gets clips of its usual size.

  Returns:
    Seconds of compilation, and the bytes of its temporary arrays.
  """
  import jax
  import jax.numpy as jnp

  from configs import base
  from mtnet_jax import models
  from mtnet_jax.devices import mesh as mesh_lib
  from mtnet_jax.runs import state as state_lib
  from mtnet_jax.training import optim
  from mtnet_jax.training.step import make_train_step

  mesh = mesh_lib.make_mesh(devices=topology(platform).devices)
  model = models.build(name, 400, dtype='bfloat16', norm_batch_size=_CLIPS)
  tx = optim.sgd(base.get_config().optim, lambda _: 0.1)
  frames, size = models.DEFAULT_CLIPS[name]
  shape = (frames, size, size, 3)
  state = jax.eval_shape(
    functools.partial(state_lib.create, model, tx, shape, 0)
  )
  shardings = state_lib.shardings(state, mesh)
  state = jax.tree.map(
    lambda leaf, sharding: leaf.update(sharding=sharding), state, shardings
  )
  clips = _CLIPS * mesh.size

  def rows(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(
      (clips, *shape), dtype, sharding=mesh_lib.split_batch(mesh)
    )

  batch = {
    'clips': rows(*shape, dtype=jnp.uint8),
    'labels': rows(dtype=jnp.int32),
    'counters': {'stop': rows(), 'broken': rows()},
  }
  step = make_train_step(model, lambda _: 0.1, tx, 0, mesh, shardings)
  start = time.perf_counter()
  lowered = step.lower(state, batch)
  text = lowered.as_text()
  if 'mtnet_jax_' in text:
    raise AssertionError("A program for an accelerator calls a CPU's kernels.")
  compiled = lowered.compile()
  return {
    'seconds': round(time.perf_counter() - start, 1),
    'temporary bytes': compiled.memory_analysis().temp_size_in_bytes,
  }


if __name__ == '__main__':
  os.environ.update(_ENVIRONMENT)
  print(json.dumps(compile_for(*sys.argv[1:])))
