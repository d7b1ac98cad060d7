"""Which operations does C++ compute faster than XLA on a CPU?

The kernels are compiled once on each machine, for its own processor, when the
first program asks for them, and kept under `~/.cache/mtnet_jax`. Where there is
no C++ compiler there are none, and the other forms of the operations serve.
"""

import concurrent.futures
import ctypes
import functools
import hashlib
import math
import os
import pathlib
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging

from mtnet_jax import files
from mtnet_jax.typing import Array, Float

# The functions that the `.cc` files here hold.
FUNCTIONS = (
  'grouped_conv_forward',
  'grouped_conv_input_gradient',
  'grouped_conv_kernel_gradient',
  'gru_backward',
  'gru_forward',
  'norm_backward',
  'norm_forward',
  'scale_gradient',
  'select_frames',
  'separated_conv_forward',
  'separated_conv_input_gradient',
  'separated_conv_kernel_gradient',
  'soft_pool_backward',
  'soft_pool_forward',
  'square_sum',
  'sums',
  'up_sample_backward',
  'up_sample_forward',
)
# Set to '0', it keeps this process from kernels.
SWITCH = 'MTNET_JAX_KERNELS'
# Warnings of users' compilers are not shown.
FLAGS = ('-w',)
_HERE = pathlib.Path(__file__).parent
_PREFIX = 'mtnet_jax_'


def available() -> bool:
  """Returns whether there are kernels here; compiles them if need be."""
  return os.environ.get(SWITCH) != '0' and _load()


def call(name: str, results: Any, *args: Array, **attributes: Any) -> Any:
  """Calls a kernel; only where they are available.

  Args:
    name: one of `FUNCTIONS`.
    results: arrays, or shapes and dtypes, like those that it returns.
    *args: arrays.
    **attributes: constants, as numpy has them.
  """
  shapes = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), results
  )
  kernel = jax.ffi.ffi_call(_PREFIX + name, shapes, vmap_method='sequential')
  return kernel(*args, **attributes)


def as_rows(x: Float[Array, '*axes c'], first: int) -> Float[Array, 'g d c']:
  """Returns x as groups of rows of channels, as kernels take it.

  Args:
    x: any array of at least two axes.
    first: the first axis of the rows; those before are groups.
  """
  rows = math.prod(x.shape[first:-1])
  return x.reshape(math.prod(x.shape[:first]), rows, x.shape[-1])


@functools.cache
def _load() -> bool:
  """Registers the kernels in JAX; False, with a log line, if there are none."""
  try:
    library = ctypes.CDLL(str(_library()))
  except OSError as error:
    logging.warning(
      'Without kernels in C++, networks take about twice as long on this CPU, '
      'and longer to compile. %s',
      error,
    )
    return False
  for name in FUNCTIONS:
    kernel = jax.ffi.pycapsule(getattr(library, name))
    jax.ffi.register_ffi_target(_PREFIX + name, kernel, platform='cpu')
  return True


def _library() -> pathlib.Path:
  """Returns the file of the compiled kernels, compiling them if need be.

  Raises:
    OSError: they cannot be compiled, or must not be loaded, with the reason.
  """
  command = compiler_command(FLAGS)
  directory = _cache()
  path = directory / f'kernels-{_fingerprint(command)}.so'
  if _is_whole(path):
    return path
  logging.info('Compiling kernels for this processor, once: %s', path)
  # Other processes may compile too: each moves a whole file into place.
  with tempfile.TemporaryDirectory(dir=directory) as temporary:
    made = compile_all(command, pathlib.Path(temporary))
    content = made.read_bytes()
  with files.replacing(path) as partial:
    partial.write_bytes(content)
  files.write_text(_hash_path(path), hashlib.sha256(content).hexdigest())
  return path


def _is_whole(path: pathlib.Path) -> bool:
  """Returns whether the file is there, unchanged, and owned by this user."""
  try:
    content = path.read_bytes()
    expected = _hash_path(path).read_text()
  except (OSError, UnicodeDecodeError):
    return False
  if hashlib.sha256(content).hexdigest() != expected:
    return False
  _check_owner(path)
  return True


def _hash_path(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f'{path.name}.sha256')


def _check_owner(path: pathlib.Path) -> None:
  """Raises an OSError where another user may have put a file there."""
  status = path.stat()
  if status.st_uid != os.getuid():
    why = 'it belongs to another user'
  elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
    why = 'other users may write to it'
  else:
    return
  raise OSError(
    f'Kernels are not loaded from {path}: {why}. Set XDG_CACHE_HOME to a '
    'folder of your own.'
  )


def compiler_command(flags: Sequence[str] = ()) -> list[str]:
  """Returns how the kernels are compiled, without sources and outputs.

  Args:
    flags: further flags, for warnings for instance.

  Raises:
    OSError: there is no compiler.
  """
  name = os.environ.get('CXX', 'c++')
  compiler = shutil.which(name)
  if compiler is None:
    raise OSError(
      f'There is no C++ compiler {name}: install one (Debian: apt install g++) '
      'or name another in the environment variable CXX.'
    )
  machine = 'cpu' if platform.machine() == 'aarch64' else 'arch'
  return [
    compiler,
    '-O3',
    f'-m{machine}=native',
    '-std=c++17',
    '-fPIC',
    *flags,
    '-isystem',
    jax.ffi.include_dir(),
  ]


def compile_all(
  command: Sequence[str], directory: pathlib.Path
) -> pathlib.Path:
  """Compiles all sources, some at a time, and links them.

  Args:
    command: the compiler with its flags, from `compiler_command`.
    directory: an existing folder, which gets the files.

  Returns:
    The library's path.

  Raises:
    OSError: the compiler fails; with the first of what it says.
  """
  sources = sorted(_HERE.glob('*.cc'))
  objects = [directory / f'{source.stem}.o' for source in sources]
  library = directory / 'kernels.so'
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    compiled = [
      pool.submit(_run, [*command, '-c', source, '-o', target])
      for source, target in zip(sources, objects, strict=True)
    ]
    for future in compiled:
      future.result()
  _run([*command, '-shared', *objects, '-o', library])
  return library


def _run(command):
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    # The first error is the most useful; later ones may follow from it.
    raise OSError(f'{command[0]} failed: {done.stderr[:1000].strip()}')


def _cache() -> pathlib.Path:
  """Returns the folder of compiled kernels, writable by this user alone."""
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  path = pathlib.Path(base, 'mtnet_jax')
  path.mkdir(mode=0o700, parents=True, exist_ok=True)
  if path.stat().st_uid == os.getuid():
    path.chmod(0o700)  # an earlier version left it to the umask
  _check_owner(path)
  return path


def _fingerprint(command: Sequence[str]) -> str:
  """Returns a hash of all that the compiled file depends on."""
  digest = hashlib.sha256(repr(command).encode())
  for path in sorted([*_HERE.glob('*.cc'), *_HERE.glob('*.h')]):
    digest.update(path.read_bytes())
  version = subprocess.run([command[0], '--version'], capture_output=True)
  digest.update(version.stdout + jax.__version__.encode())
  digest.update(_processor().encode())
  return digest.hexdigest()[:16]


def _processor() -> str:
  """Names the processor's instructions, since machines may share a home."""
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    for line in info.read_text().splitlines():
      if line.startswith(('flags', 'Features')):
        return line
  return platform.processor() or platform.machine()
