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

"""Snapshots that nobody wrote to before they were made."""

import os
import pathlib
import socket
import time

from tests.functional import data_case
from tests.functional.crash_case import MIB, host_disk


class EmptySnapshots(data_case.DataTestCase):
    """``volume`` on its snapshot ``empty``, that on ``full``."""

    def setUp(self) -> None:
        super().setUp()
        self.need_host_disks()
        self.write(self.volume('origin', 16), b'd' * MIB)
        self.snapshot('origin', 'full')
        self.rpc.call(
            'bdev_lvol_clone',
            snapshot_name='pool/full',
            clone_name='volume',
        )

    def snapshot(self, origin: str, name: str) -> None:
        self.rpc.call(
            'bdev_lvol_snapshot',
            lvol_name=f'pool/{origin}',
            snapshot_name=name,
        )

    def delete(self, *names: str) -> None:
        for name in names:
            self.rpc.call('bdev_lvol_delete', name=f'pool/{name}')

    def connect(self, path: pathlib.Path) -> socket.socket:
        """As good as a guest: the volume is open while it is there."""
        guest = socket.socket(socket.AF_UNIX)
        self.addCleanup(guest.close)
        guest.connect(str(path))
        deadline = time.monotonic() + 20
        while not self.served():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        return guest

    def served(self) -> list[str]:
        return os.listdir(self.directory / 'state' / 'qsd')

    def test_data_is_left_to_one_under_a_guest(self) -> None:
        self.snapshot('volume', 'empty')
        # The guest's chain is older than the snapshot's image.
        guest = self.connect(self.controller('volume', 'pool/volume'))
        self.assertEqual(b'd' * MIB, self.read('pool/empty'))
        self.delete('origin', 'full')
        self.assertEqual(b'd' * MIB, self.read('pool/empty'))
        self.delete('empty')
        guest.close()
        self.rpc.call('vhost_delete_controller', ctrlr='volume')
        self.assertEqual(b'd' * MIB, self.read('pool/volume'))

    def test_data_is_left_to_a_larger_one(self) -> None:
        self.rpc.call('bdev_lvol_resize', name='pool/volume', size_in_mib=32)
        self.snapshot('volume', 'empty')
        self.delete('origin', 'full')
        with (
            host_disk(self.target, 'pool/empty') as device,
            open(device, 'rb') as file,
        ):
            self.assertEqual(32 * MIB, file.seek(0, os.SEEK_END))
        self.assertEqual(
            b'd' * MIB + bytes(31 * MIB), self.read('pool/empty', 32 * MIB)
        )
