"""Where kernels come from, and where there are none."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mtnet_jax.ops import native
from tests.ops.operation_cases import KERNELS

needs_compiler = pytest.mark.skipif(
  not native.available(), reason='there is no C++ compiler'
)


@pytest.mark.skipif(
  shutil.which(os.environ.get('CXX', 'c++')) is None,
  reason='there is no C++ compiler',
)
def test_a_compiler_makes_them():
  """Else all tests of kernels would skip, and nobody see why."""
  assert native.available()


# Whether there are kernels, a number that they computed, a hash of all bits.
PROGRAM = """
import jax, numpy as np
from mtnet_jax.devices import compiler, mesh
from mtnet_jax.ops import native
from mtnet_jax.ops.separated_conv import channel_separated_conv3d
x = np.random.default_rng(0).normal(size=(3, 9, 20, 21, 21)).astype('float32')
k = np.random.default_rng(1).normal(size=(3, 3, 3, 1, 21)).astype('float32')
def gradients(k, x, y):
  return jax.vjp(channel_separated_conv3d, x, k)[1](y)
run = compiler.jit(gradients, mesh.make_mesh(devices=jax.devices()[:1]))
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
@pytest.mark.slow
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


@pytest.mark.slow
def test_without_a_compiler_programs_run_and_the_log_says_why(root, tmp_path):
  found, log = run_program(
    root, CXX='no_such_compiler', XDG_CACHE_HOME=str(tmp_path)
  )
  assert found[0] == 'False'
  assert 'There is no C++ compiler no_such_compiler: install one' in log
  kernels, _ = run_program(root)
  np.testing.assert_allclose(float(found[1]), float(kernels[1]), rtol=1e-6)


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """A cache of this test's own, whose kernels take no time to compile."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(native, 'compile_all', fake_compile)
  fake_compile.count = 0
  return tmp_path / 'mtnet_jax'


def fake_compile(command, directory):
  del command
  fake_compile.count += 1
  made = pathlib.Path(directory, 'kernels.so')
  made.write_bytes(b'\x7fELF kernels')
  return made


def test_kernels_are_compiled_once_with_their_hash_beside_them(cache):
  path = native._library()
  assert native._library() == path and fake_compile.count == 1
  hashed = path.with_name(f'{path.name}.sha256').read_text()
  assert hashed == hashlib.sha256(path.read_bytes()).hexdigest()
  assert {p.name for p in cache.iterdir()} == {path.name, f'{path.name}.sha256'}
  assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
  'damage',
  [
    lambda p: p.write_bytes(p.read_bytes()[:5]),
    lambda p: p.write_bytes(b''),
    lambda p: p.write_bytes(b'foreign kernels'),
    lambda p: p.unlink(),
    lambda p: p.with_name(f'{p.name}.sha256').unlink(),
    lambda p: p.with_name(f'{p.name}.sha256').write_bytes(b'\xff\xfe'),
  ],
)
def test_what_is_not_as_it_was_compiled_is_compiled_again(cache, damage):
  path = native._library()
  damage(path)
  assert native._library() == path and fake_compile.count == 2
  assert path.read_bytes() == b'\x7fELF kernels'
  native._library()
  assert fake_compile.count == 2


def test_what_another_user_may_have_planted_is_not_loaded(cache, monkeypatch):
  path = native._library()
  for planted, mode in ((path, 0o666), (path, 0o620)):
    planted.chmod(mode)
    with pytest.raises(OSError, match=r'other users may write to it.*XDG_CACH'):
      native._library()
    planted.chmod(0o600)
  native._library()
  monkeypatch.setattr(native.os, 'getuid', lambda: os.stat(path).st_uid + 1)
  with pytest.raises(OSError, match='it belongs to another user'):
    native._library()
  assert fake_compile.count == 1


def test_a_folder_that_an_earlier_version_left_open_is_closed(cache):
  cache.mkdir()
  cache.chmod(0o777)
  native._library()
  assert cache.stat().st_mode & 0o777 == 0o700


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
  compiler = tmp_path / 'broken'
  compiler.write_text('#!/bin/sh\necho out of order >&2\nexit 1\n')
  compiler.chmod(0o755)
  monkeypatch.setenv('CXX', str(compiler))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  with pytest.raises(OSError, match='broken failed: out of order'):
    native._library()
  # Nothing is left that a later start could take for kernels.
  assert not list((tmp_path / 'cache/mtnet_jax').iterdir())


def test_a_cache_that_cannot_be_written_is_no_obstacle(
  tmp_path, monkeypatch, caplog
):
  blocked = tmp_path / 'file'
  blocked.touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(blocked))
  assert not native._load.__wrapped__()
  assert str(blocked) in caplog.text


def test_switched_off(monkeypatch):
  monkeypatch.setenv(native.SWITCH, '0')
  assert not native.available()


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
def test_other_processors_and_flags_have_files_of_their_own(monkeypatch):
  command = ['c++']
  before = native._fingerprint(command)
  assert native._fingerprint(['c++', '-g']) != before
  monkeypatch.setattr(native, '_processor', lambda: 'flags: less')
  assert native._fingerprint(command) != before


@needs_compiler
@pytest.mark.slow
def test_no_compiler_warns_of_them(tmp_path):
  strict = ('-Wall', '-Wextra', '-Werror', '-c', '-o', 'all.o')
  command = native.compiler_command(strict)
  for source in sorted(native._HERE.glob('*.cc')):
    done = subprocess.run(
      [*command, source], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


# Every kernel on odd shapes; that the results are right, other tests see.
SANITIZED = """
import functools
import jax, numpy as np
from mtnet_jax.ops import native
native.FLAGS = ('-w', '-O1', '-g1', '-fno-omit-frame-pointer',
                '-fno-sanitize-recover', '-fsanitize=address,undefined')
