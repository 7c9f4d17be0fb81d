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

"""The data plane: what the books change, done to images.

A volume's data is its image, on those of its ancestors. A snapshot takes
its origin's image and gives it a new one; a clone begins without. Each
change is made in an order that leaves the data right whenever the target or
the daemon is killed: what the books say when they are read again is served.
"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
import contextlib
import errno
import logging
import os
import shutil
from typing import TypeVar

from cinder_spdk_vhost.embedded import bdevs, dataplane, errors, lvols
from cinder_spdk_vhost.embedded.qsd import (
    daemon,
    families,
    graph,
    hostdisks,
    images,
    serving,
    space,
    traffic,
)

LOG = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
#: How often a step is tried on daemons that die under it, and how long one
#: is waited for.
_TRIES = 3
_PATIENCE = 30

T = TypeVar('T')


async def start(state_dir: str, *, no_flush: bool) -> 'Plane':
    """A data plane; :class:`daemon.Unusable` says why there can't be one.

    :param state_dir: images are kept below it
    :param no_flush: a guest's flush ends in the host's page cache: it
        survives the death of every process, not that of the host
    """
    run_directory = os.path.join(state_dir, 'qsd')
    kept, volatile = _directories(state_dir)
    for directory in (run_directory, volatile):
        shutil.rmtree(directory, ignore_errors=True)
    for directory in (run_directory, volatile, kept):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    plane = Plane(state_dir, run_directory, no_flush)
    try:
        await plane.start()
    except BaseException:
        await plane.close()
        raise
    return plane


def has_images(state_dir: str) -> bool:
    """Whether volumes have data that only this data plane can keep."""
    return any(files for _, _, files in os.walk(_directories(state_dir)[0]))


def _directories(state_dir: str) -> tuple[str, str]:
    """Where the images of stores are that stay, and of those that go."""
    return (
        os.path.join(state_dir, 'images'),
        os.path.join(state_dir, 'volatile'),
    )


class Plane:
    """The images of all stores, and who uses them."""

    def __init__(
        self, state_dir: str, run_directory: str, no_flush: bool
    ) -> None:
        self._directory, self._volatile = _directories(state_dir)
        self._traffic = traffic.Traffic()
        self._daemon = daemon.Daemon(
            run_directory, self._traffic.line, self._died, self._corrupted
        )
        self._graph = graph.Graph(self._daemon, no_flush)
        self._families = families.Families()
        self._host = hostdisks.HostDisks(
            os.path.join(state_dir, 'host'), self._daemon
        )
        self._serving = serving.Serving(
            self._daemon,
            self._graph,
            self._traffic,
            self._host,
            self._families,
            run_directory,
            self._files,
        )
        self._space = space.Space(state_dir)
        self._looking: asyncio.Task[None] | None = None
        self.on_data: dataplane.OnData = lambda _lvol, _own: None

    async def start(self) -> None:
        """Start the daemon, and clear what a killed target left."""
        await self._host.start()
        await self._daemon.start()
        LOG.info('data is kept by %s %s', daemon.PROGRAM, self._daemon.version)
        self._looking = asyncio.ensure_future(self._look())

    async def close(self) -> None:
        """Stop the daemon and let go of all.

        The books are closed already; they are brought up to date when they
        are loaded.
        """
        if self._looking is not None:
            self._looking.cancel()
        await self._host.close()
        await self._daemon.stop()
        self._serving.close()

    def _died(self) -> None:
        self._graph.forget()
        self._traffic.forget()
        self._serving.forget()
        self.refresh()

    def _corrupted(self, node_name: str, text: str) -> None:
        self._serving.corrupted(self._graph.image(node_name), text)

    def load(
        self, lvstore: lvols.Lvstore, known: Iterable[lvols.Lvol]
    ) -> None:
        """Look at the images of a store that came up."""
        files = self._store_files(lvstore)
        mine = set()
        for lvol in known:
            mine.add(lvol.image)
            try:
                if files.exists(lvol.image):
                    own = files.clusters(lvol.image, lvstore.cluster_size)
                    lvol.own = own if lvol.thin else lvol.own
            except (images.Broken, OSError) as error:
                lvol.broken = True
                LOG.error('the volume %s is broken: %s', lvol.alias, error)
        files.sweep(mine)

    def forget(self, lvstore: lvols.Lvstore) -> None:
        """A store was deleted with all that was in it."""
        self._store_files(lvstore).remove_all()

    def refresh(self) -> None:
        """Tell the books where guests have written to."""
        self._daemon.drain()
        for bdev in self._traffic.written():
            if isinstance(bdev, lvols.Lvol) and bdev.thin:
                with contextlib.suppress(images.Broken, OSError):
                    size = bdev.lvstore.cluster_size
                    self.on_data(
                        bdev, self._files(bdev).clusters(bdev.image, size)
                    )

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._daemon.drain()
            names = [bdev.alias for bdev in self._traffic.writing()]
            self._space.look(names)

    def create(self, lvol: lvols.Lvol) -> dataplane.Change | None:
        """A volume has no image until somebody uses it."""
        return self._refusal()

    def clone(
        self, snapshot: lvols.Lvol, clone: lvols.Lvol
    ) -> dataplane.Change | None:
        """A clone has no image until somebody uses it."""
        return self._refusal()

    def _refusal(self) -> dataplane.Change | None:
        return self._refuse() if self._space.full() else None

    @contextlib.asynccontextmanager
    async def _refuse(self) -> AsyncIterator[None]:
        raise errors.Errno(errno.ENOSPC)
        yield

    async def _steadily(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step that can be taken again when the daemon died."""
        for _ in range(_TRIES - 1):
            with contextlib.suppress(daemon.Gone):
                return await step()
            async with asyncio.timeout(_PATIENCE):
                await self._daemon.ready()
        return await step()

    @contextlib.asynccontextmanager
    async def snapshot(
        self, origin: lvols.Lvol, snapshot: lvols.Lvol
    ) -> AsyncIterator[None]:
        """The snapshot takes the origin's image, the origin a new one."""
        async with self._alone(origin):
            if self._space.full():
                raise errors.Errno(errno.ENOSPC)
            self._families.share(origin, snapshot)

            async def prepare() -> graph.Node | None:
                if self._serving.get(origin) is None:
                    return None
                return await self._graph.prepare_overlay(
                    self._files(origin), snapshot.image, _size(origin)
                )

            overlay = await self._steadily(prepare)
            served = self._serving.get(origin)
            self.refresh()
            origin.image, snapshot.image = snapshot.image, origin.image
            try:
                yield
            except BaseException:
                origin.image, snapshot.image = snapshot.image, origin.image
                await self._graph.release(overlay)
                raise
            if served is not None and overlay is not None:
                await self._insist(self._graph.cover(served.node, overlay))
                served.node = overlay

    async def _insist(self, change: Awaitable[None]) -> None:
        """Change what is served to what the books say already.

        If it can't be done to the daemon that runs, a new one is started
        and serves it so from the beginning.
        """
        try:
            await change
        except daemon.Gone:
            pass
        except daemon.Refused as error:
            LOG.error('%s; %s is started again', error, daemon.PROGRAM)
            self._daemon.kill()

    @contextlib.asynccontextmanager
    async def set_parent(
        self, lvol: lvols.Lvol, parent: lvols.Lvol
    ) -> AsyncIterator[None]:
        """Read from another snapshot; only while nobody uses the volume."""
        async with self._alone(lvol):
            if self._serving.get(lvol) is not None:
                raise errors.Errno(errno.EBUSY)
            yield

    def detach(self, lvol: lvols.Lvol, whole: bool) -> dataplane.Change:
        """Copy what a volume reads from its parent, or from all ancestors."""
        self._check_copies(lvol)
        return self._detach(lvol, whole)

    def _check_copies(self, lvol: lvols.Lvol) -> None:
        """The daemon can't copy in what a program of this host may resize."""
        served = self._serving.get(lvol)
        if served is not None and served.device is not None:
            raise errors.Errno(errno.EBUSY)

    @contextlib.asynccontextmanager
    async def _detach(
        self, lvol: lvols.Lvol, whole: bool
    ) -> AsyncIterator[None]:
        async with self._alone(lvol):
            parent = lvol.left_by_detach(whole)
            await self._steadily(lambda: self._copy_down(lvol, parent))
            yield

    @contextlib.asynccontextmanager
    async def resize(
        self, lvol: lvols.Lvol, clusters: int
    ) -> AsyncIterator[None]:
        """Give a volume another size."""
        async with self._alone(lvol):
            size = clusters * lvol.lvstore.cluster_size
            await self._steadily(lambda: self._resize(lvol, size))
            yield

    async def _resize(self, lvol: lvols.Lvol, size: int) -> None:
        files = self._files(lvol)
        served = self._serving.get(lvol)
        if served is not None:
            await self._graph.resize(served.name, size)
        elif files.exists(lvol.image):
            node = await self._graph.acquire(files, lvol, writable=True)
            try:
                await self._graph.resize(node.name, size)
            finally:
                await self._graph.release(node)

    def delete(
        self, lvol: lvols.Lvol, heir: lvols.Lvol | None
    ) -> dataplane.Change:
        """Drop a volume's data, or leave it to its only clone."""
        if heir is not None:
            self._check_copies(heir)
            files = self._files(lvol)
            # Said before the volume is out of sight, as it can be.
            if (
                self._space.full()
                and files.exists(lvol.image)
                and files.exists(heir.image)
            ):
                raise errors.Errno(errno.ENOSPC)
        return self._delete(lvol, heir)

    @contextlib.asynccontextmanager
    async def _delete(
        self, lvol: lvols.Lvol, heir: lvols.Lvol | None
    ) -> AsyncIterator[None]:
        async with self._alone(lvol):
            files = self._files(lvol)
            served = self._serving.get(lvol)
            if served is not None:
                await self._serving.stop(served)
            unwanted = lvol.image
            if heir is not None and files.exists(lvol.image):
                if files.exists(heir.image) or not _fits(files, lvol, heir):
                    await self._steadily(
                        lambda: self._copy_down(heir, lvol.parent)
                    )
                else:
                    unwanted, heir.image = heir.image, lvol.image
            try:
                yield
            except BaseException:
                if heir is not None and unwanted != lvol.image:
                    heir.image = unwanted
                raise
            files.remove(unwanted)

    async def _copy_down(
        self, lvol: lvols.Lvol, parent: lvols.Lvol | None
    ) -> None:
        """Make a volume independent of its ancestors up to its new parent.

        What it has open below it can be an older chain, of the same data: a
        snapshot that had no image then may have one now, with what was left
        to it. So it is independent when it stands on nothing but what stays.
        """
        files = self._files(lvol)
        ancestors = [ancestor.image for ancestor in lvol.ancestors()]
        stay = {parent.image} if parent is not None else set()
        if parent is not None:
            stay.update(ancestor.image for ancestor in parent.ancestors())
        if not any(files.exists(image) for image in {*ancestors} - stay):
            return
        node = await self._graph.acquire(files, lvol, writable=True)
        try:
            base = next(
                (low for low in node.below() if low.image in stay), None
            )
            await self._graph.copy_down(node, base)
        finally:
            await self._graph.release(node)

    @contextlib.asynccontextmanager
    async def limit(self, bdev: bdevs.Bdev) -> AsyncIterator[None]:
        """Set the limits of a volume that is served."""
        served = self._serving.get(bdev)
        if served is not None:
            try:
                await self._serving.limit(served)
            except (daemon.Gone, daemon.Refused):
                # Served no longer: the books have them for the next time.
                if self._serving.get(bdev) is served:
                    self._daemon.kill()
        yield

    async def serve(self, bdev: bdevs.Bdev, readonly: bool) -> serving.Disk:
        """An export for one guest more."""
        with _as_errno(f'{bdev.alias} can not be served'):
            return await self._serving.to_guest(bdev, readonly)

    async def attach_host(self, bdev: bdevs.Bdev) -> str:
        """A block device of this host that shows a volume."""
        with _as_errno(f'{bdev.alias} can not be shown to the host'):
            return await self._serving.to_host(bdev)

    async def detach_host(self, bdev: bdevs.Bdev) -> None:
        """Take the block device away."""
        with _as_errno(f'{bdev.alias} can not be taken from the host'):
            await self._serving.from_host(bdev)

    def _files(self, lvol: lvols.Lvol) -> images.Images:
        return self._store_files(lvol.lvstore)

    def _store_files(self, lvstore: lvols.Lvstore) -> images.Images:
        above = self._volatile if lvstore.volatile else self._directory
        return images.Images(os.path.join(above, lvstore.uuid))

    @contextlib.asynccontextmanager
    async def _alone(self, lvol: lvols.Lvol) -> AsyncIterator[None]:
        async with self._families.one(lvol):
            with _as_errno(lvol.alias):
                yield


def _size(lvol: lvols.Lvol) -> int:
    return lvol.num_blocks * lvol.block_size


def _fits(files: images.Images, lvol: lvols.Lvol, heir: lvols.Lvol) -> bool:
    """Whether an heir's image can be that of a volume, as it is.

    A snapshot is opened as it is; any other gets its size then.
    """
    return not heir.read_only or files.header(lvol.image).size == _size(heir)


@contextlib.contextmanager
def _as_errno(what: str = '') -> Iterator[None]:
    """What goes wrong beside the books is an I/O error; the log has more."""
    try:
        yield
    except (daemon.Refused, daemon.Gone, images.Broken, OSError) as error:
        LOG.error('%s: %s', what, error)
        full = os.strerror(errno.ENOSPC) in str(error)
        raise errors.Errno(errno.ENOSPC if full else errno.EIO) from error
