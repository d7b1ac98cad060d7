"""Kernels in C++ for what XLA is slow at on a CPU.

They are compiled once on each machine, for its own processor, when the first
program asks for them, and kept under `~/.cache/mtnet_jax`. Each stands beside a
plain form in jax.numpy, which serves wherever kernels do not: on accelerators,
on several devices, in other dtypes than float32, in exported programs, and
where there is no C++ compiler.
"""

import concurrent.futures
import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

from mtnet_jax.typing import Array

# What the `.cc` files here hold.
FUNCTIONS = (
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
_HERE = pathlib.Path(__file__).parent
_PREFIX = 'mtnet_jax_'

# Whether the program that is traced may call kernels. JAX keeps what it traces
# with them apart from what it traces without.
_allowed = jax.make_user_context(False)


def on_one_cpu() -> bool:
  """Whether programs of this process run on a single CPU device."""
  return jax.default_backend() == 'cpu' and jax.device_count() == 1


def available() -> bool:
  """Whether there are kernels here; compiles them if need be."""
  return os.environ.get(SWITCH) != '0' and on_one_cpu() and _load()


def allow(function: Callable) -> Callable:
  """Has a function call kernels when it is traced, where they are available.

  Args:
    function: of a program that is not exported.
  """
  if not available():
    return function

  @functools.wraps(function)
  def with_kernels(*args, **kwargs):
    with _allowed(True):
      return function(*args, **kwargs)

  return with_kernels


def usable(*arrays: Array) -> bool:
  """Whether kernels may be called here, and with these arrays."""
  return bool(_allowed.value) and all(a.dtype == np.float32 for a in arrays)


def call(name: str, results: Any, *args: Array, **attributes: Any) -> Any:
  """Calls a kernel; only where `usable`.

  Args:
    name: one of `FUNCTIONS`.
    results: what it returns, or the likes of it: shapes and dtypes.
    *args: arrays.
    **attributes: constants, as numpy has them.
  """
  shapes = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), results
  )
  kernel = jax.ffi.ffi_call(_PREFIX + name, shapes, vmap_method='sequential')
  return kernel(*args, **attributes)


@functools.cache
def _load() -> bool:
  """Tells JAX of the kernels; False, and in the log why, if there are none."""
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
  """The file of the compiled kernels.

  Raises:
    OSError: they cannot be compiled, with the reason.
  """
  name = os.environ.get('CXX', 'c++')
  compiler = shutil.which(name)
  if compiler is None:
    raise OSError(
      f'There is no C++ compiler {name}: install one (Debian: apt install g++) '
      'or name another in the environment variable CXX.'
    )
  machine = 'cpu' if platform.machine() == 'aarch64' else 'arch'
  command = [
    compiler,
    '-O3',
    f'-m{machine}=native',
    '-std=c++17',
    '-fPIC',
    '-w',
  ]
  command += ['-I', jax.ffi.include_dir()]
  directory = _cache()
  path = directory / f'kernels-{_fingerprint(command)}.so'
  if path.exists():
    return path
  logging.info('Compiling kernels for this processor, once: %s', path)
  # Other processes may do the same: each moves a whole file into place.
  with tempfile.TemporaryDirectory(dir=directory) as temporary:
    made = _compile(command, pathlib.Path(temporary))
    os.replace(made, path)
  return path


def _compile(command: list[str], directory: pathlib.Path) -> pathlib.Path:
  """Compiles all sources, some at a time, and links them."""
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
    # The first error tells most; later ones may follow from it.
    raise OSError(f'{command[0]} failed: {done.stderr[:1000].strip()}')


def _cache() -> pathlib.Path:
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  path = pathlib.Path(base, 'mtnet_jax')
  path.mkdir(parents=True, exist_ok=True)
  return path


def _fingerprint(command: list[str]) -> str:
  """Of all that the compiled file depends on."""
  digest = hashlib.sha256(repr(command).encode())
  for path in sorted([*_HERE.glob('*.cc'), *_HERE.glob('*.h')]):
    digest.update(path.read_bytes())
  version = subprocess.run([command[0], '--version'], capture_output=True)
  digest.update(version.stdout + jax.__version__.encode())
  digest.update(_processor().encode())
  return digest.hexdigest()[:16]


def _processor() -> str:
  """What instructions it has: homes are shared between machines."""
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    for line in info.read_text().splitlines():
      if line.startswith(('flags', 'Features')):
        return line
  return platform.processor() or platform.machine()
