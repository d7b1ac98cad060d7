"""An exported model: the same numbers, and files that are refused."""

import hashlib
import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import base
from mtnet_jax.errors import UserError
from mtnet_jax.export import program as program_lib

_NAMES = ('hug', '<b>', 'é')


class _Model(nn.Module):
  dtype: str = 'float32'
  input_mean: tuple[float, ...] = (0.45,) * 3
  input_std: tuple[float, ...] = (0.225,) * 3

  @nn.compact
  def __call__(self, x, *, train):
    assert not train
    logits = nn.Dense(3, name='classifier')(x.mean(axis=(1, 2, 3)))
    return logits, {'early_predictions': {}}


def _config():
  config = base.get_config()
  config.data.update(num_frames=2, frame_stride=3, input_size=9)
  config.eval.update(crop_size=6, input_size=4)  # larger than in training
  return config


@pytest.fixture(scope='module')
def weights():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(3, 3)).astype(np.float32)
  return kernel, rng.normal(size=3).astype(np.float32)


def _variables(kernel, bias):
  dense = {'kernel': jnp.asarray(kernel), 'bias': jnp.asarray(bias)}
  return {'params': {'classifier': dense}}


@pytest.fixture(scope='module')
def files(weights, tmp_path_factory):
  directory = tmp_path_factory.mktemp('export') / 'new'
  program_lib.write_export(
    directory, _Model(), _variables(*weights), _config(), _NAMES, step=12
  )
  return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def directory(files, tmp_path):
  """A copy to damage."""
  for name, content in files.items():
    (tmp_path / name).write_bytes(content)
  return tmp_path


def _expected(clips, weights):
  """Logits and probabilities, float64."""
  x = (clips.astype(np.float64) / 255 - 0.45) / 0.225
  logits = x.mean(axis=(1, 2, 3)) @ weights[0] + weights[1]
  shares = np.exp(logits)
  return logits, shares / shares.sum(axis=1, keepdims=True)


def _clips(count):
  rng = np.random.default_rng(1)
  return rng.integers(0, 256, (count, 2, 4, 4, 3), np.uint8)


def test_probabilities_of_any_number_of_clips(directory, weights):
  run, _ = program_lib.load_export(directory)
  for count in (1, 5):
    got = run(_clips(count))
    assert got.dtype == jnp.float32
    _, shares = _expected(_clips(count), weights)
    np.testing.assert_allclose(got, shares, atol=1e-6)


def test_the_program_gives_logits_and_probabilities(directory, weights):
  contents = (directory / 'model.stablehlo').read_bytes()
  run = jax.export.deserialize(bytearray(contents)).call
  found = run(_clips(2))
  for got, expected in zip(found, _expected(_clips(2), weights), strict=True):
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_folder_without_the_keys_that_came_later(directory, weights):
  path = directory / 'model.json'
  metadata = json.loads(path.read_text())
  for key in ('dtype', 'layout', 'color'):
    del metadata['program'][key]
  del metadata['normalization']['inside_program']
  path.write_text(json.dumps(metadata))
  run, _ = program_lib.load_export(directory)
  _, shares = _expected(_clips(1), weights)
  np.testing.assert_allclose(run(_clips(1)), shares, atol=1e-6)


def test_what_the_description_says(directory):
  _, metadata = program_lib.load_export(directory)
  assert metadata['class_names'] == list(_NAMES)
  assert (metadata['version'], metadata['step']) == (2, 12)
  assert metadata['program']['input'] == ['b', 2, 4, 4, 3]
  assert metadata['program']['dtype'] == 'uint8'
  assert metadata['program']['layout'] == 'n t h w c'
  assert metadata['program']['color'] == 'RGB, 0 to 255'
  assert metadata['program']['logits'] == ['b', 3]
  assert metadata['program']['probabilities'] == ['b', 3]
  assert metadata['program']['jax_version'] == jax.__version__
  assert metadata['data'] == {
    'num_frames': 2,
    'frame_stride': 3,
    'sampling': 'clip',
    'short_videos': 'repeat',
  }
  assert metadata['eval'] == {
    'num_clips': 10,
    'num_crops': 3,
    'crop_size': 6,
    'input_size': 4,
    'clips_per_step': 30,
  }
  assert metadata['model'] == {
    'name': 'mtnet_m',
    'overrides': {'dtype': 'float32', 'rematerialize': False},
    'num_parameters': 12,
  }
  assert metadata['normalization'] == {
    'mean': [0.45] * 3,
    'std': [0.225] * 3,
    'inside_program': True,
  }
  assert metadata['license'] is None
  assert 'inherit the license of the data' in metadata['license_note']


