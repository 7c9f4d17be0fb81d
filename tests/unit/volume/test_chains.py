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

import os
from typing import Any

from cinder import coordination
from oslotest import base

from cinder_spdk_vhost.export import exports
from cinder_spdk_vhost.operations import janitor
from cinder_spdk_vhost.spdk import lvol
from cinder_spdk_vhost.volume import chains, pools
from tests.unit import locking, scripted

SNAPSHOT = 'P/snapshot-1'
STONE = 'P/trash-1'
BASE = 'clone-1-0123'


class Reaping(base.BaseTestCase):
    """A store as it is, or as it is while it still loads."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.lvols: dict[str, Any] = {}
        self.hidden: dict[str, Any] = {}
        self.script = scripted.Script(
            bdev_get_bdevs=scripted.named(self.lvols),
            bdev_wait_for_examine=self._loaded,
            bdev_lvol_get_lvols=lambda _: [
                {'name': path.removeprefix('P/')} for path in self.lvols
            ],
            bdev_lvol_delete=self._delete,
            vhost_get_controllers=scripted.NOT_FOUND,
        )
        self.janitor = janitor.Janitor(lambda: None, 1e6)
        target = scripted.target(self.script)
        self.chains = chains.Chains(
            target, self.janitor, 8, exports.Exports(target, self.janitor)
        )
        [store] = lvol.get_lvstores().parse([scripted.store('P')])
        self.pool = pools.Pool(store, pools.Base(None, reads_zeros=True))

    def _loaded(self, _: Any) -> Any:
        self.lvols |= self.hidden
        self.hidden.clear()
        return True

    def _delete(self, params: Any) -> Any:
        found = self.lvols.pop(params['name'], None)
        return scripted.NOT_FOUND if found is None else True

    def _lvol(self, path: str, **values: Any) -> None:
        self.lvols[path] = scripted.lvol(path, **values)

    def _sweep(self) -> None:
        self.chains.sweep([self.pool])
        self.janitor.start()
        self.addCleanup(self.janitor.stop)
        self.assertTrue(self.janitor.wait_idle(20))

    def test_buried_without_dependents(self) -> None:
        self._lvol(SNAPSHOT, snapshot=True)
        self._lvol(STONE, gib=0)
        self._sweep()
        self.assertEqual({}, self.lvols)
        self.assertEqual([], self.janitor.pending())

    def test_buried_and_gone(self) -> None:
        self._lvol(STONE, gib=0)
        self._sweep()
        self.assertEqual({}, self.lvols)

    def test_buried_and_not_loaded_yet(self) -> None:
        """Without its stone, nobody would know that it is to go."""
        self._lvol(STONE, gib=0)
        self.hidden[SNAPSHOT] = scripted.lvol(
            SNAPSHOT, snapshot=True, clones=['volume-1', 'volume-2']
        )
        self._sweep()
        self.assertEqual({SNAPSHOT, STONE}, set(self.lvols))
        self.assertEqual(['reap P/snapshot-1'], self.janitor.pending())

    def test_with_several_dependents(self) -> None:
        self._lvol(SNAPSHOT, snapshot=True, clones=['volume-1', 'volume-2'])
        self._lvol(STONE, gib=0)
        self._sweep()
        self.assertEqual({SNAPSHOT, STONE}, set(self.lvols))
        self.assertNotIn('bdev_lvol_delete', self.script.methods)

    def test_not_buried(self) -> None:
        self._lvol(SNAPSHOT, snapshot=True)
        self._lvol('P/volume-1')
        self._lvol('P/somebodys')
        before = dict(self.lvols)
        self._sweep()
        self.assertEqual(before, self.lvols)

    def test_what_a_clone_stood_on(self) -> None:
        self._lvol(f'P/{BASE}', snapshot=True)
        self._sweep()
        self.assertEqual({}, self.lvols)

    def test_leaves_no_lock_behind(self) -> None:
        self._lvol(f'P/{BASE}', snapshot=True)
        self._lvol(SNAPSHOT, snapshot=True)
        self._lvol(STONE, gib=0)
        self._sweep()
        directory = os.path.dirname(coordination.COORDINATOR._file_path)
        self.assertEqual(
            [], [name for name in os.listdir(directory) if 'spdk' in name]
        )
