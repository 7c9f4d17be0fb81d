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

"""Making, growing and deleting the lvols of volumes."""

from collections.abc import Callable

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import block, exports
from cinder_spdk_vhost.operations import flows, janitor, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, lvol
from cinder_spdk_vhost.volume import chains, pools, provisioning

LOG = logging.getLogger(__name__)

GIB = 1024**3
MIB_PER_GIB = 1024

# Cinder's own limit of a volume is the quota; SPDK takes any 64-bit number
# of MiB and makes a thin lvol of it. An lvstore ends far below this.
MAX_GIB = 1024 * 1024


def check_size(size_gib: int, what: str) -> None:
    """:raises Conflict: for a size that no pool could hold"""
    if not 1 <= size_gib <= MAX_GIB:
        raise exceptions.Conflict(
            f'{what} is {size_gib} GiB; from 1 to {MAX_GIB} are accepted'
        )


class Volumes:
    """Volumes of a target, by the name of their lvol."""

    def __init__(
        self,
        target: spdk_target.Target,
        worker: janitor.Janitor,
        chain_keeper: chains.Chains,
        exporter: exports.Exports,
    ) -> None:
        self._target = target
        self._janitor = worker
        self._chains = chain_keeper
        self._exports = exporter

    def create(
        self,
        pool: pools.Pool,
        name: str,
        size_gib: int,
        how: provisioning.Provisioning,
    ) -> None:
        """Make an empty volume: one round trip.

        Without its lock: nobody else knows of it yet.
        """
        check_size(size_gib, 'size')
        self._janitor.forget(name)
        flows.run(
            self._janitor.undo_later(name),
            self.create_step(pool, name, size_gib, how),
        )

    def create_step(
        self,
        pool: pools.Pool,
        name: str,
        size_gib: int,
        how: provisioning.Provisioning,
        parent: str | None = None,
    ) -> flows.Step:
        """The making of an empty lvol as a step of any flow.

        :param parent: the snapshot that it is put on by a later step
        """
        request = lvol.create(
            pool.name,
            name,
            size_gib * MIB_PER_GIB,
            thin=how.thin,
            clear_method=how.clear_method,
        )
        path = names.path(pool.name, name)
        return self.making(
            f'create {path}', path, request, size_gib, how, parent
        )

    def making(
        self,
        what: str,
        path: str,
        request: rpc.Request,
        size_gib: int,
        how: provisioning.Provisioning,
        parent: str | None = None,
    ) -> flows.Step:
        """The making of an lvol by some request, as a step of any flow.

        :param what: the step, in words
        :param parent: the snapshot that it stands on in the end
        """

        def do() -> None:
            try:
                self._target.settle(request, lambda: self._target.exists(path))
            except rpc.Exists:
                if not self._adopt(path, size_gib, how, parent):
                    self._target.settle(
                        request, lambda: self._target.exists(path)
                    )

        return flows.Step(what, do, self.deleting(path, size_gib))

    def _adopt(
        self,
        path: str,
        size_gib: int,
        how: provisioning.Provisioning,
        parent: str | None,
    ) -> bool:
        """What to do with an lvol that has the name already.

        An earlier attempt at the same volume may have left it. Nobody has
        had it, so a thick one is as good as new, and a thin one that holds
        nothing of its own, on nothing but the same parent, makes way.

        :returns: whether it can be used as it is
        :raises Conflict: where it could be something else
        """
        found = self._target.ask(bdev.get_lvol(path))
        data = found.lvol
        below = data.parent
        attempt = (
            not data.snapshot
            and found.claim is None
            and (below in (None, parent) or names.is_clone_base(below))
        )
        if attempt and data.thin and not data.allocated_clusters:
            with self._chains.pins.pinning(below):
                self.remove(path, found.size)
            return False
        alike = found.size // GIB == size_gib and below is None
        if attempt and alike and not data.thin and not how.thin:
            LOG.info('%s was made by an earlier attempt', path)
            return True
        raise exceptions.Conflict(
            f'{path} exists already and is not an unused volume of '
            f'{size_gib} GiB'
        )

    def deleting(self, path: str, size_gib: int) -> Callable[[], None]:
        """The undoing of whatever made an lvol that nobody has yet."""

        def undo() -> None:
            self.remove(path, size_gib * GIB)

        return undo

    def remove(self, path: str, size: int) -> None:
        """Delete an lvol that is known to be unused, if it is there.

        :param size: bytes, for the deadline
        """
        try:
            self._target.settle(
                lvol.delete(path, size), lambda: self._target.gone(path)
            )
        except rpc.NotFound:
            LOG.debug('%s is gone already', path)

    def delete(self, pool: pools.Pool, name: str) -> None:
        """Delete a volume: two round trips, three if it is still exported.

        What it was before a revert goes with it, where that is left.

        :raises InUse: while a guest or host has it open
        """
        path = names.path(pool.name, name)
        with locks.holding(name):
            self._janitor.forget(name)
            found, before, *answers = self._target.find_all(
                bdev.get_lvol(path),
                bdev.get_lvol(names.path(pool.name, names.outgoing(name))),
                *exports.looks(name),
            )
            exported = exports.Found.of(found, *answers)
            if found is None and self._target.gone(path):
                LOG.info('%s is gone already', path)
                self._exports.remove_idle(name, exported)
                if before is not None:
                    self._chains.delete_leaf(pool, before)
                return
            found = found or self._target.ask(bdev.get_lvol(path))
            found = self.unused(path, name, found, exported)
            if before is not None:
                self._chains.delete_leaf(pool, before)
            with self._chains.pins.pinning(found.lvol.parent):
                self.remove(path, found.size)
        locks.forget(name)
        self._chains.reap_soon(pool, found.lvol.parent)

    def unused(
        self,
        path: str,
        name: str,
        found: bdev.LvolBdev,
        exported: exports.Found,
    ) -> bdev.LvolBdev:
        """A volume that nobody has any more, without its idle exports.

        The caller holds its lock.

        :raises InUse: somebody has it
        """
        self._check_unused(path, found, exported)
        found = self._exports.released(path, name, found, exported)
        self._check_unclaimed(path, found)
        return found

    @staticmethod
    def _check_unused(
        path: str,
        found: bdev.LvolBdev,
        exported: exports.Found,
    ) -> None:
        if exported.users:
            raise exceptions.InUse(
                f'{path} has {", ".join(exported.users)}; detach it first'
            )
        if found.lvol.snapshot:
            raise exceptions.Conflict(f'{path} is no volume')

    @staticmethod
    def _check_unclaimed(path: str, found: bdev.LvolBdev) -> None:
        if found.claim is not None:
            raise exceptions.InUse(
                f'{path} is claimed ({found.claim}), as an exported '
                f'namespace is; end that export first'
            )

    def extend(self, pool: pools.Pool, name: str, size_gib: int) -> None:
        """Grow a volume, attached or not: two round trips.

        :raises Conflict: if it is larger already; nothing is sent then
        :raises InUse: while it has a block device, which would not grow
        """
        check_size(size_gib, 'new size')
        path = names.path(pool.name, name)
        with locks.holding(name):
            found, *answers = self._target.find_all(
                bdev.get_lvol(path), *block.looks()
            )
            found = found or self._target.ask(bdev.get_lvol(path))
            if found.size >= size_gib * GIB + pool.store.cluster_size:
                raise exceptions.Conflict(
                    f'{path} has {found.size} bytes; {size_gib} GiB would '
                    f'shrink it, and volumes only grow'
                )
            disks = block.of(found, answers)
            if disks:
                raise exceptions.InUse(
                    f'{path} is the block device {disks[0].device}, which '
                    f'keeps its size; detach it first'
                )
            self.grow(path, size_gib)

    def grow(self, path: str, size_gib: int) -> None:
        """Grow an lvol that is known to be smaller."""
        self._target.settle(
            lvol.resize(path, size_gib * MIB_PER_GIB),
            lambda: (
                self._target.ask(bdev.get_lvol(path)).size >= size_gib * GIB
            ),
        )
