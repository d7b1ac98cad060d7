"""Which process one is, as the command line tells."""

import pytest
from absl import flags

from mtnet_jax import cli
from mtnet_jax.cli import Processes
from mtnet_jax.errors import UserError

_ALL = ('--coordinator=host:1234', '--num_processes=4', '--process_id=3')


@pytest.fixture
def parse(monkeypatch):
  """A function of the arguments that parses them on flags of its own."""
  own = flags.FlagValues()
  for kind in ('bool', 'string', 'integer'):
    define = getattr(flags, f'DEFINE_{kind}')
    monkeypatch.setattr(
      cli.flags,
      f'DEFINE_{kind}',
      lambda *a, define=define: define(*a, flag_values=own),
    )
  get = cli.define_processes()

  def parse(*arguments):
    own(['train.py', *arguments])
    return get()

  return parse


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    ([], None),
    (['--distributed'], Processes('', None, None)),
    (['--nodistributed'], None),
    (_ALL, Processes('host:1234', 4, 3)),
    ([*_ALL, '--distributed'], Processes('host:1234', 4, 3)),
    ([*_ALL, '--process_id=0'], Processes('host:1234', 4, 0)),
    (
      [*_ALL, '--num_processes=1', '--process_id=0'],
      Processes('host:1234', 1, 0),
    ),
  ],
)
def test_what_is_allowed(parse, arguments, expected):
  assert parse(*arguments) == expected


@pytest.mark.parametrize('missing', range(3))
@pytest.mark.parametrize('more', [[], ['--distributed']])
def test_the_three_belong_together(parse, missing, more):
  given = [flag for i, flag in enumerate(_ALL) if i != missing]
  for arguments in (given, given[:1], given[1:]):
    with pytest.raises(UserError, match=r'belong together.*--distributed'):
      parse(*arguments, *more)


@pytest.mark.parametrize('index', [4, 5])
def test_a_number_beyond_the_processes(parse, index):
  message = rf'--process_id={index} must be below --num_processes=4'
  with pytest.raises(UserError, match=message):
    parse(*_ALL, f'--process_id={index}')


@pytest.mark.parametrize(
  'argument', ['--process_id=-1', '--num_processes=0', '--process_id=first']
)
def test_numbers_that_are_none(parse, argument):
  with pytest.raises(flags.IllegalFlagValueError):
    parse(*_ALL, argument)
