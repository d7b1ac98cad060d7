"""Medians by a clock that tells what it is told, and memory that runs out."""

import itertools

import jax
import jax.numpy as jnp
import pytest
import rich.console

from mtnet_jax import models
from mtnet_jax.analysis import latency
from mtnet_jax.commands import cost as cost_command

CLIP = (2, 8, 8, 3)

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def model():
  """A real network without its blocks: quick to compile."""
  return models.build('mtnet_xs', 3).copy(blocks=(0, 0, 0, 0))


def _clock(*seconds):
  """Starts at 100; each second call comes so much later, the last for ever."""
  now = 100.0
  for passed in itertools.chain(seconds, itertools.repeat(seconds[-1])):
    yield now
    now += passed
    yield now


@pytest.mark.parametrize(
  'measure', [latency.measure_forward, latency.measure_step]
)
def test_medians_by_hand(model, measure):
  # Compiling takes 7 s; three runs are enough where they take so long.
  clock = _clock(7.0, 8.0, 16.0, 12.0)
  timing = measure(model, CLIP, 2, lambda: next(clock))
  assert timing.runs == 3
  assert timing.compile_seconds == 7
  assert timing.median == 6  # of two clips in 12 s
  assert timing.lower_quartile == 5 and timing.upper_quartile == 7
  assert timing.temporary_bytes > 0


@pytest.mark.parametrize(('seconds', 'runs'), [(0.001, 20), (2.5, 12), (60, 3)])
def test_long_runs_are_fewer(seconds, runs):
  clock, calls = _clock(seconds), []
  got = latency._time(lambda: calls.append(1), lambda: next(clock))
  assert got == pytest.approx([seconds] * runs)
  assert len(calls) == runs + 1  # the first warms up


def test_the_backward_pass_is_a_difference(model):
  timings = cost_command.measure_latency(model, CLIP, 1)
  forward, both = timings['forward'], timings['forward_backward']
  assert timings['backward'] == both['median'] - forward['median']
  assert timings['batch'] == 1
  for timing in (forward, both):
    low, high = timing['lower_quartile'], timing['upper_quartile']
    assert 0 < low <= timing['median'] <= high
  # What a gradient keeps is more than what logits need.
  assert both['temporary_bytes'] > forward['temporary_bytes']


def test_random_kernels_keep_the_scale(model):
  x = jnp.zeros((1, *CLIP))
  shapes = jax.eval_shape(model.init, jax.random.key(0), x)
  variables = jax.tree_util.tree_map_with_path(latency._draw, shapes)
  kernel = variables['params']['linear']['kernel']
  assert abs(kernel.std() * kernel.shape[0] ** 0.5 - 1) < 0.05
  assert (variables['batch_stats']['head_norm']['var'] == 1).all()
  assert (variables['params']['classifier']['bias'] == 0).all()


def test_too_many_clips_for_a_cpu(model, monkeypatch):
  monkeypatch.setattr(latency, '_available_memory', lambda: 50_000)
  with pytest.raises(latency.DoesNotFitError, match=r'3 clips needs 0\.0 GB'):
    latency.measure_forward(model, CLIP, 3)


def test_too_many_clips_for_an_accelerator(model, monkeypatch):
  def run(*_):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

  monkeypatch.setattr(latency, '_time', run)
  with pytest.raises(latency.DoesNotFitError, match='one clip does not fit'):
    latency.measure_step(model, CLIP, 1)


def test_other_failures_are_not_hidden(model, monkeypatch):
  def run(*_):
    raise jax.errors.JaxRuntimeError('INTERNAL: no kernel image')

  monkeypatch.setattr(latency, '_time', run)
  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'):
    latency.measure_forward(model, CLIP, 1)


def test_available_memory(monkeypatch):
  assert 10**6 < latency._available_memory() < 10**15
  # As where there is no /proc.
  monkeypatch.setattr(latency.pathlib.Path, 'read_text', _no_file)
  assert 10**6 < latency._available_memory() < 10**15


def _no_file(_):
  raise FileNotFoundError


def test_the_table_tells_what_does_not_fit(capsys):
  timing = {
    'median': 0.0125, 'lower_quartile': 0.01, 'upper_quartile': 0.015,
    'compile_seconds': 9.0, 'temporary_bytes': 2_000_000,
  }  # fmt: skip
  network = {
    'model': 'mtnet_m',
    'dtype': 'float32',
    'latency': [
      {
        'batch': 1,
        'forward': timing,
        'forward_backward': {**timing, 'median': 0.05},
        'backward': 0.0375,
      },
      {
        'batch': 32,
        'forward': {**timing, 'temporary_bytes': None},
        'forward_backward': {'error': '32 clips [sic] do not fit.'},
        'backward': None,
      },
    ],
  }
  console = rich.console.Console(width=80)
  cost_command.show_latency(network, 'a CPU of 2 cores', console)
  lines = capsys.readouterr().out.splitlines()
  cells = [line.split('│')[1:4] for line in lines if '│' in line]
  rows = [[cell.strip() for cell in row] for row in cells]
  assert rows == [
    ['1', 'forward', '12.5'],
    ['1', 'both', '50.0'],
    ['1', 'backward', '37.5'],
    ['32', 'forward', '12.5'],
  ]
  assert '10.0–15.0' in lines[4] and lines[-1] == '32 clips [sic] do not fit.'
