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

import ddt
from oslotest import base

from cinder_spdk_vhost import exceptions, names
from cinder_spdk_vhost.export import base as export_base
from cinder_spdk_vhost.export import exports, nvmeof, portals
from cinder_spdk_vhost.operations import janitor
from cinder_spdk_vhost.spdk import bdev, qos
from tests.unit import locking, scripted
from tests.unit.export import hosts, nvme_hosts


@ddt.ddt
class TestExports(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.host = hosts.Host()
        self.target = scripted.target(self.host)
        self.exports = exports.Exports(
            self.target, janitor.Janitor(lambda: None, 1e6)
        )

    def _present(self, *guests: int) -> None:
        for mode, count in zip(names.MODES, guests, strict=False):
            name = f'volume-1-{mode}'
            self.host.controllers[name] = scripted.controller(
                name, hosts.BDEV, count
            )

    def _found(self) -> exports.Found:
        device, *answers = self.target.find_all(
            bdev.get_lvol(hosts.PATH), *exports.looks(hosts.VOLUME)
        )
        return exports.Found.of(device, *answers)

    def _remove_unused(self) -> None:
        self.exports.remove_unused(hosts.PATH, hosts.VOLUME)

    def test_nothing(self) -> None:
        found = self._found()
        self.assertFalse(found.any)
        self.assertEqual([], found.users)

    def test_an_idle_controller(self) -> None:
        self._present(0)
        found = self._found()
        self.assertTrue(found.any)
        self.assertEqual([], found.users)

    def test_users(self) -> None:
        self._present(1, 2)
        self.host.start_nbd({'bdev_name': 'another'})
        self.host.start_nbd({'bdev_name': hosts.BDEV})
        found = self._found()
        self.assertTrue(found.any)
        self.assertEqual(
            [
                '1 guest(s) connected to /vhost/volume-1-rw',
                '2 guest(s) connected to /vhost/volume-1-ro',
                'the block device /dev/nbd1',
            ],
            found.users,
        )

    def test_of_a_volume_that_is_gone(self) -> None:
        self._present(1)
        self.host.start_nbd({'bdev_name': hosts.BDEV})
        self.host.answers['bdev_get_bdevs'] = scripted.NOT_FOUND
        found = self._found()
        self.assertEqual(1, len(found.controllers))
        self.assertEqual([], found.disks)

    @ddt.data(
        ((0, 0), []),
        ((1, 0), ['volume-1-rw']),
        ((0, 1), ['volume-1-ro']),
        ((1, 1), ['volume-1-rw', 'volume-1-ro']),
    )
    @ddt.unpack
    def test_only_idle_controllers_are_removed(self, guests, left) -> None:
        self._present(*guests)
        self._remove_unused()
        self.assertEqual(left, list(self.host.controllers))

    def test_the_block_device_is_removed(self) -> None:
        self._present(1)
        for name in ('another', hosts.BDEV):
            self.host.start_nbd({'bdev_name': name})
        self._remove_unused()
        self.assertEqual(
            ['another'], [disk['bdev_name'] for disk in self.host.nbd]
        )
        self.assertEqual(1, len(self.host.controllers))

    def test_nothing_to_remove_is_one_round_trip(self) -> None:
        self._remove_unused()
        self.assertEqual(1, len(self.host.trips))


class Remote(base.BaseTestCase):
    """Of a volume that other hosts have over NVMe-oF."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.host = nvme_hosts.NvmeHost()
        self.target = scripted.target(self.host)
        self.exports = exports.Exports(
            self.target,
            janitor.Janitor(lambda: None, 1e6),
            portals.parse(['tcp://192.0.2.5:4420']),
        )
        self.exports.nvmeof.attach(
            export_base.Wanted(
                'P', nvme_hosts.VOLUME, 'rw', qos.RateLimits(), False, True
            ),
            nvmeof.Host(nvme_hosts.nqn(1), 'compute-1'),
        )

    def _connect(self) -> None:
        self.host.connected[nvme_hosts.NQN].append(nvme_hosts.nqn(1))

    def _found(self) -> exports.Found:
        device, *answers = self.target.find_all(
            bdev.get_lvol(nvme_hosts.PATH), *exports.looks(nvme_hosts.VOLUME)
        )
        return exports.Found.of(device, *answers)

    def _remove_unused(self) -> None:
        self.exports.remove_unused(nvme_hosts.PATH, nvme_hosts.VOLUME)

    def test_users(self) -> None:
        self.assertTrue(self._found().any)
        self.assertEqual([], self._found().users)
        self._connect()
        [user] = self._found().users
        self.assertIn(nvme_hosts.nqn(1), user)

    def test_nobody_is_connected(self) -> None:
        self._remove_unused()
        self.assertEqual({}, self.host.subsystems)
        self.assertEqual({}, self.host.controllers)

    def test_somebody_is_connected(self) -> None:
        self._connect()
        error = self.assertRaises(exceptions.Postponed, self._remove_unused)
        self.assertIn(nvme_hosts.nqn(1), str(error))
        self.assertEqual([nvme_hosts.NQN], list(self.host.subsystems))
        self.assertEqual(1, len(self.host.controllers))

    def test_somebody_elses(self) -> None:
        self.host.exported['model_number'] = 'other'
        self._remove_unused()
        self.assertEqual([nvme_hosts.NQN], list(self.host.subsystems))

    def test_a_volume_that_is_to_go(self) -> None:
        found = self._found()
        device = self.target.ask(bdev.get_lvol(nvme_hosts.PATH))
        self.assertIsNotNone(device.claim)
        device = self.exports.released(
            nvme_hosts.PATH, nvme_hosts.VOLUME, device, found
        )
        self.assertIsNone(device.claim)
        self.assertEqual({}, self.host.subsystems)

    def test_room(self) -> None:
        self.host.others = 900
        self.assertEqual(1024 - 901, self.exports.free())
        self.host.others = 2000
        self.assertEqual(0, self.exports.free())
        self.host.answers['nvmf_get_subsystems'] = scripted.Away()
        self.assertIsNone(self.exports.free())
        without = exports.Exports(
            self.target, janitor.Janitor(lambda: None, 1e6)
        )
        before = len(self.host.sent)
        self.assertIsNone(without.free())
        self.assertEqual(before, len(self.host.sent))
