"""Every row of the CPU benchmark can be built; small ones are measured."""

import contextlib
import functools
import importlib.util
import json
import subprocess
import types

import jax
import jax.numpy as jnp
import pytest

from benchmarks import compilation, cpu, measure, programs
from benchmarks.measure import Timing
from mtnet_jax import models
from mtnet_jax.errors import UserError

pytestmark = [
  pytest.mark.usefixtures('quick_compilation'),
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),  # torch's own
]
# Of two clip shapes, one.
_CASES = {case.work: case for case in cpu.cases()}


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """Nothing rests, little is copied, and all happens in this process."""

  @contextlib.contextmanager
  def here(make, *args):
    run = make(*args)

    def contend():
      run()
      return 1.0

    yield contend

  monkeypatch.setattr(measure, 'apart', here)
  monkeypatch.setattr(measure, '_REST', 0.0)
  monkeypatch.setattr(cpu, '_COPIED_BYTES', 2**10)


@pytest.fixture
def narrow(monkeypatch):
  """3-D ResNets have few channels."""
  build = functools.partial(models.build, stage_features=(4, 6, 8, 10))
  monkeypatch.setattr(models, 'build', build)


@pytest.mark.parametrize(
  'work',
  [
    pytest.param(work, marks=[pytest.mark.check] * work.startswith('mtnet_m'))
    for work in _CASES
  ],
)
def test_our_side_of_every_row(work):
  program = _CASES[work].ours()
  result = jax.eval_shape(program.function, *program.arguments)
  if program.has_state:
    before = jax.tree.map(lambda leaf: leaf.shape, program.arguments[0])
    after = jax.tree.map(lambda leaf: leaf.shape, result[0])
    assert before == after and result[1]['loss'].shape == ()
  elif 'inference' in work:
    assert result.shape[1:] == (400,)


def test_rows_differ_in_name():
  names = [name for name, _ in cpu.parts(1.0)]
  assert len(set(names)) == len(names)
  assert names[-2:] == ['compilation', 'loading']


@pytest.mark.parametrize(
  'kind', [pytest.param('train step', marks=pytest.mark.slow), 'inference']
)
def test_network_row(kind, narrow, monkeypatch):
  case = cpu.by_macs('r3d_18', 'r3d_18', kind, (1, 2, 16))
  monkeypatch.setattr(cpu, 'cases', lambda: [case])
  row = cpu.run(case, 0.0)
  assert (row.work, row.shape) == (f'r3d_18 {kind}', '1×2×16²')
  assert row.ours.runs == row.peers['r3d_18 × ratio of MACs'].runs == 5


def test_more_macs_may_take_longer():
  case = cpu.by_macs('r3d_34', 'r3d_18', 'inference', (2, 2, 16))
  (peer,) = case.compare({'r3d_18': Timing(1.0, 0.5, 2.0, 3)}).values()
  # A stage of 3-D ResNet-34 has more blocks, but the stem is the same.
  assert 1.5 < peer.median < 2.5
  assert peer == Timing(peer.median, peer.median / 2, peer.median * 2, 3)


def test_steps_go_on_from_the_last_one():
  def step(state, batch):
    return state + batch, {'sum': jnp.sum(state)}

  start = jax.ShapeDtypeStruct((), jnp.float32)
  program = programs.Program(
    jax.jit(step, donate_argnums=0), (start, start), has_state=True
  )
  seen = []

  def compiled(state, batch):
    seen.append(float(state))
    return state + 1, {}

  run = program.start(compiled)
  run(), run(), run()
  assert seen == [0.0, 1.0, 2.0]


