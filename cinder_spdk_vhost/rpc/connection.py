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

from collections.abc import Callable, Iterator, Sequence
import json
import os
import socket
import threading
import time
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost.rpc import framing
from cinder_spdk_vhost.rpc.pending import Call, Fault, Group, why
from cinder_spdk_vhost.rpc.window import Window

LOG = logging.getLogger(__name__)

_CHUNK = 64 * 1024
# The reader waits for ever, but on a socket with a timeout: the flag that
# makes a socket non-blocking is shared with the sender's duplicate.
_FOREVER = 24 * 3600.0


class Connection:
    """A connected socket and the calls that are under way on it.

    :param sock: the connected socket; belongs to the connection from now on
    :param name: what to call the target in messages
    :param ended: told, by the reader, that it is over
    """

    def __init__(
        self, sock: socket.socket, name: str, ended: Callable[[], None]
    ) -> None:
        self._window = Window(name)
        self._ended = ended
        self._pid = os.getpid()
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
        return self._window.open and self._pid == os.getpid()

    @property
    def fault(self) -> Fault | None:
        """Why it broke."""
        return self._window.fault

    @property
    def closed(self) -> bool:
        """Whether it is over, to the last thread."""
        return not self._reader.is_alive()

    def close(self, why: str) -> None:
        """Give up what is under way, and wait for the reader to end.

        In a forked child it does nothing: the socket is the parent's.
        """
        if self._pid != os.getpid():
            return
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
            taken = self._window.take(calls, place)
            if taken:
                self._send(calls[place : place + taken])
            elif not self.usable:
                break
            else:  # past its deadline
                taken = 1
                self._window.leave_out(group, 1)
            place += taken
        self._window.leave_out(group, len(calls) - place)
        self._wait(group, calls[:place])

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
        begin = 0
        for call in calls:
            call.sent = begin < left
            begin += len(call.body)
        if left < begin:
            self._window.put_back(call for call in calls if not call.sent)

    def _transmit(self, data: bytes, deadline: float) -> int:
        """Send; how many bytes may have reached the target."""
        view, done, fault = memoryview(data), 0, ''
        try:
            while self._window.fault is None and done < len(data):
                wait = max(deadline - time.monotonic(), 0.001)
                self._out.settimeout(wait)
                done += self._out.send(view[done:])
        except TimeoutError:
            # The target reads nothing. Before the first byte that is this
            # call's affair alone; half a request can't be taken back.
            fault = 'the target stopped reading' if done else ''
        except OSError as error:
            fault = why(error)
        if fault:
            self._break(Fault(fault))
        return done

    def _wait(self, group: Group, calls: Sequence[Call]) -> None:
        waiting = [call for call in calls if call.sent]
        while waiting:
            deadline = min(call.deadline for call in waiting)
            if group.done.wait(max(deadline - time.monotonic(), 0)):
                return
            now = time.monotonic()
            self._window.abandon(
                call for call in waiting if call.deadline <= now
            )
            self._end_if_idle()
            waiting = [
                call
                for call in waiting
                if call.pending and call.deadline > now
            ]

    def _end_if_idle(self) -> None:
        """Hang up a retired connection that nobody waits on."""
        if self._window.retired and self._window.idle:
            _shut(self._in)

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
            fault = Fault(why(error))
        finally:
            self._break(fault)
            self._in.close()
            with self._sending:
                self._out.close()
            self._ended()

    def _take_in(self, splitter: framing.Splitter, chunk: bytes) -> None:
        replies: list[Any] = []
        try:
            for text in splitter.feed(chunk):
                replies.append(json.loads(text))
        finally:
            # Good answers count, whatever comes after them.
            self._window.hand_out(_flat(replies))
            self._end_if_idle()

    def _break(self, fault: Fault) -> None:
        """Make the connection unusable; who waits on it learns why."""
        self._window.close(fault)
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
