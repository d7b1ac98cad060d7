"""Published weights, and the clips and pixels that they were trained on.

`weights.csv` has a row for each file: our network, the authors' layout, the
address, the license, the data, how clips are taken from a video and at what
size, the mean and deviation that normalize pixels, and the published top-1 with
its number of views (clips × crops). PyTorchVideo spreads a clip's frames evenly
from the first to the last of T times the stride that its names say, so that
they lie further apart: `stride` is the nearest whole number. In an address, the
name of a file in a shared folder follows `#`.
"""

import csv
import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from mtnet_jax.errors import UserError

_PATH = pathlib.Path(__file__).with_name('weights.csv')


class Weights(NamedTuple):
  """A row of the table: one published file of weights.

  Attributes:
    name: unique, 'slow_r50_8x8_pytorchvideo' for instance.
    network: one of `models.NAMES`.
    family: one of `families.FAMILIES`.
    address: the address (URL) of the file.
    license: the license of the repository.
    data: the data set that the weights were trained on last.
    classes: the number of classes of `data`; 0: not known.
    top1: published accuracy in percent, or ''.
    views: the views of a video that `top1` was measured with, such as '10x3',
      or ''.
    settings: keys of a configuration, with values.
  """

  name: str
  network: str
  family: str
  address: str
  license: str
  data: str
  classes: int
  top1: str
  views: str
  settings: dict[str, Any]

  @property
  def clips(self) -> str:
    """How clips are taken of a video, in words."""
    keys = self.settings
    frames, how = keys['data.num_frames'], keys['data.sampling']
    if how == 'uniform':
      return f'{frames} of the whole video'
    stride = f'{frames} × {keys["data.frame_stride"]}'
    return stride if how == 'clip' else f'{stride}, {how}'


@functools.cache
def rows() -> tuple[Weights, ...]:
  """Returns the table."""
  with _PATH.open(newline='') as file:
    return tuple(map(_row, csv.DictReader(file)))


def _row(cells) -> Weights:
  crop, eval_crop = int(cells['crop']), int(cells['eval_crop'])
  keys = {
    'data.num_frames': int(cells['frames']),
    'data.frame_stride': int(cells['stride'] or 1),
    'data.sampling': cells['sampling'],
    'data.short_side': int(cells['short_side']),
    'data.crop_size': crop,
    'data.input_size': crop,
    'eval.crop_size': eval_crop,
    'eval.input_size': eval_crop,
    'model.name': cells['network'],
    'model.input_mean': _color(cells, 'mean'),
    'model.input_std': _color(cells, 'std'),
  }
  if float(cells['epsilon']) != 1e-5:
    keys['model.norm_epsilon'] = float(cells['epsilon'])
  if cells['views']:
    clips, crops = map(int, cells['views'].split('x'))
    # Crops are spread along the long side: three of them see all of it.
    keys['eval.num_clips'], keys['eval.num_crops'] = clips, min(crops, 3)
  names = ('name', 'network', 'family', 'address', 'license', 'data')
  return Weights(
    **{name: cells[name] for name in names},
    classes=int(cells['classes'] or 0),
    top1=cells['top1'],
    views=cells['views'],
    settings=keys,
  )


def _color(cells, name):
  return tuple(float(cells[f'{name}_{channel}']) for channel in 'rgb')


def network_of(model: str) -> str:
  """Returns the network that a name of the table or of a network stands for.

  Args:
    model: a name that the user gave; names that are in no row are networks.
  """
  return next((row.network for row in rows() if row.name == model), model)


def find(
  model: str, family: str, source: str | pathlib.Path, classes: int = 0
) -> Weights | None:
  """Returns the row with the clips and pixels of a file.

  Args:
    model: the name of a row, or a network.
    family: the family that the file belongs to.
    source: the file, whose own name may tell.
    classes: the number of classes of the file's class head, which may tell the
      row; 0: not known.

  Returns:
    The row; of a network without published weights that of a sibling of
    another depth; None: there is neither.

  Raises:
    UserError: the row is of another family, or several could be meant.
  """
  named = [row for row in rows() if row.name == model]
  if named:
    if named[0].family != family:
      raise UserError(
        f'--model={model} are weights of {named[0].family}, and {source} '
        f'(--from) is of {family}. Give the network alone, '
        f'--model={named[0].network}, or another file.'
      )
    return named[0]
  possible = _possible(model, family)
  file = pathlib.Path(source).name
  for is_like in (
    lambda row: row.address.endswith((f'/{file}', f'#{file}')),
    lambda row: row.classes == classes,
  ):
    possible = [row for row in possible if is_like(row)] or possible
  if len({_trained_on(row) for row in possible}) > 1:
    raise UserError(
      f'{source} (--from) does not tell on which clips it was trained. Name '
      f'the published weights that it is like: {_choices(possible)}.'
    )
  return possible[0] if possible else None


def _possible(network, family) -> list[Weights]:
  # PySlowFast trained what PyTorchVideo publishes.
  family = 'pytorchvideo' if family == 'pyslowfast' else family
  own = [row for row in rows() if row.family == family]
  return [row for row in own if row.network == network] or [
    row._replace(settings={**row.settings, 'model.name': network})
    for row in own
    if _kind(row.network) == _kind(network)
  ]


def _kind(network: str) -> str:
  """Returns the name without the depth."""
  return re.sub(r'_r?\d+(_.*)?$', '', network)


def _trained_on(row: Weights) -> tuple:
  """Returns clips and pixels, without the views for scoring."""
  views = ('eval.num_clips', 'eval.num_crops')
  return tuple((k, v) for k, v in row.settings.items() if k not in views)


def _choices(possible: Sequence[Weights]) -> str:
  """Lists one name for each kind of clips and pixels."""
  kinds = {_trained_on(row): row for row in reversed(possible)}
  return ', '.join(
    f'--model={row.name} ({row.clips}, mean '
    f'{row.settings["model.input_mean"][0]:.3f})'
    for row in reversed(kinds.values())
  )


def table() -> str:
  """Returns the table as text, a line for each file."""
  lines = [
    (
      row.name,
      row.clips,
      row.data,
      f'{row.top1} %' if row.top1 else '',
      row.address,
    )
    for row in rows()
  ]
  titles = ('--model', 'clips', 'data', 'top-1', 'address')
  widths = [
    max(map(len, column)) for column in zip(titles, *lines, strict=True)
  ]
  return '\n'.join(
    '  '.join(map(str.ljust, line, widths)).rstrip()
    for line in (titles, *lines)
  )
