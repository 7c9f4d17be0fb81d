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

"""Bdevs as block devices of the host, on a data plane of the test's own."""

import asyncio
import errno
import json
import shutil
from typing import Any
import unittest

from cinder_spdk_vhost.embedded import (
    bdevs,
    dataplane,
    dispatch,
    errors,
    lvols,
    pools,
)
from cinder_spdk_vhost.embedded import target as targets
from tests.conformance import process

DEVICE = '/dev/loop7'


class _Plane(dataplane.Books):
    """One device; it is there, or gone, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.refusal: errors.Errno | None = None

    async def _attach(self) -> str:
        await self.go.wait()
        if self.refusal is not None:
            raise self.refusal
        return DEVICE

    def attach_host(self, bdev: bdevs.Bdev) -> Any:
        self.calls.append('attach')
        return self._attach()

    async def _detach(self) -> None:
        await self.go.wait()
        if self.refusal is not None:
            raise self.refusal
        self.calls.append('detached')

    def detach_host(self, bdev: bdevs.Bdev) -> Any:
        self.calls.append('detach')
        return self._detach()

    def delete(self, lvol: lvols.Lvol, heir: lvols.Lvol | None) -> Any:
        self.calls.append('delete')


class _Peer:
    def __init__(self) -> None:
        self.outstanding = 0
        self.answers: list[Any] = []

    def answer(self, text: str) -> None:
        self.answers.append(json.loads(text))


class _DisksCase(unittest.IsolatedAsyncioTestCase):
    """A pool with one volume, P/v."""

    async def asyncSetUp(self) -> None:
        directory = process.temporary_directory()
        self.addCleanup(shutil.rmtree, directory)
        self.plane = _Plane()
        self.target = targets.Target(directory, directory, plane=self.plane)
        self.addCleanup(self.target.close)
        pools.Pool('P', 1 << 30).ensure(self.target)
        self.dispatcher = dispatch.Dispatcher(self.target, self.target.save)
        self.uuid = await self.call(
            'bdev_lvol_create', lvs_name='P', lvol_name='v', size_in_mib=40
        )
        self.bdev = self.target.bdevs.get('P/v')

    def begin(self, name: str, /, **params: Any) -> _Peer:
        peer = _Peer()
        request: dict[str, Any] = {'id': 1, 'method': name}
        if params:
            request['params'] = params
        self.dispatcher.take(peer, request)
        self.dispatcher.end_poll()
        return peer

    async def end(self, peer: _Peer) -> Any:
        async with asyncio.timeout(5):
            while not peer.answers:
                await asyncio.sleep(0)
        answer = peer.answers[0]
        if 'error' in answer:
            return answer['error']['code'], answer['error']['message']
        return answer['result']

    async def call(self, name: str, /, **params: Any) -> Any:
        return await self.end(self.begin(name, **params))


class NbdTest(_DisksCase):
    """Disks that the data plane makes."""

    async def start(self) -> Any:
        return await self.call('nbd_start_disk', bdev_name='P/v')

    async def test_start_list_stop(self) -> None:
        self.assertEqual(DEVICE, await self.start())
        self.assertEqual(1, self.bdev.channels)
        shown = [{'nbd_device': DEVICE, 'bdev_name': self.uuid}]
        self.assertEqual(shown, await self.call('nbd_get_disks'))
        self.assertEqual(
            shown, await self.call('nbd_get_disks', nbd_device=DEVICE)
        )
        stop = await self.call('nbd_stop_disk', nbd_device=DEVICE)
        self.assertIs(True, stop)
        self.assertEqual([], await self.call('nbd_get_disks'))
        self.assertEqual(0, self.bdev.channels)
        self.assertEqual([], self.bdev.descriptors)
        self.assertEqual(['attach', 'detach', 'detached'], self.plane.calls)
        again = await self.call('nbd_stop_disk', nbd_device=DEVICE)
        self.assertEqual((-19, 'No such device'), again)

    async def test_one_a_bdev(self) -> None:
        await self.start()
        busy = (-errno.EBUSY, 'Device or resource busy')
        self.assertEqual(busy, await self.start())

    async def test_not_what_somebody_claims(self) -> None:
        owner = self.bdev.open(lambda: None)
        owner.claim(bdevs.EXCLUSIVE_WRITE)
        denied = (-errno.EPERM, 'Operation not permitted')
        self.assertEqual(denied, await self.start())

    async def test_claims_nothing_itself(self) -> None:
        await self.start()
        self.bdev.open(lambda: None).claim(bdevs.EXCLUSIVE_WRITE)

    async def test_its_device_is_not_to_be_chosen(self) -> None:
        for device, answer in (
            ('/dev/nbd3', (-2, 'No such file or directory')),
            (DEVICE, (-19, f'illegal nbd device {DEVICE}')),
        ):
            found = await self.call(
                'nbd_start_disk', bdev_name='P/v', nbd_device=device
            )
            self.assertEqual(answer, found)
        self.assertEqual([], self.bdev.descriptors)
        self.assertEqual([], self.plane.calls)

    async def test_a_host_without_devices(self) -> None:
        self.plane.refusal = errors.Errno(errno.ENODEV)
        self.assertEqual((-19, 'nbd device not found'), await self.start())
        self.plane.refusal = errors.Errno(errno.EIO)
        self.assertEqual((-5, 'Input/output error'), await self.start())
        self.assertEqual([], self.bdev.descriptors)
        self.plane.refusal = None
        self.assertEqual(DEVICE, await self.start())

    async def test_not_shown_before_it_is_there(self) -> None:
        self.plane.go.clear()
        start = self.begin('nbd_start_disk', bdev_name='P/v')
        self.assertEqual([], await self.call('nbd_get_disks'))
        self.plane.go.set()
        self.assertEqual(DEVICE, await self.end(start))

    async def test_a_stop_that_fails_can_be_repeated(self) -> None:
        await self.start()
        self.plane.refusal = errors.Errno(errno.EIO)
        failed = await self.call('nbd_stop_disk', nbd_device=DEVICE)
        self.assertEqual((-5, 'Input/output error'), failed)
        self.plane.refusal = None
        again = await self.call('nbd_stop_disk', nbd_device=DEVICE)
        self.assertIs(True, again)

    async def test_goes_with_its_bdev(self) -> None:
        await self.start()
        self.plane.calls.clear()
        self.assertIs(True, await self.call('bdev_lvol_delete', name='P/v'))
        await asyncio.sleep(0)
        self.assertEqual(['delete', 'detach', 'detached'], self.plane.calls)
        self.assertEqual([], await self.call('nbd_get_disks'))

    async def test_the_bdev_goes_while_it_starts(self) -> None:
        self.plane.go.clear()
        start = self.begin('nbd_start_disk', bdev_name='P/v')
        self.assertIs(True, await self.call('bdev_lvol_delete', name='P/v'))
        self.plane.go.set()
        self.assertEqual((-19, 'No such device'), await self.end(start))
        await asyncio.sleep(0)
        self.assertEqual(
            ['attach', 'delete', 'detach', 'detached'], self.plane.calls
        )
        self.assertEqual([], await self.call('nbd_get_disks'))

    async def test_the_bdev_goes_while_it_stops(self) -> None:
        await self.start()
        self.plane.go.clear()
        stop = self.begin('nbd_stop_disk', nbd_device=DEVICE)
        once_more = await self.call('nbd_stop_disk', nbd_device=DEVICE)
        self.assertEqual((-19, 'No such device'), once_more)
        self.assertIs(True, await self.call('bdev_lvol_delete', name='P/v'))
        self.plane.go.set()
        self.assertIs(True, await self.end(stop))
        self.assertEqual(1, self.plane.calls.count('detach'))


class UblkTest(_DisksCase):
    """As on a host without the kernel's module."""

    async def test_refusals(self) -> None:
        for name, params, answer in (
            (
                'ublk_create_target',
                {},
                (-32603, 'No such file or directory'),
            ),
            (
                'ublk_create_target',
                {'cpumask': 1},
                (-32603, 'Invalid argument'),
            ),
            (
                'ublk_destroy_target',
                {},
                (-32603, 'No such file or directory'),
            ),
            (
                'ublk_start_disk',
                {'bdev_name': 'P/v', 'ublk_id': 1},
                (-19, 'No such device'),
            ),
            ('ublk_stop_disk', {'ublk_id': 1}, (-19, 'No such device')),
            ('ublk_get_disks', {}, []),
            ('ublk_get_disks', {'ublk_id': 1}, (-19, 'No such device')),
        ):
            self.assertEqual(answer, await self.call(name, **params), name)
