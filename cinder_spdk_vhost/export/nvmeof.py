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

"""Export over NVMe-oF: a subsystem a volume, an access list, listeners.

A namespace keeps everybody from opening its bdev for writing who has it not
open already. So a controller for the target's own host, the placeholder, is
made before the namespace and stays as long as that: then a guest there can
have the volume whenever it wants. ``doc/source/exports.rst`` has the rule.
"""

import dataclasses
import time
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import (
    base,
    limits,
    listeners,
    portals,
    vhost_user,
)
from cinder_spdk_vhost.operations import flows, janitor, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, nvmf, qos, vhost

LOG = logging.getLogger(__name__)

NSID = 1

# An initiator that has disconnected is gone from the target soon after.
LEAVING_SECONDS = 0.2
LOOKS_FOR_THE_LEAVING = 3


@dataclasses.dataclass(frozen=True)
class Host:
    """Who wants a volume.

    :ivar nqn: checked (:func:`names.host_nqn`)
    :ivar name: for messages
    """

    nqn: str
    name: str


@dataclasses.dataclass(frozen=True)
class Export:
    """What a host needs to know, and what is in force.

    :ivar nqn: the subsystem's
    :ivar uuid: the namespace's
    :ivar portals: where the target listens, in the admin's order
    :ivar limits: rate limits as read back from the target
    """

    nqn: str
    uuid: str
    portals: tuple[portals.Portal, ...]
    limits: qos.RateLimits


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What there is when a volume is attached; None for what isn't."""

    device: bdev.LvolBdev
    controller: vhost.Controller | None
    subsystem: nvmf.Subsystem | None

    @property
    def exported(self) -> bool:
        return base.is_namespace(self.device, self.subsystem)


