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

"""NVMe-oF and keys, read from answers that a real SPDK v26.05 gave."""

import ddt
from oslotest import base

from cinder_spdk_vhost import rpc
from cinder_spdk_vhost.spdk import app, keyring, nvmf
from tests.unit import scripted

NQN = 'nqn.2016-06.io.spdk:cnode1'
HOST = 'nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555'
OTHER = 'nqn.2016-06.io.spdk:h5'
UUID = '3f1c0d1e-6f5a-4d4b-9a53-0a0b0c0d0e0f'
NGUID = 'ABCDEF0123456789ABCDEF0123456789'

SUBSYSTEM = {
    'nqn': NQN,
    'subtype': 'NVMe',
    'listen_addresses': [
        {
            'trtype': 'TCP',
            'adrfam': 'IPv6',
            'traddr': '::1',
            'trsvcid': '4421',
        },
        {
            'trtype': 'TCP',
            'adrfam': 'IPv4',
            'traddr': '127.0.0.1',
            'trsvcid': '4420',
        },
    ],
    'allow_any_host': False,
    'hosts': [
        {'nqn': OTHER, 'dhchap_key': 'k1', 'dhchap_ctrlr_key': 'k2'},
        {'nqn': HOST},
    ],
    'serial_number': 'SPDK00000000000001',
    'model_number': 'SPDK bdev Controller',
    'max_namespaces': 16,
    'passthrough': False,
    'min_cntlid': 1,
    'max_cntlid': 65519,
    'dmrsl': 2097152,
    'wzsl': 12,
    'namespaces': [
        {
            'nsid': 5,
            'bdev_name': 'NS1',
            'name': 'NS1',
            'nguid': NGUID,
            'uuid': UUID,
            'anagrpid': 5,
        }
    ],
}
DISCOVERY = {
    'nqn': 'nqn.2014-08.org.nvmexpress.discovery',
    'subtype': 'Discovery',
    'listen_addresses': [],
    'allow_any_host': True,
    'hosts': [],
}
CONTROLLER = {
    'cntlid': 1,
    'cntrltype': 'io',
    'hostnqn': HOST,
    'hostid': 'afdc9852-f921-4108-9c6a-86bc87a72b15',
    'num_io_qpairs': 1,
}
KEYS = [
    {
        'name': 'k1',
        'module': 'keyring_file',
        'removed': False,
        'probed': False,
        'refcnt': 2,
        'path': '/run/spdk/k1.key',
    },
    {
        'name': 'kbad',
        'module': 'keyring_file',
        'removed': True,
        'probed': False,
        'refcnt': 1,
    },
]
THREADS = [
    {'name': 'app_thread', 'id': 1, 'cpumask': '1', 'elapsed': 5000000000},
    {'name': 'nvmf', 'id': 2, 'cpumask': '1', 'elapsed': 4000000000},
]
REACTORS = {
    'tick_rate': 2000000000,
    'pid': 8543,
    'reactors': [
        {'lcore': 0, 'lw_threads': THREADS},
        {'lcore': 1, 'lw_threads': []},
    ],
}


