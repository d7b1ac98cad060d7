"""From listed videos to records, with everything that goes wrong."""

import hashlib
import json

import pytest

from mtnet_jax.data import preparation, records, sources
from mtnet_jax.data.video import VideoReader
from mtnet_jax.errors import UserError
from tests.data import coded_video


def _write(path, num_frames=20):
  path.parent.mkdir(parents=True, exist_ok=True)
  return coded_video.write(path, coded_video.frames(num_frames))


@pytest.fixture
def videos(tmp_path):
  """Five training videos, a text and a short one among them; one for test."""
  root = tmp_path / 'videos'
  for name in ('hug/1', 'hug/2', 'wave/1'):
    _write(root / f'train/{name}.mp4')
  _write(root / 'train/wave/short.mp4', 5)
  (root / 'train/wave/text.mp4').write_text('no video')
  _write(root / 'test/wave/1.mp4')
  return root


def _prepare(path, out, **options):
  return preparation.write(sources.list_videos(path), out, **options)


def _ids(out, split):
  return [example.id for example in sources.open_source(out, split)]


def test_records_and_manifest(videos, tmp_path):
  out = tmp_path / 'deep' / 'records'
  manifest = _prepare(videos, out, num_shards=2)
  train = sources.open_source(out, 'train')
  assert train.labels == ('hug', 'wave')
  assert sorted(_ids(out, 'train')) == [
    'train/hug/1.mp4',
    'train/hug/2.mp4',
    'train/wave/1.mp4',
    'train/wave/short.mp4',
  ]
  assert _ids(out, 'test') == ['test/wave/1.mp4']
  for example in train:
    assert example.label == ('wave' in example.id)
    assert example.video == (videos / example.id).read_bytes()

  assert manifest == json.loads((out / 'manifest.json').read_text())
  assert manifest['labels'] == ['hug', 'wave']
  assert manifest['splits'] == {
    'train': {
      'written': 4,
      'skipped': 1,
      'missing': 0,
      'broken': 1,
      'short': 1,
      'classes': {'hug': 2, 'wave': 2},
    },
    'test': {
      'written': 1,
      'skipped': 0,
      'missing': 0,
      'broken': 0,
      'short': 0,
      'classes': {'wave': 1},
    },
  }
  skipped, short = {}, {}
  for name, report in manifest['shards'].items():
    contents = (out / name).read_bytes()
    assert report['sha256'] == hashlib.sha256(contents).hexdigest()
    assert report['bytes'] == len(contents)
    beside = (out / name).with_suffix('.json')
    assert json.loads(beside.read_text()) == report
    skipped |= report['skipped']
    short |= report['short']
  assert list(skipped) == ['train/wave/text.mp4']
  assert 'Invalid data' in skipped['train/wave/text.mp4']
  assert short == {'train/wave/short.mp4': 5}


def test_a_csv_with_missing_files_and_parts_of_videos(tmp_path):
  _write(tmp_path / 'a.mp4', 40)  # at 25 a second
  (tmp_path / 'clips.csv').write_text(
    'path,label,split,start,end\n'
    'a.mp4,wave,train,0.2,1\n'
    'a.mp4,hug,train,1,\n'
    'a.mp4,hug,test,2,3\n'  # the video ends before
    'gone.mp4,hug,train,,\n'
  )
  out = tmp_path / 'out'
  manifest = _prepare(tmp_path / 'clips.csv', out)
  found = {}
  for example in sources.open_source(out, 'train'):
    assert (example.start, example.end) == (None, None)
    with VideoReader(example.video) as video:
      assert (video.height, video.width) == (48, 64)
      found[example.id] = coded_video.numbers(
        video.read(range(video.num_frames))
      )
  assert found == {
    'a.mp4#0.2-1.0': [*range(5, 25)],
    'a.mp4#1.0-': [*range(25, 40)],
  }
  train, test = (manifest['splits'][split] for split in ('train', 'test'))
  assert (train['skipped'], train['missing'], train['broken']) == (1, 1, 0)
  assert (test['skipped'], test['missing'], test['broken']) == (1, 0, 1)
  reasons = {}
  for report in manifest['shards'].values():
    reasons |= report['skipped']
  assert reasons['gone.mp4'] == 'No such file or directory'
  assert 'no frame from 2.0 s to 3.0 s' in reasons['a.mp4#2.0-3.0']
  with pytest.raises(UserError, match='empty: no video could be read'):
    sources.open_source(out, 'test')


