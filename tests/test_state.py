"""Placement of states and batches, and batches that do not divide."""

import jax
import numpy as np
import pytest

from mtnet_jax import state
from mtnet_jax.errors import UserError


class _Mesh:
  shape = {'data': 8}  # noqa: RUF012


def test_a_batch_must_divide_by_the_devices():
  state.check_divisible(16, _Mesh, 'train.batch_size')
  with pytest.raises(UserError) as error:
    state.check_divisible(12, _Mesh, 'train.batch_size')
  message = str(error.value)
  assert 'train.batch_size (=12)' in message
  assert 'devices (=8)' in message and 'for instance 8.' in message


def test_batches_reach_the_devices_unchanged():
  mesh = state.make_mesh()
  clips = np.arange(24, dtype=np.uint8).reshape(2, 1, 2, 2, 3)
  placed = state.to_devices({'clips': clips}, mesh)['clips']
  assert isinstance(placed, jax.Array) and placed.dtype == np.uint8
  np.testing.assert_array_equal(placed, clips)
