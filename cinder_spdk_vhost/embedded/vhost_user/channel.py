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

"""A socket that vhost-user is spoken on: whole messages in and out."""

import array
import asyncio
from collections.abc import Callable
import socket
from typing import Any

from cinder_spdk_vhost.embedded.vhost_user import messages

_DESCRIPTORS = (socket.SOL_SOCKET, socket.SCM_RIGHTS)
_SPACE = socket.CMSG_LEN(messages.MAX_FDS * array.array('i').itemsize)


class Channel:
    """One end. One task may receive while another one sends.

    A message is read byte for byte, never further: the descriptors that
    come with a piece of a stream are those of the message that it is of.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Hang up. Nobody may be receiving or sending."""
        self._socket.close()

    async def receive(self) -> messages.Message | None:
        """The next message, or None at the end.

        Raises OSError where the connection broke, MalformedError.
        """
        fds: list[int] = []
        try:
            header = await self._read(messages.HEADER_SIZE, fds)
            if not header:
                return None
            message, size = messages.parse_header(header)
            message.payload = await self._read(size, fds)
            if len(message.payload) < size:
                raise messages.MalformedError('half a message')
        except BaseException:
            messages.Message(0, fds=fds).close()
            raise
        message.fds = fds
        return message

    async def _read(self, size: int, fds: list[int]) -> bytes:
        """So many bytes, and the descriptors beside them; b'' at the end."""
        data = b''
        while len(data) < size:
            try:
                # socket.recv_fds() does not pass its flags on.
                piece, beside, flags, _ = self._socket.recvmsg(
                    size - len(data), _SPACE, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await self._readable()
                continue
            for level, kind, more in beside:
                if (level, kind) == _DESCRIPTORS:
                    fds += array.array('i', more)
            if flags & socket.MSG_CTRUNC or len(fds) > messages.MAX_FDS:
                raise messages.MalformedError('too many descriptors')
            if not piece:
                if data or fds:
                    raise messages.MalformedError('half a message')
                return b''
            data += piece
        return data

    async def send(self, message: messages.Message) -> None:
        """Send a message; its descriptors stay open. Raises OSError."""
        data = memoryview(message.encode())
        fds = message.fds
        while data:
            try:
                if fds:
                    sent = socket.send_fds(self._socket, [data], fds)
                else:
                    sent = self._socket.send(data)
            except BlockingIOError:
                await self._writable()
                continue
            data = data[sent:]
            fds = []

    async def _readable(self) -> None:
        ready = self._loop.create_future()
        self._loop.add_reader(self._socket, _resolve, ready)
        await _then(ready, self._loop.remove_reader, self._socket)

    async def _writable(self) -> None:
        ready = self._loop.create_future()
        self._loop.add_writer(self._socket, _resolve, ready)
        await _then(ready, self._loop.remove_writer, self._socket)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _then(
    ready: asyncio.Future[None], stop: Callable[..., Any], sock: socket.socket
) -> None:
    try:
        await ready
    finally:
        stop(sock)
