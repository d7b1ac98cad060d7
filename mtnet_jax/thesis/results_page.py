"""`docs/results.md`: the published figures beside ours, as Markdown."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mtnet_jax.analysis import paired
from mtnet_jax.thesis.published import NUM_CLASSES, Request, Row, Table

COMMAND = 'mtnet results'

# Why a figure differs, by the key that stands in the tables.
REASONS: Mapping[str, str] = {
  'twice': 'GFLOPs are 2 × multiply-adds at 16×224², to within 2 %; ours are '
  'multiply-adds.',
  '112': 'The printed GFLOPs are those of 16×224² clips, where ours are about '
  'four times as many; of r3d and wide-r3d they count 2 × multiply-adds. The '
  'table says 16×112², which is what ours are counted at.',
  'r3d-34': 'Neither ours nor twice ours is 26.6. It is half of what Table 5.2 '
  'prints for a 50-layer r3d, and 0.5 % more than our r3d_50 has.',
  '2plus1d': 'The parameters fit and the GFLOPs do not: (2+1)D with as many '
  'weights as 3D has fewer multiply-adds here (24.8 against 26.5 GMACs at 50 '
  'layers). At 16×224² printed are 0.94 times ours with 34 layers, and more '
  'than four times ours with 101 (163.0 against 37.50); in Table 6.4 the clip '
  'adds a factor of about four.',
  'bias': "PyTorch's LSTM has two biases a gate, ours one (equations 4.1 to "
  '4.5): 0.03 M more in 34 layers, 0.07 M in 101. With 34 layers 0.09 M '
  'remain.',
  'cut': 'Cut off, not rounded: 6.15, 11.10, 34.48, 34.86 and 63.70.',
  'cr-resnet': "Class Regularisation's maps from 512 channels to 64, 128, 256 "
  'and 512 are 0.49 M parameters and, for 400 classes, 0.20 GMACs a batch. '
  'The printed additions are larger.',
  'cr': "Class Regularisation's maps from 2048 channels to 24, 48, 96 and 192 "
  'are 0.74 M parameters, as printed for S and M (the text: about 0.76 M), and '
  'for 400 classes 0.30 GMACs a batch, printed as up to 0.1.',
  'mtnet-size': 'The sizes do not follow from the text. Ours follows Table '
  "6.1b and section 5.3. `mtnet_m_published` has MTNet-M's printed parameters "
  'within 5.1 % at every δ and cell, and not its GFLOPs; no reading that we '
  'know fits M, L and the costs together.',
  'cells': 'From cell to cell the printed sizes grow by 1.5 M (RNN to GRU) and '
  '2.2 M (RNN to LSTM): by what one recurrent layer a block takes. Ours has '
  'two, as section 5.3.2 says, and grows by twice as much.',
  'mtnet-cost': 'As the sizes: ours follows Table 6.1b.',
  'mtnet-s': 'Table 6.3 says 13×182². At 16×256², which Table 5.1 says, ours '
  'are the printed 5.8.',
  'ratio': 'As the sizes of MTNet. Ours has the most parameters near '
  'δ = 1/2, where theirs has the fewest: the point-wise term from the local to '
  'the prolonged branch outweighs what the smaller branches save.',
  'mt-r3d': 'r3d_50 with each 3×3×3 a dense MTConv. Ours gains parameters '
  'where theirs loses some, by the point-wise term; multiply-adds are near, '
  'while the table counts r3d-50 itself twice.',
  'other-net': "Another (2+1)D network than Table 4.2's of 34.8 M and 83.3 G, "
  'which is ours by its parameters.',
  'x3d-l': "The clip of X3D's own evaluation, 16×356². At 16×224², which "
  'Table 5.1 says, X3D-XL has 17.87.',
  'i3d-clip': "The printed cost is about that of the authors' 64 frames, not "
  'of 16: ours is 111.2 there and 27.8 at 16. Inception-v1 has 12.70 M '
  'parameters '
  'with the scales of BN, which its first release leaves out (12.69 M).',
  'i3d-streams': '71.6 and 90.0 are of two networks together, one of which '
  "sees optical flow, from nothing: the README of the authors' release "
  '(google-deepmind/kinetics-i3d) has them so. The network on RGB alone, whose '
  'cost is printed, has 68.4 and 88.0 there, 71.1 and 89.3 from ImageNet.',
  'tam': 'Size, cost and accuracy are of TANet-50 (Liu et al.) with 16 frames '
  'of 256²; Tables 4.2, 6.2 and 6.3 cite bLVNet-TAM, another network.',
  'sf-50': 'Cost and accuracy are of SlowFast 8×8 at 256², of 8 and 32 frames. '
  'The printed 34.4 M are those of 4×16 (34.48); 8×8 has 34.57.',
  'sf-101': 'Size and cost are of SlowFast 16×8, of 16 and 64 frames, with six '
  'kernels in time in its third stage, at 256².',
  'sf-101-accuracy': '77.9 is what PyTorchVideo lists for 8×8 (62.83 M '
  'parameters, 125.9 GMACs at 256²); for 16×8, whose size and cost are '
  'printed, it lists 78.7.',
  'csn-size': 'Printed as in the paper; what its authors released has 0.4 to '
  '0.7 % more.',
  'csn-cost': '63.6 is what ip-CSN-101 needs for 32×224². ir-CSN-101 needs '
  '56.47 there, 73.75 for 256².',
  'csn-clip': 'The printed cost is that of 32×256². At 8×224², which Table 5.1 '
  'says, ip-CSN-101 has 15.9 and ip-CSN-152 has 20.8.',
  'r2plus1d-34': 'Printed as ResNet101 at 16×224²; the size, and the cost at '
  '32×112², are those of the 34-layer R(2+1)D of Tran et al.',
  'slow-only': 'The cost is that of 4 frames of 256² (4×16). Its size is not '
  '26.6 M: kernels over three frames in the last two stages make it 32.45.',
  'slowfast-ablation': "The cost is that of SlowFast 4×16 at 256² if a frame's "
  'worth of fast frames becomes channels of the slow pathway (39.86), a row of '
  "that paper's ablations; the network itself, of strided convolutions between "
  'the pathways, has 36.10, and 75.6 and 92.1 percent.',
  'hara': 'GFLOPs are 2 × multiply-adds at 16×224², and elementwise operations '
  'within 3 %. The 3-D ResNets are those of Hara et al., whose bottlenecks are '
  "four times as wide at their end; ResNeXt's are twice as wide.",
  'back-step': 'Table 7.1 does not name its clips, and its GFLOPs of MTNets '
  "are not those of the other tables; ours are at the network's own clip.",
}

_CHAPTERS = {
  '4': 'Chapter 4: Squeeze and Recursion with Temporal Gates',
  '5': 'Chapter 5: Multi-Temporal convolutions',
  '6': 'Chapter 6: Class Regularisation',
  '7': 'Chapter 7: explanations',
}
_TITLES = {
  'top1': 'top-1',
  'top5': 'top-5',
  'top1_without': 'top-1',
  'top5_without': 'top-5',
  'top1_srtg': 'top-1, SRTG',
  'top5_srtg': 'top-5, SRTG',
  'ucf101_top1': 'UCF-101 top-1',
  'ucf101_top5': 'UCF-101 top-5',
  'hmdb51_top1': 'HMDB-51 top-1',
  'gflops_per_view': 'GFLOPs',
  'gflops': 'GFLOPs',
  'params_m': 'M parameters',
  'both_correct': 'both right',
  'cr_only_correct': 'CR alone right',
  'original_only_correct': 'original alone right',
  'both_incorrect': 'both wrong',
  'statistic': 'χ²',
  'p_value': 'p',
  'local_ratio': 'δ',
  'theta': 'θ',
  'class_regularisation': 'CR',
  'extra_inputs': 'more inputs',
  'back_step_ms': 'back-step, ms',
}
# Of the machines of then; and who trained the network.
_LEFT_OUT = ('source', 'latency_forward_ms', 'latency_backward_ms')
_SIZES = ('params_m', 'gflops', 'gflops_per_view')
_TEXT = (
  'model',
  'method',
  'placement',
  'gate',
  'conv',
  'pretrain',
  'dataset',
  'architecture',
  'more inputs',
  'input',
  'backbone',
  'cell',
  'layers',
  'CR',
  'network here',
  'clip',
  'why',
)


@dataclasses.dataclass(frozen=True)
class Count:
  """The counted costs of a network of ours.

  Attributes:
    parameters: trainable ones.
    macs: multiply-adds of one clip.
  """

  parameters: int
  macs: int


@dataclasses.dataclass(frozen=True)
class Run:
  """A user's own evaluated run.

  Attributes:
    label: the run's name, as the user gave it.
    workdir: the run's folder, as given.
    network: the network's name.
    overrides: pairs of field and value, as the run's configuration sets them.
    num_classes: the number of classes of its data.
    clip: frames, height, width of a view.
    views: the views of a video.
    top1: share of videos, in [0, 1].
    count: the cost of the network.
  """

  label: str
  workdir: str
  network: str
  overrides: tuple[tuple[str, Any], ...]
  num_classes: int
  clip: tuple[int, int, int]
  views: int
  top1: float
  count: Count


def render(
  tables: Mapping[str, Table],
  counts: Mapping[Request, Count],
  contradictions: Sequence[Mapping[str, str]],
  runs: Sequence[Run],
) -> str:
  """Returns the page.

  Args:
    tables: the tables from `published.read_all`.
    counts: the costs of every request of the tables.
    contradictions: rows of `contradictions.csv`.
    runs: a user's own.
  """
  parts = [_introduction(), _figures()]
  if runs:
    parts.append(_own_runs(runs))
  for chapter, title in _CHAPTERS.items():
    parts.append(f'## {title}')
    for name, table in tables.items():
      if name.split('_')[1] == chapter:
        parts.append(_folded(table, counts))
  parts.append(_reasons(tables))
  parts.append(_contradictions(contradictions))
  return '\n\n'.join(parts) + '\n'


def _introduction() -> str:
  return f"""# Results: published numbers beside ours

