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

"""A request on its way, and what became of it."""

import errno
import json
import os
import threading
import time
from typing import Any, NamedTuple

from cinder_spdk_vhost.rpc import errors
from cinder_spdk_vhost.rpc.request import Request

# The target's receive buffer (SPDK_JSONRPC_RECV_BUF_SIZE). What is larger
# makes it close the connection, on everybody who shares it.
MAX_REQUEST = 256 * 1024

_encode = json.JSONEncoder(separators=(',', ':'), allow_nan=False).encode


class Fault(NamedTuple):
    """Why a connection is of no use any more."""

    text: str
    garbage: bool = False  # the peer sent what is not JSON-RPC


def why(error: OSError) -> str:
    """What went wrong, in words; eventlet gives names like ECONNREFUSED."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


class Call:
    """One request, its deadline, and its fate.

    A transport settles it by filling :attr:`outcome`.

    :ivar ident: the request's id, never used twice
    :ivar deadline: on the monotonic clock, in seconds
    :ivar body: the request as bytes
    :ivar sent: whether the target may have the request
    :ivar reply: the answer, once it came
    :ivar fault: what broke the connection that the request was on
    :ivar first_fault: of a read that is on its way again: what broke the
        connection that it was first sent on
    :ivar outcome: the parsed result or the RPCError
    """

    __slots__ = (
        'body',
        'deadline',
        'fault',
        'first_fault',
        'group',
        'ident',
        'outcome',
        'reply',
        'request',
        'sent',
        'timeout',
    )

    def __init__(
        self, request: Request[Any], ident: int, now: float, timeout: float
    ) -> None:
        self.request = request
        self.ident = ident
        self.timeout = timeout if request.timeout is None else request.timeout
        self.deadline = now + self.timeout
        message: dict[str, Any] = {
            'jsonrpc': '2.0',
            'id': ident,
            'method': request.method,
        }
        if request.params is not None:
            message['params'] = dict(request.params)
        self.body = _encode(message).encode()
        self.sent = False
        self.reply: dict[str, Any] | None = None
        self.fault: Fault | None = None
        self.group: Group | None = None
        self.first_fault: Fault | None = None
        self.outcome: Any = None

    @property
    def pending(self) -> bool:
        return self.reply is None and self.fault is None

    def answered(self, reply: dict[str, Any]) -> None:
        """Settle with the target's answer."""
        method = self.request.method
        if reply.get('error') is not None:
            self.outcome = errors.from_answer(method, reply['error'])
        elif 'result' not in reply:
            self.outcome = errors.ProtocolError(
                method, 'the answer has neither a result nor an error'
            )
        else:
            self._parsed(reply['result'])

    def _parsed(self, result: Any) -> None:
        try:
            self.outcome = self.request.parse(result)
        except errors.RPCError as error:
            self.outcome = error
        except Exception as error:  # whatever a parser meets with
            self.outcome = errors.ProtocolError(
                self.request.method,
                f'the result is not what is expected ({error!r})',
            )
            self.outcome.__cause__ = error

    def again(self, fault: Fault) -> bool:
        """Whether to send it once more after its connection broke.

        Once, and reads only: a persistent connection that a restarted
        target has closed is no reason to fail a read.
        """
        if (
            self.request.mutates
            or fault.garbage
            or self.first_fault is not None
            or time.monotonic() >= self.deadline
        ):
            return False
        self.first_fault = fault
        self.sent = False
        return True

    def never_left(
        self,
        where: str,
        why: str,
        kind: type[errors.ConnectionFailed] = errors.ConnectionFailed,
    ) -> None:
        """Settle: the target can't have the request."""
        if self.first_fault is not None:
            self.lost(where, self.first_fault)
        else:
            self.outcome = kind(self.request.method, f'{where}: {why}')

    def overdue(self, where: str) -> None:
        """Settle: sent, and no answer within the deadline."""
        self._lost(
            errors.CallTimeout,
            f'{where}: no answer within {self.timeout:g} s',
        )

    def lost(self, where: str, fault: Fault) -> None:
        """Settle: sent, and the connection broke before the answer."""
        kind: type[errors.TransportError] = errors.ConnectionLost
        if fault.garbage:
            kind = errors.ProtocolError
        self._lost(kind, f'{where}: {fault.text}')

    def _lost(self, kind: type[errors.TransportError], why: str) -> None:
        if self.request.mutates:
            kind = errors.OutcomeUnknown
            why += '; whether it was done is unknown'
        self.outcome = kind(self.request.method, why)


class Group:
    """Calls that one thread waits for together.

    :attr:`left` is guarded by the lock of the connection that they are on.
    """

    __slots__ = ('done', 'left')

    def __init__(self, left: int) -> None:
        self.left = left
        self.done = threading.Event()

    def settle(self, count: int = 1) -> None:
        self.left -= count
        if self.left <= 0:
            self.done.set()
