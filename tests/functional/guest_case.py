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

"""Guests for tests on a target."""

import hashlib
from typing import Any, ClassVar
import unittest

from tests.fixtures import guest as guest_fixture
from tests.fixtures.guest import Disk, Job, pattern
from tests.fixtures.guest.hotplug import HotplugGuest
from tests.functional import base, target_case

KIB = 1024
MIB = 1024**2
# Of 4 KiB each: beyond what else tests look at.
WRITER_FIRST = 8192


class GuestTestCase(target_case.TargetTestCase):
    """Up to two guests, booted when they are first wanted.

    They stay for the next test; disks are plugged and unplugged.
    """

    _guests: ClassVar[list[HotplugGuest]]

    @classmethod
    def setUpClass(cls) -> None:
        if reason := guest_fixture.unavailable():
            raise unittest.SkipTest(reason)
        cls._guests = []
        super().setUpClass()

    @classmethod
    def tearDownClass(cls) -> None:
        # The target does not end well under a guest.
        for guest in cls._guests:
            guest.kill()
        super().tearDownClass()

    def guest(self, number: int = 0) -> HotplugGuest:
        """One of the guests; another is booted where that one is dead."""
        while len(self._guests) <= number:
            self._guests.append(HotplugGuest())
        guest = self._guests[number]
        if not guest.running:
            guest.kill()
            guest = self._guests[number] = HotplugGuest()
            guest.start()
        return guest

    def plug(
        self, socket: str, guest: HotplugGuest | None = None, **options: Any
    ) -> str:
        """Plug a disk into a guest until the test ends; gives its name."""
        guest = guest or self.guest()
        name = guest.plug(Disk(socket, **options))
        self.addCleanup(self.unplug, name, guest)
        return name

    def unplug(self, name: str, guest: HotplugGuest | None = None) -> None:
        """Take a disk away, if it is there, and wait until it is seen.

        A guest that will not let go of it goes itself.
        """
        guest = guest or self.guest()
        if not guest.running:
            return
        try:
            guest.unplug(name)
        except KeyError:
            return
        except guest_fixture.GuestError:
            guest.kill()
            raise

    def sessions(self, socket: str) -> int:
        """How many guests are connected to a socket."""
        return sum(
            len(controller['sessions'])
            for controller in self.target.controllers().values()
            if controller['socket'] == socket
        )

    def start_writer(self, guest: HotplugGuest, disk: str) -> Job:
        """Have small flushed writes go on, from 4 KiB block 8192 on.

        Not faster than the rest needs the processor.
        """
        return pattern.start_writer(
            guest, disk, 'busy', WRITER_FIRST, 100000, pause=0.05
        )

    def end_writer(self, writer: Job, guest: HotplugGuest, disk: str) -> int:
        """End it: all that it wrote is there.

        :returns: how many blocks that are
        """
        self.assertTrue(writer.running, writer.output)
        guest.end_job(writer)
        count = written(writer.lines[-1])
        self.assert_blocks(guest, disk, ['busy'] * count, WRITER_FIRST, 4096)
        return count

    def assert_blocks(
        self,
        guest: HotplugGuest,
        disk: str,
        labels: list[str],
        first: int = 0,
        size: int = MIB,
    ) -> None:
        """The disk has blocks with these labels, one after the other."""
        while not self._has(guest, disk, labels, first, size):
            half = len(labels) // 2
            if half < 8:
                self.assertEqual(
                    labels,
                    pattern.read(guest, disk, first, len(labels), size),
                    f'{disk}, from block {first} of {size} bytes on',
                )
            # The half where it begins to differ, to be quick and short.
            if self._has(guest, disk, labels[:half], first, size):
                labels, first = labels[half:], first + half
            else:
                labels = labels[:half]

    def _has(
        self,
        guest: HotplugGuest,
        disk: str,
        labels: list[str],
        first: int,
        size: int,
    ) -> bool:
        found = pattern.read_digest(guest, disk, first, len(labels), size)
        return found == _digest(labels, first, size)


class GuestHttpTestCase(GuestTestCase, base.HttpTestCase):
    """Volumes that Cinder attaches to guests."""

    def attach_to(
        self, volume: Any, guest: HotplugGuest | None = None, mode: str = 'rw'
    ) -> str:
        """Attach a volume until the test ends; gives the disk's name."""
        _, info = self.attach(volume, self.connector(mode))
        return self.plug(info['vhost']['socket'], guest)


def written(line: str) -> int:
    """How many blocks are there when a writer has written a line."""
    return int(line.removeprefix('done ')) - WRITER_FIRST + 1


def _digest(labels: list[str], first: int, size: int) -> str:
    whole = hashlib.md5(usedforsecurity=False)
    for number, label in enumerate(labels, first):
        whole.update(pattern.content(label, number, size))
    return whole.hexdigest()
