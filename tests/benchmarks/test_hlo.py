"""Reading a compiled program's text: small programs with known answers."""

import pytest

from benchmarks import hlo_collectives
from benchmarks.hlo_collectives import Collective
from mtnet_jax.devices import hlo

# A loop that adds three to its counter, from 2 below 50: 16 times.
_LOOP = """\
HloModule jit_step, is_scheduled=true

FileNames
1 "/tmp/step.py"

%fused (p: bf16[8,16]) -> bf16[8,16] {
  %p = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %n = bf16[8,16]{1,0} negate(%p), metadata={op_name="jit(f)/neg"}, \
backend_config={"estimated_cycles":"9000"}
}

%body (b: (s32[], bf16[8,16], s32[])) -> (s32[], bf16[8,16], s32[]) {
  %b = (s32[]{:T(128)}, bf16[8,16]{1,0}, s32[]) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%b), index=0
  %x = bf16[8,16]{1,0} get-tuple-element(%b), index=1
  %three = s32[] get-tuple-element(%b), index=2
  %next = s32[] add(%three, %i)
  %y = bf16[8,16]{1,0} fusion(%x), kind=kLoop, calls=%fused, \
backend_config={"estimated_cycles":"100"}
  ROOT %all = (s32[], bf16[8,16]{1,0}, s32[]) tuple(%next, %y, %three)
}

%condition (c: (s32[], bf16[8,16], s32[])) -> pred[] {
  %c = (s32[], bf16[8,16]{1,0}, s32[]) parameter(0)
  %limit = s32[]{:T(128)} constant(50)
  %j = s32[] get-tuple-element(%c), index=0
  ROOT %less = pred[]{:T(512)} compare(%j, %limit), direction=LT
}

ENTRY %main (a: bf16[8,16]) -> bf16[8,16] {
  %a = bf16[8,16]{1,0} parameter(0)
  %two = s32[] constant(2)
  %from = s32[] copy(%two)
  %by = s32[] constant(3)
  %f = bf16[8,16]{1,0} fusion(%a), kind=kLoop, calls=%fused, \
metadata={op_name="jit(f)/MTNet/head/neg" stack_frame_id=3}, \
backend_config={"window_config":{"estimated_cycles":"7"}}
  %start = (s32[], bf16[8,16]{1,0}, s32[]) tuple(%from, %f, /*index=2*/%by)
  %while = (s32[], bf16[8,16]{1,0}, s32[]) while(%start), \
condition=%condition, body=%body, metadata={op_name="jit(f)/while"}
  ROOT %out = bf16[8,16]{1,0} get-tuple-element(%while), index=1
}
"""


def test_instructions_by_hand():
  program = hlo.parse(_LOOP)
  assert program.entry == 'main'
  assert list(program.computations) == ['fused', 'body', 'condition', 'main']
  fusion = program.computations['main']['f']
  assert fusion.shape == 'bf16[8,16]{1,0}'
  assert fusion.opcode == 'fusion'
  assert fusion.operands == ('a',)
  assert fusion.op_name == 'jit(f)/MTNet/head/neg'
  assert fusion.cycles == 7
  assert not fusion.is_root
  assert program.computations['main']['out'].is_root
  assert fusion.called == {'calls': ('fused',)}
  loop = program.computations['main']['while']
  assert loop.shape == '(s32[], bf16[8,16]{1,0}, s32[])'
  assert loop.called == {'body': ('body',), 'condition': ('condition',)}
  assert program.computations['main']['start'].operands == ('from', 'f', 'by')
  assert program.computations['main']['two'].literal == '2'


def test_other_texts_are_refused():
  with pytest.raises(ValueError, match='no program of XLA'):
    hlo.parse('module @jit_step {}')


@pytest.mark.parametrize(
  ('shape', 'expected'),
  [
    ('f32[]{:T(128)}', 4),
    ('bf16[8,16,14]{2,0,1:T(8,128)(2,1)S(1)}', 2 * 8 * 16 * 14),
    ('pred[3]{0}', 3),
    ('s4[3]{0}', 2),
    ('(f32[2,3]{1,0}, /*index=1*/u8[5]{0}, ((s64[2]{0}), token[]))', 45),
    ('f8e4m3fn[7]{0}', 7),
    ('f32[0]{0}', 0),
  ],
)
def test_bytes_of_shapes(shape, expected):
  assert hlo.num_bytes(shape) == expected


