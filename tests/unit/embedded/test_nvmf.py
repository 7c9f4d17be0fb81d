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

"""The NVMe-oF target's books, where no recording looks."""

import base64
import os
import zlib

import ddt
from oslotest import base

from cinder_spdk_vhost.embedded import errors, outcome, rpc
from cinder_spdk_vhost.embedded.nvmf import psk, transports
from tests.unit.embedded import inprocess

NQN = 'nqn.2016-06.io.spdk:'
SUBSYSTEM = f'{NQN}one'
HOST = f'{NQN}host'
PORT = {'trtype': 'TCP', 'traddr': '127.0.0.1', 'trsvcid': '4420'}
GIB = 1 << 30


class Base(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.books = inprocess.Books(GIB)
        self.addCleanup(self.books.close)
        self.call = self.books.call

    def volume(self, name: str) -> None:
        self.call(
            'bdev_lvol_create', lvs_name='P', lvol_name=name, size_in_mib=4
        )

    def subsystem(self, nqn: str = SUBSYSTEM) -> dict:
        (found,) = self.call('nvmf_get_subsystems', nqn=nqn)
        return found

    def refused(self, text: str, method: str, /, **params) -> None:
        refusal = self.assertRaises(
            inprocess.Refused, self.call, method, **params
        )
        self.assertEqual(text, str(refusal))


class Subsystems(Base):
    def test_limit(self) -> None:
        for number in range(1023):
            self.call('nvmf_create_subsystem', nqn=f'{NQN}{number}')
        self.refused(
            f'Unable to create subsystem {NQN}more',
            'nvmf_create_subsystem',
            nqn=f'{NQN}more',
        )
        self.call('nvmf_delete_subsystem', nqn=f'{NQN}7')
        self.call('nvmf_create_subsystem', nqn=f'{NQN}more')
        self.assertEqual(1024, len(self.call('nvmf_get_subsystems')))

    def test_gone_after_a_restart(self) -> None:
        self.volume('v')
        self.call('nvmf_create_transport', trtype='TCP')
        self.call('nvmf_create_subsystem', nqn=SUBSYSTEM)
        self.call(
            'nvmf_subsystem_add_ns',
            nqn=SUBSYSTEM,
            namespace={'bdev_name': 'P/v'},
        )
        self.call('nvmf_subsystem_add_host', nqn=SUBSYSTEM, host=HOST)
        self.books.restart()
        self.refused('No such device', 'nvmf_get_subsystems', nqn=SUBSYSTEM)
        self.assertEqual([], self.call('nvmf_get_transports'))
        self.assertIsNone(self.books.volume('v').claim)

    def test_namespace_has_the_bdevs_nguid(self) -> None:
        self.volume('v')
        self.call('nvmf_create_subsystem', nqn=SUBSYSTEM)
        own = '6f0c7d1e-1111-4222-8333-0123456789ab'
        self.call(
            'nvmf_subsystem_add_ns',
            nqn=SUBSYSTEM,
            namespace={'bdev_name': 'P/v', 'uuid': own},
        )
        (space,) = self.subsystem()['namespaces']
        self.assertEqual(own, space['uuid'])
        uuid = self.books.volume('v').uuid
        self.assertEqual(uuid.replace('-', '').upper(), space['nguid'])

    def test_masks(self) -> None:
        self.volume('v')
        self.call('nvmf_create_subsystem', nqn=SUBSYSTEM)
        self.call(
            'nvmf_subsystem_add_ns',
            nqn=SUBSYSTEM,
            namespace={'bdev_name': 'P/v', 'no_auto_visible': True},
        )
        mask = {'nqn': SUBSYSTEM, 'nsid': 1, 'host': HOST}
        found = self.books.target.nvmf.find(SUBSYSTEM)
        self.call('nvmf_ns_add_host', **mask)
        self.assertEqual({HOST}, found.namespaces[1].visible_to)
        self.call('nvmf_ns_remove_host', **mask)
        self.assertEqual(set(), found.namespaces[1].visible_to)


class Listeners(Base):
    def setUp(self) -> None:
        super().setUp()
        self.call('nvmf_create_subsystem', nqn=SUBSYSTEM)

    def test_at_most_16(self) -> None:
        self.call('nvmf_create_transport', trtype='TCP')
        for port in range(4420, 4436):
            address = {**PORT, 'trsvcid': str(port)}
            self.call(
                'nvmf_subsystem_add_listener',
                nqn=SUBSYSTEM,
                listen_address=address,
            )
        self.refused(
            'Invalid parameters',
            'nvmf_subsystem_add_listener',
            nqn=SUBSYSTEM,
            listen_address={**PORT, 'trsvcid': '5000'},
        )

    def test_transport_made_twice_at_once(self) -> None:
        """Both are begun before either is done."""
        steps = [
            self.books.begin('nvmf_create_transport', trtype='TCP')
            for _ in range(2)
        ]
        (method, first), (_, second) = steps
        self.assertIs(True, method.finish(first.finish))
        refusal = self.assertRaises(
            errors.RpcError, method.finish, second.finish
        )
        self.assertEqual(
            'Failed to add transport to tgt.(-17)', refusal.message
        )

    def test_made_together_with_its_transport(self) -> None:
        """What arrives together is done one after another."""
        begun = [
            self.books.begin('nvmf_create_transport', trtype='TCP'),
            self.books.begin(
                'nvmf_subsystem_add_listener',
                nqn=SUBSYSTEM,
                listen_address=PORT,
            ),
        ]
        for method, result in begun:
            self.assertIsInstance(result, outcome.Deferred)
            self.assertIs(True, method.finish(result.finish))


@ddt.ddt
class Addresses(base.BaseTestCase):
    @ddt.data(
        ('192.0.2.1', 'IPv4', False),
        ('2001:db8::1', 'IPv6', False),
        ('127.0.0.1', 'IPv4', True),
        ('::1', 'IPv6', True),
    )
    @ddt.unpack
    def test_of_this_host(self, host, family, local) -> None:
        address = transports.Address('TCP', family, host, '4420')
        if local:
            address.check()
        else:
            self.assertRaises(errors.Errno, address.check)


class Keys(Base):
    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.books.target.state_dir, 'key')
        self.write(b'x')

    def write(self, text: bytes) -> None:
        with open(self.path, 'wb') as file:
            file.write(text)
        os.chmod(self.path, 0o600)

    def test_what_a_host_holds_is_released_with_its_subsystem(self) -> None:
        self.call('keyring_file_add_key', name='k', path=self.path)
        self.call('nvmf_create_subsystem', nqn=SUBSYSTEM)
        self.call(
            'nvmf_subsystem_add_host',
            nqn=SUBSYSTEM,
            host=HOST,
            dhchap_key='k',
        )
        self.call('keyring_file_remove_key', name='k')
        (key,) = self.call('keyring_get_keys')
        self.assertEqual((True, 1), (key['removed'], key['refcnt']))
        self.call('nvmf_delete_subsystem', nqn=SUBSYSTEM)
        self.assertEqual([], self.call('keyring_get_keys'))

    def test_what_is_refused_holds_nothing(self) -> None:
        self.call('nvmf_create_transport', trtype='TCP')
        self.call('keyring_file_add_key', name='k', path=self.path)
        self.call('nvmf_create_subsystem', nqn=SUBSYSTEM)
        for content in (b'x', b'x' * 1000, b'\xff\xfe'):
            self.write(content)
            self.refused(
                'Internal error',
                'nvmf_subsystem_add_host',
                nqn=SUBSYSTEM,
                host=HOST,
                dhchap_key='k',
                psk='k',
            )
        (key,) = self.call('keyring_get_keys')
        self.assertEqual(1, key['refcnt'])

    def test_file_that_is_not_there_any_more(self) -> None:
        self.call('nvmf_create_transport', trtype='TCP')
        self.call('keyring_file_add_key', name='k', path=self.path)
        self.call('nvmf_create_subsystem', nqn=SUBSYSTEM)
        os.unlink(self.path)
        self.refused(
            'Internal error',
            'nvmf_subsystem_add_host',
            nqn=SUBSYSTEM,
            host=HOST,
            psk='k',
        )

    def test_psk_is_nobodys_business_without_a_transport(self) -> None:
        self.call('nvmf_create_subsystem', nqn=SUBSYSTEM)
        self.call('nvmf_subsystem_add_host', nqn=SUBSYSTEM, host=HOST, psk='k')

    def test_gone_after_a_restart(self) -> None:
        self.call('keyring_file_add_key', name='k', path=self.path)
        self.books.restart()
        self.assertEqual([], self.call('keyring_get_keys'))


