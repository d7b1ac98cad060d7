"""Measures what simple cues tell of the classes of the stick figures.

  mtnet prepare stick_figures --set=idle --out=DATA
  python -m benchmarks.stick_figure_cues --data=DATA

Prints the share of test videos whose class the classifier of `mtnet eval
--controls` finds by each cue alone; for the set `speed` also the share of which
it finds whether the class is a fast or a slow one. Where `actions.csv` says
when the action is, the one frame is outside it. Takes two to three minutes.
"""

import pathlib
from collections.abc import Sequence

import av
import numpy as np
from absl import flags

from mtnet_jax import cli
from mtnet_jax.data import tables
from mtnet_jax.evaluation import controls
from mtnet_jax.progress import Progress


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_string(
    'data',
    None,
    'Folder of stick figures, as mtnet prepare stick_figures makes them.',
    required=True,
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Prints a line for each cue."""
  for cue, accuracies in measure(pathlib.Path(values.data)).items():
    print(f'{cue:<45}', *(f'{100 * share:6.1f} %' for share in accuracies))


def measure(directory: pathlib.Path) -> dict[str, list[float]]:
  """Returns, by cue, the accuracy of the class and, in `speed`, of the pace."""
  rows = _read(directory / 'clips.csv')
  when = _action_frames(directory)
  boxes = np.load(directory / 'boxes.npz')
  names = sorted({row['label'] for row in rows})
  found = {'train': [], 'test': []}
  labels = {'train': [], 'test': []}
  with Progress('cues', len(rows), 'videos') as progress:
    for row in rows:
      progress.advance()
      if row['split'] not in found:
        continue
      frames = _decode(directory / row['path'])
      moving = np.zeros(len(frames), bool)
      moving[when.get(row['path'], slice(0))] = True
      cues = _cues(frames, boxes[row['path']], moving, float(row['fps']))
      found[row['split']].append(cues)
      labels[row['split']].append(names.index(row['label']))
  kinds = [np.arange(len(names))]
  if names[0].startswith('fast_'):
    kinds.append(np.array([name.startswith('fast_') for name in names], int))
  train, test = (np.array(labels[split]) for split in ('train', 'test'))
  result = {}
  for cue in found['train'][0]:
    a, b = (np.stack([c[cue] for c in found[s]]) for s in ('train', 'test'))
    result[cue] = [
      controls.classify_cues(a, kind[train], b, kind[test]) for kind in kinds
    ]
  return result


def _action_frames(directory: pathlib.Path) -> dict[str, slice]:
  path = directory / 'actions.csv'
  if not path.exists():
    return {}
  return {
    row['path']: slice(int(row['start']), int(row['end']))
    for row in _read(path)
  }


def _read(path: pathlib.Path) -> list[dict[str, str]]:
  return [row for _, row in tables.read(path, ('path',))]


def _decode(path: pathlib.Path) -> np.ndarray:
  with av.open(str(path)) as container:
    frames = [f.to_ndarray(format='rgb24') for f in container.decode(video=0)]
  return np.stack(frames).astype(np.float32)


def _cues(
  frames: np.ndarray, boxes: np.ndarray, moving: np.ndarray, fps: float
) -> dict[str, np.ndarray]:
  """Returns numbers about one video by what they are about."""
  t, height, width, _ = frames.shape
  boxes = boxes / height
  idle = np.flatnonzero(~moving)
  one = idle[len(idle) // 2]
  # As many numbers for one actor as for two.
  places = np.resize(boxes[one][boxes[one][:, 0].argsort()], (2, 4))
  change = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
  still = change[~(moving[1:] | moving[:-1])]
  cues = {
    'length, frame rate and size': np.log([t, fps, width, height]),
    'boxes and color of one frame': np.concatenate(
      [places.ravel(), frames[one].mean((0, 1)), frames[one].std((0, 1))]
    ),
    'color of the video': np.concatenate(
      [frames.mean((0, 1, 2)), frames.std((0, 1, 2))]
    ),
    'differences between frames': _sizes(change),
    'movement of the sides of the boxes': np.diff(boxes, axis=0).std((0, 1)),
  }
  if moving.any():
    cues['differences between frames, no action'] = _sizes(still)
  return cues


def _sizes(change: np.ndarray) -> np.ndarray:
  return np.log([change.mean(), change.max(), np.median(change)])


COMMAND = cli.Command(main, define_flags)

if __name__ == '__main__':
  cli.run(COMMAND)
