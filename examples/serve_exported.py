"""Classifies a video with an exported model: jax, numpy and PyAV alone.

`python examples/serve_exported.py FOLDER VIDEO` cuts what `predict.py` cuts.
Where `crop_size` is not `input_size` another library resizes: pixels differ by
one level, or by more where a side shrinks to less than half. Left out is what
rare files need: seeking, AVI's missing timestamps, frames that are damaged.
"""

import hashlib
import json
import pathlib
import sys

import av
import jax
import numpy as np
from jax import export

FORMATS = 'mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,h264,hevc,m4v'
# PyAV 19 takes any bytes in a title, older ones where they are told to.
OPENING = {} if int(av.__version__[:2]) > 18 else {'metadata_errors': 'replace'}
SAMPLINGS = ('clip', 'uniform', 'dense')
# Beyond these a damaged description would take all memory.
LIMITS = {
  'data': {'num_frames': 10_000, 'frame_stride': 10_000},
  'eval': {
    'num_clips': 1_000,
    'num_crops': 1_000,
    'crop_size': 8_192,
    'input_size': 8_192,
  },
}


def plain(text):
  """The text with what would upset a terminal written out: \\x1b."""
  return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def stop(sentence):
  """Ends the program with a sentence."""
  sys.exit(plain(sentence))


def load(folder):
  """The program, from uint8 (b, t, s, s, 3), and what model.json says of it."""
  model = json.loads((folder / 'model.json').read_text('utf-8'))
  if model['version'] != 2:
    stop(f'{folder} has version {model["version"]}, this file reads 2.')
  for section, limits in LIMITS.items():
    for key, limit in limits.items():
      value = model[section][key]
      if type(value) is not int or not 1 <= value <= limit:
        stop(f'{key} (={value!r}) of {folder} must be from 1 to {limit}.')
  sampling = model['data'].get('sampling', 'clip')
  if sampling not in SAMPLINGS:
    stop(f'sampling (={sampling!r}) of {folder} must be one of {SAMPLINGS}.')
  program = bytearray((folder / 'model.stablehlo').read_bytes())
  if hashlib.sha256(program).hexdigest() != model['program']['sha256']:
    stop(f'{folder}/model.stablehlo is damaged, or of another export.')
  return jax.jit(export.deserialize(program).call), model


