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

import errno
import os
from typing import Any

from cinder_spdk_vhost.embedded import (
    bdevs,
    errors,
    outcome,
    reactors,
    sessions,
)

TRANSPORT = 'vhost_user_blk'

_DEFAULT_IOPS_THRESHOLD = 60000
_NS_PER_US = 1000
_U32 = (1 << 32) - 1


class Controller:
    """One controller. It does not claim its bdev."""

    def __init__(
        self,
        name: str,
        path: str,
        descriptor: bdevs.Descriptor,
        thread: reactors.Thread,
        readonly: bool,
        vids: sessions.Vids,
    ) -> None:
        self.name = name
        self.path = path
        self.thread = thread
        self.readonly = readonly
        self.delay_base_us = 0
        self.iops_threshold = _DEFAULT_IOPS_THRESHOLD
        self._descriptor: bdevs.Descriptor | None = descriptor
        descriptor.on_remove = self._bdev_removed
        self.waiters: list[outcome.Waiting] = []
        self._channels: set[sessions.Session] = set()
        self.listener = sessions.Listener(
            name, path, vids, self._started, self._stopped, self._empty
        )
        #: called when the last guest has left
        self.on_empty = lambda: None

    def _started(self, session: sessions.Session) -> None:
        if self._descriptor is not None:
            self._descriptor.open_channel()
            self._channels.add(session)

    def _stopped(self, session: sessions.Session) -> None:
        if session in self._channels:
            self._channels.remove(session)
            if self._descriptor is not None:
                self._descriptor.close_channel()

    def _empty(self) -> None:
        self.on_empty()

    def _bdev_removed(self) -> None:
        """The bdev is gone; the controller stays, and its guest."""
        self._channels.clear()
        self._close_descriptor()

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
    """

    def __init__(
        self,
        directory: str,
        registry: bdevs.Registry,
        cores: reactors.Reactors,
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._cores = cores
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