def test_finished_files_are_kept_and_others_are_made(
  videos, tmp_path, monkeypatch
):
  out = tmp_path / 'out'
  written = []
  write = records.write

  def failing_third(path, examples):
    if len(written) == 2:
      raise KeyboardInterrupt
    write(path, examples)
    written.append(path.name)

  monkeypatch.setattr(records, 'write', failing_third)
  with pytest.raises(KeyboardInterrupt):
    _prepare(videos, out, num_shards=2)
  with pytest.raises(UserError, match='is missing'):
    sources.open_source(out, 'train')

  monkeypatch.setattr(
    records, 'write', lambda *a: (write(*a), written.append(a[0].name))
  )
  manifest = _prepare(videos, out, num_shards=2)
  # Each once: the second call made only what the first one had not.
  assert written == list(manifest['shards']) and len(written) == 4
  assert len(_ids(out, 'train')) == 4
  assert _prepare(videos, out, num_shards=2) == manifest
  assert len(written) == 4

  # A mended video changes its own file only.
  _write(videos / 'train/wave/text.mp4')
  again = _prepare(videos, out, num_shards=2)
  assert len(written) == 5
  assert again['splits']['train']['skipped'] == 0
  assert 'train/wave/text.mp4' in _ids(out, 'train')


def test_videos_are_encoded_small(tmp_path):
  _write(tmp_path / 'a.mp4', 40)  # at 25 a second
  _write(tmp_path / 'b.mp4', 20)
  (tmp_path / 'half.mp4').write_bytes((tmp_path / 'b.mp4').read_bytes()[:900])
  (tmp_path / 'clips.csv').write_text(
    'path,label,split,start,end\n'
    'a.mp4,wave,train,0.2,1\na.mp4,hug,train,1,\nb.mp4,hug,train,,\n'
    'half.mp4,hug,train,,\ngone.mp4,hug,train,,\nb.mp4,hug,test,,0.4\n'
  )
  out = tmp_path / 'out'
  manifest = _prepare(tmp_path / 'clips.csv', out, short_side=24)
  assert manifest['short_side'] == 24
  assert manifest['splits']['train']['written'] == 3
  assert manifest['splits']['test']['short'] == 1
  (report,) = (
    manifest['shards'][n] for n in manifest['shards'] if 'train' in n
  )
  assert sorted(report['skipped']) == ['gone.mp4', 'half.mp4']
  assert report['skipped']['gone.mp4'] == 'No such file or directory'
  found = {}
  for split in ('train', 'test'):
    for example in sources.open_source(out, split):
      assert (example.start, example.end) == (None, None)
      with VideoReader(example.video) as video:
        assert (video.height, video.width) == (24, 32)
        frames = video.read(range(video.num_frames))
      found[example.id] = coded_video.numbers(frames)
  assert found == {
    'a.mp4#0.2-1.0': [*range(5, 25)],
    'a.mp4#1.0-': [*range(25, 40)],
    'b.mp4#0.0-': [*range(20)],
    'b.mp4#0.0-0.4': [*range(10)],
  }


def test_another_size_makes_the_records_anew(videos, tmp_path):
  out = tmp_path / 'out'
  sums = []
  for side in (24, 24, 16, 0):
    manifest = _prepare(videos, out, short_side=side)
    reports = manifest['shards'].values()
    sums.append(tuple(report['sha256'] for report in reports))
    with VideoReader(sources.open_source(out, 'test')[0].video) as video:
      assert video.height == (side or 48)
  # One thread an encoder: the same video gives the same bytes again.
  assert sums[0] == sums[1] and len(set(sums)) == 3
  with pytest.raises(UserError, match=r'short_side=25 must be even'):
    _prepare(videos, out, short_side=25)


def test_names_that_stand_for_two_videos(tmp_path):
  path = _write(tmp_path / 'a.mp4')
  example = records.Example('a', 0, path)
  splits = {'train': (example,), 'val': (example,)}
  listing = sources.Listing(('hug',), splits, str(tmp_path))
  with pytest.raises(UserError, match=r"1 names .* the first is 'a'"):
    preparation.write(listing, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_classes_without_a_training_video_are_named(tmp_path, caplog):
  for name in ('train/hug/1', 'test/hug/2', 'test/wave/3'):
    _write(tmp_path / f'videos/{name}.mp4')
  (tmp_path / 'videos/train/jump').mkdir()
  (tmp_path / 'videos/train/jump/4.mp4').write_text('no video')
  _prepare(tmp_path / 'videos', tmp_path / 'out')
  assert '2 of 3 classes have no training video' in caplog.text
  assert caplog.text.rstrip().endswith('cannot be learned: jump, wave')


def test_records_of_another_preparation_are_not_mixed(videos, tmp_path):
  out = tmp_path / 'out'
  _prepare(videos, out, num_shards=2)
  with pytest.raises(UserError, match='records of another preparation, such'):
    _prepare(videos, out, num_shards=3)
  assert len(_ids(out, 'train')) == 4  # those that are there stay usable


def test_the_videos_own_folder_is_no_place_for_records(tmp_path):
  _write(tmp_path / 'lists/videos/a.mp4')
  csv = tmp_path / 'lists/mine.csv'
  csv.write_text('path,label,split\nvideos/a.mp4,wave,train\n')
  (tmp_path / 'lists/labels.txt').write_text('wave\n')
  (tmp_path / 'link').symlink_to(tmp_path / 'lists')
  for out in ('lists', 'link', 'lists/videos'):
    with pytest.raises(UserError, match='holds the videos: give another fold'):
      _prepare(csv, tmp_path / out)
  folder = tmp_path / 'class_folders'
  _write(folder / 'wave/a.mp4')
  for out in (folder, folder / 'wave'):
    with pytest.raises(UserError, match='holds the videos: give another fold'):
      _prepare(folder, out)
  assert not [*tmp_path.rglob('*.array_record')]
  assert not [*tmp_path.rglob('manifest.json')]
  assert (tmp_path / 'lists/labels.txt').read_text() == 'wave\n'


@pytest.mark.parametrize(
  'manifest', [None, 'text', '[]', '{"files": []}', '{"shards": {"a": 1}}']
)
def test_files_of_another_origin_are_left_alone(videos, tmp_path, manifest):
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'labels.txt').write_text('mine\n')
  if manifest:
    (out / 'manifest.json').write_text(manifest)
  before = {path: path.read_text() for path in out.iterdir()}
  name = 'manifest.json' if manifest else 'labels.txt'
  with pytest.raises(UserError, match=f'{name} was not written by a prep'):
    _prepare(videos, out)
  assert {path: path.read_text() for path in out.iterdir()} == before


