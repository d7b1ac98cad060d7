"""The GPU's benchmark, tried on a CPU: what is counted, not what is timed."""

import json
import pathlib
import subprocess
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from benchmarks import (
  compilation,
  gpu,
  gpu_common,
  gpu_costs,
  gpu_networks,
  gpu_separated,
  programs,
  results,
)
from benchmarks.gpu_common import Case, Contender
from benchmarks.measure import Timing
from benchmarks.results import Row
from mtnet_jax import models
from mtnet_jax.analysis import cost
from mtnet_jax.errors import UserError
from mtnet_jax.layers.conv import Conv3D

pytestmark = pytest.mark.usefixtures('quick_compilation')
_BANDWIDTH, _ARITHMETIC = 4e12, 8e14


@pytest.fixture
def options(tmp_path):
  return gpu_common.Options(tmp_path, small=True, batch=2, seconds=0.0)


@pytest.fixture
def known_limits(monkeypatch):
  """A device of known speed, so that floors are known too."""
  monkeypatch.setattr(gpu_common, 'copy_rate', lambda _: _BANDWIDTH)
  monkeypatch.setattr(gpu_common, 'matmul_rate', lambda _: _ARITHMETIC)


def _flags(**given):
  fields = {'part': None, 'only': '', 'out': None, 'batch': 2, 'seconds': 0.0}
  return types.SimpleNamespace(**{**fields, 'small': False, **given})


def _read(folder: pathlib.Path) -> list[dict]:
  (path,) = folder.glob('*.json')
  return json.loads(path.read_text())['rows']


# Contests.


def test_contest_keeps_several_runs_under_way():
  started, waited = [], []
  contender = Contender(lambda: started.append(0), waited.append)
  timings, failures = gpu_common.contest({'it': lambda: contender}, 0.0, 3)
  # Two to warm up, one to see how slow it is, and six rounds of three.
  assert len(started) == 2 + 1 + 6 * 3
  assert len(waited) == 1 + 1 + 6
  assert timings['it'].runs == 5
  assert not failures


def test_contest_leaves_out_what_fails_and_what_is_slow(monkeypatch):
  now = [0.0]
  clock = types.SimpleNamespace(perf_counter=lambda: now[0])
  monkeypatch.setattr(gpu_common, 'time', clock)
  starts = []

  def lasting(seconds):
    def start():
      starts.append(seconds)
      now[0] += seconds

    return lambda: Contender(start, lambda _: None)

  def failing():
    raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.')

  timings, failures = gpu_common.contest(
    {'fast': lasting(1.0), 'slow': lasting(11.0), 'large': failing}, 0.0, 1
  )
  assert list(timings) == ['fast', 'slow']
  assert timings['slow'] == 11.0  # the one run that was measured
  assert starts.count(11.0) == 3
  assert isinstance(timings['fast'], Timing)
  assert failures == {'large': 'does not fit into memory'}


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('RESOURCE_EXHAUSTED: Failed to allocate', 'does not fit into memory'),
    ('CUDA out of memory. Tried 2 GiB', 'does not fit into memory'),
    ('UNIMPLEMENTED: no algorithm\nat line 3', 'UNIMPLEMENTED: no algorithm'),
    ('', 'RuntimeError'),
  ],
)
def test_reasons_are_short(text, told):
  assert gpu_common.reason(RuntimeError(text)) == told


def test_scaled_timings():
  timing = Timing(2.0, 1.0, 4.0, 7)
  assert gpu_common.scaled(timing, 0.5) == Timing(1.0, 0.5, 2.0, 7)
  assert gpu_common.scaled(3.0, 0.5) == 1.5
  assert gpu_common.middle(timing) == 2.0
  assert gpu_common.middle(3.0) == 3.0


# The parts.


def test_limits(options, monkeypatch):
  second = Timing(0.5, 0.5, 0.5, 5)
  copied = []

  def contest(contenders, seconds, under_way):
    (prepare,) = contenders.values()
    copied.append(prepare().start())
    return {'it': second}, {}

  monkeypatch.setattr(gpu_common, 'contest', contest)
  rows = gpu.run_part('limits', options)
  assert [row.precision for row in rows] == ['float32', 'bfloat16'] + [
    'float32'
  ] * 2
  # 2²⁰ numbers of 4 bytes, read and written; 256³ multiply-adds.
  assert rows[0].note == f'{2 * 4 * 2**20 / 0.5 / 1e12:.3g} TB/s, ' + (
    'read and written'
  )
  assert rows[1].note == f'{2 * 256**3 / 0.5 / 1e12:.3g} TFLOP/s'
  assert [array.shape for array in copied] == [(2**20,), *[(256, 256)] * 3]
  assert gpu_common.copy_rate(options) == 2 * 4 * 2**20 / 0.5
  assert gpu_common.matmul_rate(options) == 2 * 256**3 / 0.5


def test_the_copy_is_one():
  x = jnp.ones(1024)
  y = jax.jit(jnp.copy)(x)
  assert x.unsafe_buffer_pointer() != y.unsafe_buffer_pointer()


