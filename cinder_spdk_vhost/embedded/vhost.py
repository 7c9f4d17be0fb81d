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

"""vhost-user-blk controllers: a socket for a bdev."""

from collections.abc import Awaitable
import errno
import logging
import os
from typing import Any

from cinder_spdk_vhost.embedded import (
    bdevs,
    dataplane,
    errors,
    outcome,
    reactors,
    sessions,
)

LOG = logging.getLogger(__name__)

TRANSPORT = 'vhost_user_blk'

_DEFAULT_IOPS_THRESHOLD = 60000
_NS_PER_US = 1000
_U32 = (1 << 32) - 1


class Controller:
    """One controller. It does not claim its bdev.

    :param plane: who keeps the bdev's bytes
    """

    def __init__(
        self,
        name: str,
        path: str,
        descriptor: bdevs.Descriptor,
        thread: reactors.Thread,
        readonly: bool,
        vids: sessions.Vids,
        plane: dataplane.DataPlane,
    ) -> None:
        self.name = name
        self.path = path
        self.thread = thread
        self.readonly = readonly
        self.delay_base_us = 0
        self.iops_threshold = _DEFAULT_IOPS_THRESHOLD
        self._bdev = descriptor.bdev
        self._plane = plane
        #: None when the bdev was deleted
        self._descriptor: bdevs.Descriptor | None = descriptor
        self.waiters: list[outcome.Waiting] = []
        self._channels: set[sessions.Session] = set()
        #: why a guest could not stay, until one can
        self._complaint: str | None = None
        self.listener = sessions.Listener(name, path, vids, self)
        descriptor.on_remove = self._bdev_removed
        descriptor.on_resize = self.listener.resized
        #: called when the last guest has left
        self.on_empty = lambda: None

    def serve(self) -> Awaitable[dataplane.Disk] | None:
        """A disk for one guest more, None where no data is kept."""
        if self._descriptor is None:
            raise errors.Errno(errno.ENODEV)
        readonly = self.readonly or not self._bdev.supported['write']
        return self._plane.serve(self._bdev, readonly)

    def size(self) -> int:
        """The bdev's, in bytes."""
        return self._bdev.block_size * self._bdev.num_blocks

    def started(self, session: sessions.Session) -> None:
        """A guest can do I/O."""
        self._complaint = None
        if self._descriptor is not None:
            self._descriptor.open_channel()
            self._channels.add(session)

    def stopped(self, session: sessions.Session) -> None:
        """It can't any more."""
        if session in self._channels:
            self._channels.remove(session)
            if self._descriptor is not None:
                self._descriptor.close_channel()

    def disconnected(self, reason: str) -> None:
        """A guest could not stay; it may try each second."""
        if reason != self._complaint:
            self._complaint = reason
            LOG.warning(
                'vhost controller %s: guest of bdev %s disconnected: %s',
                self.name,
                self._bdev.name,
                reason,
            )

    def empty(self) -> None:
        """The last guest has left."""
        self.on_empty()

    def _bdev_removed(self) -> None:
        """The bdev is gone; the controller stays, and its guest.

        A guest that had data here can not have errors now: nobody is left
        who could answer it.
        """
        self._channels.clear()
        self._close_descriptor()
        self.listener.disconnect('the bdev is deleted')

    def _close_descriptor(self) -> None:
        if self._descriptor is not None:
            self._descriptor.close()
            self._descriptor = None

    def close(self) -> None:
        """Let go of the socket and the bdev."""
        self.listener.close()
        self._close_descriptor()

    def describe(self) -> dict[str, Any]:
        """As ``vhost_get_controllers`` shows it."""
        descriptor = self._descriptor
        return {
            'ctrlr': self.name,
            'cpumask': f'0x{self.thread.mask:x}',
            'delay_base_us': self.delay_base_us,
            'iops_threshold': self.iops_threshold,
            'socket': self.path,
            'sessions': [
                session.describe() for session in self.listener.sessions
            ],
            'backend_specific': {
                'block': {
                    'readonly': self.readonly,
                    'bdev': descriptor.bdev.name if descriptor else None,
                    'transport': TRANSPORT,
                }
            },
        }


class Vhost:
    """All controllers.

    :param directory: where their sockets stand
    :param plane: who keeps the bytes of bdevs
    """

    def __init__(
        self,
        directory: str,
        registry: bdevs.Registry,
        cores: reactors.Reactors,
        plane: dataplane.DataPlane,
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._cores = cores
        self._plane = plane
        self._controllers: dict[str, Controller] = {}
        self._vids = sessions.Vids()

    def create(
        self, name: str, dev_name: str, cpumask: str | None, readonly: bool
    ) -> None:
        """A controller on a bdev; its name is not looked at any closer."""
        bdev = self._registry.get(dev_name)
        descriptor = bdev.open(lambda: None)
        thread = None
        try:
            mask = self._cpumask(cpumask)
            if name in self._controllers:
                raise errors.Errno(errno.EEXIST)
            thread = self._cores.start_thread(name, mask)
            controller = Controller(
                name,
                f'{self._directory}/{name}',
                descriptor,
                thread,
                readonly,
                self._vids,
                self._plane,
            )
        except (errors.Errno, OSError, ValueError) as error:
            descriptor.close()
            if thread is not None:
                self._cores.stop_thread(thread)
            if isinstance(error, errors.Errno):
                raise
            raise errors.Errno(errno.EIO) from error
        controller.on_empty = lambda: self._last_guest_left(controller)
        self._controllers[name] = controller

    def _cpumask(self, text: str | None) -> int:
        if text is None:
            return self._cores.mask
        try:
            mask = reactors.parse_mask(text)
        except reactors.MaskError as error:
            raise errors.Errno(errno.EINVAL) from error
        if mask & ~self._cores.mask:
            raise errors.Errno(errno.EINVAL)
        return mask

    def get(self, name: str) -> Controller:
        """A controller by its name, or no such device."""
        controller = self._controllers.get(name)
        if controller is None:
            raise errors.Errno(errno.ENODEV)
        return controller

    def all(self) -> list[Controller]:
        """All controllers, in the order of their names."""
        return [
            controller
            for _, controller in sorted(
                self._controllers.items(),
                key=lambda item: os.fsencode(item[0]),
            )
        ]

    def set_coalescing(self, name: str, delay_us: int, threshold: int) -> None:
        """Remember how interrupts are to be held back."""
        controller = self.get(name)
        if delay_us * reactors.TICK_RATE // 1_000_000 >= _U32:
            raise errors.Errno(errno.EINVAL)
        controller.delay_base_us = delay_us
        controller.iops_threshold = threshold

    def delete(self, name: str) -> outcome.Waiting | None:
        """Delete a controller, once no guest is on it."""
        controller = self.get(name)
        if not controller.listener.in_use:
            self._remove(controller)
            return None
        waiting = outcome.Waiting()
        controller.waiters.append(waiting)
        return waiting

    def _last_guest_left(self, controller: Controller) -> None:
        if not controller.waiters:
            return
        self._remove(controller)
        first, *rest = controller.waiters
        first.resolve(True)
        for waiting in rest:
            waiting.fail(errors.Errno(errno.ENODEV))

    def _remove(self, controller: Controller) -> None:
        del self._controllers[controller.name]
        self._cores.stop_thread(controller.thread)
        controller.close()

    def close(self) -> None:
        """Take all sockets away."""
        for controller in self._controllers.values():
            controller.close()
        self._controllers.clear()
