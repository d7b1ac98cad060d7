"""What a user's path names, and what is said of those that name nothing."""

import importlib.util
import os
import pathlib

import pytest

from mtnet_jax import locations
from mtnet_jax.errors import UserError
from mtnet_jax.prediction import user_videos
from mtnet_jax.runs import folder


@pytest.mark.parametrize('text', ['a', '/a/b', '../a', 'a:b', 'gs', '.'])
def test_a_path_of_this_machine(text):
  for given in (text, pathlib.Path(text)):
    found = locations.as_path(given)
    assert isinstance(found, pathlib.Path) and str(found) == text
    assert locations.local_path(given) == found
    assert not locations.on_bucket(given)
    assert locations.absolute(given) == pathlib.Path(text).absolute()


def test_a_path_on_a_bucket(bucket):
  found = locations.as_path(bucket)
  assert locations.on_bucket(found) and str(found) == os.fspath(found) == bucket
  assert not isinstance(found, pathlib.Path)
  assert locations.as_path(found) is found
  assert str(locations.absolute(bucket) / 'a' / 'b.txt') == f'{bucket}/a/b.txt'
  (found / 'a').write_bytes(b'\r\n\x00\xff\n')
  assert (locations.as_path(f'{bucket}/a')).read_bytes() == b'\r\n\x00\xff\n'


def test_what_others_have_written_is_seen_at_once(bucket):
  import tensorstore

  found = locations.as_path(bucket)
  (found / 'a').write_text('1')
  assert [path.name for path in found.iterdir()] == ['a']
  name, _, folder = bucket.removeprefix('gs://').partition('/')
  spec = {'driver': 'gcs', 'bucket': name, 'path': f'{folder}/'}
  tensorstore.KvStore.open(spec).result().write('b', b'2').result()
  assert {path.name for path in found.iterdir()} == {'a', 'b'}
  assert (found / 'b').exists()


@pytest.mark.parametrize(
  'text', ['s3://a/b', 'http://a/b', 'az://a', 'file:///a', 'hf://a/b', 'gs:/a']
)
def test_other_addresses_are_no_folders(text):
  for function in (locations.as_path, locations.local_path):
    with pytest.raises(UserError, match='mount the bucket with gcsfuse') as e:
      function(text)
    assert str(e.value).startswith(text)


def test_a_bucket_is_no_folder_of_this_machine():
  for given in ('gs://a/b', pathlib.Path('gs://a/b')):
    with pytest.raises(
      UserError, match=r'^gs:/+a/b is no path of this machine'
    ):
      locations.local_path(given)


@pytest.mark.parametrize('text', ['gs://', 'gs://a', 'gs://a/'])
def test_a_bucket_alone_is_no_folder(text):
  with pytest.raises(UserError, match='give gs://BUCKET/FOLDER'):
    locations.as_path(text)


def test_the_packages_that_it_takes_are_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r'pip install "mtnet_jax\[gcs\]"'):
    locations.as_path('gs://a/b')


def test_a_bucket_that_may_not_be_read_says_so(bucket):
  with pytest.raises(UserError, match=r'does not have storage.objects.list'):
    locations.as_path('gs://forbidden/run')


def test_what_a_bucket_refuses_is_told_from_damage():
  from gcsfs.retry import HttpError

  refusals = [
    HttpError({'code': 503, 'message': 'try later'}),
    ValueError('PERMISSION_DENIED: Error reading "gs://a/b"'),
    OSError('Forbidden: b/a/o'),
  ]
  assert all(map(locations.is_refusal, refusals))
  others = [ValueError('bad zip'), FileNotFoundError('a'), KeyError('a')]
  assert not any(map(locations.is_refusal, others))


def test_results_and_videos_are_local(tmp_path):
  for make in (folder.make_folder, folder.file_path):
    with pytest.raises(UserError, match='mount the bucket'):
      make('gs://a/b')
  with pytest.raises(UserError, match='mount the bucket'):
    user_videos.open_video('gs://a/b.mp4')
  videos, missing = user_videos.find_videos(['gs://a/*.mp4'])
  assert videos == ['gs://a/*.mp4'] and not missing


def test_the_folder_of_a_run_may_be_on_a_bucket(bucket):
  found = folder.make_workdir(bucket)
  assert str(found) == bucket and not found.exists()
  with pytest.raises(
    UserError, match=f'{bucket}/config.json cannot be read: No'
  ):
    folder.read_config(found / 'config.json')
  with pytest.raises(
    UserError, match=r'labels\.txt cannot be read: No such file'
  ):
    folder.read_class_names(found / 'labels.txt')
