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

"""Framing of vhost-user messages, and their descriptors."""

import asyncio
import os
import socket
import struct
import tempfile

from cinder_spdk_vhost.embedded.vhost_user import channel, messages
from tests.unit.embedded import vhost_user


class ReceiveTest(vhost_user.RelayCase):
    """What comes in, and how."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        ours, theirs = socket.socketpair()
        self.peer = ours
        self.channel = channel.Channel(theirs)

    async def asyncTearDown(self) -> None:
        self.peer.close()
        self.channel.close()
        await super().asyncTearDown()

    async def test_byte_by_byte(self) -> None:
        async def trickle() -> None:
            for byte in vhost_user.u64(99, 7):
                self.peer.send(bytes([byte]))
                await asyncio.sleep(0)

        sending = asyncio.ensure_future(trickle())
        message = await self.channel.receive()
        await sending
        assert message is not None
        self.assertEqual((99, False), (message.request, message.is_reply))
        self.assertEqual(7, messages.u64(message))

    async def test_descriptors_stay_with_their_message(self) -> None:
        self.peer.send(vhost_user.u64(1, 1))
        with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as two:
            for number, file in ((2, one), (3, two)):
                data = vhost_user.u64(number, number)
                socket.send_fds(self.peer, [data], [file.fileno()])
            inodes = [os.fstat(file.fileno()).st_ino for file in (one, two)]
        self.peer.send(vhost_user.u64(4, 4))
        found = []
        for _ in range(4):
            message = await self.channel.receive()
            assert message is not None
            found.append([os.fstat(fd).st_ino for fd in message.fds])
            for fd in message.fds:
                self.assertFalse(os.get_inheritable(fd))
            message.close()
        self.assertEqual([[], inodes[:1], inodes[1:], []], found)

    async def test_the_end(self) -> None:
        self.peer.close()
        self.assertIsNone(await self.channel.receive())

    async def _refused(self, reason: str) -> None:
        with self.assertRaisesRegex(messages.MalformedError, reason):
            await self.channel.receive()

    async def test_half_a_header(self) -> None:
        self.peer.send(vhost_user.u64(1, 1)[:5])
        self.peer.close()
        await self._refused('half a message')

    async def test_half_a_message(self) -> None:
        for length in (12, 15):
            ours, theirs = socket.socketpair()
            with tempfile.TemporaryFile() as file:
                data = vhost_user.u64(1, 1)[:length]
                socket.send_fds(ours, [data], [file.fileno()])
            ours.close()
            self.channel.close()
            self.channel = channel.Channel(theirs)
            await self._refused('half a message')

    async def test_a_huge_message(self) -> None:
        self.peer.send(struct.pack('<3I', 1, 1, 0xFFFFFFFF))
        await self._refused('4294967295 bytes')

    async def test_another_version(self) -> None:
        self.peer.send(struct.pack('<3I', 1, 2, 0))
        await self._refused('version 2')

    async def test_something_else(self) -> None:
        self.peer.send(b'GET / HTTP/1.1\r\n\r\n')
        await self._refused('version')

    async def test_too_many_descriptors(self) -> None:
        with tempfile.TemporaryFile() as file:
            fds = [file.fileno()] * (messages.MAX_FDS + 1)
            socket.send_fds(self.peer, [vhost_user.u64(1, 1)], fds)
        await self._refused('too many descriptors')

    async def test_too_many_descriptors_in_pieces(self) -> None:
        with tempfile.TemporaryFile() as file:
            fds = [file.fileno()] * (messages.MAX_FDS - 1)
            for byte in vhost_user.u64(1, 1)[:3]:
                socket.send_fds(self.peer, [bytes([byte])], fds)
        await self._refused('too many descriptors')

    async def test_given_up_half_way(self) -> None:
        with tempfile.TemporaryFile() as file:
            data = vhost_user.u64(1, 1)[:5]
            socket.send_fds(self.peer, [data], [file.fileno()])
        receiving = asyncio.ensure_future(self.channel.receive())
        await asyncio.sleep(0.01)
        receiving.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await receiving


class SendTest(vhost_user.RelayCase):
    """What goes out."""

    async def test_to_a_slow_reader(self) -> None:
        count = 2000
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sender, receiver = channel.Channel(ours), channel.Channel(theirs)
        with tempfile.TemporaryFile() as file:
            message = messages.Message(
                1, payload=b'x' * 256, fds=[file.fileno()]
            )

            async def send() -> None:
                for _ in range(count):
                    await sender.send(message)

            sending = asyncio.ensure_future(send())
            await asyncio.sleep(0.01)
            self.assertFalse(sending.done())
            for _ in range(count):
                got = await receiver.receive()
                assert got is not None
                self.assertEqual((256, 1), (len(got.payload), len(got.fds)))
                got.close()
            await sending
        sender.close()
        receiver.close()

    async def test_to_nobody(self) -> None:
        ours, theirs = socket.socketpair()
        sender = channel.Channel(ours)
        theirs.close()
        with self.assertRaises(BrokenPipeError):
            await sender.send(messages.Message(1))
        sender.close()
