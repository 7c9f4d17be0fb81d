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

"""Guests on vhost-user sockets: who is connected, and since when.

Where no data is kept nobody speaks vhost-user. Whoever connects to a
controller's socket is a guest from then on, shown as SPDK shows one: it is
listed soon, started a little later, and gone a little after it left.

Where data is kept each guest has a disk of its own, and messages are
relayed between the two: it is listed as soon as it has connected, started
while it has given rings, gone when it has left (as in SPDK,
lib/vhost/rte_vhost_user.c).
"""

import asyncio
from collections.abc import Awaitable, Iterator
import contextlib
import errno
import functools
import logging
import os
import socket
import stat
from typing import Any, Protocol

from cinder_spdk_vhost.embedded import dataplane, errors
from cinder_spdk_vhost.embedded.vhost_user import relay

LOG = logging.getLogger(__name__)

_LISTED_AFTER = 0.002
_STARTED_AFTER = 0.020
_GONE_AFTER = 0.15

#: Seconds until the next look at the socket when descriptors are short.
_RESPITE = 1

#: What fits into a socket address; a longer path is cut there.
_PATH_MAX = 107


class Session:
    """One guest's connection."""

    def __init__(self, controller: str, vid: int, number: int) -> None:
        self.vid = vid
        self._number = number
        self._name = f'{controller}s{vid}'
        self.started = False
        #: rings that can be used
        self.max_queues = 0

    def describe(self) -> dict[str, Any]:
        """As ``vhost_get_controllers`` shows it."""
        return {
            'vid': self.vid,
            'id': self._number,
            'name': self._name,
            'started': self.started,
            'max_queues': self.max_queues,
            'inflight_task_cnt': 0,
        }


class Vids:
    """The numbers of connections, the lowest free one first."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self) -> int:
        """A free number."""
        vid = 0
        while vid in self._taken:
            vid += 1
        self._taken.add(vid)
        return vid

    def free(self, vid: int) -> None:
        """A number is free again."""
        self._taken.discard(vid)


class Owner(Protocol):
    """The controller that a socket is of."""

    def serve(self) -> Awaitable[dataplane.Disk] | None:
        """A disk for one guest more, None where no data is kept.

        :class:`~cinder_spdk_vhost.embedded.errors.Errno` from it, or from
        what it returns, where there is none.
        """

    def size(self) -> int:
        """The disk's, in bytes."""

    def started(self, session: Session) -> None:
        """A guest can do I/O."""

    def stopped(self, session: Session) -> None:
        """It can't any more."""

    def disconnected(self, reason: str) -> None:
        """A guest was, and did not want to be."""

    def empty(self) -> None:
        """The last guest has gone."""


class Listener:
    """A vhost-user socket and the guests on it.

    :param path: where the socket stands
    """

    def __init__(self, name: str, path: str, vids: Vids, owner: Owner) -> None:
        self._name = name
        self._path = os.fsdecode(os.fsencode(path)[:_PATH_MAX])
        self._vids = vids
        self._owner = owner
        self._count = 0
        self.sessions: list[Session] = []
        self._relays: set[relay.Relay] = set()
        #: one for each guest until it has gone, listed or not
        self._guests: set[asyncio.Task[None]] = set()
        #: one for each disk that a guest has left
        self._closing: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._socket = self._bind()
        self._open = True
        self._listen()

    def _bind(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.stat(self._path).st_mode):
                raise OSError('something else stands in the way')
            os.unlink(self._path)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.setblocking(False)
            listener.bind(self._path)
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        return listener

    def _listen(self) -> None:
        if self._open:
            self._loop.add_reader(self._socket, self._accept)

    @property
    def in_use(self) -> bool:
        """Whether a guest is connected, or has not quite left."""
        return bool(self._guests)

    def resized(self) -> None:
        """The disk has another size."""
        for connection in self._relays:
            connection.resized()

    def disconnect(self, reason: str) -> None:
        """There is no disk any more."""
        for connection in self._relays:
            connection.stop(reason)

    def _accept(self) -> None:
        try:
            guest, _ = self._socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._loop.remove_reader(self._socket)
                self._loop.call_later(_RESPITE, self._listen)
            return
        guest.setblocking(False)
        task = self._loop.create_task(self._attend(guest))
        self._guests.add(task)
        task.add_done_callback(functools.partial(self._left, guest))

    def _left(self, guest: socket.socket, task: asyncio.Task[None]) -> None:
        guest.close()
        self._guests.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error('a guest of vhost controller %s', self._name)
            LOG.error('unexpected', exc_info=error)
        if not self._guests and self._open:
            self._owner.empty()

    async def _attend(self, guest: socket.socket) -> None:
        """One guest, from its coming to its going."""
        while self._closing:
            # It may be the guest that just left. Its requests must have
            # ended, lest they are done again while they are being done.
            await asyncio.wait(self._closing)
        try:
            coming = self._owner.serve()
            if coming is None:
                await self._simulate(guest)
            else:
                await self._serve(guest, coming)
        except errors.Errno as error:
            self._owner.disconnected(str(error))

    @contextlib.contextmanager
    def _listed(self) -> Iterator[Session]:
        session = Session(self._name, self._vids.take(), self._count)
        self._count += 1
        self.sessions.append(session)
        try:
            yield session
        finally:
            self._stop(session)
            self.sessions.remove(session)
            self._vids.free(session.vid)

    def _start(self, session: Session, rings: int) -> None:
        session.max_queues = max(session.max_queues, rings)
        if not session.started:
            session.started = True
            self._owner.started(session)

    def _stop(self, session: Session) -> None:
        session.max_queues = 0
        if session.started:
            session.started = False
            self._owner.stopped(session)

    async def _simulate(self, guest: socket.socket) -> None:
        """A guest where nobody speaks vhost-user."""
        await asyncio.sleep(_LISTED_AFTER)
        with self._listed() as session:
            start = self._loop.call_later(
                _STARTED_AFTER, self._start, session, 1
            )
            with contextlib.suppress(OSError):
                while await self._loop.sock_recv(guest, 65536):
                    pass
            guest.close()
            start.cancel()
            await asyncio.sleep(_GONE_AFTER)

    async def _serve(
        self, guest: socket.socket, coming: Awaitable[dataplane.Disk]
    ) -> None:
        """A guest with a disk."""
        with self._listed() as session:
            disk = await coming
            connection = relay.Relay(
                guest,
                self._owner.size,
                functools.partial(self._start, session),
                functools.partial(self._stop, session),
            )
            self._relays.add(connection)
            try:
                reason = await connection.run(disk.path)
            finally:
                self._relays.discard(connection)
                try:
                    await self._close_disk(disk)
                finally:
                    connection.close()
            if reason is not None:
                self._owner.disconnected(reason)

    async def _close_disk(self, disk: dataplane.Disk) -> None:
        closing = self._loop.create_task(disk.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await closing

    def close(self) -> None:
        """Stop listening and take the socket away."""
        self._open = False
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for task in self._guests:
            task.cancel()
        with contextlib.suppress(OSError):
            os.unlink(self._path)
