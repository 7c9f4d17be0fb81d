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

"""The SPDK application behind a back end, and how it is asked."""

from collections.abc import Callable
import threading
from typing import Any, TypeVar

from oslo_log import log as logging

from cinder_spdk_vhost import rpc
from cinder_spdk_vhost.spdk import bdev, lvol

LOG = logging.getLogger(__name__)

T = TypeVar('T')

# Requests that answer only when minutes of work are done (those with a
# deadline of their own) may take this many of the client's 64 places.
MOST_LONG = 16

# A request that changes something, and the look whether it did.
Mutation = tuple[rpc.Request, Callable[[], bool]]


class Target:
    """Asks, and finds out what became of what was asked.

    :ivar url: how messages name the target
    :ivar on_this_host: whether it is here as far as its address tells
    """

    def __init__(self, client: rpc.Client) -> None:
        self._client = client
        self._long = threading.BoundedSemaphore(MOST_LONG)
        self.url = str(client.endpoint)
        self.on_this_host = client.endpoint.loopback

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Have somebody told when the target may have gone away.

        :param tell: must not wait for anything, and not raise
        """
        self._client.when_lost(tell)

    def ask(self, request: rpc.Request[T]) -> T:
        """One request, one round trip."""
        if request.timeout is None:
            return self._client.call(request)
        with self._long:
            return self._client.call(request)

    def find(self, request: rpc.Request[T]) -> T | None:
        """One look-up; None where there is nothing of that name."""
        try:
            return self._client.call(request)
        except rpc.NotFound:
            return None

    def find_all(self, *requests: rpc.Request) -> list[Any]:
        """Several look-ups in one round trip; None for what is not there.

        :raises rpc.RPCError: the first failure that says anything else
        """
        answers = self._client.gather(*requests)
        found: list[Any] = []
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, (rpc.NotFound, *request.absent)) or (
                request.optional and isinstance(answer, rpc.MethodNotFound)
            ):
                found.append(None)
            elif isinstance(answer, rpc.RPCError):
                raise answer
            else:
                found.append(answer)
        return found

    def gather(self, *requests: rpc.Request) -> list[Any]:
        """Several requests in one round trip; errors stand in the list."""
        return self._client.gather(*requests)

    def settle(
        self, mutation: rpc.Request[T], done: Callable[[], bool]
    ) -> None:
        """A mutation whose answer may get lost.

        It is never sent twice. When no answer came, ``done`` looks whether
        the target holds what was asked for.

        :raises rpc.OutcomeUnknown: no answer, and not done as far as can
            be seen; it may still happen
        """
        try:
            self.ask(mutation)
        except rpc.OutcomeUnknown as lost:
            error = self.look(mutation, lost, done)
            if error is not None:
                raise error from None

    @staticmethod
    def look(
        mutation: rpc.Request, lost: rpc.RPCError, done: Callable[[], bool]
    ) -> rpc.RPCError | None:
        """What a lost answer comes to: None where it is done after all."""
        try:
            if done():
                LOG.info(
                    'The answer to %s was lost; it is done', mutation.method
                )
                return None
        except rpc.RPCError as e:
            LOG.warning(
                'The answer to %(method)s was lost, and so was the look for '
                'its outcome: %(error)s',
                {'method': mutation.method, 'error': e},
            )
        return lost

    def settle_all(self, *mutations: Mutation) -> None:
        """Several that don't depend on each other, in one round trip.

        :raises rpc.RPCError: the first failure; the others were sent
        """
        for error in self.settle_each(*mutations):
            if error is not None:
                raise error

    def settle_each(self, *mutations: Mutation) -> list[rpc.RPCError | None]:
        """The same, for who has to know what became of each of them."""
        if not mutations:
            return []
        answers = self._client.gather(*(request for request, _ in mutations))
        errors: list[rpc.RPCError | None] = []
        for answer, (request, done) in zip(answers, mutations, strict=True):
            error = answer if isinstance(answer, rpc.RPCError) else None
            if isinstance(error, rpc.OutcomeUnknown):
                error = self.look(request, error, done)
            errors.append(error)
        return errors

    def exists(self, path: str) -> bool:
        """Whether there is an lvol ``STORE/NAME``."""
        return self.find(bdev.get_lvol(path)) is not None

    def gone(self, path: str) -> bool:
        """Whether there really is no lvol ``STORE/NAME``.

        A store that is still loading shows its lvols one after another, for
        minutes after an unclean stop: wait for that, then look again.
        """
        if self.exists(path):
            return False
        self.ask(lvol.wait_for_examine())
        return not self.exists(path)
