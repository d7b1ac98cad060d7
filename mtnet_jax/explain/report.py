"""Writes one HTML file that explains a clip and opens without a network.

Frames are embedded as JPEG or PNG, saliency as one byte per point, everything
else as JSON; `report.js` draws them. A content security policy forbids the page
every connection, and every script but its own.
"""

import base64
import hashlib
import json
import pathlib
import types
import urllib.parse
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from mtnet_jax.errors import printable
from mtnet_jax.explain import graph_drawing, overlay
from mtnet_jax.explain.explanation import (
  METHODS,
  Explanation,
  Faithfulness,
  Tube,
  layer_name,
)
from mtnet_jax.explain.saliency_tubes import interpolate

_HERE = pathlib.Path(__file__).parent
_MOST_POINTS = 64  # of a tube's side: saliency is smooth
_LONGEST_NAME = 80  # letters of a class
_JPEG_QUALITY = 88
# A difference in probability. A spot that is moved by half a pixel may gain
# 0.046.
_MARGIN = 0.05
_ROUNDING = 0.001
_NO_FILES = types.MappingProxyType({})


def write(
  explanation: Explanation,
  directory: pathlib.Path,
  files: Mapping[str, str] = _NO_FILES,
) -> pathlib.Path:
  """Writes `report.html`.

  Args:
    explanation: the explanation to show. Names in it may hold anything: they
      are never read as HTML.
    directory: the folder of the file, which is made if need be.
    files: paths relative to `directory` of what lies beside the report, by
      'METHOD, KIND' or 'METHOD, LAYER, KIND', such as 'Grad-CAM, last, MP4'.

  Returns:
    The file's path.

  Raises:
    UserError: the directory cannot be written.
  """
  path = pathlib.Path(directory) / 'report.html'
  page = _page(_content(explanation, files))
  with overlay.writing(path):
    path.write_text(page, encoding='utf-8')
  return path


def verdict(faithfulness: Faithfulness, class_name: str) -> tuple[str, str]:
  """Says in plain words whether a tube is to be believed.

  A tube passes a test where it is better than every one of the same picture's
  random places; one that knows nothing passes with a chance of one in their
  number plus one. To be believed it must pass both tests, and its score must be
  more than 0.05 above that of a plain spot in the middle. There is nothing to
  test where the whole clip does not give the class at least 0.05 more than an
  empty one.

  Args:
    faithfulness: the curves and areas.
    class_name: the class that they are probabilities of.

  Returns:
    'believe', 'doubt', 'chance' or 'unclear'; and the sentences.
  """
  f = faithfulness
  whole, nothing = float(f.deletion[0]), float(f.deletion[-1])
  if whole - nothing < _MARGIN:
    return 'unclear', (
      f'This test cannot tell: the network gives “{class_name}” '
      f'{percent(whole)} for the whole clip, and {percent(nothing)} for one '
      'from which everything is removed.'
    )
  # The area under a curve is its mean, for shares go from 0 to 1.
  removed, shown = map(percent, f.areas)
  # The range is given instead of the mean, since the best of them is to be
  # beaten.
  random_removed, random_shown = (
    f'{percent(areas.min())} to {percent(areas.max())}'
    for areas in f.random_areas.T
  )
  facts = (
    f'Removing the brightest parts first leaves “{class_name}” {removed} on '
    f'average; with the picture moved to {len(f.random_areas)} random places, '
    f'{random_removed}. Showing the brightest parts first gives {shown}; with '
    f'the picture moved, {random_shown}.'
  )
  better = np.array([-1, 1])  # below at deletion, above at insertion
  gains = (better * (f.areas - f.random_areas)).min(axis=0)
  passed = np.count_nonzero(gains > _ROUNDING)
  if not passed:
    return 'chance', (
      f'No better than chance: do not rely on this picture. {facts}'
    )
  faults = []
  if passed < 2:
    faults.append('only one of the two tests finds it better than chance')
  if better @ (f.areas - f.spot_areas) <= _MARGIN:
    faults.append('a plain spot in the middle of the picture does as well')
  if faults:
    return 'doubt', f'Take it with care: {", and ".join(faults)}. {facts}'
  return 'believe', (
    f'Believe it: what is bright here is what the network uses. {facts}'
  )


