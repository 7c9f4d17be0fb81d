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

import collections
import contextlib
import socket
from typing import Any
from unittest import mock

import ddt
from hypothesis import given
from hypothesis import strategies as st
from oslo_config import cfg
from oslotest import base

from cinder_spdk_vhost import exceptions, names
from cinder_spdk_vhost.volume import connectors

UUID = '3b7ee285-6e6b-49ac-9480-4ae82f02f184'

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
# What an API user can send: any JSON, likely under the keys that are read.
FORGED = st.fixed_dictionaries(
    {},
    optional={
        'host': JSON,
        'mode': JSON | st.sampled_from([*names.MODES, 'RW', '../rw']),
        'ip': JSON,
        'nqn': JSON
        | st.text()
        | st.from_regex(r'nqn\.2014-08\.[a-z.]{0,9}:[!-~]{0,9}'),
        connectors.KEY: JSON
        | st.fixed_dictionaries(
            {},
            optional={
                'lvstores': JSON | st.lists(JSON, max_size=3),
                'socket': JSON,
            },
        ),
    },
)


def parse(**values: Any) -> connectors.Connector:
    return connectors.Connector.parse(values)


@ddt.ddt
class Connectors(base.BaseTestCase):
    def test_ours(self) -> None:
        parsed = parse(
            host='storage-1', mode='ro', spdk_vhost={'lvstores': [UUID, UUID]}
        )
        self.assertEqual(
            connectors.Connector(
                'storage-1', frozenset({UUID}), 'ro', stock=False
            ),
            parsed,
        )
        parsed.check_local('P', UUID)

    def test_stock(self) -> None:
        self.assertEqual(
            connectors.Connector(
                'h', frozenset(), 'rw', stock=True, nqn='nqn.y'
            ),
            parse(host='h', initiator='iqn.x', nqn='nqn.y', multipath=False),
        )

    def test_mode_unsaid_is_writable(self) -> None:
        self.assertEqual('rw', parse().mode)

    @ddt.data(None, '', 'x', 3, [], ['spdk_vhost'], object())
    def test_no_connector(self, value) -> None:
        self.assertRaises(
            exceptions.Conflict, connectors.Connector.parse, value
        )

    def test_other_mappings_will_do(self) -> None:
        parsed = connectors.Connector.parse(
            collections.UserDict({'spdk_vhost': {'lvstores': [UUID]}})
        )
        parsed.check_local('P', UUID)

    @ddt.data('x', 3, [], [UUID], True, False, 0, '')
    def test_our_key_is_no_object(self, value) -> None:
        error = self.assertRaises(exceptions.Conflict, parse, spdk_vhost=value)
        self.assertIn('"spdk_vhost" is no object', str(error))

    @ddt.data(UUID, {UUID: 1}, [1], [None], [[UUID]], [UUID, 2], None, 0)
    def test_lvstores_are_no_list_of_uuids(self, value) -> None:
        error = self.assertRaises(
            exceptions.Conflict, parse, spdk_vhost={'lvstores': value}
        )
        self.assertIn('"lvstores" is no list', str(error))

    @ddt.data('RW', 'w', '', None, 1, True, ['rw'], {'rw': 1}, 'rw\n', '../')
    def test_bad_mode(self, mode) -> None:
        error = self.assertRaises(exceptions.Conflict, parse, mode=mode)
        self.assertIn(f'"mode" is "{mode}"', str(error))
        self.assertIn('rw and ro', str(error))

    @ddt.data(UUID.upper(), UUID[:-1], f'{UUID} ', 'other')
    def test_another_store(self, held: str) -> None:
        parsed = parse(host='h', spdk_vhost={'lvstores': [held]})
        error = self.assertRaises(
            exceptions.Conflict, parsed.check_local, 'P', UUID
        )
        for part in ('host h', '"P"', UUID, 'does not hold'):
            self.assertIn(part, str(error))

    @ddt.data({}, {'spdk_vhost': None}, {'spdk_vhost': {}})
    def test_no_spdk_of_its_own(self, values) -> None:
        error = self.assertRaises(
            exceptions.Conflict,
            parse(host='h', **values).check_local,
            'P',
            UUID,
        )
        for part in ('host h', '"spdk_vhost" key', '"P"', UUID):
            if part not in ('"P"', UUID):
                self.assertIn(part, str(error))

    def test_being_local_is_no_matter_of_names(self) -> None:
        """A host's word for where it is counts for nothing."""
        parsed = parse(
            host='storage-1', ip='127.0.0.1', spdk_vhost={'lvstores': ['P']}
        )
        self.assertRaises(exceptions.Conflict, parsed.check_local, 'P', UUID)

    @given(FORGED | JSON)
    def test_forged(self, forged: Any) -> None:
        try:
            parsed = connectors.Connector.parse(forged)
            self.assertIn(parsed.mode, names.MODES)
            self.assertIsInstance(parsed.host, str)
            for store in parsed.lvstores:
                self.assertIsInstance(store, str)
            self.assertIsInstance(parsed.why_not_local('P'), str)
            with contextlib.suppress(exceptions.Conflict):
                self.assertEqual(forged.get('nqn'), parsed.nvmeof_host().nqn)
            if parsed.stock:
                connectors.check_here(forged, 'T', True)
            parsed.check_local('P', UUID)
        except exceptions.Conflict as e:
            self.assertTrue(str(e))
        else:
            self.assertIn(UUID, forged[connectors.KEY]['lvstores'])


