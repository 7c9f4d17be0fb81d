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

"""The socket: connections, and the poll that serves them.

SPDK looks at its RPC sockets every 4 ms, accepts at most one connection and
reads at most what fits into a connection's buffer each time. All that is
read in one poll is run, then saved together, then answered.
"""

import asyncio
import logging
import math
import socket
from typing import Any

from cinder_spdk_vhost.embedded import dispatch, framing

LOG = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
_BACKLOG = 512


class Connection:
    """One client."""

    def __init__(self, server: 'Server', client: socket.socket) -> None:
        self.outstanding = 0
        self.closed = False
        self._server = server
        self._socket = client
        self._buffer = bytearray()
        self._answers: list[str] = []
        self._unsent = b''
        self._ended = False
        self.await_data()

    def await_data(self) -> None:
        """Take part in the poll after more has arrived."""
        if not self.closed and not self._ended:
            self._server.loop.add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        self._server.loop.remove_reader(self._socket)
        self._server.serve_next(self)

    def receive(self) -> tuple[list[Any], bool]:
        """What has arrived: values, and whether the rest is no JSON."""
        room = framing.BUFFER_SIZE - len(self._buffer)
        try:
            data = self._socket.recv(room)
        except (BlockingIOError, InterruptedError):
            return [], False
        except OSError:
            return [], True
        if not data:
            # The client is done, or the buffer is full of one request.
            self._ended = True
            return [], False
        self._buffer += data
        values, taken, broken = framing.split(self._buffer)
        del self._buffer[:taken]
        return values, broken

    def answer(self, text: str) -> None:
        """Send a line with the next flush."""
        if not self.closed:
            self._answers.append(text)
            self._server.has_answers(self)

    def flush(self) -> None:
        """Send what there is to send."""
        if self._answers:
            self._answers.append('')
            self._unsent += '\n'.join(self._answers).encode()
            self._answers.clear()
        self._send()
        self._close_if_done()

    def _send(self) -> None:
        while self._unsent and not self.closed:
            try:
                sent = self._socket.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                self._server.loop.add_writer(self._socket, self._writable)
                return
            except OSError:
                self.close()
                return
            self._unsent = self._unsent[sent:]

    def _writable(self) -> None:
        self._server.loop.remove_writer(self._socket)
        self._send()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._ended and not self.outstanding and not self._unsent:
            self.close()

    def close(self) -> None:
        """Hang up; answers that are still due are lost."""
        if not self.closed:
            self.closed = True
            self._server.loop.remove_reader(self._socket)
            self._server.loop.remove_writer(self._socket)
            self._socket.close()
            self._server.gone(self)


class Server:
    """The listening socket and its connections.

    :param target: what the methods work on; saves before answers leave
    :param period: seconds between two polls; 0: as soon as anything comes
    """

    def __init__(
        self, listener: socket.socket, target: Any, period: float
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._listener = listener
        self._target = target
        self._period = period
        self._start = self.loop.time()
        self._connections: set[Connection] = set()
        self._ready: dict[Connection, None] = {}
        self._answering: dict[Connection, None] = {}
        self._scheduled = False
        self._accepting = False
        self._dispatcher = dispatch.Dispatcher(target, self._flush_soon)
        self._flushing = False
        self._closing = False
        self._await_connection()

    def _await_connection(self) -> None:
        if self._closing or self._accepting:
            return
        if len(self._connections) < MAX_CONNECTIONS:
            self.loop.add_reader(self._listener, self._connectable)

    def _connectable(self) -> None:
        self.loop.remove_reader(self._listener)
        self._accepting = True
        self._schedule()

    def serve_next(self, connection: Connection) -> None:
        """Look at a connection in the next poll."""
        self._ready[connection] = None
        self._schedule()

    def has_answers(self, connection: Connection) -> None:
        """Something is to be sent after the next save."""
        self._answering[connection] = None

    def gone(self, connection: Connection) -> None:
        """A connection is closed; there is room for another."""
        self._connections.discard(connection)
        self._ready.pop(connection, None)
        self._answering.pop(connection, None)
        self._await_connection()

    def _schedule(self) -> None:
        if self._scheduled:
            return
        self._scheduled = True
        if not self._period:
            self.loop.call_soon(self._poll)
            return
        since = self.loop.time() - self._start
        polls = math.floor(since / self._period) + 1
        self.loop.call_at(self._start + polls * self._period, self._poll)

    def _poll(self) -> None:
        self._scheduled = False
        ready, self._ready = self._ready, {}
        if self._accepting:
            self._accepting = False
            self._accept(ready)
        served = []
        for connection in ready:
            if connection.closed:
                continue
            values, broken = connection.receive()
            for value in values:
                self._dispatcher.take(connection, value)
            if broken:
                connection.close()
            else:
                served.append(connection)
        self._dispatcher.end_poll()
        self._save_and_send(served)
        for connection in served:
            connection.await_data()

    def _accept(self, ready: dict[Connection, None]) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            client = None
        if client is not None:
            client.setblocking(False)
            connection = Connection(self, client)
            self._connections.add(connection)
            self.loop.remove_reader(client)
            ready[connection] = None
        self._await_connection()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._dispatcher.end_poll()
        self._save_and_send([])

    def _save_and_send(self, served: list[Connection]) -> None:
        self._target.save()
        answering, self._answering = self._answering, {}
        for connection in served:
            answering[connection] = None
        for connection in answering:
            connection.flush()

    def close(self) -> None:
        """Hang up on everybody."""
        self._closing = True
        self.loop.remove_reader(self._listener)
        self._listener.close()
        for connection in tuple(self._connections):
            connection.close()
