"""Parts of networks and kernels of GPUs, in small programs by hand."""

import gzip

import pytest

from benchmarks import hlo_parts
from mtnet_jax.devices import hlo

_FORWARD = 'jit(train_step)/jvp(MTNet)/MTNet.run_stages/jit(apply)/MTBlock'
_BACKWARD = _FORWARD.replace('jvp(MTNet)', 'transpose(jvp(MTNet))')
_CONV = 'conv_general_dilated'
_SEPARATED = 'channel-separated convolution'
_DENSE = 'dense convolutions and products of matrices'
_POOLING = 'pooling, selection, interpolation'
_COPIES = 'copies and layout changes'


def _program(lines, before=''):
  return hlo.parse(
    f"""{before}ENTRY %main (p: f32[9,4]) -> f32[9,4] {{
  %p = f32[9,4]{{1,0}} parameter(0)
  %k = f32[2,4]{{1,0}} parameter(1)
  %u = u8[9,4]{{1,0}} parameter(2)
{lines}}}
"""
  )


def _part(line, before=''):
  program = _program(f'  ROOT {line}\n', before)
  return hlo_parts.part(program, hlo.steps(program)[-1])


def _named(op_name, opcode='add', operands='%p, %p'):
  shape, named = 'f32[9,4]{1,0}', f'metadata={{op_name="{op_name}"}}'
  return f'%x = {shape} {opcode}({operands}), {named}'


@pytest.mark.parametrize(
  ('op_name', 'part'),
  [
    (f'{_FORWARD}/expand/local_norm/add', 'BN and activations'),
    (f'{_FORWARD}/max', 'BN and activations'),
    (f'{_BACKWARD}/separated/local_norm/transpose(jvp())/select_n',
     'BN and activations'),
    (f'{_FORWARD}/expand/add', _POOLING),
    (f'{_BACKWARD}/expand/expand._select/expand._pool/exp', _POOLING),
    (f'{_BACKWARD}/project/transpose(jit(_resize))/dot_general', _POOLING),
    ('jit(train_step)/jvp(ResNet3D)/max', _POOLING),
    ('jit(train_step)/jvp(ResNet3D)/ResNet3D.run_stages/jit(apply)'
     '/ResidualBlock/conv_2/conv_2._pool/mul', _POOLING),
    (f'{_FORWARD}/expand/local/dot_general', _DENSE),
    ('jit(eval_step)/MTNet/MTNet._stem/stem_spatial/mul', _DENSE),
    ('jit(eval_step)/MTNet/MTNet._stem/stem_temporal/mul',
     f'{_SEPARATED}, forward'),
    (f'{_FORWARD}/separated/prolonged/add', f'{_SEPARATED}, forward'),
    (f'{_FORWARD}/separated/pointwise/add', _DENSE),
    (f'{_BACKWARD}/separated/local/add_any', f'{_SEPARATED}, dx'),
    (f'{_BACKWARD}/checkpoint/rematted_computation/MTBlock/separated/local/add',
     f'{_SEPARATED}, forward'),
    (f'{_FORWARD}/recursion/recurrence/layer_0/while/body/mul',
     'recurrence and excitation'),
    (f'{_FORWARD}/squeeze_excitation/expand/add', 'recurrence and excitation'),
    ('jit(train_step)/jvp(MTNet)/MTNet.run_stages/while/body'
     '/jit(dynamic_index_in_dim)/dynamic_slice',
     'stacked arrays of loops over blocks'),
    ('jit(train_step)/jvp(MTNet)/MTNet.run_stages/while/body/eval_jaxpr'
     '/jit(apply)/MTBlock/expand/local_norm/add', 'BN and activations'),
    ('jit(train_step)/add', 'optimizer'),
    ('jit(eval_step)/div', 'other'),
    ('jit(train_step)/jvp(jit(log_softmax))/sub', 'other'),
    ('', 'other'),
  ],
)  # fmt: skip
def test_parts_follow_from_modules(op_name, part):
  assert _part(_named(op_name)) == part


@pytest.mark.parametrize(
  ('op_name', 'opcode', 'part'),
  [
    (f'{_BACKWARD}/expand/local_norm/add', 'copy', _COPIES),
    (f'{_FORWARD}/expand/concatenate', 'transpose', _COPIES),
    (f'{_FORWARD}/expand/concatenate', 'concatenate', _POOLING),
    (f'{_FORWARD}/separated/local/pad', 'pad', _COPIES),
    ('', 'copy', _COPIES),
    ('jit(train_step)/convert_element_type', 'convert', 'optimizer'),
  ],
)
def test_what_only_moves_is_a_copy(op_name, opcode, part):
  assert _part(_named(op_name, opcode, '%p')) == part


