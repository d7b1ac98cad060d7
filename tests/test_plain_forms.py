"""Fast forms beside plain ones: layers and whole networks, with gradients.

The plain ones are computed in float64, the fast ones as programs of XLA alone
and with kernels in C++. Differences are relative to the greatest absolute value
of an array.
"""

import contextlib
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models, native
from mtnet_jax.layers import conv, mtconv, norm, pooling, recurrent, srtg
from mtnet_jax.models import resnet3d
from tests import plain_forms
from tests.arrays import random_clips, random_variables

# Of values and of gradients, in float32.
SINGLE = (1e-5, 1e-4)
# In bfloat16, which rounds to eight bits.
HALF = (2**-6, 2**-5)
# Between the scores of what was chosen and of what another form chooses.
GAP = 1e-5


def run(apply, variables, x, held=None, watched=True):
  """What a layer or network returns and changes, its gradients, its choices.

  Gradients are those of a random sum of the output, by parameters and input.
  """
  watch = plain_forms.watch(held) if watched else contextlib.nullcontext([])

  def loss_fn(params, x):
    with watch as choices:
      y, updated = apply(
        {**variables, 'params': params}, x, mutable=['batch_stats', 'moments']
      )
    output = y[0] if isinstance(y, tuple) else y
    weights = random_clips(*output.shape, seed=7)
    return jnp.sum(weights * output), ((y, updated), choices)

  differentiate = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)
  gradients, (values, choices) = differentiate(variables['params'], x)
  return (values, gradients), choices


def quick_jit(function):
  """For what runs once: compiled in half the time, and slow."""
  return jax.jit(
    function,
    compiler_options={
      'xla_backend_optimization_level': 0,
      'xla_llvm_disable_expensive_passes': True,
    },
  )


def run_plain(apply, variables, x, held=None):
  """As `run`, of plain forms in float64; and the names of those in it."""
  with jax.enable_x64(True), plain_forms.plain() as called:
    compiled = quick_jit(functools.partial(run, apply, held=held))
    found = compiled(jax.tree.map(np.float64, variables), np.float64(x))
    return *jax.tree.map(np.asarray, found), called


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


BATCH_NORM = functools.partial(norm.BatchNorm, use_running_average=False)
CONV, SEPARATED = {'conv3d'}, {'channel_separated_conv3d'}
NORM, RECURRENT = {'BatchNorm'}, {'RecurrentLayer'}
BRANCHES = {
  'soft_pool_beside',
  'select_frame_indices',
  'gather_frames',
  'up_sample',
}


def dense(c, *fields, **more):
  return conv.Conv3D(4, *fields, **more), (2, 5, 7, 5, c), CONV


# A module, the shape of its input, and the plain forms that it is made of.
LAYERS = {
  'pointwise': dense(3, (1, 1, 1), (1, 2, 2)),
  'frames_side_by_side': dense(3, (3, 3, 3), (1, 2, 2)),
  'frame_by_frame': dense(17, (3, 3, 3), (2, 2, 2)),
  'frames_alone': dense(17, (3, 1, 1), (2, 1, 1)),
  'windows_copied_out': dense(3, (1, 3, 3), (1, 2, 2)),
  'stem': dense(3, (3, 7, 7), (1, 2, 2), use_bias=True),
  'repeated_edges': dense(17, (3, 3, 3), repeat_edges=True),
  'separated': (
    conv.Conv3D(3, (3, 3, 3), (1, 2, 2), groups=3),
    (2, 18, 5, 7, 3),
    SEPARATED,
  ),
  'separated_repeated_edges': (
    conv.Conv3D(3, (5, 1, 1), groups=3, repeat_edges=True),
    (2, 5, 3, 2, 3),
    SEPARATED,
  ),
  'norm': (BATCH_NORM(), (3, 5, 3, 7, 4), NORM),
  'norm_of_sub_batches': (BATCH_NORM(batch_size=2), (4, 3, 5, 2, 3), NORM),
  'norm_frozen': (norm.BatchNorm(True), (3, 2, 3, 2, 3), NORM),
  'gru': (recurrent.build('gru', 5), (3, 7, 4), RECURRENT),
  'gru_reset_after': (
    recurrent.build('gru', 5, reset_after=True),
    (3, 7, 4),
    RECURRENT,
  ),
  'lstm': (recurrent.build('lstm', 5), (3, 7, 4), RECURRENT),
  'peephole_lstm': (recurrent.build('peephole_lstm', 5), (3, 7, 4), RECURRENT),
  'rnn': (recurrent.build('rnn', 5), (3, 7, 4), RECURRENT),
  'recursion': (
    srtg.SqueezeAndRecursion('gru', gate=False),
    (2, 5, 3, 2, 4),
    RECURRENT,
  ),
  'recursion_gated': (
    srtg.SqueezeAndRecursion('lstm'),
    (4, 3, 3, 2, 4),
    RECURRENT | {'cycle_consistent'},
  ),
  'mtconv': (
    mtconv.MTConv(6, (3, 3, 3), (2, 2, 2), local_ratio=0.7, norm=BATCH_NORM),
    (3, 9, 7, 6, 5),
    CONV | NORM | BRANCHES | {'soft_pool'},
  ),
  'mtconv_separated': (
    mtconv.MTConv(
      6,
      (3, 3, 3),
      local_ratio=0.7,
      channel_separated=True,
      activation=None,
      shared_selection=False,
      norm=BATCH_NORM,
    ),
    (3, 5, 5, 8, 6),
    CONV | SEPARATED | NORM | BRANCHES,
  ),
}


