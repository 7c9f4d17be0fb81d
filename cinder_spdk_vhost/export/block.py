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

"""Block devices of the target's own host: ublk where there is any, else NBD.

For who has no use of a vhost-user socket: Cinder's own image copies, backups
and migrations, and any other program of that host. SPDK's disks claim
nothing, so a volume can have one beside its vhost controllers. They are
writable, do not follow a volume's growth, and do not outlive the target.

A volume has one device at most, whoever uses it. Nothing is written down of
it: the target is asked for all its disks, which are as many as there are
transfers under way.
"""

import dataclasses
import os
import stat
import time
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import base
from cinder_spdk_vhost.operations import flows, janitor, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, nbd, nvmf, qos, ublk

LOG = logging.getLogger(__name__)

# The kernel makes a device, and lets go of one, a moment after SPDK has
# answered. SPDK itself gives it 1 s and 10 s.
APPEAR_SECONDS = 5.0
STOP_SECONDS = 15.0
_LOOK_SECONDS = 0.02

# Numbers of ublk devices are the host's; others may use some.
UBLK_NUMBERS = range(1, 64)

SECTOR = 512


@dataclasses.dataclass(frozen=True)
class Device:
    """What a program of the host needs to know, and what is in force.

    :ivar path: the block device
    :ivar limits: rate limits of the volume
    """

    path: str
    limits: qos.RateLimits


class Block:
    """Block devices on the lvols of one target, on this very host."""

    def __init__(
        self, target: spdk_target.Target, worker: janitor.Janitor
    ) -> None:
        self._target = target
        self._janitor = worker

    def attach(self, wanted: base.Wanted) -> Device:
        """Give a volume its limits, then its device: three round trips.

        More where limits have to be set. A device that is there already
        will do.

        :raises Conflict: where somebody else's export is in the way, the
            target can make no device, or makes none on this host
        """
        if wanted.mode != 'rw' and not names.is_snapshot(wanted.volume):
            raise exceptions.Conflict(
                f'{wanted.path} is wanted {wanted.mode}; block devices of '
                f'SPDK are writable, so rw is accepted'
            )
        with locks.holding(wanted.volume):
            device, subsystem, *answers = self._target.find_all(
                bdev.get_lvol(wanted.path),
                nvmf.get_subsystem(names.subsystem(wanted.volume)),
                *looks(),
            )
            self._janitor.forget(wanted.volume)
            device = base.usable(self._target, wanted, device, subsystem)
            base.check_unclaimed(wanted, device, subsystem)
            base.make_thick_if_needed(self._target, wanted, device)
            return self._ensure(wanted, device, answers)

    def _ensure(
        self, wanted: base.Wanted, device: bdev.LvolBdev, answers: list[Any]
    ) -> Device:
        later = self._janitor.undo_later(wanted.volume)
        steps = base.limiting(self._target, wanted, device, later)
        paths = [disk.device for disk in of(device, answers)]
        if not paths:
            steps.append(
                flows.Step(
                    f'make {wanted.path} a block device',
                    lambda: paths.append(self._start(device.name, answers)),
                    lambda: self.stop(self.disks(device.name)),
                )
            )
        steps.append(
            flows.Step(
                f'check the block device of {wanted.path}',
                lambda: self._check(wanted, paths[0]),
                _nothing,
            )
        )
        flows.run(later, *steps)
        LOG.info('%s is %s', wanted.path, paths[0])
        return Device(paths[0], wanted.limits)

    def _start(self, name: str, answers: list[Any]) -> str:
        """Put a bdev on a device of either kind; gives its path."""
        _, of_ublk = answers
        if of_ublk is not None:
            taken = {disk.number for disk in of_ublk}
            path = self._start_ublk(name, taken)
            if path is not None:
                return path
        try:
            return self._started(name, nbd.start(name))
        except rpc.NotFound as e:
            raise exceptions.Conflict(
                f'the host of {self._target.url} has no free NBD device '
                f"({e.message}): load the kernel's module nbd, with a larger "
                f'nbds_max if it is, or make a ublk target'
            ) from e
        except rpc.MethodNotFound as e:
            raise exceptions.Conflict(
                f'the SPDK at {self._target.url} makes no block devices: '
                f'nbd_start_disk or ublk_start_disk is needed'
            ) from e

    def _start_ublk(self, name: str, taken: set[int]) -> str | None:
        """The device's path; None where there is no ublk target."""
        for number in UBLK_NUMBERS:
            if number in taken:
                continue
            try:
                self._started(name, ublk.start(name, number))
            except (rpc.Busy, rpc.Exists):
                LOG.debug('ublk device %s is taken', number)
            except rpc.NotFound:
                return None
            except rpc.TargetError as e:
                LOG.warning('%s becomes no ublk device: %s', name, e)
                return None
            else:
                return f'/dev/ublkb{number}'
        return None

    def _started(self, name: str, request: rpc.Request[Any]) -> Any:
        """Ask for a device; where the answer is lost look for it."""
        try:
            return self._target.ask(request)
        except rpc.OutcomeUnknown as lost:
            found: list[Disk] = []

            def done() -> bool:
                found.extend(self.disks(name))
                return bool(found)

            error = self._target.look(request, lost, done)
            if error is not None:
                raise error from None
            return found[0].device

    def _check(self, wanted: base.Wanted, path: str) -> None:
        device = self._target.ask(bdev.get_lvol(wanted.path))
        base.check_limits(wanted, device)
        self._wait_for(path, wanted.path, device.size)

    def _wait_for(self, path: str, volume: str, size: int) -> None:
        """Wait until a device is there with the volume's size.

        It tells that the target, which any kind of tunnel can make look
        like one of this host, has put the volume on this host's device.
        """
        deadline = time.monotonic() + APPEAR_SECONDS
        while (found := size_of(path)) != size:
            if time.monotonic() > deadline:
                raise exceptions.Conflict(
                    f'{volume} has {size} bytes and was to be {path}, which '
                    f'{_in_words(found)}; the target {self._target.url} has '
                    f'to run on this host and to share its /dev'
                )
            time.sleep(_LOOK_SECONDS)

    def detach(self, path: str, volume: str) -> None:
        """Take a volume's device away, if it has one: three round trips.

        :param path: the volume's, ``STORE/NAME``
        """
        with locks.holding(volume):
            device, *answers = self._target.find_all(
                bdev.get_lvol(path), *looks()
            )
            self._janitor.forget(volume)
            if device is not None:
                self.stop(of(device, answers))

    def stop(self, disks: list['Disk']) -> None:
        """Take the devices of a volume away and wait until they are gone.

        A device that is going must not be taken for one that is there. The
        caller holds the volume's lock.

        :raises Postponed: the kernel does not let go of one
        """
        for disk in disks:
            self._stop_one(disk)
        deadline = time.monotonic() + STOP_SECONDS
        while disks:
            try:
                disks = self.disks(disks[0].bdev)
            except rpc.RPCError as e:
                # They were told to go; that is what was asked for.
                LOG.warning(
                    'Whether %(device)s is gone cannot be seen: %(error)s',
                    {'device': disks[0].device, 'error': e},
                )
                return
            if disks and time.monotonic() > deadline:
                raise exceptions.Postponed(
                    f'{disks[0].device} is still in use'
                )
            if disks:
                time.sleep(_LOOK_SECONDS)

    def _stop_one(self, disk: 'Disk') -> None:
        try:
            self._target.settle(
                disk.stop, lambda: disk not in self.disks(disk.bdev)
            )
        except rpc.NotFound:
            LOG.debug('%s is gone already', disk.device)

    def disks(self, name: str | None = None) -> list['Disk']:
        """Those of a bdev, or all that the target has."""
        found = _disks(self._target.find_all(*looks()))
        return [disk for disk in found if name in (None, disk.bdev)]


