"""A file is whole, the old one or the new, whatever comes between."""

import os
import pathlib

import pytest

from mtnet_jax import files
from mtnet_jax.errors import UserError
from mtnet_jax.locations import BucketError, as_path


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('old')
  with files.replacing(path) as partial:
    partial.write_text('new')
    assert path.read_text() == 'old'
    assert partial.parent == tmp_path and partial.name.endswith(files.PARTIAL)
  assert path.read_text() == 'new'
  assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_the_old_one_is_there_alone(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('old')
  with pytest.raises(OSError, match='full'), files.replacing(path) as partial:
    partial.write_text('ne')
    raise OSError('full')
  assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_two_that_write_the_same_file_do_not_meet(tmp_path):
  path = tmp_path / 'a.txt'
  with files.replacing(path) as one, files.replacing(path) as other:
    one.write_text('one')
    other.write_text('other')
  assert path.read_text() == 'one'  # it has ended last
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('durable', [True, False])
def test_it_is_on_the_disk_before_it_has_its_name(
  tmp_path, monkeypatch, durable
):
  done, fsync, replace = [], os.fsync, pathlib.Path.replace

  def note_fsync(file):
    done.append('on the disk')
    fsync(file)

  def note_replace(path, target):
    done.append('named')
    return replace(path, target)

  monkeypatch.setattr(os, 'fsync', note_fsync)
  monkeypatch.setattr(pathlib.Path, 'replace', note_replace)
  with files.replacing(tmp_path / 'a.txt', durable) as partial:
    partial.write_text('new')
  assert done == ['on the disk', 'named'][not durable :]


def test_text_is_utf_8(tmp_path):
  files.write_text(tmp_path / 'a.txt', 'λ\n')
  assert (tmp_path / 'a.txt').read_bytes() == b'\xce\xbb\n'


def test_a_file_on_a_bucket_is_replaced_whole(bucket):
  path = as_path(bucket) / 'a/b.txt'
  files.write_text(path, 'λ\n')
  assert path.read_bytes() == b'\xce\xbb\n'
  files.write_bytes(path, b'\r\n\xff')
  assert path.read_bytes() == b'\r\n\xff'
  assert list(path.parent.iterdir()) == [path]


def test_appending_makes_a_file_and_makes_it_longer(tmp_path, bucket):
  for path in (tmp_path / 'a', as_path(bucket) / 'a'):
    files.append(path, b'1\r\n')
    files.append(path, b'2')
    assert path.read_bytes() == b'1\r\n2'


def test_a_written_folder_is_where_it_was_wanted(tmp_path, bucket):
  for wanted in (tmp_path, as_path(bucket)):
    with files.writing_folder(wanted) as folder:
      (folder / 'below').mkdir()
      (folder / 'a').write_bytes(b'1')
      (folder / 'below/b').write_bytes(b'2')
    assert (wanted / 'a').read_bytes() == b'1'
    assert (wanted / 'below/b').read_bytes() == b'2'


def test_a_folder_moves_with_all_that_it_holds(tmp_path, bucket):
  for root in (tmp_path, as_path(bucket)):
    with files.writing_folder(root) as folder:
      (folder / 'old/below').mkdir(parents=True)
      (folder / 'old/a').write_bytes(b'1')
      (folder / 'old/below/b').write_bytes(b'2')
    files.move_folder(root / 'old', root / 'kept/new')
    assert not (root / 'old').exists()
    assert (root / 'kept/new/a').read_bytes() == b'1'
    assert (root / 'kept/new/below/b').read_bytes() == b'2'


def test_what_cannot_be_written_is_told_before(tmp_path, bucket):
  folder = as_path(bucket)
  files.check_writable(folder)
  files.check_writable(tmp_path)
  assert not list(tmp_path.iterdir()) and not folder.exists()
  with pytest.raises(UserError, match='nowhere/run cannot be used: 404'):
    files.check_writable(as_path('gs://nowhere/run'))
  forbidden = type(folder)('gs://forbidden/run')
  for write in (
    files.check_writable,
    lambda path: files.write_bytes(path, b''),
  ):
    with pytest.raises(OSError, match='does not have storage') as error:
      write(forbidden)
    assert isinstance(error.value, UserError)


def test_a_right_that_checkpoints_take_is_asked_for_before(bucket):
  with pytest.raises(BucketError, match=r'storage\.buckets\.get'):
    files.check_writable(as_path('gs://closed/run'))
