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

"""What guests read is what guests wrote, whatever becomes of the volumes."""

import time

from cinderclient import exceptions

from tests.fixtures.cinder_services import settled
from tests.fixtures.guest import CommandError, pattern
from tests.functional import base, guest_case
from tests.functional.guest_case import KIB, MIB, written
from tests.functional.guest_case import WRITER_FIRST as FIRST

ZEROS = pattern.ZEROS
BLOCK = 64 * KIB


class SnapshotDataTest(guest_case.GuestHttpTestCase):
    """Snapshots and clones keep what was there."""

    # Ten are to stand on each other before anything is copied up.
    backend_options = {'spdk_max_chain_depth': 10}

    def test_snapshot_and_clone_of_a_volume_that_is_written_to(self):
        volume = self.volume()
        guest, other = self.guest(), self.guest(1)
        disk = self.attach_to(volume)
        pattern.write(guest, disk, 'old', 0, 4)
        # Goes on beside all that follows.
        writer = self.start_writer(guest, disk)
        before = written(writer.wait_line(f'done {FIRST + 7}'))
        snapshot = self.snapshot(volume)
        pattern.write(guest, disk, 'new', 0, 4)
        clone = self.volume(source_volid=volume.id)
        pattern.write(guest, disk, 'newer', 0, 2)

        child = self.volume(2, snapshot_id=snapshot.id)
        old = self.attach_to(child, other)
        self.assert_blocks(other, old, ['old'] * 4 + [ZEROS])
        self.assertEqual(2 * base.GIB, other.disk(old).size)
        copy = self.attach_to(clone, other)
        self.assert_blocks(other, copy, ['new'] * 4 + [ZEROS])
        newest = ['newer'] * 2 + ['new'] * 2 + [ZEROS]
        self.assert_blocks(guest, disk, newest)
        # Each of the writer's blocks was on the disk before the next: what
        # was written before the snapshot is in it, and then nothing.
        after = self.end_writer(writer, guest, disk)
        self.assertGreater(after, before + 8)
        for snap in (old, copy):
            self.assert_blocks(other, snap, ['busy'] * before, FIRST, 4096)
        kept = pattern.read(other, old, FIRST + before, 32, 4096)
        self.assertEqual(sorted(kept, reverse=True), kept)
        self.assertLessEqual({*kept}, {'busy', ZEROS})

        # What one writes none of the others sees.
        pattern.write(other, old, 'child', 1)
        pattern.write(other, copy, 'clone', 2)
        pattern.write(guest, disk, 'origin', 3)
        self.assert_blocks(other, old, ['old', 'child', 'old', 'old'])
        self.assert_blocks(other, copy, ['new', 'new', 'clone', 'new'])
        self.assert_blocks(guest, disk, [*newest[:3], 'origin'])

    def test_chain_of_ten(self):
        volume = self.volume()
        guest = self.guest()
        disk = self.attach_to(volume)
        writer = self.start_writer(guest, disk)
        snapshots = []

        def step():
            n = len(snapshots)
            pattern.write(guest, disk, f'step-{n}', n % 4, size=BLOCK)
            snapshots.append(self.snapshot(volume))

        for _ in range(10):
            step()
        self.assertEqual(10, self.depth(volume))
        # In its middle and at its bottom, under the guest.
        self.delete(snapshots[5], snapshots[0])
        self.eventually(lambda: self.assertEqual(8, self.depth(volume)))
        self.assert_blocks(guest, disk, _after_step(9), size=BLOCK)
        # Longer than it may be: data is copied up, under the guest.
        for _ in range(3):
            step()
        self.eventually(lambda: self.assertLess(self.depth(volume), 3))
        self.delete(snapshots[7], snapshots[8])

        self.end_writer(writer, guest, disk)
        self.assert_blocks(guest, disk, _after_step(12), size=BLOCK)
        left = [n for n in range(13) if n not in (0, 5, 7, 8)]
        volumes = [
            self.begin_volume(snapshot_id=snapshots[n].id) for n in left
        ]
        for n, child in zip(left, volumes, strict=True):
            found = self.attach_to(settled(self.cinder.volumes, child.id))
            self.assert_blocks(guest, found, _after_step(n), size=BLOCK)

    def depth(self, volume):
        """How many snapshots the volume stands on."""
        pool, alias = self.pool_of(volume), self.alias(volume)
        depth = -1
        while alias is not None:
            found = self.target.lvol(alias)['driver_specific']['lvol']
            parent = found.get('base_snapshot')
            alias = f'{pool}/{parent}' if parent else None
            depth += 1
        return depth

    def test_sources_that_are_deleted(self):
        guest = self.guest()
        volume = self.volume()
        attachment, info = self.attach(volume)
        disk = self.plug(info['vhost']['socket'])
        pattern.write(guest, disk, 'first', 0, 2)
        snapshot = self.snapshot(volume)
        pattern.write(guest, disk, 'second', 1, 2)
        child = self.volume(snapshot_id=snapshot.id)
        sibling = self.volume(snapshot_id=snapshot.id)
        clone = self.volume(source_volid=volume.id)
        pattern.write(guest, disk, 'third', 2)
        self.unplug(disk)
        self.detach(attachment)

        # The user's snapshot goes at once, and stays below what needs it.
        self.delete(snapshot, volume)
        pool = self.pool_of(volume)
        self.assertIsNone(self.target.lvol(self.alias(volume)))
        self.assertIsNotNone(
            self.target.lvol(f'{pool}/snapshot-{snapshot.id}')
        )
        self.assertIsNotNone(self.target.lvol(f'{pool}/trash-{snapshot.id}'))
        first = ['first', 'first', ZEROS]
        disks = [self.attach_to(v) for v in (child, sibling, clone)]
        self.assert_blocks(guest, disks[0], first)
        self.assert_blocks(guest, disks[1], first)
        self.assert_blocks(guest, disks[2], ['first', 'second', 'second'])
        pattern.write(guest, disks[0], 'child', 0)
        self.assert_blocks(guest, disks[1], first)
        self.assert_blocks(guest, disks[0], ['child', 'first', ZEROS])

    def test_revert_to_snapshot(self):
        guest = self.guest()
        volume = self.volume()
        attachment, info = self.attach(volume)
        disk = self.plug(info['vhost']['socket'])
        pattern.write(guest, disk, 'old', 0, 2)
        snapshot = self.snapshot(volume)
        pattern.write(guest, disk, 'new', 1, 2)
        self.unplug(disk)
        self.detach(attachment)
        before = self.lvol(volume)['name']
        self.cinder.volumes.revert_to_snapshot(volume, snapshot)
        settled(self.cinder.volumes, volume.id)
        # Nothing was copied, and there is nothing to tidy up.
        self.assertNotEqual(before, self.lvol(volume)['name'])
        self.assertEqual(
            [snapshot.id], [s.id for s in self.cinder.volume_snapshots.list()]
        )
        disk = self.attach_to(volume)
        self.assert_blocks(guest, disk, ['old', 'old', ZEROS])
        # What was put back is the volume's own, and the snapshot intact.
        pattern.write(guest, disk, 'newest', 0)
        self.assert_blocks(guest, disk, ['newest', 'old', ZEROS])
        child = self.attach_to(self.volume(snapshot_id=snapshot.id))
        self.assert_blocks(guest, child, ['old', 'old', ZEROS])


