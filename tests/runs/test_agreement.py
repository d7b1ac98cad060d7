"""In what do processes differ?"""

import ml_collections
import pytest

from mtnet_jax.data import records, sources
from mtnet_jax.data.records import Example
from mtnet_jax.runs import agreement


@pytest.mark.parametrize(
  ('told', 'said'),
  [
    (
      [{'rate': '0.1'}, {'rate': '0.1'}, {'rate': '0.2'}],
      'rate is 0.1 in process 0 and 0.2 in process 2 (1 such differences)',
    ),
    (
      [{'a': '1', 'b': '2'}, {'a': '1', 'b': '3', 'c': '4'}],
      'b is 2 in process 0 and 3 in process 1 (2 such differences)',
    ),
    (
      [{'a': '1'}, {'a': '1', 'video 7': 'x.mp4'}],
      'video 7 is missing in process 0 and x.mp4 in process 1',
    ),
  ],
)
def test_the_first_difference_is_named(told, said):
  assert said in str(agreement.difference(told))


def test_a_process_agrees_with_itself():
  agreement.check(ml_collections.ConfigDict(), None)


def test_videos_are_told_apart_by_id_and_records_by_file(tmp_path):
  videos = tuple(Example(f'{k}.mp4', 0, f'/here/{k}.mp4') for k in range(3))
  source = sources.Source(('hug',), videos)
  assert list(source.names()) == ['0.mp4', '1.mp4', '2.mp4']
  path = tmp_path / 'train-00000-of-00001.array_record'
  records.write(path, [Example('0.mp4', 0, b'coded')])
  source = sources.Source(('hug',), records.Reader([path]))
  (name,) = source.names()
  assert name == f'{path.name} of {path.stat().st_size} bytes'