@pytest.mark.slow
def test_separated_candidates_agree(options, known_limits):
  rows = gpu.run_part('separated', options)
  assert len(rows) == 3 * 2
  assert len({(row.work, row.precision) for row in rows}) == 6
  others = {'shifts, autodiff', 'lax', '2-D by frame'}
  for row in rows:
    assert others <= row.peers.keys()
    assert 'wrong' not in row.note
    # 3×7² positions become 3×4², of 5 channels and 2 clips.
    moved = 2 * 5 * 3 * (49 + 16) * (4 if row.precision == 'float32' else 2)
    assert row.peers['bandwidth'] == moved / _BANDWIDTH
  assert len(_read(options.out)) == 6


@pytest.mark.parametrize('name', ['lax', '2-D by frame'])
@pytest.mark.parametrize('strides', [(1, 1, 1), (1, 2, 2), (2, 1, 1)])
def test_candidates_sum_shifted_products(name, strides):
  rng = np.random.default_rng(0)
  x, kernel = rng.standard_normal((2, 4, 5, 5, 3)), rng.standard_normal(
    (3, 3, 3, 1, 3)
  )  # fmt: skip
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
  full = np.zeros_like(x)
  for i, j, k in np.ndindex(3, 3, 3):
    full += padded[:, i : i + 4, j : j + 5, k : k + 5] * kernel[i, j, k, 0]
  expected = full[:, :: strides[0], :: strides[1], :: strides[2]]
  run = jax.jit(gpu_separated.CANDIDATES[name], static_argnums=2)
  y = run(jnp.float32(x), jnp.float32(kernel), strides)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_a_wrong_candidate_cannot_win(options, known_limits, monkeypatch):
  wrong = {
    gpu_separated.OURS: gpu_separated.CANDIDATES[gpu_separated.OURS],
    'nothing': lambda x, k, s: 0.9 * gpu_separated.conv.convolve(x, k, s),
  }
  monkeypatch.setattr(gpu_separated, 'CANDIDATES', wrong)
  (row,) = gpu.run_part('separated', options, '/2 forward float32')
  assert 'nothing' not in row.peers
  assert 'nothing wrong by 1.0e-01' in row.note
  assert 'fastest: nothing' not in row.note


@pytest.mark.check
def test_networks(options, known_limits):
  train, infer = gpu.run_part('networks', options)
  assert (train.work, infer.work) == ('mtnet_xs train', 'mtnet_xs inference')
  assert train.unit == infer.unit == 's/clip'
  model, shape = gpu_networks.build('mtnet_xs'), (4, 32, 32, 3)
  moved = gpu_networks.floor_bytes(model, shape, 2) / 2
  assert infer.peers['bandwidth floor'] == moved / _BANDWIDTH
  assert train.peers['bandwidth floor'] == 3 * moved / _BANDWIDTH
  operations = 2 * cost.macs(model, shape)
  assert infer.peers['arithmetic floor'] == operations / _ARITHMETIC
  assert infer.goals == {'bandwidth floor': 0.5}
  # The rows say the same as what is timed: a clip, not a batch.
  clips = float(train.note.split()[0])
  assert clips == pytest.approx(1 / train.ours.median, rel=0.01)


def test_floor_counts_each_array_once():
  class Network(nn.Module):
    dtype: jax.typing.DTypeLike = jnp.bfloat16

    @nn.compact
    def __call__(self, x):
      x = Conv3D(4, (3, 3, 3), (1, 2, 2), dtype=self.dtype)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
      return Conv3D(4, (1, 1, 1), groups=4, dtype=self.dtype)(x)

  def half(*elements):
    return 2 * sum(elements)

  clip, middle, out = 2 * 6 * 6 * 3, 2 * 3 * 3 * 4, 2 * 3 * 3 * 4
  kernels = half(27 * 3 * 4, 4)
  counted = gpu_networks.floor_bytes(Network(), (2, 6, 6, 3), batch=5)
  # BN, here of float32, widens what the second convolution reads.
  assert counted == kernels + 5 * (half(clip, middle) + half(out) + 4 * middle)


@pytest.mark.slow
def test_memory(options):
  rows = gpu.run_part('memory', options)
  by_what = {row.work.partition(': ')[2]: row for row in rows}
  assert set(by_what) == {'memory set aside by the compiler', 'time'}
  memory = by_what['memory set aside by the compiler']
  assert memory.unit == 'bytes'
  assert memory.ours > 0
  (goal,) = memory.goals.values()
  assert goal == 2.0
  (goal,) = by_what['time'].goals.values()
  assert 1 / goal == pytest.approx(1.35)


def test_the_largest_memory_in_use_is_the_devices(options, monkeypatch):
  used = iter([{'peak_bytes_in_use': size} for size in (1, 30, 90)])
  device = types.SimpleNamespace(memory_stats=lambda: next(used))
  monkeypatch.setattr(jax, 'devices', lambda: [device])
  monkeypatch.setattr(gpu_networks, 'build', lambda name, **_: None)
  program = types.SimpleNamespace(compile=lambda: None)
  monkeypatch.setattr(programs, 'train_step', lambda *_: program)
  waits = Contender(lambda: None, lambda _: None)
  monkeypatch.setattr(gpu_networks, 'contender', lambda *_: waits)
  cases = {case.name: case for case in gpu_costs.memory(options)}
  (row,) = cases['mtnet_xs memory in use'].measure()
  assert results.ratios(row) == {'without rematerialization': 3.0}


