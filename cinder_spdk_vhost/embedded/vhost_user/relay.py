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

"""One guest's connection to whoever serves its disk.

What the relay adds to the messages that it passes on:

* it tells of rings that start and stop;
* the guest sees the size that the books have, and is told when it changes
  (qemu-storage-daemon does neither before QEMU 8.1);
* the guest is offered to keep record of its requests under way
  (INFLIGHT_SHMFD). libvhost-user, in qemu-storage-daemon, can use such a
  record but does not say so. With it a server that was killed is replaced by
  one that does again what was under way;
* what would make libvhost-user leave its arrays is not passed on.
"""

import asyncio
from collections.abc import Awaitable, Callable
import contextlib
import errno
import os
import socket
import stat
from typing import Any

from cinder_spdk_vhost.embedded.vhost_user import channel, messages

#: Seconds. How long a ring's requests are waited for before it stops, and
#: how often they are looked at.
_DRAIN_TIMEOUT = 10
_DRAIN_STEP = 0.005
#: Looks without a request under way, until nothing can be about to start.
_DRAIN_LOOKS = 2
#: Seconds after its rings started in which a guest can take no news.
_STARTING = 0.1

#: The largest ring of libvhost-user.
_MAX_RING = 1024
_MAX_RINGS = 256

_EVENTFD = 'anon_inode:[eventfd]'
_ONE = (1).to_bytes(8, 'little')

#: Requests whose payload begins with a ring's index.
_OF_RING = frozenset(
    {
        messages.SET_VRING_NUM,
        messages.SET_VRING_ADDR,
        messages.SET_VRING_BASE,
        messages.GET_VRING_BASE,
        messages.SET_VRING_ENABLE,
    }
)


