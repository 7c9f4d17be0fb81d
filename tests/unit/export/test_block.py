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

"""Block devices on a target that keeps what it is told."""

import os
import stat
from typing import Any
from unittest import mock

import ddt
from oslotest import base as test_base

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import base, block
from cinder_spdk_vhost.operations import janitor
from cinder_spdk_vhost.spdk import qos
from tests.unit import locking, scripted
from tests.unit.export import hosts

GIB = 1024**3
UNLIMITED = qos.RateLimits()
LIMITED = qos.RateLimits(rw_ios_per_sec=2000)


class TestCase(test_base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.host = hosts.Host()
        self.janitor = janitor.Janitor(lambda: None, 1e6)
        self.block = block.Block(scripted.target(self.host), self.janitor)
        # The host's own devices: what the target says is there, is.
        self.size_of = self._patch('size_of', return_value=GIB)
        for name in ('APPEAR_SECONDS', 'STOP_SECONDS'):
            self._patch(name, 0.05)

    def _patch(self, name: str, *args: Any, **kwargs: Any) -> Any:
        patch = mock.patch.object(block, name, *args, **kwargs)
        self.addCleanup(patch.stop)
        return patch.start()

    def attach(
        self,
        wanted: qos.RateLimits = UNLIMITED,
        mode: str = 'rw',
        reads_zeros: bool = True,
    ) -> block.Device:
        return self.block.attach(
            base.Wanted('P', hosts.VOLUME, mode, wanted, False, reads_zeros)
        )

    def detach(self) -> None:
        self.block.detach(hosts.PATH, hosts.VOLUME)

    def count(self, method: str) -> int:
        return self.host.methods.count(method)


@ddt.ddt
class Attaching(TestCase):
    def test_what_a_program_is_told(self) -> None:
        export = self.attach(LIMITED)
        self.assertEqual(block.Device('/dev/nbd0', LIMITED), export)
        self.assertEqual(hosts.BDEV, self.host.nbd[0]['bdev_name'])

    def test_round_trips(self) -> None:
        self.attach()
        self.assertEqual(3, len(self.host.trips))

    def test_limits_come_before_the_device(self) -> None:
        self.attach(LIMITED)
        self.assertLess(
            self.host.methods.index('bdev_set_qos_limit'),
            self.host.methods.index('nbd_start_disk'),
        )

    def test_again_changes_nothing(self) -> None:
        first = self.attach(LIMITED)
        before = len(self.host.sent)
        self.assertEqual(first, self.attach(LIMITED))
        for method, _ in self.host.sent[before:]:
            self.assertIn('_get_', method)

    def test_a_controller_is_left_alone(self) -> None:
        name = 'volume-1-rw'
        present = scripted.controller(name, hosts.BDEV, 1)
        self.host.controllers[name] = present
        self.attach()
        self.detach()
        self.assertEqual({name: present}, self.host.controllers)
        self.assertNotIn('vhost_delete_controller', self.host.methods)

    def test_disks_of_others_are_left_alone(self) -> None:
        other = {'nbd_device': '/dev/nbd0', 'bdev_name': 'another'}
        self.host.nbd.append(other)
        self.assertEqual('/dev/nbd1', self.attach().path)
        self.detach()
        self.assertEqual([other], self.host.nbd)

    def test_read_only(self) -> None:
        error = self.assertRaises(exceptions.Conflict, self.attach, mode='ro')
        for part in (hosts.PATH, 'wanted ro', 'rw is accepted'):
            self.assertIn(part, str(error))
        self.assertEqual([], self.host.sent)

    def test_no_such_volume(self) -> None:
        self.host.answers['bdev_get_bdevs'] = scripted.NOT_FOUND
        error = self.assertRaises(exceptions.Conflict, self.attach)
        self.assertIn(hosts.PATH, str(error))

    def test_claimed_by_somebody_else(self) -> None:
        self.host.claimed = True
        self.host.subsystem = 'nqn.somebody'
        error = self.assertRaises(exceptions.Conflict, self.attach)
        self.assertIn('exclusive_write', str(error))
        self.assertEqual('nqn.somebody', self.host.subsystem)
        self.assertNotIn('nbd_start_disk', self.host.methods)

    def test_claim_that_an_earlier_life_left(self) -> None:
        self.host.claimed = True
        self.host.subsystem = names.scratch_subsystem(hosts.VOLUME)
        self.attach()
        self.assertIsNone(self.host.subsystem)

    def test_thin_volume_without_a_parent(self) -> None:
        """Its unmapped clusters would be another tenant's to read."""
        inflated = []
        self.host.answers['bdev_get_bdevs'] = scripted.lvol(
            hosts.PATH, thin_provision=True
        )
        self.host.answers['bdev_lvol_inflate'] = inflated.append
        self.attach(reads_zeros=False)
        self.assertEqual([{'name': hosts.PATH}], inflated)

    def test_limits_that_are_not_in_force(self) -> None:
        self.host.answers['bdev_set_qos_limit'] = True
        error = self.assertRaises(exceptions.Conflict, self.attach, LIMITED)
        self.assertIn('2000', str(error))
        self.assertEqual([], self.host.nbd)

    def test_no_free_device(self) -> None:
        self.host.answers['nbd_start_disk'] = scripted.Refused(
            'nbd device not found', -19
        )
        error = self.assertRaises(exceptions.Conflict, self.attach, LIMITED)
        for part in ('nbd device not found', 'nbds_max', scripted.URL):
            self.assertIn(part, str(error))
        self.assertEqual(UNLIMITED.as_dict(), self.host.limits)

    def test_spdk_without_block_devices(self) -> None:
        for method in ('nbd_get_disks', 'nbd_start_disk'):
            self.host.answers[method] = scripted.NO_METHOD
        error = self.assertRaises(exceptions.Conflict, self.attach)
        for part in ('nbd_start_disk', 'ublk_start_disk', scripted.URL):
            self.assertIn(part, str(error))
        self.detach()

    def test_the_device_takes_a_moment(self) -> None:
        self.size_of.side_effect = [None, 0, GIB]
        self.assertEqual('/dev/nbd0', self.attach().path)

    @ddt.data((None, 'is no block device'), (0, 'has 0 bytes'))
    @ddt.unpack
    def test_the_device_is_not_on_this_host(self, size, said) -> None:
        """The target was reached through a tunnel."""
        self.size_of.return_value = size
        error = self.assertRaises(exceptions.Conflict, self.attach)
        for part in ('/dev/nbd0', hosts.PATH, str(GIB), said, 'this host'):
            self.assertIn(part, str(error))
        self.assertEqual([], self.host.nbd)
        self.assertEqual([], self.janitor.pending())

    def test_one_that_was_there_and_is_of_no_use_stays(self) -> None:
        """It was not made here, so it is not undone here."""
        self.attach()
        self.size_of.return_value = 0
        self.assertRaises(exceptions.Conflict, self.attach)
        self.assertEqual(1, len(self.host.nbd))

    @ddt.data(True, False)
    def test_lost_answer(self, done: bool) -> None:
        def start(params: Any) -> Any:
            if done:
                self.host.start_nbd(params)
            return scripted.Lost()

        self.host.answers['nbd_start_disk'] = start
        if done:
            self.assertEqual('/dev/nbd0', self.attach().path)
        else:
            self.assertRaises(rpc.OutcomeUnknown, self.attach)
            self.assertEqual([], self.host.nbd)

    def test_undoing_that_fails_is_tried_again(self) -> None:
        self.size_of.return_value = 0
        self.host.answers['nbd_stop_disk'] = scripted.Away()
        self.assertRaises(exceptions.Conflict, self.attach)
        self.assertEqual(1, len(self.janitor.pending()))
        self.size_of.return_value = GIB
        self.assertEqual('/dev/nbd0', self.attach().path)
        self.assertEqual([], self.janitor.pending())


class Ublk(TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.host.with_ublk()

    def test_comes_first(self) -> None:
        self.assertEqual('/dev/ublkb1', self.attach().path)
        self.assertNotIn('nbd_start_disk', self.host.methods)
        self.assertEqual('/dev/ublkb1', self.attach().path)
        self.detach()
        self.assertEqual([], self.host.ublk)

    def test_numbers_that_are_taken(self) -> None:
        """By the target's own, and by who else on the host has some."""
        self.host.start_ublk({'ublk_id': 1, 'bdev_name': 'another'})
        self.host.answers['ublk_start_disk'] = scripted.in_turn(
            scripted.Refused('Device or resource busy', -16),
            scripted.EXISTS,
            self.host.start_ublk,
        )
        self.assertEqual('/dev/ublkb4', self.attach().path)

    def test_all_are_taken(self) -> None:
        self.host.answers['ublk_start_disk'] = scripted.EXISTS
        self.assertEqual('/dev/nbd0', self.attach().path)

    def test_no_ublk_target(self) -> None:
        self.host.answers['ublk_start_disk'] = scripted.NOT_FOUND
        self.assertEqual('/dev/nbd0', self.attach().path)
        self.assertEqual(1, self.count('ublk_start_disk'))

    def test_it_can_not(self) -> None:
        logged = self.useFixture(scripted.Logged())
        self.host.answers['ublk_start_disk'] = scripted.Refused(
            'Operation not supported', -95
        )
        self.assertEqual('/dev/nbd0', self.attach().path)
        [text] = logged.at('WARNING')
        self.assertIn('Operation not supported', text)

    def test_lost_answer(self) -> None:
        def start(params: Any) -> Any:
            self.host.start_ublk(params)
            return scripted.Lost()

        self.host.answers['ublk_start_disk'] = start
        self.assertEqual('/dev/ublkb1', self.attach().path)


class Detaching(TestCase):
    def test_takes_it_away(self) -> None:
        self.attach()
        self.detach()
        self.assertEqual([], self.host.nbd)

    def test_nothing_there(self) -> None:
        self.detach()
        self.assertEqual(1, len(self.host.trips))

    def test_no_such_volume(self) -> None:
        self.host.answers['bdev_get_bdevs'] = scripted.NOT_FOUND
        self.detach()

    def test_both_kinds(self) -> None:
        self.attach()
        self.host.with_ublk()
        self.host.start_ublk({'ublk_id': 7, 'bdev_name': hosts.BDEV})
        self.detach()
        self.assertEqual(([], []), (self.host.nbd, self.host.ublk))

    def test_waits_until_it_is_gone(self) -> None:
        """Or the next transfer would take it for one that is there."""
        self.attach()
        shown = self.host.nbd
        self.host.answers['nbd_get_disks'] = scripted.in_turn(
            shown, shown, shown, lambda _: self.host.nbd
        )
        before = self.count('nbd_get_disks')
        self.detach()
        self.assertEqual(4, self.count('nbd_get_disks') - before)

    def test_round_trips(self) -> None:
        self.attach()
        before = len(self.host.trips)
        self.detach()
        self.assertEqual(3, len(self.host.trips) - before)

    def test_that_it_is_gone_cannot_be_seen(self) -> None:
        """It was told to go, and nothing else was asked for."""
        logged = self.useFixture(scripted.Logged())
        self.attach()
        self.host.answers['nbd_get_disks'] = scripted.in_turn(
            self.host.nbd, scripted.Away()
        )
        self.detach()
        self.assertEqual([], self.host.nbd)
        [text] = logged.at('WARNING')
        self.assertIn('/dev/nbd0', text)

    def test_does_not_go(self) -> None:
        self.attach()
        self.host.answers['nbd_stop_disk'] = True
        error = self.assertRaises(exceptions.Postponed, self.detach)
        self.assertIn('/dev/nbd0 is still in use', str(error))

    def test_gone_in_between(self) -> None:
        self.attach()
        shown = self.host.nbd
        self.host.nbd = []
        self.host.answers['nbd_get_disks'] = scripted.in_turn(shown, [])
        self.detach()

    def test_lost_answer(self) -> None:
        def stop(params: Any) -> Any:
            self.host.stop_nbd(params)
            return scripted.Lost()

        self.attach()
        self.host.answers['nbd_stop_disk'] = stop
        self.detach()
        self.assertEqual([], self.host.nbd)


class Sizes(test_base.BaseTestCase):
    def test_no_block_device(self) -> None:
        for path in ('/nowhere', '/dev/null', __file__, os.getcwd()):
            self.assertIsNone(block.size_of(path), path)

    def test_block_device(self) -> None:
        """Any that this host has; what sysfs says of it, in sectors."""
        devices = [
            entry.path
            for entry in os.scandir('/dev')
            if stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode)
        ]
        if not devices:
            self.skipTest('there is no block device here')
        name = os.path.basename(devices[0])
        with open(f'/sys/class/block/{name}/size', encoding='ascii') as file:
            sectors = int(file.read())
        self.assertEqual(512 * sectors, block.size_of(devices[0]))
