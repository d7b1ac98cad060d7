"""Why does a CPU program take its memory once rather than at every call?

XLA asks for the memory of a program's temporary arrays at each call, hundreds
of megabytes in training. The C library gives so much back to the system as soon
as it is free, and the system clears every page of it when it is touched anew: a
third of a train step's time on two cores.
"""

import ctypes
import sys

import jax

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> None:
  """Has this process keep the memory that it frees, where it runs on a CPU.

  To be called before any use of devices, and after `processes.join`. Does
  nothing where JAX finds an accelerator, or the C library is not glibc.
  """
  # In the main thread, programs take their memory from the main heap; those of
  # other threads are too small for it, and it does not come back from there.
  # A program also runs in another thread where it is called before its
  # arguments are there (`mesh.to_devices`).
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  if sys.platform != 'linux' or jax.default_backend() != 'cpu':
    return
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)  # never