class Records(base.BaseTestCase):
    def test_subsystem(self) -> None:
        self.assertEqual(
            nvmf.Subsystem(
                nqn=NQN,
                serial='SPDK00000000000001',
                model='SPDK bdev Controller',
                allow_any_host=False,
                hosts={OTHER: nvmf.Keys('k1', 'k2'), HOST: nvmf.Keys()},
                listeners=(
                    nvmf.Listener('tcp', 'IPv6', '::1', 4421),
                    nvmf.Listener('tcp', 'IPv4', '127.0.0.1', 4420),
                ),
                namespaces=(nvmf.Namespace(5, 'NS1', UUID, NGUID),),
            ),
            nvmf.get_subsystem(NQN).parse([SUBSYSTEM]),
        )

    def test_discovery(self) -> None:
        found = nvmf.get_subsystem(DISCOVERY['nqn']).parse([DISCOVERY])
        self.assertTrue(found.allow_any_host)
        self.assertEqual(((), ''), (found.namespaces, found.serial))

    def test_names(self) -> None:
        self.assertEqual(
            [DISCOVERY['nqn'], NQN],
            nvmf.get_names().parse([DISCOVERY, SUBSYSTEM]),
        )

    def test_listener_of_another_transport(self) -> None:
        address = {
            'trtype': 'VFIOUSER',
            'adrfam': 'unknown',
            'traddr': '/run/x',
            'trsvcid': '',
        }
        found = nvmf.get_subsystem(NQN).parse(
            [{**SUBSYSTEM, 'listen_addresses': [address]}]
        )
        self.assertEqual('vfiouser', found.listeners[0].transport)

    def test_listener_as_it_is_asked_for(self) -> None:
        for shown in SUBSYSTEM['listen_addresses']:
            found = nvmf.get_subsystem(NQN).parse(
                [{**SUBSYSTEM, 'listen_addresses': [shown]}]
            )
            self.assertEqual(shown, found.listeners[0].as_dict())

    def test_transports(self) -> None:
        self.assertEqual(
            frozenset({'tcp'}),
            nvmf.get_transports().parse([{'trtype': 'TCP', 'kas': 100}]),
        )

    def test_connected_hosts(self) -> None:
        parse = nvmf.get_controllers(NQN).parse
        again = {**CONTROLLER, 'cntlid': 2}
        self.assertEqual(frozenset({HOST}), parse([CONTROLLER, again]))
        self.assertEqual(frozenset(), parse([]))

    def test_keys(self) -> None:
        self.assertEqual(
            [
                keyring.Key('k1', '/run/spdk/k1.key', removed=False),
                keyring.Key('kbad', None, removed=True),
            ],
            keyring.get_keys().parse(KEYS),
        )

    def test_process(self) -> None:
        self.assertEqual(
            app.Process(8543, 2.5), app.get_process().parse(REACTORS)
        )


class Requests(base.BaseTestCase):
    def test_what_is_not_wanted_is_not_sent(self) -> None:
        for request, params in (
            (nvmf.add_host('n', 'h'), {'nqn': 'n', 'host': 'h'}),
            (
                nvmf.add_namespace('n', 'B'),
                {'nqn': 'n', 'namespace': {'bdev_name': 'B'}},
            ),
            (
                nvmf.create_subsystem('n', max_namespaces=1),
                {'nqn': 'n', 'max_namespaces': 1},
            ),
        ):
            self.assertEqual(params, request.params)


LISTENER = nvmf.Listener('tcp', 'IPv4', '127.0.0.1', 4420)


@ddt.ddt
class Errors(base.BaseTestCase):
    """The recorded refusals, as callers see them."""

    @ddt.data(
        (nvmf.get_subsystem('n'), -19, 'No such device', rpc.NotFound),
        (
            nvmf.create_transport('tcp'),
            -32603,
            "Transport type 'TCP' already exists",
            rpc.Exists,
        ),
        (
            nvmf.create_transport('rdma'),
            -32602,
            "Invalid transport type 'RDMA'",
            rpc.InvalidParams,
        ),
        (
            nvmf.add_listener('n', LISTENER),
            -32602,
            'Invalid parameters',
            rpc.InvalidParams,
        ),
        (
            nvmf.add_host('n', 'h'),
            -32603,
            'Internal error',
            rpc.TargetError,
        ),
        (keyring.add_file('k', '/k'), -17, 'File exists', rpc.Exists),
        (
            keyring.add_file('k', '/k'),
            -1,
            'Operation not permitted',
            rpc.NotPermitted,
        ),
        (
            keyring.add_file('k', '/k'),
            -2,
            'No such file or directory',
            rpc.NotFound,
        ),
        (
            keyring.remove_file('k'),
            -126,
            'Required key not available',
            rpc.NotFound,
        ),
    )
    @ddt.unpack
    def test_refusal(self, request, code, message, kind) -> None:
        refused = scripted.Refused(message, code)
        script = scripted.Script(**{request.method: refused})
        raised = self.assertRaises(
            rpc.TargetError, scripted.target(script).ask, request
        )
        self.assertIs(kind, type(raised))
