"""What is wide stays wide: float64 from end to end, float32 at least."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.ops import forms, precision
from mtnet_jax.training import losses
from tests.arrays import random_clips, random_variables


@pytest.mark.parametrize(
  ('dtype', 'wide'),
  [
    ('bfloat16', 'float32'),
    ('float16', 'float32'),
    ('float32', 'float32'),
    ('float64', 'float64'),
  ],
)
def test_widen(dtype, wide):
  with jax.enable_x64(True):
    x = jnp.asarray([1.0, 2.5], dtype)
    assert precision.wide_dtype(x) == precision.widen(x).dtype == wide
    assert precision.widen(x).tolist() == [1, 2.5]


def _meetings(jaxpr, found):
  """Equations, at any depth, in which float64 meets a narrower float."""
  for equation in jaxpr.eqns:
    below = [
      inner
      for value in equation.params.values()
      for inner in (value if isinstance(value, tuple | list) else [value])
    ]
    below = [getattr(inner, 'jaxpr', inner) for inner in below]
    below = [inner for inner in below if hasattr(inner, 'eqns')]
    for inner in below:
      _meetings(inner, found)
    dtypes = [
      getattr(variable.aval, 'dtype', np.dtype(bool))
      for variable in (*equation.invars, *equation.outvars)
    ]
    floats = {d for d in dtypes if jnp.issubdtype(d, jnp.floating)}
    if not below and len(floats) > 1:
      found.append(str(equation))
  return found


def _network(name, dtype):
  if name == 'srtg_r3d_18':
    return models.build(name, 3, dtype=dtype)
  # A block has everything that there is.
  model = models.build(name, 3, dtype=dtype, dropout=0.0)
  return model.copy(blocks=(1, 0, 0, 0))


@pytest.mark.parametrize('name', ['mtnet_xs', 'x3d_s', 'srtg_r3d_18'])
def test_a_network_of_float64_computes_in_float64(name):
  with jax.enable_x64(True):
    model = _network(name, 'float64')
    clips = jax.ShapeDtypeStruct((2, 5, 16, 16, 3), np.float64)
    variables = jax.eval_shape(model.init, jax.random.key(0), clips)
    variables = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float64), variables
    )

    def loss_fn(params, stats, clips):
      (logits, endpoints), updated = model.apply(
        {'params': params, 'batch_stats': stats},
        clips,
        train=True,
        mutable=['batch_stats'],
      )
      loss = losses.cross_entropy(logits, jnp.array([0, 2])).mean()
      return loss, (endpoints, updated)

    with forms.use('cpu'):  # 'auto' shows what is in them only when lowered
      jaxpr = jax.make_jaxpr(jax.value_and_grad(loss_fn, has_aux=True))(
        variables['params'], variables['batch_stats'], clips
      )
  assert len(jaxpr.eqns) > 100
  assert _meetings(jaxpr.jaxpr, []) == []


def test_float64_and_float32_agree_as_closely_as_float32_can():
  clips = random_clips(2, 6, 16, 16, 3)
  model = _network('mtnet_xs', 'float32')
  variables = random_variables(model, clips)
  narrow, _ = jax.jit(model.apply)(variables, clips)
  with jax.enable_x64(True):
    variables = jax.tree.map(np.float64, variables)
    apply = jax.jit(_network('mtnet_xs', 'float64').apply)
    wide, _ = apply(variables, np.float64(clips))
    assert wide.dtype == np.float64
    difference = np.abs(wide - np.asarray(narrow)).max() / np.abs(wide).max()
    # As far apart as roundings of float32, and not as those of float64.
    assert 1e-9 < difference < 1e-5
