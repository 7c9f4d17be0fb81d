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

"""The whole life of volumes, through real services over HTTP."""

from concurrent import futures
import uuid

from cinderclient import exceptions

from tests.fixtures.cinder_services import gone, settled
from tests.functional import base

MIB = 1024**2


class LifecycleTest(base.HttpTestCase):
    """One volume and what descends from it."""

    def test_whole_life(self):
        volume = self.volume(1, name='first')
        self.assertEqual(base.GIB, self.size(volume))

        snapshot = self.snapshot(volume)
        child = self.volume(1, snapshot_id=snapshot.id)
        clone = self.volume(2, source_volid=volume.id)
        self.assertEqual(base.GIB, self.size(child))
        self.assertEqual(2 * base.GIB, self.size(clone))
        for copy in (child, clone):
            self.assertTrue(
                self.lvol(copy)['driver_specific']['lvol']['clone']
            )

        self.cinder.volumes.extend(volume.id, 3)
        volume = settled(self.cinder.volumes, volume.id)
        self.assertEqual(3, volume.size)
        self.assertEqual(3 * base.GIB, self.size(volume))

        attachment, info = self.attach(volume)
        self.assertEqual('spdk_vhost', info['driver_volume_type'])
        self.assertEqual('in-use', self.cinder.volumes.get(volume.id).status)
        controller = self.target.controllers()[info['vhost']['name']]
        self.assertEqual(info['vhost']['socket'], controller['socket'])
        self.assertIn(volume.id, info['vhost']['socket'])

        self.cinder.volumes.extend(volume.id, 4)
        settled(self.cinder.volumes, volume.id)
        self.assertEqual(4 * base.GIB, self.size(volume))

        self.detach(attachment)
        volume = settled(self.cinder.volumes, volume.id)
        self.assertEqual('available', volume.status)
        self.assertEqual({}, self.controllers_of(volume))

        self.delete(clone, child, snapshot, volume)
        self.eventually(
            lambda: self.assertEqual(self.before, self.target.dump())
        )

    def test_parents_are_deleted_before_their_children(self):
        volume = self.volume()
        snapshot = self.snapshot(volume)
        child = self.volume(snapshot_id=snapshot.id)
        other = self.volume(snapshot_id=snapshot.id)
        clone = self.volume(source_volid=volume.id)
        grandchild = self.volume(source_volid=clone.id)
        # At once for the user, whoever still stands on them.
        self.delete(snapshot, volume, clone)
        for survivor in (child, other, grandchild):
            self.assertEqual(base.GIB, self.size(survivor))
        self.delete(child, other, grandchild)
        self.eventually(
            lambda: self.assertEqual(self.before, self.target.dump())
        )

    def test_many_at_once(self):
        volumes = [self.begin_volume() for _ in range(12)]
        volumes = [
            settled(self.cinder.volumes, volume.id) for volume in volumes
        ]
        for volume in volumes:
            self.assertEqual(base.GIB, self.size(volume))
        with futures.ThreadPoolExecutor(6) as executor:
            list(executor.map(self.delete, volumes))

    def test_in_use_is_not_deleted(self):
        volume = self.volume()
        self.attach(volume)
        self.assertRaises(
            exceptions.BadRequest, self.cinder.volumes.delete, volume.id
        )
        self.lvol(volume)

    def test_snapshot_of_an_attached_volume(self):
        volume = self.volume()
        self.attach(volume)
        snapshot = self.snapshot(volume)
        child = self.volume(snapshot_id=snapshot.id)
        self.assertEqual(base.GIB, self.size(child))


class LifecycleNativeThreadsTest(LifecycleTest):
    """The same without eventlet's monkey patching."""

    native_threads = True


