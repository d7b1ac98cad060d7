"""The tensors of other authors' networks, listed by hand; needs no PyTorch."""

DEPTHS = {
  '18': (2, 2, 2, 2),
  '34': (3, 4, 6, 3),
  '50': (3, 4, 6, 3),
  '101': (3, 4, 23, 3),
  '152': (3, 8, 36, 3),
}
X3D_DEPTHS = {
  'x3d_xs': (3, 5, 11, 7),
  'x3d_s': (3, 5, 11, 7),
  'x3d_m': (3, 5, 11, 7),
  'x3d_l': (5, 10, 25, 15),
}


def _norm(name):
  leaves = ('weight', 'bias', 'running_mean', 'running_var')
  return [f'{name}.{leaf}' for leaf in (*leaves, 'num_batches_tracked')]


def _dense(name):
  return [f'{name}.weight', f'{name}.bias']


def resnet(model, family):
  """torchvision's or the author's names of `model`'s tensors."""
  depth = model.split('_')[-1]
  factorized, bottleneck = 'r2plus1d' in model, int(depth) >= 50
  names = ['stem.0.weight', *_norm('stem.1')]
  if factorized:
    names += ['stem.3.weight', *_norm('stem.4')]
  for i, count in enumerate(DEPTHS[depth], start=1):
    for j in range(count):
      block = f'layer{i}.{j}'
      for k in (1, 2, 3) if bottleneck else (1, 2):
        unit = f'{block}.conv{k}'
        if bottleneck and k != 2:
          names += [f'{unit}.0.weight']
        elif factorized:
          names += [f'{unit}.0.0.weight', *_norm(f'{unit}.0.1')]
          names += [f'{unit}.0.3.weight']
        elif family == 'srtg':
          names += [f'{unit}.0.0.weight']
        else:
          names += [f'{unit}.0.weight']
        names += _norm(f'{unit}.1')
      if i > 1 and j == 0:
        names += [f'{block}.downsample.0.weight']
        names += _norm(f'{block}.downsample.1')
      if model.startswith('srtg_'):
        names += [
          f'{block}.sar.lstm.{what}_{of}_l{layer}'
          for layer in (0, 1)
          for what in ('weight', 'bias')
          for of in ('ih', 'hh')
        ]
  return names + _dense('fc')


def pyslowfast(model):
  """PySlowFast's names of an X3D's tensors."""
  stem = 's1.pathway0_stem'
  names = [f'{stem}.conv_xy.weight', f'{stem}.conv.weight']
  names += _norm(f'{stem}.bn')
  for i, count in enumerate(X3D_DEPTHS[model]):
    for j in range(count):
      block = f's{i + 2}.pathway0_res{j}'
      if j == 0:
        names += [f'{block}.branch1.weight', *_norm(f'{block}.branch1_bn')]
      for k in 'abc':
        names += [f'{block}.branch2.{k}.weight']
        names += _norm(f'{block}.branch2.{k}_bn')
      if j % 2 == 0:
        names += _dense(f'{block}.branch2.se.fc1')
        names += _dense(f'{block}.branch2.se.fc2')
  names += ['head.conv_5.weight', *_norm('head.conv_5_bn')]
  return [*names, 'head.lin_5.weight', *_dense('head.projection')]


def pytorchvideo(model):
  """PyTorchVideo's names of an X3D's tensors."""
  names = ['blocks.0.conv.conv_t.weight', 'blocks.0.conv.conv_xy.weight']
  names += _norm('blocks.0.norm')
  for i, count in enumerate(X3D_DEPTHS[model], start=1):
    for j in range(count):
      block = f'blocks.{i}.res_blocks.{j}'
      if j == 0:
        names += [f'{block}.branch1_conv.weight']
        # The first stage's projection keeps its width, and has no BN.
        names += _norm(f'{block}.branch1_norm') if i > 1 else []
      for k in 'abc':
        names += [f'{block}.branch2.conv_{k}.weight']
        norm = f'{block}.branch2.norm_{k}'
        names += _norm(f'{norm}.0' if k == 'b' else norm)
      if j % 2 == 0:
        names += _dense(f'{block}.branch2.norm_b.1.block.0')
        names += _dense(f'{block}.branch2.norm_b.1.block.2')
  pool = 'blocks.5.pool'
  names += [f'{pool}.pre_conv.weight', *_norm(f'{pool}.pre_norm')]
  return [*names, f'{pool}.post_conv.weight', *_dense('blocks.5.proj')]


def of(model, family):
  """The names of `model`'s tensors as `family` has them."""
  if family == 'pytorchvideo':
    return pytorchvideo(model)
  return pyslowfast(model) if family == 'pyslowfast' else resnet(model, family)
