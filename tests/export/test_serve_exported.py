"""The example: jax, numpy and PyAV alone, and what prediction says."""

import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import av
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import base
from mtnet_jax.data import transforms
from mtnet_jax.export import program as program_lib
from mtnet_jax.prediction import Predictor
from tests.data import coded_video

_NAMES = ('hug', 'wave', 'bow')
_SIZE = 16
# Of the run and of the views. All of them differ in what is read and cut.
_CASES = {
  'as it is': {'num_frames': 3, 'frame_stride': 2, 'crop_size': _SIZE},
  'shrunk': {'num_frames': 3, 'frame_stride': 2, 'crop_size': 20},
  'enlarged': {'num_frames': 3, 'frame_stride': 9, 'crop_size': 12},
  'repeated': {'num_frames': 20, 'frame_stride': 2, 'crop_size': _SIZE},
  'whole video': {
    **{'num_frames': 4, 'frame_stride': 1, 'crop_size': _SIZE},
    'sampling': 'uniform',
  },
  'windows': {
    **{'num_frames': 4, 'frame_stride': 3, 'crop_size': _SIZE},
    'sampling': 'dense',
  },
  'windows that wrap round': {
    **{'num_frames': 4, 'frame_stride': 6, 'crop_size': _SIZE},
    **{'sampling': 'dense', 'num_clips': 1},
  },
  'one view': {
    **{'num_frames': 3, 'frame_stride': 2, 'crop_size': _SIZE},
    **{'num_clips': 1, 'num_crops': 1},
  },
}
# Where another library resizes, some pixels are one level of 255 off.
_TOLERANCES = {'shrunk': 3e-3, 'enlarged': 3e-3}

_RUN = """
import importlib.abc, json, runpy, sys

class Blocker(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name.partition('.')[0] in {'flax', 'orbax', 'optax', 'mtnet_jax', 'cv2'}:
      raise ImportError(f'{name} must not be needed')

sys.meta_path.insert(0, Blocker())
classify = runpy.run_path(sys.argv[1])['classify']
found = {}
for argument in sys.argv[2:]:
  names, shares = classify(*argument.split(':'))
  found[argument] = dict(zip(names, map(float, shares)))
print(json.dumps(found))
"""


class _Model(nn.Module):
  """Every pixel counts."""

  dtype: str = 'float32'
  input_mean: tuple[float, ...] = (0.45,) * 3
  input_std: tuple[float, ...] = (0.225,) * 3

  @nn.compact
  def __call__(self, x, *, train):
    return nn.Dense(3)(x.reshape(x.shape[0], -1)), {}


def _export(
  directory, num_frames, frame_stride, crop_size, sampling='clip', **views
):
  config = base.get_config()
  config.data.sampling = sampling
  config.data.update(num_frames=num_frames, frame_stride=frame_stride)
  config.eval.update(num_clips=3, crop_size=crop_size, input_size=_SIZE)
  config.eval.update(views)
  pixels = num_frames * _SIZE**2 * 3
  rng = np.random.default_rng(0)
  kernel = rng.normal(0, pixels**-0.5, (pixels, 3)).astype(np.float32)
  dense = {'kernel': jnp.asarray(kernel), 'bias': jnp.zeros(3)}
  variables = {'params': {'Dense_0': dense}}
  program_lib.write_export(
    directory, _Model(), variables, config, _NAMES, step=1
  )


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  root = tmp_path_factory.mktemp('exported')
  for name, changes in _CASES.items():
    _export(root / name, **changes)
  return root


def _joined_late(source, target):
  """Copies a video twice, and leaves out the first packets, with a keyframe."""
  with av.open(str(source)) as old, av.open(str(target), 'w') as new:
    stream = new.add_stream_from_template(old.streams.video[0])
    packets = [packet for packet in old.demux(video=0) if packet.size]
    length = packets[-1].pts + 2 * packets[0].duration
    facts = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in packets]
    for shift in (0, length):
      for content, pts, dts, keyframe in facts[3:] if not shift else facts:
        packet = av.Packet(content)
        packet.pts, packet.dts = pts + shift, dts + shift
        packet.time_base, packet.is_keyframe = packets[0].time_base, keyframe
        packet.stream = stream
        new.mux(packet)
  return target


