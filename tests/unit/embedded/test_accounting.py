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

"""Clusters are neither lost nor given out twice, whatever is done."""

import contextlib
from typing import Any
import unittest

from hypothesis import settings, stateful
from hypothesis import strategies as st

from tests.unit.embedded import inprocess

_POOL_CLUSTERS = 64
_NAMES = st.sampled_from([f'v{number}' for number in range(8)])
_SIZES = st.integers(min_value=0, max_value=24)


class AccountingMachine(stateful.RuleBasedStateMachine):
    """Everything that can be done to volumes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        size = _POOL_CLUSTERS * inprocess.CLUSTER_MIB << 20
        self.books = inprocess.Books(size)

    def teardown(self) -> None:
        self.books.close()

    def _try(self, method: str, /, **params: Any) -> None:
        with contextlib.suppress(inprocess.Refused):
            self.books.call(method, **params)

    @stateful.rule(name=_NAMES, size=_SIZES, thin=st.booleans())
    def create(self, name: str, size: int, thin: bool) -> None:
        self._try(
            'bdev_lvol_create',
            lvs_name='P',
            lvol_name=name,
            size_in_mib=size * inprocess.CLUSTER_MIB,
            thin_provision=thin,
        )

    @stateful.rule(origin=_NAMES, name=_NAMES)
    def snapshot(self, origin: str, name: str) -> None:
        self._try(
            'bdev_lvol_snapshot', lvol_name=f'P/{origin}', snapshot_name=name
        )

    @stateful.rule(origin=_NAMES, name=_NAMES)
    def clone(self, origin: str, name: str) -> None:
        self._try(
            'bdev_lvol_clone', snapshot_name=f'P/{origin}', clone_name=name
        )

    @stateful.rule(name=_NAMES, size=_SIZES)
    def resize(self, name: str, size: int) -> None:
        self._try(
            'bdev_lvol_resize',
            name=f'P/{name}',
            size_in_mib=size * inprocess.CLUSTER_MIB,
        )

    @stateful.rule(name=_NAMES)
    def inflate(self, name: str) -> None:
        self._try('bdev_lvol_inflate', name=f'P/{name}')

    @stateful.rule(name=_NAMES)
    def decouple(self, name: str) -> None:
        self._try('bdev_lvol_decouple_parent', name=f'P/{name}')

    @stateful.rule(name=_NAMES)
    def delete(self, name: str) -> None:
        self._try('bdev_lvol_delete', name=f'P/{name}')

    @stateful.rule(name=_NAMES, new=_NAMES)
    def rename(self, name: str, new: str) -> None:
        self._try('bdev_lvol_rename', old_name=f'P/{name}', new_name=new)

    @stateful.rule(name=_NAMES, parent=_NAMES)
    def set_parent(self, name: str, parent: str) -> None:
        self._try(
            'bdev_lvol_set_parent',
            lvol_name=f'P/{name}',
            parent_name=f'P/{parent}',
        )

    @stateful.rule()
    def restart(self) -> None:
        before = self._shown()
        self.books.restart()
        assert self._shown() == before

    def _shown(self) -> Any:
        stores = self.books.call('bdev_lvol_get_lvstores')
        volumes = self.books.call('bdev_lvol_get_lvols')
        for volume in volumes:
            # A snapshot is known by its clones alone after a start.
            del volume['is_snapshot']
        return stores, sorted(volumes, key=lambda volume: volume['uuid'])

    @stateful.invariant()
    def adds_up(self) -> None:
        lvstore = self.books.lvstore
        used = sum(lvol.allocated for lvol in lvstore.lvols.values())
        assert lvstore.free + used == lvstore.layout.data_clusters
        assert lvstore.free >= 0

    @stateful.invariant()
    def volumes_are_sound(self) -> None:
        for lvol in self.books.lvstore.lvols.values():
            assert lvol.own.bit_length() <= lvol.size
            assert not lvol.locked
            if not lvol.thin:
                assert lvol.allocated == lvol.size
                assert lvol.parent is None
            for clone in lvol.clones:
                assert clone.parent is lvol
            if lvol.parent is not None:
                assert lvol in lvol.parent.clones


class AccountingTest(unittest.TestCase):
    """Runs the machine."""

    def test_any_sequence_of_operations(self) -> None:
        stateful.run_state_machine_as_test(
            AccountingMachine,
            settings=settings(
                max_examples=50, stateful_step_count=30, deadline=None
            ),
        )


class Overlapping(unittest.TestCase):
    """Two changes at a time."""

    def test_decouple_while_the_new_parent_goes(self) -> None:
        books = inprocess.Books(1 << 30)
        self.addCleanup(books.close)
        books.call(
            'bdev_lvol_create', lvs_name='P', lvol_name='v', size_in_mib=16
        )
        for name in ('old', 'new'):
            books.call(
                'bdev_lvol_snapshot', lvol_name='P/v', snapshot_name=name
            )
        jobs = (
            books.begin('bdev_lvol_delete', name='P/old'),
            books.begin('bdev_lvol_decouple_parent', name='P/v'),
        )
        for method, job in jobs:
            self.assertTrue(method.finish(job.finish))
        books.target.save()
        for _ in range(2):
            volume = books.volume('v')
            self.assertIsNone(volume.parent)
            # What was the old snapshot's was the new one's before it ended.
            self.assertEqual(4, volume.allocated)
            books.restart()
