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

"""Every request that ``spdk/`` can make, against SPDK's own schema."""

import importlib
import inspect
import json
import math
import pathlib
import pkgutil
from typing import Any, get_origin

import ddt
from oslotest import base

from cinder_spdk_vhost import rpc, spdk
from cinder_spdk_vhost.spdk import (
    app,
    bdev,
    keyring,
    lvol,
    nbd,
    nvmf,
    qos,
    ublk,
    vhost,
)
from cinder_spdk_vhost.volume import setup

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCHEMA = ROOT.parent / 'shared' / 'spdk' / 'schema.json'
GIB = 1024**3
UUID = '6f0c7d1e-1111-4222-8333-0123456789ab'
LISTENER = nvmf.Listener('tcp', 'IPv4', '192.0.2.1', 4420)

# One for each function; a new function needs a line here.
REQUESTS = {
    'app.get_methods': app.get_methods(),
    'app.get_process': app.get_process(),
    'app.get_version': app.get_version(),
    'bdev.get': bdev.get('B'),
    'bdev.get_lvol': bdev.get_lvol('P/v'),
    'keyring.add_file': keyring.add_file('k', '/etc/k'),
    'keyring.get_keys': keyring.get_keys(),
    'keyring.remove_file': keyring.remove_file('k'),
    'lvol.clone': lvol.clone('P/s', 'v'),
    'lvol.create': lvol.create('P', 'v', 9, thin=True, clear_method='unmap'),
    'lvol.decouple_parent': lvol.decouple_parent('P/v', GIB),
    'lvol.delete': lvol.delete('P/v', GIB),
    'lvol.get_lvstore': lvol.get_lvstore('P'),
    'lvol.get_lvstores': lvol.get_lvstores(),
    'lvol.get_names': lvol.get_names('P'),
    'lvol.get_uuids': lvol.get_uuids('P'),
    'lvol.inflate': lvol.inflate('P/v', GIB),
    'lvol.rename': lvol.rename('P/v', 'w'),
    'lvol.resize': lvol.resize('P/v', 9),
    'lvol.set_parent': lvol.set_parent('P/v', 'P/s'),
    'lvol.snapshot': lvol.snapshot('P/v', 's'),
    'lvol.wait_for_examine': lvol.wait_for_examine(),
    'nbd.get_all': nbd.get_all(),
    'nbd.start': nbd.start('B'),
    'nbd.stop': nbd.stop('/dev/nbd0'),
    'nvmf.add_host': nvmf.add_host(
        'nqn', 'host', dhchap_key='k', dhchap_ctrlr_key='c'
    ),
    'nvmf.add_listener': nvmf.add_listener('nqn', LISTENER),
    'nvmf.add_namespace': nvmf.add_namespace(
        'nqn', 'B', nsid=1, uuid=UUID, nguid=UUID.replace('-', '')
    ),
    'nvmf.create_subsystem': nvmf.create_subsystem(
        'nqn', max_namespaces=1, serial='SN', model='MN', ana_reporting=True
    ),
    'nvmf.create_transport': nvmf.create_transport('tcp'),
    'nvmf.delete_subsystem': nvmf.delete_subsystem('nqn'),
    'nvmf.get_controllers': nvmf.get_controllers('nqn'),
    'nvmf.get_names': nvmf.get_names(),
    'nvmf.get_subsystem': nvmf.get_subsystem('nqn'),
    'nvmf.get_transports': nvmf.get_transports(),
    'nvmf.remove_host': nvmf.remove_host('nqn', 'host'),
    'nvmf.remove_listener': nvmf.remove_listener('nqn', LISTENER),
    'nvmf.remove_namespace': nvmf.remove_namespace('nqn', 1),
    'qos.set_limits': qos.set_limits('P/v', qos.RateLimits(1000, 2, 3, 4)),
    'ublk.get_all': ublk.get_all(),
    'ublk.start': ublk.start('B', 1),
    'ublk.stop': ublk.stop(1),
    'vhost.create_blk': vhost.create_blk('c', 'B', readonly=True),
    'vhost.delete': vhost.delete('c'),
    'vhost.get': vhost.get('c'),
}

READS = {
    'bdev_get_bdevs',
    'bdev_lvol_get_lvols',
    'bdev_lvol_get_lvstores',
    'bdev_wait_for_examine',
    'framework_get_reactors',
    'keyring_get_keys',
    'nbd_get_disks',
    'nvmf_get_subsystems',
    'nvmf_get_transports',
    'nvmf_subsystem_get_controllers',
    'rpc_get_methods',
    'spdk_get_version',
    'ublk_get_disks',
    'vhost_get_controllers',
}

# What nothing calls yet, so that no target needs it.
FOR_LATER = {
    'keyring_file_add_key',
    'keyring_file_remove_key',
    'keyring_get_keys',
    'nvmf_subsystem_remove_listener',
}

TYPES = {
    'array': list,
    'boolean': bool,
    'int32': int,
    'object': dict,
    'string': str,
    'uuid': str,
    'uint16': int,
    'uint32': int,
    'uint64': int,
    'uint8': int,
}


