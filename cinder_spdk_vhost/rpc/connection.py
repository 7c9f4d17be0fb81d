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

"""One connection to a target, shared by all threads.

Requests are told apart by their ids, so any number of threads have theirs
under way at once. A thread sends its own requests and sleeps; one reader
thread a connection hands the answers out. Everything here is plain sockets
and threading, which eventlet patches as a whole.
"""

from collections.abc import Iterator, Sequence
import json
import os
import socket
import threading
import time
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost.rpc import framing
from cinder_spdk_vhost.rpc.pending import Call, Fault, Group

LOG = logging.getLogger(__name__)

# With 1,000 requests in flight SPDK answered a part of them with "Cannot
# allocate memory"; 64 are served as fast.
WINDOW = 64
# So many requests that nobody waits for any more may fill the window before
# the connection is replaced. Some requests are never answered (deleting a
# vhost controller under a guest that stays): without a limit they would
# close the window for good, little by little.
MAX_ABANDONED = WINDOW // 2

_CHUNK = 64 * 1024
# The reader waits for ever, but on a socket with a timeout: the flag that
# makes a socket non-blocking is shared with the sender's duplicate.
_FOREVER = 24 * 3600.0


class Connection:
    """A connected socket with a window of :data:`WINDOW` requests.

    :param sock: the connected socket; belongs to the connection from now on
    :param name: what to call the target in messages
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.fault: Fault | None = None
        self._name = name
        self._pid = os.getpid()
        self._retired = False
        self._abandoned = 0
        self._waiting = 0
        # By id; None is a request that nobody waits for any more. It keeps
        # its place in the window, because the target still has it.
        self._calls: dict[int, Call | None] = {}
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._sending = threading.Lock()
        self._in = sock
        self._out = sock.dup()
        self._in.settimeout(_FOREVER)
        self._reader = threading.Thread(
            target=self._read, name=f'spdk-rpc {name}', daemon=True
        )
        self._reader.start()

    @property
    def usable(self) -> bool:
        """Whether new requests may go here (never in a forked child)."""
        return (
            self.fault is None
            and not self._retired
            and self._pid == os.getpid()
        )

    @property
    def closed(self) -> bool:
        return not self._reader.is_alive()

    def close(self, why: str) -> None:
        """Give up what is under way, and wait for the reader to end."""
        self._break(Fault(why))
        if self._reader is not threading.current_thread():
            self._reader.join()

    def exchange(self, calls: Sequence[Call]) -> None:
        """Send the calls and wait for their answers, deadlines or the end.

        Afterwards each call has a reply, or a fault if the connection broke
        after it was sent, or neither: then it is overdue, or was not sent
        because this connection is not usable any more.
        """
        group = Group(len(calls))
        for call in calls:
            call.group = group
            call.fault = None
        place = 0
        while place < len(calls):
            taken = self._take(calls, place)
            if taken:
                self._send(calls[place : place + taken])
            elif not self.usable:
                break
            else:  # past its deadline
                taken = 1
                self._leave_out(group, 1)
            place += taken
        self._leave_out(group, len(calls) - place)
        self._wait(group, calls[:place])

    def _leave_out(self, group: Group, count: int) -> None:
        if count:
            with self._lock:
                group.settle(count)

    # The window

    def _take(self, calls: Sequence[Call], place: int) -> int:
        """Wait for room; put as many calls from place on in as fit.

        Nobody overtakes those who wait. Each freed place wakes one of them,
        and who leaves room behind wakes the next.

        :returns: their number; 0 if the deadline of the first has passed or
            the connection is not usable any more
        """
        deadline = calls[place].deadline
        with self._room:
            queued = self._waiting > 0
            while self.usable and (queued or len(self._calls) >= WINDOW):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._waiting += 1
                self._room.wait(left)
                self._waiting -= 1
                queued = False
            count = 0
            if self.usable and time.monotonic() < deadline:
                room = max(WINDOW - len(self._calls), 0)
                for call in calls[place : place + room]:
                    self._calls[call.ident] = call
                    count += 1
            self._wake_next()
            return count

    def _wake_next(self) -> None:
        if self._waiting and len(self._calls) < WINDOW:
            self._room.notify()

    # The way out

    def _send(self, calls: Sequence[Call]) -> None:
        """Send calls that have their places, in one go.

        Those that did not leave lose their places again.
        """
        deadline = min(call.deadline for call in calls)
        left = 0
        wait = max(deadline - time.monotonic(), 0)
        if self._sending.acquire(timeout=wait):
            try:
                left = self._transmit(
                    b''.join(call.body for call in calls), deadline
                )
            finally:
                self._sending.release()
        begin, stayed = 0, []
        for call in calls:
            call.sent = begin < left
            if not call.sent:
                stayed.append(call)
            begin += len(call.body)
        if not stayed:
            return
        with self._lock:
            for call in stayed:
                if self._calls.pop(call.ident, None) is not None:
                    assert call.group is not None
                    call.group.settle()
                call.fault = None  # it was not lost: it never left
            self._wake_next()

    def _transmit(self, data: bytes, deadline: float) -> int:
        """Send; how many bytes may have reached the target."""
        view, done, fault = memoryview(data), 0, ''
        try:
            while self.fault is None and done < len(data):
                wait = max(deadline - time.monotonic(), 0.001)
                self._out.settimeout(wait)
                done += self._out.send(view[done:])
        except TimeoutError:
            # The target reads nothing. Before the first byte that is this
            # call's affair alone; half a request can't be taken back.
            fault = 'the target stopped reading' if done else ''
        except OSError as error:
            fault = error.strerror or str(error)
        if fault:
            self._break(Fault(fault))
        return done

    # Waiting

    def _wait(self, group: Group, calls: Sequence[Call]) -> None:
        while True:
            pending = [call for call in calls if call.sent and call.pending]
            if not pending:
                return
            deadline = min(call.deadline for call in pending)
            if group.done.wait(max(deadline - time.monotonic(), 0)):
                return
            now = time.monotonic()
            with self._lock:
                for call in pending:
                    if call.pending and call.deadline <= now:
                        self._abandon(call)

    def _abandon(self, call: Call) -> None:
        if self._calls.get(call.ident) is None:
            return
        self._calls[call.ident] = None
        self._abandoned += 1
        assert call.group is not None
        call.group.settle()
        if self._abandoned >= MAX_ABANDONED and not self._retired:
            LOG.warning(
                '%s: %d requests were not answered in time, going on with '
                'a new connection',
                self._name,
                self._abandoned,
            )
            self._retired = True
            self._room.notify_all()
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        """Hang up a retired connection that nobody waits on."""
        if self._retired and len(self._calls) == self._abandoned:
            _shut(self._in)

    # The way in

    def _read(self) -> None:
        fault = Fault('the connection was closed')
        splitter = framing.Splitter()
        try:
            while True:
                try:
                    chunk = self._in.recv(_CHUNK)
                except TimeoutError:
                    continue
                if not chunk:
                    break
                self._take_in(splitter, chunk)
            text = 'the target closed the connection'
            if splitter.partial:
                text += ' in the middle of an answer'
            fault = Fault(text)
        except (ValueError, RecursionError) as error:
            # A JSON error's text gives a position, never the data.
            fault = Fault(f'what came back is not JSON-RPC: {error}', True)
        except OSError as error:
            fault = Fault(error.strerror or str(error))
        finally:
            self._break(fault)
            self._in.close()
            with self._sending:
                self._out.close()

    def _take_in(self, splitter: framing.Splitter, chunk: bytes) -> None:
        replies: list[Any] = []
        try:
            for text in splitter.feed(chunk):
                replies.append(json.loads(text))
        finally:
            # Good answers count, whatever comes after them.
            if replies:
                self._hand_out(replies)

    def _hand_out(self, replies: list[Any]) -> None:
        with self._lock:
            for reply in _flat(replies):
                ident = reply.get('id') if isinstance(reply, dict) else None
                if type(ident) is not int or ident not in self._calls:
                    LOG.debug('%s: an answer to nothing under way', self._name)
                    continue
                call = self._calls.pop(ident)
                if call is None:
                    self._abandoned -= 1
                    LOG.debug(
                        '%s: late answer to id %d dropped', self._name, ident
                    )
                    continue
                call.reply = reply
                assert call.group is not None
                call.group.settle()
            self._wake_next()
            self._end_if_idle()

    def _break(self, fault: Fault) -> None:
        """Make the connection unusable; who waits on it learns why."""
        with self._lock:
            if self.fault is not None:
                return
            self.fault = fault
            for call in self._calls.values():
                if call is not None:
                    call.fault = fault
                    assert call.group is not None
                    call.group.settle()
            self._calls.clear()
            self._room.notify_all()
        _shut(self._in)


def _flat(replies: list[Any]) -> Iterator[Any]:
    """The answers one by one, those of batches too."""
    for reply in replies:
        if isinstance(reply, list):
            yield from reply
        else:
            yield reply


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is gone already
        LOG.debug('the socket was closed already')
