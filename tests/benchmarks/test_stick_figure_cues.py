"""What simple cues tell of the classes of the stick figures."""

import dataclasses

import numpy as np

from benchmarks import stick_figure_cues
from mtnet_jax.datasets.stick_figures import prepare, sets


def test_cues_of_a_video_are_those_by_hand():
  frames = np.zeros((5, 10, 20, 3), np.float32)
  for i, level in enumerate((0, 1, 3, 13, 15)):  # steps of 1, 2, 10 and 2
    frames[i] = level
  boxes = np.zeros((5, 1, 4))
  boxes[..., 2:] = 5
  boxes[3:, 0, 2] = 9  # one side moves by 0.4 of the height, once
  moving = np.array([False, False, False, True, False])
  cues = stick_figure_cues._cues(frames, boxes, moving, 25.0)
  log = np.log
  expected = {
    'length, frame rate and size': log([5, 25, 20, 10]),
    'boxes and color of one frame': [
      *(2 * [0, 0, 0.5, 0.5]), *(3 * [3]), *(3 * [0]),
    ],
    'color of the video': [*(3 * [6.4]), *(3 * [np.sqrt(80.8 - 6.4**2)])],
    'differences between frames': log([3.75, 10, 2]),
    'differences between frames, no action': log([1.5, 2, 1.5]),
    # Of 0, 0, 0.4 and 0.
    'movement of the sides of the boxes': [0, 0, np.sqrt(0.04 - 0.01), 0],
  }  # fmt: skip
  assert cues.keys() == expected.keys()
  for cue, values in expected.items():
    np.testing.assert_allclose(
      cues[cue], values, rtol=1e-5, atol=1e-6, err_msg=cue
    )


def test_movement_tells_fast_from_slow_and_formats_do_not(
  tmp_path, monkeypatch
):
  two = dataclasses.replace(
    sets.SETS['speed'], names=('fast_walk', 'slow_walk')
  )
  monkeypatch.setitem(sets.SETS, 'speed', two)
  counts = {'train': 8, 'val': 1, 'test': 5}
  prepare.prepare(tmp_path, counts, figures='speed')
  found = stick_figure_cues.measure(tmp_path)
  # The two videos of a number are of one format: one of them is right.
  assert found['length, frame rate and size'] == [0.5, 0.5]
  assert min(found['movement of the sides of the boxes']) >= 0.8
