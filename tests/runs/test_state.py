"""Placement of states and batches, and batches that do not divide."""

import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError


class _Mesh:
  size = 8


def test_a_batch_must_divide_by_the_devices():
  mesh_lib.check_divisible(16, _Mesh, 'train.batch_size')
  with pytest.raises(UserError) as error:
    mesh_lib.check_divisible(12, _Mesh, 'train.batch_size')
  message = str(error.value)
  assert 'train.batch_size (=12)' in message
  assert 'devices (=8)' in message and 'for instance 8.' in message


def test_batches_reach_the_devices_unchanged():
  mesh = mesh_lib.make_mesh()
  clips = np.arange(24, dtype=np.uint8).reshape(2, 1, 2, 2, 3)
  placed = mesh_lib.to_devices({'clips': clips}, mesh)['clips']
  assert isinstance(placed, jax.Array) and placed.dtype == np.uint8
  np.testing.assert_array_equal(placed, clips)


# How `place` lays out arrays of these shapes on 8 devices in groups of 4, by
# hand: along the longest axis that 4 divides, from 4096 numbers on.
_SHARDS = {
  (): (),
  (4, 1023): (4, 1023),  # 4092 numbers
  (4, 1024): (4, 256),
  (64, 64): (16, 64),  # the first of two as long
  (1, 3, 3, 24, 63): (1, 3, 3, 6, 63),
  (3, 3, 3, 16, 15): (3, 3, 3, 4, 15),
  (1, 1, 1, 63, 432): (1, 1, 1, 63, 108),
  (4098, 2): (4098, 2),  # 4 divides neither
  (4096,): (1024,),
}

_ON_EIGHT = """
import jax, jax.numpy as jnp, numpy as np, optax
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.runs import state
from tests.runs.test_state import _SHARDS

mesh = mesh_lib.make_mesh(fsdp=4)
assert dict(mesh.shape) == {'data': 2, 'fsdp': 4}, mesh
assert dict(mesh_lib.make_mesh().shape) == {'data': 8, 'fsdp': 1}
assert dict(mesh_lib.make_mesh(1, 8).shape) == {'data': 1, 'fsdp': 8}
half = mesh_lib.make_mesh(devices=jax.devices()[:4])
assert half.devices.size == 4

params = {str(s): jnp.arange(np.prod(s)).reshape(s) + 0.5 for s in _SHARDS}
stats = {'mean': jnp.zeros(4096)}
whole = state.TrainState(
  jnp.int32(3), params, stats, optax.trace(0.9).init(params))
placed = jax.device_put(whole, state.shardings(whole, mesh))

def local(x):
  assert len(x.addressable_shards) == 8
  (shape,) = {shard.data.shape for shard in x.addressable_shards}
  return shape

for tree in (placed.params, placed.opt_state.trace):
  assert {s: local(tree[str(s)]) for s in _SHARDS} == _SHARDS
assert local(placed.batch_stats['mean']) == (4096,)
assert local(placed.step) == ()
# Both groups have all of it, each device a share of its own.
shards = placed.params['(4096,)'].addressable_shards
starts = [int(shard.data[0]) for shard in shards]
assert starts == [0, 1024, 2048, 3072] * 2, starts

abstract = jax.eval_shape(lambda: whole)
assert state.shardings(abstract, mesh) == state.shardings(whole, mesh)
for sharding in jax.tree.leaves(state.shardings(whole, mesh_lib.make_mesh())):
  assert sharding.is_fully_replicated
for sharding in jax.tree.leaves(mesh_lib.whole(state.shardings(whole, mesh))):
  assert sharding.is_fully_replicated

clips = np.arange(16, dtype=np.uint8).reshape(16, 1, 1, 1, 1)
for any_mesh in (mesh, mesh_lib.make_mesh()):
  split = mesh_lib.to_devices({'a': {'clips': clips}}, any_mesh)['a']['clips']
  rows = [shard.data.ravel().tolist() for shard in split.addressable_shards]
  assert rows == [[2 * i, 2 * i + 1] for i in range(8)], rows

own = mesh_lib.make_mesh(devices=jax.devices()[2:4])
gathered = mesh_lib.to_own_devices(placed.variables, own)
for got, had in zip(*map(jax.tree.leaves, (gathered, whole.variables))):
  assert got.sharding.device_set == set(jax.devices()[2:4])
  assert got.sharding.is_fully_replicated
  np.testing.assert_array_equal(got, had)
print('done')
"""


def test_on_eight_devices(root):
  flags = '--xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, '-c', _ON_EIGHT],
    cwd=root,
    env=os.environ | {'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
  )
  assert done.stdout == 'done\n', done.stderr


@pytest.mark.parametrize(
  ('data', 'fsdp'), [(0, 3), (2, 2), (0, 0), (-1, 6), (0, -1), (3, 6), (0, 12)]
)
def test_groups_must_make_up_all_devices(data, fsdp):
  message = re.escape(
    f'mesh.data (={data}) times mesh.fsdp (={fsdp}) must be the number of '
    'devices (=10). Set mesh.data=0 to let it follow, and mesh.fsdp to one of '
    '1, 2, 5, 10.'
  )
  with pytest.raises(UserError, match=message):
    mesh_lib.make_mesh(data, fsdp, devices=jax.devices() * 10)
