"""Videos coded frame by frame: what is read is what the files hold."""

import numpy as np

from benchmarks import coded_frames
from mtnet_jax.data import sources
from mtnet_jax.data.batches import open_clip


def test_frames_are_those_of_the_files(blinking_videos, tmp_path):
  folder = tmp_path / 'frames'
  name = coded_frames.write(str(blinking_videos), ('train', 'val'), folder)
  for split in ('train', 'val'):
    files = sources.open_source(blinking_videos, split)
    coded = sources.open_source(name, split)
    assert coded.labels == files.labels
    assert len(coded) == len(files)
    for i, file in enumerate(files):
      assert coded[i].label == file.label
      with open_clip(file) as video, open_clip(coded[i]) as frames:
        assert frames.num_frames == video.num_frames
        every = range(video.num_frames)
        wanted = np.int32(video.read(every))
        # JPEG halves the resolution of colors; another frame is 27 off.
        assert np.abs(frames.read(every) - wanted).mean() < 6
  before = sorted(path.stat().st_mtime_ns for path in folder.iterdir())
  assert coded_frames.write('elsewhere', ('train',), folder) == name
  assert sorted(p.stat().st_mtime_ns for p in folder.iterdir()) == before
