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

"""What is under way on a connection: at most so much, found by id."""

from collections.abc import Iterable, Sequence
import threading
import time
from typing import Any

from oslo_log import log as logging

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


class Window:
    """The calls of one connection that have no answer yet.

    :param name: what to call the target in messages
    :ivar fault: why the connection broke, None while it didn't
    :ivar retired: no new calls may come, those under way may end
    """

    def __init__(self, name: str) -> None:
        self.fault: Fault | None = None
        self.retired = False
        self._name = name
        self._abandoned = 0
        self._waiting = 0
        # By id; None is a request that nobody waits for any more. It keeps
        # its place, because the target still has it.
        self._calls: dict[int, Call | None] = {}
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)

    @property
    def open(self) -> bool:
        """Whether new calls may come."""
        return self.fault is None and not self.retired

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer."""
        with self._lock:
            return len(self._calls) == self._abandoned

    def take(self, calls: Sequence[Call], place: int) -> int:
        """Wait for room; put as many calls from place on in as fit.

        Nobody overtakes those who wait. Each freed place wakes one of them,
        and who leaves room behind wakes the next.

        :returns: their number; 0 if the deadline of the first has passed or
            the window is not open any more
        """
        deadline = calls[place].deadline
        with self._lock:
            queued = self._waiting > 0
            while self.open and (queued or len(self._calls) >= WINDOW):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._waiting += 1
                self._room.wait(left)
                self._waiting -= 1
                queued = False
            count, now = 0, time.monotonic()
            room = WINDOW - len(self._calls) if self.open else 0
            for call in calls[place : place + max(room, 0)]:
                if call.deadline <= now:
                    break
                self._calls[call.ident] = call
                count += 1
            self._wake_next()
            return count

    def put_back(self, calls: Iterable[Call]) -> None:
        """Give the places of calls up that did not leave after all."""
        with self._lock:
            for call in calls:
                if self._calls.pop(call.ident, None) is not None:
                    _settle(call)
                call.fault = None  # it was not lost: it never left
            self._wake_next()

    def leave_out(self, group: Group, count: int) -> None:
        """Tell a group that some of its calls will not come."""
        if count:
            with self._lock:
                group.settle(count)

    def abandon(self, calls: Iterable[Call]) -> None:
        """Nobody waits for these any more; they keep their places."""
        with self._lock:
            for call in calls:
                if self._calls.get(call.ident) is not None:
                    self._calls[call.ident] = None
                    self._abandoned += 1
                    _settle(call)
            if self._abandoned >= MAX_ABANDONED and self.open:
                LOG.warning(
                    '%s: %d requests were not answered in time, going on '
                    'with a new connection',
                    self._name,
                    self._abandoned,
                )
                self.retired = True
                self._room.notify_all()

    def hand_out(self, replies: Iterable[Any]) -> None:
        """Give the answers to those who wait for them."""
        with self._lock:
            for reply in replies:
                self._hand_out(reply)
            self._wake_next()

    def _hand_out(self, reply: Any) -> None:
        ident = reply.get('id') if isinstance(reply, dict) else None
        # 1.0 and true are keys of the same entry as 1
        if type(ident) is not int or ident not in self._calls:
            LOG.debug('%s: an answer to nothing under way', self._name)
            return
        call = self._calls.pop(ident)
        if call is None:
            self._abandoned -= 1
            LOG.debug('%s: late answer to id %d dropped', self._name, ident)
            return
        call.reply = reply
        _settle(call)

    def close(self, fault: Fault) -> None:
        """The connection broke; who waits on it learns why."""
        with self._lock:
            if self.fault is not None:
                return
            self.fault = fault
            for call in self._calls.values():
                if call is not None:
                    call.fault = fault
                    _settle(call)
            self._calls.clear()
            self._abandoned = 0
            self._room.notify_all()

    def _wake_next(self) -> None:
        if self._waiting and len(self._calls) < WINDOW:
            self._room.notify()


def _settle(call: Call) -> None:
    assert call.group is not None
    call.group.settle()
