"""The page of published numbers beside ours is what its command writes."""

import collections
import json

import numpy as np
import pytest

from mtnet_jax.analysis import cost
from mtnet_jax.convert import published as weights
from mtnet_jax.errors import UserError
from mtnet_jax.thesis import (
  accuracy_over_cost,
  published,
  results,
  results_page,
)
from mtnet_jax.thesis.published import Request
from mtnet_jax.thesis.results_page import Count


@pytest.fixture(scope='module')
def tables():
  return published.read_all()


def _read_counts(path, tables):
  """What `results.write_counts` wrote."""
  by_text = {
    (
      request.network,
      ' '.join(f'{key}={value}' for key, value in request.overrides),
      'x'.join(map(str, request.clip)),
    ): request
    for request in published.requests(tables)
  }
  _, records = published.read_csv(path)
  return {
    by_text[record['network'], record['overrides'], record['clip']]: Count(
      int(record['parameters']), int(record['macs'])
    )
    for record in records
  }


@pytest.fixture(scope='module')
def counts(root, tables):
  return _read_counts(root / 'docs/results.csv', tables)


@pytest.fixture(scope='module')
def sized(tables, counts):
  """Rows with a size and a network, and what that has."""
  rows = (row for table in tables.values() for row in table.rows)
  return [(row, counts[row.request]) for row in rows if row.request]


def test_the_page_in_the_repository(root, tables, counts):
  _, contradictions = published.read_csv(
    published.DIRECTORY / 'contradictions.csv'
  )
  page = results_page.render(tables, counts, contradictions, [])
  assert (root / 'docs/results.md').read_text('utf-8') == page, (
    f'run {results_page.COMMAND}'
  )
  for name in ('srtg', 'kinetics', 'convolutions'):
    assert (root / f'docs/{name}_accuracy.png').exists()


def test_all_is_counted(tables, counts):
  assert list(counts) == published.requests(tables)


@pytest.mark.parametrize(
  'request_',
  [
    Request('r2plus1d_34', (), (16, 224, 224)),
    Request('srtg_r3d_50', (), (16, 224, 224)),
    Request('wide_r3d_50', (('class_regularization', True),), (16, 112, 112)),
    Request('mtnet_s', (('cell', 'rnn'),), (13, 182, 182)),
  ],
)
def test_counted_again(request_, counts):
  assert results.count(request_) == counts[request_]


def test_what_has_no_reason_agrees(sized):
  checked = 0
  for row, count in sized:
    parameters = row.number('params_m')
    gflops = row.number('gflops', 'gflops_per_view')
    if parameters and not _about_parameters(row.why):
      assert count.parameters / 1e6 == pytest.approx(parameters, rel=2e-3)
      checked += 1
    if gflops and not _about_cost(row.why):
      assert count.macs / 1e9 == pytest.approx(gflops, rel=1e-2)
      checked += 1
  assert checked == 43


def _about_parameters(why):
  """Whether a reason is one for another number of parameters."""
  keys = ('bias', 'cut', 'cr-resnet', 'mtnet-size', 'ratio', 'mt-r3d')
  more = ('other-net', 'i3d-clip', 'sf-50', 'csn-size', 'slow-only')
  return {*keys, *more} & set(why)


def _about_cost(why):
  keys = ('twice', '112', 'r3d-34', '2plus1d', 'cr-resnet', 'mtnet-cost')
  more = ('mtnet-s', 'ratio', 'mt-r3d', 'other-net', 'back-step', 'i3d-clip')
  more += ('csn-cost', 'slowfast-ablation', 'hara')
  return {*keys, *more} & set(why)


