"""A file is whole, the old one or the new, whatever comes between."""

import os
import pathlib

import pytest

from mtnet_jax import files


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