def test_pixels_are_not_the_optimizers():
  line = _named('jit(train_step)/convert_element_type', 'convert', '%u')
  assert _part(line) == 'other'


@pytest.mark.parametrize(
  ('op_name', 'line', 'part'),
  [
    (f'{_FORWARD}/separated/local/{_CONV}',
     'f32[9,4]{1,0} convolution(%a, %b)', f'{_SEPARATED}, forward'),
    (f'{_BACKWARD}/separated/local/transpose(jvp())/{_CONV}',
     'f32[9,4]{1,0} convolution(%a, %b)', f'{_SEPARATED}, dx'),
    (f'{_BACKWARD}/separated/local/transpose(jvp())/{_CONV}',
     'f32[2,4]{1,0} convolution(%a, %a)', f'{_SEPARATED}, dw'),
    (f'{_BACKWARD}/expand/local/dot_general',
     'f32[4,4]{1,0} dot(%a, %a)', _DENSE),
  ],
)  # fmt: skip
def test_fusions_belong_to_their_convolution(op_name, line, part):
  before = f"""\
%inner (c: f32[9,4]) -> f32[9,4] {{
  %c = f32[9,4]{{1,0}} parameter(0)
  ROOT %d = f32[9,4]{{0,1}} copy(%c), metadata={{op_name="{_FORWARD}/max"}}
}}

%fused (a: f32[9,4], b: f32[2,4]) -> f32[9,4] {{
  %a = f32[9,4]{{1,0}} parameter(0)
  %b = f32[2,4]{{1,0}} parameter(1)
  %e = f32[9,4]{{0,1}} fusion(%a), kind=kLoop, calls=%inner
  %x = {line}, metadata={{op_name="{op_name}"}}
  ROOT %y = f32[9,4]{{1,0}} add(%x, %e), metadata={{op_name="jit(f)/add"}}
}}

"""
  norm = f'metadata={{op_name="{_FORWARD}/local_norm/add"}}'
  fusion = 'f32[9,4]{1,0} fusion(%p, %k), kind=kOutput, calls=%fused'
  assert _part(f'%z = {fusion}, {norm}', before) == part


def test_a_nameless_fusion_is_called_after_what_it_does():
  before = f"""\
%fused (a: f32[9,4]) -> f32[9,4] {{
  %a = f32[9,4]{{1,0}} parameter(0)
  %x = f32[9,4]{{1,0}} negate(%a), metadata={{op_name="{_FORWARD}/norm/neg"}}
  ROOT %y = f32[9,4]{{0,1}} copy(%x)
}}

"""
  fusion = '%z = f32[9,4]{1,0} fusion(%p), kind=kLoop, calls=%fused'
  assert _part(fusion, before) == 'BN and activations'
  only_copies = before.replace('negate', 'reshape')
  assert _part(fusion, only_copies) == _COPIES


def test_sums_by_part():
  cycles = 'backend_config={"estimated_cycles":"'
  program = _program(
    f'  {_named(f"{_FORWARD}/max")}, {cycles}40"}}\n'
    f'  %y = f32[9,4]{{0,1}} copy(%x), {cycles}2"}}\n'
    f'  ROOT %z = f32[9,4]{{1,0}} copy(%y), {cycles}3"}}\n'
  )
  ran = hlo.steps(program)
  sums = hlo_parts.by_part(program, ran, hlo_parts.cycles)
  assert tuple(sums) == hlo_parts.PARTS
  assert {part: value for part, value in sums.items() if value} == {
    'BN and activations': 40,
    _COPIES: 5,
  }
  first, second = hlo_parts.costliest(program, ran, hlo_parts.cycles, 2)
  assert first == {
    'cost': 40,
    'part': 'BN and activations',
    'name': 'x',
    'operation': f'{_FORWARD}/max',
    'shape': 'f32[9,4]',
  }
  assert (second['cost'], second['name']) == (3, 'z')


# GPUs.

