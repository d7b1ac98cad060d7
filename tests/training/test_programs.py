"""Programs for all shapes of clips: which, in which order, and each once."""

import os
import subprocess
import sys

import jax
import pytest

from mtnet_jax.data.multigrid import Multigrid
from mtnet_jax.training import loop, programs
from tests.checkpoint_files import stored_leaves
from tests.tiny_runs import tiny_config


class _Batches:
  """A run's batches of two clips of four frames, without the clips."""

  def __init__(self, num_steps, **cycles):
    self._num_steps = num_steps
    self.multigrid = Multigrid(2, 4, 32, samples_per_epoch=16, **cycles)

  def __len__(self):
    return self._num_steps


# Each phase has one step: together they draw more than the 16 videos.
_PHASES = [(16, 1, 24, 24), (8, 2, 24, 24), (4, 2, 32, 32), (2, 4, 32, 32)]


@pytest.mark.parametrize(
  ('start', 'end', 'wanted'),
  [
    (0, 100, _PHASES),
    (2, 100, [*_PHASES[2:], *_PHASES[:2]]),  # resumed within a cycle
    (0, 2, _PHASES[:2]),
    (97, 99, _PHASES[1:3]),  # only what is still to come
    (99, 99, []),
  ],
)
def test_shapes_still_to_come_in_their_order(start, end, wanted):
  batches = _Batches(end, short_cycle=False)
  assert programs.shapes_to_come(batches, start) == wanted


def test_shapes_of_a_run_without_multigrid():
  batches = _Batches(9, long_cycle=False, short_cycle=False)
  assert programs.shapes_to_come(batches, 3) == [(2, 4, 32, 32)]


@pytest.mark.check
@pytest.mark.timeout(900)
def test_compiled_ahead_a_run_ends_the_same(
  blinking_videos, quick_compilation, tmp_path, monkeypatch, caplog
):
  """Bit for bit as where each shape is compiled when it comes."""
  calls, compile_all = [], programs.compile_all

  def noting(step, state, shapes, mesh):
    calls.append(list(shapes))
    return compile_all(step, state, shapes, mesh)

  monkeypatch.setattr(programs, 'compile_all', noting)

  def run(name, ahead, num_steps=6):
    calls.clear()
    caplog.clear()
    config = tiny_config(
      blinking_videos,
      train__batch_size=2,
      train__norm_batch_size=2,
      train__long_cycle=True,
      train__num_steps=num_steps,
      train__validation_split='',
      train__checkpoint_every=0,
    )
    loop.train(config, tmp_path / name, compile_ahead=ahead)
    compiled = caplog.text.count('Finished XLA compilation of jit(train_step)')
    assert compiled == sum(map(len, calls))
    return list(calls)

  jax.config.update('jax_log_compiles', True)
  try:
    assert run('lazy', False) == [[shape] for shape in _PHASES]
    assert run('ahead', True) == [_PHASES]
    assert run('resumed', True, num_steps=3) == [_PHASES[:3]]
    assert run('resumed', True) == [[_PHASES[3], *_PHASES[:2]]]
  finally:
    jax.config.update('jax_log_compiles', False)
  wanted = _stored(tmp_path / 'lazy', 6)
  assert _stored(tmp_path / 'ahead', 6) == wanted
  assert _stored(tmp_path / 'resumed', 6) == wanted


def test_the_log_tells_of_each_program(monkeypatch, caplog, capsys):
  mesh = loop.mesh_lib.make_mesh(devices=jax.devices()[:1])
  monkeypatch.setattr(programs, '_at_once', lambda mesh: 3)
  caplog.set_level('INFO', logger='absl')
  step = jax.jit(lambda state, batch: (state, batch['clips'].sum()))
  made = programs.compile_all(step, 0, _PHASES, mesh)
  assert made.keys() == set(_PHASES)
  for shape, program in made.items():
    batch = jax.tree.map(
      lambda leaf: jax.numpy.ones(leaf.shape, leaf.dtype),
      programs.abstract_batch(shape, mesh),
    )
    assert program(0, batch)[1] == 3 * jax.numpy.prod(jax.numpy.array(shape))
  messages = [record.getMessage() for record in caplog.records]
  begun = [m for m in messages if m.startswith('Compiling for clips of')]
  assert begun == [f'Compiling for clips of {shape}' for shape in _PHASES]
  ended = [m for m in messages if m.startswith('Compiled for clips of')]
  assert len(ended) == 4 and ended[-1].endswith('s (4 of 4)')
  assert 'compiling: 4/4 shapes' in capsys.readouterr().err


def test_a_program_that_cannot_be_compiled_ends_the_run():
  mesh = loop.mesh_lib.make_mesh(devices=jax.devices()[:1])
  options = {'xla_no_such_option': True}
  step = jax.jit(lambda state, batch: state, compiler_options=options)
  with pytest.raises(jax.errors.JaxRuntimeError, match='xla_no_such_option'):
    programs.compile_all(step, 0, _PHASES, mesh)


def _stored(workdir, step):
  leaves = stored_leaves(workdir, step)
  return {name: leaf.tobytes() for name, leaf in leaves.items()}


_ON_DEVICES = """
import pathlib, sys
from mtnet_jax.training import loop
from tests.tiny_runs import tiny_config

if __name__ == '__main__':
  videos, folder = sys.argv[1:]
  config = tiny_config(
    videos, train__norm_batch_size=2, train__short_cycle=True,
    train__precise_norm_steps=1, train__num_steps=5, train__eval_every=3,
    train__checkpoint_every=0, mesh__fsdp=2)
  for when in ('ahead', 'lazily'):
    loop.train(
      config, pathlib.Path(folder) / when, compile_ahead=when == 'ahead')
"""


@pytest.mark.check
@pytest.mark.timeout(900)
def test_on_two_devices_too(root, blinking_videos, tmp_path):
  """With split parameters, and BN's statistics measured in between."""
  flags = '--xla_force_host_platform_device_count=2'
  environment = {'XLA_FLAGS': flags, 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
  done = subprocess.run(
    [sys.executable, '-c', _ON_DEVICES, str(blinking_videos), str(tmp_path)],
    cwd=root,
    env=os.environ | environment,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert _stored(tmp_path / 'ahead', 5) == _stored(tmp_path / 'lazily', 5)