class NvmeOf:
    """Subsystems on the lvols of one target.

    :param sockets: makes and removes placeholders
    :ivar portals: where the target listens; without any, nothing can be
        attached this way
    """

    def __init__(
        self,
        target: spdk_target.Target,
        worker: janitor.Janitor,
        sockets: vhost_user.VhostUser,
        listening: tuple[portals.Portal, ...] = (),
    ) -> None:
        self._target = target
        self._janitor = worker
        self._sockets = sockets
        self._listeners = listeners.Listeners(target, listening)
        self.portals = listening

    # Attaching

    def attach(self, wanted: base.Wanted, host: Host) -> Export:
        """Let a host connect: four round trips, three for another host.

        One more where an idle volume had other limits before; two more for
        the first one on a target that has no transport yet.

        :raises Conflict: where something that is not ours is in the way, or
            the target has no room or no means for it
        :raises InvalidName: where hosts could not find it by its id
        """
        nqn = names.subsystem(wanted.volume)
        names.namespace_uuid(wanted.volume)
        with locks.holding(wanted.volume):
            device, controller, subsystem, transports = self._target.find_all(
                bdev.get_lvol(wanted.path),
                vhost.get(names.placeholder(wanted.volume)),
                nvmf.get_subsystem(nqn),
                nvmf.get_transports(),
            )
            self._janitor.forget(wanted.volume, host.nqn)
            device = base.usable(self._target, wanted, device, subsystem)
            _check_ours(wanted, device, subsystem)
            _check_snapshot(wanted, device)
            controller = self._sockets.serving(wanted.path, device, controller)
            seen = _Seen(device, controller, subsystem)
            if not seen.exported:
                base.check_unclaimed(wanted, device)
            base.make_thick_if_needed(self._target, wanted, device)
            self._listeners.make_transports(transports)
            return self._ensure(wanted, host, seen)

    def _ensure(self, wanted: base.Wanted, host: Host, seen: _Seen) -> Export:
        """Do what is missing, each thing after what it depends on.

        Limits come before anybody may connect. Those of an idle bdev that
        has some already can only be set where the namespace has opened it.
        """
        nqn = names.subsystem(wanted.volume)
        limiting = self._limiting(wanted, seen)
        admitting = self._admitting(wanted, host, seen)
        later = self._janitor.undo_later(wanted.volume)
        with flows.Flow(later) as flow:
            listening = self._listeners.missing(nqn, seen.subsystem)
            if seen.exported:
                steps = [*limiting, *listening, *admitting]
                flow.together(self._target, steps)
            else:
                late = bool(limiting and seen.device.limits)
                self._prepare(flow, wanted, seen, [] if late else limiting)
                steps = [*self._joining(wanted, seen), *listening]
                if late:
                    flow.together(self._target, steps)
                    steps = limiting
                flow.together(self._target, [*steps, *admitting])
            return self._check(wanted, host)

    def _prepare(
        self,
        flow: flows.Flow,
        wanted: base.Wanted,
        seen: _Seen,
        limiting: list[flows.Sent],
    ) -> None:
        """What has to be there before the namespace.

        :raises Conflict: the target has no room for another subsystem
        """
        nqn = names.subsystem(wanted.volume)
        steps = []
        if seen.controller is None:
            steps.append(
                self._sockets.creating(
                    wanted.volume,
                    names.placeholder(wanted.volume),
                    seen.device,
                )
            )
        if seen.subsystem is None:
            steps.append(
                flows.Sent(
                    f'make subsystem {nqn}',
                    (
                        nvmf.create_subsystem(
                            nqn,
                            max_namespaces=NSID,
                            serial=names.serial(wanted.volume),
                            model=names.MODEL,
                            ana_reporting=True,
                        ),
                        lambda: self._find(nqn) is not None,
                    ),
                    lambda: self.delete(nqn),
                )
            )
        try:
            flow.together(self._target, steps + limiting)
        except rpc.TargetError as e:
            self._explain(e)
            raise

    def _explain(self, error: rpc.TargetError) -> None:
        """SPDK has one text for all that a subsystem is refused for."""
        if error.method != 'nvmf_create_subsystem':
            return
        count = len(self._target.ask(nvmf.get_names()))
        if count >= nvmf.SUBSYSTEMS_MAX:
            raise exceptions.Conflict(
                f'the target {self._target.url} has {count} subsystems, and '
                f'{nvmf.SUBSYSTEMS_MAX} is what it has room for, unless it is '
                f'started with nvmf_set_max_subsystems: detach other volumes'
            ) from error

    def _joining(self, wanted: base.Wanted, seen: _Seen) -> list[flows.Sent]:
        nqn = names.subsystem(wanted.volume)
        uuid = names.namespace_uuid(wanted.volume)

        def undo() -> None:
            # Going, a subsystem that was made with it takes it along.
            if seen.subsystem is not None:
                self._remove_namespace(nqn)

        return [
            flows.Sent(
                f'make {wanted.path} a namespace of {nqn}',
                (
                    nvmf.add_namespace(
                        nqn,
                        seen.device.name,
                        nsid=NSID,
                        uuid=uuid,
                        nguid=uuid.replace('-', ''),
                    ),
                    lambda: base.is_namespace(seen.device, self._find(nqn)),
                ),
                undo,
            )
        ]

    def _admitting(
        self, wanted: base.Wanted, host: Host, seen: _Seen
    ) -> list[flows.Sent]:
        if seen.subsystem is not None and host.nqn in seen.subsystem.hosts:
            return []
        nqn = names.subsystem(wanted.volume)
        return [
            flows.Sent(
                f'let host {host.nqn} connect to {nqn}',
                (
                    nvmf.add_host(nqn, host.nqn),
                    lambda: self._lets_in(nqn, host.nqn),
                ),
                lambda: self._shut_out(nqn, host.nqn),
                self._janitor.undo_later(wanted.volume, host=host.nqn),
            )
        ]

    def _lets_in(self, nqn: str, host: str) -> bool:
        found = self._find(nqn)
        return found is not None and host in found.hosts

    def _limiting(self, wanted: base.Wanted, seen: _Seen) -> list[flows.Sent]:
        if seen.device.limits == wanted.limits:
            return []
        path = wanted.path
        setter = limits.Setter(
            self._target,
            wanted.volume,
            path,
            self._janitor.undo_later(wanted.volume),
        )
        return [
            flows.Sent(
                f'limit {path}',
                (
                    qos.set_limits(path, wanted.limits),
                    lambda: setter.in_force(wanted.limits),
                ),
                lambda: setter.set(seen.device.limits),
            )
        ]

    def _check(self, wanted: base.Wanted, host: Host) -> Export:
        """:raises Conflict: what is there is not what was asked for"""
        nqn = names.subsystem(wanted.volume)
        device, subsystem = self._target.find_all(
            bdev.get_lvol(wanted.path), nvmf.get_subsystem(nqn)
        )
        if device is None or not base.is_namespace(device, subsystem):
            raise exceptions.Conflict(
                f'{wanted.path} vanished while it was attached'
            )
        _check_ours(wanted, device, subsystem)
        base.check_limits(wanted, device)
        if host.nqn not in subsystem.hosts:
            raise exceptions.Conflict(f'{nqn} does not let host {host.nqn} in')
        if self._listeners.missing(nqn, subsystem):
            raise exceptions.Conflict(
                f'{nqn} does not listen at all spdk_nvmf_portals'
            )
        return Export(
            nqn,
            names.namespace_uuid(wanted.volume),
            self.portals,
            device.limits,
        )

    # Detaching

    def detach(
        self, volume: str, host: str, *, force: bool, keep_socket: bool
    ) -> bool:
        """Take a host off the list; with the last the subsystem goes.

        Two round trips; three where the subsystem and its placeholder go.

        :param host: its NQN
        :param force: its being connected is no reason to refuse
        :param keep_socket: a guest on the target's host is about to use the
            placeholder
        :returns: whether the host was on the list
        :raises InUse: it is connected
        """
        nqn = names.subsystem(volume)
        with locks.holding(volume):
            found, connected, controller = self._look(
                volume, host, 0 if force else LOOKS_FOR_THE_LEAVING
            )
            if found is not None and not is_ours(volume, found):
                LOG.warning('%s is not ours: it stays', nqn)
                return False
            listed = found is not None and host in found.hosts
            if host in connected and not force:
                raise exceptions.InUse(f'host {host} is connected to {nqn}')
            if found is not None and listed and len(found.hosts) > 1:
                self._remove_host(nqn, host)
                return True
            if found is not None and (listed or not found.hosts):
                self.delete(nqn)
                found = None
            if found is None and controller is not None and not keep_socket:
                self._sockets.remove_placeholder(volume, controller)
            return listed

    def _look(self, volume: str, host: str, again: int) -> list[Any]:
        """The subsystem, who is connected, and the placeholder.

        :param again: how often to look again if the host is connected
        """
        looks_for = [*looks(volume), vhost.get(names.placeholder(volume))]
        for look in range(again + 1):
            if look:
                time.sleep(LEAVING_SECONDS)
            found, connected, controller = self._target.find_all(*looks_for)
            connected = connected or frozenset()
            if host not in connected:
                break
        return [found, connected, controller]

    def detach_all(self, volume: str, *, force: bool) -> None:
        """Take every host off, and the subsystem with them.

        :raises InUse: one is connected, and it is not forced
        """
        nqn = names.subsystem(volume)
        with locks.holding(volume):
            found, connected = self._target.find_all(*looks(volume))
            if connected and not force:
                raise exceptions.InUse(
                    f'{", ".join(sorted(connected))} connected to {nqn}'
                )
            if found is not None and is_ours(volume, found):
                self.delete(nqn)

    def delete(self, nqn: str) -> None:
        """Delete a subsystem, if it is there; who is connected loses it."""
        try:
            self._target.settle(
                nvmf.delete_subsystem(nqn), lambda: self._find(nqn) is None
            )
        except rpc.InvalidParams:
            if self._find(nqn) is not None:
                raise
            LOG.debug('%s is gone already', nqn)

    def _remove_host(self, nqn: str, host: str) -> None:
        self._target.settle(
            nvmf.remove_host(nqn, host), lambda: not self._lets_in(nqn, host)
        )

    def _shut_out(self, nqn: str, host: str) -> None:
        if self._lets_in(nqn, host):
            self._remove_host(nqn, host)

    def _remove_namespace(self, nqn: str) -> None:
        def gone() -> bool:
            found = self._find(nqn)
            return found is None or not found.namespaces

        if not gone():
            self._target.settle(nvmf.remove_namespace(nqn, NSID), gone)

    def _find(self, nqn: str) -> nvmf.Subsystem | None:
        return self._target.find(nvmf.get_subsystem(nqn))


