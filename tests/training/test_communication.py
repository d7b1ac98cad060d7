"""What a train step sends between devices, counted in the compiled program."""

import collections
import functools
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from configs import quickstart
from mtnet_jax import models
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.runs import state as state_lib
from mtnet_jax.training import optim
from mtnet_jax.training.mixing import Mixing
from mtnet_jax.training.step import make_train_step

_DEVICES = 8
_BATCH = 16
# Name, network, fields other than its own, clips, devices that share parameters
_STEPS = {
  'mtnet': ('mtnet_xs', {}, (8, 48), 1),
  'x3d': ('x3d_m', {'blocks': (1, 1, 1, 1)}, (4, 32), 1),
  # Two frames are left in the last stage: taps that meet none are not sent.
  'srtg': ('srtg_r3d_18', {}, (32, 32), 1),
  'fsdp': ('x3d_m', {'blocks': (1, 1, 1, 1)}, (4, 32), 4),
  # With all that a step can do besides.
  'options': ('x3d_m', {'blocks': (1, 1, 1, 1)}, (4, 32), 1),
}
_DATA_PARALLEL = ('mtnet', 'x3d', 'srtg', 'options')
_OPTIONS = {
  'accumulate': 2,
  'ema_decay': 0.9,
  'label_smoothing': 0.1,
  'mix': Mixing(0.5, 0.5, 0.8, 1.0),
}


def _compile(name: str, folder: pathlib.Path) -> None:
  """Writes a step's program, and how many numbers it carries."""
  network, fields, (t, size), fsdp = _STEPS[name]
  mesh = mesh_lib.make_mesh(fsdp=fsdp)
  model = models.build(network, 15, norm_batch_size=_BATCH // _DEVICES)
  model = model.copy(**fields)
  options = _OPTIONS if name == 'options' else {}
  config = quickstart.get_config().optim
  config.clip_norm = 1.0 if options else 0.0
  tx = optim.build(config, lambda _: 0.1, options.get('accumulate', 1))
  shape = (t, size, size, 3)
  abstract = jax.eval_shape(
    functools.partial(
      state_lib.create, model, tx, shape, 0, average=bool(options)
    )
  )
  shardings = state_lib.shardings(abstract, mesh)
  split_over_all = mesh_lib.split_batch(mesh)

  def rows(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(
      (_BATCH, *shape), dtype, sharding=split_over_all
    )

  batch = {
    'clips': rows(*shape, dtype=jnp.uint8),
    'labels': rows(dtype=jnp.int32),
    'counters': {'stop': rows(), 'broken': rows()},
  }
  placed = jax.tree.map(
    lambda leaf, sharding: leaf.update(sharding=sharding), abstract, shardings
  )
  step = make_train_step(
    model, lambda _: 0.1, tx, 0, mesh, shardings, **options
  )
  # What is sent is settled before any machine code is made.
  options = {'xla_backend_optimization_level': 0}
  program = step.lower(placed, batch).compile(compiler_options=options)
  (folder / f'{name}.txt').write_text(program.as_text())

  def numbers(tree, wanted=lambda _: True):
    return sum(leaf.size for leaf in jax.tree.leaves(tree) if wanted(leaf))

  counts = {
    'params': numbers(placed.params),
    'stats': numbers(placed.batch_stats),
    'split': numbers(
      placed.params, lambda leaf: not leaf.sharding.is_fully_replicated
    ),
  }
  (folder / f'{name}.json').write_text(json.dumps(counts))


@pytest.fixture(scope='module')
def steps(root, tmp_path_factory):
  """By name, the counts of numbers and the messages of a step."""
  folder = tmp_path_factory.mktemp('programs')
  script = (
    'import pathlib\n'
    'from tests.training.test_communication import _STEPS, _compile\n'
    f'for name in _STEPS: _compile(name, pathlib.Path({str(folder)!r}))'
  )
  flags = f'--xla_force_host_platform_device_count={_DEVICES}'
  done = subprocess.run(
    [sys.executable, '-c', script],
    cwd=root,
    env=os.environ | {'XLA_FLAGS': flags},
    stderr=subprocess.PIPE,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return {
    name: (
      json.loads((folder / f'{name}.json').read_text()),
      _messages((folder / f'{name}.txt').read_text()),
    )
    for name in _STEPS
  }


def _messages(program: str) -> dict[str, list[int]]:
  """Bytes of each collective's result, by kind, in order.

  Those outside the main computation, in loops for instance, are of the kind
  'inside KIND': they may happen many times.
  """
  messages = collections.defaultdict(list)
  within = ''
  kinds = 'all-reduce|all-gather|reduce-scatter|all-to-all|collective-[a-z]+'
  for line in program.splitlines():
    if not line.startswith(' '):
      within = '' if line.startswith('ENTRY') else 'inside '
    match = re.search(rf' = (.*?) ((ragged-)?({kinds})(-start)?)\(', line)
    if match:
      messages[within + match[2]].append(_bytes(match[1]))
  return dict(messages)


def _bytes(shapes: str) -> int:
  """Of an array `f32[3,54]{1,0}`, or of a tuple of them."""
  return sum(
    math.prod(int(size) for size in sizes.split(',') if size) * int(bits) // 8
    for bits, sizes in re.findall(r'[a-z]+(\d+)\[([\d,]*)\]', shapes)
  )


def test_messages_of_a_program_by_hand():
  program = """\
%body (x: f32[3]) -> f32[3] {
  %a = f32[3]{0} all-reduce(%x), to_apply=%add
}
ENTRY %main (x: f32[3], y: bf16[2,8]) -> f32[] {
  %b = (f32[2,3]{1,0}, /*index=1*/f32[]) all-reduce(%p, %q), to_apply=%add
  %c = bf16[8,8]{1,0} all-gather(%y), dimensions={0}
  %d = f32[2,3]{1,0} get-tuple-element(%b), index=0
}
"""
  assert _messages(program) == {
    'inside all-reduce': [12],
    'all-reduce': [28],
    'all-gather': [128],
  }


@pytest.mark.check
@pytest.mark.parametrize('name', _DATA_PARALLEL)
def test_devices_exchange_gradients_statistics_and_metrics_alone(steps, name):
  counts, messages = steps[name]
  # Nothing is gathered or permuted, nothing sent from within a loop.
  assert messages.keys() == {'all-reduce'}
  # Gradients in one message; BN's moving statistics with them, or in another.
  assert len(messages['all-reduce']) <= 2
  gradients, statistics = 4 * counts['params'], 4 * counts['stats']
  # What remains are a few scalars: too little for any activation.
  metrics = sum(messages['all-reduce']) - gradients - statistics
  assert 0 < metrics <= 4 * 16


@pytest.mark.check
def test_split_parameters_are_gathered_once(steps):
  counts, messages = steps['fsdp']
  assert 0.9 * counts['params'] < counts['split'] < counts['params']
  # The compiler may scatter the sums where it can do so.
  assert messages.keys() <= {'all-gather', 'all-reduce', 'reduce-scatter'}
  # Each parameter once, for the forward and the backward pass.
  assert sum(messages['all-gather']) == 4 * counts['split']
  summed = sum(messages['all-reduce'] + messages.get('reduce-scatter', []))
  # Gradients are summed within the groups of four, and the quarter that each
  # device keeps, between the groups.
  fewest = 4 * (counts['params'] + counts['stats'])
  metrics = 4 * 64  # the norms are sums of a number an array
  assert fewest < summed <= fewest + counts['split'] + metrics