def test_reasons_that_are_sums(sized, counts):
  by_reason = {key: 0 for key in results_page.REASONS}
  ratios = collections.defaultdict(list)
  for row, count in sized:
    gflops = row.number('gflops', 'gflops_per_view')
    for key in row.why:
      by_reason[key] += 1
    if 'twice' in row.why:
      assert 2 * count.macs / 1e9 == pytest.approx(gflops, rel=2e-2)
    if '112' in row.why and not row.overrides and 'r3d' in row.network:
      assert 8 * count.macs / 1e9 == pytest.approx(gflops, rel=4e-2)
    if '2plus1d' in row.why:
      ratio = gflops / (count.macs / 1e9)
      ratios[row.network, row.clip[1]].append(ratio)
    if 'cut' in row.why and not row.overrides:
      assert int(count.parameters / 1e5) / 10 == row.number('params_m')
    if 'bias' in row.why:
      layers = row.network.rpartition('_')[2]
      blocks = {'34': (3, 4, 6, 3), '101': (3, 4, 23, 3)}[layers]
      widths = zip(blocks, (64, 128, 256, 512), strict=True)
      # Two layers of four gates in each block.
      biases = sum(2 * 4 * n * width for n, width in widths)
      left = row.number('params_m') - (count.parameters + biases) / 1e6
      assert round(left, 2) == {'34': 0.09, '101': 0.01}[layers]
  assert all(by_reason.values()), 'a reason that no row has'
  assert round(ratios['r2plus1d_34', 224][0], 2) == 0.94
  assert 4.3 < ratios['r2plus1d_101', 224][0] < 4.4
  (large,), small = (ratios['r2plus1d_50', size] for size in (224, 112))
  assert small[0] / large == pytest.approx(4, rel=0.02)
  # What MTNet-S is said to have at Table 5.1's clip: there it is MTNet-M.
  medium = counts[Request('mtnet_m', (), (16, 256, 256))]
  assert round(medium.macs / 1e9, 1) == 5.8


def test_what_the_rows_of_other_authors_are_of(sized, counts):
  """The reasons' sums, from networks that the tables count or others."""

  def macs(*request):
    name, clip = request
    found = counts.get(Request(name, (), clip))
    found = found or results.count(Request(name, (), clip))
    return round(found.macs / 1e9, 2)

  own, i3d, wide = (32, 224, 224), (64, 224, 224), (32, 256, 256)
  assert macs('ip_csn_101', own) == pytest.approx(63.6, rel=1e-3)
  assert macs('ir_csn_101', own) == 56.47
  assert macs('ir_csn_101', wide) == 73.75
  assert round(macs('ip_csn_101', (8, 224, 224)), 1) == 15.9
  assert round(macs('ip_csn_152', (8, 224, 224)), 1) == 20.8
  assert round(macs('i3d_inception', i3d), 1) == 111.2
  assert round(macs('i3d_inception', (16, 224, 224)), 1) == 27.8
  assert macs('x3d_xl', (16, 224, 224)) == 17.87
  assert round(macs('slowfast_r101_8x8', wide), 1) == 125.9
  for row, count in sized:
    if 'hara' in row.why:
      above = row.number('gflops') / (2 * count.macs / 1e9) - 1
      assert 0 < above < 0.03, row.network
    if 'csn-size' in row.why:
      above = count.parameters / 1e6 / row.number('params_m') - 1
      assert 0.004 < above < 0.007, row.network


def test_the_cost_of_slowfast_in_table_5_2(counts):
  """Of frames that become channels between the pathways, by hand."""
  frames, alpha = 4, 8
  # What goes out of the stem's pool and of stages 1 to 3.
  sides, fast = (64, 64, 32, 16), (8, 32, 64, 128)
  convolutions = sum(
    5 * c * 2 * c * frames * side**2
    for c, side in zip(fast, sides, strict=True)
  )

  def read(channels):
    """What the slow stages' first blocks make of so many channels more."""
    total = 0
    for stage, (more, side) in enumerate(zip(channels, sides, strict=True)):
      inner, kernel = 64 * 2**stage, (1, 1, 3, 3)[stage]
      out = side if stage == 0 else side // 2
      total += kernel * more * inner * frames * side**2
      total += more * 4 * inner * frames * out**2
    return total

  ours = counts[Request('slowfast_r50_4x16', (), (32, 256, 256))].macs
  plain = ours - convolutions - read([2 * c for c in fast])
  assert round((plain + read([alpha * c for c in fast])) / 1e9, 2) == 39.86
  assert round(ours / 1e9, 2) == 36.10


def test_published_accuracies_of_sf_101():
  listed = {row.name: row.top1 for row in weights.rows()}
  assert listed['slowfast_r101_8x8_pytorchvideo'] == '77.90'
  assert listed['slowfast_r101_16x8_pytorchvideo'] == '78.70'


