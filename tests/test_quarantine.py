"""The list of broken videos: what is written, kept, counted, refused."""

import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.quarantine import Quarantine


def test_the_list_as_it_is_written(tmp_path, caplog):
  quarantine = Quarantine(tmp_path, 100, 0.01)
  quarantine.add([])
  assert len(quarantine) == 0 and list(tmp_path.iterdir()) == []
  quarantine.add([('a.mp4', 'no frame in it'), ('b.mp4', 'gone')])
  quarantine.add([('a.mp4', 'another cause'), ('c.mp4', 'gone')])
  assert len(quarantine) == 3
  assert (tmp_path / 'quarantine.csv').read_bytes() == (
    b'id,cause\r\na.mp4,no frame in it\r\nb.mp4,gone\r\nc.mp4,gone\r\n'
  )
  lines = [record.getMessage() for record in caplog.records]
  assert lines == [
    'Left out of training: a.mp4: no frame in it',
    'Left out of training: b.mp4: gone',
    'Left out of training: c.mp4: gone',
  ]


_ODD = {
  'a,b.mp4': 'a comma',
  'a "b".mp4': 'it says "no", and, well: no',
  'two\nlines.mp4': 'so\r\nhas\rthe cause\n',
  'наука/视频 🎬.mp4': 'größer',
  ' blanks ': '',
  '': 'no name',
  'id': 'cause',  # like the header
  'b\udcff.mp4': 'a name that is not UTF-8',
}


def test_odd_names_and_causes_come_back(tmp_path, caplog):
  Quarantine(tmp_path, 1, 1.0).add(_ODD.items())
  assert b'b\xff.mp4' in (tmp_path / 'quarantine.csv').read_bytes()
  caplog.clear()
  again = Quarantine(tmp_path, 1, 1.0)
  assert len(again) == len(_ODD)
  again.add(_ODD.items())
  assert len(again) == len(_ODD) and not caplog.records
  with pytest.raises(UserError) as error:
    Quarantine(tmp_path, 1, 0.0).check(1)
  assert 'a,b.mp4: a comma; a "b".mp4: it says "no", and' in str(error.value)


def test_a_resumed_run_goes_on_with_the_list(tmp_path):
  Quarantine(tmp_path, 10, 0.2).add([('a', 'x'), ('b', 'y')])
  resumed = Quarantine(tmp_path, 10, 0.2)
  resumed.add([('b', 'y'), ('c', 'z')])
  assert len(resumed) == 3
  text = (tmp_path / 'quarantine.csv').read_text()
  assert text.splitlines() == ['id,cause', 'a,x', 'b,y', 'c,z']


def test_a_line_that_was_cut_off_is_no_video(tmp_path):
  Quarantine(tmp_path, 10, 0.2).add([('a', 'x'), ('b', 'y')])
  path = tmp_path / 'quarantine.csv'
  path.write_bytes(path.read_bytes()[:-4])  # the disk was full
  assert len(Quarantine(tmp_path, 10, 0.2)) == 1
  path.write_bytes(b'')
  Quarantine(tmp_path, 10, 0.2).add([('c', 'z')])
  assert path.read_text() == 'id,cause\nc,z\n'


@pytest.mark.parametrize(
  ('videos', 'share', 'allowed'),
  [(1000, 0.01, 10), (1099, 0.01, 10), (99, 0.01, 0), (4, 0.5, 2), (7, 0.0, 0)],
)
def test_up_to_the_share_is_allowed(tmp_path, videos, share, allowed):
  quarantine = Quarantine(tmp_path, videos, share)
  quarantine.check(0)
  quarantine.check(allowed)
  with pytest.raises(UserError):
    quarantine.check(allowed + 1)


def test_too_many_say_which_and_where(tmp_path):
  quarantine = Quarantine(tmp_path, 200, 0.015)
  quarantine.add([(f'{i}.mp4', f'cause {i}') for i in range(4)])
  with pytest.raises(UserError) as error:
    quarantine.check(4)
  message = str(error.value)
  assert message.startswith('4 of 200 training videos cannot be read')
  assert 'data.max_broken_share (=1.50%)' in message
  assert ': 0.mp4: cause 0; 1.mp4: cause 1; 2.mp4: cause 2. ' in message
  assert f'quarantine*.csv in {tmp_path} list them' in message


def test_each_process_has_its_own_list(tmp_path):
  for index in range(3):
    Quarantine(tmp_path, 100, 0.1, index).add([(f'{index}.mp4', 'gone')])
  assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
    'quarantine.csv': 'id,cause\n0.mp4,gone\n',
    'quarantine-1.csv': 'id,cause\n1.mp4,gone\n',
    'quarantine-2.csv': 'id,cause\n2.mp4,gone\n',
  }
  assert len(Quarantine(tmp_path, 100, 0.1, 2)) == 1
  # What all of them have is what counts, whoever it is that checks.
  for index in (2, 3):
    with pytest.raises(UserError, match=r'^11 of 100 .*quarantine\*\.csv in '):
      Quarantine(tmp_path, 100, 0.1, index).check(11)
