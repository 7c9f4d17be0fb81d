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

import ddt
from oslotest import base as test_base

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import base, vhost_user
from cinder_spdk_vhost.operations import janitor
from cinder_spdk_vhost.spdk import qos
from tests.unit import locking, scripted
from tests.unit.export import hosts

VOLUME = hosts.VOLUME
PATH = hosts.PATH
BDEV = hosts.BDEV
UNLIMITED = qos.RateLimits()
LIMITED = qos.RateLimits(rw_ios_per_sec=2000)


class TestCase(test_base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.host = hosts.Host()
        self.janitor = janitor.Janitor(lambda: None, 1e6)
        self.exports = vhost_user.VhostUser(
            scripted.target(self.host), self.janitor
        )

    def attach(
        self,
        mode: str = 'rw',
        wanted: qos.RateLimits = UNLIMITED,
        shared: bool = True,
        reads_zeros: bool = True,
    ) -> vhost_user.Export:
        return self.exports.attach(
            base.Wanted('P', VOLUME, mode, wanted, shared, reads_zeros)
        )


@ddt.ddt
class Attaching(TestCase):
    @ddt.data(('rw', False), ('ro', True))
    @ddt.unpack
    def test_what_a_host_is_told(self, mode: str, readonly: bool) -> None:
        export = self.attach(mode, LIMITED)
        self.assertEqual(
            {
                'name': f'volume-1-{mode}',
                'socket': f'/vhost/volume-1-{mode}',
                'kind': 'blk',
                'readonly': readonly,
            },
            export.as_dict(),
        )
        self.assertEqual(LIMITED, export.limits)

    def test_limits_come_before_the_socket(self) -> None:
        self.attach(wanted=LIMITED)
        self.assertLess(
            self.host.methods.index('bdev_set_qos_limit'),
            self.host.methods.index('vhost_create_blk_controller'),
        )

    def test_again_changes_nothing(self) -> None:
        first = self.attach(wanted=LIMITED)
        before = len(self.host.sent)
        self.assertEqual(first, self.attach(wanted=LIMITED))
        for method, _ in self.host.sent[before:]:
            self.assertIn('_get_', method)

    def test_claimed_by_somebody_else(self) -> None:
        self.host.claimed = True
        self.host.subsystem = 'nqn.somebody'
        error = self.assertRaises(exceptions.Conflict, self.attach)
        for part in (PATH, 'exclusive_write'):
            self.assertIn(part, str(error))
        self.assertEqual({}, self.host.controllers)
        self.assertEqual('nqn.somebody', self.host.subsystem)

    def test_claim_that_an_earlier_life_left(self) -> None:
        """Limits on an idle volume need a claim for a moment."""
        self.host.limits = qos.RateLimits(1000).as_dict()
        self.host.claimed = True
        self.host.subsystem = names.scratch_subsystem(VOLUME)
        self.attach(wanted=LIMITED)
        self.assertIsNone(self.host.subsystem)
        self.assertEqual(['volume-1-rw'], list(self.host.controllers))

    def test_claim_whose_end_was_lost(self) -> None:
        self.host.limits = qos.RateLimits(1000).as_dict()
        self.host.answers['nvmf_delete_subsystem'] = scripted.Away()
        self.assertRaises(rpc.NotPermitted, self.attach, wanted=LIMITED)
        self.assertTrue(self.host.claimed)
        self.host.answers['nvmf_delete_subsystem'] = self.host.delete_subsystem
        self.attach(wanted=LIMITED)
        self.assertFalse(self.host.claimed)

    @ddt.data(('other-bdev', 0), ('other-bdev', 1), (None, 1))
    @ddt.unpack
    def test_controller_of_something_else(self, bdev, guests) -> None:
        name = 'volume-1-rw'
        present = scripted.controller(name, bdev, guests)
        self.host.controllers[name] = present
        error = self.assertRaises(exceptions.Conflict, self.attach)
        for part in (name, bdev or 'a deleted volume', PATH):
            self.assertIn(part, str(error))
        self.assertEqual({name: present}, self.host.controllers)

    def test_controller_whose_volume_is_gone_makes_way(self) -> None:
        name = 'volume-1-rw'
        self.host.controllers[name] = scripted.controller(name, None)
        self.attach()
        [made] = self.host.controllers[name]
        self.assertEqual(BDEV, made['backend_specific']['block']['bdev'])

    def test_no_such_volume(self) -> None:
        self.host.answers['bdev_get_bdevs'] = scripted.NOT_FOUND
        error = self.assertRaises(exceptions.Conflict, self.attach)
        self.assertIn(PATH, str(error))

    @ddt.data((79, True), (107, True), (108, False), (300, False))
    @ddt.unpack
    def test_length_of_the_socket_path(self, length: int, fits) -> None:
        def create(params: Any) -> Any:
            self.host.create(params)
            [made] = self.host.controllers[params['ctrlr']]
            made['socket'] = made['socket'].rjust(length, '/')
            return True

        self.host.answers['vhost_create_blk_controller'] = create
        if fits:
            self.assertEqual(length, len(self.attach().socket))
        else:
            error = self.assertRaises(exceptions.Conflict, self.attach)
            for part in (f'has {length} char', '107', '-S'):
                self.assertIn(part, str(error))
            self.assertEqual({}, self.host.controllers)

    def test_limits_that_are_not_in_force(self) -> None:
        self.host.answers['bdev_set_qos_limit'] = True
        error = self.assertRaises(
            exceptions.Conflict, self.attach, wanted=LIMITED
        )
        self.assertIn('2000', str(error))
        self.assertEqual({}, self.host.controllers)

    def test_refused_controller_gives_the_limits_back(self) -> None:
        self.host.answers['vhost_create_blk_controller'] = scripted.Refused(
            'Input/output error'
        )
        self.assertRaises(rpc.TargetError, self.attach, wanted=LIMITED)
        self.assertEqual(UNLIMITED.as_dict(), self.host.limits)
        self.assertEqual([], self.janitor.pending())

    @ddt.data('', 'RW', 'x')
    def test_mode(self, mode: str) -> None:
        self.assertRaises(exceptions.InvalidName, self.attach, mode)
        self.assertEqual([], self.host.sent)


@ddt.ddt
class Detaching(TestCase):
    def _present(self, *guests: int) -> None:
        for mode, count in zip(names.MODES, guests, strict=False):
            name = f'volume-1-{mode}'
            self.host.controllers[name] = scripted.controller(
                name, BDEV, count
            )

    @ddt.data(True, False)
    def test_idle(self, force: bool) -> None:
        self._present(0, 0)
        self.exports.detach(VOLUME, 'rw', force)
        self.assertEqual(['volume-1-ro'], list(self.host.controllers))

    @ddt.data(True, False)
    def test_nothing_there(self, force: bool) -> None:
        self.exports.detach(VOLUME, 'rw', force)
        [trip] = self.host.trips
        self.assertEqual(
            ['vhost_get_controllers', 'nvmf_get_subsystems'],
            [method for method, _ in trip],
        )

    def test_in_use(self) -> None:
        self._present(1)
        error = self.assertRaises(
            exceptions.InUse, self.exports.detach, VOLUME, 'rw', False
        )
        self.assertIn('/vhost/volume-1-rw', str(error))
        self.assertNotIn('vhost_delete_controller', self.host.methods)

    def test_in_use_and_forced_goes_with_the_guest(self) -> None:
        self._present(1)
        self.exports.detach(VOLUME, 'rw', True)
        self.assertNotIn('vhost_delete_controller', self.host.methods)
        self.assertEqual(1, len(self.janitor.pending()))
        self.janitor.start()
        self.addCleanup(self.janitor.stop)
        self.janitor.sweep()
        self.assertTrue(self.janitor.wait_idle(20))
        self.assertEqual(1, len(self.janitor.pending()))
        self._present(0)
        self.janitor.sweep()
        self.assertTrue(self.janitor.wait_idle(20))
        self.assertEqual({}, self.host.controllers)
        self.assertEqual([], self.janitor.pending())
