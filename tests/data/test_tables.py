"""CSV files as people and programs write them."""

import pytest

from mtnet_jax.data import tables
from mtnet_jax.errors import UserError


def _read(tmp_path, contents, required=('path', 'label')):
  path = tmp_path / 'a.csv'
  path.write_bytes(contents)
  return tables.read(path, required)


def test_rows_with_their_lines(tmp_path):
  contents = (
    'note , label,path\n'
    '"a, ""b""", hug ,x/1.mp4\n'
    '\n'
    '"two\nlines",kick,"x/2 .mp4"\n'
    ',Größe,/3.mp4\t\n'
  ).encode()
  expected = [
    (2, {'note': 'a, "b"', 'label': 'hug', 'path': 'x/1.mp4'}),
    (4, {'note': 'two\nlines', 'label': 'kick', 'path': 'x/2 .mp4'}),
    (6, {'note': '', 'label': 'Größe', 'path': '/3.mp4'}),
  ]
  assert _read(tmp_path, contents) == expected
  # From a spreadsheet: a byte order mark, other ends of lines.
  for end in (b'\r\n', b'\r'):
    text = b'\xef\xbb\xbf' + contents.replace(b'\n', end)
    found = _read(tmp_path, text)
    expected[1][1]['note'] = f'two{end.decode()}lines'
    assert found == expected


def test_values_at_the_end_may_be_missing(tmp_path):
  contents = b'path,label,start,end\n1.mp4,a\n2.mp4,b,1\n3.mp4,c,1,2,,\n'
  assert [list(row.values()) for _, row in _read(tmp_path, contents)] == [
    ['1.mp4', 'a', '', ''],
    ['2.mp4', 'b', '1', ''],
    ['3.mp4', 'c', '1', '2'],
  ]


@pytest.mark.parametrize(
  ('contents', 'message'),
  [
    (b'', 'no column path, label; it has: none'),
    (b'path;label\n1.mp4;a\n', 'no column path, label; it has: path;label'),
    (b'path,name\n', 'column label; it has: path, name. Needed are path, lab'),
    (b'path,label\n', 'no rows, a header only'),
    (b'path,label\n1.mp4,a\n,a\n', 'line 3: no path'),
    (b'path,label\n1.mp4\n', 'line 2: no label'),
    (b'path,label\n1.mp4, \n', 'line 2: no label'),
    (b'path,label\n1.mp4,a\nx, y.mp4,b\n', 'line 3: 3 values for 2 columns'),
    (b'path,label\n1.mp4,caf\xe9\n', 'line 2 cannot be read .* as UTF-8'),
    (b'\xef\xbb\xbfpath,label\n\xff,a\n', 'line 2 cannot be read .* as UTF-8'),
    (b'path,label\n1.mp4,a\n"2.mp4,a\n3.mp4,a\n', 'line 3 cannot be read'),
    (b'path,label\n"1.mp4"x,a\n', "line 2 cannot be read .* ',' expected"),
  ],
)
def test_mistakes_are_named_with_their_line(tmp_path, contents, message):
  with pytest.raises(UserError, match=message):
    _read(tmp_path, contents)


def test_a_file_that_cannot_be_opened(tmp_path):
  with pytest.raises(UserError, match='cannot be read: Is a directory'):
    tables.read(tmp_path, ('path',))


@pytest.mark.parametrize(
  ('text', 'cell'),
  [
    ('a=b+c-d@e', 'a=b+c-d@e'),
    ('=1+1', "'=1+1"),
    ('+1', "'+1"),
    ('-3B32.mp4', "'-3B32.mp4"),
    ('@sum', "'@sum"),
    ('\uff1d1', "'\uff1d1"),  # a wide one
    ("'t is", "''t is"),
    ('', ''),
    ('\t=1', '\\t=1'),
    ('a\r\nb\x1b\udcff', 'a\\r\\nb\\x1b\\udcff'),
    ('Größe \u202f 日本', 'Größe \u202f 日本'),
  ],
)
def test_cells_that_a_spreadsheet_does_not_compute(text, cell):
  assert tables.cell(text) == cell
