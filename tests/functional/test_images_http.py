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

"""Images become volumes and volumes images, by Cinder's own code."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import random
import socket
import subprocess
import time
from typing import Any, ClassVar
import unittest

from cinderclient import exceptions
import ddt

from tests.fixtures import cinder_services, glance, guest
from tests.fixtures import tap as tap_fixture
from tests.fixtures import target as target_fixture
from tests.fixtures.cinder_services import settled
from tests.fixtures.guest import boot_image
from tests.functional import base

MIB = 1024**2
FORMATS = ('raw', 'qcow2')


class ImagesTestCase(base.HttpTestCase):
    """Services with a Glance, on a target that has block devices."""

    images: ClassVar[glance.Glance]

    @classmethod
    def setUpClass(cls) -> None:
        reason = cinder_services.why_no_images()
        if reason := reason or target_fixture.why_no_disks():
            raise unittest.SkipTest(reason)
        super().setUpClass()

    @classmethod
    def start_more(
        cls, directory: pathlib.Path, stack: contextlib.ExitStack
    ) -> None:
        cls.files = directory / 'files'
        cls.files.mkdir()
        cls.images = glance.Glance(directory / 'glance')
        stack.enter_context(cls.images)
        super().start_more(directory, stack)

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.images.heal)
        self.addCleanup(self._check_files)

    def _check_files(self) -> None:
        """Cinder's temporary copies are gone."""
        left = list(self.services.directory.glob('conversion/*'))
        self.assertEqual([], left)

    # Making and reading content.

    def raw(self, mib: int) -> pathlib.Path:
        """A new raw image; some of it, the end too, is not zeros."""
        path = self.files / f'{random.randbytes(4).hex()}.raw'
        with path.open('wb') as file:
            file.truncate(mib * MIB)
            for _ in range(8):
                file.seek(random.randrange(mib * MIB - 300_000) // 512 * 512)
                file.write(random.randbytes(300_000))
            file.seek(-4096, os.SEEK_END)
            file.write(random.randbytes(4096))
        self.addCleanup(path.unlink)
        return path

    def image(self, raw: pathlib.Path, form: str, **properties: Any) -> str:
        """An image of that content; gives its id."""
        path = raw.with_suffix(f'.{form}-image')
        _qemu_img('convert', '-f', 'raw', '-O', form, str(raw), str(path))
        try:
            return self.images.add(path, form, **properties)
        finally:
            path.unlink()

    @contextlib.contextmanager
    def device(self, alias: str) -> Iterator[str]:
        """A volume as a block device, without Cinder."""
        device = self.target.rpc.call('nbd_start_disk', bdev_name=alias)
        try:
            yield device
        finally:
            self.target.rpc.call('nbd_stop_disk', nbd_device=device)

    def assert_content(self, volume: Any, raw: pathlib.Path) -> None:
        """It is that, and then zeros."""
        with self.device(self.alias(volume)) as device:
            _assert_same(raw, 'raw', device, 'raw')

    def fill(self, volume: Any, raw: pathlib.Path) -> None:
        """Have the volume hold that."""
        with self.device(self.alias(volume)) as device:
            _qemu_img('convert', '-n', '-f', 'raw', '-O', 'raw', raw, device)

    # What Cinder does.

    def from_image(self, image_id: str, size: int = 1, **more: Any) -> Any:
        """A volume made from an image."""
        return self.volume(size, imageRef=image_id, **more)

    def upload(self, volume: Any, form: str, force: bool = False) -> str:
        """Make a volume an image; gives its id when Cinder has ended."""
        before = self.cinder.volumes.get(volume.id).status
        _, answer = self.cinder.volumes.upload_to_image(
            volume.id,
            force,
            f'of {volume.id}',
            'bare',
            form,
            visibility='private',
            protected=False,
        )
        image_id = answer['os-volume_upload_image']['image_id']
        self.assertEqual(
            before, settled(self.cinder.volumes, volume.id).status
        )
        return image_id

    def assert_no_disks(self) -> None:
        self.assertEqual([], self.target.disks())

    def assert_image(
        self, image_id: str, form: str, raw: pathlib.Path
    ) -> None:
        """An image of a volume that holds that and then zeros."""
        image = self.images.image(image_id)
        assert image is not None
        self.assertEqual(
            ('active', form), (image['status'], image['disk_format'])
        )
        path = self.images.data(image_id)
        if form == 'raw':
            self.assertEqual(base.GIB, path.stat().st_size)
        _assert_same(raw, 'raw', path, form)


@ddt.ddt
class ImagesTest(ImagesTestCase):
    @ddt.data(*FORMATS)
    def test_volume_from_image(self, form: str) -> None:
        raw = self.raw(100)
        image_id = self.image(raw, form, min_disk=1, hw_disk_bus='virtio')
        volume = self.from_image(image_id, 2)
        self.assertEqual('true', volume.bootable)
        self.assertEqual(image_id, volume.volume_image_metadata['image_id'])
        self.assertEqual('virtio', volume.volume_image_metadata['hw_disk_bus'])
        self.assertEqual(2 * base.GIB, self.size(volume))
        self.assert_no_disks()
        self.assertEqual({}, self.controllers_of(volume))
        self.assert_content(volume, raw)

    @ddt.data(*FORMATS)
    def test_volume_to_image(self, form: str) -> None:
        raw = self.raw(100)
        volume = self.volume()
        self.fill(volume, raw)
        image_id = self.upload(volume, form)
        self.assert_image(image_id, form, raw)
        self.assert_no_disks()
        self.assert_content(volume, raw)

    def test_guest_boots_from_a_volume(self) -> None:
        """A system's image becomes a volume, and that a guest's only disk."""
        if reason := guest.unavailable() or boot_image.unavailable():
            self.skipTest(reason)
        raw = self.files / 'system.raw'
        boot_image.build(raw)
        self.addCleanup(raw.unlink)
        volume = self.from_image(self.image(raw, 'qcow2'))
        self.assertEqual('true', volume.bootable)
        attachment, info = self.attach(volume)
        disk = guest.Disk(info['vhost']['socket'], boot_index=1)
        with guest.Guest([disk]) as machine:
            # Only what the disk's own boot loader starts has this.
            self.assertIn('BOOT_IMAGE=', machine.run('cat /proc/cmdline'))
            self.assertEqual(base.GIB, machine.disk('vda').size)
        self.detach(attachment)

    def test_there_and_back(self) -> None:
        """An image as large as the volume."""
        raw = self.raw(1024)
        volume = self.from_image(self.image(raw, 'qcow2'))
        self.assert_image(self.upload(volume, 'raw'), 'raw', raw)

    def test_attached_volume_to_image(self) -> None:
        raw = self.raw(100)
        volume = self.volume()
        self.fill(volume, raw)
        attachment, info = self.attach(volume)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(info['vhost']['socket'])
            before = self.controllers_of(volume)
            self.assertRaises(
                exceptions.BadRequest, self.upload, volume, 'raw'
            )
            image_id = self.upload(volume, 'qcow2', force=True)
            self.assertEqual(before, self.controllers_of(volume))
            [controller] = before.values()
            self.assertEqual(1, len(controller['sessions']))
            # The connection is the same, too.
            client.setblocking(False)
            self.assertRaises(BlockingIOError, client.recv, 1)
        self.assert_no_disks()
        self.assert_image(image_id, 'qcow2', raw)
        self.detach(attachment)
        self.assertEqual({}, self.controllers_of(volume))

    def test_limits_hold_for_the_copy(self) -> None:
        """Or a copy would be a neighbour that takes everything."""
        raw = self.raw(64)
        limited = self.type({'write_bytes_sec': str(16 * MIB)})
        image_id = self.image(raw, 'raw')
        volume = self.begin_volume(imageRef=image_id, volume_type=limited.id)
        self.eventually(
            lambda: self.assertEqual(1, len(self.target.disks())), 60
        )
        limits = self.lvol(volume)['assigned_rate_limits']
        self.assertEqual(16, limits['w_mbytes_per_sec'])
        settled(self.cinder.volumes, volume.id)
        self.assert_content(volume, raw)

    def test_transfer_is_the_only_thing_a_stock_connector_gets(self) -> None:
        """Who claims to be the volume's own host gets a path, no more."""
        volume, other = self.volume(), self.volume()
        here = {
            'host': socket.gethostname(),
            'ip': '127.0.0.1',
            'initiator': None,
            'multipath': False,
        }
        info = volume.initialize_connection(volume, here)
        self.assertEqual('local', info['driver_volume_type'])
        [disk] = self.target.disks()
        self.assertEqual(disk['nbd_device'], info['data']['device_path'])
        self.assertEqual(self.lvol(volume)['name'], disk['bdev_name'])
        # It can not take what is another volume's, and can take its own.
        other.terminate_connection(other, here)
        self.assertEqual([disk], self.target.disks())
        volume.terminate_connection(volume, here)
        self.assert_no_disks()
        for change in ({'host': 'elsewhere'}, {'ip': '192.0.2.7'}):
            error = self.assertRaises(
                exceptions.BadRequest,
                volume.initialize_connection,
                volume,
                {**here, **change},
            )
            self.assertIn(next(iter(change)), str(error))
        self.assert_no_disks()

    def test_in_use_while_it_has_a_block_device(self) -> None:
        volume = self.volume()
        connector = {
            'host': socket.gethostname(),
            'ip': '127.0.0.1',
            'mode': 'rw',
            'mountpoint': '/dev/vdb',
        }
        attachment, info = self.attach(volume, connector)
        self.assertEqual('local', info['driver_volume_type'])
        self.cinder.volumes.extend(volume.id, 2)
        self.assertRaises(
            RuntimeError, settled, self.cinder.volumes, volume.id
        )
        self.assertEqual(base.GIB, self.size(volume))
        self.cinder.volumes.reset_state(volume.id, 'in-use')
        # An upload takes the same device and leaves it.
        self.upload(volume, 'qcow2', force=True)
        [disk] = self.target.disks()
        self.assertEqual(disk['nbd_device'], info['device_path'])
        self.detach(attachment)
        self.assert_no_disks()

    def test_reimage(self) -> None:
        """What the volume held is covered by the image's zeros, too."""
        old, new = self.raw(64), self.raw(64)
        volume = self.volume()
        self.fill(volume, old)
        self.cinder.volumes.reimage(volume, self.image(new, 'qcow2'))
        settled(self.cinder.volumes, volume.id)
        self.assert_no_disks()
        self.assert_content(volume, new)

    def test_migration_to_another_pool(self) -> None:
        """By copying from one block device to another."""
        raw = self.raw(64)
        volume = self.volume()
        self.fill(volume, raw)
        pool = self.pool_of(volume)
        [other] = [p for p in self.target.pools if p != pool]
        backend = getattr(volume, 'os-vol-host-attr:host').partition('#')[0]
        self.cinder.volumes.migrate_volume(
            volume, f'{backend}#{other}', True, False
        )

        def migrated() -> None:
            now = self.cinder.volumes.get(volume.id)
            self.assertEqual('success', now.migration_status)
            self.assertEqual('available', now.status)
            self.assertEqual(other, self.pool_of(now))

        self.eventually(migrated, 120)
        self.assert_no_disks()
        [lvol] = self.target.rpc.call('bdev_lvol_get_lvols', lvs_name=other)
        with self.device(f'{other}/{lvol["name"]}') as device:
            _assert_same(raw, 'raw', device, 'raw')


class ImagesFailTest(ImagesTestCase):
    """What failed has left nothing, whatever it was that failed."""

    backend_options = {'spdk_sweep_interval': 1}

    def fails(self, image_id: str, size: int = 1) -> Any:
        """Making a volume of an image does; gives the volume."""
        volume = self.begin_volume(size, imageRef=image_id)
        self.assertRaises(
            RuntimeError, settled, self.cinder.volumes, volume.id
        )
        self.assert_no_disks()
        return volume

    def upload_fails(self, volume: Any, form: str = 'raw') -> None:
        """Making an image of a volume does."""
        before = self.images.ids()
        self.upload(volume, form)
        self.assertEqual(before, self.images.ids())
        self.assert_no_disks()

    def test_image_is_too_large(self) -> None:
        path = self.files / 'large.qcow2'
        _qemu_img('create', '-f', 'qcow2', path, '2G')
        self.addCleanup(path.unlink)
        # Before anything is made, where Glance knows.
        image_id = self.images.add(path, 'qcow2', min_disk=2)
        error = self.assertRaises(
            exceptions.BadRequest, self.begin_volume, imageRef=image_id
        )
        self.assertIn('2GB', str(error))
        # When the image is there, where only the image knows.
        self.fails(self.images.add(path, 'qcow2'))

    def test_image_is_none(self) -> None:
        path = self.files / 'broken.qcow2'
        path.write_bytes(b'QFI\xfb' + random.randbytes(100_000))
        self.addCleanup(path.unlink)
        self.fails(self.images.add(path, 'qcow2'))

    def test_download_breaks(self) -> None:
        image_id = self.image(self.raw(32), 'raw')
        self.images.break_download_after = 8 * MIB
        self.fails(image_id)
        self.images.heal()
        self.from_image(image_id)

    def test_upload_breaks(self) -> None:
        volume = self.volume()
        self.images.break_upload_after = 8 * MIB
        self.upload_fails(volume)
        self.images.heal()
        self.upload(volume, 'qcow2')

    def test_target_has_no_device(self) -> None:
        image_id = self.image(self.raw(8), 'qcow2')
        volume = self.volume()
        self.tap.inject(
            tap_fixture.error(-19, 'nbd device not found'),
            method='nbd_start_disk',
            times=None,
        )
        self.fails(image_id)
        self.upload_fails(volume)
        self.tap.heal()
        self.from_image(image_id)

    def test_device_does_not_go_at_once(self) -> None:
        """The first to ask for it is told no; the second is heard."""
        raw = self.raw(8)
        image_id = self.image(raw, 'qcow2')
        self.tap.inject(tap_fixture.error(), method='nbd_stop_disk')
        self.fails(image_id)
        self.tap.heal()

    def test_lost_answers(self) -> None:
        raw = self.raw(8)
        image_id = self.image(raw, 'qcow2')
        rules = [
            self.tap.inject(tap_fixture.drop_after(), method=method)
            for method in ('nbd_start_disk', 'nbd_stop_disk')
        ]
        volume = self.from_image(image_id)
        self.assertEqual([1, 1], [len(rule.fired) for rule in rules])
        self.assert_no_disks()
        self.assert_content(volume, raw)

    def kill_during_copy(self) -> None:
        """Have cinder-volume end by SIGKILL, and start again."""
        self.eventually(
            lambda: self.assertEqual(1, len(self.target.disks())), 60
        )
        self.services.restart(kill=True)
        self.cinder = self.services.client()
        # A killed Cinder leaves what it had fetched, depending on when.
        for path in self.services.directory.glob('conversion/*'):
            path.unlink(missing_ok=True)

    def test_killed_while_a_volume_is_made(self) -> None:
        slow = self.type({'total_bytes_sec': str(MIB)})
        image_id = self.image(self.raw(64), 'raw')
        volume = self.begin_volume(imageRef=image_id, volume_type=slow.id)
        self.kill_during_copy()
        self.eventually(self.assert_no_disks, 60)
        self.assertEqual('error', self.cinder.volumes.get(volume.id).status)

    def test_killed_while_an_image_is_made(self) -> None:
        slow = self.type({'read_bytes_sec': str(MIB)})
        volume = self.volume(volume_type=slow.id)
        attachment, _ = self.attach(volume)
        controllers = self.controllers_of(volume)
        self.cinder.volumes.upload_to_image(
            volume.id,
            True,
            'of a volume',
            'bare',
            'raw',
            visibility='private',
            protected=False,
        )
        self.kill_during_copy()
        # For all that Cinder knows it goes on, until somebody says it.
        time.sleep(3)
        self.assertEqual(1, len(self.target.disks()))
        self.cinder.volumes.reset_state(volume.id, 'in-use')
        self.eventually(self.assert_no_disks, 60)
        # Nothing keeps it from growing, and the guest has it still.
        self.cinder.volumes.extend(volume.id, 2)
        settled(self.cinder.volumes, volume.id)
        self.assertEqual(controllers, self.controllers_of(volume))
        self.detach(attachment)


class ImagesNativeThreadsTest(ImagesTestCase):
    """Without eventlet, as cinder-volume may also be run."""

    native_threads = True

    def test_there_and_back(self) -> None:
        raw = self.raw(64)
        volume = self.from_image(self.image(raw, 'qcow2'))
        self.assert_image(self.upload(volume, 'qcow2'), 'qcow2', raw)
        self.assert_no_disks()


class ImageCacheTest(ImagesTestCase):
    """Cinder keeps a volume of each image to clone the next from."""

    backend_options = {'image_volume_cache_enabled': True}
    default_options = {
        'cinder_internal_tenant_project_id': cinder_services.PROJECT,
        'cinder_internal_tenant_user_id': 'cinder',
    }

    def test_second_volume_is_a_clone(self) -> None:
        raw = self.raw(64)
        image_id = self.image(raw, 'qcow2')
        # A pool has a cache of its own.
        there = self.type(pool_name=self.target.pools[0]).id
        self.addCleanup(self._empty_the_cache)
        self.from_image(image_id, volume_type=there)
        # Nobody could download it now.
        self.images.break_download_after = 0
        volume = self.from_image(image_id, 2, volume_type=there)
        self.assertTrue(self.lvol(volume)['driver_specific']['lvol']['clone'])
        self.assert_no_disks()
        self.assert_content(volume, raw)

    def _empty_the_cache(self) -> None:
        for volume in self.cinder.volumes.list():
            self.remove(self.cinder.volumes, volume.id)


def _qemu_img(*arguments: Any) -> None:
    subprocess.run(
        ['qemu-img', *map(str, arguments)], check=True, capture_output=True
    )


def _assert_same(
    left: Any, left_format: str, right: Any, right_format: str
) -> None:
    """Two images have the same content; where one ends there are zeros."""
    _qemu_img('compare', '-f', left_format, '-F', right_format, left, right)
