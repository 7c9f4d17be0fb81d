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

"""The embedded target's data where something is wrong with its host."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from typing import ClassVar

from tests.fixtures import target as targets
from tests.fixtures.guest import (
    CommandError,
    Disk,
    Guest,
    pattern,
    unavailable,
)
from tests.functional import crash_case, data_case
from tests.functional.crash_case import MIB
from tests.functional.data_case import POOL, ROOT


class FullDisk(data_case.DataTestCase):
    """The file system under the state directory is full."""

    MIB: ClassVar[int] = 28

    def prepare(self) -> None:
        self.need_host_disks()
        if reason := unavailable():
            self.skipTest(reason)
        state = self.directory / 'state'
        state.mkdir()
        size = f'size={self.MIB}M'
        if subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', size, 'tmpfs', state], check=False
        ).returncode:
            self.skipTest('no file systems can be mounted here')
        self.addCleanup(subprocess.run, ['umount', '--lazy', state])

    def fill(self, guest: Guest) -> None:
        pattern.write(guest, 'vda', 'much', 0, 2)
        error = self.assertRaises(
            CommandError,
            guest.run,
            'dd if=/dev/zero of=/dev/vda bs=1M seek=2 count=60 '
            'oflag=direct conv=notrunc',
        )
        self.assertIn('Input/output error', error.errors)

    def test_guest_and_requests(self) -> None:
        greedy = self.volume('greedy', 128)
        frugal = self.volume('frugal')
        other = self.volume('other')
        self.write(other, b'o' * 8 * MIB)
        sockets = [
            self.controller('greedy', greedy),
            self.controller('frugal', frugal),
        ]
        with Guest(Disk(socket) for socket in sockets) as guest:
            pattern.write(guest, 'vdb', 'kept', 0, 4)
            # Whoever wrote in the last second is named.
            time.sleep(4)
            self.fill(guest)
            self.eventually_logged('writes fail on pool/greedy')
            self.assertNotIn('pool/frugal', self.log)
            # Others are not harmed.
            kept = pattern.digest('kept', 0, 4)
            self.assertEqual(kept, pattern.read_digest(guest, 'vdb', 0, 4))
            pattern.write(guest, 'vdb', 'again', 1)
            # What takes room is refused, the rest goes on.
            full = 'No space left on device'
            self.assertEqual(
                full,
                self.refused(
                    'bdev_lvol_create',
                    lvs_name=POOL,
                    lvol_name='new',
                    size_in_mib=4,
                    thin_provision=True,
                ),
            )
            self.assertEqual(
                full,
                self.refused(
                    'bdev_lvol_snapshot',
                    lvol_name='pool/frugal',
                    snapshot_name='new',
                ),
            )
            for number in range(200):
                name = f'other{number % 2}'
                self.rpc.call(
                    'bdev_lvol_rename', old_name=other, new_name=name
                )
            self.rpc.call(
                'bdev_set_qos_limit', name=frugal, rw_ios_per_sec=50000
            )
            # A target that is killed comes back, disk full or not.
            self.target.restart(kill=True)
            for name, bdev in (('greedy', greedy), ('frugal', frugal)):
                self.controller(name, bdev)
            self.assertEqual(
                pattern.digest('again', 1, 1),
                pattern.read_digest(guest, 'vdb', 1, 1),
            )
            self.rpc.call('bdev_lvol_delete', name='pool/other1')
            # There is room again, for all.
            pattern.write(guest, 'vda', 'more', 100)
            self.volume('new', 4)
            self.assertEqual(
                ['again', 'kept', 'kept'], pattern.read(guest, 'vdb', 1, 3)
            )
            self.assertEqual(['more'], pattern.read(guest, 'vda', 100))
            self.assertEqual(['much'], pattern.read(guest, 'vda', 1))
        self.assertEqual(set(), self.degraded())


class CorruptedImages(data_case.DataTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.need_host_disks()

    def image(self, uuid: str) -> pathlib.Path:
        return self.images / f'{uuid}.qcow2'

    def damage(self, uuid: str, table: str) -> None:
        """Put garbage where an image's header says that a table is."""
        with self.image(uuid).open('r+b') as file:
            header = file.read(64)
            l1 = int.from_bytes(header[40:48])
            file.seek(l1)
            l2 = int.from_bytes(file.read(8)) & ((1 << 56) - 1)
            refcounts = int.from_bytes(header[48:56])
            file.seek({'l1': l1, 'l2': l2, 'refcounts': refcounts}[table])
            file.write(os.urandom(512))

    def test_at_start(self) -> None:
        names = ('cut', 'zeroed', 'l1', 'l2', 'refcounts', 'gone', 'sound')
        uuids = {name: self.volume(name) for name in names}
        for uuid in uuids.values():
            self.write(uuid, b'd' * MIB)
        self.rpc.call(
            'bdev_lvol_snapshot', lvol_name='pool/l2', snapshot_name='parent'
        )
        self.target.stop()
        os.truncate(self.image(uuids['cut']), 50)
        size = self.image(uuids['zeroed']).stat().st_size
        self.image(uuids['zeroed']).write_bytes(bytes(size))
        for table in ('l1', 'l2', 'refcounts'):
            self.damage(uuids[table], table)
        self.target.start()
        # The snapshot has the image that was l2's, and l2 reads it.
        broken = {'cut', 'zeroed', 'l1', 'l2', 'parent', 'refcounts'}
        self.assertEqual(broken, self.degraded())
        for name in sorted(broken):
            if name != 'l2':
                self.assertIn(f'the volume pool/{name} is broken', self.log)
            self.assertIn(
                'Input/output error',
                self.refused(
                    'vhost_create_blk_controller',
                    ctrlr=name,
                    dev_name=f'pool/{name}',
                ),
            )
            self.refused('nbd_start_disk', bdev_name=f'pool/{name}')
        self.assertNotIn('pool/sound is broken', self.log)
        self.assertEqual(b'd' * MIB, self.read('pool/sound'))
        # They can be deleted.
        for name in ('l2', 'parent', 'cut', 'zeroed', 'l1', 'refcounts'):
            self.rpc.call('bdev_lvol_delete', name=f'pool/{name}')
        self.assertEqual(set(), self.degraded())

    def test_under_its_user(self) -> None:
        uuid, other = self.volume('volume'), self.volume('other')
        self.write(uuid, b'd' * MIB)
        self.damage(uuid, 'l2')
        device = self.rpc.call('nbd_start_disk', bdev_name=uuid)
        with open(device, 'rb') as file:
            self.assertRaises(OSError, file.read, MIB)
        self.eventually_logged('the volume pool/volume is broken')
        self.assertEqual({'volume'}, self.degraded())
        self.rpc.call('nbd_stop_disk', nbd_device=device)
        self.refused('nbd_start_disk', bdev_name=uuid)
        self.write(other, b'o' * MIB)
        self.assertEqual(b'o' * MIB, self.read(other))


