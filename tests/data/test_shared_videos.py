"""Videos that stand in two splits, by path, by link and by bytes."""

import os

import pytest

from mtnet_jax.data import preparation, shared_videos, sources


def _write(root, **contents):
  for name, content in contents.items():
    path = root / f'{name.replace("__", "/")}.mp4'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _warnings(root, caplog):
  sources.open_source(root, 'train')
  return [m for m in caplog.messages if 'same bytes' in m]


def test_equal_files(tmp_path, caplog):
  long = os.urandom(200_000)
  other = bytearray(long)
  other[0] ^= 1  # far from the middle
  _write(
    tmp_path,
    train__up__1=long, train__up__2=b'abc', val__up__3=b'abd',
    test__up__4=long, test__down__5=long, test__up__6=bytes(other),
  )  # fmt: skip
  (message,) = _warnings(tmp_path, caplog)
  assert '2 videos of test are in train too' in message
  assert f'{tmp_path}/train/up/1.mp4 and {tmp_path}/test/down/5.mp4' in message


def test_links_to_one_file(tmp_path, caplog):
  _write(tmp_path, train__up__1=b'abc', val__up__2=b'xyz')
  (tmp_path / 'test/up').mkdir(parents=True)
  os.link(tmp_path / 'train/up/1.mp4', tmp_path / 'test/up/3.mp4')
  (tmp_path / 'test/up/4.mp4').symlink_to(tmp_path / 'val/up/2.mp4')
  found = _warnings(tmp_path, caplog)
  assert len(found) == 2
  assert '1 videos of test are in train too' in found[0]
  assert '1 videos of test are in val too' in found[1]


def test_parts_of_one_video(tmp_path, caplog):
  _write(tmp_path, a=b'abc', b=b'xyz')
  (tmp_path / 'clips.csv').write_text(
    'path,label,split,start,end\n'
    'a.mp4,up,train,0,1\na.mp4,up,train,1,2\n'
    'a.mp4,up,test,2,3\n./a.mp4,up,test,3,4\nb.mp4,up,test,,\n'
  )
  (message,) = _warnings(tmp_path, caplog)
  assert '2 videos of test are in train too' in message


@pytest.mark.parametrize('same', [False, True])
def test_only_files_of_one_size_in_two_splits_are_read(
  tmp_path, caplog, monkeypatch, same
):
  _write(
    tmp_path,
    train__up__1=b'abc', train__up__2=b'abc', val__up__3=b'abcd',
    val__up__4=b'', test__up__5=b'',
  )  # fmt: skip
  if same:
    _write(tmp_path, test__up__6=b'xyz')
  read = []
  sample = shared_videos._digest_of_sample
  monkeypatch.setattr(
    shared_videos,
    '_digest_of_sample',
    lambda path: read.append(os.path.basename(path)) or sample(path),
  )
  assert not _warnings(tmp_path, caplog)
  assert sorted(read) == (['1.mp4', '2.mp4', '6.mp4'] if same else [])


def test_a_preparation_tells_it_too(tmp_path, caplog, write_video):
  import numpy as np

  videos = tmp_path / 'videos'
  write_video(videos / 'train/up/1.mp4', np.zeros((12, 32, 32, 3), np.uint8))
  _write(videos, test__up__2=(videos / 'train/up/1.mp4').read_bytes())
  preparation.write(sources.list_videos(videos), tmp_path / 'out')
  assert '1 videos of test are in train too' in caplog.text
