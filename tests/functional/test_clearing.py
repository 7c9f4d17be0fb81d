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

"""No volume shows what another one left, on whatever the pool stands."""

import os
import tempfile
import uuid

from cinder import exception

from tests.fixtures import driver as fixture
from tests.fixtures.guest import pattern
from tests.functional import driver_case, guest_case
from tests.functional.guest_case import KIB, MIB

ZEROS = pattern.ZEROS
CLUSTER = 4 * MIB
# Little more than a volume: the next one gets the last one's clusters.
POOL_SIZE = 1280 * MIB
# What is written and looked at, in MiB: the first cluster and the last.
PLACES = (0, 1020)
COUNT = 4
# A block of 4 KiB in each.
SPOTS = tuple((place + 2) * MIB // (4 * KIB) for place in PLACES)


class ClearingTest(guest_case.GuestTestCase, driver_case.DriverTestCase):
    """A pool of its own for each test, on a file."""

    def make_pool(self, method, **parameters):
        """A pool on a file, which has been used by nobody."""
        if method not in self.target.rpc.call('rpc_get_methods'):
            self.skipTest(f'the target has no {method}')
        kind = method.removesuffix('_create')
        name = f'clear-{uuid.uuid4().hex[:8]}'
        descriptor, path = tempfile.mkstemp(prefix=f'{name}-')
        self.addCleanup(os.unlink, path)
        os.close(descriptor)
        os.truncate(path, POOL_SIZE)
        rpc = self.target.rpc
        rpc.call(
            method,
            name=f'base-{name}',
            filename=path,
            block_size=4096,
            **parameters,
        )
        self.addCleanup(rpc.call, f'{kind}_delete', name=f'base-{name}')
        self.store = rpc.call(
            'bdev_lvol_create_lvstore',
            bdev_name=f'base-{name}',
            lvs_name=name,
            cluster_sz=CLUSTER,
            clear_method='none',
        )
        self.addCleanup(rpc.call, 'bdev_lvol_delete_lvstore', lvs_name=name)
        self.pool = name
        self.driver = self.start_driver(
            spdk_pools=[name], spdk_zeroing_pools=[]
        )

    def test_file(self):
        self.make_pool('bdev_aio_create')
        self.check_thick_pool()

    def test_file_through_io_uring(self):
        self.make_pool('bdev_uring_create')
        self.check_thick_pool()

    def test_file_with_holes(self):
        self.make_pool('bdev_aio_create', fallocate=True)
        self.leave_data('thin')
        self.check_new('thick')
        self.leave_data('thick')
        self.check_new('thin')
        self.check_that_it_would_be_seen()

    def check_thick_pool(self):
        """Where what was unmapped can be read, volumes are thick."""
        self.assertRaises(exception.InvalidVolumeType, self.make, 'thin')
        self.leave_data('thick')
        self.check_new('thick')
        self.check_that_it_would_be_seen()

    def make(self, how):
        """A volume, thin or thick as its type says."""
        with fixture.type_with(extra={'provisioning:type': how}) as type_id:
            volume = self.volume(type_id=type_id)
        # Looked up no more.
        volume.volume_type_id = None
        return volume

    def leave_data(self, how):
        """Have a guest fill clusters that free ones will be made of.

        Those of a volume, of a snapshot, of a volume on that one, and those
        that the guest discarded.
        """
        volume = self.make(how)
        disk = self.attach(volume)
        self.fill(disk, 'secret')
        snapshot = self.snapshot(volume)
        self.fill(disk, 'later')
        child = self.from_snapshot(snapshot)
        other = self.attach(child)
        self.fill(other, 'child')
        self.guest().run(
            f'blkdiscard -o 0 -l {CLUSTER} /dev/{disk}; '
            f'blkdiscard -o 0 -l {CLUSTER} /dev/{other}'
        )
        self.detach(child, other)
        self.detach(volume, disk)
        self.remove(child)
        self.remove_snapshot(snapshot)
        self.remove(volume)
        self.assertEqual([], self.names())

    def fill(self, disk, label):
        for first in PLACES:
            pattern.write(self.guest(), disk, label, first, COUNT)

    def check_new(self, how):
        """A new volume has zeros, and so has one on its snapshot."""
        volume = self.make(how)
        disk = self.attach(volume)
        self.check_spots(disk, 'new', SPOTS[:1], {})
        snapshot = self.snapshot(volume)
        child = self.from_snapshot(snapshot)
        other = self.attach(child)
        self.check_spots(other, 'child', SPOTS[1:], {SPOTS[0]: 'new'})
        self.detach(child, other)
        self.detach(volume, disk)
        self.remove(child)
        self.remove_snapshot(snapshot)
        self.remove(volume)

    def check_spots(self, disk, label, spots, before):
        """Write a block in some clusters: the rest stays as it was.

        :param before: the labels of blocks that are there
        """
        guest = self.guest()
        self.check_all(disk, before)
        written = dict(before)
        for spot in spots:
            pattern.write(guest, disk, label, spot, size=4 * KIB)
            written[spot] = label
        self.check_all(disk, written)

    def check_all(self, disk, labels):
        """Nothing but these blocks is on the disk, where it is looked at."""
        for first in PLACES:
            start = first * MIB // (4 * KIB)
            blocks = range(start, start + COUNT * MIB // (4 * KIB))
            self.assert_blocks(
                self.guest(),
                disk,
                [labels.get(number, ZEROS) for number in blocks],
                start,
                4 * KIB,
            )

    def check_that_it_would_be_seen(self):
        """The same clusters come back, and not cleared they have the data."""
        for label in ('bare', None):
            self.target.rpc.call(
                'bdev_lvol_create',
                lvs_name=self.pool,
                lvol_name='bare',
                size_in_mib=1024,
                clear_method='none',
            )
            self.target.rpc.call(
                'vhost_create_blk_controller',
                ctrlr=self.pool,
                dev_name=f'{self.pool}/bare',
            )
            controller = self.target.controllers()[self.pool]
            disk = self.plug(controller['socket'])
            if label is not None:
                self.fill(disk, label)
            else:
                # Images begin empty: on the embedded target nothing of
                # this could go wrong.
                left = ZEROS if self.target.restartable else 'bare'
                for first in PLACES:
                    self.assert_blocks(
                        self.guest(), disk, [left] * COUNT, first
                    )
            self.unplug(disk)
            self.target.rpc.call('vhost_delete_controller', ctrlr=self.pool)
            self.target.rpc.call('bdev_lvol_delete', name=f'{self.pool}/bare')

    def attach(self, volume):
        """Plug it into the guest; gives the disk's name."""
        info = self.driver.initialize_connection(volume, self.connector())
        self.addCleanup(
            self.driver.terminate_connection, volume, self.connector()
        )
        return self.plug(info['data']['vhost']['socket'])

    def detach(self, volume, disk):
        self.unplug(disk)
        self.driver.terminate_connection(volume, self.connector())

    def connector(self, **changes):
        return {**fixture.connector([self.store]), **changes}