def test_drawn_values():
  shapes = {
    'kernel': (3, 3, 3, 8, 64), 'scale': (5,), 'bias': (5,), 'count': ()
  }  # fmt: skip
  drawn = programs.draw(
    {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
  )
  assert {k: leaf.shape for k, leaf in drawn.items()} == shapes
  assert drawn['kernel'].std() == pytest.approx((27 * 8) ** -0.5, rel=0.05)
  assert drawn['scale'].tolist() == [1] * 5
  assert not drawn['bias'].any() and not drawn['count'].any()


def test_faster_layout_is_the_best():
  slow, fast = Timing(2.0, 2.0, 2.0, 5), Timing(1.0, 1.0, 1.0, 5)
  for default, other in ((slow, fast), (fast, slow)):
    times = {'default': default, 'channels_last_3d': other}
    assert cpu.best_layout(times) == {
      'PyTorch, default': default,
      'PyTorch, best': fast,
    }


def test_bytes_by_hand():
  x, y = (1, 2, 4, 4, 3), (1, 2, 2, 2, 3)  # 96 and 24 numbers
  assert cpu.separated_bytes(x, y, backward=False) == 4 * (96 + 24)
  # x and dy are read again, and dx is written.
  assert cpu.separated_bytes(x, y, True) == 4 * (96 + 24 + 96 + 24 + 96)


@pytest.mark.slow
@pytest.mark.parametrize('strides', [(1, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize('backward', [False, True])
def test_separated_row(strides, backward, monkeypatch):
  pytest.importorskip('torch')
  case = cpu.separated((1, 4, 8, 8, 3), strides, backward)
  monkeypatch.setattr(cpu, 'cases', lambda: [case])
  row = cpu.run(case, 0.0)
  assert row.peers.keys() == {
    'PyTorch, default',
    'PyTorch, best',
    'memory bandwidth',
  }
  assert row.goals.keys() <= row.peers.keys()


def test_bandwidth_is_that_of_the_copy():
  case = cpu.separated((1, 4, 8, 8, 3), (1, 1, 1), backward=False)
  second = Timing(1.0, 1.0, 1.0, 5)
  times = dict.fromkeys(('default', 'channels_last_3d', 'copy'), second)
  # 1 KiB is read and written a second; x and y have 3 KiB each.
  assert case.compare(times)['memory bandwidth'].median == 3


@pytest.mark.slow
@pytest.mark.parametrize('work', [w for w in _CASES if 'x3d_m' in w])
def test_torch_side_of_x3d(work):
  torch = pytest.importorskip('torch')
  pytest.importorskip('pytorchvideo')
  kind = work.removeprefix('x3d_m ')
  case = cpu.network('x3d_m', kind, (2, 4, 32), default=2.0, best=1.0)
  assert case.others.keys() == {'default', 'channels_last_3d'}
  for make in case.others.values():
    assert torch.isfinite(make()()).all()
  assert case.goals == {'PyTorch, default': 2.0, 'PyTorch, best': 1.0}


def test_compilation_in_this_process(capsys, narrow):
  compilation.main('r3d_18', '2', '16', '2', '3', 'rematerialize=true')
  cost = json.loads(capsys.readouterr().out)
  assert cost.keys() == {'trace', 'compile', 'temporary', 'step'}
  assert cost['step'] > 0
  # A clip's activations after the stem alone, in float32.
  assert cost['temporary'] > 2 * 2 * 8 * 8 * 4 * 4


def test_compilation_rows(monkeypatch):
  answers = [{'trace': 20.0, 'compile': 30.0}, {'trace': 19.0, 'compile': 1.0}]
  caches = []

  def child(command, env, **_):
    assert command[1:] == ['-m', 'benchmarks.compilation', 'x3d_m', '4', '32']
    assert env['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] == '0'
    caches.append(env['JAX_COMPILATION_CACHE_DIR'])
    answer = json.dumps(answers[len(caches) - 1])
    return types.SimpleNamespace(stdout=answer)

  monkeypatch.setattr(subprocess, 'run', child)
  first, second = compilation.rows('x3d_m', (4, 32))
  assert caches[0] == caches[1]
  assert (first.ours, first.peers) == (50.0, {'limit': 60.0})
  assert (second.ours, second.peers) == (20.0, {'limit': 10.0})
  assert second.note == 'tracing 19.0 s, compiling 1.0 s'


def test_command_measures_and_keeps(monkeypatch, tmp_path, capsys):
  def double():
    x = jax.ShapeDtypeStruct((2,), jnp.float32)
    return programs.Program(jax.jit(lambda x: 2 * x), (x,))

  one = Timing(1.0, 1.0, 1.0, 5)
  case = cpu.Case(
    'doubling', '2', double, {'a': lambda: bool}, lambda _: {'peer': one}
  )
  monkeypatch.setattr(cpu, 'cases', lambda: [case])
  monkeypatch.setattr(cpu, 'check_peers', lambda: None)
  cpu.main('doubl', 0.0, str(tmp_path))
  (path,) = tmp_path.iterdir()
  (row,) = json.loads(path.read_text())['rows']
  assert row['work'] == 'doubling' and row['ratios'].keys() == {'peer'}
  out = capsys.readouterr().out
  assert 'doubling, 2: peer ' in out and out.rstrip().endswith(str(path))
  with pytest.raises(UserError, match=r"--only='none such' .*doubling, 2; "):
    cpu.main('none such', 0.0, str(tmp_path))


def test_missing_peers(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(UserError, match='pip install --no-deps pytorchvideo'):
    cpu.check_peers()