class AttachTest(base.HttpTestCase):
    """Who gets a socket, and which."""

    def test_again_gives_the_same_socket(self):
        volume = self.volume()
        attachment, first = self.attach(volume)
        self.detach(attachment)
        _, second = self.attach(volume)
        self.assertEqual(first['vhost'], second['vhost'])

    def test_read_only(self):
        volume = self.volume()
        _, info = self.attach(volume, self.connector(mode='ro'))
        controller = self.target.controllers()[info['vhost']['name']]
        self.assertTrue(controller['backend_specific']['block']['readonly'])

    def test_two_guests_on_one_host(self):
        volume = self.volume(volume_type=self.type(multiattach='<is> True').id)
        first, info = self.attach(volume)
        second, again = self.attach(volume)
        self.assertEqual(info['vhost'], again['vhost'])
        self.detach(first)
        self.assertIn(info['vhost']['name'], self.controllers_of(volume))
        self.detach(second)
        self.assertEqual({}, self.controllers_of(volume))

    def refused(self, **changes):
        """The connector is refused, and the volume stays as it was."""
        volume = self.volume()
        before = self.target.dump()
        error = self.assertRaises(
            exceptions.ClientException,
            self.attach,
            volume,
            self.connector(**changes),
        )
        self.assertEqual(before, self.target.dump())
        return str(error)

    def test_host_without_spdk(self):
        self.refused(spdk_vhost=None)

    def test_host_with_another_spdk(self):
        self.refused(spdk_vhost={'lvstores': [str(uuid.uuid4())]})

    def test_connector_with_a_path_for_a_mode(self):
        self.refused(mode='../../etc')

    def test_connector_with_nonsense(self):
        self.refused(spdk_vhost='yes')
        self.refused(spdk_vhost={'lvstores': 7})


class PoolsTest(base.HttpTestCase):
    """The scheduler's choice of pool is honoured."""

    def test_each_pool(self):
        for pool in self.target.pools:
            volume_type = self.type(pool_name=pool)
            volume = self.volume(volume_type=volume_type.id)
            self.assertEqual(pool, self.pool_of(volume))
            self.lvol(volume)

    def test_descendants_stay_in_the_pool(self):
        volume = self.volume(
            volume_type=self.type(pool_name=self.target.pools[1]).id
        )
        snapshot = self.snapshot(volume)
        for child in (
            self.volume(snapshot_id=snapshot.id),
            self.volume(source_volid=volume.id),
        ):
            self.assertEqual(self.pool_of(volume), self.pool_of(child))
            self.lvol(child)

    def test_scheduler_is_told_what_there_is(self):
        stores = self.before['lvstores']
        for pool in self.cinder.pools.list(detailed=True):
            store = stores[pool.pool_name]
            self.assertEqual(
                store['free_clusters'] * store['cluster_size'] // base.GIB,
                int(pool.free_capacity_gb),
            )

    def test_no_pool_is_large_enough(self):
        volume = self.begin_volume(4000)
        self.assertRaises(
            RuntimeError, settled, self.cinder.volumes, volume.id
        )
        self.assertEqual(self.before, self.target.dump())


class QosTest(base.HttpTestCase):
    """QoS specs of a volume type become the target's limits."""

    def limits(self, volume):
        return {
            key: value
            for key, value in self.target.limits(self.alias(volume)).items()
            if value
        }

    def test_limits_are_in_force_when_attached(self):
        volume_type = self.type(
            {'total_iops_sec': '5000', 'total_bytes_sec': str(200 * MIB)}
        )
        volume = self.volume(volume_type=volume_type.id)
        self.attach(volume)
        self.assertEqual(
            {'rw_ios_per_sec': 5000, 'rw_mbytes_per_sec': 200},
            self.limits(volume),
        )

    def test_limits_are_rounded_up(self):
        volume_type = self.type(
            {
                'total_iops_sec': '1500',
                'read_bytes_sec': str(10 * MIB + 1),
                'write_bytes_sec': str(MIB - 1),
            }
        )
        volume = self.volume(volume_type=volume_type.id)
        self.attach(volume)
        self.assertEqual(
            {
                'rw_ios_per_sec': 2000,
                'r_mbytes_per_sec': 11,
                'w_mbytes_per_sec': 1,
            },
            self.limits(volume),
        )

    def test_again_with_other_limits(self):
        # What a bdev that is not open refuses the second time.
        volume_type = self.type({'total_iops_sec': '1000'})
        volume = self.volume(volume_type=volume_type.id)
        attachment, _ = self.attach(volume)
        self.detach(attachment)
        (specs,) = (
            specs
            for specs in self.cinder.qos_specs.list()
            if specs.name == volume_type.name
        )
        self.cinder.qos_specs.set_keys(specs.id, {'total_iops_sec': '7000'})
        self.attach(volume)
        self.assertEqual({'rw_ios_per_sec': 7000}, self.limits(volume))

    def test_clone_gets_its_own(self):
        slow = self.type({'total_iops_sec': '1000'})
        volume = self.volume(volume_type=slow.id)
        self.attach(volume)
        clone = self.volume(source_volid=volume.id)
        self.assertEqual({}, self.limits(clone))
        self.attach(clone)
        self.assertEqual({'rw_ios_per_sec': 1000}, self.limits(clone))

    def test_front_end_specs_are_not_ours(self):
        volume_type = self.type({'total_iops_sec': '1000'}, 'front-end')
        volume = self.volume(volume_type=volume_type.id)
        _, info = self.attach(volume)
        self.assertEqual({}, self.limits(volume))
        self.assertEqual({'total_iops_sec': '1000'}, info['qos_specs'])

    def test_specs_that_cannot_be_kept(self):
        for specs in (
            {'total_iops_sec': 'many'},
            {'total_iops_sec': '-1'},
            {'write_iops_sec': '1000'},
            {'total_bytes_sec': '1', 'read_bytes_sec': '1'},
        ):
            volume = self.begin_volume(volume_type=self.type(specs).id)
            self.assertRaises(
                RuntimeError, settled, self.cinder.volumes, volume.id
            )
            self.assertEqual(self.before, self.target.dump())