class Relay:
    """A guest and its server.

    :param guest: the guest's connection; the relay closes it
    :param size: the disk's, in bytes
    :param on_start: called with the number of rings up to one that started
    :param on_stop: called when the guest takes its rings back
    """

    def __init__(
        self,
        guest: socket.socket,
        size: Callable[[], int],
        on_start: Callable[[int], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._guest = channel.Channel(guest)
        self._server = socket.socket(socket.AF_UNIX)
        self._size = size
        self._on_start = on_start
        self._on_stop = on_stop
        self._stopping: asyncio.Future[str] = (
            asyncio.get_running_loop().create_future()
        )
        #: where the guest listens to what its server says unasked
        self._news: socket.socket | None = None
        #: the size that the guest was told on this connection
        self._told: int | None = None
        self._started = False
        self._rings = 1
        self._inflight: messages.Inflight | None = None
        self._inflight_fd = -1

    async def run(self, path: str) -> str | None:
        """Relay until one side is done, or :meth:`stop`.

        :param path: the server's socket
        :returns: why it ended, None when the guest has just left
        """
        self._server.setblocking(False)
        try:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(self._server, path)
            return await self._relay(channel.Channel(self._server))
        except messages.MalformedError as error:
            return f'malformed message: {error}'
        except OSError as error:
            return f'connection lost: {error.strerror or error}'

    def close(self) -> None:
        """Hang up on both sides.

        Only when the server takes no requests any more. libvhost-user goes
        on with those of a connection that is lost, but qemu-storage-daemon
        7.2 aborts if another comes then; and the guest takes back what its
        kicks are counted in, which breaks the server's end of the rings.
        """
        self._server.close()
        self._guest.close()
        if self._news is not None:
            self._news.close()
            self._news = None
        self._forget_inflight()

    def stop(self, reason: str) -> None:
        """End it, for that reason."""
        if not self._stopping.done():
            self._stopping.set_result(reason)

    async def _relay(self, server: channel.Channel) -> str | None:
        ways = [
            asyncio.ensure_future(way)
            for way in (
                self._pass_on(self._guest, server, self._look_at_request),
                self._pass_on(server, self._guest, self._look_at_reply),
            )
        ]
        try:
            ends: list[asyncio.Future[Any]] = [*ways, self._stopping]
            done, _ = await asyncio.wait(
                ends, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        if self._stopping.done():
            return self._stopping.result()
        way = next(way for way in ways if way in done)
        return None if way.result() is self._guest else 'its server is gone'

    async def _pass_on(
        self,
        source: channel.Channel,
        sink: channel.Channel,
        look_at: Callable[[messages.Message], Awaitable[None]],
    ) -> channel.Channel:
        """One message at a time: the next when this one has gone out.

        Ends when one side is gone, and says which.
        """
        while True:
            try:
                message = await source.receive()
            except ConnectionError:
                message = None
            if message is None:
                return source
            try:
                await look_at(message)
                await sink.send(message)
            except ConnectionError:
                return sink
            finally:
                message.close()

    # From the guest.

    async def _look_at_request(self, message: messages.Message) -> None:
        if message.is_reply:
            raise messages.MalformedError('an answer, not asked for')
        if message.request in _OF_RING:
            await self._look_at_ring(message)
        elif message.request == messages.SET_VRING_KICK:
            self._ring_starts(message)
        elif message.request == messages.SET_MEM_TABLE:
            if messages.region_count(message) != len(message.fds):
                raise messages.MalformedError('a region without memory')
        elif message.request == messages.SET_BACKEND_REQ_FD:
            self._take_news_channel(message)
        elif message.request == messages.SET_INFLIGHT_FD:
            self._take_inflight(message)

    async def _look_at_ring(self, message: messages.Message) -> None:
        index, number = messages.ring_and_number(message)
        if index >= self._rings:
            raise messages.MalformedError(f'ring {index} of {self._rings}')
        if message.request == messages.SET_VRING_NUM:
            if not 0 < number <= _MAX_RING:
                raise messages.MalformedError(f'a ring of {number}')
        elif message.request == messages.GET_VRING_BASE:
            await self._drain(index)
            self._started = False
            self._on_stop()

    def _ring_starts(self, message: messages.Message) -> None:
        index = messages.ring_of_fd(message)
        if index >= self._rings:
            raise messages.MalformedError(f'ring {index} of {self._rings}')
        fd = message.only_fd()
        if fd is not None:
            # What the guest put into the ring while nobody served it was
            # announced to nobody. A kick too many is harmless.
            _signal(fd)
        self._on_start(index + 1)
        if not self._started:
            self._started = True
            asyncio.get_running_loop().call_later(_STARTING, self.resized)

    async def _drain(self, index: int) -> None:
        """Wait for a ring's requests, as vhost-user demands.

        libvhost-user stops a ring at once. The requests under way then end
        in a panic of its ("Error writing eventfd"), and if the ring starts
        again before, they are done twice. The guest's CPUs stand still or
        its driver has given up: no more will come.
        """
        if self._inflight is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _DRAIN_TIMEOUT
        looks = 0
        while looks < _DRAIN_LOOKS:
            if self._inflight.under_way(self._inflight_fd, index):
                looks = 0
            else:
                looks += 1
            if loop.time() > deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f'ring {index} has requests under way that do not end',
                )
            await asyncio.sleep(_DRAIN_STEP)

    def _take_news_channel(self, message: messages.Message) -> None:
        """The server has its own descriptor of it: newer ones use it."""
        fd = message.only_fd()
        if fd is None:
            raise messages.MalformedError('not one channel for news')
        if self._news is not None:
            self._news.close()
            self._news = None
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            self._news = socket.socket(fileno=os.dup(fd))

    def _take_inflight(self, message: messages.Message) -> None:
        inflight = messages.Inflight.parse(message)
        fd = message.only_fd()
        if fd is None:
            raise messages.MalformedError('not one file of requests')
        file = os.fstat(fd)
        if not (
            stat.S_ISREG(file.st_mode)
            and inflight.fits(file.st_size)
            and inflight.rings <= self._rings
            and inflight.ring_size <= _MAX_RING
        ):
            raise messages.MalformedError(f'requests in {inflight}')
        self._forget_inflight()
        self._inflight_fd = os.dup(fd)
        self._inflight = inflight

    # From the server.

    async def _look_at_reply(self, message: messages.Message) -> None:
        if not message.is_reply:
            return
        if message.request == messages.GET_PROTOCOL_FEATURES:
            features = messages.u64(message) | messages.INFLIGHT_SHMFD
            messages.with_u64(message, features)
        elif message.request == messages.GET_QUEUE_NUM:
            self._rings = min(messages.u64(message), _MAX_RINGS)
        elif message.request == messages.GET_CONFIG:
            size = self._size()
            if messages.with_capacity(message, size):
                self._told = size

    # To the guest.

    def resized(self) -> None:
        """Tell the guest of another size, if it can be told."""
        if (
            self._news is None
            or not self._started
            or self._told == self._size()
        ):
            return
        news = messages.Message(messages.BACKEND_CONFIG_CHANGE)
        with contextlib.suppress(OSError):
            # A guest that doesn't listen has older news to read.
            self._news.send(news.encode(), socket.MSG_DONTWAIT)

    def _forget_inflight(self) -> None:
        if self._inflight is not None:
            os.close(self._inflight_fd)
            self._inflight = None


def _signal(eventfd: int) -> None:
    """Add one to a counter, if it is one: anything else might block."""
    if os.readlink(f'/proc/self/fd/{eventfd}') == _EVENTFD:
        os.set_blocking(eventfd, False)
        with contextlib.suppress(BlockingIOError):
            os.write(eventfd, _ONE)