@pytest.fixture(scope='module')
def videos(tmp_path_factory, write_video):
  """A wide one, a tall one; the wide one mirrored and turned, cut, misnamed.

  Each frame is other than the others.
  """
  root = tmp_path_factory.mktemp('videos')
  rng = np.random.default_rng(1)
  for name, (height, width) in {'wide': (24, 40), 'tall': (48, 26)}.items():
    blocks = rng.integers(0, 256, (14, height // 2, width // 2, 3), np.uint8)
    write_video(root / f'{name}.mp4', blocks.repeat(2, 1).repeat(2, 2))
  found = [root / 'wide.mp4', root / 'tall.mp4']
  for number, matrix in enumerate([(-1, 0, 0, 1), (0, 1, 1, 0), (0, 1, -1, 0)]):
    mirrored = root / f'shown_otherwise_{number}.mp4'
    shutil.copy(root / 'wide.mp4', mirrored)
    found.append(pathlib.Path(coded_video.set_matrix(mirrored, *matrix)))
  found.append(_joined_late(root / 'wide.mp4', root / 'joined.ts'))
  found.append(pathlib.Path(coded_video.spoil_text(root / 'wide.mp4')))
  return found


def test_the_same_probabilities_as_prediction(root, folders, videos):
  asked = [f'{folders / name}:{v}' for name in _CASES for v in videos]
  done = subprocess.run(
    [sys.executable, '-c', _RUN, root / 'examples/serve_exported.py', *asked],
    capture_output=True,
    text=True,
    cwd=folders,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout)
  for name in _CASES:
    predictor = Predictor(folders / name)
    for video in videos:
      shares = found[f'{folders / name}:{video}']
      expected = predictor(video)
      assert max(shares, key=shares.get) == expected.top(1)[0][0]
      np.testing.assert_allclose(
        list(shares.values()),
        expected.probabilities,
        atol=_TOLERANCES.get(name, 1e-6),
        err_msg=f'{name}, {video}',
      )


@pytest.mark.parametrize(
  ('side', 'difference'), [(16, 0), (20, 1), (32, 1), (12, 1), (40, 6)]
)
@pytest.mark.parametrize('wide', [False, True])
def test_crops_without_opencv(root, side, difference, wide):
  crops = runpy.run_path(str(root / 'examples/serve_exported.py'))['crops']
  y, x, channel = np.ogrid[:side, : side + 9, :3]
  image = 127 + 120 * np.sin(x / 5 + channel) * np.cos(y / 4)
  image = image.astype(np.uint8)
  image = image if wide else image.swapaxes(0, 1)
  for count in (1, 3):
    expected = [
      transforms.resize_square(crop, _SIZE)[0]
      for crop in transforms.crops_along_long_side(image[None], count)
    ]
    found = crops(image, count, _SIZE)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(
      found.astype(int), np.stack(expected), atol=difference
    )


def test_the_five_most_probable_classes(root, folders, videos):
  command = [sys.executable, root / 'examples/serve_exported.py']
  done = subprocess.run(
    [*command, folders / 'as it is', videos[0]],
    capture_output=True,
    text=True,
  )
  expected = Predictor(folders / 'as it is')(videos[0]).top(5)
  assert [line.split('  ') for line in done.stdout.splitlines()] == [
    [f'{share:.6f}', name] for name, share in expected
  ]


def _refusal(root, folder, video):
  """The one line that the example ends with."""
  done = subprocess.run(
    [sys.executable, root / 'examples/serve_exported.py', folder, video],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1 and not done.stdout
  (line,) = done.stderr.splitlines()
  return line


def _described(folder, tmp_path, change):
  """A copy of an exported folder, its description changed."""
  metadata = json.loads((folder / 'model.json').read_text())
  change(metadata)
  program = (folder / 'model.stablehlo').read_bytes()
  (tmp_path / 'model.stablehlo').write_bytes(program)
  (tmp_path / 'model.json').write_text(json.dumps(metadata))
  return tmp_path


def test_a_newer_version(root, folders, videos, tmp_path):
  folder = _described(
    folders / 'as it is', tmp_path, lambda it: it.update(version=3)
  )
  line = _refusal(root, folder, videos[0])
  assert line.endswith('has version 3, this file reads 2.')


def test_a_key_that_is_not_there(root, folders, videos, tmp_path):
  folder = _described(
    folders / 'as it is', tmp_path, lambda it: it['data'].pop('frame_stride')
  )
  line = _refusal(root, folder, videos[0])
  assert line == f"{folder}/model.json has no key 'frame_stride'."


def test_an_export_from_before_sampling(root, folders, tmp_path):
  old = _described(
    folders / 'as it is', tmp_path, lambda it: it['data'].pop('sampling')
  )
  example = runpy.run_path(str(root / 'examples/serve_exported.py'))
  assert 'sampling' not in example['load'](old)[1]['data']
  assert Predictor(old).config.data.sampling == 'clip'


@pytest.mark.parametrize(
  ('sampling', 'expected'),
  [
    ('clip', [[0, 5, 10], [7, 12, 17]]),
    ('uniform', [[3, 9, 15], [0, 6, 12]]),
    ('dense', [[0, 5, 10], [3, 8, 13]]),
  ],
)
def test_the_frames_of_views(root, sampling, expected):
  frames = runpy.run_path(str(root / 'examples/serve_exported.py'))[
    'frames_of_views'
  ]
  assert frames(18, 3, 5, 2, sampling).tolist() == expected
  wrapped = {'dense': [0, 5, 3], 'clip': [0, 3, 6], 'uniform': [1, 3, 5]}
  assert frames(7, 3, 5, 1, sampling).tolist() == [wrapped[sampling]]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda it: it['data'].update(sampling='tsn'), "sampling (='tsn') of"),
    (lambda it: it['eval'].update(num_clips=10**9), 'num_clips (=1000000000)'),
    (lambda it: it['data'].update(num_frames=0), 'num_frames (=0) of'),
    (lambda it: it['eval'].update(num_crops='3'), "num_crops (='3') of"),
    (
      lambda it: it['program'].update(sha256='0'),
      'stablehlo is damaged, or of',
    ),
  ],
)
def test_a_description_that_is_damaged(
  root, folders, tmp_path, change, message
):
  folder = _described(folders / 'as it is', tmp_path, change)
  load = runpy.run_path(str(root / 'examples/serve_exported.py'))['load']
  with pytest.raises(SystemExit, match=re.escape(message)):
    load(folder)


