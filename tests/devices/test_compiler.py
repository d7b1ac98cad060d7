"""Options that XLA may know or not; where compiled programs are kept."""

import jax
import jax.numpy as jnp
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from jax.experimental.compilation_cache import compilation_cache

from mtnet_jax.devices import compiler
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError

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


@pytest.fixture
def other_cache():
  """Puts the tests' own folder of compiled programs back."""
  names = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def _compile_here(number):
  """Something that no other program does."""
  return jax.jit(lambda x: x * number - 1)(jnp.float32(3))


def test_programs_are_kept_where_they_are_told(tmp_path, other_cache):
  _compile_here(1.25)
  folder = tmp_path / 'new' / 'cache'
  compiler.keep_programs(str(folder), 'train.compilation_cache')
  assert list(folder.iterdir()) == []  # nothing is left of the attempt
  _compile_here(1.5)
  kept = {path.name for path in folder.iterdir()}
  assert any('lambda' in name for name in kept)
  compiler.keep_programs('', 'train.compilation_cache')
  assert jax.config.jax_compilation_cache_dir == str(folder)


def test_programs_are_kept_in_a_bucket(monkeypatch, other_cache):
  """One in memory, to which JAX writes as it does to any."""
  bucket = {'class': 'fsspec.implementations.memory.MemoryFileSystem'}
  monkeypatch.setitem(known_implementations, 's3', bucket)
  compiler.keep_programs('s3://bucket/cache', 'train.compilation_cache')
  _compile_here(1.75)
  kept = [path for path in MemoryFileSystem.store if 'lambda' in path]
  assert kept and all(path.startswith('s3://bucket/cache/') for path in kept)


def test_a_bucket_s_package_that_is_missing_is_named(monkeypatch):
  missing = {'class': 'no_such_package.Files', 'err': 'Install no_such_package'}
  monkeypatch.setitem(known_implementations, 'az', missing)
  with pytest.raises(
    UserError, match=r"a\.b \(='az://c'\) .*no_such_package\."
  ):
    compiler.keep_programs('az://c', 'a.b')


@pytest.mark.parametrize('folder', ['{}/file/cache', 'no://bucket'])
def test_a_folder_that_cannot_be_written_to(folder, tmp_path):
  (tmp_path / 'file').write_text('')
  before = jax.config.jax_compilation_cache_dir
  with pytest.raises(UserError, match=r'^a\.b .* cannot be written to') as told:
    compiler.keep_programs(folder.format(tmp_path), 'a.b')
  assert '\n' not in str(told.value) and 'gs://' in str(told.value)
  assert jax.config.jax_compilation_cache_dir == before