def test_the_description_knows_the_other_files(directory):
  metadata = json.loads((directory / 'model.json').read_text())
  sections = [metadata['program'], metadata['parameters']]
  for section in sections:
    contents = (directory / section['file']).read_bytes()
    assert section['sha256'] == hashlib.sha256(contents).hexdigest()
  names = {section['file'] for section in sections} | {'model.json'}
  assert {path.name for path in directory.iterdir()} == names


def test_the_parameters_by_name(directory, weights):
  """Read as the format says: a length, a header of JSON, the numbers."""
  contents = (directory / 'params.safetensors').read_bytes()
  (length,) = struct.unpack('<Q', contents[:8])
  header = json.loads(contents[8 : 8 + length])
  about = header.pop('__metadata__')
  assert about == {'project': 'mtnet_jax', 'model': 'mtnet_m', 'step': '12'}
  found = {
    name: np.frombuffer(
      contents[8 + length :][slice(*entry['data_offsets'])], '<f4'
    ).reshape(entry['shape'])
    for name, entry in header.items()
  }
  assert found.keys() == {
    'params/classifier/kernel',
    'params/classifier/bias',
  }
  np.testing.assert_array_equal(found['params/classifier/kernel'], weights[0])
  np.testing.assert_array_equal(found['params/classifier/bias'], weights[1])


def _write(directory, weights, **more):
  program_lib.write_export(
    directory,
    _Model(),
    _variables(*weights),
    _config(),
    _NAMES,
    step=13,
    **more,
  )


def test_an_earlier_export_is_replaced(directory, weights):
  (directory / 'notes.txt').write_text('mine')
  _write(directory, weights, license='CC BY 4.0', onnx=b'onnx')
  metadata = json.loads((directory / 'model.json').read_text())
  assert (metadata['step'], metadata['license']) == (13, 'CC BY 4.0')
  assert (directory / 'model.onnx').read_bytes() == b'onnx'
  digest = hashlib.sha256(b'onnx').hexdigest()
  assert metadata['onnx'] == {
    'file': 'model.onnx',
    'sha256': digest,
    'input': [1, 2, 4, 4, 3],
    'logits': [1, 3],
    'probabilities': [1, 3],
  }
  _write(directory, weights)
  # No ONNX file of other weights than the rest is left.
  assert not (directory / 'model.onnx').exists()
  assert (directory / 'notes.txt').read_text() == 'mine'


@pytest.mark.parametrize('name', ['model.json', 'params.safetensors'])
def test_what_is_no_export_is_not_overwritten(tmp_path, weights, name):
  (tmp_path / name).write_text('{"labels": 3}')
  with pytest.raises(UserError, match=rf'holds {name} of something else'):
    _write(tmp_path, weights)
  assert (tmp_path / name).read_text() == '{"labels": 3}'
  assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('error', [UserError, KeyboardInterrupt, OSError])
def test_a_failed_check_leaves_the_earlier_export(
  directory, files, weights, error
):
  def check(folder):
    assert {path.name for path in folder.iterdir()} == {*files, 'model.onnx'}
    assert json.loads((folder / 'model.json').read_text())['step'] == 13
    raise error('no')

  with pytest.raises(error, match=r'^no$'):
    _write(directory, weights, onnx=b'onnx', check=check)
  assert {p.name: p.read_bytes() for p in directory.iterdir()} == files


def test_a_full_disk_leaves_the_earlier_export(small_disk, files, weights):
  for name, content in files.items():
    (small_disk / name).write_bytes(content)
  with pytest.raises(OSError), (small_disk / 'filler').open('wb') as file:
    while True:
      file.write(bytes(2**12))
      file.flush()
  with pytest.raises(UserError, match=r'cannot be written: No space left'):
    _write(small_disk, weights, onnx=bytes(2**20))
  for name, content in files.items():
    assert (small_disk / name).read_bytes() == content
  assert len(list(small_disk.iterdir())) == len(files) + 1


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_weights_that_are_not_finite(tmp_path, weights, value):
  kernel, bias = weights
  bias = np.where([False, True, False], value, bias)
  with pytest.raises(UserError, match=r'not finite, params/classifier/bias'):
    _write(tmp_path, (kernel, bias))
  assert not list(tmp_path.iterdir())


