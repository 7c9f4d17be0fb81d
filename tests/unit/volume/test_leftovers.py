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

from typing import Any
from unittest import mock

from oslotest import base

from cinder_spdk_vhost.export import block
from cinder_spdk_vhost.operations import janitor
from cinder_spdk_vhost.volume import leftovers
from tests.unit import locking, scripted

OTHER = {'nbd_device': '/dev/nbd7', 'bdev_name': 'other'}


class Host(scripted.Script):
    """Block devices on lvols of two pools."""

    def __init__(self) -> None:
        super().__init__(
            nbd_get_disks=lambda _: self.disks,
            nbd_stop_disk=self.stop,
            bdev_get_bdevs=lambda p: self.bdevs.get(
                p['name'], scripted.NOT_FOUND
            ),
        )
        self.disks: list[dict[str, str]] = []
        self.bdevs: dict[str, Any] = {}

    def start(self, path: str) -> None:
        name = f'bdev-of-{path}'
        self.bdevs[name] = scripted.lvol(path)
        self.disks = [
            *self.disks,
            {'nbd_device': f'/dev/nbd{len(self.disks)}', 'bdev_name': name},
        ]

    def stop(self, params: Any) -> Any:
        device = params['nbd_device']
        self.disks = [d for d in self.disks if d['nbd_device'] != device]
        return True

    def left(self) -> list[str]:
        return [d['bdev_name'].removeprefix('bdev-of-') for d in self.disks]


class TestLeftovers(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.host = Host()
        target = scripted.target(self.host)
        self.leftovers = leftovers.Leftovers(
            target, block.Block(target, janitor.Janitor(lambda: None, 1e6))
        )
        patch = mock.patch.object(leftovers, '_is_idle', self._is_idle)
        patch.start()
        self.addCleanup(patch.stop)
        self.busy: set[str] = set()

    def _is_idle(self, name_id: str) -> bool:
        return name_id not in self.busy

    def sweep(self, *pools: str) -> None:
        self.leftovers.sweep(set(pools or ('P',)))

    def test_of_volumes_that_nobody_has(self) -> None:
        self.busy = {'2'}
        for path in ('P/volume-1', 'P/volume-2', 'P/volume-3'):
            self.host.start(path)
        self.sweep()
        self.assertEqual(['P/volume-2'], self.host.left())
        # A backup that began before, say, and has ended now.
        self.busy = set()
        self.sweep()
        self.assertEqual([], self.host.left())

    def test_not_of_what_came_later(self) -> None:
        self.host.start('P/volume-1')
        self.sweep()
        self.host.start('P/volume-2')
        self.sweep()
        self.assertEqual(['P/volume-2'], self.host.left())

    def test_not_of_what_is_not_ours(self) -> None:
        for path in ('Q/volume-1', 'P/snapshot-1', 'P/somebody'):
            self.host.start(path)
        self.host.disks = [*self.host.disks, OTHER]
        self.host.bdevs['other'] = scripted.bdev('other')
        before = self.host.left()
        self.sweep()
        self.assertEqual(before, self.host.left())

    def test_when_the_pool_is_up(self) -> None:
        self.host.start('Q/volume-1')
        self.sweep()
        self.sweep('P', 'Q')
        self.assertEqual([], self.host.left())

    def test_gone_meanwhile(self) -> None:
        self.host.start('P/volume-1')
        self.host.bdevs.clear()
        self.sweep()

    def test_when_there_were_none_nothing_is_asked(self) -> None:
        self.sweep()
        before = len(self.host.sent)
        self.sweep()
        self.assertEqual([], self.host.sent[before:])
