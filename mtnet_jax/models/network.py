"""The common base of all networks: their options, and the loop over stages.

Options are the fields of a network that are given by keyword alone. They are
what `models.build` can set, and each is declared, explained and checked where
its class is.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax import preprocessing
from mtnet_jax.errors import UserError
from mtnet_jax.layers.class_regularization import (
  SCORES,
  ClassRegularization,
  check_affection_rates,
)
from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.frame_choice import check_selection_input
from mtnet_jax.layers.mtconv import MTConv, branch_features
from mtnet_jax.layers.norm import BatchNorm
from mtnet_jax.layers.srtg import GATE_EMBEDDINGS, SqueezeAndRecursion
from mtnet_jax.models import repetition
from mtnet_jax.ops import forms
from mtnet_jax.ops.frame_selection import still_scores
from mtnet_jax.ops.pooling import split_pooling
from mtnet_jax.ops.recurrence import find_cell
from mtnet_jax.typing import Array, Bool, Float

# Options of MTConv and of Squeeze and Recursion, which networks without these
# layers do not have.
MTCONV_OPTIONS = frozenset(
  {
    'local_ratio',
    'pooling',
    'shared_selection',
    'selection_input',
    'keep_times',
    'branch_inputs',
  }
)
RECURSION_OPTIONS = frozenset(
  {'cell', 'gate', 'gate_embedding', 'recurrent_layers'}
)
BRANCH_INPUTS = ('all', 'split')


class Network(nn.Module):
  """A network of stages of blocks, which its subclasses define.

  Attributes:
    num_classes: number of classes, at least 1.
    class_regularization: whether Class Regularisation follows every stage (the
      thesis, chapter 6).
    affection_rates: Class Regularisation's λ for each stage, in [0, 1].
    regularization_score: the way in which Class Regularisation scores a class,
      one of `class_regularization.SCORES`.
    dropout: rate of the dropout before the classifier, in [0, 1).
    dtype: float type of the computation; parameters, statistics and logits are
      float32.
    norm_batch_size: number of clips that share BN statistics; 0 means the whole
      batch.
    freeze_norm: whether the moving statistics normalize in training too.
    norm_epsilon: ε, which BN adds to variances, above 0.
    input_mean: mean of each channel that `preprocessing` normalizes clips with,
      in units of [0, 1] brightness; the network itself does not.
    input_std: deviation of each channel that it normalizes them with.
    rematerialize: whether the backward pass of training computes each block
      again from its input: it takes less memory and about a third more work.
    local_ratio: MTConv's δ in (0, 1]; 1 makes plain convolutions.
    pooling: pooling of MTConv's prolonged branch, one of `pooling.POOLINGS`.
    shared_selection: whether the two inputs of that branch keep the same
      frames.
    selection_input: the input of frame selection, one of
      `frame_choice.SELECTION_INPUTS`.
    keep_times: whether the frames that are kept are put back at their own
      times, rather than evenly.
    branch_inputs: `'all'`: both branches of an MTConv read all channels; or
      `'split'`: each reads its own share of them.
    cell: recurrent cell of Squeeze and Recursion.
    gate: whether its cycle-consistency gate is active.
    gate_embedding: the embedding that the gate compares, one of
      `srtg.GATE_EMBEDDINGS`.
    recurrent_layers: layers of Squeeze and Recursion, at least 1.
  """

  num_classes: int
  _: dataclasses.KW_ONLY
  class_regularization: bool = False
  affection_rates: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6)
  regularization_score: str = 'sum'
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike = jnp.float32
  norm_batch_size: int = 0
  freeze_norm: bool = False
  norm_epsilon: float = 1e-5
  input_mean: tuple[float, ...] = preprocessing.MEAN
  input_std: tuple[float, ...] = preprocessing.STD
  rematerialize: bool = False
  local_ratio: float = 7 / 8
  pooling: str = 'softpool+cos'
  shared_selection: bool = True
  selection_input: str = 'branch'
  keep_times: bool = False
  branch_inputs: str = 'all'
  cell: str = 'lstm'
  gate: bool = True
  gate_embedding: str = 'hidden'
  recurrent_layers: int = 2

  def __post_init__(self):
    check_range(
      'num_classes', self.num_classes, self.num_classes >= 1, 'at least 1'
    )
    check_range('dropout', self.dropout, 0 <= self.dropout < 1, 'in [0, 1)')
    check_range(
      'norm_batch_size',
      self.norm_batch_size,
      self.norm_batch_size >= 0,
      '0 or more clips',
    )
    check_range(
      'norm_epsilon', self.norm_epsilon, self.norm_epsilon > 0, 'above 0'
    )
    for name in ('input_mean', 'input_std'):
      color = getattr(self, name)
      allowed = 'three numbers above 0, in units of [0, 1] brightness'
      check_range(name, color, _is_color(color), allowed)
    score = self.regularization_score
    check_range('regularization_score', score, score in SCORES, f'of {SCORES}')
    self._check_selection()
    self._check_recursion()
    self.dtype = _float_dtype(self.dtype)
    super().__post_init__()

  @nn.nowrap
  def _check_selection(self):
    _, selects = split_pooling(self.pooling)
    check_selection_input(self.selection_input)
    check_range(
      'selection_input',
      self.selection_input,
      selects or self.selection_input == 'branch',
      f'left out: pooling={self.pooling!r} selects no frames',
    )
    check_range(
      'keep_times',
      self.keep_times,
      not self.keep_times or (selects and self.shared_selection),
      'False, unless `pooling` selects frames (it ends with +cos) and '
      'shared_selection=True, so that there is one time for each of them',
    )
    known = self.branch_inputs in BRANCH_INPUTS
    check_range(
      'branch_inputs', self.branch_inputs, known, f'one of {BRANCH_INPUTS}'
    )

  @nn.nowrap
  def _check_recursion(self):
    find_cell(self.cell)
    known = self.gate_embedding in GATE_EMBEDDINGS
    check_range(
      'gate_embedding', self.gate_embedding, known, f'one of {GATE_EMBEDDINGS}'
    )
    layers = self.recurrent_layers
    check_range('recurrent_layers', layers, layers >= 1, 'at least 1')

  @nn.nowrap
  def check_stages(self, widths: Sequence[int]) -> None:
    """Raises a UserError where options do not fit the stages.

    Args:
      widths: width of the narrowest convolution of each stage.
    """
    for width in widths:
      branch_features(width, self.local_ratio)
    if self.class_regularization:
      check_affection_rates(self.affection_rates, len(widths))

  @nn.nowrap
  def make_parts(
    self, train: bool, **conv_fields
  ) -> dict[str, Callable[..., nn.Module]]:
    """Returns factories of convolutions, `conv`, and normalizations, `norm`.

    Args:
      train: whether normalizations use the batch's statistics.
      **conv_fields: fields of every `Conv3D`.
    """
    return {
      'conv': functools.partial(Conv3D, dtype=self.dtype, **conv_fields),
      'norm': functools.partial(
        BatchNorm,
        use_running_average=self.freeze_norm or not train,
        batch_size=self.norm_batch_size,
        epsilon=self.norm_epsilon,
        dtype=self.dtype,
      ),
    }

  @nn.nowrap
  def make_mtconv(
    self,
    train: bool,
    parts: dict[str, Callable[..., nn.Module]],
    clips: Float[Array, 'n t h w 3'] | None = None,
  ) -> Callable[..., nn.Module]:
    """Returns a factory of Multi-Temporal convolutions.

    Args:
      train: whether they draw, and use the batch's statistics.
      parts: the parts from `make_parts`.
      clips: the network's input; needed where its motion selects frames.
    """
    stillness = None
    if self.selection_input == 'motion':
      stillness = still_scores(jax.lax.stop_gradient(clips))
    return functools.partial(
      MTConv,
      local_ratio=self.local_ratio,
      pooling=self.pooling,
      shared_selection=self.shared_selection,
      selection_input=self.selection_input,
      stillness=stillness,
      keep_times=self.keep_times,
      branch_inputs=self.branch_inputs,
      train=train,
      **parts,
    )

  @nn.nowrap
  def make_recursion(
    self, gates_decide: Bool[Array, ''] | bool
  ) -> Callable[..., nn.Module]:
    """Returns a factory of Squeeze and Recursion.

    Args:
      gates_decide: whether its gates' decisions count.
    """
    return functools.partial(
      SqueezeAndRecursion,
      self.cell,
      self.recurrent_layers,
      gate=self.gate,
      embedding=self.gate_embedding,
      decides=gates_decide,
    )

  def run_stages(
    self,
    x: Float[Array, 'n t h w c'],
    stages: Sequence[Sequence[nn.Module]],
    classifier: Classifier,
    train: bool,
    groups: int,
    **repetition_options,
  ) -> tuple[Float[Array, 'n t2 h2 w2 c2'], dict[str, Any]]:
    """Applies stage after stage, each with its Class Regularisation.

    Args:
      x: the stem's activations.
      stages: the blocks of each stage.
      classifier: the classifier that Class Regularisation asks.
      train: whether blocks that are alike share a function. In evaluation each
        block is one of its own, which others may look into.
      groups: into how many a TPU cuts the rows of the first stage's maps; see
        `lanes.fitting_groups`.
      **repetition_options: `keep_calls` and `period` of `repetition.run`.

    Returns:
      The last stage's activations, and the endpoints that are known by then:
      `stem`, each `stage_{i}`, `early_predictions`, `early_scores` and
      `gate_open`.
    """
    shared = train and not self.is_initializing()
    endpoints, early, scores, gate_open = {'stem': x}, {}, {}, {}
    for i, blocks in enumerate(stages, start=1):
      with forms.side_by_side(groups if i == 1 else 0):
        x, shares = repetition.run(
          blocks, x, shared, self.rematerialize, **repetition_options
        )
      gate_open |= shares
      if self.class_regularization:
        name = f'stage_{i}'
        regularization = self.make_regularization(i)
        x, early[name], scores[name] = regularization(x, classifier.kernel.T)
      endpoints[f'stage_{i}'] = x
    endpoints |= {'early_predictions': early, 'early_scores': scores}
    return x, endpoints | {'gate_open': gate_open}

  @nn.nowrap
  def make_regularization(self, stage: int) -> ClassRegularization:
    """Returns the Class Regularisation of a stage, counted from 1."""
    return ClassRegularization(
      self.affection_rates[stage - 1],
      self.regularization_score,
      name=f'class_regularization_{stage}',
    )


def option_names(network: type[Network]) -> tuple[str, ...]:
  """Returns the names of a class's options."""
  return tuple(
    field.name
    for field in dataclasses.fields(network)
    if field.kw_only and field.name not in ('parent', 'name')  # linen's own
  )


