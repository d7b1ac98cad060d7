"""Which form a program gets: by what it is lowered for, and by nothing else."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart
from mtnet_jax import models
from mtnet_jax.devices import compiler
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.ops import forms, native
from mtnet_jax.ops.forms import Form, Operation
from mtnet_jax.ops.separated_conv import channel_separated_conv3d
from mtnet_jax.ops.soft_pool import soft_pool
from mtnet_jax.runs import state as state_lib
from mtnet_jax.training import optim
from mtnet_jax.training.step import make_train_step
from tests.arrays import random_clips

needs_kernels = pytest.mark.skipif(
  not native.available(), reason='there is no C++ compiler'
)


def times(factor):
  """A form that can be told by its factor, forwards and backwards."""
  return Form(
    lambda x, *, power: (factor * x**power, x),
    lambda x, dy, *, power: (factor * dy,),
  )


side_by_side = Form(
  lambda x, *, power, groups: (11 * x**power, x),
  lambda x, dy, *, power, groups: (11 * dy,),
)


def define(x, *, power):
  return x**power


every = Operation(
  define, xla=times(2), cpu=times(3), cpu_kernel=times(5), onnx=times(7)
)
few = Operation(define, xla=times(2))
bare = Operation(define)


@pytest.fixture(scope='module')
def one_cpu():
  return mesh_lib.make_mesh(devices=jax.devices()[:1])


def both(operation, mesh=None):
  """A program of the operation's value at 2, squared, and its gradient."""

  def run(x):
    with forms.use('auto', mesh):
      y, vjp = jax.vjp(lambda x: operation(x, power=2), x)
    return y, vjp(jnp.ones_like(y))[0]

  return jax.jit(run)


@pytest.mark.parametrize(
  ('operation', 'value', 'gradient'),
  [(every, 12, 3), (few, 8, 2), (bare, 4, 4)],
)
def test_a_cpu_takes_the_first_that_there_is(operation, value, gradient):
  assert [float(a) for a in both(operation)(2.0)] == [value, gradient]


@needs_kernels
def test_kernels_are_for_one_cpu_device_and_float32(one_cpu):
  program = both(every, one_cpu)
  assert [float(a) for a in program(2.0)] == [20, 5]
  assert [float(a) for a in program(jnp.bfloat16(2))] == [12, 3]
  picky = Operation(
    define, lambda x, *, power: power != 2, cpu=times(3), cpu_kernel=times(5)
  )
  assert [float(a) for a in both(picky, one_cpu)(2.0)] == [12, 3]


def test_switched_off_there_are_no_kernels(one_cpu, monkeypatch):
  monkeypatch.setenv(native.SWITCH, '0')
  assert [float(a) for a in both(every, one_cpu)(2.0)] == [12, 3]


def constants(text):
  return {float(v) for v in re.findall(r'dense<([\d.e+-]+)> : tensor<f', text)}


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
@pytest.mark.parametrize('kernels', [False, True])
def test_others_take_what_is_for_all(platform, kernels, one_cpu):
  """Whatever traces it, and for whatever it was first meant."""
  traced = both(every, one_cpu if kernels else None).trace(2.0)
  found = constants(traced.lower(lowering_platforms=(platform,)).as_text())
  assert 2 in found and not found & {3, 5, 7}
  found = constants(traced.lower(lowering_platforms=('cpu',)).as_text())
  assert 2 not in found


@pytest.mark.parametrize(
  ('platform', 'factor'), [('tpu', 11), ('cuda', 13), ('rocm', 13), ('cpu', 3)]
)
def test_a_platform_takes_its_own(platform, factor):
  own = Operation(
    define, xla=times(2), cpu=times(3), tpu=side_by_side, gpu=times(13)
  )
  lowered = both(own).trace(2.0).lower(lowering_platforms=(platform,))
  found = constants(lowered.as_text())
  assert factor in found and not found & ({2, 3, 11, 13} - {factor})


def test_an_exported_program_holds_a_form_for_each_platform():
  exported = jax.export.export(both(every), platforms=['cpu', 'tpu'])(
    jnp.float32(2)
  )
  assert {2, 3} <= constants(exported.mlir_module())
  assert [float(a) for a in exported.call(jnp.float32(2))] == [12, 3]


@pytest.mark.parametrize(
  ('name', 'value', 'gradient'),
  [
    ('definition', 4, 4),
    ('xla', 8, 2),
    ('cpu', 12, 3),
    ('onnx', 28, 7),
    ('tpu', 8, 2),
    ('gpu', 8, 2),
    pytest.param('cpu_kernel', 20, 5, marks=needs_kernels),
  ],
)
def test_a_form_by_its_name(name, value, gradient):
  """Also without a program around it; and of others the next best."""
  with forms.use(name):
    y, vjp = jax.vjp(lambda x: every(x, power=2), 2.0)
    assert (float(y), float(vjp(1.0)[0])) == (value, gradient)
    assert float(few(2.0, power=2)) == (4 if name == 'definition' else 8)
    assert float(bare(2.0, power=2)) == 4
  assert float(every(2.0, power=2)) == 12  # as before


