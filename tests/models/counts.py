"""Parameters by short sums over what papers say of networks; 400 classes."""

import re

STAGES = (64, 128, 256, 512)
DEPTHS = {
  '18': (2, 2, 2, 2),
  '34': (3, 4, 6, 3),
  '50': (3, 4, 6, 3),
  '101': (3, 4, 23, 3),
  '152': (3, 8, 36, 3),
}
# Blocks, stem, inner and outer widths, head.
WIDE = ((54, 24), (108, 48), (216, 96), (432, 192))
MTNETS = {
  'mtnet_xs': (
    (1, 1, 1, 1),
    16,
    ((32, 16), (48, 24), (96, 48), (128, 64)),
    (96, 128),
  ),
  'mtnet_s': ((3, 5, 11, 7), 24, WIDE, (432, 2048)),
  'mtnet_m': ((3, 5, 11, 7), 24, WIDE, (432, 2048)),
  'mtnet_l': ((5, 10, 25, 15), 24, WIDE, (432, 2048)),
}


def mtconv(kernels, c_out, ratio=0.875):
  """Both branches' kernels, the point-wise one, three BNs."""
  local = int(ratio * c_out)
  prolonged = c_out - local
  return kernels + local * prolonged + 2 * (local + 2 * prolonged)


def recurrence(h, cell='gru'):
  """A layer as wide as its input: every gate has two kernels and a bias."""
  gates = {'rnn': 1, 'gru': 3, 'lstm': 4, 'peephole_lstm': 4}[cell]
  peepholes = 3 * h if cell == 'peephole_lstm' else 0
  return gates * (2 * h**2 + h) + peepholes


def mtnet(blocks, c, stages, head, ratio=0.875, cell='gru', frames=(5, 3)):
  stem_frames, block_frames = frames
  total = (9 * 3 + stem_frames + 2) * c
  for count, (inner, outer) in zip(blocks, stages, strict=True):
    # The first block has a projection, and its BN where the width changes.
    total += c * outer + (2 * outer if c != outer else 0)
    for _ in range(count):
      total += mtconv(c * inner, inner, ratio)
      total += mtconv(9 * block_frames * inner, inner, ratio)
      total += mtconv(inner * outer, outer, ratio)
      total += 2 * recurrence(outer, cell)
      c = outer
  return total + (c + 2) * head[0] + head[0] * head[1] + (head[1] + 1) * 400


def mtnet_published():
  """Each branch reads its own share; 3³ in two groups; one recurrent layer."""

  def share(c):
    return int(0.875 * c), c - int(0.875 * c)

  def split(c_in, c_out):
    (a, b), (d, e) = share(c_in), share(c_out)
    return mtconv(a * d + b * e, c_out)

  total, c = (9 * 3 + 5 + 2) * 24, 24
  for count, (inner, outer) in zip((3, 5, 11, 7), WIDE, strict=True):
    total += c * outer + (2 * outer if c != outer else 0)
    local = int(0.875 * inner) // 2 * 2  # two groups of equal size
    prolonged = inner - local
    for _ in range(count):
      total += split(c, inner) + split(inner, outer) + recurrence(outer)
      total += 27 * (local**2 + prolonged**2) // 2
      total += local * prolonged + 2 * (local + 2 * prolonged)
      c = outer
  return total + (c + 2) * 432 + 432 * 2048 + 2049 * 400


def point_wise(c_in, c_out):
  return c_in * c_out + 2 * c_out


def factorized(c_in, mid, c_out, spatial=9):
  return spatial * c_in * mid + 2 * mid + 3 * mid * c_out + 2 * c_out


def cubic(convolution, c_in, c_out, mid):
  if convolution == 'r2plus1d':
    return factorized(c_in, mid, c_out)
  kernels = 27 * c_in * c_out
  return mtconv(kernels, c_out) if convolution == 'mt' else kernels + 2 * c_out


def mc3_18():
  """Cubic kernels in the stem and the first stage alone."""
  total, c = 3 * 49 * 3 * 64 + 2 * 64 + (512 + 1) * 400, 64
  for volume, outer in zip((27, 9, 9, 9), STAGES, strict=True):
    total += point_wise(c, outer) if c != outer else 0
    for c_in in (c, outer, outer, outer):
      total += volume * c_in * outer + 2 * outer
    c = outer
  return total


def resnet3d(name):
  own = name.endswith(('_ig65m', '_mmaction2'))
  every = name.endswith('_mmaction2')
  name = re.sub('_(ig65m|mmaction2)', '', name).replace('mt_r3d', 'mt')
  *prefixes, convolution, depth = name.split('_')
  stem = (7 if 'hara' in prefixes else 3) * 49 * 3 * 64 + 2 * 64
  if convolution == 'r2plus1d':
    stem = factorized(3, 83 if every else 45, 64, spatial=49)
  total, c = stem + (512 + 1) * 400, 64
  for count, outer in zip(DEPTHS[depth], STAGES, strict=True):
    if c != outer and every:
      mid = 3 * c * outer // (c + 3 * outer)
      total += c * mid + 2 * mid + point_wise(mid, outer)
    elif c != outer:
      total += point_wise(c, outer)
    for _ in range(count):
      # One width for a block, by the channels that enter and leave it.
      mid = 27 * c * outer // (9 * c + 3 * outer)
      if int(depth) < 50:
        total += cubic(convolution, c, outer, mid)
        if own:
          mid = 27 * outer**2 // (12 * outer)
        total += cubic(convolution, outer, outer, mid)
      else:
        inner = 2 * outer if 'wide' in prefixes else outer
        total += point_wise(c, inner) + cubic(convolution, inner, inner, mid)
        total += point_wise(inner, outer)
      if 'srtg' in prefixes:
        total += 2 * recurrence(outer, 'lstm')
      c = outer
  return total