_KERNELS = """\
%loops (a: f32[9,4]) -> f32[9,4] {
  %a = f32[9,4]{1,0} parameter(0)
  ROOT %b = f32[9,4]{1,0} negate(%a)
}

%sums (c: f32[9,4]) -> f32[4] {
  %c = f32[9,4]{1,0} parameter(0)
  %zero = f32[] constant(0)
  ROOT %d = f32[4]{0} reduce(%c, %zero), dimensions={0}, to_apply=%loops
}

%turns (e: f32[9,4]) -> f32[4,9] {
  %e = f32[9,4]{1,0} parameter(0)
  ROOT %f = f32[4,9]{1,0} transpose(%e), dimensions={1,0}
}

"""


@pytest.mark.parametrize(
  ('line', 'kind', 'moved'),
  [
    ('f32[9,4] fusion(%p), kind=kLoop, calls=%loops', 'loop fusions', 288),
    ('f32[4] fusion(%p), kind=kInput, calls=%sums', 'reduction fusions', 160),
    ('f32[4,9] fusion(%p), kind=kInput, calls=%turns', 'copies', 288),
    ('f32[9,4] copy(%p)', 'copies', 288),
    ('(f32[9,4], f32[9,4], u32[]) copy-start(%p)', 'copies', 292),
    ('((f32[9,4]), f32[9,4], u32[]) fusion-start(%p), kind=kLoop, '
     'calls=%loops', 'loop fusions', 292),
    ('f32[9,2] fusion(%p, %k), kind=kCustom, calls=%loops, '
     'backend_config={"kind":"__triton_gemm"}', 'Triton', 144 + 32 + 72),
    ('f32[9,4] fusion(%p), kind=kCustom, calls=%loops', 'custom fusions', 288),
    ('(f32[9,2], s8[4194304]) custom-call(%p, %k), '
     'custom_call_target="__cublas$lt$matmul"', 'cuBLAS', 144 + 32 + 72),
    ('(f32[2,4], u8[0]) custom-call(%p, %p), '
     'custom_call_target="__cudnn$convBackwardFilter"', 'cuDNN', 2 * 144 + 32),
    ('f32[4] custom-call(%p), custom_call_target="other"',
     'other custom calls', 160),
    ('f32[9,4] all-reduce-start(%p), to_apply=%loops', 'collectives', 288),
    ('f32[9,4] sort(%p), dimensions={0}, to_apply=%loops', 'other', 288),
    ('f32[36] bitcast(%p)', None, 0),
    ('f32[9,4] copy-done(%p)', None, 0),
    ('(f32[9,4], f32[9,4]) tuple(%p, %p)', None, 0),
  ],
)  # fmt: skip
def test_kernels_of_a_gpu_and_what_they_move(line, kind, moved):
  program = _program(f'  ROOT %x = {line}\n', _KERNELS)
  step = hlo.steps(program)[-1]
  assert hlo_parts.launch(program, step.instruction) == kind
  assert hlo_parts.bytes_moved(program)(step) == moved
  again = step._replace(times=3)
  assert hlo_parts.bytes_moved(program)(again) == 3 * moved


def test_convolutions_of_cudnn_have_their_pass():
  name = f'{_BACKWARD}/separated/local/transpose(jvp())/{_CONV}'
  call = 'custom-call(%p, %p), custom_call_target="__cudnn$convBackwardFilter"'
  metadata = f'metadata={{op_name="{name}"}}'
  line = f'%x = (f32[2,4]{{1,0}}, u8[0]{{0}}) {call}, {metadata}'
  assert _part(line) == f'{_SEPARATED}, dw'
  assert _part(line.replace('f32[2,4]', 'f32[9,4]')) == f'{_SEPARATED}, dx'


@pytest.mark.parametrize('compress', [False, True])
def test_a_kept_program_is_told(tmp_path, capsys, compress):
  line = _named(f'{_FORWARD}/max')
  text = f"""{{"seconds": 1}}
ENTRY %main (p: f32[9,4]) -> f32[9,4] {{
  %p = f32[9,4]{{1,0}} parameter(0)
  ROOT {line}, backend_config={{"estimated_cycles":"1234"}}
}}
"""
  path = tmp_path / ('program.gz' if compress else 'program.txt')
  path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())
  hlo_parts.main(str(path))
  out = capsys.readouterr().out
  assert '1,234 cycles' in out
  assert '1,234 100.0%  BN and activations' in out
  assert 'BN and activations: x f32[9,4]' in out
  text = text.replace('estimated_cycles', 'something')
  path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())
  hlo_parts.main(str(path))
  assert '432 bytes' in capsys.readouterr().out
