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

"""How a revert that did not come to its end is ended."""

from typing import Any

from oslotest import base

from cinder_spdk_vhost import exceptions, rpc
from cinder_spdk_vhost.export import exports
from cinder_spdk_vhost.operations import janitor
from cinder_spdk_vhost.spdk import lvol
from cinder_spdk_vhost.volume import chains, pools, snapshots, volumes
from tests.unit import locking, scripted

ID = '6e11acca-b719-4c38-a5b0-32923f799de0'
VOLUME, NEW, OLD = (f'{kind}-{ID}' for kind in ('volume', 'revert', 'before'))
SNAPSHOT = 'snapshot-1'


class Store:
    """Lvols with names and aliases, as SPDK has them.

    :ivar lvols: name and alias by UUID
    :ivar hidden: what shows only when the store is loaded
    :ivar failing: names that are once given to an alias only
    """

    def __init__(self) -> None:
        self.lvols: dict[str, list[str]] = {}
        self.hidden: dict[str, list[str]] = {}
        self.failing: set[str] = set()
        self.claimed = False
        self.script = scripted.Script(
            bdev_get_bdevs=self._get,
            bdev_lvol_get_lvols=lambda _: [
                {'name': name, 'uuid': uuid}
                for uuid, (name, _) in self.lvols.items()
            ],
            bdev_wait_for_examine=self._loaded,
            bdev_lvol_clone=self._clone,
            bdev_lvol_rename=self._rename,
            bdev_lvol_delete=self._delete,
            vhost_get_controllers=scripted.NOT_FOUND,
        )

    def add(self, uuid: str, name: str) -> None:
        self.lvols[uuid] = [name, name]

    @property
    def names(self) -> dict[str, str]:
        return {name: uuid for uuid, (name, _) in self.lvols.items()}

    def _find(self, which: str) -> str:
        for uuid, (_, alias) in self.lvols.items():
            if which in (uuid, f'P/{alias}'):
                return uuid
        raise scripted.NOT_FOUND

    def _get(self, params: Any) -> Any:
        uuid = self._find(params['name'])
        [found] = scripted.lvol(f'P/{self.lvols[uuid][1]}')
        return [found | {'name': uuid, 'claimed': self.claimed}]

    def _loaded(self, _: Any) -> Any:
        self.lvols |= self.hidden
        self.hidden = {}
        return True

    def _clone(self, params: Any) -> Any:
        self.add('new', params['clone_name'])
        return 'new'

    def _rename(self, params: Any) -> Any:
        uuid, name = self._find(params['old_name']), params['new_name']
        if name in [alias for _, alias in self.lvols.values()]:
            raise scripted.EXISTS
        self.lvols[uuid][1] = name
        if name in self.failing:
            self.failing.remove(name)
            raise scripted.Refused('Input/output error')
        self.lvols[uuid][0] = name
        return True

    def _delete(self, params: Any) -> Any:
        del self.lvols[self._find(params['name'])]
        return True


class Reverting(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.store = Store()
        self.script = self.store.script
        target = scripted.target(self.script)
        self.janitor = janitor.Janitor(self._sweep, 1e6)
        exporter = exports.Exports(target, self.janitor)
        self.chains = chains.Chains(target, self.janitor, 8, exporter)
        keeper = volumes.Volumes(target, self.janitor, self.chains, exporter)
        self.snapshots = snapshots.Snapshots(
            target, self.janitor, self.chains, keeper
        )
        [store] = lvol.get_lvstores().parse([scripted.store('P')])
        self.pool = pools.Pool(store, pools.Base(None, reads_zeros=True))

    def _sweep(self) -> None:
        self.chains.sweep([self.pool])

    def _swept(self) -> None:
        self.janitor.start()
        self.addCleanup(self.janitor.stop)
        self.assertTrue(self.janitor.wait_idle(20))

    def _revert(self) -> None:
        self.snapshots.revert(self.pool, SNAPSHOT, 1, VOLUME, 1, 'unmap')

    def _whole(self, uuid: str = 'own') -> None:
        self.assertEqual({VOLUME: uuid, SNAPSHOT: 's'}, self.store.names)
        for name, alias in self.store.lvols.values():
            self.assertEqual(name, alias)

    def _volume(self, *others: tuple[str, str]) -> None:
        for uuid, name in (('own', VOLUME), ('s', SNAPSHOT), *others):
            self.store.add(uuid, name)

    def test_revert(self) -> None:
        self._volume()
        self._revert()
        self._whole('new')
        changes = [
            [request for request, _ in trip] for trip in self.script.trips
        ]
        self.assertEqual(
            [
                ['bdev_lvol_clone'],
                ['bdev_lvol_rename'],
                ['bdev_lvol_rename'],
                ['bdev_lvol_delete'],
            ],
            changes[1:],
        )

    def test_nothing_was_renamed(self) -> None:
        self._volume(('new', NEW))
        self._swept()
        self._whole()

    def test_between_two_names(self) -> None:
        self.store.add('own', OLD)
        self.store.add('new', NEW)
        self.store.add('s', SNAPSHOT)
        self._swept()
        self._whole()

    def test_reverted_and_not_tidied_up(self) -> None:
        self._volume(('old', OLD))
        self._swept()
        self._whole()

    def test_volume_that_is_not_loaded_yet(self) -> None:
        """What it was before must not take its name."""
        self.store.add('old', OLD)
        self.store.add('s', SNAPSHOT)
        self.store.hidden['own'] = [VOLUME, VOLUME]
        self._swept()
        self._whole()
        self.assertNotIn('bdev_lvol_rename', self.script.methods)

    def test_left_over_that_is_claimed(self) -> None:
        self._volume(('new', NEW))
        self.store.claimed = True
        self._swept()
        self.assertIn(NEW, self.store.names)
        self.assertEqual(
            [f'finish reverting P/{VOLUME}'], self.janitor.pending()
        )

    def test_somebody_elses(self) -> None:
        self._volume(('x', 'before-upgrade'), ('y', 'revert-1'))
        self._swept()
        self.assertEqual(4, len(self.store.names))

    def test_first_rename_changes_the_alias_only(self) -> None:
        self._volume()
        self.store.failing = {OLD}
        self.assertRaises(rpc.RPCError, self._revert)
        self._whole()

    def test_second_rename_changes_the_alias_only(self) -> None:
        """The volume's own lvol looks like one too many."""
        self._volume()
        self.store.failing = {VOLUME}
        self.assertRaises(rpc.RPCError, self._revert)
        self._whole()

    def test_alias_that_stayed_when_the_service_ended(self) -> None:
        self._volume(('new', NEW))
        self.store.lvols['own'] = [OLD, OLD]
        self.store.lvols['new'][1] = VOLUME
        self._swept()
        self._whole()

    def test_guest_has_it(self) -> None:
        self._volume()
        self.script.answers['vhost_get_controllers'] = scripted.named(
            {f'{VOLUME}-rw': scripted.controller(f'{VOLUME}-rw', 'own', 1)}
        )
        error = self.assertRaises(exceptions.InUse, self._revert)
        self.assertIn('1 guest(s)', str(error))
        self._whole()
        self.assertEqual(1, len(self.script.trips))

    def test_too_small(self) -> None:
        self.assertRaises(
            exceptions.Conflict,
            self.snapshots.revert,
            self.pool,
            SNAPSHOT,
            2,
            VOLUME,
            1,
            'unmap',
        )
        self.assertEqual([], self.script.trips)
