"""Which process one is, as the command line tells."""

import pytest
from absl import flags

from mtnet_jax.commands import process_flags
from mtnet_jax.errors import UserError

_ALL = ('--coordinator=host:1234', '--num_processes=4', '--process_id=3')


def parse(*arguments):
  values = flags.FlagValues()
  process_flags.define(values)
  values(['train.py', *arguments])
  return process_flags.get(values)


def told(coordinator, count, index):
  return {'coordinator': coordinator, 'count': count, 'index': index}


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    ([], None),
    (['--distributed'], told('', None, None)),
    (['--nodistributed'], None),
    (_ALL, told('host:1234', 4, 3)),
    ([*_ALL, '--distributed'], told('host:1234', 4, 3)),
    ([*_ALL, '--process_id=0'], told('host:1234', 4, 0)),
    (
      [*_ALL, '--num_processes=1', '--process_id=0'],
      told('host:1234', 1, 0),
    ),
  ],
)
def test_what_is_allowed(arguments, expected):
  assert parse(*arguments) == expected


@pytest.mark.parametrize('missing', range(3))
@pytest.mark.parametrize('more', [[], ['--distributed']])
def test_the_three_belong_together(missing, more):
  given = [flag for i, flag in enumerate(_ALL) if i != missing]
  for arguments in (given, given[:1], given[1:]):
    with pytest.raises(UserError, match=r'belong together.*--distributed'):
      parse(*arguments, *more)


@pytest.mark.parametrize('index', [4, 5])
def test_a_number_beyond_the_processes(index):
  message = rf'--process_id={index} must be below --num_processes=4'
  with pytest.raises(UserError, match=message):
    parse(*_ALL, f'--process_id={index}')


@pytest.mark.parametrize(
  'argument', ['--process_id=-1', '--num_processes=0', '--process_id=first']
)
def test_numbers_that_are_none(argument):
  with pytest.raises(flags.IllegalFlagValueError):
    parse(*_ALL, argument)
