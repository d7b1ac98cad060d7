"""The list of broken videos: what is written, kept, counted, refused."""

import msgpack
import pytest

from mtnet_jax import locations
from mtnet_jax.errors import UserError
from mtnet_jax.runs import quarantine
from mtnet_jax.runs.quarantine import Quarantine


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
  assert b'b\\udcff.mp4' in (tmp_path / 'quarantine.csv').read_bytes()
  caplog.clear()
  written = (tmp_path / 'quarantine.csv').read_bytes()
  again = Quarantine(tmp_path, 1, 0.0)
  again.add(_ODD.items())
  assert len(again) == len(_ODD)
  assert (tmp_path / 'quarantine.csv').read_bytes() == written
  with pytest.raises(UserError) as error:
    again.check(len(_ODD))
  assert 'a,b.mp4: a comma; a "b".mp4: it says "no", and' in str(error.value)


def test_a_resumed_run_goes_on_with_the_list_but_counts_anew(tmp_path):
  first = Quarantine(tmp_path, 10, 0.2)
  first.add([('a', 'x'), ('b', 'y'), ('d', 'w')])
  with pytest.raises(UserError, match=r'^3 of 10'):
    first.check(3)
  resumed = Quarantine(tmp_path, 10, 0.2)  # somebody has mended a and d
  resumed.add([('b', 'y'), ('c', 'z')])
  assert len(resumed) == 2
  resumed.check(2)
  text = (tmp_path / 'quarantine.csv').read_text()
  assert text.splitlines() == ['id,cause', 'a,x', 'b,y', 'd,w', 'c,z']


def test_a_line_that_was_cut_off_is_no_video(tmp_path):
  Quarantine(tmp_path, 10, 0.2).add([('a', 'x'), ('b', 'y')])
  path = tmp_path / 'quarantine.csv'
  path.write_bytes(path.read_bytes()[:-4])  # the disk was full
  again = Quarantine(tmp_path, 10, 0.2)
  again.add([('a', 'x'), ('b', 'y')])  # written once more, not lost
  assert path.read_text().count('b,y') == 1
  path.write_bytes(b'')
  Quarantine(tmp_path, 10, 0.2).add([('c', 'z')])
  assert path.read_text() == 'id,cause\nc,z\n'


@pytest.mark.parametrize(
  ('videos', 'share', 'allowed'),
  [(1000, 0.01, 10), (1099, 0.01, 10), (99, 0.01, 0), (4, 0.5, 2), (7, 0.0, 0)],
)
def test_up_to_the_share_is_allowed(tmp_path, videos, share, allowed):
  quarantine = Quarantine(tmp_path, videos, share)
  for count in range(allowed + 1):
    quarantine.check(count)
    quarantine.add([(f'{count}.mp4', 'gone')])
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


def test_a_video_that_two_processes_have_met_is_one_video(
  tmp_path, monkeypatch
):
  processes = [Quarantine(tmp_path, 100, 0.02, index) for index in range(3)]
  for index, process in enumerate(processes):
    process.add([('a', 'x'), ('b', 'y')][: index + 1])
  asked = []

  def gather(own):  # as the three of them would
    asked.append(own)
    return [msgpack.packb([*p._cause_of.items()]) for p in processes]

  monkeypatch.setattr(quarantine.processes, 'gather', gather)
  processes[0].check(5)  # 1 + 2 + 2 of two videos
  processes[0].check(5)
  assert len(asked) == 1  # they ask again only where there are more
  processes[1].add([('c', 'z')])
  with pytest.raises(UserError, match=r'^3 of 100 .*a: x; b: y; c: z') as error:
    processes[0].check(6)
  assert 'quarantine*.csv' in str(error.value)


def test_a_list_on_a_bucket_grows_and_comes_back(bucket):
  first = Quarantine(bucket, 10, 0.5)
  first.add([('a,b', 'x')])
  first.add([('c', 'größer')])
  again = Quarantine(bucket, 10, 0.5)
  again.add([('c', 'y'), ('d', 'z')])
  found = locations.as_path(bucket) / 'quarantine.csv'
  wanted = 'id,cause\r\n"a,b",x\r\nc,größer\r\nd,z\r\n'
  assert found.read_bytes() == wanted.encode()