def test_an_unknown_name_lists_them():
  with pytest.raises(ValueError, match=r"'reference'.*'auto', 'definition'"):
    with forms.use('reference'):
      pass


def test_what_is_remembered_of_one_form_is_not_taken_for_another():
  inner = jax.jit(lambda x: every(x, power=2))
  found = []
  for name in ('auto', 'xla', 'auto', 'definition'):
    with forms.use(name):
      found.append(float(jax.jit(lambda x: inner(x) + 1)(2.0)))
  assert found == [13, 9, 13, 5]


def test_clips_of_a_batch_apart():
  x = random_clips(3, 4)
  run = jax.jit(jax.vmap(lambda x: every(x, power=2)))
  np.testing.assert_allclose(run(x), 3 * x**2, rtol=1e-6)
  rows = jax.vmap(jax.vmap(jax.grad(lambda x: every(x, power=2))))
  np.testing.assert_array_equal(jax.jit(rows)(x), np.full((3, 4), 3))


@needs_kernels
def test_kernels_of_clips_of_a_batch_apart(one_cpu, called_kernels):
  kernel = random_clips(3, 3, 3, 1, 4, seed=1)
  x = random_clips(3, 1, 2, 3, 4, 4)
  run = compiler.jit(lambda x: channel_separated_conv3d(x, kernel), one_cpu)
  wanted = run(x.reshape(3, 2, 3, 4, 4))
  per_clip = compiler.jit(
    jax.vmap(lambda x: channel_separated_conv3d(x, kernel)), one_cpu
  )
  np.testing.assert_array_equal(per_clip(x)[:, 0], wanted)
  assert called_kernels == {'separated_conv_forward'}


@needs_kernels
def test_a_function_within_a_program_is_traced_with_its_program(one_cpu):
  inner = jax.jit(soft_pool)
  x = random_clips(1, 2, 4, 4, 3)
  assert 'mtnet_jax_' not in inner.lower(x).as_text()
  outer = compiler.jit(lambda x: inner(x) + 1, one_cpu)
  assert 'mtnet_jax_' in outer.lower(x).as_text()
  assert 'mtnet_jax_' not in inner.lower(x).as_text()


def train_step(name, mesh):
  """A network's train step, traced for two clips."""
  model = models.build(name, 5)
  tx = optim.build(quickstart.get_config().optim, lambda _: 0.1)
  frames, size = (8, 48) if name == 'mtnet_xs' else (16, 112)
  shape = (frames, size, size, 3)
  state = jax.eval_shape(lambda: state_lib.create(model, tx, shape, 0))
  batch = {
    'clips': jax.ShapeDtypeStruct((2, *shape), jnp.uint8),
    'labels': jax.ShapeDtypeStruct((2,), jnp.int32),
  }
  step = make_train_step(model, lambda _: 0.1, tx, 0, mesh)
  return step.trace(state, batch)


def operations(text):
  """How often each operation stands in a program, and what it calls outside."""
  return collections.Counter(
    re.findall(
      r'(stablehlo\.\w+|feature_group_count = \d+|custom_call @\w+)', text
    )
  )


@needs_kernels
@pytest.mark.parametrize(
  'name',
  [
    pytest.param('mtnet_xs', marks=pytest.mark.check),
    pytest.param('srtg_r3d_18', marks=pytest.mark.slow),
  ],
)
def test_a_train_step_lowered_for_an_accelerator_holds_nothing_of_a_cpu(
  name, one_cpu, monkeypatch
):
  """Traced by a CPU process for one CPU, with a C++ compiler at hand."""
  traced = train_step(name, one_cpu)
  own = traced.lower(lowering_platforms=('cpu',)).as_text()
  assert 'mtnet_jax_' in own
  lowered = {
    platform: traced.lower(lowering_platforms=(platform,)).as_text()
    for platform in ('tpu', 'cuda')
  }
  for text in lowered.values():
    assert 'mtnet_jax_' not in text and 'inlineable' not in text
    # Convolutions of volumes, none of frames.
    assert 'dim_numbers = [b, 0, 1, f]' not in text
    assert 'dim_numbers = [b, 0, 1, 2, f]' in text
  # Equation by equation what a process makes that knows nothing of a CPU.
  monkeypatch.setenv(native.SWITCH, '0')
  elsewhere = train_step(name, None)
  for platform, text in lowered.items():
    other = elsewhere.lower(lowering_platforms=(platform,)).as_text()
    assert operations(text) == operations(other)


def test_nothing_that_shapes_a_program_asks_the_process(root):
  """What may go on asking it: memory, and where exported programs can run."""
  allowed = {
    'devices/host_memory.py',
    'devices/mesh.py',  # waits until a batch is on the devices
    'export/program.py',
  }
  for path in (root / 'mtnet_jax').rglob('*.py'):
    text = path.read_text()
    asks = 'default_backend(' in text or 'device_count(' in text
    name = str(path.relative_to(root / 'mtnet_jax'))
    assert not asks or name in allowed, name
