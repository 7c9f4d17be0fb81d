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

"""JSON-RPC over a stream: SPDK's own unix and TCP sockets."""

from collections.abc import Callable, Sequence
import socket
import threading
import time

from oslo_log import log as logging

from cinder_spdk_vhost.rpc.connection import Connection
from cinder_spdk_vhost.rpc.endpoint import Endpoint
from cinder_spdk_vhost.rpc.pending import Call, why
from cinder_spdk_vhost.rpc.window import WINDOW

LOG = logging.getLogger(__name__)

# A call goes to so many connections at most. A target that accepts and hangs
# up (SPDK has 64 connections) must not keep its callers dialling.
_CONNECTIONS = 3
# Between attempts while the queue of a listening unix socket is full.
_BACKLOG_PAUSE = 0.01


class _NoConnection(Exception):
    pass


class StreamTransport:
    """One persistent connection, made when needed and again after a loss.

    :ivar when_lost: called when a connection has ended
    """

    when_lost: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._where = str(endpoint)
        self._lock = threading.Lock()
        self._dialling = threading.Lock()
        self._closed = False
        self._current: Connection | None = None
        self._connections: list[Connection] = []  # the retired ones too

    def exchange(self, calls: Sequence[Call]) -> None:
        """Send the calls together; settle each of them."""
        todo = list(calls)
        for attempt in range(1, _CONNECTIONS + 1):
            try:
                connection = self._connection(todo)
            except _NoConnection as error:
                for call in todo:
                    call.never_left(self._where, str(error))
                return
            connection.exchange(todo)
            last = attempt == _CONNECTIONS
            todo = [
                call
                for call in todo
                if not self._settle(call, connection, last)
            ]
            if not todo:
                return

    def close(self) -> None:
        """Hang up; calls under way fail, and so do later ones."""
        with self._lock:
            self._closed = True
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close('the client was closed')

    def _ended(self) -> None:
        if not self._closed:
            self.when_lost()

    def _settle(self, call: Call, connection: Connection, last: bool) -> bool:
        """Settle a call after an exchange, unless it should go again."""
        if call.reply is not None:
            call.answered(call.reply)
        elif call.sent:
            if call.fault is None:
                call.overdue(self._where)
            elif last or not call.again(call.fault):
                call.lost(self._where, call.fault)
            else:
                return False
        elif time.monotonic() >= call.deadline:
            call.never_left(
                self._where,
                f'not sent within {call.timeout:g} s: the {WINDOW} places for '
                'requests in flight stayed taken',
            )
        elif last:
            fault = connection.fault
            call.never_left(
                self._where, fault.text if fault else 'no connection'
            )
        else:
            return False
        return True

    def _connection(self, calls: Sequence[Call]) -> Connection:
        current = self._current
        if current is not None and current.usable:
            return current
        deadline = max(call.deadline for call in calls)
        if not self._dialling.acquire(timeout=_left(deadline)):
            raise _NoConnection('no connection in time')
        try:
            current = self._current
            if current is not None and current.usable:
                return current
            return self._connect(deadline)
        finally:
            self._dialling.release()

    def _connect(self, deadline: float) -> Connection:
        if self._closed:
            raise _NoConnection('the client is closed')
        try:
            sock = _dial(self._endpoint, deadline)
        except TimeoutError:
            raise _NoConnection('no connection in time') from None
        except OSError as error:
            raise _NoConnection(why(error)) from error
        with self._lock:
            if self._closed:
                sock.close()
                raise _NoConnection('the client is closed')
            connection = Connection(sock, self._where, self._ended)
            self._connections = [
                other for other in self._connections if not other.closed
            ]
            self._connections.append(connection)
            self._current = connection
        LOG.debug('%s: connected', self._where)
        return connection


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0)


def _dial(endpoint: Endpoint, deadline: float) -> socket.socket:
    if endpoint.scheme == 'unix':
        return _dial_unix(endpoint.path, deadline)
    if not _left(deadline):
        raise TimeoutError
    sock = socket.create_connection(
        (endpoint.host, endpoint.port), timeout=_left(deadline) or 0.001
    )
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A host that went away without a word is noticed after half a minute,
    # not at the next answer's deadline.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return sock


def _dial_unix(path: str, deadline: float) -> socket.socket:
    while _left(deadline):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(_left(deadline) or 0.001)
        try:
            sock.connect(path)
        except BlockingIOError:  # the listener's queue is full
            sock.close()
            time.sleep(_BACKLOG_PAUSE)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise TimeoutError
