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

"""The transports and listeners that the portals of a back end need."""

import functools

from cinder_spdk_vhost import exceptions, rpc
from cinder_spdk_vhost.export import portals
from cinder_spdk_vhost.operations import flows, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import nvmf

_LOCK = 'nvmf-transports'


class Listeners:
    """Makes what hosts connect to.

    :param where: the portals
    """

    def __init__(
        self,
        target: spdk_target.Target,
        where: tuple[portals.Portal, ...],
    ) -> None:
        self._target = target
        self._wanted = [
            nvmf.Listener(
                portal.transport, portal.family, portal.address, portal.port
            )
            for portal in where
        ]

    def make_transports(self, present: frozenset[str] | None) -> None:
        """Make the missing ones, once: SPDK would make one twice.

        :param present: those that were there at the last look
        :raises Conflict: the target's SPDK does not have one
        """
        needed = {listener.transport for listener in self._wanted}
        if needed <= (present or frozenset()):
            return
        with locks.holding(_LOCK):
            present = self._target.ask(nvmf.get_transports())
            for transport in sorted(needed - present):
                self._make_transport(transport)

    def _make_transport(self, transport: str) -> None:
        try:
            self._target.settle(
                nvmf.create_transport(transport),
                lambda: transport in self._target.ask(nvmf.get_transports()),
            )
        except rpc.InvalidParams as e:
            raise exceptions.Conflict(
                f'spdk_nvmf_portals has {transport} portals, and the '
                f'SPDK at {self._target.url} has no such transport '
                f'({e.message}); one that was built with it is needed'
            ) from e

    def missing(
        self, nqn: str, subsystem: nvmf.Subsystem | None
    ) -> list[flows.Sent]:
        """The making of the listeners that a subsystem lacks.

        One that an exported volume lacked stays, whatever comes of the
        attachment that it was made for.
        """
        present = subsystem.listeners if subsystem is not None else ()
        return [
            flows.Sent(
                f'listen for {nqn} at {listener.address}:{listener.port}',
                (
                    nvmf.add_listener(nqn, listener),
                    functools.partial(self._listens, nqn, listener),
                ),
                _nothing,
            )
            for listener in self._wanted
            if listener not in present
        ]

    def _listens(self, nqn: str, listener: nvmf.Listener) -> bool:
        found = self._target.find(nvmf.get_subsystem(nqn))
        return found is not None and listener in found.listeners


def _nothing() -> None:
    """It goes with its subsystem."""
