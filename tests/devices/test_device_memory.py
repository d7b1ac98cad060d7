"""Words for memory that is not enough, of what compilers and devices say."""

import jax
import jax.numpy as jnp
import pytest

from mtnet_jax.devices import device_memory
from mtnet_jax.errors import UserError


@pytest.mark.parametrize(
  ('said', 'needed', 'there'),
  [
    # XLA:TPU of jax 0.12, for a v5e.
    (
      'RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, '
      'the total memory required for HLO temporaries (60.00G) exceeds '
      'available HBM (15.75G). HLO module: jit_f.\nSee https://openxla.org',
      '64.4 GB',
      'where there are 16.9 GB',
    ),
    # Of jax 0.10.
    (
      'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory '
      'in memory space hbm. Used 20.45G of 15.48G hbm. Exceeded hbm capacity.',
      '22 GB',
      'where there are 16.6 GB',
    ),
    (
      'RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to '
      'allocate 1.20G. That was not possible. There are 11.32M free.',
      '1.29 GB',
      'where there are 0.0119 GB',
    ),
    # XLA:GPU.
    (
      'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 '
      'bytes.',
      '17.2 GB',
      'at once',
    ),
    (
      'RESOURCE_EXHAUSTED: Failed to allocate request for 1.50GiB '
      '(1610612736B) on device ordinal 0',
      '1.61 GB',
      'at once',
    ),
  ],
)
def test_what_was_needed_and_what_there_is(said, needed, there):
  sentence = device_memory.describe(jax.errors.JaxRuntimeError(said))
  assert f'{needed} were needed, {there}' in sentence


def test_what_is_not_understood_is_told_as_it_is():
  error = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of 9.\nAt x')
  assert device_memory.describe(error).endswith(
    'memory: RESOURCE_EXHAUSTED: Out of 9.'
  )


def test_running_out_of_memory_is_one_sentence():
  with (
    pytest.raises(UserError, match=r'4,398 GB were needed.* Give less of x'),
    device_memory.explained('less of x'),
  ):
    jnp.zeros(2**40, jnp.float32).block_until_ready()


def test_other_errors_stay_what_they_are():
  with (
    pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'),
    device_memory.explained('less'),
  ):
    raise jax.errors.JaxRuntimeError('INTERNAL: no kernel image')
