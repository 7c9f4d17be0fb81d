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

"""Hosts that have a volume over NVMe-oF, and what others have of it."""

from typing import Any
from unittest import mock

from cinder.objects import fields
import ddt
from os_brick.initiator.connectors import nvmeof as os_brick_nvmeof
from oslotest import base as test_base

from cinder_spdk_vhost import exceptions, rpc
from cinder_spdk_vhost.export import block, exports, portals
from cinder_spdk_vhost.operations import janitor
from cinder_spdk_vhost.qos import specs
from cinder_spdk_vhost.volume import (
    attached,
    attachments,
    connectors,
    pools,
)
from tests.fixtures import driver as fixture
from tests.unit import locking, scripted
from tests.unit.export import nvme_hosts

LOCAL = fixture.connector(['uuid-of-P'])
STOCK = fixture.remote(1, multipath=True)
OTHER = fixture.remote(2)
OURS = fixture.remote(3, spdk_vhost={'lvstores': ['uuid-of-X']})
HERE = {'host': 'here', 'ip': '192.0.2.9'}


@ddt.ddt
class TestCase(test_base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.volume = fixture.volume('P')
        self.lvol = f'volume-{self.volume.id}'
        self.path = f'P/{self.lvol}'
        self.host = nvme_hosts.NvmeHost(self.path)
        self.host.answers |= {
            'bdev_lvol_get_lvstores': [scripted.store('P')],
            'bdev_get_bdevs': scripted.named(
                {
                    'base-of-P': scripted.bdev('base-of-P'),
                    self.path: lambda _: self.host.lvol(),
                }
            ),
        }
        self.target = scripted.target(self.host)
        self.janitor = janitor.Janitor(lambda: None, 1e6)
        self.pools = pools.Pools(self.target, zeroing=['P'])
        self.pools.refresh()
        self.use('tcp://192.0.2.5:4420', 'rdma://[2001:db8::5]:4421')
        self.host.transports.append('RDMA')
        self.check_here = self._patch(connectors, 'check_here')
        self._patch(block, 'size_of', return_value=1024**3)
        self._patch(connectors.socket, 'gethostname', return_value='here')

    def _patch(self, *args: Any, **kwargs: Any) -> Any:
        patch = mock.patch.object(*args, **kwargs)
        self.addCleanup(patch.stop)
        return patch.start()

    def use(self, *where: str) -> None:
        """Have the service started with these portals."""
        self.attachments = attachments.Attachments(
            self.target,
            self.janitor,
            self.pools,
            exports.Exports(self.target, self.janitor, portals.parse(where)),
        )

    def attach(self, connector: Any) -> dict[str, Any]:
        return self.attachments.attach(
            self.volume, connector, self.pools.get('P'), specs.NONE, False
        )

    def attach_row(self, connector: Any) -> Any:
        self.attach(connector)
        return fixture.attach(self.volume, connector)

    def detach(self, connector: Any, force: bool = False) -> bool:
        return self.attachments.detach(
            self.volume, connector, self.path, force
        )

    def detach_row(self, row: Any) -> bool:
        kept = self.detach(row.connector)
        self.volume.volume_attachment.objects.remove(row)
        return kept

    def remove_unused(self) -> None:
        self.attachments.remove_unused(self.volume, self.path)

    @property
    def hosts(self) -> list[int]:
        """Numbers of those that are let in."""
        if self.host.exported is None:
            return []
        return sorted(
            int(nqn.split(':')[-1][:8], 16) for nqn in self.host.admitted
        )

    def check_nothing_left(self) -> None:
        self.assertEqual({}, self.host.subsystems)
        self.assertEqual({}, self.host.controllers)
        self.assertEqual([], self.host.nbd)


@ddt.ddt
class WhatAConnectorGets(TestCase):
    def test_stock(self) -> None:
        info = self.attach(STOCK)
        nqn = f'nqn.2026-11.org.cinder-spdk-vhost:{self.lvol}'
        self.assertEqual('nvmeof', info['driver_volume_type'])
        self.assertEqual(
            {
                'volume_id': self.volume.id,
                'target_nqn': nqn,
                'vol_uuid': self.volume.id,
                'host_nqn': STOCK['nqn'],
                'portals': [
                    ['192.0.2.5', 4420, 'tcp'],
                    ['2001:db8::5', 4421, 'RoCEv2'],
                ],
                'access_mode': 'rw',
                'assigned_rate_limits': specs.NONE.rates.as_dict(),
            },
            info['data'],
        )
        self.check_here.assert_not_called()

    def test_what_os_brick_makes_of_it(self) -> None:
        data = self.attach(STOCK)['data']
        parsed = os_brick_nvmeof.NVMeOFConnProps(dict(data))
        self.assertFalse(parsed.is_replicated)
        self.assertFalse(parsed.readonly)
        [target] = parsed.targets
        self.assertEqual(
            (data['target_nqn'], self.volume.id, STOCK['nqn']),
            (target.nqn, target.uuid, target.host_nqn),
        )
        self.assertEqual(
            [
                ('192.0.2.5', '4420', 'tcp'),
                ('2001:db8::5', '4421', 'rdma'),
            ],
            [(p.address, p.port, p.transport) for p in target.portals],
        )

    def test_ours(self) -> None:
        info = self.attach(OURS)
        self.assertEqual('spdk_vhost', info['driver_volume_type'])
        self.assertEqual(
            {
                'volume_id': self.volume.id,
                'transport': 'nvmeof',
                'target_nqn': f'nqn.2026-11.org.cinder-spdk-vhost:{self.lvol}',
                'vol_uuid': self.volume.id,
                'host_nqn': OURS['nqn'],
                'portals': [
                    ['192.0.2.5', 4420, 'tcp'],
                    ['2001:db8::5', 4421, 'rdma'],
                ],
                'vhost': {
                    'name': f'{self.lvol}-rw',
                    'kind': 'blk',
                    'readonly': False,
                },
                'assigned_rate_limits': specs.NONE.rates.as_dict(),
            },
            info['data'],
        )

    def test_one_name_of_the_socket_everywhere(self) -> None:
        remote = self.attach(OURS)['data']['vhost']
        local = self.attach(LOCAL)['data']['vhost']
        for key in ('name', 'kind', 'readonly'):
            self.assertEqual(local[key], remote[key])

    def test_read_only(self) -> None:
        vhost = self.attach({**OURS, 'mode': 'ro'})['data']['vhost']
        self.assertEqual((f'{self.lvol}-ro', True), tuple(vhost.values())[::2])
        said = self._refused({**STOCK, 'mode': 'ro'})
        for part in (self.volume.id, 'rw is accepted'):
            self.assertIn(part, said)
        self.assertEqual([3], self.hosts)

    def _refused(self, connector: Any) -> str:
        return str(
            self.assertRaises(exceptions.Conflict, self.attach, connector)
        )

    @ddt.data(
        'iqn.1994-05.com.redhat:1',
        'nqn.2014-08.org.nvmexpress:uuid:1',
        'nqn.2019-01.org:' + 'x' * 208,
        'nqn.2019-01.org:../x',
        '',
        3,
        ['x'],
    )
    def test_bad_nqn(self, nqn: Any) -> None:
        for connector in (STOCK, OURS):
            bad = {**connector, 'nqn': nqn}
            said = self._refused(bad)
            for part in (connector['host'], 'nqn.YYYY-MM', '223'):
                self.assertIn(part, said)
            self.assertRaises(
                exceptions.Conflict, self.attachments.validate, bad
            )
            self.assertFalse(self.detach(bad))
        self.check_nothing_left()

    def test_our_key_without_an_nqn(self) -> None:
        said = self._refused({k: v for k, v in OURS.items() if k != 'nqn'})
        for part in ('compute-3', '"nqn"', '/etc/nvme/hostnqn'):
            self.assertIn(part, said)

    @ddt.data(STOCK, OURS)
    def test_without_portals(self, connector) -> None:
        self.use()
        self.check_here.side_effect = exceptions.Conflict('other')
        said = self._refused(connector)
        if connector is OURS:
            for part in ('compute-3', 'spdk_nvmf_portals', '"P"'):
                self.assertIn(part, said)
        self.check_nothing_left()

    def test_this_host_without_an_nqn(self) -> None:
        self.assertEqual('local', self.attach(HERE)['driver_volume_type'])
        self.assertFalse(self.detach(HERE))
        self.check_nothing_left()

    @ddt.data(STOCK, OURS, LOCAL, HERE)
    def test_validate(self, connector) -> None:
        before = len(self.host.sent)
        self.attachments.validate(connector)
        self.assertEqual(before, len(self.host.sent))

    def test_two_hosts_of_one_nqn(self) -> None:
        self.attach_row(STOCK)
        said = self._refused({**OURS, 'nqn': STOCK['nqn']})
        for part in ('compute-1', 'compute-3', STOCK['nqn'], self.volume.id):
            self.assertIn(part, said)
        self.attach({**STOCK, 'multipath': False})
        self.assertEqual([1], self.hosts)

    def test_encrypted(self) -> None:
        self.volume.encryption_key_id = fixture.volume('P').id
        self.assertIn('encrypted', self._refused(STOCK))
        self.check_nothing_left()


@ddt.ddt
class WhoHasItStill(TestCase):
    @ddt.data((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    def test_in_any_order(self, order) -> None:
        for others in ((0, 1, 2), (2, 1, 0)):
            rows = {
                n: self.attach_row((STOCK, OURS, LOCAL)[n]) for n in others
            }
            for number in order:
                self.assertFalse(self.detach_row(rows.pop(number)))
                remote = {0: 1, 1: 3}
                self.assertEqual(
                    sorted(remote[n] for n in rows if n in remote), self.hosts
                )
                controllers = [f'{self.lvol}-rw'] if rows else []
                self.assertEqual(controllers, list(self.host.controllers))
            self.check_nothing_left()

    def test_two_guests_on_one_host(self) -> None:
        first = self.attach_row(OURS)
        second = self.attach_row({**OURS, 'mountpoint': '/dev/vdc'})
        self.assertTrue(self.detach_row(first))
        self.assertEqual([3], self.hosts)
        self.assertFalse(self.detach_row(second))
        self.check_nothing_left()

    def test_a_transfer_on_the_host_of_an_attachment(self) -> None:
        row = self.attach_row(STOCK)
        self.volume.status = fields.VolumeStatus.UPLOADING
        transfer = {**STOCK, 'multipath': False}
        self.attach(transfer)
        self.assertTrue(self.detach(transfer))
        self.assertEqual([1], self.hosts)
        self.attach(transfer)
        self.assertTrue(self.detach_row(row))
        self.assertEqual([1], self.hosts)
        self.assertFalse(self.detach(transfer))
        self.check_nothing_left()

    def test_a_transfer_beside_a_local_guest(self) -> None:
        self.attach_row(LOCAL)
        self.attach(STOCK)
        self.assertFalse(self.detach(STOCK))
        self.remove_unused()
        self.assertEqual([f'{self.lvol}-rw'], list(self.host.controllers))
        self.assertEqual({}, self.host.subsystems)

    def test_late_remove_export(self) -> None:
        self.attach_row(STOCK)
        self.remove_unused()
        self.assertEqual([1], self.hosts)

    def test_failed_second_host(self) -> None:
        self.attach_row(STOCK)
        self.host.answers['nvmf_subsystem_add_host'] = nvme_hosts.INTERNAL
        self.assertRaises(rpc.TargetError, self.attach, OTHER)
        self.assertFalse(self.detach(OTHER))
        self.remove_unused()
        self.assertEqual([1], self.hosts)

    def test_nobody_is_attached_and_somebody_connected(self) -> None:
        self.attach(STOCK)
        self.host.connected[self.host.exported['nqn']].append(STOCK['nqn'])
        self.remove_unused()
        self.assertEqual([1], self.hosts)
        self.assertEqual([f'{self.lvol}-rw'], list(self.host.controllers))
        self.assertEqual(1, len(self.janitor.pending()))
        self.host.connected[self.host.exported['nqn']].clear()
        self.remove_unused()
        self.check_nothing_left()

    def test_everybody(self) -> None:
        for connector in (STOCK, OURS, LOCAL):
            self.attach_row(connector)
        self.assertFalse(self.detach(None))
        self.check_nothing_left()

    def test_a_block_device_from_before_there_were_portals(self) -> None:
        self.use()
        self.attach(STOCK)
        self.assertEqual(1, len(self.host.nbd))
        self.use('tcp://192.0.2.5:4420')
        self.assertFalse(self.detach(STOCK))
        self.check_nothing_left()

    def test_a_pool_that_is_down(self) -> None:
        row = self.attach_row(OURS)
        local = self.attach_row(LOCAL)
        self.host.answers['bdev_lvol_get_lvstores'] = []
        self.pools.refresh()
        self.assertFalse(self.detach_row(row))
        self.assertEqual({}, self.host.subsystems)
        self.assertFalse(self.detach_row(local))
        self.check_nothing_left()

    def test_restoring(self) -> None:
        """Sockets first: a read-only one needs to come before the others."""
        readonly = {**LOCAL, 'mode': 'ro'}
        rows = [
            attached.Attachment(str(number), connector)
            for number, connector in enumerate(
                (STOCK, HERE, OURS, readonly, STOCK)
            )
        ]
        self.assertEqual(
            [readonly, STOCK, OURS],
            self.attachments.restorable(self.volume, rows),
        )


class Snapshots(TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.snapshot = fixture.snapshot(self.volume)
        lvol = f'snapshot-{self.snapshot.id}'
        self.host.path = f'P/{lvol}'
        self.controller = f'{lvol}-ro'
        self.host.answers['bdev_get_bdevs'] = lambda _: scripted.lvol(
            self.host.path,
            claimed=self.host.claimed,
            supported_io_types={'write': False, 'unmap': False},
        )

    def _attach(self, connector: Any) -> dict[str, Any]:
        return self.attachments.attach_snapshot(
            self.snapshot, connector, self.pools.get('P')
        )

    def _detach(self, connector: Any) -> None:
        self.attachments.detach_snapshot(self.snapshot, connector, 'P', False)

    def test_over_nvmeof(self) -> None:
        info = self._attach(STOCK)
        self.assertEqual('nvmeof', info['driver_volume_type'])
        self.assertEqual('ro', info['data']['access_mode'])
        self.assertEqual(self.snapshot.id, info['data']['vol_uuid'])
        self.assertEqual([self.controller], list(self.host.controllers))
        self._detach(STOCK)
        self.check_nothing_left()

    def test_as_a_socket(self) -> None:
        info = self._attach(LOCAL)
        self.assertTrue(info['data']['vhost']['readonly'])
        self.assertEqual([self.controller], list(self.host.controllers))
        self._detach(LOCAL)
        self.check_nothing_left()

    def test_as_a_block_device(self) -> None:
        info = self._attach(HERE)
        self.assertEqual('local', info['driver_volume_type'])
        self.assertEqual('ro', info['data']['access_mode'])
        self._detach(HERE)
        self.check_nothing_left()

    def test_what_is_left(self) -> None:
        self._attach(STOCK)
        self.attachments.remove_unused_snapshot(self.snapshot, 'P')
        self.check_nothing_left()

    def test_everybody(self) -> None:
        self._attach(STOCK)
        self._detach(None)
        self.check_nothing_left()