def percent(share: float) -> str:
  """Returns 0.123 as '12 %', and what is above 0 and below 0.01 as '< 1 %'.

  The spaces keep a line from being broken there.
  """
  number = '<\u00a01' if 0 < share < 0.01 else f'{100 * share:.0f}'
  return f'{number}\u00a0%'


def _page(content: Mapping) -> str:
  """Puts style, script and data into the template."""
  style = (_HERE / 'report.css').read_text(encoding='utf-8')
  script = ''.join(
    (_HERE / name).read_text(encoding='utf-8')
    for name in ('report_graph.js', 'report.js')
  )
  page = (_HERE / 'report_template.html').read_text(encoding='utf-8')
  # `<` is escaped, so that no JSON string can end the element that holds it.
  data = json.dumps(content, allow_nan=False).replace('<', '\\u003c')
  for mark, text in (
    ('{{style_hash}}', _hash(style)),
    ('{{script_hash}}', _hash(script)),
    ('{{style}}', style),
    ('{{script}}', script),
    ('{{data}}', data),  # the last: it may hold any text
  ):
    page = page.replace(mark, text)
  return page


def _hash(text: str) -> str:
  digest = hashlib.sha256(text.encode()).digest()
  return f'sha256-{base64.b64encode(digest).decode()}'


def _content(explanation: Explanation, files: Mapping[str, str]) -> dict:
  _, height, width, _ = explanation.clip.shape
  return {
    'title': printable(explanation.title),
    'className': _short(explanation.class_names[explanation.label]),
    'bars': _bars(explanation),
    'width': width,
    'height': height,
    'seconds': [float(s) for s in explanation.seconds],
    'rate': overlay.frame_rate(explanation.seconds),
    'frames': [_image(frame) for frame in explanation.clip],
    'colors': _base64(overlay.colors().tobytes()),
    'methods': dict(METHODS),
    'tubes': [_tube(tube) for tube in explanation.tubes],
    'opensOn': _best(explanation.tubes),
    'graph': _graph(explanation),
    'files': _files(files),
  }


def _files(files: Mapping[str, str]) -> list[dict]:
  """Groups links by what is before their first comma, layers' at the end."""
  groups = {}
  for words, path in files.items():
    name, *layer, kind = words.split(', ')
    layer = layer_name(', '.join(layer))
    link = {
      'kind': kind,
      'layer': layer,
      'words': ', '.join(filter(None, (name, layer, kind))),
      'href': './' + urllib.parse.quote(path),
    }
    groups.setdefault(name, []).append(link)
  return [
    {'name': name, 'links': sorted(links, key=lambda link: link['layer'] != '')}
    for name, links in groups.items()
  ]


def _bars(explanation: Explanation) -> list[dict]:
  """Returns the five likeliest classes, and the explained one."""
  order = np.argsort(-explanation.probabilities, kind='stable').tolist()
  shown = order[:5]
  if explanation.label not in shown:
    shown.append(explanation.label)
  return [
    {
      'name': _short(explanation.class_names[i]),
      'wholeName': printable(explanation.class_names[i]),
      'rank': order.index(i) + 1,
      'probability': float(explanation.probabilities[i]),
      'percent': percent(explanation.probabilities[i]),
      'isExplained': i == explanation.label,
    }
    for i in shown
  ]


def _image(frame: np.ndarray) -> str:
  """Returns a frame's data URL: JPEG, or PNG where that is smaller."""
  bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
  quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
  jpeg = cv2.imencode('.jpg', bgr, quality)[1].tobytes()
  png = cv2.imencode('.png', bgr)[1].tobytes()
  if len(png) <= len(jpeg):
    return f'data:image/png;base64,{_base64(png)}'
  return f'data:image/jpeg;base64,{_base64(jpeg)}'