def frames_of_views(count, num_frames, stride, num_views, sampling):
  """Frame numbers (v, t) of views that are spread over the whole video."""
  if sampling == 'uniform':  # of each of t equal parts
    shares = (2 * np.arange(num_views) + num_views) % (2 * num_views)
    tick = count / num_frames
    offsets = tick * (shares[:, None] / (2 * num_views))
    return (offsets + tick * np.arange(num_frames)).astype(int)
  if sampling == 'dense':  # of a window that wraps round
    slack = max(0, count - num_frames * stride)
    starts = np.linspace(0, slack, num_views, dtype=int)
    starts = starts if num_views > 1 else np.array([slack // 2])
    return (starts[:, None] + stride * np.arange(num_frames)) % count
  if count < num_frames:  # its frames are repeated
    return np.tile(np.arange(num_frames) * count // num_frames, (num_views, 1))
  stride = min(stride, (count - 1) // max(1, num_frames - 1))
  slack = count - 1 - (num_frames - 1) * stride
  starts = np.array([slack // 2])
  if num_views > 1:
    starts = np.rint(np.arange(num_views) * slack / (num_views - 1)).astype(int)
  return starts[:, None] + stride * np.arange(num_frames)


def open_video(path):
  """A video file, and of its streams the one that FFmpeg plays."""
  if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
    raise OSError(f'{path} is no regular file')  # a pipe would never end
  # No lists, which lead to other files and addresses, and no huge pictures.
  options = {'format_whitelist': FORMATS, 'protocol_whitelist': 'file'}
  options['max_pixels'] = str(2**26)
  file = av.open(f'file:{path}', options=options, **OPENING)
  if not file.streams.video:
    stop(f'{path} holds no video.')
  return file, file.streams.best('video')


def count_frames(path):
  """Frames in a video file, of which only the first is decoded."""
  file, stream = open_video(path)
  with file:
    first = next(file.decode(stream)).pts
  file, stream = open_video(path)
  with file:
    shown = [p.pts for p in file.demux(stream) if p.size and not p.is_discard]
    if first is None or file.format.name == 'avi':
      return len(shown)
  # Frames before it lack what they refer to, where a recording was cut.
  return sum(pts is not None and pts >= first for pts in shown)


def decode(path, numbers, short_side):
  """Yields (number, frame): uint8 (h, w, 3), resized and upright."""
  file, stream = open_video(path)
  with file:
    size = None
    for number, frame in enumerate(file.decode(stream)):
      if size is None:  # of all frames, whatever theirs
        scale = short_side / min(frame.width, frame.height)
        size = round(scale * frame.width), round(scale * frame.height)
      if number in numbers:
        image = frame.reformat(*size, format='rgb24').to_ndarray()
        yield number, upright(image, frame.side_data.get('DISPLAYMATRIX'))


def upright(image, matrix):
  """The picture as a player shows it: (x, y) goes to (a x + c y, b x + d y)."""
  a, b, _, c, d = np.frombuffer(bytes(matrix or 20), np.int32, 5).tolist()
  if not ((a or c) and (b or d)):  # no matrix
    return image
  turned = abs(b) > abs(a)
  across, down = (c, b) if turned else (a, d)
  if min(abs(a), abs(b)) > 0.01 * max(abs(a), abs(b)):
    raise ValueError('its pictures are to be turned by a part of 90 degrees')
  image = image.swapaxes(0, 1) if turned else image
  return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def crops(image, num_crops, size):
  """Squares along the long side, resized: uint8 (num_crops, size, size, 3)."""
  height, width, _ = image.shape
  side, slack = min(height, width), abs(height - width)
  places = [slack // 2]
  if num_crops > 1:
    places = [round(i * slack / (num_crops - 1)) for i in range(num_crops)]
  cut = [image.take(range(p, p + side), int(width > height)) for p in places]
  cut, shape = np.float32(cut), (num_crops, size, size, 3)
  resized = jax.image.resize(cut, shape, 'linear', antialias=side > 2 * size)
  return np.rint(resized).astype(np.uint8)


def classify(folder, video):
  """The names of the classes, and the video's probability of each."""
  run, model = load(pathlib.Path(folder))
  data, at, count = model['data'], model['eval'], count_frames(video)
  t, stride = data['num_frames'], data['frame_stride']
  sampling = data.get('sampling', 'clip')  # older exports lack it
  least = (t - 1) * stride + 1 if sampling == 'dense' else t
  if count < least and data['short_videos'] == 'error':
    stop(f'{video} has {count} frames, the model asks for {least}.')
  views = frames_of_views(count, t, stride, at['num_clips'], sampling)
  frames = {
    number: crops(image, at['num_crops'], at['input_size'])
    for number, image in decode(video, set(views.flat), at['crop_size'])
  }
  if len(frames) < len(set(views.flat)):
    stop(f'{video} is damaged: not all of its {count} frames are there.')
  clips = (np.stack([frames[i] for i in view], axis=1) for view in views)
  return model['class_names'], np.mean([run(c)[1] for c in clips], axis=(0, 1))


if __name__ == '__main__':
  if len(sys.argv) != 3:
    stop('Give two arguments: the exported FOLDER and a VIDEO.')
  try:
    names, shares = classify(*sys.argv[1:])
  except KeyError as error:
    stop(f'{sys.argv[1]}/model.json has no key {error}.')
  except (RecursionError, TypeError) as error:
    stop(f'{sys.argv[1]}/model.json describes no exported model: {error}.')
  except (av.FFmpegError, OSError, ValueError) as error:
    stop(f'Cannot be read: {error}.')
  for index in np.argsort(-shares, kind='stable')[:5]:
    print(plain(f'{shares[index]:.6f}  {names[index]}'))
