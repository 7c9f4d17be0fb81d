#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""The rules of the house: who may import whom, and what a module is like."""

import ast
from collections.abc import Iterator
import pathlib
import subprocess
import sys

import ddt
from oslotest import base

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = 'cinder_spdk_vhost'
HEADER = (ROOT / PACKAGE / '__init__.py').read_text()
MAX_LINES = 500

# room -> what of the package it may import
ALLOWED = {
    'rpc': {'rpc'},
    'spdk': {'spdk', 'rpc'},
    'qos': {'qos', 'spdk', 'rpc', 'names', 'exceptions'},
    'operations': {'operations', 'rpc', 'spdk', 'names', 'exceptions'},
    'export': {
        'export',
        'operations',
        'qos',
        'spdk',
        'rpc',
        'names',
        'exceptions',
    },
    'reconcile': {
        'reconcile',
        'operations',
        'spdk',
        'rpc',
        'names',
        'exceptions',
    },
    'embedded': {'embedded'},
    'names': {'exceptions'},
    'exceptions': set(),
    'opts': set(),
}

# Only these know Cinder; compute hosts have none.
CINDER_ROOMS = ('volume',)
CINDER_MODULES = ('operations/locks.py',)

# What a host without Cinder loads.
WITHOUT_CINDER = ('rpc', 'spdk', 'qos.specs', 'names', 'exceptions', 'opts')


def sources() -> list[pathlib.Path]:
    return sorted((ROOT / PACKAGE).rglob('*.py'))


def room(path: pathlib.Path) -> str:
    """The package or module right below ours."""
    inside = path.relative_to(ROOT / PACKAGE).parts
    return inside[0].removesuffix('.py')


def imported(text: str) -> Iterator[str]:
    """Full names of what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield f'relative import, line {node.lineno}'
            for alias in node.names:
                yield f'{node.module}.{alias.name}'


def rooms_imported(text: str) -> set[str]:
    parts = (name.split('.') for name in imported(text))
    return {p[1] for p in parts if p[0] == PACKAGE and len(p) > 1}


def knows(text: str, package: str) -> bool:
    return any(name.split('.')[0] == package for name in imported(text))


def outside(path: str, text: str) -> set[str]:
    """What a module imports that its room may not."""
    where = room(ROOT / PACKAGE / path)
    rooms = rooms_imported(text)
    faults = set()
    if where in ALLOWED:
        faults = rooms - ALLOWED[where]
    if 'embedded' in rooms and where not in ('embedded', 'cmd'):
        faults.add('embedded')
    if 'cmd' in rooms and where != 'cmd':
        faults.add('cmd')
    if (
        knows(text, 'cinder')
        and where not in CINDER_ROOMS
        and path not in CINDER_MODULES
    ):
        faults.add('cinder')
    if where in ('brick', 'nova') and knows(text, 'eventlet'):
        faults.add('eventlet')
    faults |= {name for name in imported(text) if name.startswith('relative')}
    return faults


@ddt.ddt
class Imports(base.BaseTestCase):
    def test_of_every_module(self) -> None:
        found = {}
        for path in sources():
            inside = path.relative_to(ROOT / PACKAGE).as_posix()
            faults = outside(inside, path.read_text())
            if faults:
                found[inside] = faults
        self.assertEqual({}, found)

    @ddt.data(
        ('rpc/x.py', 'from cinder_spdk_vhost import exceptions', 'exceptions'),
        ('rpc/x.py', 'import cinder_spdk_vhost.spdk.lvol', 'spdk'),
        ('spdk/x.py', 'from cinder_spdk_vhost import names', 'names'),
        ('spdk/x.py', 'from cinder_spdk_vhost.names import volume', 'names'),
        ('operations/x.py', 'from cinder_spdk_vhost import opts', 'opts'),
        ('operations/x.py', 'from cinder import coordination', 'cinder'),
        ('export/x.py', 'from cinder_spdk_vhost.volume import v', 'volume'),
        ('qos/x.py', 'def f():\n from cinder_spdk_vhost import volume', ''),
        ('reconcile/x.py', 'from cinder_spdk_vhost import volume', 'volume'),
        ('embedded/x.py', 'from cinder_spdk_vhost import rpc', 'rpc'),
        ('volume/x.py', 'from cinder_spdk_vhost import embedded', 'embedded'),
        ('volume/x.py', 'from cinder_spdk_vhost.cmd import t', 'cmd'),
        ('cmd/x.py', 'import cinder.context', 'cinder'),
        ('opts.py', 'from cinder.volume import configuration', 'cinder'),
        ('nova/x.py', 'import eventlet', 'eventlet'),
        ('volume/x.py', 'from . import pools', 'relative import, line 1'),
    )
    @ddt.unpack
    def test_what_would_be_noticed(self, path, text, fault) -> None:
        self.assertEqual({fault or 'volume'}, outside(path, text))

    @ddt.data(
        ('operations/locks.py', 'from cinder import coordination'),
        ('volume/x.py', 'import cinder, cinder_spdk_vhost.export.limits'),
        ('export/x.py', 'from cinder_spdk_vhost.operations import locks'),
        ('cmd/x.py', 'from cinder_spdk_vhost.embedded import server'),
    )
    @ddt.unpack
    def test_what_is_all_right(self, path, text) -> None:
        self.assertEqual(set(), outside(path, text))

    def test_a_host_without_cinder(self) -> None:
        names = ', '.join(f'{PACKAGE}.{name}' for name in WITHOUT_CINDER)
        program = f"""
import pkgutil, sys
for missing in ('cinder', 'eventlet', 'tooz', 'nova'):
    sys.modules[missing] = None
import {names}
for package in ({PACKAGE}.rpc, {PACKAGE}.spdk, {PACKAGE}.qos):
    for info in pkgutil.iter_modules(package.__path__):
        __import__(f'{{package.__name__}}.{{info.name}}')
"""
        subprocess.run([sys.executable, '-c', program], check=True, timeout=60)


class Modules(base.BaseTestCase):
    def test_length(self) -> None:
        lengths = {
            str(path.relative_to(ROOT)): len(path.read_text().splitlines())
            for path in sources()
        }
        self.assertEqual(
            {}, {p: n for p, n in lengths.items() if n > MAX_LINES}
        )

    def test_license(self) -> None:
        self.assertIn('Apache License, Version 2.0', HEADER)
        paths = [ROOT / 'setup.py', *sources()]
        for place in ('tests', 'tools'):
            paths += (ROOT / place).rglob('*.py')
        lacking = []
        for path in paths:
            text = path.read_text()
            start = text.partition('\n')[2] if text[:2] == '#!' else text
            if text and not start.startswith(HEADER):
                lacking.append(str(path.relative_to(ROOT)))
        self.assertEqual([], lacking)