def test_cells_differ_by_twice_what_is_printed(sized, counts):
  for name in ('mtnet_s', 'mtnet_m'):
    printed, ours = {}, {}
    for row, count in sized:
      if 'cells' in row.why and row.network == name:
        cell = row.printed['cell']
        printed[cell] = row.number('params_m')
        ours[cell] = count.parameters / 1e6
    for cell in ('gru', 'lstm'):
      one_layer = (ours[cell] - ours['rnn']) / 2
      assert round(one_layer, 1) == round(printed[cell] - printed['rnn'], 1)


def test_class_regularization_adds_what_the_reasons_say(counts):
  for plain, added, macs in (
    (Request('mtnet_m', (), (16, 256, 256)), 0.74, 0.30),
    (Request('r3d_50', (), (16, 112, 112)), 0.49, 0.20),
  ):
    regularized = plain._replace(overrides=(('class_regularization', True),))
    more = counts[regularized].parameters - counts[plain].parameters
    assert round(more / 1e6, 2) == added
    more = counts[regularized].macs - counts[plain].macs
    assert round(more / 1e9, 2) == macs


def test_only_400_classes_give_the_published_parameters(counts):
  plain = counts[Request('r3d_34', (), (16, 224, 224))].parameters
  assert round(plain / 1e6, 1) == 63.7
  hacs = plain - 200 * (512 + 1)
  assert round(hacs / 1e6, 1) == 63.6


@pytest.fixture
def run(tmp_path):
  """The folder of an evaluated run of MTNet-XS on three classes."""
  workdir = tmp_path / 'run'
  (workdir / 'evaluation').mkdir(parents=True)
  config = {
    'data': {'num_frames': 4, 'frame_stride': 1, 'short_videos': 'repeat'},
    'eval': {
      'num_clips': 2, 'num_crops': 3, 'crop_size': 40, 'input_size': 32,
      'clips_per_step': 1,
    },
    'model': {'name': 'mtnet_xs', 'recurrence': False, 'cell': None},
  }  # fmt: skip
  (workdir / 'config.json').write_text(json.dumps(config))
  (workdir / 'labels.txt').write_text('one\ntwo\nthree\n')
  summary = json.dumps({'top1': 0.625})
  (workdir / 'evaluation/summary.json').write_text(summary)
  return workdir


def test_an_own_run(run, monkeypatch):
  monkeypatch.chdir(run.parent)
  run.rename('lr=0.1')
  got = results.read_run('my own=lr=0.1')
  assert (got.label, got.workdir, got.network) == (
    'my own', 'lr=0.1', 'mtnet_xs'
  )  # fmt: skip
  assert got.overrides == (('recurrence', False),)
  assert (got.num_classes, got.clip, got.views) == (3, (4, 32, 32), 6)
  assert got.top1 == 0.625
  model = results.models.build('mtnet_xs', 3, recurrence=False)
  total = cost.count(model, (4, 32, 32, 3)).total
  assert got.count == Count(total.parameters, total.macs)


def test_runs_that_cannot_be_read(run):
  for text in ('no workdir', '=folder', 'label='):
    with pytest.raises(UserError, match='must be LABEL=WORKDIR'):
      results.read_run(text)
  summary = run / 'evaluation/summary.json'
  for content in ('{', '{}', '[]', '{"top1": 7}', '{"top1": null}'):
    summary.write_text(content)
    with pytest.raises(
      UserError, match=r'summary\.json is not what mtnet eval'
    ):
      results.read_run(f'a={run}')
  summary.unlink()
  with pytest.raises(UserError, match=r'Evaluate the run with mtnet eval'):
    results.read_run(f'a={run}')
  config = json.loads((run / 'config.json').read_text())
  summary.write_text('{"top1": 0.5}')
  for key in ('local_ratio', 'dropout'):
    ill = config | {'model': config['model'] | {key: 'high'}}
    (run / 'config.json').write_text(json.dumps(ill))
    with pytest.raises(
      UserError, match=r'config\.json makes no network: .*str'
    ):
      results.read_run(f'a={run}')
  (run / 'config.json').unlink()
  with pytest.raises(UserError, match=r'config\.json cannot be read'):
    results.read_run(f'a={run}')


