"""The command writes what runs alone, or nothing."""

import json
import os
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from flax import linen as nn

from mtnet_jax.commands import export as export_command
from mtnet_jax.errors import UserError
from mtnet_jax.export import check as export_check
from mtnet_jax.export import onnx as onnx_lib
from mtnet_jax.export import run_alone
from mtnet_jax.export.check import Check
from mtnet_jax.prediction import Predictor
from tests import command_line
from tests.checkpoint_files import stored_leaves
from tests.prediction_runs import CLASSES

pytestmark = pytest.mark.usefixtures('quick_compilation')

_FILES = ['model.json', 'model.stablehlo', 'params.safetensors']

# A run on two devices, each with half of every large array.
_SPLIT_RUN = """
import pathlib, sys
import jax
from jax.sharding import NamedSharding, PartitionSpec
from mtnet_jax.devices import mesh as mesh_lib
from tests import prediction_runs

draw, mesh = prediction_runs._draw, mesh_lib.make_mesh(fsdp=2)

def place(leaf):
  last = 'fsdp' if leaf.shape[-1] % 2 == 0 else None
  spec = PartitionSpec(*[None] * (leaf.ndim - 1), last)
  return jax.device_put(leaf, NamedSharding(mesh, spec))

prediction_runs._draw = lambda shapes: jax.tree.map(place, draw(shapes))
prediction_runs.write_run(pathlib.Path(sys.argv[1]), '')
"""