def _tube(tube: Tube) -> dict:
  return {
    'method': tube.method,
    'layer': layer_name(tube.layer),
    'className': _short(tube.class_name),
    'note': tube.note,
    'map': _map(tube.saliency, _MOST_POINTS),
    'faithfulness': _faithfulness(tube),
  }


def _best(tubes: Sequence[Tube]) -> int | None:
  """Returns the believed picture with the best score, if there is one."""
  scores = {
    index: tube.faithfulness.score
    for index, tube in enumerate(tubes)
    if tube.faithfulness is not None
    and verdict(tube.faithfulness, tube.class_name)[0] == 'believe'
  }
  return max(scores, key=scores.get, default=None)


def _faithfulness(tube: Tube) -> dict | None:
  if tube.faithfulness is None:
    return None
  kind, sentence = verdict(tube.faithfulness, _short(tube.class_name))
  names = (
    'shares',
    'deletion',
    'insertion',
    'random_deletion',
    'random_insertion',
  )
  curves = {
    name: np.round(getattr(tube.faithfulness, name), 4).tolist()
    for name in names
  }
  return {'kind': kind, 'sentence': sentence, **curves}


def _map(saliency: np.ndarray, most_points: int) -> dict:
  """Returns saliency as bytes, one map per frame.

  Args:
    saliency: `(t, h, w)` in [0, 1], of the clip's frames.
    most_points: the points of a side of the map.
  """
  _, h, w = saliency.shape
  shrink = min(1, most_points / max(h, w))
  width, height = max(round(w * shrink), 1), max(round(h * shrink), 1)
  maps = [
    cv2.resize(
      one.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
    )
    for one in saliency
  ]
  levels = np.round(255 * np.clip(maps, 0, 1)).astype(np.uint8)
  return {
    'width': width,
    'height': height,
    'data': _base64(levels.tobytes()),
  }


def _short(name: str) -> str:
  """Returns a name that can be shown; one too long loses its middle."""
  name, half = printable(name), _LONGEST_NAME // 2
  return name if len(name) <= 2 * half else f'{name[:half]}…{name[-half:]}'


def _graph(explanation: Explanation) -> dict | None:
  if explanation.pyramid is None:
    return None
  placed = graph_drawing.layout(explanation.pyramid)
  level_tubes = {
    tube.layer: index
    for index, tube in enumerate(explanation.tubes)
    if tube.method == 'class_feature_pyramids'
  }

  def node_map(layer: str, channel: int) -> dict | None:
    saliency = explanation.node_tubes.get((layer, channel))
    if saliency is None:
      return None
    # The tubes are placed like those of whole layers, with as few pixels as
    # needed.
    t, *sides = explanation.clip.shape[:3]
    h, w = (min(side, 2 * _MOST_POINTS) for side in sides)
    points = 2 * max(saliency.shape[1:])
    fine = interpolate(saliency, (t, h, w))
    return _map(fine, min(points, _MOST_POINTS))

  columns = [
    {
      'layer': layer_name(column.layer),
      'numChannels': column.num_channels,
      'numKept': column.num_kept,
      'moreRow': column.more_row,
      'isSource': column.is_source,
      'tube': level_tubes.get(column.layer),
      'nodes': [
        {
          'channel': node.channel,
          'importance': node.importance,
          'row': node.row,
          'map': node_map(column.layer, node.channel),
        }
        for node in column.nodes
      ],
    }
    for column in placed.columns
  ]
  return {
    'mode': explanation.pyramid.mode,
    'threshold': float(explanation.pyramid.threshold),
    'numRows': placed.num_rows,
    'middle': placed.middle,
    'columns': columns,
    'lines': [vars(line) for line in placed.lines],
  }


def _base64(content: bytes) -> str:
  return base64.b64encode(content).decode('ascii')
