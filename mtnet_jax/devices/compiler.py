"""Compiles whole programs, with the options that XLA gets for them."""

import contextlib
import functools
import uuid
from collections.abc import Callable

import jax
from absl import logging
from jax.extend.core import jaxpr_as_fun

from mtnet_jax.errors import UserError
from mtnet_jax.ops import forms


def jit(
  function: Callable,
  mesh: jax.sharding.Mesh | None,
  *,
  training: bool = False,
  **kwargs,
) -> Callable:
  """Compiles a whole program, which is not called in another, by `jax.jit`.

  For one CPU the program calls our kernels, and so cannot be exported.

  Args:
    function: the function to compile.
    mesh: the devices that the program will run on; None: not known.
    training: whether it is a train step.
    **kwargs: keyword arguments of `jax.jit`.
  """

  @functools.wraps(function)
  def traced(*args, **kwargs):
    with forms.use('auto', mesh):
      return function(*args, **kwargs)

  return jax.jit(traced, compiler_options=_options(mesh, training), **kwargs)


def quick_jit(function: Callable, **kwargs) -> Callable:
  """Compiles by `jax.jit` what runs once: XLA hardly optimizes it.

  Args:
    function: the function to compile.
    **kwargs: keyword arguments of `jax.jit`.
  """
  options = _known({'xla_backend_optimization_level': 0})
  return jax.jit(function, compiler_options=options or None, **kwargs)


def keep_programs(folder: str, key: str) -> None:
  """Keeps compiled programs in a folder, and from now on looks there for them.

  Args:
    folder: a folder of a file system or of a bucket (`gs://BUCKET/FOLDER`),
      which is made. '': the one that JAX_COMPILATION_CACHE_DIR names, or none.
    key: the configuration's key that holds the folder, for messages.

  Raises:
    UserError: it cannot be written to, or a package for buckets is missing.
  """
  if not folder:
    return
  # JAX reads buckets through this package, which orbax installs.
  from etils import epath

  try:
    path = epath.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f'.{uuid.uuid4().hex}'
    probe.write_bytes(b'')
    probe.unlink()
  except ImportError as error:
    raise UserError(
      f'{key} (={folder!r}) needs a package that is missing: {error}. Install '
      'it (gcsfs for gs://), or give a folder of a file system.'
    ) from error
  except Exception as error:  # each kind of bucket raises its own
    reason = str(error).strip() or type(error).__name__
    raise UserError(
      f'{key} (={folder!r}) cannot be written to: {reason.splitlines()[0]}. '
      'Give a folder of a file system or gs://BUCKET/FOLDER to which all '
      "processes may write, or '' for none."
    ) from error
  jax.config.update('jax_compilation_cache_dir', folder)
  # A process that has compiled before keeps its earlier folder until a reset.
  with contextlib.suppress(ImportError, AttributeError):
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()


def traced(function: Callable, *args) -> Callable:
  """Returns a function that does what another does with such arguments.

  Args:
    function: called once, with tracers in the place of the arguments.
    *args: arrays, or abstract ones.

  Returns:
    A function of the arguments' leaves, that gives the result's leaves.
  """
  return jaxpr_as_fun(jax.make_jaxpr(function)(*args))


def _options(mesh, training):
  if mesh is None or mesh.devices.flat[0].platform != 'cpu':
    return None
  one_cpu = forms.is_one_cpu(mesh)
  options = {
    # Eigen multiplies matrices, as fast as YNN or faster, and our kernels sum.
    # When a program is read from the cache, XLA looks each call of YNN up in a
    # list of all instructions, which takes minutes for the largest networks.
    'xla_cpu_experimental_ynn_fusion_type': (
      '' if forms.uses_kernels(mesh) else 'LIBRARY_FUSION_TYPE_REDUCE'
    )
  }
  if training and one_cpu:
    # Functions that blocks share are optimized before they are copied to each
    # block.
    options['xla_cpu_opt_preset'] = 'CPU_OPT_PRESET_FAST_COMPILE'
  return _known(options, 'cpu') or None


def _known(options: dict, platform: str | None = None) -> dict:
  """Returns the options that a platform's compiler has; None: the process's."""
  return {k: v for k, v in options.items() if _knows(k, v, platform)}


@functools.cache
def _knows(option: str, value: str | int, platform: str | None) -> bool:
  """Tries an option, which may go with any release, on a trivial program."""
  trivial = jax.jit(lambda x: x, compiler_options={option: value})
  try:
    # The array must be on this platform: JAX_PLATFORMS may leave out all
    # others.
    with jax.default_device(jax.local_devices(backend=platform)[0]):
      trivial.lower(0.0).compile()
  except jax.errors.JaxRuntimeError as error:
    logging.warning(
      'XLA has no option %s=%r, and programs go without it. %s',
      option,
      value,
      str(error).splitlines()[0],
    )
    return False
  return True
