"""Options that XLA may know or not, for a program and for a quick one."""

import jax
import jax.numpy as jnp
import pytest

from mtnet_jax.devices import compiler
from mtnet_jax.devices import mesh as mesh_lib

KNOWN = {'xla_backend_optimization_level': 0}


@pytest.fixture(autouse=True)
def nothing_tried_yet():
  compiler._knows.cache_clear()
  yield
  compiler._knows.cache_clear()


def test_an_unknown_option_is_left_out_and_the_log_names_it_once(caplog):
  options = {'xla_no_such_option': True, **KNOWN}
  for _ in range(2):
    assert compiler._known(options, 'cpu') == KNOWN
    assert compiler._known(KNOWN) == KNOWN
  assert caplog.text.count('XLA has no option xla_no_such_option=True') == 1


def test_programs_run_without_any_option(monkeypatch):
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  assert compiler._options(mesh, training=True)
  monkeypatch.setattr(compiler, '_knows', lambda *option: False)
  assert compiler._options(mesh, training=True) is None
  program = compiler.jit(lambda x: x + 1, mesh, training=True)
  assert float(program(jnp.float32(1))) == 2
  assert float(compiler.quick_jit(lambda x: x + 1)(jnp.float32(1))) == 2


def test_a_quick_program_asks_for_no_cpu(monkeypatch):
  """JAX_PLATFORMS=cuda leaves none."""
  local_devices = jax.local_devices

  def without_cpu(*, backend=None):
    if backend == 'cpu':
      raise RuntimeError('Unknown backend cpu')
    return local_devices(backend=backend)

  monkeypatch.setattr(jax, 'local_devices', without_cpu)
  monkeypatch.setattr(
    jax, 'devices', lambda backend=None: without_cpu(backend=backend)
  )
  assert float(compiler.quick_jit(lambda x: x + 1)(jnp.float32(1))) == 2
