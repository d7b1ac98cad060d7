"""Multigrid's shapes and samples, against tables written out by hand."""

import dataclasses
import itertools
import pickle

import pytest

from mtnet_jax.data.multigrid import Multigrid
from mtnet_jax.errors import UserError

# (b, t, h) of the phases, and in each of the short cycle; worked out with a
# pocket calculator from (8B, T/4, H/√2), (4B, T/2, H/√2), (2B, T/2, H),
# (B, T, H) and (4b, t, h/2), (2b, t, h/√2), (b, t, h), sizes to multiples of 8.
_TABLES = {
  # 224/√8 = 79.2, 224/2 = 112, 224/√2 = 158.4
  (64, 16, 224): [
    [(2048, 4, 80), (1024, 4, 112), (512, 4, 160)],
    [(1024, 8, 80), (512, 8, 112), (256, 8, 160)],
    [(512, 8, 112), (256, 8, 160), (128, 8, 224)],
    [(256, 16, 112), (128, 16, 160), (64, 16, 224)],
  ],
  # 256/√8 = 90.5, 128, 181.02
  (16, 16, 256): [
    [(512, 4, 88), (256, 4, 128), (128, 4, 184)],
    [(256, 8, 88), (128, 8, 128), (64, 8, 184)],
    [(128, 8, 128), (64, 8, 184), (32, 8, 256)],
    [(64, 16, 128), (32, 16, 184), (16, 16, 256)],
  ],
  # 182/√8 = 64.3, 91, 128.7; 182 is no multiple of 8; 13/4 = 3.25, 13/2 = 6.5
  (16, 13, 182): [
    [(512, 3, 64), (256, 3, 88), (128, 3, 128)],
    [(256, 7, 64), (128, 7, 88), (64, 7, 128)],
    [(128, 7, 88), (64, 7, 128), (32, 7, 182)],
    [(64, 13, 88), (32, 13, 128), (16, 13, 182)],
  ],
  # 48/√8 = 17.0 is too small, 24, 33.9
  (6, 8, 48): [
    [(192, 2, 24), (96, 2, 24), (48, 2, 32)],
    [(96, 4, 24), (48, 4, 24), (24, 4, 32)],
    [(48, 4, 24), (24, 4, 32), (12, 4, 48)],
    [(24, 8, 24), (12, 8, 32), (6, 8, 48)],
  ],
  # 112/√8 = 39.6, 56, 79.2
  (32, 16, 112): [
    [(1024, 4, 40), (512, 4, 56), (256, 4, 80)],
    [(512, 8, 40), (256, 8, 56), (128, 8, 80)],
    [(256, 8, 56), (128, 8, 80), (64, 8, 112)],
    [(128, 16, 56), (64, 16, 80), (32, 16, 112)],
  ],
}
_LONG_PASS = 8 + 4 + 2 + 1


def _grid(base, samples, cycles, **options):
  return Multigrid(
    *base, samples, 'long' in cycles, 'short' in cycles, **options
  )


def _expected(base, cycles, steps):
  """Shapes of a period whose phases have so many steps."""
  table = _TABLES[base]
  phases = table if 'long' in cycles else table[-1:]
  rows = (row if 'short' in cycles else row[-1:] for row in phases)
  return [
    (b, t, h, h)
    for row in rows
    for b, t, h in itertools.islice(itertools.cycle(row), steps)
  ]


@pytest.mark.parametrize('base', _TABLES)
@pytest.mark.parametrize('cycles', ['long', 'short', 'long and short', ''])
def test_shapes(base, cycles):
  # One sample more than phases of four steps draw, so that they have five.
  short_batches = 4 + 2 + 1 + 4 if 'short' in cycles else 4
  samples = short_batches * _LONG_PASS * base[0] + 1
  steps = 5 if 'long' in cycles else 3 if cycles else 1
  grid = _grid(base, samples, cycles)
  expected = _expected(base, cycles, steps)
  assert grid.period == len(expected)
  found = [grid.shape(step) for step in range(3 * grid.period)]
  assert found == 3 * expected
  assert all(isinstance(number, int) for shape in found for number in shape)
  counts = {shape: expected.count(shape) for shape in expected}
  assert list(grid.shapes().items()) == list(counts.items())


