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

"""Tests of the embedded target's data, without Cinder."""

import pathlib
import shutil
import tempfile
import time
from typing import Any

from oslotest import base
from testtools import content

from tests.fixtures import target as targets
from tests.functional import crash_case
from tests.functional.crash_case import MIB

POOL = 'pool'
ROOT = pathlib.Path(__file__).parents[2]
DAEMON = 'qemu-storage-daemon'


class DataTestCase(base.BaseTestCase):
    """A target of its own for each test."""

    def setUp(self) -> None:
        super().setUp()
        if targets.real_url():
            self.skipTest('of the embedded target alone')
        if shutil.which(DAEMON) is None:
            self.skipTest(f'{DAEMON} is not installed')
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='data-'))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.prepare()
        self.target = targets.EmbeddedTarget(self.directory, {POOL: '1G'})
        self.rpc = self.target.rpc
        self.addOnException(self._attach_log)
        self.addCleanup(self.target.stop)
        self.target.start()

    def prepare(self) -> None:
        """What comes before the target."""

    def _attach_log(self, _: object) -> None:
        self.addDetail('target.log', content.text_content(self.log[-6000:]))

    @property
    def log(self) -> str:
        return self.target.log.read_text(errors='replace')

    @property
    def images(self) -> pathlib.Path:
        (store,) = (self.directory / 'state' / 'images').iterdir()
        return store

    def need_host_disks(self) -> None:
        if reason := crash_case.host_disks_unavailable():
            self.skipTest(reason)

    def volume(self, name: str, mib: int = 32, thin: bool = True) -> str:
        return self.rpc.call(
            'bdev_lvol_create',
            lvs_name=POOL,
            lvol_name=name,
            size_in_mib=mib,
            thin_provision=thin,
        )

    def controller(
        self, name: str, bdev: str, readonly: bool = False
    ) -> pathlib.Path:
        self.rpc.call(
            'vhost_create_blk_controller',
            ctrlr=name,
            dev_name=bdev,
            readonly=readonly,
        )
        return self.target.vhost_dir / name

    def write(self, bdev: str, data: bytes, offset: int = 0) -> None:
        with (
            crash_case.host_disk(self.target, bdev) as device,
            open(device, 'r+b') as file,
        ):
            file.seek(offset)
            file.write(data)

    def read(self, bdev: str, size: int = MIB) -> bytes:
        return crash_case.read_bdev(self.target, bdev, size)

    def degraded(self) -> set[str]:
        return {
            lvol['name']
            for lvol in self.rpc.call('bdev_lvol_get_lvols', lvs_name=POOL)
            if lvol['is_degraded']
        }

    def refused(self, method: str, **params: Any) -> str:
        error = self.assertRaises(
            targets.RpcError, self.rpc.call, method, **params
        )
        return error.message

    def eventually_logged(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.log:
            self.assertLess(time.monotonic(), deadline, f'no {text!r}')
            time.sleep(0.05)
