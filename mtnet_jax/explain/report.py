"""One HTML file that explains one clip: it opens from disk, without a network.

Frames are embedded as JPEG or PNG, saliency as a byte a point, everything else
as JSON; `report.js` draws them. A content security policy forbids the page
every connection, and every script but its own.
"""

import base64
import hashlib
import json
import pathlib
import types
import urllib.parse
from collections.abc import Mapping

import cv2
import numpy as np

from mtnet_jax.explain import graph_drawing, overlay
from mtnet_jax.explain.explanation import (
  METHODS,
  Explanation,
  Faithfulness,
  Tube,
  layer_name,
)

_HERE = pathlib.Path(__file__).parent
_MOST_POINTS = 64  # of a tube's side: saliency is smooth
_JPEG_QUALITY = 88
_MARGIN = 0.02  # of probability: a smaller area between curves says nothing
_NO_FILES = types.MappingProxyType({})


def write(
  explanation: Explanation,
  directory: pathlib.Path,
  files: Mapping[str, str] = _NO_FILES,
) -> pathlib.Path:
  """Writes `report.html`.

  Args:
    explanation: what is shown. Names may hold anything: they are never read as
      HTML.
    directory: where the file goes; it is made where it is not there.
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

  A tube is good at a test where the area between its curve and the random one
  is more than 0.02. There is nothing to test where the whole clip does not
  give the class at least 0.04 more than an empty one.

  Args:
    faithfulness: the curves.
    class_name: that they are probabilities of.

  Returns:
    'believe', 'doubt', 'chance' or 'unclear'; and the sentences.
  """
  f = faithfulness
  curves = (f.deletion, f.insertion, f.random_deletion, f.random_insertion)
  whole, nothing = float(f.deletion[0]), float(f.deletion[-1])
  if whole - nothing < 2 * _MARGIN:
    return 'unclear', (
      f'This test cannot tell: the network gives “{class_name}” '
      f'{percent(whole)} for the whole clip, and {percent(nothing)} for one '
      'from which everything is removed.'
    )
  # The area under a curve is its mean, for shares go from 0 to 1.
  means = [float(np.trapezoid(curve, f.shares)) for curve in curves]
  removed, shown, random_removed, random_shown = map(percent, means)
  facts = (
    f'Removing the brightest parts first leaves “{class_name}” {removed} on '
    f'average, removing parts at random {random_removed}. Showing the '
    f'brightest first gives {shown}, showing parts at random {random_shown}.'
  )
  deletes = means[2] - means[0] > _MARGIN
  inserts = means[1] - means[3] > _MARGIN
  if deletes and inserts:
    return 'believe', (
      f'Believe it: what is bright here is what the network uses. {facts}'
    )
  if deletes or inserts:
    return 'doubt', (
      'Believe it with care: only one of the two tests finds it better than '
      f'chance. {facts}'
    )
  return 'chance', (
    f'No better than chance: do not rely on this picture. {facts}'
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
  # Nothing in a JSON string can end the element that holds it.
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
    'title': explanation.title,
    'className': explanation.class_names[explanation.label],
    'bars': _bars(explanation),
    'width': width,
    'height': height,
    'seconds': [float(s) for s in explanation.seconds],
    'rate': overlay.frame_rate(explanation.seconds),
    'frames': [_image(frame) for frame in explanation.clip],
    'colors': _base64(overlay.colors().tobytes()),
    'methods': dict(METHODS),
    'tubes': [_tube(tube) for tube in explanation.tubes],
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
      'name': explanation.class_names[i],
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
    'className': tube.class_name,
    'note': tube.note,
    'map': _map(tube.saliency, len(tube.saliency)),
    'faithfulness': _faithfulness(tube),
  }


def _faithfulness(tube: Tube) -> dict | None:
  if tube.faithfulness is None:
    return None
  kind, sentence = verdict(tube.faithfulness, tube.class_name)
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


def _map(saliency: np.ndarray, num_frames: int) -> dict:
  """Returns saliency as bytes, a map a frame.

  Args:
    saliency: `(t', h', w')` in [0, 1].
    num_frames: t of the clip; maps between are linear in time.
  """
  t, h, w = saliency.shape
  shrink = min(1, _MOST_POINTS / max(h, w))
  size = max(round(w * shrink), 1), max(round(h * shrink), 1)
  maps = np.stack(
    [
      cv2.resize(one.astype(np.float32), size, interpolation=cv2.INTER_AREA)
      for one in saliency
    ]
  )
  # Both cover the same time, so the centers of their steps are aligned.
  times = (np.arange(num_frames) + 0.5) * t / num_frames - 0.5
  times = np.clip(times, 0, t - 1)
  before = times.astype(int)
  after = np.minimum(before + 1, t - 1)
  share = (times - before)[:, None, None]
  maps = (1 - share) * maps[before] + share * maps[after]
  levels = np.round(255 * np.clip(maps, 0, 1)).astype(np.uint8)
  width, height = size
  return {
    'width': width,
    'height': height,
    'data': _base64(levels.tobytes()),
  }


def _graph(explanation: Explanation) -> dict | None:
  if explanation.pyramid is None:
    return None
  placed = graph_drawing.layout(explanation.pyramid)
  level_tubes = {
    tube.layer: index
    for index, tube in enumerate(explanation.tubes)
    if tube.method == 'class_feature_pyramids'
  }
  num_frames = len(explanation.clip)

  def node_map(layer: str, channel: int) -> dict | None:
    saliency = explanation.node_tubes.get((layer, channel))
    return None if saliency is None else _map(saliency, num_frames)

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