def check_clips(clips: Float[Array, '...']) -> None:
  """Raises a UserError that says what to do, unless clips are `n t h w 3`."""
  shape = jnp.shape(clips)
  if len(shape) == 5 and shape[-1] == 3:
    return
  mend = 'give RGB clips with a batch axis and the channels last'
  if len(shape) == 4 and shape[-1] == 3:
    mend = 'add the batch axis with clips[None]'
  elif len(shape) == 4 and shape[0] == 3:
    mend = (
      'move the channels last and add the batch axis with '
      'jnp.moveaxis(clips, 0, -1)[None]'
    )
  elif len(shape) == 5 and shape[1] == 3:
    mend = 'move the channels last with jnp.moveaxis(clips, 1, -1)'
  raise UserError(
    f'A network takes clips of shape (n, t, h, w, c) with c=3 channels, not '
    f'{shape}: {mend}.'
  )


def check_range(name: str, value: Any, valid: bool, allowed: str) -> None:
  """Raises a UserError unless a field's value is valid.

  Args:
    name: name of the field.
    value: value that was given.
    valid: whether the value is allowed.
    allowed: words for what is allowed, to follow "must be".
  """
  if not valid:
    raise UserError(f'`{name}` (={value}) must be {allowed}.')


def _is_color(value):
  """Returns whether these are numbers above 0, one for each channel."""
  return (
    isinstance(value, tuple)
    and len(value) == 3
    and all(isinstance(v, int | float) and v > 0 for v in value)
  )


def _float_dtype(dtype):
  allowed = ('float32', 'bfloat16', 'float16', 'float64')
  try:
    dtype = jnp.dtype(dtype)
  except TypeError:
    pass  # A misspelled name; told below.
  check_range('dtype', dtype, str(dtype) in allowed, f'one of {allowed}')
  if dtype == jnp.float64 and not jax.config.jax_enable_x64:
    raise UserError(
      '`dtype` (=float64) needs 64 bits: set JAX_ENABLE_X64=1, or choose '
      'float32.'
    )
  return dtype
