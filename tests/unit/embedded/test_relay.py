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

"""What the relay does with the messages that it passes on."""

import asyncio
import os
import shutil
import socket
import struct
import tempfile

import ddt

from cinder_spdk_vhost.embedded.vhost_user import messages, relay
from tests.conformance import process
from tests.unit.embedded import vhost_user
from tests.unit.embedded.vhost_user import REPLY, of_ring, u64

_MIB = 1 << 20
_CAPACITY = struct.Struct('<Q')


class _Case(vhost_user.RelayCase):
    """A guest, a relay and a server."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.directory = process.temporary_directory()
        self.size = 64 * _MIB
        self.told: list[int | str] = []
        self.listener = vhost_user.Server(f'{self.directory}/server')
        theirs, ours = socket.socketpair()
        self.guest = vhost_user.Peer(ours)
        self.relay = relay.Relay(
            theirs,
            lambda: self.size,
            self.told.append,
            lambda: self.told.append('stop'),
        )
        self.running = asyncio.ensure_future(self._run())
        self.server = await self.listener.accept()
        self.news: socket.socket | None = None

    async def asyncTearDown(self) -> None:
        self.guest.close()
        if self.news is not None:
            self.news.close()
        async with asyncio.timeout(5):
            await self.running
        self.server.close()
        self.listener.close()
        shutil.rmtree(self.directory)
        await super().asyncTearDown()

    async def _run(self) -> str | None:
        try:
            return await self.relay.run(self.listener.path)
        finally:
            self.relay.close()

    async def passed_on(self, data: bytes, *fds: int) -> messages.Message:
        """What the server gets of what the guest sends."""
        await self.guest.send(data, *fds)
        return await self.server.receive()

    async def answered(self, data: bytes) -> messages.Message:
        """What the guest gets of what the server answers."""
        await self.server.send(data)
        return await self.guest.receive()

    async def give_rings(self, count: int) -> None:
        """The server says how many rings there are."""
        await self.answered(u64(messages.GET_QUEUE_NUM, count, flags=REPLY))

    async def start_ring(self, index: int) -> int:
        """The guest starts one; returns what its counter is at."""
        counter = os.eventfd(0, os.EFD_NONBLOCK)
        try:
            message = await self.passed_on(
                u64(messages.SET_VRING_KICK, index), counter
            )
            message.close()
            return os.eventfd_read(counter)
        finally:
            os.close(counter)

    async def refused(self, data: bytes, *fds: int) -> str:
        """Why the guest is disconnected when it sends this."""
        await self.guest.send(data, *fds)
        self.assertTrue(await self.server.hung_up())
        self.assertTrue(await self.guest.hung_up())
        reason = await self.running
        assert reason is not None
        return reason


class PassingTest(_Case):
    """What is passed on as it is, and when that ends."""

    async def test_what_is_unknown(self) -> None:
        with tempfile.TemporaryFile() as file:
            message = await self.passed_on(
                messages.Message(4711, 9, b'abc').encode(), file.fileno()
            )
            self.assertEqual(
                (4711, 9, b'abc'),
                (message.request, message.flags, message.payload),
            )
            self.assertEqual(
                os.fstat(file.fileno()).st_ino,
                os.fstat(message.fds[0]).st_ino,
            )
            message.close()
        back = await self.answered(messages.Message(4711, REPLY).encode())
        self.assertEqual((4711, REPLY), (back.request, back.flags))

    async def test_descriptors_of_the_server(self) -> None:
        with tempfile.TemporaryFile() as file:
            await self.server.send(u64(31, 1, flags=REPLY), file.fileno())
        message = await self.guest.receive()
        self.assertEqual(1, len(message.fds))
        message.close()

    async def test_the_guest_leaves(self) -> None:
        self.guest.close()
        self.assertTrue(await self.server.hung_up())
        self.assertIsNone(await self.running)

    async def test_the_server_dies(self) -> None:
        self.server.close()
        self.assertTrue(await self.guest.hung_up())
        self.assertEqual('its server is gone', await self.running)

    async def test_it_is_stopped(self) -> None:
        self.relay.stop('why not')
        self.assertTrue(await self.guest.hung_up())
        self.assertTrue(await self.server.hung_up())
        self.assertEqual('why not', await self.running)

    async def test_a_guest_that_reads_nothing(self) -> None:
        answer = messages.Message(4711, REPLY, b'x' * 4000).encode()

        async def flood() -> None:
            while True:
                await self.server.send(answer)

        flooding = asyncio.ensure_future(flood())
        await asyncio.sleep(0.1)
        self.assertFalse(flooding.done())
        # The other way is open, and its end is noticed.
        self.assertEqual(1, (await self.passed_on(u64(1, 1))).request)
        self.guest.close()
        self.assertIsNone(await self.running)
        flooding.cancel()
        await asyncio.wait([flooding])
        flooding.cancelled() or flooding.exception()

    async def test_an_end_in_the_middle(self) -> None:
        with tempfile.TemporaryFile() as file:
            await self.guest.send(u64(1, 1)[:5], file.fileno())
            await asyncio.sleep(0.01)
        self.server.close()
        self.assertEqual('its server is gone', await self.running)


class NoServerTest(vhost_user.RelayCase):
    """Nobody listens."""

    async def test_it(self) -> None:
        with self.pair() as (theirs, guest):
            connection = relay.Relay(
                theirs, lambda: 0, lambda _: None, lambda: None
            )
            reason = await connection.run('/nonexistent/socket')
            connection.close()
            self.assertTrue(await guest.hung_up())
        self.assertEqual('connection lost: No such file or directory', reason)


@ddt.ddt
class MalformedTest(_Case):
    """What a guest may not send, if the server is to stay."""

    @ddt.data(
        (b'HTTP/1.1 400 B', 'version'),
        (struct.pack('<3I', 1, 1, 1 << 31), '2147483648 bytes'),
        (u64(1, 0, flags=REPLY), 'an answer'),
        (of_ring(messages.SET_VRING_NUM, 64, 128), 'ring 64 of 64'),
        (of_ring(messages.SET_VRING_ADDR, 64), 'ring 64 of 64'),
        (of_ring(messages.SET_VRING_BASE, 64), 'ring 64 of 64'),
        (of_ring(messages.GET_VRING_BASE, 64), 'ring 64 of 64'),
        (of_ring(messages.SET_VRING_ENABLE, 64), 'ring 64 of 64'),
        (of_ring(messages.SET_VRING_NUM, 0, 0), 'a ring of 0'),
        (of_ring(messages.SET_VRING_NUM, 0, 1025), 'a ring of 1025'),
        (u64(messages.SET_VRING_KICK, 64), 'ring 64 of 64'),
        (struct.pack('<3I', messages.SET_VRING_KICK, 1, 0), '0 bytes'),
        (u64(messages.SET_MEM_TABLE, 9), 'a region without memory'),
        (u64(messages.SET_BACKEND_REQ_FD, 0), 'not one channel'),
        (u64(messages.SET_INFLIGHT_FD, 0), '8 bytes'),
    )
    @ddt.unpack
    async def test_refused(self, data: bytes, reason: str) -> None:
        await self.give_rings(64)
        self.assertIn(reason, await self.refused(data))

    @ddt.data((4096, 2, 128), (2112, 1, 132), (1 << 20, 1, 2048))
    @ddt.unpack
    async def test_too_small_for_its_requests(
        self, size: int, rings: int, ring_size: int
    ) -> None:
        await self.give_rings(2)
        layout = struct.pack('<2Q2H4x', size, 0, rings, ring_size)
        with tempfile.TemporaryFile() as file:
            file.truncate(1 << 20)
            reason = await self.refused(
                messages.Message(
                    messages.SET_INFLIGHT_FD, payload=layout
                ).encode(),
                file.fileno(),
            )
        self.assertIn('requests in', reason)


class SizeTest(_Case):
    """What the guest knows of its disk's size."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        theirs, self.news = socket.socketpair()
        self.news.setblocking(False)
        with theirs:
            message = await self.passed_on(
                u64(messages.SET_BACKEND_REQ_FD, 0), theirs.fileno()
            )
        # The server has it as well: newer ones use it.
        self.assertEqual(1, len(message.fds))
        message.close()

    async def _config(self, offset: int, length: int) -> messages.Message:
        return await self.answered(vhost_user.config(offset, b'\xff' * length))

    def _got_news(self) -> bool:
        assert self.news is not None
        try:
            return self.news.recv(100) == struct.pack('<3I', 2, 1, 0)
        except BlockingIOError:
            return False

    async def test_capacity(self) -> None:
        message = await self._config(0, 60)
        self.assertEqual(12 + 60, len(message.payload))
        (sectors,) = _CAPACITY.unpack_from(message.payload, 12)
        self.assertEqual(self.size // 512, sectors)
        self.assertEqual(b'\xff' * 52, message.payload[20:])

    async def test_pieces_without_it(self) -> None:
        for offset, length in ((8, 52), (0, 4), (4, 8)):
            message = await self._config(offset, length)
            self.assertEqual(b'\xff' * length, message.payload[12:])

    async def test_a_refusal_stays_one(self) -> None:
        message = await self.answered(
            messages.Message(messages.GET_CONFIG, REPLY).encode()
        )
        self.assertEqual(b'', message.payload)

    async def test_it_is_told(self) -> None:
        await self._config(0, 60)
        await self.start_ring(0)
        await asyncio.sleep(0.15)
        self.assertFalse(self._got_news())  # it knows
        self.size *= 2
        self.relay.resized()
        await self.until(self._got_news)
        message = await self._config(0, 60)
        (sectors,) = _CAPACITY.unpack_from(message.payload, 12)
        self.assertEqual(self.size // 512, sectors)

    async def test_it_grew_while_nobody_served_it(self) -> None:
        # A guest that reconnects does not ask.
        await self.start_ring(0)
        await self.until(self._got_news)

    async def test_it_grew_before_the_rings_started(self) -> None:
        await self._config(0, 60)
        self.size *= 2
        self.relay.resized()
        await asyncio.sleep(0.02)
        self.assertFalse(self._got_news())  # it could not take them
        await self.start_ring(0)
        await self.until(self._got_news)

    async def test_a_guest_that_does_not_listen(self) -> None:
        assert self.news is not None
        self.news.close()
        self.news = None
        await self.start_ring(0)
        self.relay.resized()
        with tempfile.TemporaryFile() as file:
            message = await self.passed_on(
                u64(messages.SET_BACKEND_REQ_FD, 0), file.fileno()
            )
            message.close()
        self.relay.resized()


class RingTest(_Case):
    """Rings that start and stop, and requests under way."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        await self.give_rings(4)

    async def test_features(self) -> None:
        message = await self.answered(
            u64(
                messages.GET_PROTOCOL_FEATURES,
                vhost_user.QSD_FEATURES,
                flags=REPLY,
            )
        )
        self.assertEqual(
            vhost_user.QSD_FEATURES | 1 << 12, messages.u64(message)
        )

    async def test_start_and_stop(self) -> None:
        self.assertEqual([], self.told)
        for index in range(2):
            # Kicked, for what was put into it before.
            self.assertEqual(1, await self.start_ring(index))
        self.assertEqual([1, 2], self.told)
        await self.passed_on(of_ring(messages.GET_VRING_BASE, 0))
        self.assertEqual([1, 2, 'stop'], self.told)
        await self.passed_on(of_ring(messages.GET_VRING_BASE, 1))
        self.assertEqual([1, 2, 'stop', 'stop'], self.told)

    async def test_a_counter_that_is_none(self) -> None:
        reading, writing = os.pipe()
        try:
            while True:
                os.set_blocking(writing, False)
                os.write(writing, b'x' * 65536)
        except BlockingIOError:
            os.set_blocking(writing, True)
        (
            await self.passed_on(u64(messages.SET_VRING_KICK, 0), writing)
        ).close()
        os.close(reading)
        os.close(writing)
        # Polled rings have none at all.
        await self.passed_on(u64(messages.SET_VRING_KICK, 1 << 8 | 1))
        self.assertEqual([1, 2], self.told)

    async def test_a_full_counter(self) -> None:
        counter = os.eventfd(0)
        os.eventfd_write(counter, (1 << 64) - 2)
        message = await self.passed_on(
            u64(messages.SET_VRING_KICK, 0), counter
        )
        message.close()
        os.close(counter)

    async def test_it_stops_when_its_requests_have_ended(self) -> None:
        # One mark a request, 16 bytes each, after 16 bytes of a ring's own.
        ring = 2112
        with tempfile.TemporaryFile() as file:
            file.truncate(4 * ring)
            layout = struct.pack('<2Q2H4x', 4 * ring, 0, 4, 128)
            message = await self.passed_on(
                messages.Message(
                    messages.SET_INFLIGHT_FD, payload=layout
                ).encode(),
                file.fileno(),
            )
            message.close()
            last = 2 * ring + 16 + 127 * 16
            os.pwrite(file.fileno(), b'\1', last)
            await self.passed_on(of_ring(messages.GET_VRING_BASE, 1))
            await self.guest.send(of_ring(messages.GET_VRING_BASE, 2))
            stopping = asyncio.ensure_future(self.server.receive())
            await asyncio.sleep(0.1)
            self.assertFalse(stopping.done())
            os.pwrite(file.fileno(), b'\0', last)
            self.assertEqual(messages.GET_VRING_BASE, (await stopping).request)
