"""A file of weights becomes a run, or nothing."""

import importlib.util
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

from configs import base
from mtnet_jax import models
from mtnet_jax.convert import conversion, families, layouts, torch_weights
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import scoring
from mtnet_jax.prediction import Predictor
from mtnet_jax.runs.checkpoints import Checkpoints
from mtnet_jax.runs.folder import make_workdir
from mtnet_jax.runs.leaves import leaf_paths
from mtnet_jax.runs.state import TrainState
from mtnet_jax.training import transfer
from tests import command_line

pytestmark = pytest.mark.usefixtures('quick_compilation')
_WIDTHS = (2, 3, 4, 5)
_SMALL = {
  'model.stage_features': _WIDTHS,
  'data.num_frames': 4,
  'data.input_size': 32,
  'eval.crop_size': 32,
  'eval.input_size': 32,
  'eval.num_clips': 2,
}


def _shapes(classes):
  model = models.build(
    'r3d_18', classes, stem_pool=False, stage_features=_WIDTHS
  )
  leaves = leaf_paths(conversion.variable_shapes(model, (4, 32, 32, 3)))
  return {path: leaf.shape for path, leaf in leaves.items()}


@pytest.fixture(scope='module')
def tensors():
  """Of a narrow r3d_18 of two classes, as torchvision names them."""
  rng = np.random.default_rng(0)
  layout = families.layout('torchvision', 'r3d_18')
  drawn = {}
  for path, shape in _shapes(2).items():
    (name,) = layout.sources(path)
    drawn[name] = rng.uniform(0.1, 1, layouts.torch_shapes(path, shape)[0])
  drawn['stem.1.num_batches_tracked'] = np.array(3)
  return {
    name: t.astype(np.float32) if t.ndim else t for name, t in drawn.items()
  }


@pytest.fixture
def convert(tmp_path):
  """Converts tensors by way of a file; further arguments as `convert` has."""

  def run(tensors, model='r3d_18', labels=('bright', 'dark'), **kw):
    path = tmp_path / 'weights.safetensors'
    save_file({k: np.array(t, order='C') for k, t in tensors.items()}, path)
    if isinstance(labels, pathlib.Path):
      kw['labels'] = labels
    elif labels is not None:
      (tmp_path / 'names.txt').write_text('\n'.join(labels) + '\n')
      kw['labels'] = tmp_path / 'names.txt'
    return torch_weights.convert(
      path, model, base.get_config(), tmp_path / 'run', overrides=_SMALL, **kw
    )

  return run


def _stored(workdir):
  with Checkpoints(workdir, read_only=True) as checkpoints:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    assert checkpoints.best_step == checkpoints.last_step == 0
    return leaf_paths(checkpoints.read_variables(0, sharding))


