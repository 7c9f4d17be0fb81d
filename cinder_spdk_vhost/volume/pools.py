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

"""Pools: the lvstores of a target that volumes are put in."""

from collections.abc import Iterable
import dataclasses
import re
import threading
import time

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, rpc
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.reconcile import incarnation
from cinder_spdk_vhost.spdk import bdev, lvol

LOG = logging.getLogger(__name__)

# What Cinder's HOST@BACKEND#POOL and SPDK's STORE/LVOL can carry.
_USABLE_NAME = re.compile(r'[0-9A-Za-z_.:-]+')

# Products of bdevs that read zeros after unmap whatever lies below.
_ZEROING_PRODUCTS = ('Malloc disk',)


@dataclasses.dataclass(frozen=True)
class Base:
    """What a store's base bdev adds, which doesn't change.

    :ivar reads_zeros: whether what was unmapped reads as zeros
    """

    numa_node: int | None
    reads_zeros: bool


@dataclasses.dataclass(frozen=True)
class Pool:
    """A store that is there."""

    store: lvol.Lvstore
    base: Base

    @property
    def name(self) -> str:
        return self.store.name


class Pools:
    """The pools of a back end and what was last heard of them.

    :param wanted: names that the admin listed; none means every store
    :param zeroing: names whose base the admin knows to read zeros
    :param watch: hears with each look which incarnation of the target it is
    """

    def __init__(
        self,
        target: spdk_target.Target,
        wanted: Iterable[str] = (),
        zeroing: Iterable[str] = (),
        watch: incarnation.Watch | None = None,
    ) -> None:
        self._target = target
        self._watch = watch or incarnation.Watch()
        self._wanted = tuple(wanted)
        self._zeroing = frozenset(zeroing)
        self._pools: dict[str, Pool] = {}
        self._bases: dict[str, Base] = {}
        self._why_down: dict[str, str] = {}
        self._uuids: dict[str, str] = {}
        self._empty = False
        self._lock = threading.Lock()

    def refresh(self) -> bool:
        """Ask what there is: one round trip, two when a store is new.

        A target that does not answer takes all pools down; nothing is
        raised for it. Each change is logged once.

        :returns: whether the target answered
        """
        process, asked = None, time.monotonic()
        try:
            found, process = self._target.find_all(
                lvol.get_lvstores(), self._watch.look()
            )
            stores = {store.name: store for store in found or ()}
            pools = self._with_bases(stores)
            missing = f'the target {self._target.url} has no such lvstore'
        except rpc.RPCError as e:
            stores, pools = {}, {}
            missing = f'the target {self._target.url} does not answer: {e}'
        with self._lock:
            known = {*self._wanted, *self._pools, *self._why_down}
            down = {
                name: _why_unused(name) if name in stores else missing
                for name in known - set(pools)
            }
            self._log_changes(pools, down, missing)
            self._pools, self._why_down = pools, down
            self._uuids |= {n: pool.store.uuid for n, pool in pools.items()}
        if process is not None:
            self._watch.saw(process, asked)
        return process is not None

    def _with_bases(self, stores: dict[str, lvol.Lvstore]) -> dict[str, Pool]:
        stores = {
            name: store for name, store in stores.items() if self._uses(name)
        }
        new = [s for s in stores.values() if s.uuid not in self._bases]
        if new:
            found = self._target.find_all(
                *(bdev.get(s.base_bdev) for s in new)
            )
            for store, base in zip(new, found, strict=True):
                if base is not None:
                    self._bases[store.uuid] = self._base(store.name, base)
        return {
            name: Pool(store, self._bases[store.uuid])
            for name, store in stores.items()
            if store.uuid in self._bases
        }

    def _base(self, name: str, base: bdev.Bdev) -> Base:
        certain = base.product in _ZEROING_PRODUCTS or base.punches_holes
        if name in self._zeroing and not base.unmaps:
            LOG.warning(
                'spdk_zeroing_pools names "%(pool)s", but its base '
                '%(base)s (%(product)s) takes no unmap: what was deleted '
                'there can be read again',
                {'pool': name, 'base': base.name, 'product': base.product},
            )
        return Base(
            numa_node=base.numa_node,
            reads_zeros=certain or name in self._zeroing,
        )

    def _uses(self, name: str) -> bool:
        if self._wanted and name not in self._wanted:
            return False
        return bool(_USABLE_NAME.fullmatch(name))

    def _log_changes(
        self, pools: dict[str, Pool], down: dict[str, str], missing: str
    ) -> None:
        for name in sorted(set(pools) - set(self._pools)):
            LOG.info('Pool "%s" is up', name)
        for name in sorted(set(down) - set(self._why_down)):
            LOG.warning(
                'Pool "%(pool)s" is down: %(why)s',
                {'pool': name, 'why': down[name]},
            )
        empty = not pools and not down
        if empty and not self._empty:
            LOG.warning('There are no pools: %s', missing)
        self._empty = empty

    def up(self) -> list[Pool]:
        """Pools that were there at the last look."""
        with self._lock:
            return [self._pools[name] for name in sorted(self._pools)]

    def down(self) -> dict[str, str]:
        """Pools that were not, and why."""
        with self._lock:
            return dict(self._why_down)

    def uuid(self, name: str) -> str | None:
        """The lvstore of a pool, be it down now; None if never heard of."""
        with self._lock:
            return self._uuids.get(name)

    def get(self, name: str | None) -> Pool:
        """The pool of that name; the only one where none is named.

        :raises PoolDown: it is not there; looked once more before
        """
        for attempt in (1, 2):
            with self._lock:
                if name is None and len(self._pools) == 1:
                    return next(iter(self._pools.values()))
                if name in self._pools:
                    return self._pools[name]
            if attempt == 1:
                self.refresh()
        raise exceptions.PoolDown(self._why_not(name))

    def _why_not(self, name: str | None) -> str:
        has = ', '.join(pool.name for pool in self.up()) or 'none'
        if name is None:
            return f'no pool is named; there are: {has}'
        why = self.down().get(
            name, f'it is no lvstore of the target {self._target.url}'
        )
        if self._wanted and name not in self._wanted:
            why = f'spdk_pools does not list it ({", ".join(self._wanted)})'
        return f'pool "{name}" is not available: {why}; available: {has}'


def _why_unused(name: str) -> str:
    """Why a store that is there is no pool."""
    if _USABLE_NAME.fullmatch(name):
        return 'the bdev below the lvstore is not there'
    return (
        'its name has characters that neither HOST@BACKEND#POOL nor '
        'STORE/LVOL can carry; letters, digits and "_", ".", "-", ":" can'
    )
