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

"""The client: requests in, values or typed errors out."""

from collections.abc import Callable, Sequence
import itertools
import logging as levels
import threading
import time
from typing import Any, Protocol, Self, TypeVar, cast

from oslo_log import log as logging

from cinder_spdk_vhost.rpc import errors
from cinder_spdk_vhost.rpc.endpoint import Endpoint
from cinder_spdk_vhost.rpc.http import HTTPTransport
from cinder_spdk_vhost.rpc.pending import MAX_REQUEST, Call
from cinder_spdk_vhost.rpc.request import Request
from cinder_spdk_vhost.rpc.stream import StreamTransport

LOG = logging.getLogger(__name__)

T = TypeVar('T')


class Transport(Protocol):
    """Carries calls to a target."""

    when_lost: Callable[[], None]

    def exchange(self, calls: Sequence[Call]) -> None:
        """Send the calls together, and settle every one of them."""

    def close(self) -> None:
        """Hang up for good."""


class Client:
    """JSON-RPC to one target, for any number of threads.

    Connects with the first call, and again with the next call after a loss.

    :ivar endpoint: where the target is
    :ivar timeout: seconds an answer may take when the request doesn't say
    """

    def __init__(
        self, endpoint: Endpoint, transport: Transport, timeout: float = 60.0
    ) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self._transport = transport
        self._idents = itertools.count(1)
        self._lock = threading.Lock()
        self._round_trips = 0

    @property
    def round_trips(self) -> int:
        """How many calls and gathers were made so far."""
        return self._round_trips

    def call(self, request: Request[T]) -> T:
        """Ask one thing.

        :returns: what the request makes of the ``result`` member
        :raises TargetError: the target said no
        :raises ConnectionFailed: the target can't have the request
        :raises OutcomeUnknown: a mutation was sent, its answer is lost
        :raises ConnectionLost: a read's answer is lost
        :raises CallTimeout: a read was not answered within its deadline
        :raises ProtocolError: what came back is no answer to the request
        """
        outcome = self._exchange((request,))[0]
        if isinstance(outcome, errors.RPCError):
            raise outcome
        return cast(T, outcome)

    def gather(self, *requests: Request[Any]) -> list[Any]:
        """Ask things that don't depend on each other, in one round trip.

        The target runs them at the same time, in no order.

        :returns: for each request, in their order, its parsed result or the
            RPCError that :meth:`call` would have raised
        """
        return self._exchange(requests) if requests else []

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Have somebody told when the target may have gone away.

        On a socket that is at once, whether or not anybody asks for
        something; over HTTP, when a request got no answer.

        :param tell: must not wait for anything, and not raise
        """
        self._transport.when_lost = tell

    def close(self) -> None:
        """Hang up; later calls fail.

        Calls under way fail at once on a socket; over HTTP they come to
        their end first, within their deadlines.
        """
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f'<Client {self.endpoint}>'

    def _exchange(self, requests: Sequence[Request[Any]]) -> list[Any]:
        start = time.monotonic()
        calls = [
            Call(request, next(self._idents), start, self.timeout)
            for request in requests
        ]
        with self._lock:
            self._round_trips += 1
        fit = [call for call in calls if len(call.body) <= MAX_REQUEST]
        if len(fit) < len(calls):
            self._refuse_large(calls)
        if fit:
            self._transport.exchange(fit)
        if LOG.isEnabledFor(levels.DEBUG):
            _log(calls, start)
        return [call.outcome for call in calls]

    def _refuse_large(self, calls: Sequence[Call]) -> None:
        for call in calls:
            if len(call.body) > MAX_REQUEST:
                call.never_left(
                    str(self.endpoint),
                    f'the request has {len(call.body)} bytes, SPDK takes at '
                    f'most {MAX_REQUEST}',
                )


def open_client(endpoint: Endpoint, timeout: float = 60.0) -> Client:
    """A client for the endpoint; nothing is sent yet.

    :param timeout: seconds an answer may take when the request doesn't say
    """
    transport: Transport
    if endpoint.scheme in ('http', 'https'):
        transport = HTTPTransport(endpoint)
    else:
        transport = StreamTransport(endpoint)
    return Client(endpoint, transport, timeout)


def _log(calls: Sequence[Call], start: float) -> None:
    # Never parameters, results or texts: some methods carry keys.
    took = (time.monotonic() - start) * 1000
    for call in calls:
        outcome = call.outcome
        said = 'ok'
        if isinstance(outcome, errors.RPCError):
            said = type(outcome).__name__
        LOG.debug(
            'RPC %s id %d: %s, %.1f ms',
            call.request.method,
            call.ident,
            said,
            took,
        )
