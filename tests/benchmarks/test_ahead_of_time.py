"""What is compiled ahead of time, for which targets, beside which floors."""

import dataclasses
import json

import jax
import pytest

from benchmarks import ahead_of_time, communication
from benchmarks.estimates import Row
from mtnet_jax import models
from mtnet_jax.devices import targets
from mtnet_jax.errors import UserError

_ROW = Row('mtnet_xs', 'train', 8, False, 'v5e:2x2')

# Floors.


def test_a_floor_has_as_many_passes_as_the_program():
  train, again, infer = (
    communication.measure('mtnet_xs', passes)
    for passes in (communication.TRAIN_PASSES, 4, 1)
  )
  assert train.flops == 3 * infer.flops
  assert train.traffic == 3 * infer.traffic
  assert (again.flops, again.traffic) == (4 * infer.flops, 4 * infer.traffic)
  assert communication.measure('mtnet_xs') == train


def test_the_longer_of_arithmetic_and_memory_is_the_floor():
  chip = targets.Chip(flops=100.0, bandwidth=10.0, memory=1)
  network = communication.Network(
    flops=50.0, traffic=4.0, exchanged=0, messages=0
  )
  assert communication.floor_seconds(network, chip, 2) == 2 * 0.5
  slow = chip._replace(bandwidth=2.0)
  assert communication.floor_seconds(network, slow, 2) == 2 * 2.0


# Targets.


@pytest.mark.parametrize(
  ('target', 'clock'),
  [('v5e:2x2', 1.5e9), ('v5p:2x2x1', 1.75e9), ('v6e:16x16', 1.75e9)],
)
def test_clocks_of_tpus(target, clock):
  targets.check(target)
  assert not targets.is_gpu(target)
  assert targets.chip(target).clock == pytest.approx(clock, rel=0.005)


def test_gpus_are_described():
  for target, name in (('h100', 'H100 80GB HBM3'), ('h200', 'H200')):
    targets.check(target)
    told = targets.describe_gpu(target)
    assert f'device_description_str: "NVIDIA {name}"' in told
    assert f'device_memory_size: {targets.chip(target).memory}\n' in told
    assert told.count('{') == told.count('}') == 4


@pytest.mark.parametrize('target', ['v5e', 'v5e:2', 'v4:2x2x1', 'H100', ''])
def test_other_targets_are_refused(target):
  with pytest.raises(UserError, match=r'h100 or h200, or a .*v5e:2x2'):
    targets.check(target)


# Programs.


@pytest.fixture
def tiny(monkeypatch):
  """MTNet-XS of one plain block, on two frames of 16²."""
  build = models.build

  def tiny_one(*args, **overrides):
    model = build(*args, **overrides, local_ratio=1.0, recurrence=False)
    return model.copy(blocks=(1,), stages=model.stages[:1])

  monkeypatch.setattr(models, 'build', tiny_one)
  monkeypatch.setattr(models, 'DEFAULT_CLIPS', {'mtnet_xs': (2, 16)})


def test_the_train_step_is_that_of_training(tiny):
  row = dataclasses.replace(_ROW, clips=3)
  lowered = ahead_of_time.lower(row, jax.devices()[:1])
  (state, batch), _ = lowered.args_info
  assert batch['clips'].shape == (3, 2, 16, 16, 3)
  assert batch['clips'].dtype == 'uint8'
  assert all(leaf.donated for leaf in jax.tree.leaves(state))
  assert not any(leaf.donated for leaf in jax.tree.leaves(batch))
  assert 'bf16' in lowered.as_text()


def test_inference_is_that_of_prediction(tiny):
  row = dataclasses.replace(_ROW, clips=3, program='infer')
  lowered = ahead_of_time.lower(row, jax.devices()[:1])
  assert lowered.out_info[0].shape == (3, 400)


def test_a_row_is_compiled_once(tiny, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(targets, 'devices', lambda _: jax.devices()[:1])
  row = dataclasses.replace(_ROW, clips=1, program='infer')
  text, path = json.dumps(dataclasses.asdict(row)), tmp_path / 'kept' / 'it.gz'
  ahead_of_time.main(text, str(path))
  first = json.loads(capsys.readouterr().out.splitlines()[-1])
  monkeypatch.setattr(ahead_of_time, 'compile_row', None)
  ahead_of_time.main(text, str(path))
  assert json.loads(capsys.readouterr().out.splitlines()[-1]) == first
  assert first['memory']['needed'] > 0
  assert first['memory']['device'] == 16 * 2**30
