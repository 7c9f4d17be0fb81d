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

from typing import Any
from unittest import mock

from cinder.objects import fields
import ddt
from oslotest import base as test_base

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.export import block, exports
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
from tests.unit.export import hosts

STOCK = {'host': 'here', 'ip': '192.0.2.1', 'initiator': 'iqn.here'}
OTHER = {**STOCK, 'mountpoint': '/dev/vdb', 'mode': 'rw'}
OURS = fixture.connector(['uuid-of-P'])
GIB = 1024**3


@ddt.ddt
class TestAttachments(test_base.BaseTestCase):
    """One volume, of whom hosts and transfers want something."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.volume = fixture.volume('P')
        self.path = f'P/volume-{self.volume.id}'
        self.controller = f'volume-{self.volume.id}-rw'
        self.host = hosts.Host(self.path)
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
        self.attachments = attachments.Attachments(
            self.target,
            self.janitor,
            self.pools,
            exports.Exports(self.target, self.janitor),
        )
        self.check_here = self._patch(connectors, 'check_here')
        self._patch(block, 'size_of', return_value=GIB)

    def _patch(self, *args: Any, **kwargs: Any) -> Any:
        patch = mock.patch.object(*args, **kwargs)
        self.addCleanup(patch.stop)
        return patch.start()

    def attach(self, connector: Any) -> dict[str, Any]:
        return self.attachments.attach(
            self.volume, connector, self.pools.get('P'), specs.NONE, False
        )

    def detach(self, connector: Any) -> bool:
        return self.attachments.detach(
            self.volume, connector, self.path, force=False
        )

    @property
    def disks(self) -> list[str]:
        return [disk['nbd_device'] for disk in self.host.nbd]

    # What a connector gets.

    def test_a_block_device_for_this_host(self) -> None:
        info = self.attach(STOCK)
        self.assertEqual('local', info['driver_volume_type'])
        self.assertEqual(
            {
                'volume_id': self.volume.id,
                'device_path': '/dev/nbd0',
                'access_mode': 'rw',
                'assigned_rate_limits': specs.NONE.rates.as_dict(),
            },
            info['data'],
        )
        self.check_here.assert_called_once_with(STOCK, scripted.URL, True)

    def test_a_socket_for_a_host_with_our_key(self) -> None:
        info = self.attach(OURS)
        self.assertEqual('spdk_vhost', info['driver_volume_type'])
        self.assertEqual([], self.disks)
        self.check_here.assert_not_called()

    def test_nothing_for_another_host(self) -> None:
        self.check_here.side_effect = exceptions.Conflict('other')
        self.assertRaises(exceptions.Conflict, self.attach, STOCK)
        self.assertRaises(
            exceptions.Conflict, self.attachments.validate, STOCK
        )
        self.assertEqual([], self.disks)

    def test_our_key_for_another_host_is_no_way_round(self) -> None:
        connector = {**STOCK, 'spdk_vhost': {'lvstores': []}}
        self.assertRaises(exceptions.Conflict, self.attach, connector)
        self.assertEqual([], self.disks)

    def test_validate(self) -> None:
        self.pools.refresh()
        self.attachments.validate(STOCK)
        self.attachments.validate(OURS)

    def test_validate_while_no_pool_is_up(self) -> None:
        error = self.assertRaises(
            exceptions.Conflict, self.attachments.validate, STOCK
        )
        self.assertIn('no pool', str(error))

    def test_encrypted_volumes(self) -> None:
        self.volume.encryption_key_id = fixture.volume('P').id
        error = self.assertRaises(exceptions.Conflict, self.attach, STOCK)
        for part in (self.volume.id, 'encrypted'):
            self.assertIn(part, str(error))
        self.assertEqual([], self.disks)

    # Who has it still.

    def test_a_transfer_of_a_detached_volume(self) -> None:
        self.attach(STOCK)
        self.assertFalse(self.detach(STOCK))
        self.assertEqual([], self.disks)
        self.assertFalse(self.detach(STOCK))

    def test_a_transfer_of_an_attached_volume(self) -> None:
        self.attach(OURS)
        fixture.attach(self.volume, OURS)
        self.attach(STOCK)
        self.assertFalse(self.detach(STOCK))
        self.attachments.remove_unused(self.volume, self.path)
        self.assertEqual([], self.disks)
        self.assertEqual([self.controller], list(self.host.controllers))

    def test_the_guest_leaves_during_a_transfer(self) -> None:
        self.attach(OURS)
        row = fixture.attach(self.volume, OURS)
        self.attach(STOCK)
        self.assertFalse(self.detach(OURS))
        self.attachments.remove_unused(self.volume, self.path)
        self.volume.volume_attachment.objects.remove(row)
        self.assertEqual({}, self.host.controllers)
        self.assertEqual(['/dev/nbd0'], self.disks)

    @ddt.data(STOCK, OTHER)
    def test_a_transfer_beside_a_host_with_the_device(self, connector) -> None:
        """Whose connector may be the same, as with cinder local-attach."""
        self.attach(connector)
        fixture.attach(self.volume, connector)
        self.volume.status = fields.VolumeStatus.UPLOADING
        self.attach(STOCK)
        self.assertTrue(self.detach(STOCK))
        self.assertEqual(['/dev/nbd0'], self.disks)
        self.volume.status = fields.VolumeStatus.IN_USE
        self.assertFalse(self.detach(connector))
        self.assertEqual([], self.disks)

    @ddt.data('uploading', 'backing-up', 'maintenance')
    def test_that_host_leaves_during_the_transfer(self, status) -> None:
        self.attach(OTHER)
        row = fixture.attach(self.volume, OTHER)
        self.attach(STOCK)
        self.volume.status = status
        self.assertTrue(self.detach(OTHER))
        self.volume.volume_attachment.objects.remove(row)
        self.assertEqual(['/dev/nbd0'], self.disks)
        self.assertFalse(self.detach(STOCK))
        self.assertEqual([], self.disks)

    def test_one_of_two_hosts_with_the_device(self) -> None:
        self.attach(OTHER)
        row = fixture.attach(self.volume, OTHER)
        fixture.attach(self.volume, {**OTHER, 'mountpoint': '/dev/vdc'})
        self.assertTrue(self.detach(OTHER))
        self.assertEqual(['/dev/nbd0'], self.disks)
        self.volume.volume_attachment.objects.remove(row)
        [left] = self.volume.volume_attachment
        self.assertFalse(self.detach(left.connector))
        self.assertEqual([], self.disks)

    def test_while_another_is_just_being_made(self) -> None:
        self.attach(OTHER)
        fixture.attach(self.volume, OTHER)
        fixture.attach(self.volume, None)
        self.assertTrue(self.detach(OTHER))
        self.assertEqual(['/dev/nbd0'], self.disks)
        self.assertEqual(1, len(self.janitor.pending()))

    def test_a_socket_and_a_device(self) -> None:
        """Neither counts for the other."""
        for connector in (OURS, OTHER):
            self.attach(connector)
            fixture.attach(self.volume, connector)
        self.assertFalse(self.detach(OURS))
        self.assertFalse(self.detach(OTHER))
        self.assertEqual([], self.disks)
        self.assertEqual({}, self.host.controllers)

    def test_everybody_at_once(self) -> None:
        for connector in (OURS, OTHER):
            self.attach(connector)
            fixture.attach(self.volume, connector)
        self.assertFalse(self.detach(None))
        self.assertEqual([], self.disks)
        self.assertEqual({}, self.host.controllers)

    def test_what_is_left_when_nobody_is_attached(self) -> None:
        self.attach(STOCK)
        row = fixture.attach(self.volume, None)
        self.attachments.remove_unused(self.volume, self.path)
        self.assertEqual(['/dev/nbd0'], self.disks)
        self.volume.volume_attachment.objects.remove(row)
        self.attachments.remove_unused(self.volume, self.path)
        self.assertEqual([], self.disks)

    def test_restoring(self) -> None:
        """A new block device would be of no use to who had the old one."""
        readonly = {**OURS, 'mode': 'ro'}
        rows = [
            attached.Attachment(str(number), connector)
            for number, connector in enumerate((OTHER, OURS, readonly, OURS))
        ]
        self.assertEqual(
            [OURS, readonly], self.attachments.restorable(self.volume, rows)
        )
