"""What every test starts from."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import jaxtyping
import pytest
from absl import flags

import tests.annotations  # noqa: F401  The import hook names it.

# Before jax is imported: tests run on the CPU and share one compilation cache.
_ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_ROOT / '.cache/xla'))
# Many programs of a test compile faster than they would be written and read.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')
os.environ.setdefault('JAX_NUMPY_RANK_PROMOTION', 'raise')

flags.FLAGS.mark_as_parsed()
jaxtyping.install_import_hook('mtnet_jax', 'tests.annotations.check')

# What takes longest, and begins first: what begins last would run alone.
_LONG = (
  'test_pod.py',
  'test_install.py',
  'test_distributed.py',
  'test_distributed_failures.py',
  'test_loop.py',
  'test_signals.py',
  'test_forms.py',
  'test_parameters.py',
  'test_every_form.py',
  'test_transfer.py',
  'test_kept_frames.py',
  'test_repetition.py',
  'test_mtnet.py',
  'test_resnet3d.py',
  'test_network_layers.py',
  'test_bad_input.py',
  'test_cpu.py',
)
# Compiled programs pile up: beyond this many bytes they are forgotten.
_MEMORY = 5 << 30


def pytest_collection_modifyitems(items):
  """Puts the files that take longest first."""
  rank = {name: i for i, name in enumerate(_LONG)}
  items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope='session')
def root() -> pathlib.Path:
  """The repository's root."""
  return _ROOT


@pytest.fixture(scope='module')
def quick_compilation():
  """For a file whose programs run once: they are not worth optimizing."""
  import jax

  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='module', autouse=True)
def _forget_programs():
  """After a file, and where they take much memory, its programs."""
  yield
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  if pages * os.sysconf('SC_PAGE_SIZE') > _MEMORY and 'jax' in sys.modules:
    sys.modules['jax'].clear_caches()


@pytest.fixture
def called_kernels(monkeypatch) -> set[str]:
  """The names of the kernels that a test's programs call, as it goes on."""
  from mtnet_jax.ops import native

  names, call = set(), native.call

  def noting(name, *args, **attributes):
    names.add(name)
    return call(name, *args, **attributes)

  monkeypatch.setattr(native, 'call', noting)
  return names


@pytest.fixture(scope='session')
def write_video() -> Callable[..., None]:
  """A function `(path, frames, fps=10)` that writes H.264 of uint8 t h w 3."""
  import av

  def write(path, frames, fps=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
      stream = container.add_stream('libx264', rate=fps)
      stream.height, stream.width = frames.shape[1:3]
      stream.pix_fmt = 'yuv420p'
      for frame in frames:
        container.mux(
          stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24'))
        )
      container.mux(stream.encode())

  return write


@pytest.fixture(scope='session')
def blinking_videos(tmp_path_factory, write_video) -> pathlib.Path:
  """Two classes, 'bright' and 'dark', 8 + 2 + 4 videos of 12 frames 48 × 32."""
  import numpy as np

  root = tmp_path_factory.mktemp('blinking')
  rng = np.random.default_rng(0)
  for label, level in (('bright', 180), ('dark', 60)):
    for split, count in (('train', 8), ('val', 2), ('test', 4)):
      for i in range(count):
        noise = rng.integers(-40, 40, (12, 8, 12, 3))
        frames = (level + noise).repeat(4, axis=1).repeat(4, axis=2)
        write_video(root / split / label / f'{i}.mp4', frames.astype(np.uint8))
  return root


@pytest.fixture(scope='session')
def _storage():
  from examples import storage_emulator

  with storage_emulator.serve():
    yield


@pytest.fixture
def bucket(_storage, request) -> str:
  """The name of an empty folder on a bucket, as a user gives it."""
  return f'gs://bucket/{request.node.name}'


@pytest.fixture
def small_disk(tmp_path):
  """A disk of 16 MiB, which a test may fill."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', str(folder)]
  if subprocess.run(mount, capture_output=True, check=False).returncode:
    pytest.skip('mounting a small disk needs more rights')
  yield folder
  subprocess.run(['umount', '--lazy', str(folder)], check=True)