@pytest.fixture(scope='module')
def run(root, tmp_path_factory):
  """A workdir whose weights were split between devices."""
  workdir = tmp_path_factory.mktemp('run')
  done = subprocess.run(
    [sys.executable, '-c', _SPLIT_RUN, str(workdir)],
    cwd=root,
    env=os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=2'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return workdir


@pytest.fixture(scope='module')
def exported(run, tmp_path_factory):
  """The folder that the command made, and what it printed."""
  out = tmp_path_factory.mktemp('out') / 'exported'
  flags = f'--workdir={run}', f'--out={out}', '--license=CC BY 4.0'
  done = command_line.run(export_command.COMMAND, *flags)
  assert done.code == 0, done.stderr
  return out, done.stdout


def test_the_files_of_the_command(exported):
  out, _ = exported
  assert sorted(path.name for path in out.iterdir()) == _FILES
  metadata = json.loads((out / 'model.json').read_text())
  assert metadata['step'] == 7 and metadata['class_names'] == list(CLASSES)
  assert metadata['license'] == 'CC BY 4.0'
  assert metadata['model']['name'] == 'mtnet_xs'
  assert metadata['model']['overrides']['local_ratio'] == 1.0


def test_the_parameters_are_those_of_the_checkpoint(exported, run):
  found = safetensors.numpy.load_file(exported[0] / 'params.safetensors')
  stored = {
    '/'.join(re.findall(r"'(\w+)'", name)): leaf
    for name, leaf in stored_leaves(run, 7).items()
    if name.startswith('variables')
  }
  assert found.keys() == stored.keys()
  assert 'params/classifier/kernel' in found
  for name, leaf in stored.items():
    np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def test_what_the_command_prints(exported):
  _, lines = exported
  for name in _FILES:
    assert any(
      f'{name}  ' in line and line.endswith('MB') for line in lines.splitlines()
    )
  assert 'ms a clip, the network itself' in lines
  assert 'logits differ by' in lines


def test_predictions_of_the_export(exported, run, blinking_videos):
  video = blinking_videos / 'test/bright/0.mp4'
  expected = Predictor(run)(video).probabilities
  found = Predictor(exported[0])(video).probabilities
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_program_that_needs_more_than_jax(exported, tmp_path, monkeypatch):
  """The very file that the fresh process runs, in one where flax is."""
  clips = export_check.random_clips(1, (4, 32, 32, 3))
  np.save(tmp_path / 'clips.npy', clips)
  arguments = [exported[0] / 'model.stablehlo', tmp_path / 'clips.npy']
  arguments.append(tmp_path / 'results.npz')
  monkeypatch.setattr(sys, 'argv', ['', *map(str, arguments)])
  with pytest.raises(SystemExit, match=r'flax, .*mtnet_jax, .*was imported'):
    runpy.run_path(run_alone.__file__, run_name='__main__')
  assert np.load(tmp_path / 'results.npz')['all'].shape == (1, 2)


def test_a_program_that_does_not_run(tmp_path):
  (tmp_path / 'model.stablehlo').write_bytes(b'nothing')
  with pytest.raises(UserError, match='does not run with jax alone'):
    export_check.check_program(
      tmp_path / 'model.stablehlo', None, {}, (4, 32, 32, 3)
    )


def test_a_failed_check_changes_nothing(run, exported, tmp_path, monkeypatch):
  for name in _FILES:
    (tmp_path / name).write_bytes((exported[0] / name).read_bytes())
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

  def other_logits(program, clips):
    assert program.is_file() and program.parent.parent == tmp_path
    return {
      'all': np.ones((3, 2)),
      'one': np.ones((1, 2)),
      'milliseconds': 1.0,
    }

  monkeypatch.setattr(export_check, '_in_fresh_process', other_logits)
  with pytest.raises(UserError, match=r'gives other logits .* not put in pl'):
    export_command.export_run(run, tmp_path)
  assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_no_cpu_to_check_on(tmp_path, monkeypatch):
  def devices(platform):
    raise RuntimeError(f'Unknown backend {platform}')

  monkeypatch.setattr(export_command.jax, 'devices', devices)
  with pytest.raises(UserError, match=r'out: set JAX_PLATFORMS=.*,cpu\.$'):
    export_command.export_run(tmp_path, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('difference', [np.nan, np.inf, 2e-5])
def test_a_difference_that_is_too_great(difference):
  export_check.judge([Check('a', 1e-5, 1e-5, 1.0, 1.0)])
  with pytest.raises(UserError, match=r'1e-05 is allowed'):
    export_check.judge([Check('a', difference, 1e-5, 1.0, 1.0)])


def test_random_clips_have_frames_that_differ():
  clips = export_check.random_clips(2, (3, 10, 10, 3))
  assert clips.shape == (2, 3, 10, 10, 3) and clips.dtype == np.uint8
  means = clips.mean(axis=(2, 3)).reshape(6, 3)
  assert len(np.unique(means.round(3), axis=0)) == 6


def test_nothing_to_export(exported, tmp_path):
  out = tmp_path / 'out'
  with pytest.raises(UserError, match='There is no folder'):
    export_command.export_run(tmp_path / 'nowhere', out)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='neither a checkpoint nor'):
    export_command.export_run(tmp_path / 'empty', out)
  with pytest.raises(UserError, match='an exported model and no checkpoint'):
    export_command.export_run(exported[0], out)
  newer = tmp_path / 'newer'
  newer.mkdir()
  metadata = json.loads((exported[0] / 'model.json').read_text())
  (newer / 'model.json').write_text(json.dumps(metadata | {'version': 9}))
  with pytest.raises(UserError, match='version 9, this mtnet_jax reads up to'):
    export_command.export_run(newer, out)
  assert not out.exists()


def test_a_place_that_cannot_be_written_to(run, tmp_path):
  (tmp_path / 'file').write_text('mine')
  flags = f'--workdir={run}', f'--out={tmp_path / "file"}'
  done = command_line.run(export_command.COMMAND, *flags)
  assert done.code == 2 and 'Traceback' not in done.stderr
  assert 'file cannot be written: File exists.' in done.stderr
  (tmp_path / 'params.safetensors').write_text('mine')
  with pytest.raises(UserError, match='of something else than an export'):
    export_command.export_run(run, tmp_path)
  assert (tmp_path / 'params.safetensors').read_text() == 'mine'


def test_onnx_without_its_packages(run, tmp_path, monkeypatch):
  def missing(name):
    raise ImportError(f'No module named {name!r}')

  monkeypatch.setattr(onnx_lib.importlib, 'import_module', missing)
  with pytest.raises(UserError, match=r"No module named 'jax2onnx'.*pip inst"):
    export_command.export_run(run, tmp_path / 'out', onnx=True)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('error', 'said'), [(NotImplementedError(), 'NotImpl'), (KeyError(1), '1')]
)
def test_what_the_converter_refuses(monkeypatch, error, said):
  class Converter:
    @staticmethod
    def to_onnx(*_, **__):
      raise error

  class Model(nn.Module):
    dtype: str = 'float32'
    input_mean: tuple[float, ...] = (0.45,) * 3
    input_std: tuple[float, ...] = (0.225,) * 3

    @nn.compact
    def __call__(self, x, *, train):
      return x.mean(axis=(1, 2, 3)), {}

  packages = Converter, None
  monkeypatch.setattr(onnx_lib, 'find_packages', lambda: packages)
  with pytest.raises(UserError, match=f'cannot convert this network: {said}'):
    onnx_lib.convert(Model(), {}, (1, 2, 2, 3))


def test_onnx_runtime_gives_the_same_logits(run, tmp_path, capsys):
  pytest.importorskip('jax2onnx')
  checks = export_command.export_run(run, tmp_path, onnx=True)
  onnx = checks[1]
  assert onnx.name == 'model.onnx' and onnx.difference <= 1e-4
  metadata = json.loads((tmp_path / 'model.json').read_text())
  assert metadata['onnx']['input'] == [1, 4, 32, 32, 3]
  export_command.show(checks, tmp_path)
  assert 'model.onnx: ' in capsys.readouterr().out
