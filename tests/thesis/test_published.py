"""The published figures: as the thesis prints them, of networks that exist."""

import csv

import pytest

from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.thesis import published


@pytest.fixture(scope='module')
def tables():
  return published.read_all()


def test_the_tables_of_the_thesis(root, tables):
  directory = root.parent / 'shared/thesis/tables'
  if not directory.exists():
    pytest.skip(
      f"the thesis's tables are not beside the repository: {directory}"
    )
  paths = {path.stem: path for path in directory.glob('*.csv')}
  assert paths.keys() == tables.keys()
  for name, path in paths.items():
    with path.open(encoding='utf-8') as file:
      expected = list(csv.DictReader(file))
    for row in expected:
      if 'network' in row:  # a column of ours
        row['model'] = row.pop('network')
    got = [dict(row.printed) for row in tables[name].rows]
    assert got == expected, name


def test_files_name_their_tables(tables):
  for name, table in tables.items():
    numbers = name.removeprefix('table_').split('_')
    assert table.source[0].startswith('The thesis, Table'), name
    assert '.'.join(numbers[:2]) in table.source[0], name
    if any(not row.network for row in table.rows):
      assert 'other authors are as printed' in ' '.join(table.source), name


def test_networks_can_be_built(tables):
  for table in tables.values():
    for row in table.rows:
      if row.network:
        models.build(row.network, 400, **dict(row.overrides))
      else:
        assert not (row.overrides or row.clip or row.why)


def test_what_is_counted(tables):
  requests = published.requests(tables)
  assert len(set(requests)) == len(requests)
  wanted = published.Request(
    'mtnet_m', (('local_ratio', 0.75),), (16, 256, 256)
  )
  assert wanted in requests
  wanted = published.Request(
    'r3d_50', (('class_regularization', True),), (16, 112, 112)
  )
  assert wanted in requests
  assert ('mtnet_s', (('cell', 'gru'),), (13, 182, 182)) in requests
  # All with sizes that a network here has, and no others.
  for table in tables.values():
    for row in table.rows:
      sized = row.number('params_m', 'gflops', 'gflops_per_view')
      assert (row.request is not None) == bool(row.network and sized)


def test_a_file(tmp_path):
  path = tmp_path / 'table_0_1.csv'
  path.write_text(
    '# The thesis, Table 0.1.\n# More.\n'
    'model,top1,params_m,network,overrides,clip,why\n'
    'A,12.5,,mtnet_xs,cell=lstm gate=True,8x48x64,one two\nB,,3,,,,\n'
  )
  table = published.read(path)
  assert (table.name, table.columns) == (
    'table_0_1', ('model', 'top1', 'params_m')
  )  # fmt: skip
  assert table.source == ('The thesis, Table 0.1.', 'More.')
  a, b = table.rows
  assert a.number('top1') == 12.5 and a.number('params_m') is None
  assert b.number('top1', 'params_m') == 3 and b.number('missing') is None
  assert a.request == (
    'mtnet_xs', (('cell', 'lstm'), ('gate', True)), (8, 48, 64)
  )  # fmt: skip
  assert a.why == ('one', 'two') and b.request is None


def test_no_files(tmp_path):
  with pytest.raises(UserError, match='install it again'):
    published.read_all(tmp_path)