def test_records_outlive_their_videos(videos, tmp_path):
  out, away = tmp_path / 'out', tmp_path / 'away'
  (videos / 'clips.csv').write_text(
    'path,label,split\ntrain/hug/1.mp4,hug,train\ntrain/hug/2.mp4,hug,train\n'
    'test/wave/1.mp4,wave,test\ntest/gone.mp4,wave,val\n'
  )
  first = _prepare(videos / 'clips.csv', out)
  before = {path: path.read_bytes() for path in out.iterdir()}

  (videos / 'train').rename(away)
  for options in ({}, {'short_side': 24}):
    with pytest.raises(UserError, match=r'All videos of .*/train-00000-of-00'):
      _prepare(videos / 'clips.csv', out, **options)
  with pytest.raises(UserError, match=r'preparation, .* Are all videos there'):
    _prepare(videos / 'clips.csv', out, num_shards=2)
  assert {path: path.read_bytes() for path in out.iterdir()} == before

  # Without its report a record file is no less worth.
  (out / 'manifest.json').unlink()
  (out / 'labels.txt').unlink()
  with pytest.raises(UserError, match=r'All videos of .*/train-00000-of-00'):
    _prepare(videos / 'clips.csv', out)
  shard = out / 'train-00000-of-00001.array_record'
  assert shard.read_bytes() == before[shard]

  away.rename(videos / 'train')
  assert _prepare(videos / 'clips.csv', out) == first
  (videos / 'train/hug/1.mp4').unlink()  # one of two: that is meant
  again = _prepare(videos / 'clips.csv', out)
  assert again['splits']['train']['written'] == 1
  # A file without records has none to lose.
  assert first['splits']['val']['written'] == 0
  _prepare(videos / 'clips.csv', out, short_side=24)


def test_a_long_video_is_decoded_around_the_times_only(tmp_path, monkeypatch):
  decoded = 0
  decode_on = VideoReader._decode_on

  def counting(*args):
    nonlocal decoded
    for frame in decode_on(*args):
      decoded += 1
      yield frame

  monkeypatch.setattr(VideoReader, '_decode_on', counting)
  _write(tmp_path / 'a.mp4', 240)  # at 25 a second, a keyframe every 12 frames
  (tmp_path / 'clips.csv').write_text(
    'path,label,split,start,end\na.mp4,wave,train,4,4.4\n'
  )
  _prepare(tmp_path / 'clips.csv', tmp_path / 'out')
  with VideoReader(
    sources.open_source(tmp_path / 'out', 'train')[0].video
  ) as v:
    assert coded_video.numbers(v.read(range(10))) == [*range(100, 110)]
  assert decoded < 60


def test_what_is_printed(tmp_path, capsys):
  classes = {'a': 1, 'b': 2}
  numbers = {'written': 3, 'missing': 21, 'broken': 1, 'short': 1}
  report = {
    'skipped': {f'{i}.mp4': 'gone' for i in range(22)},
    'short': {'s.mp4': 5},
  }
  manifest = {
    'splits': {'train': numbers | {'classes': classes}},
    'shards': {'train-00000-of-00001.array_record': report},
  }
  preparation.show(manifest, tmp_path)
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == (
    'train: 3 videos of 2 classes; 21 missing, 1 broken, 1 short'
  )
  assert lines[1] == 'skipped 0.mp4: gone' and lines[20].startswith('skipped')
  assert lines[21:] == ['and 3 more', f'Everything: {tmp_path}/manifest.json']


def test_nothing_readable_is_an_error(tmp_path):
  (tmp_path / 'videos/wave').mkdir(parents=True)
  (tmp_path / 'videos/wave/1.mp4').write_text('no video')
  with pytest.raises(UserError, match='None of the videos can be read'):
    _prepare(tmp_path / 'videos', tmp_path / 'out')
