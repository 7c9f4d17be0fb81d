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

"""Local export: a vhost-user socket on the host of the target itself."""

import dataclasses
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import limits
from cinder_spdk_vhost.operations import flows, janitor, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, qos, vhost

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Export:
    """What a host needs to know, and what is in force.

    :ivar controller: name of the vhost controller
    :ivar socket: its path on the target's host
    :ivar limits: rate limits as read back from the target
    """

    controller: str
    socket: str
    readonly: bool
    limits: qos.RateLimits

    def as_dict(self) -> dict[str, Any]:
        """``connection_info['data']['vhost']``."""
        return {
            'name': self.controller,
            'socket': self.socket,
            'kind': 'blk',
            'readonly': self.readonly,
        }


class VhostUser:
    """vhost-user-blk controllers on the lvols of one target."""

    def __init__(
        self, target: spdk_target.Target, worker: janitor.Janitor
    ) -> None:
        self._target = target
        self._janitor = worker

    def attach(
        self,
        store: str,
        volume: str,
        mode: str,
        wanted: qos.RateLimits,
    ) -> Export:
        """Give a volume its limits, then its socket: three round trips.

        :param store: name of the lvstore that the volume is in
        :param volume: name of the volume's lvol
        :param mode: rw or ro
        :raises Conflict: where somebody else's export is in the way
        """
        controller = names.controller(volume, mode)
        path = names.path(store, volume)
        with locks.holding(volume):
            self._janitor.forget(volume)
            device, present = self._target.find_all(
                bdev.get_lvol(path), vhost.get(controller)
            )
            if device is None:
                raise exceptions.Conflict(f'there is no {path}')
            device = self.released(path, volume, device)
            present = self._check_present(path, device, present)
            if present is None and device.claim is not None:
                raise exceptions.Conflict(
                    f'{path} is claimed ({device.claim}), as a namespace '
                    f'that somebody else exported is'
                )
            return self._ensure(
                path, volume, device, present, controller, mode, wanted
            )

    def released(
        self, path: str, volume: str, device: bdev.LvolBdev
    ) -> bdev.LvolBdev:
        """The volume without a claim that the driver itself left on it.

        The caller holds the volume's lock.
        """
        if device.claim is None:
            return device
        limits.release(self._target, volume)
        return self._target.ask(bdev.get_lvol(path))

    def _check_present(
        self,
        path: str,
        device: bdev.Bdev,
        present: vhost.Controller | None,
    ) -> vhost.Controller | None:
        """The controller that is there, if it serves this very volume."""
        if present is None or present.bdev == device.name:
            return present
        if present.bdev is not None or present.sessions:
            raise exceptions.Conflict(
                f'controller {present.name} serves '
                f'{present.bdev or "a deleted volume"}, not {path}'
            )
        self._target.settle(*self._deletion(present.name))
        return None

    def _ensure(
        self,
        path: str,
        volume: str,
        device: bdev.Bdev,
        present: vhost.Controller | None,
        controller: str,
        mode: str,
        wanted: qos.RateLimits,
    ) -> Export:
        steps = []
        later = self._janitor.undo_later(volume)
        setter = limits.Setter(self._target, volume, path, later)
        if device.limits != wanted:
            steps.append(
                flows.Step(
                    f'limit {path}',
                    lambda: setter.set(wanted),
                    lambda: setter.set(device.limits),
                )
            )
        made: list[Any] = []
        if present is None:
            steps.append(
                flows.Step(
                    f'make controller {controller}',
                    lambda: made.extend(
                        self._create(path, device, controller, mode)
                    ),
                    lambda: self._delete(controller),
                )
            )
        steps.append(
            flows.Step(
                f'check controller {controller}',
                lambda: self._check(path, made, controller, wanted),
                _nothing,
            )
        )
        flows.run('attach', later, *steps)
        device, present = made
        return Export(
            controller=controller,
            socket=present.socket,
            readonly=present.readonly,
            limits=device.limits,
        )

    def _create(
        self, path: str, device: bdev.Bdev, controller: str, mode: str
    ) -> list[Any]:
        """Make the controller, and read back what there is then.

        SPDK makes it before it looks at the next request, so the look can
        travel along; where it came too early it is repeated.
        """
        request = vhost.create_blk(
            controller, device.name, readonly=mode == 'ro'
        )
        answer, *seen = self._target.gather(
            request, bdev.get_lvol(path), vhost.get(controller)
        )
        if isinstance(answer, rpc.OutcomeUnknown):
            seen = []
            if self._target.find(vhost.get(controller)) is None:
                raise answer
        elif isinstance(answer, rpc.RPCError):
            raise answer
        return [] if _failed(seen) else seen

    def _check(
        self,
        path: str,
        seen: list[Any],
        controller: str,
        wanted: qos.RateLimits,
    ) -> None:
        if not seen:
            seen.extend(
                self._target.find_all(
                    bdev.get_lvol(path), vhost.get(controller)
                )
            )
        device, present = seen
        if device is None or present is None:
            raise exceptions.Conflict(f'{path} vanished while it was attached')
        if device.limits != wanted:
            raise exceptions.Conflict(
                f'{path} has the limits {device.limits.as_dict()} instead of '
                f'{wanted.as_dict()}'
            )
        if len(present.socket) > names.MAX_SOCKET_PATH:
            raise exceptions.Conflict(
                f'socket path {present.socket} has {len(present.socket)} '
                f'characters; {names.MAX_SOCKET_PATH} can be connected to: '
                f'give the target a shorter vhost directory (-S)'
            )

    def detach(self, volume: str, mode: str, force: bool) -> None:
        """Take the socket away: two round trips.

        :param force: a guest that is still connected is no reason to
            refuse; its controller goes when it has left
        :raises InUse: a guest is connected
        """
        controller = names.controller(volume, mode)
        with locks.holding(volume):
            found = self._target.find(vhost.get(controller))
            if found is None:
                return
            if found.sessions and not force:
                raise exceptions.InUse(
                    f'{found.sessions} guest(s) are connected to '
                    f'{found.socket}'
                )
            if found.sessions:
                LOG.warning(
                    'A guest is still connected to %s; the controller is '
                    'removed when it has left',
                    found.socket,
                )
                self._janitor.undo_later(volume)(
                    f'make controller {controller}',
                    lambda: self._delete(controller),
                )
                return
            self._target.settle(*self._deletion(controller))

    def remove_idle(self, volume: str) -> None:
        """Remove the volume's controllers that no guest is connected to."""
        with locks.holding(volume):
            self.remove(
                self._target.find_all(
                    *map(vhost.get, names.controllers(volume))
                )
            )

    def remove(self, controllers: list[vhost.Controller | None]) -> None:
        """Remove those of them that are there and serve no guest."""
        self._target.settle_all(
            *(
                self._deletion(controller.name)
                for controller in controllers
                if controller is not None and not controller.sessions
            )
        )

    def _deletion(self, controller: str) -> spdk_target.Mutation:
        """The removal of a controller that no guest is connected to."""
        return (
            vhost.delete(controller),
            lambda: self._target.find(vhost.get(controller)) is None,
        )

    def _delete(self, controller: str) -> None:
        found = self._target.find(vhost.get(controller))
        if found is None:
            return
        if found.sessions:
            raise exceptions.Postponed(
                f'a guest is connected to {found.socket}'
            )
        self._target.settle(*self._deletion(controller))


def _failed(answers: list[Any]) -> bool:
    return any(isinstance(answer, rpc.RPCError) for answer in answers)


def _nothing() -> None:
    """Looking needs no undoing."""
