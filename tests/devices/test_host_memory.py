"""Whether memory is kept between the calls of a program on a CPU."""

import ctypes
import subprocess
import sys

import pytest

# Prints the pages that most of ten calls touch anew, once twenty have gone
# before: an argument that another thread frees late has the heap grow, a few
# times. The program needs arrays of 64 MiB between its arguments and its
# result; a page has 4 KiB. Its argument comes from the host each time, as the
# clips of a step do.
_SCRIPT = """
import resource, statistics, sys
import jax, jax.numpy as jnp, numpy as np
from mtnet_jax.devices import host_memory
from mtnet_jax.devices import mesh as mesh_lib
if sys.argv[1] == 'keep':
  host_memory.keep_freed_memory()
ends = jax.jit(lambda x: jnp.cumsum(x, 0)[-1] + jnp.cumsum(x, 1)[:, -1])
mesh = mesh_lib.make_mesh()
host = np.ones((4096, 4096), np.float32)
touched = []
for _ in range(30):
  x = mesh_lib.to_devices({'x': host}, mesh)['x']
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  jax.block_until_ready(ends(x))
  after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  touched.append(after - before)
print(statistics.median_low(touched[20:]))
"""


def _fresh_pages(root, how: str) -> int:
  done = subprocess.run(
    [sys.executable, '-c', _SCRIPT, how],
    cwd=root,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(
  sys.platform != 'linux' or not hasattr(ctypes.CDLL(None), 'mallopt'),
  reason='the C library is not glibc',
)
def test_a_program_takes_its_memory_once(root):
  assert _fresh_pages(root, 'keep') < 1000
  # Were it kept without our doing, ours would prove nothing.
  assert _fresh_pages(root, 'leave') > 15_000