@ddt.ddt
class OfThisHost(base.BaseTestCase):
    """A connector without our key, as Cinder's own transfers send it."""

    def setUp(self) -> None:
        super().setUp()
        self.here = {
            'host': socket.gethostname(),
            'ip': cfg.CONF.my_ip,
            'initiator': 'iqn.x',
            'system uuid': 'u',
            'multipath': False,
            'os_type': 'linux',
        }
        patch = mock.patch(
            'cinder.volume.volume_utils.brick_get_connector_properties',
            lambda: dict(self.here),
        )
        patch.start()
        self.addCleanup(patch.stop)

    def _check(self, here: bool = True, **changes: Any) -> None:
        connector = {**self.here, **changes}
        connectors.check_here(connector, 'unix:///spdk.sock', here)

    def _refused(self, *args: Any, **changes: Any) -> str:
        return str(
            self.assertRaises(
                exceptions.Conflict, self._check, *args, **changes
            )
        )

    def test_same(self) -> None:
        self._check()

    @ddt.data(
        {'multipath': True, 'mode': 'rw', 'mountpoint': '/dev/vdb'},
        # One of the two may lack it, as a container without the file does.
        {'nqn': 'nqn.y'},
        {'initiator': None},
        {'initiator': ''},
    )
    def test_what_does_not_matter(self, changes) -> None:
        self._check(**changes)

    @ddt.data('host', 'ip', 'initiator', 'system uuid')
    def test_another_host(self, key: str) -> None:
        said = self._refused(**{key: 'other'})
        for part in (f'another "{key}"', '"spdk_vhost" key', 'target itself'):
            self.assertIn(part, said)

    @ddt.data('host', 'ip')
    def test_no_word_of_where(self, key: str) -> None:
        del self.here[key]
        self._refused()

    @ddt.data(1, [], {'x': 'y'}, True, float('nan'), ['iqn.x'])
    def test_forged_ids(self, value) -> None:
        for key in ('host', 'ip'):
            self._refused(**{key: value})
        if value:
            self._refused(initiator=value)

    def test_the_target_is_elsewhere(self) -> None:
        said = self._refused(False)
        for part in ('unix:///spdk.sock', 'cinder-volume', '"spdk_vhost"'):
            self.assertIn(part, said)
        self.assertNotIn('another', said)

    def test_other_hosts_cost_nothing(self) -> None:
        """Some of what os-brick gives takes a process of root's."""
        with mock.patch(
            'cinder.volume.volume_utils.brick_get_connector_properties',
            side_effect=AssertionError('asked'),
        ):
            self._refused(host='other')
            self._refused(ip='other')
