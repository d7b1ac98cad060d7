"""Writes an explanation: pictures, videos, numbers, the report."""

import dataclasses
import json
import pathlib
import re

import numpy as np

from mtnet_jax.explain import graph_drawing, overlay, report
from mtnet_jax.explain.explanation import METHODS, Explanation, Tube, layer_name
from mtnet_jax.files import writing_folder


def write(found: Explanation, directory: pathlib.Path) -> pathlib.Path:
  """Writes an explanation's files, and the report that links them.

  Of each method a PNG of its tubes over time, layer below layer; an MP4 of each
  tube, and a GIF of the method's last; `tubes.npz` with the saliency, float16,
  under METHOD/LAYER; `explanation.json`; of a pyramid `pyramid.json` and
  `pyramid.png`.

  Args:
    found: the explanation from `explain`.
    directory: made if need be.

  Returns:
    The path of `report.html`.

  Raises:
    UserError: the directory cannot be written.
    OSError: the disk is full. An earlier explanation is then there as it was.
  """
  with (
    overlay.writing(directory / 'report.html'),
    writing_folder(directory) as folder,
  ):
    path = _write_all(found, folder)
    _remove_old(directory)
  return directory / path.name


def _write_all(found: Explanation, directory: pathlib.Path) -> pathlib.Path:
  files = {}
  for method, title in METHODS.items():
    tubes = [tube for tube in found.tubes if tube.method == method]
    if tubes:
      files |= _write_method(found, method, title, tubes, directory)
  if found.pyramid is not None:
    name = found.class_names[found.label]
    graph_drawing.draw(found.pyramid, name, directory / 'pyramid.png')
    files['Pyramid, PNG'] = 'pyramid.png'
    files['Pyramid, JSON'] = 'pyramid.json'
    _write_json(found.pyramid.to_json(), directory / 'pyramid.json')
  _write_json(_summary(found), directory / 'explanation.json')
  files['Probabilities and scores, JSON'] = 'explanation.json'
  # Half precision suffices: saliency is smooth, and nobody sees more than 256
  # levels.
  arrays = {
    f'{tube.method}/{tube.layer}': tube.saliency.astype(np.float16)
    for tube in found.tubes
  }
  with overlay.writing(directory / 'tubes.npz'):
    np.savez_compressed(directory / 'tubes.npz', **arrays)
  files['Saliency, NumPy'] = 'tubes.npz'
  return report.write(found, directory, files)


def _remove_old(directory) -> None:
  """Removes an earlier explanation's pictures, which would look current."""
  for name in ('pyramid.png', 'pyramid.json'):
    (directory / name).unlink(missing_ok=True)
  for method in METHODS:
    for pattern in (f'{method}.png', f'{method}.gif', f'{method}-*.mp4'):
      for path in directory.glob(pattern):
        path.unlink()


def _write_method(found, method, title, tubes, directory) -> dict[str, str]:
  """Writes one method's pictures; returns them by the words of their link."""
  files = {f'{title}, PNG': f'{method}.png'}
  rows = {}
  for tube in tubes:
    frames = overlay.blend(found.clip, tube.saliency)
    rows[f'{layer_name(tube.layer)}: {tube.class_name}'] = frames
    name = f'{method}-{re.sub("[^a-z0-9_]", "-", tube.layer)}'
    overlay.write_mp4(frames, found.seconds, directory / f'{name}.mp4')
    files[f'{title}, {tube.layer}, MP4'] = f'{name}.mp4'
  overlay.write_gif(frames, found.seconds, directory / f'{method}.gif')
  files[f'{title}, GIF'] = f'{method}.gif'
  overlay.write_strip(
    found.clip,
    rows,
    found.seconds,
    directory / f'{method}.png',
    f'{title}: {found.title}',
  )
  return files


def _summary(found: Explanation) -> dict:
  return {
    'video': found.title,
    'seconds': [round(float(s), 4) for s in found.seconds],
    'label': found.class_names[found.label],
    'probabilities': dict(
      zip(found.class_names, map(float, found.probabilities), strict=True)
    ),
    'tubes': [_tube_summary(tube) for tube in found.tubes],
  }


def _tube_summary(tube: Tube) -> dict:
  line = {
    'method': tube.method,
    'layer': tube.layer,
    'label': tube.class_name,
    'note': tube.note,
  }
  if tube.faithfulness is not None:
    line['faithfulness'] = tube.faithfulness.score
    line['faithfulness_of_chance'] = tube.faithfulness.random_score
    line['curves'] = {
      name: values.tolist()
      for name, values in dataclasses.asdict(tube.faithfulness).items()
    }
  return line


def _write_json(content: dict, path: pathlib.Path) -> None:
  with overlay.writing(path):
    path.write_text(json.dumps(content), encoding='utf-8')