def test_compilation_is_measured_elsewhere(options, monkeypatch):
  asked = []
  row = Row('it', '1', 'float32', 1.0, 's', {})
  monkeypatch.setattr(
    compilation, 'rows', lambda *args: asked.append(args) or [row]
  )
  assert gpu.run_part('compile', options) == [row]
  assert asked == [('mtnet_xs', (4, 32))]


def test_profile(options):
  (row,) = gpu.run_part('profile', options)
  folder = options.out / 'profile'
  costs = gpu_costs.costliest(folder)
  assert row.ours == pytest.approx(sum(costs.values()) / 3)
  lines = (folder / 'costliest.txt').read_text().splitlines()
  assert len(lines) == min(20, len(costs))
  assert lines[0].split()[-1] == costs.most_common(1)[0][0]


# The command.


def test_a_part_goes_on_after_a_failure(options, monkeypatch, capsys):
  row = Row('good', '1', 'float32', 1.0, 's', {'limit': 2.0})

  def failing():
    raise RuntimeError('RESOURCE_EXHAUSTED: 1 TiB')

  cases = [Case('large', failing), Case('good', lambda: [row])]
  monkeypatch.setattr(gpu, 'PARTS', {'limits': lambda _: iter(cases)})
  assert gpu.run_part('limits', options) == [row]
  out = capsys.readouterr().out
  assert 'large: does not fit into memory' in out
  assert 'good 1 float32: 2.00 × limit' in out
  assert [record['work'] for record in _read(options.out)] == ['good']
  assert gpu.run_part('limits', options, only='large') == []


def test_without_a_gpu_it_says_what_to_do():
  with pytest.raises(UserError, match=r'needs a GPU.*--small'):
    gpu.main(_flags(part='limits'))


def test_a_try_is_not_kept_among_the_results():
  with pytest.raises(UserError, match='--out=FOLDER'):
    gpu.main(_flags(part='limits', small=True))


@pytest.mark.parametrize(('failing', 'code'), [(1, 1), (2, 2), (0, None)])
def test_parts_run_in_processes_of_their_own(failing, code, monkeypatch):
  commands = []

  def run(command, check):
    commands.append(command[-2])
    return subprocess.CompletedProcess(
      command, failing if 'networks' in command[-2] else 0
    )

  monkeypatch.setattr(subprocess, 'run', run)
  monkeypatch.setattr('sys.argv', ['gpu', '--batch=2'])
  if code is None:
    gpu.main(_flags())
  else:
    with pytest.raises(SystemExit) as stop:
      gpu.main(_flags())
    assert stop.value.code == code
  expected = [f'--part={part}' for part in gpu.PARTS]
  # A mistake of the user's would be one in every part.
  assert commands == (expected[:3] if code == 2 else expected)


def test_every_network_has_its_clip_and_builds(tmp_path):
  options = gpu_common.Options(tmp_path)
  for name in gpu_networks.NAMES:
    assert gpu_networks.build(name).dtype == jnp.bfloat16
    frames, size = models.DEFAULT_CLIPS[name]
    shape = gpu_networks.clip_shape(name, options)
    assert shape == (frames, size, size, 3)


# PyTorch's side.


@pytest.fixture
def peers():
  pytest.importorskip('torch')
  from benchmarks import gpu_torch

  return gpu_torch


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['default', 'channels_last_3d'])
@pytest.mark.parametrize('what', gpu_separated.PASSES)
def test_separated_convolution_of_pytorch(peers, what, layout):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = (2, 3, 7, 7, 5), (3, 3, 3, 1, 5), (2, 3, 4, 4, 5)
  arrays = [
    jax.random.normal(key, shape)
    for key, shape in zip(keys, shapes, strict=True)
  ]
  strides = (1, 2, 2)
  contender = peers.separated(*arrays, strides, what, layout)
  theirs = peers.to_jax(contender.wait(contender.start()), what)
  run = gpu_separated.compute(gpu_separated.conv.convolve, what, strides)
  ours = jax.jit(run)(*arrays)
  assert theirs.shape == ours.shape
  assert gpu_separated.largest_error(theirs, ours) < 1e-5


@pytest.mark.slow
def test_r3d_50_of_pytorch_is_ours(peers):
  count = sum(p.numel() for p in peers.r3d_50(400).parameters())
  model = models.build('r3d_50', 400)
  assert count == cost.parameter_count(model, (4, 32, 32, 3))


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['train', 'inference'])
def test_networks_of_pytorch_run(peers, mode):
  prepare = getattr(peers, mode)
  contender = prepare('r3d_50', (2, 4, 32, 32, 3), 'channels_last_3d')
  result = contender.wait(contender.start())
  assert tuple(result.shape) == (() if mode == 'train' else (2, 400))
  assert np.isfinite(result.float().numpy()).all()
