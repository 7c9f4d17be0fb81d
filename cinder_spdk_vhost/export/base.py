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

"""What every kind of export has in common: the volume before it."""

import dataclasses

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names
from cinder_spdk_vhost.export import limits
from cinder_spdk_vhost.operations import flows
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, lvol, nvmf, qos

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An attachment that is asked for.

    :ivar store: name of the lvstore that the volume is in
    :ivar volume: name of the volume's lvol
    :ivar mode: rw or ro
    :ivar limits: what has to be in force before the first I/O
    :ivar shared: whether it may have more than one guest at a time
    :ivar reads_zeros: whether the pool's base does so after unmap; if not,
        nobody must have a thin lvol without a parent
    """

    store: str
    volume: str
    mode: str
    limits: qos.RateLimits
    shared: bool
    reads_zeros: bool

    @property
    def path(self) -> str:
        return names.path(self.store, self.volume)


def usable(
    target: spdk_target.Target,
    wanted: Wanted,
    device: bdev.LvolBdev | None,
    subsystem: nvmf.Subsystem | None,
) -> bdev.LvolBdev:
    """The volume, without a claim that the driver itself left on it.

    The caller holds the volume's lock.

    :param subsystem: the one that the volume is exported in, if it is
    :raises Conflict: it is not there
    """
    if device is None:
        raise exceptions.Conflict(f'there is no {wanted.path}')
    if is_namespace(device, subsystem):
        return device
    return released(target, wanted.path, wanted.volume, device)


def is_namespace(device: bdev.Bdev, subsystem: nvmf.Subsystem | None) -> bool:
    """Whether a bdev's claim is that of its own export over NVMe-oF."""
    return subsystem is not None and any(
        space.bdev == device.name for space in subsystem.namespaces
    )


def released(
    target: spdk_target.Target,
    path: str,
    volume: str,
    device: bdev.LvolBdev,
) -> bdev.LvolBdev:
    """The same for a volume that is not going to be exported."""
    if device.claim is None:
        return device
    limits.release(target, volume)
    return target.ask(bdev.get_lvol(path))


def check_unclaimed(
    wanted: Wanted,
    device: bdev.LvolBdev,
    subsystem: nvmf.Subsystem | None = None,
) -> None:
    """:raises Conflict: an export keeps other writers out"""
    if device.claim is None:
        return
    if subsystem is not None and is_namespace(device, subsystem):
        hosts = ', '.join(sorted(subsystem.hosts)) or 'no host'
        raise exceptions.Conflict(
            f'{wanted.path} is exported over NVMe-oF ({hosts}), which keeps '
            f'out what was not made before; detach it from there first'
        )
    raise exceptions.Conflict(
        f'{wanted.path} is claimed ({device.claim}), as a namespace '
        f'that somebody else exported is'
    )


def check_limits(wanted: Wanted, device: bdev.LvolBdev) -> None:
    """:raises Conflict: those that are in force are not those wanted"""
    if device.limits != wanted.limits:
        raise exceptions.Conflict(
            f'{wanted.path} has the limits {device.limits.as_dict()} '
            f'instead of {wanted.limits.as_dict()}'
        )


def make_thick_if_needed(
    target: spdk_target.Target, wanted: Wanted, device: bdev.LvolBdev
) -> None:
    """Finish what was interrupted when the last parent was merged.

    A snapshot may be thin: nobody discards what it holds.
    """
    thin_root = device.lvol.thin and device.lvol.parent is None
    if names.is_snapshot(wanted.volume) or wanted.reads_zeros:
        return
    if thin_root:
        LOG.info('%s lost its last parent: making it thick', wanted.path)
        target.ask(lvol.inflate(wanted.path, device.size))


def limiting(
    target: spdk_target.Target,
    wanted: Wanted,
    device: bdev.LvolBdev,
    later: flows.Later,
) -> list[flows.Step]:
    """The step that puts the limits in force, if they are not already.

    :param later: takes over what cannot be cleaned up now
    """
    if device.limits == wanted.limits:
        return []
    setter = limits.Setter(target, wanted.volume, wanted.path, later)
    return [
        flows.Step(
            f'limit {wanted.path}',
            lambda: setter.set(wanted.limits),
            lambda: setter.set(device.limits),
        )
    ]
