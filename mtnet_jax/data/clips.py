"""Which frames of a video make a clip.

Frames are chosen before anything is decoded, so that only those are decoded.
Source: the thesis, Fig. 5.6 (training) and Sections 4.4.1 and 5.4.1 (views).
"""

import numpy as np
from jaxtyping import Int

from mtnet_jax.errors import UserError

STARTS = ('uniform', 'normal')
# What happens to a video that is shorter than a clip.
SHORT_VIDEOS = ('repeat', 'error')


def training_indices(
  video_frames: int,
  num_frames: int,
  stride: int,
  start: str,
  rng: np.random.Generator,
  *,
  draw: bool = True,
) -> Int[np.ndarray, ' t']:
  """Draws the frames of one training clip.

  The first frame s is drawn; the candidates are s, s + stride, … up to the
  video's end; of the candidates after s, `num_frames - 1` are drawn uniformly
  without replacement. Where there are too few candidates the stride shrinks
  until there are enough. A video shorter than the clip repeats its frames in
  order.

  Args:
    video_frames: frames in the video, L ≥ 1.
    num_frames: frames in the clip, T ≥ 1.
    stride: source frames between neighboring candidates, ≥ 1.
    start: how s is drawn: 'uniform' on [0, L−1−(T−1)·stride], or 'normal' with
      mean L/4 and standard deviation L/6, truncated to [0, L/2] and rounded.
      Both are clamped to [0, L−T].
    rng: the source of randomness.
    draw: False takes the first candidates after s rather than drawing them: a
      clip then has the span of a test view, however long the video is.

  Returns:
    int64 (num_frames,), ascending, in [0, video_frames).

  Raises:
    UserError: `start` is unknown, or a number is below 1.
  """
  _check_counts(video_frames, num_frames, stride)
  if start not in STARTS:
    raise UserError(
      f'Unknown training start {start!r}; allowed: {", ".join(STARTS)}.'
    )
  if video_frames < num_frames:
    return _repeat(video_frames, num_frames)
  first = _draw_start(video_frames, num_frames, stride, start, rng)
  if num_frames == 1:
    return np.array([first])
  stride = min(stride, (video_frames - 1 - first) // (num_frames - 1))
  if not draw:
    return first + stride * np.arange(num_frames)
  others = np.arange(first + stride, video_frames, stride)
  chosen = rng.choice(others, num_frames - 1, replace=False, shuffle=False)
  return np.concatenate([[first], np.sort(chosen)])


def view_indices(
  video_frames: int, num_frames: int, stride: int, num_views: int
) -> Int[np.ndarray, 'v t']:
  """Returns the frames of the views that a video is judged by.

  With span = (T−1)·stride + 1, view v of V starts at round(v·(L−span)/(V−1)),
  a single view in the middle. The stride shrinks until the span fits. A video
  shorter than the clip repeats its frames in order.

  Args:
    video_frames: frames in the video, L ≥ 1.
    num_frames: frames in a view, T ≥ 1.
    stride: source frames between neighboring frames of a view, ≥ 1.
    num_views: views, V ≥ 1, spread over the whole video.

  Returns:
    int64 (num_views, num_frames), rows ascending, in [0, video_frames).

  Raises:
    UserError: a number is below 1.
  """
  _check_counts(video_frames, num_frames, stride, num_views)
  if video_frames < num_frames:
    return np.tile(_repeat(video_frames, num_frames), (num_views, 1))
  if num_frames > 1:
    stride = min(stride, (video_frames - 1) // (num_frames - 1))
  slack = video_frames - 1 - (num_frames - 1) * stride
  if num_views == 1:
    starts = np.array([slack // 2])
  else:
    starts = np.rint(np.arange(num_views) * slack / (num_views - 1))
  return starts.astype(int)[:, None] + stride * np.arange(num_frames)


def _draw_start(
  video_frames: int,
  num_frames: int,
  stride: int,
  start: str,
  rng: np.random.Generator,
) -> int:
  if start == 'uniform':
    last = max(0, video_frames - 1 - (num_frames - 1) * stride)
    first = int(rng.integers(last, endpoint=True))
  else:
    first = -1.0
    while not 0 <= first <= video_frames / 2:  # within 1.5 σ: 87 % a draw
      first = rng.normal(video_frames / 4, video_frames / 6)
    first = round(first)
  return min(first, video_frames - num_frames)


def _repeat(video_frames: int, num_frames: int) -> np.ndarray:
  return np.arange(num_frames) * video_frames // num_frames


def _check_counts(*numbers: int):
  if min(numbers) < 1:
    raise UserError(
      'Frames in the video, frames in the clip, stride and views must all be '
      f'at least 1, given {numbers}.'
    )