def test_cycles_of_a_loop_are_those_of_all_its_trips():
  program = hlo.parse(_LOOP)
  ran = hlo.steps(program)
  # What is within a fusion is not counted again.
  assert hlo.total_cycles(ran) == 7 + 16 * 100
  assert {s.instruction.name: s.times for s in ran}['y'] == 16
  assert hlo.unknown_loops(program) == []


_COMPARE = 'compare(%j, %limit), direction=LT'
_KNOWN = 'body=%body, backend_config={"known_trip_count":{"n":"5"}}'


@pytest.mark.parametrize(
  ('change', 'expected'),
  [
    ([], 16),
    # The last to run need not give the result.
    ([('direction=LT\n', 'direction=LT\n  %late = s32[] copy(%j)\n')], 16),
    ([('constant(50)', 'constant(51)')], 17),
    ([('direction=LT', 'direction=LE')], 17),
    ([(_COMPARE, 'compare(%limit, %j), direction=GT')], 16),
    ([(_COMPARE, 'compare(%limit, %j), direction=GE')], 17),
    ([('constant(50)', 'constant(1)')], 0),
    ([('constant(3)', 'constant(-3)'), ('constant(50)', 'constant(-7)'),
      ('direction=LT', 'direction=GT')], 3),
    # The compiler's word counts.
    ([('body=%body', _KNOWN)], 5),
    # What cannot be known: a first value, a limit, a step, a condition.
    ([('copy(%two)', 'negate(%two)')], None),
    ([('constant(50)', 'negate(%j)')], None),
    ([('add(%three, %i)', 'multiply(%three, %i)')], None),
    ([('constant(3)', 'constant(0)')], None),
    ([('direction=LT', 'direction=EQ')], None),
    ([(_COMPARE, 'fusion(%j), calls=%fused')], None),
    ([('tuple(%next, %y, %three)', 'tuple(%next, %y, %next)')], None),
  ],
)  # fmt: skip
def test_trips_follow_from_the_condition(change, expected):
  text = _LOOP
  for old, new in change:
    assert old in text
    text = text.replace(old, new)
  program = hlo.parse(text)
  loop = program.computations['main']['while']
  assert hlo.trips(program, 'main', loop) == expected
  unknown = ['jit(f)/while'] if expected is None else []
  assert hlo.unknown_loops(program) == unknown
  # A loop that may run any number of times counts once.
  times = 1 if expected is None else expected
  assert hlo.total_cycles(hlo.steps(program)) == 7 + 100 * times


def test_a_loop_in_a_loop_runs_as_often_as_both():
  program = hlo.parse("""\
%below (c: (s32[])) -> pred[] {
  %c = (s32[]) parameter(0)
  %five = s32[] constant(5)
  %j = s32[] get-tuple-element(%c), index=0
  ROOT %less = pred[] compare(%j, %five), direction=LT
}

%inner (b: (s32[])) -> (s32[]) {
  %b = (s32[]) parameter(0)
  %i = s32[] get-tuple-element(%b), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one), backend_config={"estimated_cycles":"10"}
  ROOT %all = (s32[]) tuple(%next)
}

%outer (d: (s32[])) -> (s32[]) {
  %d = (s32[]) parameter(0)
  %two = s32[] constant(2)
  %from = (s32[]) tuple(%two)
  %loop = (s32[]) while(%from), condition=%below, body=%inner
  %k = s32[] get-tuple-element(%d), index=0
  %more = s32[] add(%k, %two), backend_config={"estimated_cycles":"7"}
  ROOT %rest = (s32[]) tuple(%more)
}

ENTRY %main () -> (s32[]) {
  %zero = s32[] constant(0)
  %start = (s32[]) tuple(%zero)
  ROOT %whole = (s32[]) while(%start), condition=%below, body=%outer
}
""")
  # 0, 2, 4, and each time 2, 3, 4.
  assert hlo.total_cycles(hlo.steps(program)) == 3 * (7 + 3 * 10)
  assert hlo.unknown_loops(program) == []


