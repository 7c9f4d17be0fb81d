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

"""Volumes that are put back to their snapshots, without copying."""

import contextlib
from typing import Any

from cinder import exception
import ddt

from tests.fixtures import tap
from tests.functional import driver_case

GIB = driver_case.GIB
# More requests than a revert sends.
MOST = 20


class _Reverts(driver_case.DriverTestCase):
    def revert(self, volume: Any, snapshot: Any) -> None:
        self.driver.revert_to_snapshot(None, volume, snapshot)

    def assert_reverted(self, volume: Any, snapshot: Any, was: str) -> None:
        self.assertNotEqual(was, self.of(volume)['uuid'])
        self.assert_whole(volume, snapshot)

    def assert_whole(self, volume: Any, snapshot: Any) -> None:
        """There is the volume on its snapshot, and nothing else."""
        self.settle()
        self.assertEqual(snapshot.name, self.parent(volume))
        self.assertEqual(sorted([snapshot.name, volume.name]), self.names())
        self.assertFalse(self.driver._janitor.pending())

    def clusters(self, volume: Any) -> int:
        data = self.of(volume)['driver_specific']['lvol']
        return data['num_allocated_clusters']


class TestThin(_Reverts):
    zeroing = True

    def test_revert_twice(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        for _ in range(2):
            was = self.of(volume)['uuid']
            self.revert(volume, snapshot)
            self.assert_reverted(volume, snapshot, was)

    def test_volume_that_has_grown(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.driver.extend_volume(volume, 2)
        volume.size = 2
        self.revert(volume, snapshot)
        self.assertEqual(2 * GIB, self.size(volume))
        self.assertEqual(GIB, self.size(snapshot))

    def test_later_snapshots_stay(self) -> None:
        volume = self.volume()
        first, second = self.snapshot(volume), self.snapshot(volume)
        self.revert(volume, first)
        self.assertEqual(first.name, self.parent(volume))
        self.assertEqual(first.name, self.parent(second))
        self.driver.delete_snapshot(first)
        child = self.from_snapshot(second)
        self.assertEqual(second.name, self.parent(child))

    def test_what_a_clone_stood_on_goes(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        clone = self.clone(volume)
        base = self.parent(volume)
        self.revert(volume, snapshot)
        self.settle()
        self.assertEqual(snapshot.name, self.parent(volume))
        # Only the clone stood on that, so it was merged.
        self.assertNotIn(base, self.names())
        self.assertEqual(snapshot.name, self.parent(clone))
        self.driver.delete_volume(clone)
        self.settle()
        self.assert_whole(volume, snapshot)

    def test_idle_socket_goes(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.driver.initialize_connection(volume, self.connector())
        self.revert(volume, snapshot)
        self.assertEqual({}, self.target.controllers())
        info = self.driver.initialize_connection(volume, self.connector())
        controller = self.target.controllers()[info['data']['vhost']['name']]
        block = controller['backend_specific']['block']
        self.assertEqual(self.of(volume)['name'], block['bdev'])

    def test_claimed_by_somebody_else(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        nqn = 'nqn.2016-06.io.spdk:other'
        self.target.rpc.call('nvmf_create_subsystem', nqn=nqn)
        self.addCleanup(self.target.rpc.call, 'nvmf_delete_subsystem', nqn=nqn)
        self.target.rpc.call(
            'nvmf_subsystem_add_ns',
            nqn=nqn,
            namespace={'bdev_name': f'{self.pool}/{volume.name}'},
        )
        was = self.of(volume)['uuid']
        error = self.assertRaises(
            exception.VolumeBackendAPIException, self.revert, volume, snapshot
        )
        self.assertIn('claimed', str(error))
        self.assertEqual(was, self.of(volume)['uuid'])
        self.assert_whole(volume, snapshot)

    def test_snapshot_that_is_gone(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.driver.delete_snapshot(snapshot)
        self.settle()
        was = self.of(volume)['uuid']
        error = self.assertRaises(
            exception.VolumeBackendAPIException, self.revert, volume, snapshot
        )
        self.assertIn(snapshot.name, str(error))
        self.assertEqual(was, self.of(volume)['uuid'])
        self.assertEqual([volume.name], self.names())

    def test_no_backup_is_asked_for(self) -> None:
        self.assertFalse(self.driver.snapshot_revert_use_temp_snapshot())

    def test_deleted_with_what_it_was_before(self) -> None:
        """What is left of the volume doesn't bring it back."""
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.tap.inject(tap.error(), method='bdev_lvol_delete', times=None)
        self.revert(volume, snapshot)
        self.settle()
        self.assertIn(f'before-{volume.id}', self.names())
        self.tap.heal()
        self.driver.delete_volume(volume)
        self.sweep()
        self.assertEqual([snapshot.name], self.names())


class TestThick(_Reverts):
    """In pools that don't read zeros after unmap."""

    def test_clear_method_is_kept(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        was = self.of(volume)['uuid']
        with self.tap.count() as window:
            self.revert(volume, snapshot)
        self.assert_reverted(volume, snapshot, was)
        self.assertNotIn('bdev_lvol_clone', window.methods)
        [made] = [
            e for e in window.exchanges if e.method == 'bdev_lvol_create'
        ]
        self.assertEqual('write_zeroes', made.params['clear_method'])

    def test_thick_again_without_the_snapshot(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        full = self.clusters(snapshot)
        self.revert(volume, snapshot)
        self.driver.delete_snapshot(snapshot)
        self.settle()
        self.assertIsNone(self.parent(volume))
        self.assertEqual(full, self.clusters(volume))
        data = self.of(volume)['driver_specific']['lvol']
        self.assertFalse(data['thin_provision'])

    def test_snapshot_that_nothing_stands_on_after_a_restart(self) -> None:
        if not self.target.restartable:
            self.skipTest('this target is not ours to restart')
        volume = self.volume()
        first, second = self.snapshot(volume), self.snapshot(volume)
        self.revert(volume, first)
        self.target.restart(kill=True)
        was = self.of(volume)['uuid']
        self.revert(volume, second)
        self.settle()
        self.assertNotEqual(was, self.of(volume)['uuid'])
        self.assertEqual(second.name, self.parent(volume))
        self.assertEqual(
            sorted([first.name, second.name, volume.name]), self.names()
        )


@ddt.ddt
class TestKilled(_Reverts):
    """After each of its requests the service ends, or the target too."""

    zeroing = True

    @ddt.data(False, True)
    def test_killed_in_the_middle(self, restart: bool) -> None:
        if restart and not self.target.restartable:
            self.skipTest('this target is not ours to restart')
        outcomes = []
        volume = self.volume()
        snapshot = self.snapshot(volume)
        for nth in range(1, MOST):
            was = self.of(volume)['uuid']
            rule = self.tap.inject(tap.drop_before(), nth=nth, times=None)
            with contextlib.suppress(exception.VolumeBackendAPIException):
                self.revert(volume, snapshot)
            fired = bool(rule.fired)
            self.driver._janitor.stop()
            self.driver._restorer.stop()
            if restart:
                self.target.restart(kill=True)
            self.tap.heal()
            self.driver = self.start_driver()
            self.sweep()
            outcomes.append(was != self.of(volume)['uuid'])
            self.assert_whole(volume, snapshot)
            was = self.of(volume)['uuid']
            self.revert(volume, snapshot)
            self.assert_reverted(volume, snapshot, was)
            if not fired:
                break
        # Reverted or not: from some request on it is.
        self.assertFalse(fired)
        self.assertEqual(sorted(outcomes), outcomes)
        self.assertEqual({False, True}, set(outcomes))

    def test_deleted_before_anybody_looks(self) -> None:
        """The volume went half-way, and its user wants it no more."""
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.target.rpc.call(
            'bdev_lvol_rename',
            old_name=f'{self.pool}/{volume.name}',
            new_name=f'before-{volume.id}',
        )
        self.driver.delete_volume(volume)
        self.sweep()
        self.assertEqual([snapshot.name], self.names())

    def test_reverted_before_anybody_looks(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        was = self.of(volume)['uuid']
        self.target.rpc.call(
            'bdev_lvol_clone',
            snapshot_name=f'{self.pool}/{snapshot.name}',
            clone_name=f'revert-{volume.id}',
        )
        self.target.rpc.call(
            'bdev_lvol_rename',
            old_name=f'{self.pool}/{volume.name}',
            new_name=f'before-{volume.id}',
        )
        self.revert(volume, snapshot)
        self.assert_reverted(volume, snapshot, was)
