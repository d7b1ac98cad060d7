"""Layers in their plain form, to run beside the fast one.

Each is its definition in a few lines, with no derivative but autodiff's, save
SoftPool's, which is defined by its weights. `plain` puts them in the place of
the fast ones; `watch` notes what a network chooses, and can hold it.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtnet_jax.layers import (
  activation,
  conv,
  mtconv,
  norm,
  pooling,
  precision,
  recurrent,
  srtg,
)
from mtnet_jax.models import mtnet, resnet3d


def conv3d(x, kernel, strides=(1, 1, 1), groups=1):
  """XLA's own 3-D convolution, padded by `k // 2`."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    [(k // 2, k // 2) for k in kernel.shape[:3]],
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
    feature_group_count=groups,
  )


def channel_separated_conv3d(x, kernel, strides=(1, 1, 1)):
  """As `conv3d`, with a group for each channel."""
  return conv3d(x, kernel, strides, groups=x.shape[-1])


def soft_pool(x, gradient='weights', window=(1, 2, 2)):
  """A softmax over each window, by which its elements are weighed."""
  pads = [(0, -size % w) for size, w in zip(x.shape[1:4], window, strict=True)]
  a = jnp.pad(
    precision.widen(x), ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf
  )
  n, t, h, w, c = a.shape
  st, sh, sw = window
  a = a.reshape(n, t // st, st, h // sh, sh, w // sw, sw, c)
  places = (2, 4, 6)
  weights = jax.nn.softmax(a, places)
  if gradient == 'weights':
    weights = jax.lax.stop_gradient(weights)
  a = jnp.where(jnp.isfinite(a), a, 0)
  return jnp.sum(weights * a, places).astype(x.dtype)


def soft_pool_beside(x, frames=None):
  """The input, and frames of it pooled."""
  return x, soft_pool(x if frames is None else gather_frames(x, frames))


def up_sample(x, shape):
  """JAX's own interpolation."""
  shape = (x.shape[0], *shape, x.shape[-1])
  return jax.image.resize(precision.widen(x), shape, 'linear').astype(x.dtype)


def triplet_scores(x):
  """Cosines of each frame with its neighbors, frame by frame."""
  v = jnp.mean(precision.widen(x), axis=(2, 3))  # n t c
  last = v.shape[1] - 1
  if not last:
    return jnp.zeros(v.shape[:2], v.dtype)

  def cosine(i, j):
    a, b = v[:, i], v[:, j]
    norms = [jnp.linalg.norm(u, axis=-1) for u in (a, b)]
    return jnp.sum(a * b, axis=-1) / (
      jnp.maximum(norms[0], 1e-6) * jnp.maximum(norms[1], 1e-6)
    )

  scores = [2 * cosine(0, 1)]
  scores += [cosine(t - 1, t) + cosine(t, t + 1) for t in range(1, last)]
  return jnp.stack([*scores, 2 * cosine(last - 1, last)], axis=1)


def select_frame_indices(x):
  """The frames of the lower half of the scores, by counting those below."""
  scores = triplet_scores(jax.lax.stop_gradient(x))  # n t
  frames = jnp.arange(scores.shape[1])
  before = frames[None, :] < frames[:, None]  # of t, the frames i before it
  mine, others = scores[:, :, None], scores[:, None, :]
  below = (others < mine) | ((others == mine) & before[None])
  keep = max(1, len(frames) // 2)
  kept = jnp.sum(below, axis=2) < keep
  # `where` lists them in order, and there are as many in every clip.
  find = functools.partial(jnp.where, size=keep)
  return jax.vmap(lambda clip: find(clip)[0])(kept).astype(jnp.int32)


def gather_frames(x, indices):
  """A product with rows that are one at the frame and zero elsewhere."""
  rows = jax.nn.one_hot(indices, x.shape[1], dtype=x.dtype)  # n k t
  return jnp.einsum('nkt,nthwc->nkhwc', rows, x)


def gate_scores(a, b):
  """How far each clip is from being cycle consistent, below 0 where it is.

  The greatest difference, over frames and both ways, between the distance of a
  frame's soft nearest neighbor to its own frame and to the nearest other one.
  """

  def one_way(a, b):
    a, b = precision.widen(a), precision.widen(b)
    z = jax.nn.softmax(-jnp.sum((a[:, :, None] - b[:, None]) ** 2, -1), -1)
    soft = jnp.einsum('nti,nic->ntc', z, b)
    distances = jnp.sum((soft[:, :, None] - b[:, None]) ** 2, -1)  # n t i
    own = jnp.eye(a.shape[1], dtype=bool)[None]
    others = jnp.where(own, jnp.inf, distances).min(-1)
    return jnp.max(jnp.einsum('ntt->nt', distances) - others, axis=1)

  return jnp.maximum(one_way(a, b), one_way(b, a))


def cycle_consistent(a, b):
  """Whether every frame is nearer to its own than to any other."""
  return gate_scores(a, b) < 0


# Those of `jax.nn` keep what autodiff keeps.
_ACTIVATIONS = {
  None: lambda x: x,
  activation.relu: nn.relu,
  activation.swish: nn.swish,
}


def scale_and_activate(x, gain, offset, activation, dtype):
  """The activation of `x · gain + offset`."""
  y = precision.widen(x) * gain + offset
  return _ACTIVATIONS.get(activation, activation)(y.astype(dtype))


class BatchNorm(norm.BatchNorm):
  """Mean and variance by their definition, sub-batch by sub-batch."""

  @nn.compact
  def __call__(self, x, activation=None):
    c = x.shape[-1]
    scale = self.param('scale', self.scale_init, (c,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (c,), jnp.float32)
    moving = [
      self.variable('batch_stats', 'mean', jnp.zeros, (c,)),
      self.variable('batch_stats', 'var', jnp.ones, (c,)),
    ]
    parts, found = [x], [[m.value for m in moving]]
    if not self.use_running_average:
      parts = jnp.split(x, len(x) // (self.batch_size or len(x)))
      axes = tuple(range(x.ndim - 1))
      found = []
      for part in map(precision.widen, parts):
        mean = jnp.mean(part, axes, keepdims=True)
        var = jnp.mean((part - mean) ** 2, axes)
        found.append([mean.reshape(c), var])
      for m, batch in zip(moving, zip(*found, strict=True), strict=True):
        self.sow(norm.MOMENTS, m.name, jnp.stack(batch))
        new = sum(batch) / len(batch)
        m.value = self.momentum * m.value + (1 - self.momentum) * new

    def normalize(part, mean, var):
      shape = (1,) * (x.ndim - 1) + (c,)
      mean, var = mean.reshape(shape), var.reshape(shape)
      y = (precision.widen(part) - mean) / jnp.sqrt(var + self.epsilon)
      return y * scale.reshape(shape) + bias.reshape(shape)

    y = [normalize(p, *m) for p, m in zip(parts, found, strict=True)]
    y = jnp.concatenate(y).astype(self.dtype or x.dtype)
    return _ACTIVATIONS.get(activation, activation)(y)


class RecurrentLayer(recurrent.RecurrentLayer):
  """Frame after frame, each with its own products."""

  @nn.compact
  def __call__(self, x):
    cell = recurrent.find_cell(self.cell, self.reset_after)
    x, h = precision.widen(x), self.features
    zeros, width = nn.initializers.zeros, sum(cell.gates) * h
    kernel_x = self.param('kernel_x', zeros, (x.shape[-1], width))
    kernel_h = self.param('kernel_h', zeros, (h, width))
    bias = self.param('bias', zeros, (width,))
    vectors = {name: self.param(name, zeros, (h,)) for name in cell.vectors}
    ends = np.cumsum([0, *cell.gates]) * h
    states = (jnp.zeros((len(x), h), x.dtype),) * cell.num_states
    hidden = []
    for t in range(x.shape[1]):
      states = cell.step(
        states,
        x[:, t] @ kernel_x + bias[None],
        lambda i, a: a @ kernel_h[:, ends[i] : ends[i + 1]],
        vectors,
      )
      hidden.append(states[0])
    return jnp.stack(hidden, axis=1)


# Where each fast form is looked up, its name there, and its plain form.
_FORMS = (
  (conv, 'conv3d', conv3d),
  (conv, 'channel_separated_conv3d', channel_separated_conv3d),
  (pooling, 'soft_pool', soft_pool),
  (pooling, 'soft_pool_beside', soft_pool_beside),
  (mtconv, 'up_sample', up_sample),
  (mtconv, 'select_frame_indices', select_frame_indices),
  (mtconv, 'gather_frames', gather_frames),
  (srtg, 'cycle_consistent', cycle_consistent),
  (mtnet, 'scale_and_activate', scale_and_activate),
  (mtnet, 'relu', nn.relu),
  (resnet3d, 'relu', nn.relu),
  (norm.BatchNorm, '__call__', BatchNorm.__call__),
  (recurrent.RecurrentLayer, '__call__', RecurrentLayer.__call__),
)


@contextlib.contextmanager
def plain() -> Iterator[set[str]]:
  """Whatever is traced below it is made of plain forms.

  Yields the names of those that were called: a form that is swapped where
  nobody looks for it would compare the fast one with itself.
  """
  called = set()

  def noting(owner, attribute, form):
    name = owner.__name__ if attribute == '__call__' else attribute

    def call(*args, **kwargs):
      called.add(name)
      return form(*args, **kwargs)

    return mock.patch.object(owner, attribute, call)

  with contextlib.ExitStack() as stack:
    for row in _FORMS:
      stack.enter_context(noting(*row))
    yield called


class Choice(NamedTuple):
  """What one layer chose for each clip.

  Attributes:
    made: `(n, k)` frames, or `(n,)` whether gates are open.
    scores: `(n, t)` of the frames, or `(n,)` of the gates, which decided.
  """

  made: Any
  scores: Any


@contextlib.contextmanager
def watch(held: Sequence[Any] | None = None) -> Iterator[list[Choice]]:
  """Notes each choice of a network that is traced below it, in order.

  Args:
    held: what another run chose. It takes effect in place of the network's own
      choices, which are noted all the same: so that each differs by itself,
      and not because an earlier one did.
  """
  choices = []

  def choosing(owner, attribute, score):
    choose = getattr(owner, attribute)

    def call(*args):
      choices.append(Choice(choose(*args), score(*args)))
      return held[len(choices) - 1] if held else choices[-1].made

    return mock.patch.object(owner, attribute, call)

  with (
    choosing(mtconv, 'select_frame_indices', triplet_scores),
    choosing(srtg, 'cycle_consistent', gate_scores),
    # Nothing comes out of a program within the program but what it returns.
    mock.patch.object(jax, 'jit', lambda function, **_: function),
  ):
    yield choices


def flips(wanted: Sequence[Choice], got: Sequence[Choice]) -> list[float]:
  """For each clip and layer that chose otherwise, the gap of wanted's scores.

  Of frames, the gap between those that changed places; of a gate, its distance
  from the border.
  """
  gaps = []
  for a, b in zip(wanted, got, strict=True):
    for mine, other, scores in zip(a.made, b.made, a.scores, strict=True):
      if np.array_equal(mine, other):
        continue
      if scores.ndim:
        gone, come = np.setdiff1d(mine, other), np.setdiff1d(other, mine)
        gaps.append(float(scores[come].max() - scores[gone].min()))
      else:
        gaps.append(float(abs(scores)))
  return gaps