def test_everything_is_written(tmp_path, tables, counts, monkeypatch):
  monkeypatch.setattr(results, 'count', counts.__getitem__)
  mine = results_page.Run(
    'My own\n |  *run*', 'runs/`mine`', 'mtnet_xs',
    (('cell', 'gru'), ('gate', True)), 3, (4, 32, 32), 6, 0.625,
    Count(1_234_567, 98_765_432),
  )  # fmt: skip
  results.write(tmp_path / 'new', [mine])
  assert _read_counts(tmp_path / 'new/results.csv', tables) == counts
  lines = (tmp_path / 'new/results.md').read_text('utf-8').splitlines()
  assert (
    r'| My own \| \*run\* (runs/\`mine\`) | `mtnet_xs cell=gru gate=True` '
    '| 4×32² | 3 | 1.23 | 0.0988 | 6 | 62.5 |'
  ) in lines
  for name in ('srtg', 'kinetics', 'convolutions'):
    path = tmp_path / f'new/{name}_accuracy.png'
    assert path.read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
  'name', ['results.md', 'results.csv', accuracy_over_cost.FIGURES[0]]
)
def test_what_cannot_be_written_is_told_first(name, tmp_path, monkeypatch):
  monkeypatch.setattr(results, 'count', lambda _: pytest.fail('counted'))
  (tmp_path / name).mkdir()
  with pytest.raises(UserError, match=f'{name} is a folder'):
    results.write(tmp_path, [])


def test_a_row_of_the_page(tables):
  table = tables['table_5_6_local_ratio_hacs']
  count = Count(parameters=10_320_000, macs=10_900_000_000)
  cells = results_page.cells(table.rows[1], {table.rows[1].request: count})
  assert cells == {
    'model': 'MTNet-M', 'δ': '0.875', 'top-1': '83.4',
    'top-5': '95.9', 'GFLOPs': '8.8', 'GMACs': '10.90', '% ': '+23.9',
    'M parameters': '25.8', 'ours': '10.32', '%': '-60.0',
    'network here': '`mtnet_m local_ratio=0.875`', 'clip': '16×256²',
    'why': 'ratio',
  }  # fmt: skip


def test_areas_are_parameters():
  marks = [
    accuracy_over_cost.Disc('a', 5.0, 70.0, 10.0, 'others'),
    accuracy_over_cost.Disc('b', 50.0, 80.0, 60.0, 'SRTG'),
  ]
  stars = [
    accuracy_over_cost.Star('large', 7.0, 72.0, 20.0),
    accuracy_over_cost.Star('small', 8.0, 74.0, 0.2),
  ]
  figure = accuracy_over_cost.draw([accuracy_over_cost.Panel('', marks)], stars)
  area = {}
  for drawn in figure.axes[0].collections:
    ((x, y),), (size,) = drawn.get_offsets(), drawn.get_sizes()
    # A disc and the white below it are of one size.
    assert area.setdefault((float(x), float(y)), size) == size
  a, b, large, small = (
    area[mark.gflops, mark.top1] for mark in (*marks, *stars)
  )
  np.testing.assert_allclose([b / a, large / a], [6, 2])
  assert small > area[5.0, 70.0] * 0.2 / 10 and small > 7**2


def test_labels_do_not_cover_each_other(tables):
  own = [
    accuracy_over_cost.Star('Mine', 2.57, 81.0, 8.6),
    accuracy_over_cost.Star('Mine too', 9.0, 76.8, 60.0),
  ]
  for panel in (
    accuracy_over_cost.kinetics_panel(tables),
    *accuracy_over_cost.srtg_panels(tables),
  ):  # fmt: skip
    figure = accuracy_over_cost.draw([panel], own)
    axes = figure.axes[0]
    texts = [text for text in axes.texts if text.get_text()]
    named = [disc for disc in panel.discs if disc.label]
    assert len(texts) == len(named) + len(own)
    boxes = [text.get_window_extent() for text in texts]
    for i, box in enumerate(boxes):
      assert axes.bbox.padded(1).contains(box.x0, box.y0)
      assert axes.bbox.padded(1).contains(box.x1, box.y1)
      for other in boxes[:i]:
        assert (
          accuracy_over_cost.overlap(box, other) < 0.02 * box.width * box.height
        )
