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

"""A guest and its server, played by a test that speaks vhost-user."""

import asyncio
from collections.abc import Iterator
import contextlib
import os
import socket
import struct
import unittest

from cinder_spdk_vhost.embedded.vhost_user import channel, messages

#: What qemu-storage-daemon 7.2 answers to GET_PROTOCOL_FEATURES.
QSD_FEATURES = 0x8F2B

REPLY = 5


def open_fds() -> int:
    """How many descriptors this process has."""
    return len(os.listdir('/proc/self/fd'))


def u64(request: int, value: int, *fds: int, flags: int = 1) -> bytes:
    """A message with one number."""
    return messages.Message(
        request, flags, struct.pack('<Q', value), list(fds)
    ).encode()


def of_ring(request: int, index: int, number: int = 0) -> bytes:
    """A message about a ring."""
    return messages.Message(
        request, payload=struct.pack('<2I', index, number)
    ).encode()


def config(offset: int, region: bytes, flags: int = REPLY) -> bytes:
    """A piece of configuration space."""
    payload = struct.pack('<3I', offset, len(region), 0) + region
    return messages.Message(messages.GET_CONFIG, flags, payload).encode()


class Peer:
    """One end of a connection, as a test uses it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._channel = channel.Channel(sock)

    async def send(self, data: bytes, *fds: int) -> None:
        """Send bytes, descriptors beside the first."""
        if fds:
            sent = socket.send_fds(self.socket, [data], list(fds))
            data = data[sent:]
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def receive(self) -> messages.Message:
        """The next message; EOFError at the end."""
        async with asyncio.timeout(5):
            message = await self._channel.receive()
        if message is None:
            raise EOFError
        return message

    async def hung_up(self) -> bool:
        """Whether the other side hangs up, with nothing more to say."""
        try:
            (await self.receive()).close()
        except (EOFError, ConnectionError):
            return True
        return False

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


class Server:
    """Where disks are served: one connection after the other."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._socket.bind(path)
        self._socket.listen()

    async def accept(self) -> Peer:
        """The next connection."""
        async with asyncio.timeout(5):
            loop = asyncio.get_running_loop()
            connection, _ = await loop.sock_accept(self._socket)
        return Peer(connection)

    def close(self) -> None:
        """Refuse connections from now on."""
        self._socket.close()


class RelayCase(unittest.IsolatedAsyncioTestCase):
    """Has no descriptor more after a test than before."""

    def setUp(self) -> None:
        self._fds_before = 0

    async def asyncSetUp(self) -> None:
        self._fds_before = open_fds()

    async def asyncTearDown(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while open_fds() > self._fds_before:
                    await asyncio.sleep(0.01)
        self.assertEqual(self._fds_before, open_fds())

    async def until(self, reached: object) -> None:
        """Wait until a function returns true."""
        assert callable(reached)
        async with asyncio.timeout(5):
            while not reached():
                await asyncio.sleep(0.002)

    @contextlib.contextmanager
    def pair(self) -> Iterator[tuple[socket.socket, Peer]]:
        """A connection: one end for the relay, one for the test."""
        theirs, ours = socket.socketpair()
        with theirs, ours:
            yield theirs, Peer(ours)