def interchange(size: int, hashed: str, wrong: int = 0) -> str:
    key = bytes(size)
    key += (zlib.crc32(key) ^ wrong).to_bytes(4, 'little')
    return f'NVMeTLSkey-1:{hashed}:{base64.b64encode(key).decode()}:'


@ddt.ddt
class Psks(base.BaseTestCase):
    @ddt.data((32, '00'), (48, '00'), (32, '01'), (48, '02'))
    @ddt.unpack
    def test_valid(self, size, hashed) -> None:
        self.assertTrue(psk.is_valid(interchange(size, hashed)))

    @ddt.data(
        '',
        'x',
        interchange(32, '02'),
        interchange(48, '01'),
        interchange(32, '03'),
        interchange(32, '01', wrong=1),
        interchange(32, '01')[:-1],
        'NVMeTLSkey-1:01:A:',
    )
    def test_invalid(self, text) -> None:
        self.assertFalse(psk.is_valid(text))


class Methods(base.BaseTestCase):
    def test_all_take_the_targets_name(self) -> None:
        """It is the first thing that scripts of others send."""
        without = {
            'nvmf_get_targets',
            'nvmf_set_config',
            'nvmf_set_crdt',
            'nvmf_set_max_subsystems',
        }
        for name, method in rpc.METHODS.items():
            if name.startswith('nvmf_') and name not in without:
                refusal = self.assertRaises(
                    errors.RpcError,
                    method.run,
                    None,
                    {'tgt_name': 1},
                )
                self.assertEqual('Invalid parameters', refusal.message, name)