def makers() -> set[str]:
    """The functions of ``spdk/`` that return a request."""
    found = set()
    for info in pkgutil.iter_modules(spdk.__path__):
        module = importlib.import_module(f'{spdk.__name__}.{info.name}')
        for name, function in inspect.getmembers(module, inspect.isfunction):
            returns = inspect.signature(function).return_annotation
            if (
                function.__module__ == module.__name__
                and (get_origin(returns) or returns) is rpc.Request
            ):
                found.add(f'{info.name}.{name}')
    return found


def unlike(
    params: dict[str, Any], wanted: list[dict[str, Any]], objects: Any
) -> list[str]:
    """What in the parameters is not as the schema has it."""
    known = {field['name']: field for field in wanted}
    faults = [
        f'{name} is missing'
        for name, field in known.items()
        if field.get('required') and name not in params
    ]
    for name, value in params.items():
        field = known.get(name)
        if field is None:
            faults.append(f'{name} is not known')
        elif field.get('deprecated'):
            faults.append(f'{name} goes away')
        elif type(value) is not TYPES[field['type']]:
            faults.append(f'{name} is no {field["type"]}')
        elif field['type'] == 'object':
            faults += unlike(value, objects[field['class']], objects)
    return faults


@ddt.ddt
class Requests(base.BaseTestCase):
    def test_all_are_here(self) -> None:
        self.assertEqual(makers(), set(REQUESTS))

    @ddt.data(*REQUESTS)
    def test_required_methods_have_it(self, name: str) -> None:
        """A target without the method is noticed when the driver starts."""
        allowed = {
            *setup.REQUIRED_METHODS,
            *setup.OPTIONAL_METHODS,
            *FOR_LATER,
            'spdk_get_version',
            'rpc_get_methods',
        }
        self.assertIn(REQUESTS[name].method, allowed)

    def test_nothing_is_for_later_that_is_required(self) -> None:
        named = setup.REQUIRED_METHODS | setup.OPTIONAL_METHODS
        self.assertEqual(set(), FOR_LATER & named)

    def test_no_method_is_required_in_vain(self) -> None:
        used = {request.method for request in REQUESTS.values()}
        named = setup.REQUIRED_METHODS | setup.OPTIONAL_METHODS
        self.assertEqual(set(), named - used)

    @ddt.data(*REQUESTS)
    def test_what_changes_something_says_so(self, name: str) -> None:
        request = REQUESTS[name]
        self.assertEqual(request.method not in READS, request.mutates)

    def test_what_takes_no_parameters_sends_none(self) -> None:
        for name in ('app.get_version', 'app.get_methods'):
            self.assertIsNone(REQUESTS[name].params)
        self.assertIsNone(lvol.wait_for_examine().params)

    @ddt.data(lvol.delete, lvol.inflate, lvol.decouple_parent)
    def test_long_work_has_time_by_its_size(self, build) -> None:
        small = build('P/v', 0).timeout
        large = build('P/v', 1024 * GIB).timeout
        self.assertGreaterEqual(small, 30)
        self.assertGreater(large, 3600)
        self.assertTrue(math.isfinite(large))

    def test_only_new_lvols_are_named_without_their_store(self) -> None:
        bare = {
            (name, key)
            for name, request in REQUESTS.items()
            for key, value in (request.params or {}).items()
            if value in ('v', 's')
        }
        self.assertEqual(
            {
                ('lvol.clone', 'clone_name'),
                ('lvol.create', 'lvol_name'),
                ('lvol.snapshot', 'snapshot_name'),
            },
            bare,
        )


@ddt.ddt
class AgainstTheSchema(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        if not SCHEMA.exists():
            self.skipTest('there is no schema here')
        schema = json.loads(SCHEMA.read_text())
        self.methods = {m['name']: m['params'] for m in schema['methods']}
        self.objects = {o['name']: o['fields'] for o in schema['objects']}

    def _faults(self, method: str, params: Any) -> list[str]:
        return unlike(params or {}, self.methods[method], self.objects)

    @ddt.data(*REQUESTS)
    def test_request(self, name: str) -> None:
        request = REQUESTS[name]
        self.assertEqual([], self._faults(request.method, request.params))

    def test_required_methods_exist(self) -> None:
        self.assertEqual(
            set(),
            {*setup.REQUIRED_METHODS, *setup.OPTIONAL_METHODS}
            - set(self.methods),
        )

    def test_a_wrong_request_would_be_noticed(self) -> None:
        for params, fault in (
            ({'name': 'P/v'}, 'size_in_mib is missing'),
            ({'name': 'v', 'size_in_mib': 1, 'size': 1}, 'size is not known'),
            ({'name': 'v', 'size_in_mib': '1'}, 'size_in_mib is no uint64'),
            ({'name': 'v', 'size_in_mib': True}, 'size_in_mib is no uint64'),
        ):
            self.assertEqual([fault], self._faults('bdev_lvol_resize', params))
        self.assertEqual(
            ['bdev_name is missing', 'bdev is not known'],
            self._faults(
                'nvmf_subsystem_add_ns',
                {'nqn': 'n', 'namespace': {'bdev': 'B'}},
            ),
        )
