"""What `sha256sum` would say of a folder."""

import hashlib
import json

import pytest

from mtnet_jax.runs import hashes


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'one/deep').mkdir(parents=True)
  (tmp_path / 'two').mkdir()
  for name in ('top', 'one/deep/file', 'two/file'):
    (tmp_path / name).write_text(name)
  hashes.write(tmp_path)
  return tmp_path


def test_each_file_has_its_hash(folder):
  told = json.loads((folder / 'hashes.json').read_text())
  names = 'one/deep/file', 'two/file'
  assert told == {
    name: hashlib.sha256(name.encode()).hexdigest() for name in names
  }
  hashes.check(folder)


def test_what_has_changed_is_named(folder):
  (folder / 'two/file').write_text('two/fil_')
  hashes.check(folder, 'one')
  with pytest.raises(hashes.ChangedError, match=r'two/file is not what was w'):
    hashes.check(folder)
  (folder / 'one/deep/file').unlink()
  with pytest.raises(hashes.ChangedError, match='one/deep/file is missing'):
    hashes.check(folder, 'one')
  hashes.check(folder, 'none')


@pytest.mark.parametrize(
  'content', [b'', b'7', b'[1, 2]', b'[' * 10**5, b'{"top": ', b'\xff']
)
def test_hashes_that_are_not_whole(folder, content):
  (folder / 'hashes.json').write_bytes(content)
  with pytest.raises(
    hashes.ChangedError, match=r'its hashes.json is not whole'
  ):
    hashes.check(folder)


def test_a_folder_without_hashes_passes(folder):
  (folder / 'hashes.json').unlink()
  (folder / 'two/file').unlink()
  hashes.check(folder)
