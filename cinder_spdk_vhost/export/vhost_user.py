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

from collections.abc import Iterable
import dataclasses
import time
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import base
from cinder_spdk_vhost.operations import flows, janitor, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, nvmf, qos, vhost

LOG = logging.getLogger(__name__)

# A killed guest's session is gone after 0.15 s.
SESSION_SECONDS = 0.2
LOOKS_FOR_THE_DEAD = 3


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

    def attach(self, wanted: base.Wanted) -> Export:
        """Give a volume its limits, then its socket: three round trips.

        :raises Conflict: where somebody else's export is in the way
        :raises InUse: where a guest has it that it cannot be shared with
        """
        path = wanted.path
        controller = names.controller(wanted.volume, wanted.mode)
        with locks.holding(wanted.volume):
            device, present, subsystem = self._target.find_all(
                bdev.get_lvol(path),
                vhost.get(controller),
                nvmf.get_subsystem(names.subsystem(wanted.volume)),
            )
            self._janitor.forget(wanted.volume)
            self._janitor.drop(_removal(controller))
            device = base.usable(self._target, wanted, device, subsystem)
            present = self.serving(path, device, present)
            if present is None:
                base.check_unclaimed(wanted, device, subsystem)
            elif present.sessions and not wanted.shared:
                raise exceptions.InUse(
                    f'a guest is connected to {present.socket} already, and '
                    f'{path} is not of a multiattach type'
                )
            base.make_thick_if_needed(self._target, wanted, device)
            return self._ensure(wanted, controller, device, present)

    def serving(
        self,
        path: str,
        device: bdev.Bdev,
        present: vhost.Controller | None,
    ) -> vhost.Controller | None:
        """The controller that is there, if it serves this very volume.

        :raises Conflict: it serves another one
        """
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
        wanted: base.Wanted,
        controller: str,
        device: bdev.LvolBdev,
        present: vhost.Controller | None,
    ) -> Export:
        later = self._janitor.undo_later(wanted.volume)
        steps = base.limiting(self._target, wanted, device, later)
        seen: list[Any] = []
        if present is None:
            steps.append(
                flows.Step(
                    f'make controller {controller}',
                    lambda: seen.extend(
                        self._create(wanted, controller, device)
                    ),
                    lambda: self._delete(wanted.volume, controller),
                )
            )
        steps.append(
            flows.Step(
                f'check controller {controller}',
                lambda: self._check(wanted, controller, seen),
                _nothing,
            )
        )
        flows.run(later, *steps)
        device, present = seen
        return Export(
            controller=controller,
            socket=present.socket,
            readonly=present.readonly,
            limits=device.limits,
        )

    def _create(
        self, wanted: base.Wanted, controller: str, device: bdev.Bdev
    ) -> list[Any]:
        """Make the controller, and read back what there is then.

        SPDK makes it before it looks at the next request, so the look can
        travel along; where it came too early it is repeated.
        """
        request = vhost.create_blk(
            controller, device.name, readonly=wanted.mode == 'ro'
        )
        error, *seen = self._target.gather(
            request, bdev.get_lvol(wanted.path), vhost.get(controller)
        )
        if isinstance(error, rpc.OutcomeUnknown):
            error = self._target.look(
                request,
                error,
                lambda: self._target.find(vhost.get(controller)) is not None,
            )
        if isinstance(error, rpc.RPCError):
            raise error
        return [] if _failed(seen) else seen

    def _check(
        self, wanted: base.Wanted, controller: str, seen: list[Any]
    ) -> None:
        """Fill ``seen`` if it is empty; it must show what was wanted."""
        if not seen:
            looks = bdev.get_lvol(wanted.path), vhost.get(controller)
            seen.extend(self._target.find_all(*looks))
        device, present = seen
        if device is None or present is None:
            raise exceptions.Conflict(
                f'{wanted.path} vanished while it was attached'
            )
        base.check_limits(wanted, device)
        if len(present.socket) > names.MAX_SOCKET_PATH:
            raise exceptions.Conflict(
                f'socket path {present.socket} has {len(present.socket)} '
                f'characters; {names.MAX_SOCKET_PATH} can be connected to: '
                f'give the target a shorter vhost directory (-S)'
            )

    def creating(
        self, volume: str, controller: str, device: bdev.Bdev
    ) -> flows.Sent:
        """The making of a placeholder, as a step of another export's flow.

        On the reactors that SPDK chooses.
        """
        return flows.Sent(
            f'make controller {controller}',
            (
                vhost.create_blk(
                    controller,
                    device.name,
                    readonly=controller == names.controller(volume, 'ro'),
                ),
                lambda: self._target.find(vhost.get(controller)) is not None,
            ),
            lambda: self._delete(volume, controller),
        )

    def detach(self, volume: str, mode: str, force: bool) -> None:
        """Take the socket away: two round trips.

        It stays while it is the placeholder of a namespace.

        :param force: a guest that is still connected is no reason to
            refuse; its controller goes when it has left
        :raises InUse: a guest is connected
        """
        controller = names.controller(volume, mode)
        with locks.holding(volume):
            found, namespaces = self._without_the_dead(volume, controller)
            if found is None:
                return
            if not found.sessions and namespaces:
                LOG.info('%s stays beside a namespace', found.socket)
                return
            if not found.sessions:
                self._target.settle(*self._deletion(controller))
                return
            if not force:
                raise exceptions.InUse(
                    f'{found.sessions} guest(s) are connected to '
                    f'{found.socket}'
                )
            LOG.warning(
                'A guest is still connected to %s; the controller is '
                'removed when it has left',
                found.socket,
            )
            self._janitor.soon(
                _removal(controller),
                lambda: self._remove_later(volume, controller),
            )

    def _without_the_dead(
        self, volume: str, controller: str
    ) -> tuple[vhost.Controller | None, bool]:
        """The controller; a killed guest's session ends within 0.15 s.

        :returns: and whether it has to stay because of a namespace
        """
        found, stays = self._find(volume, controller)
        for _ in range(LOOKS_FOR_THE_DEAD):
            if found is None or not found.sessions:
                break
            time.sleep(SESSION_SECONDS)
            found, stays = self._find(volume, controller)
        return found, stays

    def _find(
        self, volume: str, controller: str
    ) -> tuple[vhost.Controller | None, bool]:
        found, subsystem = self._target.find_all(
            vhost.get(controller), nvmf.get_subsystem(names.subsystem(volume))
        )
        namespaces = subsystem.namespaces if subsystem is not None else ()
        return found, bool(
            namespaces and controller == names.placeholder(volume)
        )

    def _remove_later(self, volume: str, controller: str) -> None:
        with locks.holding(volume):
            if _removal(controller) in self._janitor.pending():
                self._delete(volume, controller)

    def remove(self, controllers: Iterable[vhost.Controller]) -> None:
        """Remove those of them that serve no guest, in one round trip."""
        self._target.settle_all(
            *(
                self._deletion(controller.name)
                for controller in controllers
                if not controller.sessions
            )
        )

    def remove_placeholder(
        self, volume: str, controller: vhost.Controller
    ) -> None:
        """Remove a controller that is no placeholder any more.

        Nobody waits for it: what fails is done later, unless somebody
        attaches the volume before. The caller holds the volume's lock.
        """
        try:
            self.remove([controller])
        except rpc.RPCError as e:
            LOG.warning('%s is left for later: %s', controller.socket, e)
            self._janitor.undo_later(volume)(
                f'make controller {controller.name}',
                lambda: self._delete(volume, controller.name),
            )

    def _deletion(self, controller: str) -> spdk_target.Mutation:
        """The removal of a controller that no guest is connected to."""
        return (
            vhost.delete(controller),
            lambda: self._target.find(vhost.get(controller)) is None,
        )

    def _delete(self, volume: str, controller: str) -> None:
        found, stays = self._find(volume, controller)
        if found is None:
            return
        if found.sessions:
            raise exceptions.Postponed(
                f'a guest is connected to {found.socket}'
            )
        if stays:
            raise exceptions.Postponed(f'{found.bdev} is a namespace')
        self._target.settle(*self._deletion(controller))


def looks(volume: str) -> list[rpc.Request]:
    """The look-ups that tell which controllers an lvol has."""
    return [vhost.get(name) for name in names.controllers(volume)]


def _removal(controller: str) -> str:
    """The name of the job that removes it when its guest has left."""
    return f'remove controller {controller}'


def _failed(answers: list[Any]) -> bool:
    return any(isinstance(answer, rpc.RPCError) for answer in answers)


def _nothing() -> None:
    """Looking needs no undoing."""
