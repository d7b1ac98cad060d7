"""3-D convolutions, each in the formulation that is fast where it runs.

`Conv3D` is the layer; `conv3d` and `channel_separated_conv3d` are the functions
below it. Padding is symmetric with zeros, `k // 2` on both sides of each axis,
so that an odd kernel gives `⌈n / s⌉` of n positions at stride s.

A CPU convolves frame by frame: see `benchmarks/layers.py` for what it gains.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.layers.separated_conv import channel_separated_conv3d
from mtnet_jax.typing import Array, Float

Triple = tuple[int, int, int]

# Up to so many input channels, the frames under a kernel go side by side into
# the channels of one 2-D convolution; above, they are convolved one by one.
_FEW_CHANNELS = 16
# Up to so many elements, a spatial window is copied out and multiplied: XLA's
# CPU convolution is poor at an image's three channels.
_SMALL_WINDOW = 32
# Up to so many positions likewise: of maps that small, the copy is small beside
# the product.
_SMALL_MAP = 64


class Conv3D(nn.Module):
  """Dense or channel-separated 3-D convolution with padding `k // 2`.

  Attributes:
    features: output channels.
    kernel_size: frames, rows, columns.
    strides: frames, rows, columns.
    groups: 1, dense, or the number of input channels, channel-separated; then
      `features` is that number too.
    use_bias: adds one bias a channel.
    repeat_edges: beyond a clip's ends its first and last frame go on, rather
      than zeros; around rows and columns there are zeros either way.
    dtype: of the computation and the output; None: the widest of the input's
      and the parameters', which are float32.
  """

  features: int
  kernel_size: Triple
  strides: Triple = (1, 1, 1)
  groups: int = 1
  use_bias: bool = False
  repeat_edges: bool = False
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n t h w c']) -> Float[Array, 'n u v x f']:
    """Returns x convolved.

    Raises:
      UserError: `groups` is neither 1 nor both channel counts.
    """
    c = x.shape[-1]
    separated = self.groups > 1
    if self.groups != 1 and not self.groups == c == self.features:
      raise UserError(
        f'`groups` (={self.groups}) of a Conv3D must be 1 (dense) or equal '
        f'both the input channels (={c}) and `features` (={self.features}).'
      )
    # He initialization for the ReLU that follows, over what a unit feeds.
    fan_out = math.prod(self.kernel_size) * self.features // self.groups
    kernel = self.param(
      'kernel',
      nn.initializers.normal(math.sqrt(2 / fan_out)),
      (*self.kernel_size, c // self.groups, self.features),
      jnp.float32,
    )
    bias = None
    if self.use_bias:
      bias = self.param(
        'bias', nn.initializers.zeros, (self.features,), jnp.float32
      )
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    edge = self.kernel_size[0] // 2 if self.repeat_edges else 0
    if edge:
      assert self.strides[0] == 1, self.strides
      first, last = (jnp.repeat(a, edge, 1) for a in (x[:, :1], x[:, -1:]))
      x = jnp.concatenate([first, x, last], axis=1)
    convolve = channel_separated_conv3d if separated else conv3d
    y = convolve(x, kernel, self.strides)
    y = y[:, edge : y.shape[1] - edge]  # what zeros have touched goes
    return y if bias is None else y + bias.reshape(1, 1, 1, 1, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3d(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k c f'],
  strides: Triple = (1, 1, 1),
) -> Float[Array, 'n u v x f']:
  """Returns the dense 3-D convolution of x, in x's dtype.

  A 1×1×1 kernel is one matrix product everywhere. Others are `lax`'s 3-D
  convolution on accelerators and, on a CPU, 2-D convolutions of frames.

  Args:
    x: activations.
    kernel: of x's dtype.
    strides: frames, rows, columns.
  """
  if kernel.shape[:3] == (1, 1, 1):
    return _convolve_points(x, kernel, strides)
  return jax.lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(_convolve_frames, strides=strides),
    default=functools.partial(_convolve_volume, strides=strides),
  )


def _conv3d_fwd(x, kernel, strides):
  return conv3d(x, kernel, strides), (x, kernel)


def _conv3d_bwd(strides, residuals, dy):
  # The backward pass asks for the platform again. Were the answer handed over,
  # with what else the forward pass keeps, both would hold the forms of all.
  def backward(convolve):
    convolve = functools.partial(convolve, strides=strides)
    return lambda x, kernel, dy: jax.vjp(convolve, x, kernel)[1](dy)

  x, kernel = residuals
  if kernel.shape[:3] == (1, 1, 1):
    return backward(_convolve_points)(x, kernel, dy)
  return jax.lax.platform_dependent(
    x,
    kernel,
    dy,
    cpu=backward(_convolve_frames),
    default=backward(_convolve_volume),
  )


conv3d.defvjp(_conv3d_fwd, _conv3d_bwd)


def _convolve_points(x, kernel, strides):
  st, sh, sw = strides
  return _matmul(x[:, ::st, ::sh, ::sw], kernel[0, 0, 0])


def _convolve_volume(x, kernel, strides):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    [(k // 2, k // 2) for k in kernel.shape[:3]],
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
  )


def _convolve_frames(x, kernel, strides):
  """The 3-D convolution as 2-D convolutions of the frames below each tap."""
  n, t, h, w, c = x.shape
  kt, st = kernel.shape[0], strides[0]
  frames = (t + 2 * (kt // 2) - kt) // st + 1
  if c <= _FEW_CHANNELS or kernel.shape[1:3] == (1, 1):
    pad = [(0, 0), (kt // 2, kt // 2), (0, 0), (0, 0), (0, 0)]
    x = jnp.pad(x, pad)
    taps = [x[:, i : i + st * (frames - 1) + 1 : st] for i in range(kt)]
    taps = jnp.concatenate(taps, -1).reshape(n * frames, h, w, kt * c)
    y = _convolve_2d(taps, jnp.concatenate(list(kernel), 2), strides[1:])
    return y.reshape(n, frames, *y.shape[1:])
  y = 0
  for i in range(kt):
    # Frame f of the result meets frame `st·f + i - kt//2`, if there is one.
    first = max(0, -((i - kt // 2) // st))
    last = min(frames - 1, (t - 1 + kt // 2 - i) // st)
    if last < first:
      continue
    start = st * first + i - kt // 2
    tap = x[:, start : start + st * (last - first) + 1 : st]
    part = _convolve_2d(tap.reshape(-1, h, w, c), kernel[i], strides[1:])
    part = part.reshape(n, last - first + 1, *part.shape[1:])
    around = [(0, 0)] * part.ndim
    around[1] = (first, frames - 1 - last)
    y += jnp.pad(part, around)
  return y


def _convolve_2d(x, kernel, strides):
  """The 2-D convolution of `n h w c` by `j k c f`."""
  if kernel.shape[:2] == (1, 1):
    sh, sw = strides
    return _matmul(x[:, ::sh, ::sw], kernel[0, 0])
  few_elements = math.prod(kernel.shape[:3]) <= _SMALL_WINDOW
  if few_elements or math.prod(x.shape[1:3]) <= _SMALL_MAP:
    return _multiply_windows(x, kernel, strides)
  return _convolve_map(x, kernel, strides)


def _multiply_windows(x, kernel, strides):
  """The window below each position of the result, times the kernel.

  As many columns as the stride has are one run of channels: so windows are
  copied in longer and fewer pieces.
  """
  (kh, kw, c, features), (sh, sw) = kernel.shape, strides
  sizes = zip(x.shape[1:3], (kh, kw), strides, strict=True)
  rows, cols = ((n + 2 * (k // 2) - k) // s + 1 for n, k, s in sizes)
  runs = -(-kw // sw)
  width = sw * (cols + runs - 1)
  zero = jnp.zeros((), x.dtype)
  right = width - x.shape[2] - kw // 2  # below 0: columns that no window meets
  pads = [(0, 0), (kh // 2, kh // 2), (kw // 2, right), (0, 0)]
  x = jax.lax.pad(x, zero, [(*pad, 0) for pad in pads])
  x = x.reshape(*x.shape[:2], width // sw, sw * c)
  windows = [
    x[:, i : i + sh * (rows - 1) + 1 : sh, j : j + cols, : (kw - j * sw) * c]
    for i, j in np.ndindex(kh, runs)
  ]
  return _matmul(jnp.concatenate(windows, -1), kernel.reshape(-1, features))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_map(x, kernel, strides):
  return _lax_convolve(x, kernel, _half(kernel), strides=strides)


def _convolve_map_fwd(x, kernel, strides):
  return _convolve_map(x, kernel, strides), (x, kernel)


def _convolve_map_bwd(strides, residuals, dy):
  """Gradients in the one form of a convolution that is fast on a CPU.

  XLA brings those of its own derivatives into it, but in the main function of a
  program alone.
  """
  x, kernel = residuals
  sizes = list(
    zip(kernel.shape[:2], x.shape[1:3], dy.shape[1:3], strides, strict=True)
  )
  dx = _lax_convolve(
    dy,
    jax.lax.rev(kernel, (0, 1)).swapaxes(2, 3),
    [
      (k - 1 - k // 2, size - 1 + k // 2 - (count - 1) * s)
      for k, size, count, s in sizes
    ],
    lhs_dilation=strides,
  )
  if x.shape[-1] <= _FEW_CHANNELS:
    product = functools.partial(_multiply_windows, strides=strides)
    (dkernel,) = jax.vjp(lambda k: product(x, k), kernel)[1](dy)
    return dx, dkernel
  # Positions are summed over as over a kernel, clips as over channels.
  dkernel = _lax_convolve(
    x.transpose(3, 1, 2, 0),
    dy.transpose(1, 2, 0, 3),
    [
      (k // 2, k - k // 2 - size + (count - 1) * s)
      for k, size, count, s in sizes
    ],
    rhs_dilation=strides,
  )
  return dx, dkernel.transpose(1, 2, 0, 3)


_convolve_map.defvjp(_convolve_map_fwd, _convolve_map_bwd)


def _lax_convolve(x, kernel, padding, strides=(1, 1), **dilations):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    list(padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    **dilations,
  )


def _half(kernel):
  return [(k // 2, k // 2) for k in kernel.shape[:2]]


def _matmul(x, kernel):
  """`x @ kernel` over the last axis, as one two-dimensional product."""
  y = x.reshape(-1, x.shape[-1]) @ kernel
  return y.reshape(*x.shape[:-1], kernel.shape[-1])
