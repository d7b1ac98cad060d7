"""Size, frame rate and length of a video, which say nothing of the action."""

import dataclasses

import numpy as np

_FRAME_RATES = (12, 15, 20, 24, 25, 30)
_FEWEST_FRAMES, _MOST_FRAMES = 20, 90
_SHORTEST, _LONGEST = 1.0, 3.0  # action, seconds
_LONGEST_PAUSE = 0.12  # before and after the action, as a share of the video
_HEIGHTS = (80, 120)  # pixels
_ASPECTS = (1.0, 1.4)  # width over height
_GOLDEN = (5**0.5 - 1) / 2
_IDLE_SECONDS = 4  # of a video of the set `idle`
_IDLE_ACTION = 0.5, 2.0  # shortest and longest, in seconds
_SPEED_SECONDS = 3  # of a video of the set `speed`
_SPEED_FRAME_RATES = (20, 24, 25, 30)


@dataclasses.dataclass(frozen=True)
class Format:
  """A video without its pictures.

  Attributes:
    width: even number of pixels.
    height: even number of pixels.
    fps: frames a second.
    frames: number of frames.
    start: when the action begins, as a share of the video.
    end: when it is over, as a share of the video.
  """

  width: int
  height: int
  fps: int
  frames: int
  start: float
  end: float

  @property
  def seconds(self) -> np.ndarray:
    """Time of each frame, (t,)."""
    return np.arange(self.frames) / self.fps

  @property
  def phase(self) -> np.ndarray:
    """Progress of the action at each frame, (t,), from 0 to 1."""
    share = np.arange(self.frames) / (self.frames - 1)
    return np.clip((share - self.start) / (self.end - self.start), 0, 1)


def sample(index: int, rng: np.random.Generator) -> Format:
  """Draws the format of the video number `index`, which is 0 or more.

  The durations of consecutive numbers spread evenly over their range (steps of
  the golden ratio), so that any ten of them span nearly the factor of 3.
  """
  share = (index + 1) * _GOLDEN % 1.0
  duration = _SHORTEST * (_LONGEST / _SHORTEST) ** share
  before, after = rng.uniform(0, _LONGEST_PAUSE, 2)
  duration = duration / (1 - before - after)
  rates = [
    rate
    for rate in _FRAME_RATES
    if _FEWEST_FRAMES <= round(duration * rate) <= _MOST_FRAMES
  ]
  fps = int(rng.choice(rates))
  size = _sample_size(rng)
  return Format(
    *size, fps, round(duration * fps), float(before), float(1 - after)
  )


def sample_idle(index: int, rng: np.random.Generator) -> Format:
  """Draws a format of four seconds, half to two of which are the action.

  The action begins anywhere; its durations spread as those of `sample`.
  """
  shortest, longest = _IDLE_ACTION
  share = (index + 1) * _GOLDEN % 1.0
  fps = int(rng.choice(_FRAME_RATES))
  last = _IDLE_SECONDS - 1 / fps  # when the last frame is shown
  duration = shortest * (longest / shortest) ** share / last
  start = rng.uniform(0, 1 - duration)
  size = _sample_size(rng)
  return Format(
    *size, fps, _IDLE_SECONDS * fps, float(start), float(start + duration)
  )


def sample_speed(index: int, rng: np.random.Generator) -> Format:
  """Draws a format of three seconds that are filled by a movement.

  The frame rates differ by less than the speeds of two classes do: in frames,
  too, the slow class of a pair is slower than the fast one.
  """
  del index
  fps = int(rng.choice(_SPEED_FRAME_RATES))
  size = _sample_size(rng)
  return Format(*size, fps, _SPEED_SECONDS * fps, 0.0, 1.0)


def _sample_size(rng: np.random.Generator) -> tuple[int, int]:
  """Draws width and height in pixels, both even."""
  height = 2 * round(rng.uniform(*_HEIGHTS) / 2)
  return 2 * round(height * rng.uniform(*_ASPECTS) / 2), height
