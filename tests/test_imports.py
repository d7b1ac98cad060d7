"""Imports point one way only: from the shell down to arrays."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

from mtnet_jax.commands.verbs import VERBS

# Rooms of mtnet_jax from the ground up: each may import itself and those of
# lines above it.
_ORDER = [
  ('configs', 'errors', 'typing', 'locations', 'files', 'progress'),
  ('cli', 'recipes'),
  ('ops',),
  ('layers',),
  ('models', 'preprocessing', 'metrics'),
  ('devices',),
  ('data',),
  ('runs',),
  ('export',),
  ('evaluation',),
  ('training',),
  ('prediction',),
  ('analysis',),
  ('explain',),
  ('convert',),
  ('thesis',),
  ('experiments',),
  ('datasets',),
  ('commands',),
]
# What folders of the tree are installed as.
_INSTALLED = {'configs': 'mtnet_jax.configs', 'data': 'mtnet_jax.datasets'}
_RANK = {name: rank for rank, names in enumerate(_ORDER) for name in names}


def _imported(path: pathlib.Path) -> set[str]:
  """Full names of the modules that a file imports, wherever in the file.

  Also those that `importlib` is told: of a name that is put together, what it
  begins with, and `*`.
  """
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
    elif isinstance(node, ast.Call) and 'import_module' in ast.unparse(
      node.func
    ):
      names |= {_told(node.args[0])}
  return names


def _told(argument: ast.expr) -> str:
  if isinstance(argument, ast.JoinedStr):
    parts = [getattr(part, 'value', '*') for part in argument.values]
    return ''.join(p if isinstance(p, str) else '*' for p in parts)
  return str(getattr(argument, 'value', '*'))


def _rooms(names: set[str]) -> set[str]:
  parts = [name.split('.') for name in names]
  return {p[1] for p in parts if p[0] == 'mtnet_jax' and len(p) > 1}


def test_names_of_modules_by_hand(tmp_path):
  file = tmp_path / 'file.py'
  file.write_text(
    'import a.b\n'
    'from c import d\n'
    'def f(x):\n'
    '  import importlib\n'
    '  importlib.import_module("e.f")\n'
    '  importlib.import_module(f"configs.{x}")\n'
  )
  wanted = {'a.b', 'c.d', 'importlib', 'e.f', 'configs.*'}
  assert _imported(file) == wanted


def test_no_file_imports_what_stands_above_it(root):
  for path in (root / 'mtnet_jax').rglob('*.py'):
    room = path.relative_to(root / 'mtnet_jax').parts[0].removesuffix('.py')
    if room == '__init__':
      continue
    assert room in _RANK, f'{path}: give the new room {room} a rank'
    for other in _rooms(_imported(path)):
      assert _RANK[other] <= _RANK[room], f'{path} imports {other}'


def _files(root, *folders) -> dict[str, pathlib.Path]:
  """Files by the name of their module, which is that of installed ones."""
  files = {}
  for path in (p for folder in folders for p in (root / folder).rglob('*.py')):
    folder, *names = path.relative_to(root).with_suffix('').parts
    name = '.'.join([_INSTALLED.get(folder, folder), *names])
    files[name.removesuffix('.__init__')] = path
  return files


def test_no_files_import_each_other_in_a_circle(root):
  folders = 'mtnet_jax', 'configs', 'data', 'benchmarks', 'examples'
  files = _files(root, *folders)
  # What `configs/_recipes.py` loads by name is whatever may be varied.
  text = (root / 'configs/_recipes.py').read_text()
  fixed = set(re.findall(r"^  '(\w+)',$", text, re.MULTILINE))
  recipes = {n for n in files if n.startswith('mtnet_jax.configs.')}
  recipes -= {f'mtnet_jax.configs.{name}' for name in fixed}

  def below(name):
    found = set()
    for imported in _imported(files[name]):
      if imported == 'mtnet_jax.configs.*':
        found |= recipes
      while imported and imported not in files:
        imported = imported.rpartition('.')[0]
      found |= {imported} & files.keys()
    return found - {name}

  arrows = {name: below(name) for name in files}
  while arrows:  # files that import none of those left are taken away
    done = {name for name, others in arrows.items() if not others}
    assert done, f'imported in circles: {arrows}'
    arrows = {n: others - done for n, others in arrows.items() if n not in done}


def test_the_picture_of_packages_shows_imports_that_there_are(root):
  text = (root / 'docs/architecture.md').read_text('utf-8')
  picture = re.search(r'```mermaid\nflowchart TD\n(.*?)```', text, re.DOTALL)
  arrows = re.findall(r'^  (\w+) --> (\w+)$', picture[1], re.MULTILINE)
  assert len(arrows) == picture[1].count('\n')
  folders = {'datasets': 'data', 'configs': 'configs'}

  def imports(name):
    folder = root / folders.get(name, f'mtnet_jax/{name}')
    return _rooms(set().union(*map(_imported, folder.rglob('*.py'))))

  assert not [(a, b) for a, b in arrows if b not in imports(a)]
  packages = {p.parent.name for p in root.glob('mtnet_jax/*/__init__.py')}
  assert {name for arrow in arrows for name in arrow} == packages
  cells = ' '.join(re.findall(r'^\| (`.+?) \| ', text, re.MULTILINE))
  assert all(f'`{name}`' in cells for name in packages)


def test_configs_import_nothing_of_the_library_but_each_other(root):
  for path in (root / 'configs').glob('*.py'):
    assert _rooms(_imported(path)) <= {'configs'}, path


def test_kernels_are_known_to_operations_alone(root):
  for folder in ('mtnet_jax', 'benchmarks', 'configs', 'data'):
    for path in (root / folder).rglob('*.py'):
      if root / 'mtnet_jax/ops' not in path.parents:
        names = {name for name in _imported(path) if 'ops.native' in name}
        assert not names, path


def test_nobody_imports_a_data_set(root):
  """But the demo the one that it draws; `mtnet prepare` loads them by name."""
  for path in (root / 'mtnet_jax').rglob('*.py'):
    sets = {n for n in _imported(path) if n.startswith('mtnet_jax.datasets.')}
    demo = path == root / 'mtnet_jax/commands/demo.py'
    wanted = {'mtnet_jax.datasets.stick_figures.prepare'} if demo else set()
    assert sets == wanted, path


def test_nobody_asks_for_folders_that_are_not_installed(root):
  """By the names that they have in a clone alone, where its root is a path."""
  for path in _files(root, 'mtnet_jax', 'configs', 'data').values():
    roots = {name.split('.')[0] for name in _imported(path)}
    assert not roots & {'configs', 'data', 'benchmarks', 'tests'}, path


def test_nobody_imports_an_example(root):
  """Neither the library nor what stands beside it; tests do."""
  folders = 'mtnet_jax', 'configs', 'data', 'benchmarks'
  for path in [*_files(root, *folders).values(), *root.glob('*.py')]:
    names = _imported(path)
    assert not any(name.split('.')[0] == 'examples' for name in names), path


def test_data_sets_do_not_import_each_other(root):
  for path in (root / 'data').rglob('*.py'):
    names = [name.split('.') for name in _imported(path)]
    imported = {p[2] for p in names if p[:2] == ['mtnet_jax', 'datasets']}
    assert imported <= {path.relative_to(root / 'data').parts[0]}, path


def test_the_loader_knows_no_jax(root):
  for path in (root / 'mtnet_jax/data').rglob('*.py'):
    imported = _imported(path)
    roots = {name.split('.')[0] for name in imported}
    assert not roots & {'jax', 'flax', 'optax', 'orbax', 'chex'}, path
    below = {
      'cli',
      'configs',
      'data',
      'errors',
      'files',
      'locations',
      'progress',
    }
    below |= {'typing'}
    assert _rooms(imported) <= below, path


# What a dependency may change in any release.
_UNSTABLE = re.compile(
  r'jax\._src|jax\.experimental|jax\.extend|jax\.interpreters|'
  r'make_user_context|set_xla_metadata|xla_\w+|grain\.experimental'
)


def test_unstable_names_of_dependencies_are_met_in_few_places(root):
  """In `devices` and `ops`; those of grain where batches are loaded."""
  for path in (root / 'mtnet_jax').rglob('*.py'):
    name = path.relative_to(root / 'mtnet_jax')
    if name.parts[0] not in ('devices', 'ops'):
      found = set(_UNSTABLE.findall(path.read_text()))
      loads = str(name) == 'data/loading.py'
      assert found <= ({'grain.experimental'} if loads else set()), path


def test_every_folder_and_loose_file_says_its_question(root):
  for path in (root / 'mtnet_jax').rglob('*.py'):
    assert ast.get_docstring(ast.parse(path.read_text())), path


_SCRIPTS = ('train', 'eval', 'predict', 'explain', 'export')


@pytest.mark.parametrize('name', _SCRIPTS)
def test_scripts_are_the_command_of_the_same_name(root, name):
  text = (root / f'{name}.py').read_text()
  assert f'cli.run({name}.COMMAND)' in text
  assert len(text.splitlines()) <= 8


def test_each_command_can_be_started(root):
  """By a verb, and by a script or `python -m`."""
  paths = [*(root / 'mtnet_jax').rglob('*.py'), *(root / 'data').rglob('*.py')]
  texts = {path.relative_to(root): path.read_text() for path in paths}
  commands = {
    path: text
    for path, text in texts.items()
    if re.search(r'^COMMAND = \w+\.', text, re.MULTILINE)
  }
  assert len(commands) > 15
  scripts = {f'mtnet_jax/commands/{name}.py' for name in _SCRIPTS}
  modules = {module.replace('.', '/') for module, _ in VERBS.values()}
  for path, text in commands.items():
    verb = str(path.with_suffix('')).removeprefix('mtnet_jax/')
    assert path.parts[0] == 'data' or verb in modules, path
    starts = text.endswith("if __name__ == '__main__':\n  cli.run(COMMAND)\n")
    assert starts != (str(path) in scripts), path


def test_tensorflow_never_loads(root):
  """Of all files of the library, in a process of its own."""
  code = f'import sys, {", ".join(sorted(_files(root, "mtnet_jax")))}; '
  code += 'print("tensorflow" in sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, text=True
  )
  assert done.stdout.strip() == 'False', done.stderr
