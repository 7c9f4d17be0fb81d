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

"""Controllers whose guests have data: who is listed, and until when."""

import asyncio
from collections.abc import Awaitable
import contextlib
import errno
import itertools
import os
import resource
import shutil
import socket
from typing import Any
from unittest import mock

from cinder_spdk_vhost.embedded import (
    basebdevs,
    bdevs,
    dataplane,
    errors,
    outcome,
    reactors,
    sessions,
    vhost,
)
from cinder_spdk_vhost.embedded.vhost_user import messages
from tests.conformance import process
from tests.unit.embedded import vhost_user
from tests.unit.embedded.vhost_user import of_ring, u64


class _Disk:
    """A disk that is closed when a test says so."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()

    async def close(self) -> None:
        self.closing.set()
        await self.may_close.wait()


class _Plane(dataplane.Books):
    """Makes a disk for each guest, or fails as it is told."""

    def __init__(self, directory: str) -> None:
        self._paths = (f'{directory}/disk{n}' for n in itertools.count())
        self.disks: list[_Disk] = []
        self.servers: list[vhost_user.Server] = []
        self.readonly: list[bool] = []
        self.error: Exception | None = None
        #: servers that die before anybody comes
        self.dead = False

    def serve(
        self, bdev: bdevs.Bdev, readonly: bool
    ) -> Awaitable[dataplane.Disk]:
        self.readonly.append(readonly)
        return self._serve()

    async def _serve(self) -> dataplane.Disk:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.servers.append(vhost_user.Server(next(self._paths)))
        self.disks.append(_Disk(self.servers[-1].path))
        if self.dead:
            self.servers[-1].close()
        return self.disks[-1]


class SessionTest(vhost_user.RelayCase):
    """One controller, one bdev of 64 MiB."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.directory = process.temporary_directory()
        self.registry = bdevs.Registry()
        self.bdev = basebdevs.Malloc('m', 4096, 16384, None)
        self.registry.register(self.bdev)
        self.plane = _Plane(self.directory)
        self.vhost = vhost.Vhost(
            self.directory,
            self.registry,
            reactors.Reactors(1),
            self.plane,
        )
        self.vhost.create('v', 'm', None, False)
        self._peers: list[vhost_user.Peer] = []

    async def asyncTearDown(self) -> None:
        for peer in self._peers:
            peer.close()
        for server in self.plane.servers:
            server.close()
        self.vhost.close()
        shutil.rmtree(self.directory)
        await super().asyncTearDown()

    def sessions(self, name: str = 'v') -> list[dict[str, Any]]:
        described = self.vhost.get(name).describe()['sessions']
        assert isinstance(described, list)
        return described

    def started(self) -> list[bool]:
        return [session['started'] for session in self.sessions()]

    def connect(self, name: str = 'v') -> vhost_user.Peer:
        """A guest."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.path.join(self.directory, name))
        self._peers.append(vhost_user.Peer(sock))
        return self._peers[-1]

    async def guest(self) -> tuple[vhost_user.Peer, vhost_user.Peer]:
        """A guest, and its end of the server."""
        count = len(self.plane.servers)
        guest = self.connect()
        await self.until(lambda: len(self.plane.servers) > count)
        server = await self.plane.servers[-1].accept()
        self._peers.append(server)
        return guest, server

    async def start_ring(
        self, ends: tuple[vhost_user.Peer, vhost_user.Peer], index: int = 0
    ) -> None:
        guest, server = ends
        await server.send(u64(messages.GET_QUEUE_NUM, 4, flags=5))
        await guest.receive()
        await guest.send(u64(messages.SET_VRING_KICK, index))
        await server.receive()

    async def refused(self, name: str = 'v') -> None:
        """A guest comes and can not stay."""
        self.assertTrue(await self.connect(name).hung_up())

    async def test_a_guest_comes_and_goes(self) -> None:
        guest, server = ends = await self.guest()
        self.assertEqual(
            [
                {
                    'vid': 0,
                    'id': 0,
                    'name': 'vs0',
                    'started': False,
                    'max_queues': 0,
                    'inflight_task_cnt': 0,
                }
            ],
            self.sessions(),
        )
        self.assertEqual(0, self.bdev.channels)
        await self.start_ring(ends)
        await self.start_ring(ends, 1)
        (session,) = self.sessions()
        self.assertEqual(
            (True, 2), (session['started'], session['max_queues'])
        )
        self.assertEqual(1, self.bdev.channels)
        # It reboots: the connection stays.
        await guest.send(of_ring(messages.GET_VRING_BASE, 0))
        await server.receive()
        (session,) = self.sessions()
        self.assertEqual(
            (False, 0), (session['started'], session['max_queues'])
        )
        self.assertEqual(0, self.bdev.channels)
        await self.start_ring(ends)
        self.assertEqual([True], self.started())
        guest.close()
        await self.until(lambda: not self.sessions())
        self.assertEqual(0, self.bdev.channels)
        self.assertTrue(self.plane.disks[0].closing.is_set())

    async def test_two_guests_have_two_disks(self) -> None:
        first = await self.guest()
        second = await self.guest()
        await self.start_ring(first)
        self.assertEqual([True, False], self.started())
        await self.start_ring(second)
        self.assertEqual(2, self.bdev.channels)
        self.assertEqual(
            ['vs0', 'vs1'], [session['name'] for session in self.sessions()]
        )
        first[0].close()
        await self.until(lambda: len(self.sessions()) == 1)
        await second[0].send(u64(1, 1))
        self.assertEqual(1, (await second[1].receive()).request)

    async def test_the_server_dies(self) -> None:
        guest, server = ends = await self.guest()
        await self.start_ring(ends)
        server.close()
        with self.assertLogs(vhost.LOG, 'WARNING') as logs:
            self.assertTrue(await guest.hung_up())
            await self.until(lambda: not self.sessions())
        self.assertIn(
            'controller v: guest of bdev m disconnected: its server is gone',
            logs.output[0],
        )
        self.assertEqual(0, self.bdev.channels)
        await self.guest()

    async def test_the_disk_is_closed_before_its_server_is_left(self) -> None:
        guest, server = await self.guest()
        (disk,) = self.plane.disks
        disk.may_close.clear()
        with self.assertLogs(vhost.LOG):
            self.registry.unregister(self.bdev)
            await disk.closing.wait()
            for peer in (guest, server):
                with self.assertRaises(BlockingIOError):
                    peer.socket.recv(1)
            disk.may_close.set()
            for peer in (guest, server):
                self.assertTrue(await peer.hung_up())

    async def test_requests_end_before_they_are_done_again(self) -> None:
        guest, _ = await self.guest()
        self.plane.disks[0].may_close.clear()
        guest.close()
        await self.plane.disks[0].closing.wait()
        self.connect()
        await asyncio.sleep(0.02)
        self.assertEqual(1, len(self.plane.servers))
        self.assertEqual(1, len(self.sessions()))
        self.plane.disks[0].may_close.set()
        await self.until(lambda: len(self.plane.servers) == 2)

    async def test_nobody_serves(self) -> None:
        def warnings() -> list[Any]:
            return [call.args[-1] for call in log.warning.call_args_list]

        with mock.patch.object(vhost, 'LOG') as log:
            self.plane.error = errors.Errno(errno.EIO)
            for _ in range(3):
                await self.refused()
            self.assertEqual(['Input/output error'], warnings())
            self.plane.error = errors.Errno(errno.ENOSPC)
            await self.refused()
            self.assertEqual('No space left on device', warnings()[-1])
            self.plane.error = None
            await self.start_ring(await self.guest())
            self.plane.error = errors.Errno(errno.ENOSPC)
            await self.refused()
            self.assertEqual(3, len(warnings()))

    async def test_a_plane_with_a_fault(self) -> None:
        self.plane.error = ZeroDivisionError()
        with self.assertLogs(sessions.LOG, 'ERROR') as logs:
            await self.refused()
        self.assertIn('vhost controller v', logs.output[0])
        self.plane.error = None
        await self.guest()

    async def test_a_server_that_is_gone_already(self) -> None:
        self.plane.dead = True
        with self.assertLogs(vhost.LOG, 'WARNING') as logs:
            await self.refused()
        self.assertIn('connection lost: Connection refused', logs.output[0])
        await self.until(self.plane.disks[0].closing.is_set)

    async def test_a_malformed_message(self) -> None:
        guest, _ = await self.guest()
        with self.assertLogs(vhost.LOG, 'WARNING') as logs:
            await guest.send(b'GET / HTTP/1.1\r\n\r\n')
            self.assertTrue(await guest.hung_up())
        self.assertIn('malformed', logs.output[0])

    async def test_readonly(self) -> None:
        self.vhost.create('r', 'm', None, True)
        frozen = basebdevs.Malloc('f', 4096, 1, None)
        frozen.supported = bdevs.io_types('read')
        self.registry.register(frozen)
        self.vhost.create('f', 'f', None, False)
        for name in 'vrf':
            self.connect(name)
            await asyncio.sleep(0.02)
        self.assertEqual([False, True, True], self.plane.readonly)

    async def test_the_bdev_is_deleted(self) -> None:
        guest, _ = ends = await self.guest()
        await self.start_ring(ends)
        with self.assertLogs(vhost.LOG):
            self.registry.unregister(self.bdev)
            self.assertTrue(await guest.hung_up())
        described = self.vhost.get('v').describe()['backend_specific']
        self.assertIsNone(described['block']['bdev'])
        with self.assertLogs(vhost.LOG):
            await self.refused()
        self.assertEqual([], self.sessions())
        self.assertIsNone(self.vhost.delete('v'))

    async def test_the_bdev_grows(self) -> None:
        guest, server = ends = await self.guest()
        theirs, ours = socket.socketpair()
        ours.setblocking(False)
        with theirs, ours:
            await guest.send(
                u64(messages.SET_BACKEND_REQ_FD, 0), theirs.fileno()
            )
            (await server.receive()).close()
            await server.send(vhost_user.config(0, bytes(60)))
            await guest.receive()
            await self.start_ring(ends)
            self.bdev.change_size(32768)
            async with asyncio.timeout(5):
                loop = asyncio.get_running_loop()
                news = await loop.sock_recv(ours, 100)
        self.assertEqual(2, news[0])
        await server.send(vhost_user.config(0, bytes(60)))
        message = await guest.receive()
        self.assertEqual(
            32768 * 8, int.from_bytes(message.payload[12:20], 'little')
        )

    async def test_delete_waits_for_the_guest(self) -> None:
        guest, _ = await self.guest()
        waiting = self.vhost.delete('v')
        assert isinstance(waiting, outcome.Waiting)
        answers: list[Any] = []
        waiting.on_answer(lambda result, _error: answers.append(result))
        await asyncio.sleep(0.02)
        self.assertEqual([], answers)
        guest.close()
        await self.until(lambda: answers)
        self.assertEqual([True], answers)
        self.assertEqual([], self.vhost.all())
        self.assertFalse(os.path.exists(f'{self.directory}/v'))

    async def test_the_target_stops(self) -> None:
        guest, server = await self.guest()
        silent = self.connect()
        self.vhost.close()
        self.assertTrue(await guest.hung_up())
        self.assertTrue(await server.hung_up())
        self.assertTrue(await silent.hung_up())
        await self.until(self.plane.disks[0].closing.is_set)

    async def test_descriptors_run_out(self) -> None:
        self.connect()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.dup(0)]
        try:
            with mock.patch.object(sessions, '_RESPITE', 0.05):
                resource.setrlimit(
                    resource.RLIMIT_NOFILE, (taken[0] + 20, limits[1])
                )
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(os.dup(0))
                await asyncio.sleep(0.02)
                self.assertFalse(self.vhost.get('v').listener.in_use)
                while taken:
                    os.close(taken.pop())
                await self.until(lambda: self.plane.servers)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in taken:
                os.close(fd)