@dataclasses.dataclass(frozen=True)
class Disk:
    """A disk of either kind."""

    device: str
    bdev: str
    stop: rpc.Request[Any]


def looks() -> list[rpc.Request]:
    """The look-ups that tell which disks the target has.

    A kind that it does not know is none that it has.
    """
    return [nbd.get_all(), ublk.get_all()]


def of(device: bdev.Bdev, answers: list[Any]) -> list[Disk]:
    """Those of a volume.

    :param answers: what :func:`looks` found
    """
    return [d for d in _disks(answers) if d.bdev == device.name]


def _disks(answers: list[Any]) -> list[Disk]:
    of_nbd, of_ublk = answers
    disks = [
        Disk(disk.device, disk.bdev, nbd.stop(disk.device))
        for disk in of_nbd or ()
    ]
    disks += [
        Disk(disk.device, disk.bdev, ublk.stop(disk.number))
        for disk in of_ublk or ()
    ]
    return disks


def size_of(path: str) -> int | None:
    """Bytes of a block device of this host; None where it is none.

    Without opening it, for which one has to be root.
    """
    try:
        about = os.stat(path)
        if not stat.S_ISBLK(about.st_mode):
            return None
        number = f'{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}'
        with open(f'/sys/dev/block/{number}/size', encoding='ascii') as file:
            return int(file.read()) * SECTOR
    except (OSError, ValueError):
        return None


def _in_words(size: int | None) -> str:
    if size is None:
        return 'is no block device here'
    return f'has {size} bytes here'


def _nothing() -> None:
    """Looking needs no undoing."""