class BadInputTest(base.HttpTestCase):
    """What is refused is refused whole."""

    def test_sizes(self):
        for size in (0, -1, 'big', 2**31):
            self.assertRaises(
                exceptions.ClientException, self.cinder.volumes.create, size
            )
        self.assertEqual(self.before, self.target.dump())

    def test_clone_smaller_than_its_source(self):
        volume = self.volume(2)
        snapshot = self.snapshot(volume)
        before = self.target.dump()
        for source in (
            {'source_volid': volume.id},
            {'snapshot_id': snapshot.id},
        ):
            self.assertRaises(
                exceptions.BadRequest, self.cinder.volumes.create, 1, **source
            )
        self.assertEqual(before, self.target.dump())

    def test_snapshot_that_is_gone(self):
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.delete(snapshot)
        self.assertRaises(
            exceptions.NotFound,
            self.cinder.volumes.create,
            1,
            snapshot_id=snapshot.id,
        )

    def test_snapshot_that_is_gone_from_the_target(self):
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.target.rpc.call(
            'bdev_lvol_delete',
            name=f'{self.pool_of(volume)}/snapshot-{snapshot.id}',
        )
        before = self.target.dump()
        child = self.begin_volume(snapshot_id=snapshot.id)
        self.assertRaises(RuntimeError, settled, self.cinder.volumes, child.id)
        self.assertEqual(before, self.target.dump())
        self.delete(snapshot)

    def test_volume_that_is_gone_from_the_target(self):
        volume = self.volume()
        self.target.rpc.call('bdev_lvol_delete', name=self.alias(volume))
        self.delete(volume)

    def test_shrinking(self):
        volume = self.volume(2)
        self.assertRaises(
            exceptions.BadRequest, self.cinder.volumes.extend, volume.id, 1
        )
        self.assertEqual(2 * base.GIB, self.size(volume))

    def test_provisioning_type(self):
        volume_type = self.type(**{'provisioning:type': 'fat'})
        volume = self.begin_volume(volume_type=volume_type.id)
        self.assertRaises(
            RuntimeError, settled, self.cinder.volumes, volume.id
        )

    def test_delete_of_a_foreign_name(self):
        # What the driver did not make it does not touch.
        pool = self.target.pools[0]
        self.target.rpc.call(
            'bdev_lvol_create',
            lvs_name=pool,
            lvol_name='mine',
            size_in_mib=64,
            thin_provision=True,
        )
        self.addCleanup(
            self.target.rpc.call, 'bdev_lvol_delete', name=f'{pool}/mine'
        )
        volume = self.volume()
        self.delete(volume)
        gone(self.cinder.volumes, volume.id)
        self.assertIsNotNone(self.target.lvol(f'{pool}/mine'))
