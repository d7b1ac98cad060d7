"""Help of flags, docstrings and spelling: lists of what may not be written.

The checks know no grammar, and leave the rest to readers.
"""

import ast
import re

import pytest

# Openings of a description that leaves out its noun.
_NO_NOUN = re.compile(
  r'(as|at|by|for|from|in|it|its|likewise|of|on|or|so|some|such|that|they|'
  r'those|to|whose|with)\b'
)
# A line of `Args:` or `Attributes:`.
_ARGUMENT = re.compile(r'  (\*{0,2}\w[\w`, *]*): (.*)')
# A verb in the third person, as in "Returns the mean."
_VERB = re.compile(r'[A-Z][a-z]+s,? ')
# Spellings that are not American.
_SPELLINGS = (
  r'(general|initial|material|maxim|minim|normal|optim|organ|parallel|quant|'
  r'random|recogn|regular|serial|summar|synchron|vector|visual)'
  r'is(e|ed|es|er|ing|ation)\b',
  r'(behavi|col|fav|neighb)our',
  r'\b(centi|kilo|milli)?(cent|met)re[ds]?\b',
  r'\blicences?\b',
  r'\bgrey',
  r'\b(analys|catalogu)ed?\b',
  r'(label|model|cancel|travel)l(ed|ing)\b',
)
# Names, perhaps on two lines: of the thesis, of a method in it, of a status.
_NAMES = re.compile(
  r"Efficient\s+Modelling|class[-_\s'/]+regularisation|CANCELLED", re.IGNORECASE
)
_FOLDERS = ('mtnet_jax', 'configs', 'data', 'benchmarks', 'examples', 'tests')


@pytest.fixture(scope='module')
def trees(root):
  """The syntax tree of each file."""
  paths = [p for f in _FOLDERS for p in (root / f).rglob('*.py')]
  return {path: ast.parse(path.read_text('utf-8')) for path in paths}


def _lacks_noun(text):
  return bool(_NO_NOUN.match(text[:1].lower() + text[1:]))


def _helps(tree):
  """The texts of flags in a module: (name of the flag, help)."""
  for node in ast.walk(tree):
    if not isinstance(node, ast.Call) or not node.args:
      continue
    name = ast.unparse(node.args[0]).strip("'")
    function = getattr(node.func, 'attr', '')
    if function.startswith('DEFINE_'):
      place = 3 if 'enum' in function else 2
      texts = node.args[place : place + 1]
    elif function == 'add_argument':
      texts = [k.value for k in node.keywords if k.arg == 'help']
    else:
      continue
    for text in texts:
      if isinstance(text, ast.JoinedStr):
        text = text.values[0]
      if isinstance(text, ast.Constant):
        yield name, text.value


def _arguments(docstring):
  """The lines of its arguments and attributes: (name, description)."""
  inside = False
  for line in docstring.splitlines():
    if line and not line.startswith(' '):
      inside = line in ('Args:', 'Attributes:')
    elif inside and (found := _ARGUMENT.fullmatch(line)):
      yield found.groups()


def _documented(tree):
  """Functions and classes with a docstring: (node, docstring)."""
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      if docstring := ast.get_docstring(node):
        yield node, docstring


@pytest.mark.parametrize(
  ('text', 'ill'),
  [
    ('Of the run.', True),
    ('whose file it is', True),
    ('that it is of', True),
    ('Folder of the run.', False),
    ('offset in pixels', False),
    ('FROM:TO, the steps', False),
    ('torch module', False),
  ],
)
def test_openings_by_hand(text, ill):
  assert _lacks_noun(text) == ill


def test_what_is_found_in_a_module_by_hand():
  tree = ast.parse(
    "flags.DEFINE_enum('a', None, ['b'], 'c', flag_values=v)\n"
    "flags.DEFINE_integer('d', 1, f'e {g}', 0)\n"
    "parser.add_argument('--h', help='i')\n"
    'def j():\n'
    '  """K.\n\n  Args:\n    l: m: n\n      o: p\n\n'
    '  Raises:\n    q: r\n  """\n'
  )
  assert list(_helps(tree)) == [('a', 'c'), ('d', 'e '), ('--h', 'i')]
  ((node, docstring),) = _documented(tree)
  assert node.name == 'j'
  assert list(_arguments(docstring)) == [('l', 'm: n')]


def test_help_of_a_flag_begins_with_a_noun_or_verb(trees):
  found = [
    (path, name, text)
    for path, tree in trees.items()
    for name, text in _helps(tree)
    if path.name != 'test_words.py'
  ]
  assert len(found) > 100
  ill = [
    f'{path}: --{name}: {text}'
    for path, name, text in found
    if text and (_lacks_noun(text) or len(text.split()) < 2)
  ]
  assert not ill


def test_description_of_an_argument_begins_with_a_noun(trees):
  found = [
    (path, node.name, *line)
    for path, tree in trees.items()
    for node, docstring in _documented(tree)
    for line in _arguments(docstring)
  ]
  assert len(found) > 1_000
  ill = [
    f'{path}: {where}: {name}: {text}'
    for path, where, name, text in found
    if _lacks_noun(text)
  ]
  assert not ill


def test_docstring_of_a_public_function_begins_with_a_verb(root, trees):
  """Properties and classes may begin with a noun."""
  ill = []
  for path, tree in trees.items():
    if not path.is_relative_to(root / 'mtnet_jax'):
      continue
    for node, docstring in _documented(tree):
      is_property = 'property' in ' '.join(
        map(ast.unparse, node.decorator_list)
      )
      if isinstance(node, ast.ClassDef) or is_property:
        continue
      if node.name.startswith('_') or _VERB.match(docstring):
        continue
      ill.append(f'{path}: {node.name}: {docstring.splitlines()[0]}')
  assert not ill


def test_spellings_by_hand():
  ill = 'normalised optimiser colour neighbouring licence grey modelling'
  assert all(_misspelled(word) for word in ill.split())
  good = 'Class Regularisation, promise, noise, gradient, optimism, center'
  assert not _misspelled(good)
  assert not _misspelled(good.lower())


def _misspelled(text):
  text = _NAMES.sub('', text)
  return [
    found[0]
    for pattern in _SPELLINGS
    for found in re.finditer(pattern, text, re.IGNORECASE)
  ]


def test_each_word_has_one_spelling(root):
  paths = [
    path
    for folder in (*_FOLDERS, 'docs')
    for path in (root / folder).rglob('*')
    if path.suffix in ('.py', '.md', '.cc', '.h')
  ]
  paths += [*root.glob('*.md'), *root.glob('*.py'), root / 'pyproject.toml']
  assert len(paths) > 300
  ill = []
  for path in paths:
    if path.name == 'test_words.py':
      continue
    # A name may stand on two lines.
    words = _misspelled(path.read_text('utf-8'))
    ill += [f'{path}: {word}' for word in words]
  assert not ill
