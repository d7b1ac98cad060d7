"""What modules take in and give out, against the network's own endpoints."""

import jax
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.explain import recording
from mtnet_jax.explain.recording import record
from tests.arrays import random_clips, random_variables

PATHS = (
  'stem_spatial',
  'stage_1_block_1',
  'stage_1_block_1/expand',
  'head',
  'linear',
  'classifier',
)


@pytest.fixture(scope='module')
def network():
  model = models.build('mtnet_m', 5).clone(
    blocks=(1,), stem_features=4, stages=((8, 6),), head_features=(8, 16)
  )
  clips = random_clips(2, 4, 16, 16, 3)
  return model, random_variables(model, clips), clips


@pytest.fixture(scope='module')
def found(network):
  return record(*network, PATHS)


def test_the_network_s_output_is_what_it_is(network, found):
  model, variables, clips = network
  logits, endpoints = jax.jit(model.apply)(variables, clips)
  np.testing.assert_allclose(found[0], logits, rtol=1e-5, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    found[1],
    endpoints,
  )


def test_inputs_and_outputs(network, found):
  logits, endpoints, recorded = found
  assert set(recorded) == set(PATHS)
  same = np.testing.assert_array_equal
  # A block returns its gate's share too: the first result counts.
  same(recorded['stage_1_block_1']['input'], endpoints['stem'])
  same(recorded['stage_1_block_1']['output'], endpoints['stage_1'])
  same(recorded['head']['input'], endpoints['stage_1'])
  same(recorded['stem_spatial']['input'], network[2])
  same(recorded['stage_1_block_1/expand']['input'], endpoints['stem'])
  same(recorded['linear']['input'], endpoints['features'])
  same(recorded['classifier']['output'], logits)


def test_the_program_is_kept(network, found):
  before = recording._record._cache_size()
  model, variables, clips = network
  record(model.clone(), variables, clips, list(PATHS))
  assert recording._record._cache_size() == before


def test_a_module_that_does_not_exist(network):
  with pytest.raises(UserError, match=r"'stage_1_block_2'.*'stage_1_block_1'"):
    record(*network, whole=('stage_1_block_2',))
