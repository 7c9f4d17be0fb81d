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

The books have no vhost-user of their own. Whoever connects to a
controller's socket is a guest from then on, shown as SPDK shows one: it is
listed soon, started a little later, and gone a little after it left.
"""

import asyncio
from collections.abc import Callable
import contextlib
import os
import socket
import stat
from typing import Any

_LISTED_AFTER = 0.002
_STARTED_AFTER = 0.020
_GONE_AFTER = 0.15

#: What fits into a socket address; a longer path is cut there.
_PATH_MAX = 107


class Session:
    """One guest's connection."""

    def __init__(self, controller: str, vid: int, number: int) -> None:
        self.vid = vid
        self._number = number
        self._name = f'{controller}s{vid}'
        self.started = False

    def describe(self) -> dict[str, Any]:
        """As ``vhost_get_controllers`` shows it."""
        return {
            'vid': self.vid,
            'id': self._number,
            'name': self._name,
            'started': self.started,
            'max_queues': 1,
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


class Listener:
    """A vhost-user socket and the guests on it.

    :param path: where the socket stands
    :param on_start: called with each session that can do I/O
    :param on_stop: called with each session that could
    :param on_empty: called when the last session has gone
    """

    def __init__(
        self,
        name: str,
        path: str,
        vids: Vids,
        on_start: Callable[[Session], None],
        on_stop: Callable[[Session], None],
        on_empty: Callable[[], None],
    ) -> None:
        self._name = name
        self._path = os.fsdecode(os.fsencode(path)[:_PATH_MAX])
        self._vids = vids
        self._on_start = on_start
        self._on_stop = on_stop
        self._on_empty = on_empty
        self._count = 0
        #: connected and not gone, listed or not
        self._connected = 0
        self.sessions: list[Session] = []
        self._loop = asyncio.get_running_loop()
        self._guests: set[socket.socket] = set()
        self._socket = self._listen()
        self._loop.add_reader(self._socket, self._accept)

    def _listen(self) -> socket.socket:
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

    @property
    def in_use(self) -> bool:
        """Whether a guest is connected, or has not quite left."""
        return self._connected > 0

    def _accept(self) -> None:
        try:
            guest, _ = self._socket.accept()
        except OSError:
            return
        guest.setblocking(False)
        self._guests.add(guest)
        self._connected += 1
        self._loop.call_later(_LISTED_AFTER, self._list, guest)

    def _list(self, guest: socket.socket) -> None:
        session = Session(self._name, self._vids.take(), self._count)
        self._count += 1
        self.sessions.append(session)
        start = self._loop.call_later(_STARTED_AFTER, self._start, session)
        self._loop.add_reader(guest, self._read, guest, session, start)

    def _start(self, session: Session) -> None:
        session.started = True
        self._on_start(session)

    def _read(
        self,
        guest: socket.socket,
        session: Session,
        start: asyncio.TimerHandle,
    ) -> None:
        try:
            if guest.recv(65536):
                return  # nobody here speaks vhost-user
        except BlockingIOError:
            return
        except OSError:
            pass
        self._loop.remove_reader(guest)
        self._guests.discard(guest)
        guest.close()
        start.cancel()
        self._loop.call_later(_GONE_AFTER, self._gone, session)

    def _gone(self, session: Session) -> None:
        if session.started:
            session.started = False
            self._on_stop(session)
        self.sessions.remove(session)
        self._vids.free(session.vid)
        self._connected -= 1
        if not self._connected:
            self._on_empty()

    def close(self) -> None:
        """Stop listening and take the socket away."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for guest in self._guests:
            self._loop.remove_reader(guest)
            guest.close()
        self._guests.clear()
        with contextlib.suppress(OSError):
            os.unlink(self._path)