def test_the_program_is_for_every_platform(directory):
  contents = (directory / 'model.stablehlo').read_bytes()
  exported = jax.export.deserialize(bytearray(contents))
  assert exported.platforms == ('cpu', 'cuda', 'tpu')
  assert [str(aval.shape) for aval in exported.in_avals] == ['(n, 2, 4, 4, 3)']


def test_a_newer_version(directory):
  path = directory / 'model.json'
  metadata = json.loads(path.read_text())
  path.write_text(json.dumps({**metadata, 'version': 3, 'data': 'elsewhere'}))
  with pytest.raises(UserError, match='has version 3, this mtnet_jax reads up'):
    program_lib.load_export(directory)


@pytest.mark.parametrize(
  'text',
  [
    '{"format": "mtnet',
    '[]',
    '{}',
    '{"format": "onnx", "version": 1}',
    '{"format": "mtnet_jax", "version": "1"}',
    '{"format": "mtnet_jax", "version": true}',
    '{"format": "mtnet_jax", "version": 1}',
    '{"format": "mtnet_jax", "version": 2, "class_names": ["a"]}',
    '{"format": "mtnet_jax", "version": 2, "class_names": "a"}',
  ],
)
def test_a_description_that_is_none(directory, text):
  (directory / 'model.json').write_text(text)
  with pytest.raises(UserError, match='does not describe an exported model'):
    program_lib.load_export(directory)


@pytest.mark.parametrize(
  ('keys', 'value', 'message'),
  [
    (
      ['class_names'],
      ['a', 'b'],
      r'clips \(2, 4, 4, 3\) and 2 classes, the pro',
    ),
    (['class_names'], 'abc', 'class_names are not a list'),
    (['class_names'], ['a', 1, 'b'], 'class_names are not a list'),
    (['class_names'], ['a', 'b', 'a'], "json names the class 'a' twice: rem"),
    (['class_names'], ['a', 'b', ''], "names the class ''"),
    (['data', 'num_frames'], 3, r'of clips \(3, 4, 4, 3\)'),
    (['eval', 'input_size'], '4', r"of clips \(2, '4', '4', 3\)"),
    (['eval'], None, 'does not describe an exported model'),
    (['program'], {}, "does not describe .*'sha256'"),
    (['program'], [], 'does not describe an exported model'),
  ],
)
def test_a_description_of_another_program(directory, keys, value, message):
  path = directory / 'model.json'
  metadata = json.loads(path.read_text())
  place = metadata
  for key in keys[:-1]:
    place = place[key]
  place[keys[-1]] = value
  path.write_text(json.dumps(metadata))
  with pytest.raises(UserError, match=message):
    program_lib.load_export(directory)


def test_files_that_are_damaged_or_missing(directory):
  path = directory / 'model.stablehlo'
  contents = path.read_bytes()
  for damaged in (b'', contents[:-1], contents[:100], b'x' + contents[1:]):
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r'is not the program that model\.json'):
      program_lib.load_export(directory)
  path.unlink()
  with pytest.raises(UserError, match=r'stablehlo cannot be read: No such'):
    program_lib.load_export(directory)
  (directory / 'model.json').unlink()
  with pytest.raises(UserError, match=r'model\.json cannot be read: No such'):
    program_lib.load_export(directory)


def test_a_program_that_jax_does_not_know(directory):
  """Whole, but of another JAX than this one reads."""
  contents = b'a format of the far future' * 8
  (directory / 'model.stablehlo').write_bytes(contents)
  path = directory / 'model.json'
  metadata = json.loads(path.read_text())
  metadata['program']['sha256'] = hashlib.sha256(contents).hexdigest()
  path.write_text(json.dumps(metadata))
  with pytest.raises(UserError, match='cannot be loaded by JAX'):
    program_lib.load_export(directory)


def test_a_folder_that_cannot_be_written(tmp_path, weights):
  (tmp_path / 'file').touch()
  for name in ('file', 'file/export'):
    with pytest.raises(UserError, match='cannot be written'):
      _write(tmp_path / name, weights)