LATE = ((1,), (1,), (3,), (3,))
OF_I3D = ((3,), (3, 1), (3, 1), (1, 3))


def spatial(c):
  return 9 * c**2 + 2 * c


MIDDLES = {
  'ir': lambda c: 27 * c + 2 * c,
  'ip': lambda c: point_wise(c, c) + 27 * c + 2 * c,
  'hara': lambda c: 27 * c**2 + 2 * c,
  'resnext3d': lambda c: 27 * c * (c // 32) + 2 * c,
  'ptv': lambda c: 3 * c**2 + 2 * c + spatial(c),
}


def bottlenecks(depth, frames, width=64, middle=spatial, stem=1,
                laterals=(0,) * 4, adaptive=0, expansion=4):  # fmt: skip
  """Stem and stages, each kernel with its BN; no classifier.

  middle: what the second kernel's weights and BN come to, of its width;
  laterals: channels that join what each stage reads; expansion: of the last
  kernel.
  """
  total, c = 49 * stem * 3 * width + 2 * width, width
  for i, count in enumerate(DEPTHS[depth]):
    outer, c = 4 * width * 2**i, c + laterals[i]
    inner = outer // expansion
    total += point_wise(c, outer)
    for j in range(count):
      seen = frames[i][j % len(frames[i])]
      total += seen * c * inner + 2 * inner
      total += middle(inner)
      if adaptive:
        t, narrow = adaptive, inner // 4
        total += 2 * t**2 + 4 * t + 6 * t
        total += 3 * inner * narrow + 2 * narrow + narrow * inner
      total += point_wise(inner, outer)
      c = outer
  return total


def other_authors(name):
  kind, depth = name.split('_')[0], re.search(r'(50|101|152)', name)[0]
  head = 2049 * 400
  if kind == 'slowfast':
    few = ((1,), (1,), (3,) * 6 + (1,) * 17, (3,))
    slow = few if '16x8' in name else LATE
    fast = ((3,), (3,), few[2] if '16x8' in name else (3,), (3,))
    k = 7 if name == 'slowfast_r50_8x8' else 5
    wide = (8, 32, 64, 128)
    joined = tuple(2 * c for c in wide)
    total = sum(k * c * 2 * c + 4 * c for c in wide)
    total += bottlenecks(depth, slow, laterals=joined)
    return total + bottlenecks(depth, fast, 8, stem=5) + (2304 + 1) * 400
  if kind in MIDDLES:
    stem = {'ir': 3, 'ip': 3, 'ptv': 1}.get(kind, 7)
    expansion = 2 if kind == 'resnext3d' else 4
    more = {'middle': MIDDLES[kind], 'stem': stem, 'expansion': expansion}
    return bottlenecks(depth, ((1,),) * 4, **more) + head
  frames = {'slow': LATE, 'i3d': OF_I3D}.get(kind, ((1,),) * 4)
  adaptive = int(name.split('_')[-1]) if kind == 'tanet' else 0
  stem = 5 if kind == 'i3d' else 1
  return bottlenecks(depth, frames, stem=stem, adaptive=adaptive) + head


# Of each block: 1³; 1³ and 3³; 1³ and 3³; 1³ of a pool.
MIXED = (
  (192, (64, 96, 128, 16, 32, 32)),
  (256, (128, 128, 192, 32, 96, 64)),
  (480, (192, 96, 208, 16, 48, 64)),
  (512, (160, 112, 224, 24, 64, 64)),
  (512, (128, 128, 256, 24, 64, 64)),
  (512, (112, 144, 288, 32, 64, 64)),
  (528, (256, 160, 320, 32, 128, 128)),
  (832, (256, 160, 320, 32, 128, 128)),
  (832, (384, 192, 384, 48, 128, 128)),
)


def inception():
  """BN has scales here, which the authors' has not."""

  def cube(c_in, c_out):
    return 27 * c_in * c_out + 2 * c_out

  total = 343 * 3 * 64 + 2 * 64 + point_wise(64, 64) + cube(64, 192)
  for c, (b0, b1a, b1b, b2a, b2b, b3) in MIXED:
    total += sum(point_wise(c, f) for f in (b0, b1a, b2a, b3))
    total += cube(b1a, b1b) + cube(b2a, b2b)
  return total + 1025 * 400


def mfnet():
  """BN comes first: twice as many of its weights as inputs."""
  total, c = 75 * 3 * 16 + 2 * 16, 16
  for count, w in zip((3, 4, 6, 3), (96, 192, 384, 768), strict=True):
    for j in range(count):
      total += c * (w // 4) + 2 * c + (w // 4) * c + 2 * (w // 4)
      total += 27 * (c // 16) * w + 2 * c + 2 * w
      total += 9 * (w // 16) * w if j else w * w + 2 * c + c * w
      c = w
  return total + 2 * c + (c + 1) * 400


def by_hand(name):
  """The parameters of any network but X3D."""
  if name in MTNETS:
    return mtnet(*MTNETS[name])
  if name == 'mtnet_m_published':
    return mtnet_published()
  if name == 'mc3_18':
    return mc3_18()
  if name in ('i3d_inception', 'mfnet'):
    return inception() if 'i3d' in name else mfnet()
  deep_hara = re.match(r'hara_r3d_(50|101|152)', name)
  if re.search('r3d|r2plus1d', name) and not deep_hara and 'ptv' not in name:
    return resnet3d(name)
  return other_authors(name)