def _after_step(n: int) -> list[str]:
    """The first blocks of the chain's disk after that step."""
    last = {m % 4: f'step-{m}' for m in range(n + 1)}
    return [last.get(block, ZEROS) for block in range(5)]


class AttachedDataTest(guest_case.GuestHttpTestCase):
    """What a guest sees of the disk that it has."""

    def test_extend_under_the_guest(self):
        volume = self.volume()
        guest = self.guest()
        disk = self.attach_to(volume)
        pattern.write(guest, disk, 'old', 1022, 2)
        writer = self.start_writer(guest, disk)
        writer.wait_line(f'done {FIRST + 7}')
        self.cinder.volumes.extend(volume.id, 2)
        settled(self.cinder.volumes, volume.id)
        guest.run(
            f'until [ $(cat /sys/block/{disk}/size) = {2 * base.GIB // 512} ]'
            '; do sleep 0.05; done',
            timeout=20,
        )
        self.assert_blocks(guest, disk, ['old', 'old', ZEROS, ZEROS], 1022)
        self.assert_blocks(guest, disk, [ZEROS], 2047)
        pattern.write(guest, disk, 'new', 2047)
        pattern.write(guest, disk, 'new', 1024)
        self.assert_blocks(guest, disk, ['old', 'new', ZEROS], 1023)
        self.assert_blocks(guest, disk, ['new'], 2047)
        self.end_writer(writer, guest, disk)

    def test_read_only(self):
        volume = self.volume()
        guest = self.guest()
        attachment, info = self.attach(volume)
        disk = self.plug(info['vhost']['socket'])
        self.assertFalse(guest.disk(disk).read_only)
        pattern.write(guest, disk, 'kept', 0)
        self.unplug(disk)
        self.detach(attachment)
        disk = self.attach_to(volume, mode='ro')
        self.assertTrue(guest.disk(disk).read_only)
        for script in (
            f'dd if=/dev/zero of=/dev/{disk} bs=4096 count=1 oflag=direct',
            f'blockdev --setrw /dev/{disk}; dd if=/dev/zero of=/dev/{disk} '
            'bs=4096 count=1 conv=fsync',
            f'blkdiscard -l 4096 /dev/{disk}',
        ):
            self.assertRaises(CommandError, guest.run, script)
        self.assert_blocks(guest, disk, ['kept', ZEROS])

    def test_disk_id(self):
        volume = self.volume()
        disk = self.attach_to(volume)
        serial = self.guest().disk(disk).serial
        if self.target.restartable:
            # The embedded target can't choose it.
            self.assertEqual('vhost_user_blk', serial)
        else:
            self.assertEqual(self.lvol(volume)['name'][:20], serial)

    def test_statistics(self):
        volume = self.volume()
        guest = self.guest()
        disk = self.attach_to(volume)
        pattern.write(guest, disk, 'a', 0, 3)
        pattern.write(guest, disk, 'b', 7, 5, size=4096)
        pattern.read_digest(guest, disk, 1, 9, size=8192)
        # reads, merged, sectors, milliseconds, the same for writes
        counted = [
            int(word)
            for word in guest.run(f'cat /sys/block/{disk}/stat').split()
        ]
        seen = (counted[0], counted[2] * 512, counted[4], counted[6] * 512)
        answer = self.target.rpc.call(
            'bdev_get_iostat', names=[self.lvol(volume)['name']]
        )
        (stats,) = answer['bdevs']
        told = tuple(
            stats[key]
            for key in (
                'num_read_ops',
                'bytes_read',
                'num_write_ops',
                'bytes_written',
            )
        )
        self.assertGreaterEqual(seen[3], 3 * MIB + 5 * 4 * KIB)
        if self.target.restartable:
            self.assertEqual(seen, told)
        else:
            for least, number in zip(seen, told, strict=True):
                self.assertGreaterEqual(number, least)

    def test_guest_in_the_way(self):
        volume = self.volume()
        guest = self.guest(1)
        attachment, info = self.attach(volume)
        socket = info['vhost']['socket']
        disk = self.plug(socket, guest)
        self.assertEqual(1, self.sessions(socket))
        pattern.write(guest, disk, 'old', 0)
        self.assertRaises(
            exceptions.BadRequest, self.cinder.volumes.delete, volume.id
        )
        # Not while the guest is there ...
        self.assertRaises(
            exceptions.ClientException,
            self.cinder.attachments.delete,
            attachment,
        )
        self.assertIn(info['vhost']['name'], self.target.controllers())
        self.assert_blocks(guest, disk, ['old'])
        # ... and a moment after it died.
        guest.kill()
        begin = time.monotonic()
        self.eventually(lambda: self.assertEqual(0, self.sessions(socket)))
        self.assertLess(time.monotonic() - begin, 5)
        self.cinder.attachments.delete(attachment)
        self.assertEqual({}, self.controllers_of(volume))
        again = self.attach_to(volume)
        self.assert_blocks(self.guest(), again, ['old'])