assert native.available()
assert b'__asan_report' in native._library().read_bytes()
from mtnet_jax.ops import tree_norm
from tests.ops import any_form
from tests.ops.operation_cases import KERNELS, OPERATIONS
from tests.ops.test_every_form import cast, run
for name in KERNELS:
  cases = OPERATIONS[name]
  called = any_form.quick_jit(functools.partial(run, cases), 'cpu_kernel')
  results = called(cast(cases, np.float32))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results)), name
  print(name, flush=True)
leaves = [np.ones(n, np.float32) for n in (1, 3, 16, 1640, 5000)]
print(float(any_form.quick_jit(tree_norm.tree_norm, 'cpu_kernel')(leaves)) ** 2)
"""


@needs_compiler
@pytest.mark.check
@pytest.mark.timeout(1500)
def test_sanitizers_find_nothing(root, tmp_path):
  """AddressSanitizer and UBSan, in a process that begins with theirs."""
  compiler = native.compiler_command()[0]
  preloaded = [
    subprocess.run(
      [compiler, f'-print-file-name={name}'], capture_output=True, text=True
    ).stdout.strip()
    for name in ('libasan.so', 'libubsan.so')
  ]
  if not all(map(os.path.isabs, preloaded)):
    pytest.skip('this compiler has no libasan.so or libubsan.so')
  done = subprocess.run(
    [sys.executable, '-c', SANITIZED],
    cwd=root,
    env=os.environ
    | {
      'LD_PRELOAD': ' '.join(preloaded),
      # Python and XLA leave memory to the end of the process.
      'ASAN_OPTIONS': 'detect_leaks=0,verify_asan_link_order=0',
      'UBSAN_OPTIONS': 'print_stacktrace=1',
      'XDG_CACHE_HOME': str(tmp_path),
      'PYTHONPATH': str(root),
      'JAXTYPING_DISABLE': '1',
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  *names, squares = done.stdout.split()
  assert names == list(KERNELS)
  assert float(squares) == pytest.approx(1 + 3 + 16 + 1640 + 5000, rel=1e-5)