def _config_py(workdir):
  spec = importlib.util.spec_from_file_location('c', workdir / 'config.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def test_a_run_is_written(convert, tensors, tmp_path, capsys):
  result = convert(tensors)
  workdir = tmp_path / 'run'
  stored = _stored(workdir)
  kernel = tensors['layer2.0.downsample.0.weight']  # f c 1 1 1
  np.testing.assert_array_equal(
    stored['params/stage_2_block_1/shortcut/conv/kernel'][0, 0, 0],
    kernel[:, :, 0, 0, 0].T,
  )
  np.testing.assert_array_equal(
    stored['batch_stats/stem/norm/var'], tensors['stem.1.running_var']
  )
  assert stored.keys() == _shapes(2).keys() == result.values.keys()
  assert (workdir / 'labels.txt').read_text() == 'bright\ndark\n'
  config = json.loads((workdir / 'config.json').read_text())
  assert config['model']['name'] == 'r3d_18'
  assert config['model']['stem_pool'] is False
  assert config['model']['input_mean'] == [0.43216, 0.394666, 0.37645]
  assert config['data']['frame_stride'] == 2
  assert config['data']['num_frames'] == 4  # asked for
  report = json.loads((workdir / 'conversion.json').read_text())
  assert report['family'] == 'torchvision' and report['ignored'] == 1
  assert report['used']['params/stem/conv/kernel'] == ['stem.0.weight']
  assert report['missing'] == {} and report['unused'] == []
  printed = capsys.readouterr().out
  assert printed.startswith('r3d_18 of torchvision: 102 tensors make 102')


def test_what_takes_the_run(convert, tensors, tmp_path, blinking_videos):
  convert(tensors)
  workdir = tmp_path / 'run'
  predictor = Predictor(workdir)
  assert predictor.class_names == ('bright', 'dark')
  config = _config_py(workdir)
  assert config.model.to_dict() == predictor.config.model.to_dict()
  assert config.eval.to_dict() == predictor.config.eval.to_dict()
  config.data.dir = str(blinking_videos)
  config.data.num_workers = 0
  found, names = scoring.evaluate(config, workdir)
  assert names == predictor.class_names and len(found.ids) == 8
  prediction = predictor(blinking_videos / found.ids[0])
  np.testing.assert_allclose(
    prediction.probabilities, found.probabilities[0], atol=1e-6
  )
  params = jax.tree.map(jnp.zeros_like, predictor.variables['params'])
  stats = jax.tree.map(jnp.zeros_like, predictor.variables['batch_stats'])
  new = TrainState(jnp.int32(0), params, stats, optax.identity().init(params))
  started = transfer.start_from(workdir, new, predictor.class_names)
  taken = leaf_paths(started.variables)
  for path, leaf in leaf_paths(dict(predictor.variables)).items():
    np.testing.assert_array_equal(taken[path], leaf)


@pytest.mark.slow
def test_the_same_probabilities_as_pytorch(tmp_path):
  torch = pytest.importorskip('torch')
  from tests.convert import torch_networks

  widths = (8, 16, 16, 24)
  network = torch_networks.VideoResNet('r3d_18', False, 5, widths)
  torch_networks.randomize(network)
  with torch.no_grad():
    network.fc.weight *= 0.1  # no class is certain
  torch.save(network.state_dict(), tmp_path / 'weights.pth')
  torch_weights.convert(
    tmp_path / 'weights.pth',
    'r3d_18',
    base.get_config(),
    tmp_path / 'run',
    overrides=_SMALL | {'model.stage_features': widths},
  )
  rng = np.random.default_rng(0)
  clips = rng.integers(0, 256, (3, 4, 32, 32, 3), np.uint8)
  pixels = clips / np.float32(255)
  pixels -= np.array([0.43216, 0.394666, 0.37645], np.float32)
  pixels /= np.array([0.22803, 0.22145, 0.216989], np.float32)
  with torch.no_grad():
    logits = network(torch.from_numpy(pixels).permute(0, 4, 1, 2, 3))
  wanted = torch.softmax(logits, 1).numpy()
  assert wanted.max() < 0.99 and np.ptp(wanted, axis=0).max() > 0.01
  predictor = Predictor(tmp_path / 'run')
  assert predictor.class_names[0] == 'class_000'
  got = predictor.probabilities(clips)
  np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def _refused(convert, tmp_path, sentence, *arguments, **kw):
  with pytest.raises(UserError, match=sentence) as caught:
    convert(*arguments, **kw)
  assert not (tmp_path / 'run').exists()
  assert '\n' not in str(caught.value)


def test_weights_of_another_network(convert, tensors, tmp_path):
  _refused(
    convert,
    tmp_path,
    'looks like r3d_18 of torchvision, which is not --model=r3d_34. Give '
    '--model=r3d_18',
    tensors,
    'r3d_34',
  )
  _refused(
    convert, tmp_path, 'r3d_18 of torchvision.*--model=x3d_m', tensors, 'x3d_m'
  )
  _refused(convert, tmp_path, 'no PyTorch weights', tensors, 'mtnet_m')
  _refused(
    convert,
    tmp_path,
    r'holds 1 tensors, conv1\.weight for instance, of no known network',
    {'conv1.weight': np.zeros((2, 3), np.float32)},
  )


def test_tensors_that_do_not_fit(convert, tensors, tmp_path, capsys):
  name = 'layer3.1.conv2.1.bias'
  fewer = {key: t for key, t in tensors.items() if key != name}
  _refused(convert, tmp_path, re.escape(f'1 are missing ({name})'), fewer)
  assert f'Missing:\n  params/stage_3_block_2/conv_2/norm/bias <- {name}' in (
    capsys.readouterr().out
  )
  _refused(
    convert,
    tmp_path,
    re.escape('1 are left over (head.weight)'),
    tensors | {'head.weight': np.zeros(2, np.float32)},
  )
  _refused(
    convert,
    tmp_path,
    re.escape(
      f'{name} is (7,), params/stage_3_block_2/conv_2/norm/bias takes (4,)'
    ),
    tensors | {name: np.zeros(7, np.float32)},
  )


def test_what_fits_may_be_enough(convert, tensors, tmp_path):
  kernel, bias = 'layer3.1.conv2.0.weight', 'layer3.1.conv2.1.bias'
  changed = {key: t for key, t in tensors.items() if key != kernel}
  changed |= {bias: np.zeros(7, np.float32), 'x': np.zeros(1, np.float32)}
  result = convert(changed, allow_mismatch=True)
  start = 'params/stage_3_block_2/conv_2'
  assert result.missing == {
    f'{start}/conv/kernel': (kernel,),
    f'{start}/norm/bias': (bias,),
  }
  assert result.unused == ('x',) and len(result.misshapen) == 1
  stored = _stored(tmp_path / 'run')
  assert not stored[f'{start}/norm/bias'].any()  # as BN begins
  drawn = np.asarray(stored[f'{start}/conv/kernel'])
  # He initialization over what a channel feeds: 27 · 4.
  assert drawn.std() == pytest.approx(np.sqrt(2 / (27 * 4)), rel=0.2)
  (tmp_path / 'run').rename(tmp_path / 'first')
  convert(changed, allow_mismatch=True)
  again = _stored(tmp_path / 'run')
  np.testing.assert_array_equal(again[f'{start}/conv/kernel'], drawn)
  with pytest.raises(UserError, match='holds a run already'):
    convert(tensors)


def test_a_new_head(convert, tensors, tmp_path):
  _refused(
    convert,
    tmp_path,
    'names 3 classes, the weights have 2',
    tensors,
    labels='abc',
  )
  _refused(convert, tmp_path, 'it too', tensors, labels=None, new_head=True)
  result = convert(tensors, labels='abc', new_head=True)
  assert result.new_head == (
    'params/classifier/bias',
    'params/classifier/kernel',
  )
  stored = _stored(tmp_path / 'run')
  assert stored['params/classifier/kernel'].shape == (5, 3)
  assert np.ptp(stored['params/classifier/kernel']) > 0
  assert not stored['params/classifier/bias'].any()
  np.testing.assert_array_equal(
    stored['params/stem/norm/scale'], tensors['stem.1.weight']
  )
  assert (tmp_path / 'run/labels.txt').read_text() == 'a\nb\nc\n'


def test_labels(convert, tensors, tmp_path):
  headless = {k: t for k, t in tensors.items() if not k.startswith('fc.')}
  _refused(convert, tmp_path, r'no class head \(fc\.bias\)', headless)
  _refused(convert, tmp_path, 'twice', tensors, labels=('run', 'run'))
  convert(tensors, labels=None)
  assert (tmp_path / 'run/labels.txt').read_text() == 'class_000\nclass_001\n'


def test_files_of_labels(convert, tensors, tmp_path):
  names = tmp_path / 'some.txt'

  def refused(sentence):
    _refused(convert, tmp_path, sentence, tensors, labels=names)

  refused(r'some\.txt \(--labels\) cannot be read: No such file')
  names.write_bytes(b'bright\n\xff\xfe\n')
  refused('cannot be read: it is not text in UTF-8. Give a text file')
  names.write_bytes(b'')
  refused(r'some\.txt \(--labels\) is empty. Give a text file')
  names.unlink()
  names.mkdir()
  refused('cannot be read: Is a directory')


def test_a_head_that_is_none(convert, tensors, tmp_path):
  for bias in (np.zeros((1, 2)), np.zeros(()), np.zeros(0)):
    _refused(
      convert,
      tmp_path,
      r'fc\.bias of the file is of shape',
      tensors | {'fc.bias': bias.astype(np.float32)},
    )


def test_names_are_printable(convert, tensors, tmp_path, capsys):
  name, seen = 'x\x1b[2J\n', r'x\x1b[2J\n'
  other = np.zeros(1, np.float32)
  _refused(convert, tmp_path, re.escape(f'({seen})'), tensors | {name: other})
  _refused(convert, tmp_path, re.escape(f', {seen} for'), {name: other})
  _refused(convert, tmp_path, re.escape(f'{seen} for'), {name: other * np.nan})
  printed = capsys.readouterr().out
  assert f'Left over:\n  {seen}\n' in printed and '\x1b' not in printed


@pytest.mark.parametrize(
  'name',
  ['checkpoints', 'config.json', 'config.py', 'labels.txt', 'conversion.json'],
)
def test_nothing_is_written_over(tmp_path, name):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / name).symlink_to(tmp_path / 'nowhere')
  with pytest.raises(UserError, match=f'{name} is there. Give another folder'):
    torch_weights.convert('no.pth', 'r3d_18', None, tmp_path / 'run')
  assert not (tmp_path / 'nowhere').exists()


def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match="a shell's variable not set"):
    torch_weights.convert('no.pth', 'r3d_18', None, '')
  with pytest.raises(UserError, match="a shell's variable not set"):
    make_workdir('')
  assert str(make_workdir('.')) == '.' and not [*tmp_path.iterdir()]


def test_the_command(tensors, tmp_path, caplog):
  save_file(
    {k: np.ascontiguousarray(t) for k, t in tensors.items()},
    tmp_path / 'weights.safetensors',
  )

  def run(model):
    return command_line.run(
      torch_weights.COMMAND,
      f'--from={tmp_path}/weights.safetensors',
      f'--model={model}',
      f'--out={tmp_path}/run',
      f'--config.model.stage_features={_WIDTHS}',
      '--config.eval.num_clips=3',
    )

  refused = run('r3d_34')
  assert refused.code == 2 and refused.stderr.splitlines()[-1].startswith(
    'error: '
  )
  done = run('r3d_18')
  assert done.code == 0, done.stderr
  assert 'give --labels=FILE' in caplog.text
  assert 'mtnet predict --workdir=' in done.stdout
  config = json.loads((tmp_path / 'run/config.json').read_text())
  assert config['eval']['num_clips'] == 3
  assert config['data']['input_size'] == 112