def test_the_costliest_branch_counts():
  program = hlo.parse("""\
%small (s: f32[2]) -> f32[2] {
  %s = f32[2]{0} parameter(0)
  ROOT %t = f32[2]{0} negate(%s), backend_config={"estimated_cycles":"3"}
}

%large (l: f32[2]) -> f32[2] {
  %l = f32[2]{0} parameter(0)
  ROOT %m = f32[2]{0} negate(%l), backend_config={"estimated_cycles":"30"}
}

ENTRY %main (p: s32[], x: f32[2]) -> f32[2] {
  %p = s32[] parameter(0)
  %x = f32[2]{0} parameter(1)
  %c = f32[2]{0} conditional(%p, %x, %x), branch_computations={%small, %large}
  ROOT %d = f32[2]{0} call(%c), to_apply=%small
}
""")
  assert hlo.total_cycles(hlo.steps(program)) == 30 + 3


# Collectives.

_SUM = """\
%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %z = f32[] add(%x, %y)
}
"""


def _collectives(lines, before=''):
  text = f'{_SUM}{before}ENTRY %main (p: f32[2,3]) -> f32[2,3] {{\n'
  text += '  %p = f32[2,3]{1,0} parameter(0)\n  %q = f32[] constant(0)\n'
  return hlo_collectives.collectives(hlo.parse(f'{text}{lines}}}\n'))


def test_a_collective_of_one_instruction_overlaps_nothing():
  found = _collectives("""\
  %b = (f32[2,3]{1,0}, f32[]) all-reduce(%p, %q), to_apply=%add
  %n = f32[2,3]{1,0} negate(%p)
  %c = bf16[8,8]{1,0} all-gather(%p), dimensions={0}
  ROOT %d = f32[2,3]{1,0} get-tuple-element(%b), index=0
""")
  assert found == [
    Collective('all-reduce', 28, 1, overlapped=False),
    Collective('all-gather', 128, 1, overlapped=False),
  ]


@pytest.mark.parametrize(
  ('between', 'overlapped'),
  [
    ('', False),
    ('  %t = (f32[2,3]{1,0}) tuple(%p)\n', False),
    ('  %s = (f32[], f32[], u32[]) copy-start(%q)\n', False),
    ('  %n = f32[2,3]{1,0} negate(%p)\n', True),
  ],
)
def test_started_collectives_overlap_where_work_is_between(between, overlapped):
  found = _collectives(f"""\
  %s0 = f32[2,3]{{1,0}} all-reduce-start(%p), to_apply=%add
  %s1 = (f32[2,3]{{1,0}}, f32[8,3]{{1,0}}) all-gather-start(%p), dimensions={{}}
{between}\
  %d0 = f32[2,3]{{1,0}} all-reduce-done(%s0)
  ROOT %d1 = f32[8,3]{{1,0}} all-gather-done(%s1)
""")
  assert found == [
    Collective('all-reduce', 24, 1, overlapped),
    # The other's end is no work.
    Collective('all-gather', 96, 1, overlapped),
  ]


def test_collectives_within_other_instructions():
  held = """\
%wrapped (w: f32[2,3]) -> f32[2,3] {
  %w = f32[2,3]{1,0} parameter(0)
  ROOT %r = f32[2,3]{1,0} all-reduce(%w), to_apply=%add
}
"""
  found = _collectives(
    """\
  %s = ((f32[2,3]{1,0}), f32[2,3]{1,0}, u32[]) async-start(%p), calls=%wrapped
  %n = f32[2,3]{1,0} negate(%p)
  %d = f32[2,3]{1,0} async-done(%s)
  %async-collective-start = (f32[2,3]{1,0}, u32[]) fusion(%d), kind=kCustom, \
calls=%wrapped
  %g = f32[2,3]{1,0} get-tuple-element(%async-collective-start), index=0
  ROOT %async-collective-done = f32[2,3]{1,0} fusion(%g), kind=kCustom, \
calls=%add
""",
    held,
  )
  assert found == [
    Collective('all-reduce', 24, 1, overlapped=True),
    Collective('all-reduce', 24, 1, overlapped=False),
  ]


def test_collectives_in_loops_count_as_often():
  reduced = _LOOP.replace('negate(%p)', 'abs(%p)').replace(
    '%next = s32[] add(%three, %i)',
    '%next = s32[] add(%three, %i)\n'
    '  %sum = bf16[8,16]{1,0} all-reduce(%x), to_apply=%fused',
  )
  found = hlo_collectives.collectives(hlo.parse(reduced))
  assert found == [Collective('all-reduce', 256, 16, overlapped=False)]
