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

"""Tests of the driver itself on a target, with a tap between the two."""

import contextlib
import pathlib
from typing import Any, ClassVar

from cinder_spdk_vhost.volume.driver import SPDKVhostDriver
from tests.fixtures import driver as fixture
from tests.functional import target_case

GIB = 1024**3
IDLE_SECONDS = 60


class DriverTestCase(target_case.TargetTestCase):
    """A target for the class; a driver and a clean end for each test.

    :cvar zeroing: whether the pools are said to read zeros after unmap,
        which makes volumes thin by default
    :cvar options: more of the back end's section
    """

    zeroing: ClassVar[bool] = False
    options: ClassVar[dict[str, Any]] = {}

    @classmethod
    def start_more(
        cls, directory: pathlib.Path, stack: contextlib.ExitStack
    ) -> None:
        fixture.start_coordination(stack)

    def setUp(self) -> None:
        super().setUp()
        self.pool = self.target.pools[0]
        self.before = self.target.dump()
        self.addCleanup(self.check_clean)
        self.driver = self.start_driver()
        self.addCleanup(self.tap.heal)

    def check_clean(self) -> None:
        """What a test did it must have undone."""
        self.assertEqual(self.before, self.target.dump())

    def start_driver(self, **options: Any) -> SPDKVhostDriver:
        """As cinder-volume starts it."""
        zeroing = self.target.pools if self.zeroing else []
        driver = fixture.make_driver(
            self.tap.url,
            **{
                'spdk_pools': self.target.pools,
                'spdk_zeroing_pools': zeroing,
                'spdk_sweep_interval': 3600,
                **self.options,
                **options,
            },
        )
        fixture.set_up(driver)
        self.addCleanup(driver._janitor.stop)
        self.addCleanup(driver._restorer.stop)
        self.settle(driver)
        return driver

    def settle(self, driver: SPDKVhostDriver | None = None) -> None:
        """Wait for what the driver does in the background."""
        janitor = (driver or self.driver)._janitor
        self.assertTrue(janitor.wait_idle(IDLE_SECONDS), janitor.pending())

    def restored(self) -> None:
        """Wait until the driver has restored what a restart took away."""
        self.assertTrue(self.driver._restorer.wait_idle(IDLE_SECONDS))

    def sweep(self) -> None:
        """Have the driver try again what it could not do before."""
        self.driver._janitor.sweep()
        self.settle()

    def volume(self, size: int = 1, **values: Any) -> Any:
        """A volume that is there, and is deleted after the test."""
        volume = fixture.volume(self.pool, size, **values)
        self.driver.create_volume(volume)
        self.addCleanup(self.remove, volume)
        self.driver._database.known[volume.id] = volume
        return volume

    def snapshot(self, volume: Any) -> Any:
        """A snapshot that is there, and is deleted after the test."""
        snapshot = fixture.snapshot(volume)
        self.driver.create_snapshot(snapshot)
        self.addCleanup(self.remove_snapshot, snapshot)
        return snapshot

    def from_snapshot(self, snapshot: Any, size: int = 1) -> Any:
        volume = fixture.volume(self.pool, size)
        self.driver.create_volume_from_snapshot(volume, snapshot)
        self.addCleanup(self.remove, volume)
        return volume

    def clone(self, source: Any, size: int = 1) -> Any:
        volume = fixture.volume(self.pool, size)
        self.driver.create_cloned_volume(volume, source)
        self.addCleanup(self.remove, volume)
        return volume

    def remove(self, volume: Any) -> None:
        self.driver.remove_export(None, volume)
        self.driver.delete_volume(volume)
        self.settle()

    def remove_snapshot(self, snapshot: Any) -> None:
        self.driver.delete_snapshot(snapshot)
        self.settle()

    def connector(self, **changes: Any) -> dict[str, Any]:
        return {
            **fixture.connector(self.target.lvstore_uuids()),
            **changes,
        }

    def lvol(self, name: str) -> dict[str, Any] | None:
        """The bdev of an lvol in the pool."""
        return self.target.lvol(f'{self.pool}/{name}')

    def of(self, volume: Any) -> dict[str, Any]:
        """The bdev of a volume or snapshot."""
        found = self.lvol(volume.name)
        assert found is not None, f'{volume.name} is not there'
        return found

    def size(self, volume: Any) -> int:
        found = self.of(volume)
        return found['num_blocks'] * found['block_size']

    def parent(self, volume: Any) -> str | None:
        return self.of(volume)['driver_specific']['lvol'].get('base_snapshot')

    def names(self) -> list[str]:
        """All lvols in the pool."""
        found = self.target.rpc.call('bdev_lvol_get_lvols', lvs_name=self.pool)
        return sorted(lvol['name'] for lvol in found)
