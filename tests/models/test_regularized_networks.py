"""Class Regularisation in both kinds of networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.layers.class_regularization import regularize
from mtnet_jax.models import mtnet, resnet3d
from tests.arrays import random_clips, random_variables

RATES = (0.1, 0.3)


pytestmark = pytest.mark.usefixtures('quick_compilation')


def _tiny_mtnet(**fields):
  """Two stages of one block, plain convolutions."""
  return mtnet.MTNet(
    5,
    blocks=(1, 1),
    local_ratio=1.0,
    recurrence=False,
    stem_features=4,
    stages=((8, 6), (8, 8)),
    head_features=(8, 16),
    dropout=0.0,
    **fields,
  )


def _tiny_resnet(monkeypatch, **fields):
  """Two stages of two blocks."""
  monkeypatch.setattr(resnet3d, '_DEPTHS', {18: (2, 2)})
  return resnet3d.ResNet3D(5, 18, 'r3d', stage_features=(4, 6), **fields)


@pytest.fixture(params=['mtnet', 'resnet'])
def networks(request, monkeypatch):
  """A network without and with Class Regularisation, and its variables."""
  if request.param == 'mtnet':
    make = _tiny_mtnet
  else:
    make = functools.partial(_tiny_resnet, monkeypatch)
  plain = make()
  regularized = make(class_regularization=True, affection_rates=RATES)
  x = random_clips(4, 4, 16, 16, 3)
  return plain, regularized, random_variables(regularized, x), x


def _without_maps(variables):
  params = {
    name: value
    for name, value in variables['params'].items()
    if not name.startswith('class_regularization')
  }
  return variables | {'params': params}


def test_stages_are_regularized_by_the_classifier(networks):
  plain, regularized, variables, x = networks
  params = variables['params']
  maps = [params[f'class_regularization_{i}']['kernel'] for i in (1, 2)]
  kernel = params['classifier']['kernel']
  assert [m.shape[0] for m in maps] == [kernel.shape[0]] * 2

  before, first = jax.jit(plain.apply)(_without_maps(variables), x)
  after, endpoints = jax.jit(regularized.apply)(variables, x)
  expected, chosen, _ = regularize(
    first['stage_1'], kernel.T, maps[0], RATES[0]
  )
  np.testing.assert_allclose(endpoints['stage_1'], expected, atol=1e-5)
  early = endpoints['early_predictions']
  assert sorted(early) == ['stage_1', 'stage_2']
  np.testing.assert_array_equal(early['stage_1'], chosen)
  for picked in early.values():
    assert picked.shape == (4,) and picked.dtype == jnp.int32
  assert first['early_predictions'] == {}
  assert np.abs(before - after).max() > 1e-3

  # The next stage sees what the last one's endpoint says.
  mean = endpoints['last'].mean(axis=(1, 2, 3))
  np.testing.assert_allclose(endpoints['features'], mean, rtol=1e-5)
  if isinstance(regularized, resnet3d.ResNet3D):
    np.testing.assert_array_equal(endpoints['last'], endpoints['stage_2'])
    logits = mean @ kernel + params['classifier']['bias'][None]
    np.testing.assert_allclose(after, logits, atol=1e-5)


def _gradients(model, variables, x, labels):
  """Of the mean cross-entropy, with what the network said."""

  @jax.jit
  def run(params):
    def loss_fn(params):
      logits, endpoints = model.apply({**variables, 'params': params}, x)
      losses = -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]
      return losses.mean(), (logits, endpoints['features'])

    return jax.grad(loss_fn, has_aux=True)(params)

  return run(variables['params'])


LABELS = np.array([0, 3, 2, 4])


def test_gradients(networks):
  """The classifier learns as a linear layer does, the maps by the loss."""
  _, regularized, variables, x = networks
  got, (logits, features) = _gradients(regularized, variables, x, LABELS)
  if isinstance(regularized, mtnet.MTNet):
    linear = np.float64(variables['params']['linear']['kernel'])
    features = np.maximum(np.float64(features) @ linear, 0)
  shares = np.exp(np.float64(logits))
  shares /= shares.sum(axis=1, keepdims=True)
  error = (shares - np.eye(5)[LABELS]) / len(LABELS)
  expected = np.float64(features).T @ error
  assert np.abs(expected).max() > 1e-3
  np.testing.assert_allclose(got['classifier']['kernel'], expected, atol=1e-5)
  for i in (1, 2):
    assert got[f'class_regularization_{i}']['kernel'].any(), i


def test_a_rate_of_one_is_as_without(monkeypatch):
  plain = _tiny_resnet(monkeypatch)
  idle = _tiny_resnet(
    monkeypatch, class_regularization=True, affection_rates=(1.0, 1.0)
  )
  x = random_clips(4, 4, 16, 16, 3)
  variables = random_variables(idle, x)
  got, (logits, _) = _gradients(idle, variables, x, LABELS)
  without = _without_maps(variables)
  expected, (plain_logits, _) = _gradients(plain, without, x, LABELS)
  np.testing.assert_allclose(logits, plain_logits, atol=1e-5)
  for i in (1, 2):
    assert not got.pop(f'class_regularization_{i}')['kernel'].any()
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    got,
    expected,
  )


def test_other_parameters_begin_as_without():
  x = random_clips(1, 2, 16, 16, 3)
  one, other = (
    jax.jit(_tiny_mtnet(**fields).init)(jax.random.key(0), x)
    for fields in ({}, {'class_regularization': True, 'affection_rates': RATES})
  )
  assert len(other['params']) == len(one['params']) + 2
  jax.tree.map(np.testing.assert_array_equal, one, _without_maps(other))


@pytest.mark.parametrize('name', models.NAMES)
def test_every_network_can_have_it(name):
  model = models.build(name, 5, class_regularization=True)
  assert model.class_regularization
  assert model.affection_rates == (0.9, 0.8, 0.7, 0.6)
  rates = {'class_regularization': True, 'affection_rates': (0.5, 0.5)}
  with pytest.raises(
    UserError, match=r'affection_rates.*\(0\.5, 0\.5\).*4 num'
  ):
    models.build(name, 5, **rates)


@pytest.mark.parametrize('given', [{}, {'class_regularization': False}])
def test_rates_of_what_the_network_has_not(given):
  with pytest.raises(UserError, match=r'`affection_rates` \(=\(0\.9, 0\.8'):
    models.build('r3d_18', 5, affection_rates=(0.9, 0.8, 0.7, 0.6), **given)