This page answers how the thesis's published numbers compare with the networks
of this library. `{COMMAND}` writes it from `mtnet_jax/thesis/tables/*.csv`,
which hold the thesis's tables as printed, and from the networks; edit those and
not this page. `results.csv` holds the counts of our networks.

* **Accuracies, in percent, are published and have not been reproduced here**:
  the data sets must be brought, and the runs take many GPU days. All figures of
  rows without a network here are published ones, too.
* *M parameters* are the trainable ones. *ours* is the count of the network,
  with {NUM_CLASSES} classes, for HACS and the other data sets too: only with
  these the published parameters come out.
* *GFLOPs* are those of a view, as printed. *GMACs* are our multiply-adds at the
  clip named, in units of 1e9. The thesis prints sometimes the one and sometimes
  the other.
* *%* is our figure against the published one. *why* names a line under
  [Why they differ](#why-they-differ); without one they agree within 1 %.
* Latencies are in the CSV files alone, since they belong to the machines of
  that time.
* The clip is the one that the thesis gives the network; the 3-D ResNets of the
  HACS and Kinetics-700 tables have that of Table 5.1."""


def _figures() -> str:
  return f"""## Accuracy over cost

The area of a disc is the network's number of parameters; all figures are
published. After `mtnet eval`, a run of yours is added as a star, as large as
such a disc but never too small to be seen, by
`{COMMAND} --run="MTNet-S on my data=runs/mine" --out=DIR`. Its data and classes
are its own, so only the cost can be compared.

![With and without SRTG](srtg_accuracy.png)

Figure 4.7: networks with and without SRTG (accuracies of Table 4.5, sizes of
Table 4.2).

![Kinetics-400](kinetics_accuracy.png)

Figure 5.7: Kinetics-400 (Table 5.1).

![Convolutions](convolutions_accuracy.png)

Figure 5.8: convolutions in space and time in a ResNet-50 (Table 5.2)."""


def _own_runs(runs) -> str:
  names = ['run', 'network', 'clip', 'classes', 'M parameters', 'GMACs']
  rows = [
    {
      'run': f'{_plain(run.label)} ({_plain(run.workdir)})',
      'network': _network(run),
      'clip': _clip(run.clip),
      'classes': str(run.num_classes),
      'M parameters': f'{run.count.parameters / 1e6:.2f}',
      'GMACs': _gmacs(run.count),
      'views': str(run.views),
      'top-1': f'{100 * run.top1:.1f}',
    }
    for run in runs
  ]
  table = _markdown(
    [*names, 'views', 'top-1'], rows, ('run', 'network', 'clip')
  )
  return f'## Own runs\n\n{table}'


def _folded(table, counts) -> str:
  title = table.source[0].removeprefix('The thesis, ').rstrip('.')
  state = ' open' if table.name.startswith('table_4_2') else ''
  rows = [cells(row, counts) for row in table.rows]
  rest = ''.join(f'\n\n{line}' for line in table.source[1:])
  names = list(dict.fromkeys(name for row in rows for name in row))
  return (
    f'<details{state}><summary>{title}</summary>{rest}\n\n'
    f'{_markdown(names, rows, _TEXT)}\n\n</details>'
  )


def cells(row: Row, counts: Mapping[Request, Count]) -> dict[str, str]:
  """Returns a row's cells by the column's title.

  As printed, with ours after their peers.

  Args:
    row: a row of a table.
    counts: the cost of its request, if it has one.
  """
  count = counts.get(row.request)
  found = {}
  for column, text in row.printed.items():
    if column in _LEFT_OUT:
      continue
    found[_TITLES.get(column, column)] = _escape(text)
    if column == 'params_m':
      ours = count and count.parameters / 1e6
      found |= _beside('ours', ours, row.number(column))
    elif column in _SIZES:
      ours = count and count.macs / 1e9
      found |= _beside('GMACs', ours, row.number(column))
    elif column == 'p_value':
      found |= _recomputed(row)
  found['network here'] = _network(row)
  if any(column in row.printed for column in _SIZES):
    found['clip'] = _clip(row.clip) if row.clip else ''
    found['why'] = ', '.join(row.why)
  return found


def _beside(title, ours, published) -> dict[str, str]:
  # Two columns of percents: their titles differ by what the eye does not see.
  percent = '%' if title == 'ours' else '% '
  if not (ours and published):
    return {title: '', percent: ''}
  # Not -0.0.
  difference = round(100 * (ours / published - 1), 1) + 0.0
  return {title: f'{ours:.2f}', percent: f'{difference:+.1f}'}


def _recomputed(row) -> dict[str, str]:
  """McNemar's test on the counts of Table 6.6."""
  test = paired.mcnemar(
    int(row.printed['both_correct']),
    int(row.printed['cr_only_correct']),
    int(row.printed['original_only_correct']),
    int(row.printed['both_incorrect']),
  )
  p = f'{test.p_value:.1e}'.replace('e-0', 'e-')
  return {'χ², ours': f'{test.statistic:.3f}', 'p, ours': p}


def _network(row: Row | Run) -> str:
  if not row.network:
    return ''
  fields = ' '.join(f'{key}={value}' for key, value in row.overrides)
  return f'`{row.network} {fields}`' if fields else f'`{row.network}`'


def _clip(clip) -> str:
  frames, height, width = clip
  assert height == width, clip
  return f'{frames}×{height}²'


def _gmacs(count) -> str:
  return f'{count.macs / 1e9:.3g}'


def _escape(text: str) -> str:
  """Escapes text for a Markdown cell and writes sizes as 16×224²."""
  text = re.sub(r'(\d|\))x(\d+)\^2', r'\1×\2²', text)
  return text.replace('|', '\\|')


def _plain(text: str) -> str:
  """A user's own words, for a Markdown cell: on one line and no markup."""
  return re.sub(r'([\\`*_\[\]<>|])', r'\\\1', ' '.join(text.split()))


def _reasons(tables) -> str:
  used = {key for t in tables.values() for row in t.rows for key in row.why}
  unknown = used - REASONS.keys()
  assert not unknown, unknown
  lines = [f'* **{key}**: {text}' for key, text in REASONS.items()]
  return '## Why they differ\n\n' + '\n'.join(lines)


def _contradictions(rows) -> str:
  names = list(rows[0])
  table = _markdown(names, rows, names)
  return (
    '## Contradictions within the thesis\n\nThe files of '
    '`mtnet_jax/thesis/tables` hold what is printed, without corrections.\n\n'
    f'{table}'
  )


def _markdown(names, rows, left) -> str:
  """A table; columns that are not named `left` are numbers, to the right."""
  rules = [':---' if name in left else '---:' for name in names]
  lines = [names, rules] + [[row.get(n, '') for n in names] for row in rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
