"""Where kernels come from, and where there are none."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import compiler, native
from mtnet_jax.layers.separated_conv import channel_separated_conv3d
from mtnet_jax.layers.soft_pool import soft_pool
from tests.arrays import random_clips

needs_compiler = pytest.mark.skipif(
  not native.available(), reason='there is no C++ compiler'
)
# Whether there are kernels, a number that they computed, a hash of all bits.
PROGRAM = """
import jax, numpy as np
from mtnet_jax import compiler, native
from mtnet_jax.layers.separated_conv import channel_separated_conv3d
x = np.random.default_rng(0).normal(size=(3, 9, 20, 21, 21)).astype('float32')
k = np.random.default_rng(1).normal(size=(3, 3, 3, 1, 21)).astype('float32')
def gradients(k, x, y):
  return jax.vjp(channel_separated_conv3d, x, k)[1](y)
run = compiler.jit(gradients)
dx, dk = jax.device_get(run(k, x, x))
bits = hash(dx.tobytes() + dk.tobytes())
print(native.available(), np.abs(dk).sum(dtype=np.float64), bits)
"""


def run_program(root, **environment):
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM],
    cwd=root,
    env=os.environ | {'PYTHONHASHSEED': '0'} | environment,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.split(), done.stderr


@needs_compiler
def test_only_where_they_are_allowed():
  x = random_clips(1, 2, 4, 4, 3)
  plain = jax.jit(soft_pool).lower(x).as_text()
  assert 'mtnet_jax_' not in plain
  assert (
    'mtnet_jax_soft_pool_forward' in compiler.jit(soft_pool).lower(x).as_text()
  )
  # What JAX remembers of the one is not taken for the other.
  assert jax.jit(soft_pool).lower(x).as_text() == plain


@needs_compiler
def test_a_function_within_a_program_is_traced_with_its_program():
  inner = jax.jit(soft_pool)
  x = random_clips(1, 2, 4, 4, 3)
  assert 'mtnet_jax_' not in inner.lower(x).as_text()
  outer = compiler.jit(lambda x: inner(x) + 1)
  assert 'mtnet_jax_' in outer.lower(x).as_text()


@needs_compiler
def test_the_same_bits_on_any_number_of_threads(root):
  both = run_program(root)[0]
  cores = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {min(cores)})
  try:
    one = run_program(root)[0]
  finally:
    os.sched_setaffinity(0, cores)
  assert both[0] == 'True'
  assert one == both


def test_without_a_compiler_programs_run_and_the_log_says_why(root, tmp_path):
  found, log = run_program(
    root, CXX='no_such_compiler', XDG_CACHE_HOME=str(tmp_path)
  )
  assert found[0] == 'False'
  assert 'There is no C++ compiler no_such_compiler: install one' in log
  kernels, _ = run_program(root)
  np.testing.assert_allclose(float(found[1]), float(kernels[1]), rtol=1e-6)


def test_a_compiler_that_fails_is_quoted(root, tmp_path):
  compiler_path = tmp_path / 'broken'
  compiler_path.write_text('#!/bin/sh\necho out of order >&2\nexit 1\n')
  compiler_path.chmod(0o755)
  found, log = run_program(
    root, CXX=str(compiler_path), XDG_CACHE_HOME=str(tmp_path / 'cache')
  )
  assert found[0] == 'False'
  assert 'broken failed: out of order' in log
  # Nothing is left that a later start could take for kernels.
  assert not list((tmp_path / 'cache/mtnet_jax').iterdir())


def test_a_cache_that_cannot_be_written_is_no_obstacle(root, tmp_path):
  blocked = tmp_path / 'file'
  blocked.touch()
  found, log = run_program(root, XDG_CACHE_HOME=str(blocked))
  assert found[0] == 'False'
  assert str(blocked) in log


def test_switched_off(root):
  assert run_program(root, **{native.SWITCH: '0'})[0][0] == 'False'


def test_several_devices_have_none(root):
  flags = '--xla_force_host_platform_device_count=2'
  assert run_program(root, XLA_FLAGS=flags)[0][0] == 'False'


@needs_compiler
def test_another_source_is_compiled_anew(monkeypatch, tmp_path):
  command = ['c++']
  before = native._fingerprint(command)
  for path in native._HERE.iterdir():
    if path.suffix in ('.cc', '.h'):
      (tmp_path / path.name).write_bytes(path.read_bytes())
  monkeypatch.setattr(native, '_HERE', pathlib.Path(tmp_path))
  assert native._fingerprint(command) == before
  (tmp_path / 'vectors.h').write_text('// changed')
  assert native._fingerprint(command) != before


@needs_compiler
def test_other_processors_have_files_of_their_own(monkeypatch):
  command = ['c++']
  before = native._fingerprint(command)
  monkeypatch.setattr(native, '_processor', lambda: 'flags: less')
  assert native._fingerprint(command) != before


def test_gradients_are_finite_where_activations_are_zero():
  kernel = jnp.ones((3, 3, 3, 1, 4))
  x = jnp.zeros((1, 2, 3, 4, 4))
  run = compiler.jit(
    jax.grad(lambda x: soft_pool(channel_separated_conv3d(x, kernel)).sum())
  )
  assert np.isfinite(run(x)).all()