@pytest.mark.parametrize('cycles', ['long', 'short', 'long and short', ''])
@pytest.mark.parametrize('samples', [1, 2, 59, 60, 61, 105, 420, 421, 1999])
@pytest.mark.parametrize('batch', [1, 4])
def test_samples_are_counted_exactly(cycles, samples, batch):
  grid = _grid((batch, 16, 64), samples, cycles)
  drawn, first = 0, [0]
  for step in range(4 * grid.period + 5):
    assert grid.first_sample(step) == drawn
    drawn += grid.shape(step)[0]
    first.append(drawn)
  for wanted in {*range(min(drawn, 300)), *range(0, drawn, 37), drawn}:
    fewest = next(step for step, n in enumerate(first) if n >= wanted)
    assert grid.num_steps(wanted) == fewest
  assert grid.num_steps(first[7] + 0.5) == 8
  # Far away as near.
  far = 10**12
  assert grid.shape(far * grid.period + 2) == grid.shape(2)
  expected = far * first[grid.period] + first[2]
  assert grid.first_sample(far * grid.period + 2) == expected


@pytest.mark.parametrize('cycles', ['long', 'long and short'])
@pytest.mark.parametrize('samples', [1, 59, 60, 61, 105, 420, 421, 2000])
def test_a_pass_is_the_shortest_that_draws_an_epoch(cycles, samples):
  grid = _grid((4, 16, 64), samples, cycles)

  def drawn(steps):
    short = (4, 2, 1) if 'short' in cycles else (1,)
    batches = itertools.islice(itertools.cycle(short), steps)
    return 4 * _LONG_PASS * sum(batches)

  steps = grid.period // 4
  assert grid.period == 4 * steps
  assert drawn(steps) >= samples
  assert steps == 1 or drawn(steps - 1) < samples
  assert grid.steps_per_epoch == 4 * steps * samples / drawn(steps)


def test_the_learning_rate_follows_the_long_cycle():
  grid = _grid((4, 16, 64), 800, 'long and short')
  steps = grid.period // 4
  found = [grid.learning_rate_factor(step) for step in range(2 * grid.period)]
  assert found == 2 * [factor for factor in (8, 4, 2, 1) for _ in range(steps)]
  short = _grid((4, 16, 64), 800, 'short')
  assert {short.learning_rate_factor(step) for step in range(9)} == {1.0}


def test_volume_stays_but_for_rounding():
  grid = _grid((16, 16, 224), 10_000, 'long and short')
  found = {grid.volume_ratio(step) for step in range(grid.period)}
  # 80 and 160 pixels in place of 79.2 and 158.4
  assert found == {1.0, 50 / 49}
  small = _grid((13, 13, 182), 10_000, 'long')
  ratio = 8 * 3 * 128**2 / (13 * 182**2)
  assert small.volume_ratio(0) == pytest.approx(ratio, abs=0)


def test_batches_are_rounded_to_a_multiple():
  grid = _grid((10, 16, 64), 800, 'long', batch_multiple=16)
  found = [shape[0] for shape in grid.shapes()]
  assert found == [80, 48, 16, 16]  # of 80, 40, 20, 10: half goes up
  grid = _grid((2, 16, 64), 800, '', batch_multiple=16)
  assert grid.shape(0) == (16, 16, 64, 64)


@pytest.mark.parametrize(
  ('frames', 'size', 'expected'),
  [
    (1, 16, [(1, 16), (1, 16), (1, 16), (1, 16)]),  # not above the base
    (2, 24, [(1, 24), (1, 24), (1, 24), (2, 24)]),
    (3, 54, [(1, 40), (2, 40), (2, 54), (3, 54)]),  # 54/√2 = 38.2
    (6, 72, [(2, 48), (3, 48), (3, 72), (6, 72)]),  # 50.9
  ],
)
def test_small_shapes(frames, size, expected):
  grid = _grid((2, frames, size), 10, 'long')
  starts = range(0, grid.period, grid.period // 4)
  assert [grid.shape(step)[1:3] for step in starts] == expected


def test_half_of_a_multiple_of_eight_goes_up():
  shapes = _grid((1, 4, 56), 10, 'short').shapes()
  assert [shape[2] for shape in shapes] == [32, 40, 56]  # of 28, 39.6


def test_it_travels_to_other_processes():
  grid = _grid((4, 16, 64), 800, 'long and short')
  assert grid.shape(3) == pickle.loads(pickle.dumps(grid)).shape(3)
  constant = dataclasses.replace(grid, long_cycle=False, short_cycle=False)
  assert constant.shapes() == {(4, 16, 64, 64): 1}


@pytest.mark.parametrize(
  'name', ['batch', 'frames', 'size', 'samples_per_epoch', 'batch_multiple']
)
def test_mistakes_are_named(name):
  values = {'batch': 4, 'frames': 16, 'size': 64, 'samples_per_epoch': 800}
  with pytest.raises(UserError, match=rf'{name} \(=0\) must be at least 1'):
    Multigrid(**values | {name: 0})
