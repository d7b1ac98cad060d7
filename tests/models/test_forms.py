"""Whole networks as programs for a CPU, against their definition in float64.

With gradients. Differences are relative to the greatest absolute value of an
array.
"""

import contextlib
import functools
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.layers import srtg
from mtnet_jax.models import resnet3d
from mtnet_jax.ops import forms, native, pooling
from tests import choices as choices_lib
from tests.arrays import random_clips, random_variables
from tests.ops.any_form import quick_jit

# Of values and of gradients, in float32.
SINGLE = (1e-5, 1e-4)
# Between the scores of what was chosen and of what another form chooses.
GAP = 1e-5


@pytest.fixture(autouse=True, scope='module')
def shallow():
  """3-D ResNets of 18 layers have one block and three, those of 34 have two."""
  with mock.patch.object(resnet3d, '_DEPTHS', {18: (1, 3), 34: (1, 1)}):
    yield


def build(name, **fields):
  """A narrow and shallow network, and the shape of small clips."""
  if name in resnet3d.VARIANTS:
    model = models.build(name, 5, stage_features=(6, 8), **fields)
    return model, (3, 9, 26, 32, 3)
  model = models.build(name, 5, dropout=0.0, **fields)
  if name == 'x3d_s':
    sizes = {'blocks': (5,), 'stages': ((16, 12),)}
  else:
    sizes = {'blocks': (3,), 'stages': ((12, 8),), 'local_ratio': 0.6}
  model = model.copy(stem_features=8, head_features=(16, 24), **sizes)
  return model, (3, 5, 14, 18, 3)


# Random clips would hardly open a gate: which are open is chosen here.
HELD = {'srtg_r3d_18': [np.array([True, False, True])] * 4}
_NORM = {'norm_forward', 'norm_backward'}
_SCALED = {'scale_gradient', 'sums'}
_SEPARATED = {
  'separated_conv_forward',
  'separated_conv_input_gradient',
  'separated_conv_kernel_gradient',
}
# The kernels that a train step of each network calls.
KERNELS = {
  'mtnet_xs': _NORM
  | _SEPARATED
  | _SCALED
  | {
    'soft_pool_forward',
    'soft_pool_backward',
    'select_frames',
    'up_sample_forward',
    'up_sample_backward',
    'gru_forward',
    'gru_backward',
  },
  'x3d_s': _NORM | _SEPARATED | _SCALED,
  'srtg_r3d_18': _NORM | _SCALED,
  'r2plus1d_34': _NORM,
}


def run(apply, watch, variables, clips):
  """What a network returns and changes, its gradients, its choices.

  Gradients are those of a random sum of the logits, by parameters and clips.
  """

  def loss_fn(params, clips):
    with watch as made:
      (logits, endpoints), updated = apply(
        {**variables, 'params': params},
        clips,
        train=True,
        mutable=['batch_stats', 'moments'],
      )
    loss = jnp.sum(random_clips(*logits.shape, seed=7) * logits)
    return loss, ((logits, endpoints, updated), list(made))

  differentiate = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)
  gradients, (values, made) = differentiate(variables['params'], clips)
  return (values, gradients), made


@functools.cache
def definition(name):
  """Variables and clips, and what `run` gives of them in float64."""
  model, shape = build(name)
  clips = random_clips(*shape)
  variables = random_variables(model, clips)
  with jax.enable_x64(True):
    apply = build(name, dtype='float64')[0].apply
    watch = choices_lib.watch(HELD.get(name))
    found = quick_jit(functools.partial(run, apply, watch), 'definition')(
      jax.tree.map(np.float64, variables), np.float64(clips)
    )
    return variables, clips, *jax.tree.map(np.asarray, found)


def compile_for_cpu(function, kernels):
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1]) if kernels else None

  def traced(*args):
    with forms.use('auto', mesh):
      return function(*args)

  return jax.jit(
    traced, compiler_options={'xla_llvm_disable_expensive_passes': True}
  )


def assert_close(got, wanted, bounds):
  """Both of (values, gradients), within a bound times each array's greatest."""

  def check(bound, path, a, b):
    a, b = np.float64(a), np.float64(b)
    error, scale = np.abs(a - b).max(), np.abs(b).max()
    assert error <= bound * scale, (
      f'{jax.tree_util.keystr(path)}: {error:.1e} of {scale:.1e}'
    )

  for bound, *trees in zip(bounds, got, wanted, strict=True):
    jax.tree_util.tree_map_with_path(functools.partial(check, bound), *trees)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'kernels'), [*itertools.product(KERNELS, (False, True))]
)
def test_networks(name, kernels, called_kernels):
  variables, clips, wanted, made = definition(name)
  held = HELD.get(name, [choice.made for choice in made])
  apply = build(name)[0].apply
  program = functools.partial(run, apply, choices_lib.watch(held))
  got, own = compile_for_cpu(program, kernels)(variables, clips)
  has_kernels = kernels and native.available()
  assert called_kernels == (KERNELS[name] if has_kernels else set())
  assert_close(got, wanted, SINGLE)
  assert all(gap < GAP for gap in choices_lib.flips(made, own))


@pytest.mark.slow
@pytest.mark.parametrize('kernels', [False, True])
@pytest.mark.parametrize('name', ['mtnet_xs', 'x3d_s', 'srtg_r3d_18'])
def test_rematerialized_networks(name, kernels, monkeypatch):
  """Blocks that are computed again, of two kinds in turn, and with gates."""
  variables, clips, wanted, _ = definition(name)
  if name in HELD:
    is_open = HELD[name][0]  # of all blocks
    monkeypatch.setattr(srtg, 'cycle_consistent', lambda a, b: is_open)
  apply = build(name, rematerialize=True)[0].apply
  program = functools.partial(run, apply, contextlib.nullcontext(()))
  got, _ = compile_for_cpu(program, kernels)(variables, clips)
  assert_close(got, wanted, SINGLE)


@pytest.mark.slow
def test_rematerialized_draws(monkeypatch):
  """Stochastic pooling draws by other keys in blocks computed again."""
  unrolled, shape = build('mtnet_xs', pooling='stochastic', recurrence=False)
  again_computed = unrolled.copy(rematerialize=True)
  clips = random_clips(*shape)
  variables = random_variables(unrolled, clips)

  def logits(model):
    def run_with(key):
      y, _ = model.apply(
        variables,
        clips,
        train=True,
        mutable=['batch_stats'],
        rngs={'pooling': key},
      )
      return y[0]

    return quick_jit(run_with, 'cpu')

  keys = jax.random.key(0), jax.random.key(1)
  run_again = logits(again_computed)
  first, again, other = (run_again(keys[i]) for i in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.any(first != other)

  draw = pooling._draw
  monkeypatch.setattr(pooling, '_draw', lambda _, p: draw(keys[0], p))
  got, wanted = (logits(model)(keys[0]) for model in (again_computed, unrolled))
  assert_close([got], [wanted], SINGLE[:1])


def test_flips_by_hand():
  scores = np.array([[0.1, 0.9, 0.2, 0.25], [0.5, 0.1, 0.2, 0.5]])
  frames = choices_lib.Choice(np.array([[0, 2], [1, 2]]), scores)
  others = frames._replace(made=np.array([[0, 3], [1, 2]]))
  gates = choices_lib.Choice(np.array([True, False]), np.array([-0.5, 0.25]))
  closed = gates._replace(made=np.array([False, False]))
  assert choices_lib.flips([frames, gates], [frames, gates]) == []
  gaps = choices_lib.flips([frames, gates], [others, closed])
  np.testing.assert_allclose(gaps, [0.05, 0.5])
