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

"""What the driver does with volumes and snapshots, on a target."""

from concurrent import futures
import socket
from typing import Any

from cinder import exception
import ddt

from tests.fixtures import driver as fixture
from tests.fixtures import tap
from tests.fixtures import target as target_fixture
from tests.functional import driver_case

GIB = driver_case.GIB
CLUSTER = 4 * 1024**2


class TestLife(driver_case.DriverTestCase):
    """Thick volumes, as in pools on files and unknown devices."""

    def test_thick_volume_is_allocated_and_cleared(self) -> None:
        with self.tap.count() as window:
            volume = self.volume(2)
        self.assertEqual('write_zeroes', self._params(window)['clear_method'])
        data = self.of(volume)['driver_specific']['lvol']
        self.assertEqual(2 * GIB, self.size(volume))
        self.assertFalse(data['thin_provision'])
        self.assertEqual(2 * GIB // CLUSTER, data['num_allocated_clusters'])

    @staticmethod
    def _params(window: Any) -> dict[str, Any]:
        (request,) = [
            e for e in window.exchanges if e.method == 'bdev_lvol_create'
        ]
        return request.params

    def test_clones_keep_their_clear_method_too(self) -> None:
        snapshot = self.snapshot(self.volume())
        with self.tap.count() as window:
            self.from_snapshot(snapshot)
        self.assertEqual('write_zeroes', self._params(window)['clear_method'])
        self.assertNotIn('bdev_lvol_clone', window.methods)

    def test_thin_is_refused_where_discards_would_leak(self) -> None:
        volume = fixture.volume(self.pool)
        with fixture.type_with(extra={'provisioning:type': 'thin'}) as type_id:
            volume.volume_type_id = type_id
            error = self.assertRaises(
                exception.InvalidVolumeType, self.driver.create_volume, volume
            )
        for part in ('provisioning:type', self.pool, 'spdk_zeroing_pools'):
            self.assertIn(part, str(error))

    def test_snapshot_and_clone_take_no_space(self) -> None:
        volume = self.volume()
        free = self._free()
        snapshot = self.snapshot(volume)
        other = self.from_snapshot(snapshot)
        clone = self.clone(volume)
        self.assertEqual(free, self._free())
        self.assertEqual(snapshot.name, self.parent(other))
        self.assertEqual(self.parent(volume), self.parent(clone))

    def _free(self) -> int:
        stores = self.target.rpc.call('bdev_lvol_get_lvstores')
        return next(
            s['free_clusters'] for s in stores if s['name'] == self.pool
        )

    def test_snapshot_deleted_before_those_that_stand_on_it(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        one = self.from_snapshot(snapshot)
        two = self.from_snapshot(snapshot)
        self.driver.delete_snapshot(snapshot)
        self.driver.delete_snapshot(snapshot)
        self.settle()
        self.assertIsNotNone(self.lvol(snapshot.name))
        for gone in (volume, one):
            self.driver.delete_volume(gone)
        self.settle()
        self.assertIsNone(self.lvol(snapshot.name))
        self.assertEqual([two.name], self.names())

    def test_last_volume_of_a_chain_is_thick_again(self) -> None:
        volume = self.volume()
        self.driver.delete_snapshot(self.snapshot(volume))
        self.settle()
        self.assertIsNone(self.parent(volume))
        data = self.of(volume)['driver_specific']['lvol']
        self.assertFalse(data['thin_provision'])

    def test_interrupted_thickening_is_finished_before_a_guest(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.tap.inject(tap.error(), method='bdev_lvol_inflate')
        self.driver.delete_snapshot(snapshot)
        self.settle()
        self.sweep()
        self.assertEqual([volume.name], self.names())
        self.assertTrue(self._thin(volume))
        self.driver.initialize_connection(volume, self.connector())
        self.assertFalse(self._thin(volume))

    def _thin(self, volume: Any) -> bool:
        return self.of(volume)['driver_specific']['lvol']['thin_provision']

    def test_snapshot_that_nothing_stands_on_after_a_restart(self) -> None:
        """Then SPDK no longer takes it for a snapshot."""
        if not self.target.restartable:
            self.skipTest('this target is not ours to restart')
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.driver.delete_volume(volume)
        self.target.restart(kill=True)
        made = self.from_snapshot(snapshot)
        self.settle()
        self.assertEqual(snapshot.name, self.parent(made))
        self.assertEqual(sorted([made.name, snapshot.name]), self.names())

    def test_attached_volume_keeps_its_chain_until_detached(self) -> None:
        """A guest's discards must not meet a thin volume without parent."""
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.driver.initialize_connection(volume, self.connector())
        self.driver.delete_snapshot(snapshot)
        self.settle()
        self.assertEqual(snapshot.name, self.parent(volume))
        self.driver.terminate_connection(volume, self.connector())
        self.sweep()
        self.assertIsNone(self.parent(volume))

    def test_clone_source_deleted_first(self) -> None:
        source = self.volume()
        clone = self.clone(source, 2)
        self.driver.delete_volume(source)
        self.settle()
        self.assertEqual([clone.name], self.names())
        self.assertEqual(2 * GIB, self.size(clone))

    def test_restarted_service_reaps_what_the_last_one_left(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        other = self.from_snapshot(snapshot)
        self.driver.delete_snapshot(snapshot)
        self.settle()
        self.driver._janitor.stop()
        self.driver._volumes.remove(
            f'{self.pool}/{other.name}', self.size(other)
        )
        self.driver = self.start_driver()
        self.settle()
        self.assertEqual([volume.name], self.names())

    def test_deleting_twice_succeeds(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        for _ in range(2):
            self.driver.delete_snapshot(snapshot)
            self.settle()
        for _ in range(2):
            self.driver.delete_volume(volume)

    def test_size_beyond_the_pool_leaves_nothing(self) -> None:
        volume = fixture.volume(self.pool, 1000)
        error = self.assertRaises(
            exception.VolumeBackendAPIException,
            self.driver.create_volume,
            volume,
        )
        self.assertIn('No space left', str(error))
        self.assertIn(self.pool, str(error))


@ddt.ddt
class TestThin(driver_case.DriverTestCase):
    """Thin volumes, in pools that read zeros after unmap."""

    zeroing = True
    options = {'spdk_max_chain_depth': 3}

    def test_thin_by_default(self) -> None:
        data = self.of(self.volume())['driver_specific']['lvol']
        self.assertTrue(data['thin_provision'])
        self.assertEqual(0, data['num_allocated_clusters'])

    def test_thick_by_type(self) -> None:
        volume = fixture.volume(self.pool)
        self.addCleanup(self.remove, volume)
        with fixture.type_with(
            extra={'provisioning:type': 'thick'}
        ) as type_id:
            volume.volume_type_id = type_id
            self.driver.create_volume(volume)
        data = self.of(volume)['driver_specific']['lvol']
        self.assertFalse(data['thin_provision'])

    def test_chain_stays_short(self) -> None:
        volume = self.volume()
        for _ in range(5):
            self.snapshot(volume)
            self.settle()
        self.assertLessEqual(self._depth(volume.name), 3)

    def test_chain_of_clones_stays_short(self) -> None:
        volume = self.volume()
        for _ in range(5):
            volume = self.clone(volume)
            self.settle()
        self.assertLessEqual(self._depth(volume.name), 3)

    def _depth(self, name: str) -> int:
        depth = 0
        while True:
            found = self.lvol(name)
            assert found is not None
            data = found['driver_specific']['lvol']
            if not data['clone']:
                return depth
            name = data['base_snapshot']
            depth += 1

    def test_extend(self) -> None:
        volume = self.volume()
        self.driver.extend_volume(volume, 3)
        self.assertEqual(3 * GIB, self.size(volume))

    def test_shrinking_is_refused_before_it_is_sent(self) -> None:
        volume = self.volume(3)
        with self.tap.count() as window:
            error = self.assertRaises(
                exception.VolumeBackendAPIException,
                self.driver.extend_volume,
                volume,
                2,
            )
        self.assertNotIn('bdev_lvol_resize', window.methods)
        self.assertIn('shrink', str(error))
        self.assertEqual(3 * GIB, self.size(volume))

    @ddt.data(0, -1, 2**40)
    def test_absurd_sizes(self, size: int) -> None:
        volume = self.volume()
        with self.tap.count() as window:
            for call in (
                lambda: self.driver.create_volume(
                    fixture.volume(self.pool, size)
                ),
                lambda: self.driver.extend_volume(volume, size),
                lambda: self.driver.create_cloned_volume(
                    fixture.volume(self.pool, size), volume
                ),
            ):
                error = self.assertRaises(
                    exception.VolumeBackendAPIException, call
                )
                self.assertIn(str(size), str(error))
        self.assertEqual([], window.methods)

    def test_clone_smaller_than_its_source(self) -> None:
        source = self.volume(2)
        error = self.assertRaises(
            exception.VolumeBackendAPIException,
            self.driver.create_cloned_volume,
            fixture.volume(self.pool, 1),
            source,
        )
        self.assertIn('2 GiB', str(error))

    def test_snapshot_is_gone(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.driver.delete_snapshot(snapshot)
        self.settle()
        error = self.assertRaises(
            exception.VolumeBackendAPIException,
            self.driver.create_volume_from_snapshot,
            fixture.volume(self.pool, 1),
            snapshot,
        )
        self.assertIn(snapshot.name, str(error))
        self.settle()
        self.assertEqual([volume.name], self.names())

    def test_unknown_pool(self) -> None:
        error = self.assertRaises(
            exception.VolumeBackendAPIException,
            self.driver.create_volume,
            fixture.volume('elsewhere'),
        )
        self.assertIn('elsewhere', str(error))
        self.assertIn(self.pool, str(error))

    def test_bad_id(self) -> None:
        volume = fixture.volume(self.pool, _name_id='../escape')
        with self.tap.count() as window:
            error = self.assertRaises(
                exception.VolumeBackendAPIException,
                self.driver.create_volume,
                volume,
            )
        self.assertIn('../escape', str(error))
        self.assertEqual([], window.methods)

    def test_other_pools_snapshot(self) -> None:
        snapshot = self.snapshot(self.volume())
        other = self.target.pools[1]
        error = self.assertRaises(
            exception.VolumeBackendAPIException,
            self.driver.create_volume_from_snapshot,
            fixture.volume(other),
            snapshot,
        )
        self.assertIn(other, str(error))
        self.assertIn(self.pool, str(error))

    def test_what_is_not_ours_stays(self) -> None:
        self.target.rpc.call(
            'bdev_lvol_create',
            lvs_name=self.pool,
            lvol_name='database',
            size_in_mib=4,
            thin_provision=True,
        )
        self.addCleanup(
            self.target.rpc.call,
            'bdev_lvol_delete',
            name=f'{self.pool}/database',
        )
        self.sweep()
        self.assertIsNotNone(self.lvol('database'))

    def test_name_taken_by_something_with_data(self) -> None:
        source = self.volume()
        volume = fixture.volume(self.pool)
        self.target.rpc.call(
            'bdev_lvol_create',
            lvs_name=self.pool,
            lvol_name=volume.name,
            size_in_mib=8,
        )
        self.addCleanup(self.remove, volume)
        for call in (
            lambda: self.driver.create_volume(volume),
            lambda: self.driver.create_cloned_volume(volume, source),
        ):
            error = self.assertRaises(
                exception.VolumeBackendAPIException, call
            )
            self.assertIn(volume.name, str(error))
            self.assertEqual(2 * CLUSTER, self.size(volume))
            self.settle()

    def test_create_that_comes_twice_spares_what_is_there(self) -> None:
        """Right after a snapshot, a volume owns no cluster either."""
        volume = self.volume()
        snapshot = self.snapshot(volume)
        before = self.target.dump()
        self.assertRaises(
            exception.VolumeBackendAPIException,
            self.driver.create_volume,
            volume,
        )
        self.assertEqual(before, self.target.dump())
        self.assertEqual(snapshot.name, self.parent(volume))

    def test_many_at_once(self) -> None:
        """One source, cloned, snapshotted and deleted from 16 threads."""
        source = self.volume()

        def life(_: int) -> None:
            clone = fixture.volume(self.pool, 2)
            self.driver.create_cloned_volume(clone, source)
            snapshot = fixture.snapshot(source)
            self.driver.create_snapshot(snapshot)
            made = fixture.volume(self.pool)
            self.driver.create_volume_from_snapshot(made, snapshot)
            self.driver.delete_snapshot(snapshot)
            self.driver.delete_volume(clone)
            self.driver.delete_volume(made)

        with futures.ThreadPoolExecutor(16) as threads:
            list(threads.map(life, range(48)))
        self.settle()
        self.sweep()
        self.assertEqual([source.name], self.names())


@ddt.ddt
class TestExport(driver_case.DriverTestCase):
    """Local attachments."""

    zeroing = True

    def test_socket_and_limits(self) -> None:
        volume = self.volume()
        specs = {'total_iops_sec': '1500', 'read_bytes_sec': '1000000'}
        with fixture.type_with(qos=specs) as type_id:
            volume.volume_type_id = type_id
            info = self.driver.initialize_connection(volume, self.connector())
        self.assertEqual('spdk_vhost', info['driver_volume_type'])
        data = info['data']
        self.assertEqual(volume.id, data['volume_id'])
        self.assertEqual('local', data['transport'])
        name = f'{volume.name}-rw'
        self.assertEqual(name, data['vhost']['name'])
        controller = self.target.controllers()[name]
        self.assertEqual(controller['socket'], data['vhost']['socket'])
        expected = {
            'rw_ios_per_sec': 2000,
            'rw_mbytes_per_sec': 0,
            'r_mbytes_per_sec': 1,
            'w_mbytes_per_sec': 0,
        }
        self.assertEqual(expected, data['assigned_rate_limits'])
        self.assertEqual(expected, self.of(volume)['assigned_rate_limits'])

    def test_limits_are_set_before_the_socket_is_there(self) -> None:
        volume = self.volume()
        with (
            fixture.type_with(qos={'total_iops_sec': '1000'}) as type_id,
            self.tap.count() as window,
        ):
            volume.volume_type_id = type_id
            self.driver.initialize_connection(volume, self.connector())
        methods = window.methods
        self.assertLess(
            methods.index('bdev_set_qos_limit'),
            methods.index('vhost_create_blk_controller'),
        )

    def test_front_end_limits_are_not_ours(self) -> None:
        volume = self.volume()
        specs = {'total_iops_sec': '1000'}
        with fixture.type_with(qos=specs, consumer='front-end') as type_id:
            volume.volume_type_id = type_id
            self.driver.initialize_connection(volume, self.connector())
        limits = self.of(volume)['assigned_rate_limits']
        self.assertEqual({0}, set(limits.values()))

    @ddt.data(
        {'total_iops_sec': '-1'},
        {'total_iops_sec': 'many'},
        {'read_iops_sec': '1000'},
        {'total_bytes_sec': '1', 'read_bytes_sec': '1'},
    )
    def test_limits_that_cannot_be_kept(self, specs: dict[str, str]) -> None:
        """Refused when the volume is made, not when it is attached."""
        volume = fixture.volume(self.pool)
        with fixture.type_with(qos=specs) as type_id:
            volume.volume_type_id = type_id
            error = self.assertRaises(
                exception.InvalidVolumeType, self.driver.create_volume, volume
            )
        self.assertIn(next(iter(specs)), str(error))

    def test_limits_change_between_attachments(self) -> None:
        """SPDK takes limits of an idle bdev once; users don't see that."""
        volume = self.volume()
        for iops in ('3000', '9000', '0', '1000'):
            with fixture.type_with(qos={'total_iops_sec': iops}) as type_id:
                volume.volume_type_id = type_id
                info = self.driver.initialize_connection(
                    volume, self.connector()
                )
                self.driver.terminate_connection(volume, self.connector())
            limits = info['data']['assigned_rate_limits']
            self.assertEqual(int(iops), limits['rw_ios_per_sec'])

    def test_read_only(self) -> None:
        volume = self.volume()
        info = self.driver.initialize_connection(
            volume, self.connector(mode='ro')
        )
        self.assertTrue(info['data']['vhost']['readonly'])
        controller = self.target.controllers()[f'{volume.name}-ro']
        block = controller['backend_specific']['block']
        self.assertTrue(block['readonly'])

    def test_attaching_twice_gives_the_same(self) -> None:
        volume = self.volume()
        infos = [
            self.driver.initialize_connection(volume, self.connector())
            for _ in range(2)
        ]
        self.assertEqual(*infos)

    @ddt.data(
        None,
        {},
        {'host': 'h'},
        {'spdk_vhost': 'yes'},
        {'spdk_vhost': {'lvstores': 'all'}},
        {'spdk_vhost': {'lvstores': ['c0ffee']}},
        {'spdk_vhost': {'lvstores': [None]}},
        {'spdk_vhost': {'lvstores': []}},
    )
    def test_others_are_refused(self, connector: Any) -> None:
        volume = self.volume()
        before = self.target.dump()
        self.assertRaises(
            exception.InvalidConnectorException,
            self.driver.validate_connector,
            connector,
        )
        self.assertRaises(
            exception.VolumeBackendAPIException,
            self.driver.initialize_connection,
            volume,
            connector,
        )
        self.assertEqual(before, self.target.dump())

    def test_bad_mode(self) -> None:
        volume = self.volume()
        error = self.assertRaises(
            exception.VolumeBackendAPIException,
            self.driver.initialize_connection,
            volume,
            self.connector(mode='../rw'),
        )
        self.assertIn('../rw', str(error))

    def test_the_second_attachment_keeps_the_socket(self) -> None:
        volume = self.volume()
        rows = []
        for _ in range(2):
            self.driver.initialize_connection(volume, self.connector())
            rows.append(fixture.attach(volume, self.connector()))
        self.assertTrue(
            self.driver.terminate_connection(volume, self.connector())
        )
        self.driver.remove_export(None, volume)
        self.assertIn(f'{volume.name}-rw', self.target.controllers())
        volume.volume_attachment.objects.remove(rows[0])
        self.assertFalse(
            self.driver.terminate_connection(volume, self.connector())
        )
        self.assertNotIn(f'{volume.name}-rw', self.target.controllers())
        volume.volume_attachment.objects.clear()

    def test_connected_guest(self) -> None:
        """It keeps its volume and its socket, whatever is asked."""
        if target_fixture.real_url():
            self.skipTest('connecting is not enough for a session there')
        volume = self.volume()
        info = self.driver.initialize_connection(volume, self.connector())
        path = info['data']['vhost']['socket']
        name = info['data']['vhost']['name']
        with socket.socket(socket.AF_UNIX) as guest:
            guest.connect(path)
            self._wait_for_sessions(name, 1)
            self.assertRaises(
                exception.VolumeIsBusy, self.driver.delete_volume, volume
            )
            error = self.assertRaises(
                exception.VolumeBackendAPIException,
                self.driver.terminate_connection,
                volume,
                self.connector(),
            )
            self.assertIn(path, str(error))
            error = self.assertRaises(
                exception.VolumeBackendAPIException,
                self.driver.initialize_connection,
                volume,
                self.connector(),
            )
            self.assertIn('multiattach', str(error))
            volume.multiattach = True
            self.driver.initialize_connection(volume, self.connector())
            self.driver.remove_export(None, volume)
            self.driver.terminate_connection(
                volume, self.connector(), force=True
            )
            self.sweep()
            self.assertIn(name, self.target.controllers())
        self._wait_for_sessions(name, 0)
        self.sweep()
        self.assertNotIn(name, self.target.controllers())

    def _wait_for_sessions(self, name: str, number: int) -> None:
        fixture.eventually(
            lambda: self.assertEqual(
                number, len(self.target.controllers()[name]['sessions'])
            )
        )

    def test_claimed_by_somebody_else(self) -> None:
        volume = self.volume()
        nqn = 'nqn.2016-06.io.spdk:other'
        self.target.rpc.call('nvmf_create_subsystem', nqn=nqn)
        self.target.rpc.call(
            'nvmf_subsystem_add_ns',
            nqn=nqn,
            namespace={'bdev_name': f'{self.pool}/{volume.name}'},
        )
        try:
            self.assertRaises(
                exception.VolumeIsBusy, self.driver.delete_volume, volume
            )
            error = self.assertRaises(
                exception.VolumeBackendAPIException,
                self.driver.initialize_connection,
                volume,
                self.connector(),
            )
            self.assertIn('claimed', str(error))
        finally:
            self.target.rpc.call('nvmf_delete_subsystem', nqn=nqn)

    def test_deleting_removes_an_idle_socket(self) -> None:
        volume = self.volume()
        self.driver.initialize_connection(volume, self.connector())
        self.driver.delete_volume(volume)
        self.assertEqual({}, self.target.dump()['controllers'])


class TestTargetAway(driver_case.DriverTestCase):
    """A target that is not there, not yet, or no more."""

    zeroing = True

    def _states(self) -> dict[str, str]:
        stats = self.driver.get_volume_stats(refresh=True)
        return {p['pool_name']: p['backend_state'] for p in stats['pools']}

    def test_starts_without_the_target(self) -> None:
        with self.tap.away():
            self.driver = self.start_driver()
            self.assertEqual(
                dict.fromkeys(self.target.pools, 'down'), self._states()
            )
            error = self.assertRaises(
                exception.VolumeBackendAPIException,
                self.driver.create_volume,
                fixture.volume(self.pool),
            )
            self.assertIn(self.pool, str(error))
        self.assertEqual(
            dict.fromkeys(self.target.pools, 'up'), self._states()
        )
        self.volume()

    def test_pool_that_is_missing(self) -> None:
        pools = [self.pool, 'missing']
        self.driver = self.start_driver(spdk_pools=pools)
        self.assertEqual({self.pool: 'up', 'missing': 'down'}, self._states())
        down = self.driver._stats['pools'][-1]
        self.assertEqual(0, down['free_capacity_gb'])
        self.assertIn('missing', self.driver._pools._why_not('missing'))

    def test_goes_on_when_the_target_was_restarted(self) -> None:
        if not self.target.restartable:
            self.skipTest('this target is not ours to restart')
        volume = self.volume()
        row = fixture.attach(volume, self.connector())
        info = self.driver.initialize_connection(volume, self.connector())
        self.target.restart(kill=True)
        self.restored()
        before = self.target.controllers()
        self.assertEqual([info['data']['vhost']['name']], list(before))
        again = self.driver.initialize_connection(volume, self.connector())
        self.assertEqual(info, again)
        self.driver.terminate_connection(volume, self.connector())
        volume.volume_attachment.objects.remove(row)
        self.volume()

    def test_deleting_while_it_is_away_is_no_success(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        with self.tap.away():
            self.assertRaises(
                exception.VolumeBackendAPIException,
                self.driver.delete_snapshot,
                snapshot,
            )
            self.assertRaises(
                exception.VolumeBackendAPIException,
                self.driver.delete_volume,
                volume,
            )