class HostDisks(data_case.DataTestCase):
    """Volumes as block devices of the host."""

    def setUp(self) -> None:
        super().setUp()
        self.need_host_disks()

    def left(self) -> list[str]:
        """Devices and mounts of the target's."""
        loops = subprocess.run(
            ['losetup', '-n', '-O', 'NAME,BACK-FILE'],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        mounts = pathlib.Path('/proc/mounts').read_text()
        return [
            line
            for line in (loops + mounts).splitlines()
            if str(self.directory) in line
        ]

    def test_discards(self) -> None:
        """What is discarded reads zeros, and takes no room."""
        volume = self.volume('volume')
        with crash_case.host_disk(self.target, volume) as device:
            with open(device, 'r+b') as file:
                file.write(b'x' * 16 * MIB)
            self.assertEqual(4, self.allocated(volume))
            command = ['blkdiscard', '-o', str(4 * MIB), '-l', str(8 * MIB)]
            subprocess.run([*command, device], check=True)
        data = self.read(volume, 16 * MIB)
        self.assertEqual(bytes(8 * MIB), data[4 * MIB : 12 * MIB])
        rest = data[: 4 * MIB] + data[12 * MIB :]
        self.assertEqual(b'x' * 8 * MIB, rest)
        self.target.restart()
        self.assertEqual(2, self.allocated(volume))

    def allocated(self, name: str) -> int:
        """How many clusters a volume has."""
        [bdev] = self.rpc.call('bdev_get_bdevs', name=name)
        return bdev['driver_specific']['lvol']['num_allocated_clusters']

    def test_two_targets_on_one_directory(self) -> None:
        second = targets.EmbeddedTarget(self.directory, {POOL: '1G'})
        second.socket = self.directory / 'second.sock'
        volume = self.volume('volume')
        device = self.rpc.call('nbd_start_disk', bdev_name=volume)
        error = self.assertRaises(RuntimeError, self.start_second)
        self.assertIn('state directory', str(error))
        self.assertIn('in use', str(error))
        # Nothing of the first one's was touched.
        with open(device, 'r+b') as file:
            file.write(b'first')
        self.rpc.call('nbd_stop_disk', nbd_device=device)
        self.assertEqual(b'first', self.read(volume, 5))

    def start_second(self) -> None:
        process = subprocess.run(
            [
                *(sys.executable, '-m', 'cinder_spdk_vhost.cmd.target'),
                *('--socket', str(self.directory / 'second.sock')),
                *('--state-dir', str(self.directory / 'state')),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        self.assertEqual(1, process.returncode)
        raise RuntimeError(process.stderr)

    def test_bytes_and_limits(self) -> None:
        volume = self.volume('volume')
        device = self.rpc.call('nbd_start_disk', bdev_name=volume)
        self.assertTrue(pathlib.Path(device).is_block_device())
        data = os.urandom(8 * MIB)
        with open(device, 'r+b') as file:
            self.assertEqual(32 * MIB, file.seek(0, os.SEEK_END))
            file.seek(3 * MIB)
            file.write(data)
        self.rpc.call('bdev_set_qos_limit', name=volume, rw_mbytes_per_sec=8)
        begin = time.monotonic()
        subprocess.run(
            [
                *('dd', f'if={device}', 'of=/dev/null', 'bs=64k'),
                *('skip=256', 'count=256', 'iflag=direct', 'status=none'),
            ],
            check=True,
        )
        seconds = time.monotonic() - begin
        # 2 s; a busy host takes longer, and nobody is faster.
        self.assertGreater(seconds, 1.6)
        self.assertLess(seconds, 12)
        self.rpc.call('bdev_set_qos_limit', name=volume, rw_mbytes_per_sec=0)
        io = self.rpc.call('bdev_get_iostat', names=[volume])['bdevs'][0]
        self.assertLessEqual(8 * MIB, io['bytes_written'])
        self.assertLessEqual(16 * MIB, io['bytes_read'])
        self.rpc.call('nbd_stop_disk', nbd_device=device)
        self.assertEqual([], self.left())
        self.assertEqual(data, self.read(volume, 12 * MIB)[3 * MIB : 11 * MIB])
        self.rpc.call(
            'bdev_lvol_snapshot', lvol_name=volume, snapshot_name='snapshot'
        )
        device = self.rpc.call('nbd_start_disk', bdev_name='pool/snapshot')
        with contextlib.suppress(OSError), open(device, 'r+b') as file:
            file.write(bytes(8 * MIB))
        self.rpc.call('nbd_stop_disk', nbd_device=device)
        self.assertEqual(
            data, self.read('pool/snapshot', 12 * MIB)[3 * MIB : 11 * MIB]
        )

    def test_target_killed(self) -> None:
        volume = self.volume('volume')
        device = self.rpc.call('nbd_start_disk', bdev_name=volume)
        with open(device, 'r+b') as file:
            file.write(b'flushed')
            file.flush()
            os.fsync(file.fileno())
            self.target.kill()
        self.assertNotEqual([], self.left())
        self.target.start()
        self.assertEqual([], self.left())
        self.assertEqual(b'flushed', self.read(volume, 7))

    def test_daemon_killed(self) -> None:
        volume = self.volume('volume')
        device = self.rpc.call('nbd_start_disk', bdev_name=volume)
        with open(device, 'r+b') as file:
            file.write(b'flushed')
            file.flush()
            os.fsync(file.fileno())
        pid = crash_case.daemon_pid(self.target)
        crash_case.kill(pid)
        crash_case.wait_daemon(self.target, pid)
        self.rpc.call('nbd_stop_disk', nbd_device=device)
        self.assertEqual([], self.left())
        self.assertEqual([], self.rpc.call('nbd_get_disks'))
        self.assertEqual(b'flushed', self.read(volume, 7))

    def test_deleted_under_its_user(self) -> None:
        volume = self.volume('volume')
        device = self.rpc.call('nbd_start_disk', bdev_name=volume)
        with open(device, 'r+b'):
            self.rpc.call('bdev_lvol_delete', name=volume)
            self.assertEqual([], self.rpc.call('nbd_get_disks'))
        deadline = time.monotonic() + 20
        while self.left():
            self.assertLess(time.monotonic(), deadline, self.left())
            time.sleep(0.05)
        self.assertEqual([], list(self.images.iterdir()))


class Sessions(data_case.DataTestCase):
    def test_one_volume_for_many(self) -> None:
        if reason := unavailable():
            self.skipTest(reason)
        volume = self.volume('volume')
        first = self.controller('first', volume)
        second = self.controller('second', volume)
        fixed = self.controller('fixed', volume, readonly=True)
        sockets = (first, first, second, fixed)
        with Guest(Disk(socket) for socket in sockets) as guest:
            for number, disk in enumerate(('vda', 'vdb', 'vdc')):
                pattern.write(guest, disk, disk, number)
            wrote = ['vda', 'vdb', 'vdc']
            for disk in ('vda', 'vdb', 'vdc', 'vdd'):
                self.assertEqual(wrote, pattern.read(guest, disk, 0, 3))
            sessions = {
                name: len(controller['sessions'])
                for name, controller in self.target.controllers().items()
            }
            self.assertEqual({'first': 2, 'second': 1, 'fixed': 1}, sessions)
            # Whatever the guest thinks of it, the disk stays as it is.
            self.assertTrue(guest.disk('vdd').read_only)
            self.assertRaises(
                CommandError, pattern.write, guest, 'vdd', 'no', 0
            )
            self.assertEqual(wrote, pattern.read(guest, 'vda', 0, 3))
            self.daemon_dies_often(guest)

    def daemon_dies_often(self, guest: Guest) -> None:
        job = pattern.start_writer(guest, 'vda', 'often', 1024, 4096)
        job.wait_line('done')
        pid = crash_case.daemon_pid(self.target)
        begin = time.monotonic()
        for _ in range(5):
            crash_case.kill(pid)
            pid = crash_case.wait_daemon(self.target, pid)
        # One that lived for a moment only is waited for.
        self.assertLess(3, time.monotonic() - begin)
        self.assertGreater(60, time.monotonic() - begin)
        known = len(job.lines)
        job.wait_line(f'done {1024 + known + 3}')
        guest.end_job(job)
        self.assertIn('ended (', self.log)
        self.assertEqual(
            pattern.digest('often', 1024, known, 4096),
            pattern.read_digest(guest, 'vdc', 1024, known, 4096),
        )