# Random clips would hardly open a gate: which are open is chosen here. Else the
# fast forms are held to what the plain ones choose.
HELD = {
  'recursion_gated': [np.array([True, False, True, False])],
  'srtg_r3d_18': [np.array([True, False, True])] * 4,
}


@functools.cache
def plain_layer(name):
  """Its variables, input, and what `run_plain` returns of it."""
  module, shape, _ = LAYERS[name]
  # Exact in bfloat16 too. The frames of the last clip are alike.
  x = np.float32(jnp.asarray(random_clips(*shape), jnp.bfloat16))
  x[-1] = x[-1, :1]
  variables = {'batch_stats': {}, **random_variables(module, x)}
  return variables, x, *run_plain(module.apply, variables, x, HELD.get(name))


def run_fast(name, apply, variables, x, choices, form='programs'):
  held = HELD.get(name, [choice.made for choice in choices])
  compiled = jax.jit(FORMS[form](functools.partial(run, apply)))
  return compiled(variables, x, held=held)


# What may be called where a function is traced.
FORMS = {'programs': lambda function: function, 'kernels': native.allow}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', LAYERS)
def test_layers(name, form):
  module, _, forms = LAYERS[name]
  variables, x, wanted, choices, called = plain_layer(name)
  assert called == forms
  got, own = run_fast(name, module.apply, variables, x, choices, form)
  assert_close(got, wanted, SINGLE)
  assert all(gap < GAP for gap in plain_forms.flips(choices, own))


def half(module):
  dtype = {'dtype': jnp.bfloat16}
  if isinstance(module, mtconv.MTConv):
    return module.copy(conv=functools.partial(module.conv, **dtype))
  return module.copy(**dtype) if hasattr(module, 'dtype') else module


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
  'name',
  [
    *('pointwise', 'frame_by_frame', 'separated', 'norm'),
    *('recursion_gated', 'mtconv_separated'),
  ],
)
def test_layers_in_half_precision(name, form):
  variables, x, wanted, choices, _ = plain_layer(name)
  apply = half(LAYERS[name][0]).apply
  x = jnp.asarray(x, jnp.bfloat16)
  got, _ = run_fast(name, apply, variables, x, choices, form)
  assert_close(got, wanted, HALF)


@pytest.fixture(autouse=True, scope='module')
def shallow():
  """3-D ResNets of 18 layers have one block and three, those of 34 have two."""
  with mock.patch.object(resnet3d, '_DEPTHS', {18: (1, 3), 34: (1, 1)}):
    yield


def build(name, **fields):
  """A narrow and shallow network, and the shape of small clips."""
  if name in resnet3d.VARIANTS:
    model = models.build(name, 5, **fields)
    return model.copy(stage_features=(6, 8)), (3, 9, 26, 32, 3)
  model = models.build(name, 5, dropout=0.0, **fields)
  if name == 'x3d_s':
    sizes = {'blocks': (5,), 'stages': ((16, 12),)}
  else:
    sizes = {'blocks': (3,), 'stages': ((12, 8),), 'local_ratio': 0.6}
  model = model.copy(stem_features=8, head_features=(16, 24), **sizes)
  return model, (3, 5, 14, 18, 3)


