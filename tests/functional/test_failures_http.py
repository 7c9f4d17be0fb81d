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

"""Cinder and the target die, stay away and come back."""

import time

from cinderclient import exceptions

from tests.fixtures import tap as tap_fixture
from tests.fixtures.cinder_services import settled
from tests.functional import base


class CinderKilledTest(base.HttpTestCase):
    """cinder-volume ends by SIGKILL in the middle of its work."""

    def restart(self):
        self.services.restart(kill=True)
        self.cinder = self.services.client()

    def test_while_creating(self):
        self.tap.inject(
            tap_fixture.delay(0.2), method='bdev_lvol_create', times=None
        )
        volumes = [self.begin_volume() for _ in range(8)]
        time.sleep(0.3)
        self.restart()
        self.tap.heal()
        # Some were made, some not; each can be deleted and is gone then.
        for volume in volumes:
            self.remove(self.cinder.volumes, volume.id)
        self.eventually(
            lambda: self.assertEqual(self.before, self.target.dump())
        )

    def test_while_deleting(self):
        volumes = [self.volume() for _ in range(6)]
        self.tap.inject(
            tap_fixture.delay(0.2), method='bdev_lvol_delete', times=None
        )
        for volume in volumes:
            volume.delete()
        time.sleep(0.3)
        # The service takes the deletions up again by itself.
        self.restart()
        self.tap.heal()
        self.eventually(
            lambda: self.assertEqual([], self.cinder.volumes.list()), 30
        )
        self.eventually(
            lambda: self.assertEqual(self.before, self.target.dump())
        )

    def test_while_cloning(self):
        volume = self.volume()
        self.tap.inject(
            tap_fixture.delay(0.5), method='bdev_lvol_snapshot', times=None
        )
        clone = self.begin_volume(source_volid=volume.id)
        self.eventually(
            lambda: self.assertIn(
                'bdev_lvol_snapshot',
                [exchange.method for exchange in self.tap.exchanges[-3:]],
            )
        )
        self.restart()
        self.tap.heal()
        self.remove(self.cinder.volumes, clone.id)
        self.remove(self.cinder.volumes, volume.id)
        self.eventually(
            lambda: self.assertEqual(self.before, self.target.dump())
        )

    def test_attached_volume_stays_as_it_is(self):
        volume = self.volume(
            volume_type=self.type({'total_iops_sec': '3000'}).id
        )
        attachment, _ = self.attach(volume)
        before = self.target.dump()
        self.restart()
        self.assertEqual(before, self.target.dump())
        self.detach(attachment)
        self.assertEqual({}, self.controllers_of(volume))


class TargetAwayTest(base.HttpTestCase):
    """The target is away for a while, as seen from Cinder."""

    def test_operations_fail_and_work_again(self):
        volume = self.volume()
        snapshot = self.snapshot(volume)
        with self.tap.away():
            for arguments in ({}, {'snapshot_id': snapshot.id}):
                failed = self.begin_volume(**arguments)
                self.assertRaises(
                    RuntimeError, settled, self.cinder.volumes, failed.id
                )
            self.assertRaises(exceptions.ClientException, self.attach, volume)
        self.attach(volume)
        self.volume(snapshot_id=snapshot.id)

    def test_service_starts_without_target(self):
        volume = self.volume()
        attachment, info = self.attach(volume)
        with self.tap.away():
            self.services.stop()
            self.services.start(wait_for_pools=False)
            self.cinder = self.services.client()
            # Not set to error only because its pool is down.
            self.assertEqual(
                'in-use', self.cinder.volumes.get(volume.id).status
            )
        self.detach(attachment)
        _, again = self.attach(volume)
        self.assertEqual(info['vhost'], again['vhost'])

    def test_answers_are_lost(self):
        # Done or not, nobody knows: the driver looks, and goes on.
        for method in ('bdev_lvol_create', 'vhost_create_blk_controller'):
            self.tap.inject(tap_fixture.drop_after(), method=method)
        volume = self.volume()
        self.attach(volume)
        self.assertEqual(1, len(self.controllers_of(volume)))


class TargetRestartedTest(base.HttpTestCase):
    """The target itself ends and is started again."""

    def setUp(self):
        super().setUp()
        if not self.target.restartable:
            self.skipTest('a real target is not ours to restart')

    def test_volumes_survive_a_kill(self):
        volume = self.volume()
        snapshot = self.snapshot(volume)
        before = self.target.dump()
        self.target.restart(kill=True)
        self.assertEqual(before, self.target.dump())
        self.volume(snapshot_id=snapshot.id)
        self.attach(volume)

    def test_attached_volumes_come_back_with_the_service(self):
        volume = self.volume(
            volume_type=self.type({'total_iops_sec': '3000'}).id
        )
        self.attach(volume)
        before = self.target.dump()
        self.services.stop()
        self.target.restart(kill=True)
        self.assertEqual({}, self.controllers_of(volume))
        self.services.start()
        self.cinder = self.services.client()
        self.eventually(lambda: self.assertEqual(before, self.target.dump()))