def test_the_program_lies_beside_its_description(
  root, folders, videos, tmp_path
):
  """Whatever file the description names, that one is not opened."""
  folder = _described(
    folders / 'as it is',
    tmp_path,
    lambda it: it['program'].update(file='/etc/passwd'),
  )
  load = runpy.run_path(str(root / 'examples/serve_exported.py'))['load']
  assert load(folder)[1]['program']['file'] == '/etc/passwd'
  (folder / 'model.stablehlo').unlink()
  line = _refusal(root, folder, videos[0])
  assert line.startswith('Cannot be read: ') and 'model.stablehlo' in line


@pytest.mark.slow
def test_what_cannot_be_read(root, folders, videos, tmp_path):
  folder = folders / 'as it is'
  line = _refusal(root, tmp_path / 'nowhere', videos[0])
  assert 'No such file' in line and 'nowhere/model.json' in line
  line = _refusal(root, folder, tmp_path / 'nothing.mp4')
  assert 'No such file' in line and 'nothing.mp4' in line
  line = _refusal(root, folder, folder / 'model.json')
  assert line.startswith('Cannot be read: ') and 'model.json' in line
  os.mkfifo(tmp_path / 'pipe.mp4')
  line = _refusal(root, folder, tmp_path / 'pipe.mp4')
  assert line.endswith('pipe.mp4 is no regular file.')
  (tmp_path / 'list.mp4').write_text(
    f'ffconcat version 1.0\nfile {videos[0]}\n'
  )
  line = _refusal(root, folder, tmp_path / 'list.mp4')
  assert line.startswith('Cannot be read: ') and 'list.mp4' in line