NETWORKS = {
  'mtnet_xs': CONV | SEPARATED | NORM | RECURRENT | BRANCHES | {'relu'},
  'x3d_s': CONV | SEPARATED | NORM | {'relu', 'scale_and_activate'},
  'srtg_r3d_18': CONV | NORM | RECURRENT | {'cycle_consistent', 'relu'},
  'r2plus1d_34': CONV | NORM | {'relu'},
}


_NORM = {'norm_forward', 'norm_backward'}
_SCALED = {'scale_gradient', 'sums'}
_SEPARATED = {
  'separated_conv_forward',
  'separated_conv_input_gradient',
  'separated_conv_kernel_gradient',
}
KERNELS = {
  'mtnet_xs': {
    *(_NORM | _SEPARATED | _SCALED),
    *('soft_pool_forward', 'soft_pool_backward', 'select_frames'),
    *('up_sample_forward', 'up_sample_backward'),
    *('gru_forward', 'gru_backward'),
  },
  'x3d_s': _NORM | _SEPARATED | _SCALED,
  'srtg_r3d_18': _NORM | _SCALED,
  'r2plus1d_34': _NORM,
}


@functools.cache
def plain_network(name):
  """As `plain_layer`, in training."""
  model, shape = build(name)
  clips = random_clips(*shape)
  variables = random_variables(model, clips)
  with jax.enable_x64(True):
    wide, _ = build(name, dtype='float64')
  apply = functools.partial(wide.apply, train=True)
  return variables, clips, *run_plain(apply, variables, clips, HELD.get(name))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', NETWORKS)
def test_networks(name, form, called_kernels):
  variables, clips, wanted, choices, called = plain_network(name)
  assert called == NETWORKS[name]
  apply = functools.partial(build(name)[0].apply, train=True)
  got, own = run_fast(name, apply, variables, clips, choices, form)
  has_kernels = form == 'kernels' and native.available()
  assert called_kernels == (KERNELS[name] if has_kernels else set())
  assert_close(got, wanted, SINGLE)
  assert all(gap < GAP for gap in plain_forms.flips(choices, own))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', ['mtnet_xs', 'x3d_s', 'srtg_r3d_18'])
def test_rematerialized_networks(name, form, monkeypatch):
  """Blocks in loops, among them of two kinds in turn, and gates in loops."""
  variables, clips, wanted, _, _ = plain_network(name)
  if name in HELD:
    is_open = HELD[name][0]  # of all blocks
    monkeypatch.setattr(srtg, 'cycle_consistent', lambda a, b: is_open)
  apply = functools.partial(
    build(name, rematerialize=True)[0].apply, train=True
  )
  compiled = quick_jit(
    FORMS[form](functools.partial(run, apply, watched=False))
  )
  got, _ = compiled(variables, clips)
  assert_close(got, wanted, SINGLE)


def test_rematerialized_draws(monkeypatch):
  """Of stochastic pooling: a loop draws by other keys, and else is the same."""
  unrolled, shape = build('mtnet_xs', pooling='stochastic', recurrence=False)
  looped = unrolled.copy(rematerialize=True)
  clips = random_clips(*shape)
  variables = random_variables(unrolled, clips)

  def logits(model):
    @quick_jit
    def run_with(key):
      rngs = {'pooling': key}
      y, _ = model.apply(
        variables, clips, train=True, mutable=['batch_stats'], rngs=rngs
      )
      return y[0]

    return run_with

  keys = jax.random.key(0), jax.random.key(1)
  run_looped = logits(looped)
  first, again, other = (run_looped(keys[i]) for i in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.any(first != other)

  draw = pooling._draw
  monkeypatch.setattr(pooling, '_draw', lambda _, p: draw(keys[0], p))
  got, wanted = (logits(model)(keys[0]) for model in (looped, unrolled))
  assert_close([got], [wanted], SINGLE[:1])


def test_flips_by_hand():
  scores = np.array([[0.1, 0.9, 0.2, 0.25], [0.5, 0.1, 0.2, 0.5]])
  frames = plain_forms.Choice(np.array([[0, 2], [1, 2]]), scores)
  others = frames._replace(made=np.array([[0, 3], [1, 2]]))
  gates = plain_forms.Choice(np.array([True, False]), np.array([-0.5, 0.25]))
  closed = gates._replace(made=np.array([False, False]))
  assert plain_forms.flips([frames, gates], [frames, gates]) == []
  gaps = plain_forms.flips([frames, gates], [others, closed])
  np.testing.assert_allclose(gaps, [0.05, 0.5])
