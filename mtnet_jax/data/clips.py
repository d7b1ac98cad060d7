"""Chooses the frames of a video that make a clip.

Frames are chosen before anything is decoded, so that only those are decoded.
Sources: the thesis, Fig. 5.6 (training) and Sections 4.4.1 and 5.4.1 (views);
"Temporal Segment Networks" (2016) for uniform sampling, and for dense sampling
"TSM: Temporal Shift Module for Efficient Video Understanding" (2019) with its
authors' code.
"""

import numpy as np
from jaxtyping import Int

from mtnet_jax.errors import UserError

STARTS = ('uniform', 'normal')
# Frames come from a part of the video, from all of it, or from a window that
# wraps round.
SAMPLINGS = ('clip', 'uniform', 'dense')
# Ways to treat a video that is shorter than a clip.
SHORT_VIDEOS = ('repeat', 'error')


def training_indices(
  video_frames: int,
  num_frames: int,
  stride: int,
  start: str,
  rng: np.random.Generator,
  *,
  draw: bool = True,
  sampling: str = 'clip',
) -> Int[np.ndarray, ' t']:
  """Draws the frames of one training clip.

  'clip': the first frame s is drawn; the candidates are s, s + stride, … up to
  the video's end; of the candidates after s, `num_frames - 1` are drawn
  uniformly without replacement. Where there are too few candidates the stride
  shrinks until there are enough. A video shorter than the clip repeats its
  frames in order.

  'uniform': the video is cut into T equal parts, and of each a frame is drawn:
  of part i, a frame from ⌊i·L/T⌋ on and before ⌊(i+1)·L/T⌋. A part that has
  none, of a video shorter than the clip, repeats frame ⌊i·L/T⌋.

  'dense': the frames s, s + stride, … modulo L, where the window of T·stride
  frames from s on is drawn uniformly among those inside the video; of a video
  that is shorter than the window s is 0.

  Args:
    video_frames: frames in the video, L ≥ 1.
    num_frames: frames in the clip, T ≥ 1.
    stride: source frames between neighboring candidates, ≥ 1.
    start: how s is drawn: 'uniform' on [0, L−1−(T−1)·stride], or 'normal' with
      mean L/4 and standard deviation L/6, truncated to [0, L/2] and rounded.
      Both are clamped to [0, L−T]. Of 'clip' alone.
    rng: the source of randomness.
    draw: False takes the first candidates after s rather than drawing them: a
      clip then has the span of a test view, however long the video is. Of
      'clip' alone.
    sampling: 'clip', 'uniform' or 'dense'.

  Returns:
    int64 (num_frames,), in [0, video_frames); ascending, but for a 'dense' clip
    that wraps round.

  Raises:
    UserError: `start` or `sampling` is unknown, or a number is below 1.
  """
  _check_counts(video_frames, num_frames, stride)
  _check_sampling(sampling)
  if start not in STARTS:
    raise UserError(
      f'Unknown training start {start!r}; allowed: {", ".join(STARTS)}.'
    )
  if sampling == 'uniform':
    borders = np.arange(num_frames + 1) * video_frames // num_frames
    return rng.integers(borders[:-1], np.maximum(borders[1:], borders[:-1] + 1))
  if sampling == 'dense':
    last = max(0, video_frames - num_frames * stride)
    first = rng.integers(last, endpoint=True)
    return (first + stride * np.arange(num_frames)) % video_frames
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
  video_frames: int,
  num_frames: int,
  stride: int,
  num_views: int,
  sampling: str = 'clip',
) -> Int[np.ndarray, 'v t']:
  """Returns the frames of the views that a video is judged by.

  'clip': with span = (T−1)·stride + 1, view v of V starts at
  round(v·(L−span)/(V−1)), a single view in the middle. The stride shrinks until
  the span fits. A video shorter than the clip repeats its frames in order.

  'uniform': with tick = L/T, frame i of view v is ⌊tick·(v/V + 1/2 mod 1) +
  tick·i⌋: a single view has the middle of each of T equal parts, and of two
  views the second has their beginnings.

  'dense': view v starts at ⌊v·(L−T·stride)/(V−1)⌋, a single view in the middle,
  and frames beyond the video's end wrap round by modulo L; of a video that is
  shorter than T·stride every view starts at 0.

  Args:
    video_frames: frames in the video, L ≥ 1.
    num_frames: frames in a view, T ≥ 1.
    stride: source frames between neighboring frames of a view, ≥ 1.
    num_views: views, V ≥ 1, spread over the whole video.
    sampling: 'clip', 'uniform' or 'dense'.

  Returns:
    int64 (num_views, num_frames), in [0, video_frames); rows ascending, but for
    'dense' views that wrap round.

  Raises:
    UserError: `sampling` is unknown, or a number is below 1.
  """
  _check_counts(video_frames, num_frames, stride, num_views)
  _check_sampling(sampling)
  if sampling == 'uniform':
    tick = video_frames / num_frames
    # As v / V + 1/2 mod 1, which would round.
    shares = (2 * np.arange(num_views) + num_views) % (2 * num_views)
    offsets = tick * (shares / (2 * num_views))
    return (offsets[:, None] + tick * np.arange(num_frames)).astype(int)
  if sampling == 'dense':
    last = max(0, video_frames - num_frames * stride)
    starts = np.array([last // 2])
    if num_views > 1:
      starts = np.linspace(0, last, num_views, dtype=int)
    indices = starts[:, None] + stride * np.arange(num_frames)
    return indices % video_frames
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


def shortest(num_frames: int, stride: int, sampling: str) -> int:
  """Returns the fewest frames of a video with which no clip repeats any.

  Args:
    num_frames: frames in a clip.
    stride: source frames between neighboring frames of a clip.
    sampling: 'clip', 'uniform' or 'dense'.
  """
  # The other samplings take frames that are nearer to each other.
  return (num_frames - 1) * stride + 1 if sampling == 'dense' else num_frames


def too_short(
  video_frames: int, num_frames: int, stride: int, sampling: str
) -> str:
  """Says in words that a video has too few frames for a clip, or returns ''."""
  needed = shortest(num_frames, stride, sampling)
  if video_frames >= needed:
    return ''
  spread = f', spread over {needed}' if needed > num_frames else ''
  return f'has {video_frames} frames, a clip has {num_frames}{spread}'


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


def _check_sampling(sampling: str):
  if sampling not in SAMPLINGS:
    raise UserError(
      f'Unknown sampling {sampling!r}; allowed: {", ".join(SAMPLINGS)}.'
    )


def _check_counts(*numbers: int):
  if min(numbers) < 1:
    raise UserError(
      'Frames in the video, frames in the clip, stride and views must all be '
      f'at least 1, given {numbers}.'
    )