def looks(volume: str) -> list[rpc.Request[Any]]:
    """The look-ups that tell a volume's subsystem, and who uses it."""
    nqn = names.subsystem(volume)
    return [nvmf.get_subsystem(nqn), nvmf.get_controllers(nqn)]


def is_ours(volume: str, subsystem: nvmf.Subsystem) -> bool:
    """Whether a subsystem of a volume's NQN is what the driver made."""
    return (subsystem.serial, subsystem.model) == (
        names.serial(volume),
        names.MODEL,
    ) and all(
        (space.nsid, space.uuid) == (NSID, names.namespace_uuid(volume))
        for space in subsystem.namespaces
    )


def _check_ours(
    wanted: base.Wanted,
    device: bdev.LvolBdev,
    subsystem: nvmf.Subsystem | None,
) -> None:
    """:raises Conflict: it was made, or changed, by somebody else"""
    if subsystem is None:
        return
    bdevs = [space.bdev for space in subsystem.namespaces]
    if not is_ours(wanted.volume, subsystem) or bdevs not in (
        [],
        [device.name],
    ):
        raise exceptions.Conflict(
            f'subsystem {subsystem.nqn} has {", ".join(bdevs) or "no bdev"} '
            f'and is not what {wanted.path} ({device.name}) is exported in: '
            f'somebody else made it, and has to remove it'
        )
    if subsystem.allow_any_host:
        raise exceptions.Conflict(
            f'subsystem {subsystem.nqn} lets any host in; accepted is one '
            f'that does not (nvmf_subsystem_allow_any_host)'
        )


def _check_snapshot(wanted: base.Wanted, device: bdev.LvolBdev) -> None:
    """:raises Conflict: hosts could write on a snapshot"""
    if names.is_snapshot(wanted.volume) and device.writes:
        raise exceptions.Conflict(
            f'the target takes writes on {wanted.path}, which is a snapshot'
        )


def _nothing() -> None:
    """What needs no undoing."""
