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

"""The target ends and is there again: so is what was attached.

Nobody asks Cinder for anything meanwhile, and it polls nothing.
"""

import contextlib
import socket
import threading
import time
from typing import Any, ClassVar

from cinderclient import exceptions as cinder_exceptions

from tests.fixtures import tap as tap_fixture
from tests.functional import base, guest_case

CREATE = 'vhost_create_blk_controller'
SECONDS = 30


class RestartTestCase(base.HttpTestCase):
    """Volumes that are attached, with limits and without, in two pools."""

    def setUp(self) -> None:
        super().setUp()
        if not self.target.restartable:
            self.skipTest('a real target is not ours to restart')
        self.limited = self.type({'total_iops_sec': '3000'}).id
        self.attachments: dict[str, str] = {}

    def attached(self, count: int) -> list[Any]:
        """So many volumes, each attached; every third one is limited."""
        volumes = []
        for number in range(count):
            type_id = None if number % 3 else self.limited
            volume = self.volume(volume_type=type_id)
            mode = 'ro' if number == 1 else 'rw'
            self.attachments[volume.id], _ = self.attach(
                volume, self.connector(mode)
            )
            volumes.append(volume)
        return volumes

    def check_back(self, before: dict[str, Any]) -> None:
        """All is there again, limits and all, and can be connected to."""
        self.eventually(
            lambda: self.assertEqual(before, self.target.dump()), SECONDS
        )
        for controller in self.target.controllers().values():
            with socket.socket(socket.AF_UNIX) as stream:
                stream.connect(controller['socket'])

    def slowly(self, seconds: float = 0.4) -> None:
        """Have each controller take that long from now on."""
        self.tap.inject(tap_fixture.delay(seconds), method=CREATE, times=None)

    def wait_begun(self) -> None:
        """Wait until a controller is there, and not all of them."""
        deadline = time.monotonic() + SECONDS
        while not self.target.controllers():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)


class RestartTest(RestartTestCase):
    def test_it_stops(self) -> None:
        self.attached(4)
        before = self.target.dump()
        self.target.restart()
        self.check_back(before)

    def test_it_is_killed_twice(self) -> None:
        self.attached(4)
        before = self.target.dump()
        for _ in range(2):
            self.target.restart(kill=True)
            self.check_back(before)

    def test_what_is_attached_no_more_stays_away(self) -> None:
        volumes = self.attached(4)
        # Limits of one that is detached stay till then, of no use.
        self.detach(self.attachments[volumes[2].id])
        before = self.target.dump()
        self.assertEqual(3, len(before['controllers']))
        self.target.restart(kill=True)
        self.check_back(before)

    def test_it_is_away_for_a_while(self) -> None:
        volumes = self.attached(3)
        before = self.target.dump()
        self.target.kill()
        time.sleep(1)
        with contextlib.suppress(cinder_exceptions.ClientException):
            self.cinder.attachments.delete(self.attachments[volumes[0].id])
        time.sleep(1.5)
        self.target.start()
        # That one could not be detached, and Cinder still has it.
        self.check_back(before)
        self.detach(self.attachments[volumes[0].id])
        self.assertEqual({}, self.controllers_of(volumes[0]))

    def test_only_the_connection_breaks(self) -> None:
        self.attached(2)
        before = self.target.dump()
        with self.tap.count() as counted:
            with self.tap.away():
                time.sleep(0.5)
            time.sleep(2)
        methods = {exchange.method for exchange in counted.exchanges}
        self.assertIn('framework_get_reactors', methods)
        self.assertNotIn(CREATE, methods)
        self.assertEqual(before, self.target.dump())

    def test_a_pool_that_loads_slowly(self) -> None:
        volumes = self.attached(8)
        slow = self.target.pools[1]
        late = [v for v in volumes if self.pool_of(v) == slow]
        self.assertNotEqual([], late)
        before = self.target.dump()
        self.tap.inject(
            tap_fixture.error(-19, 'No such device'),
            method='bdev_get_bdevs',
            when=lambda asked: asked.params['name'].startswith(f'{slow}/'),
            times=None,
        )
        self.target.restart(kill=True)
        self.eventually(
            lambda: self.assertEqual(
                len(volumes) - len(late), len(self.target.controllers())
            ),
            SECONDS,
        )
        time.sleep(1)
        # Nothing was made in the place of what is not there yet.
        self.assertEqual(
            before['lvols'].keys(), self.target.dump()['lvols'].keys()
        )
        for volume in late:
            self.assertEqual({}, self.controllers_of(volume))
        self.tap.heal()
        self.check_back(before)

    def test_detaching_meanwhile(self) -> None:
        volumes = self.attached(6)
        self.slowly()
        self.target.restart(kill=True)
        self.wait_begun()
        leaving = [
            threading.Thread(
                target=self.detach, args=(self.attachments[volume.id],)
            )
            for volume in volumes[:3]
        ]
        for thread in leaving:
            thread.start()
        for thread in leaving:
            thread.join()
        self.tap.heal()
        names = {
            name
            for volume in volumes[3:]
            for name in (f'volume-{volume.id}-rw',)
        }
        self.eventually(
            lambda: self.assertEqual(names, set(self.target.controllers())),
            SECONDS,
        )
        time.sleep(0.5)
        self.assertEqual(names, set(self.target.controllers()))

    def test_it_is_killed_again_meanwhile(self) -> None:
        self.attached(6)
        before = self.target.dump()
        self.slowly()
        for _ in range(2):
            self.target.restart(kill=True)
            self.wait_begun()
        self.tap.heal()
        self.target.restart(kill=True)
        self.check_back(before)

    def test_cinder_is_killed_meanwhile(self) -> None:
        self.attached(6)
        before = self.target.dump()
        self.slowly(2)
        self.target.restart(kill=True)
        self.wait_begun()
        self.services.restart(kill=True)
        self.cinder = self.services.client()
        self.tap.heal()
        self.check_back(before)

    def test_both_are_killed(self) -> None:
        self.attached(3)
        before = self.target.dump()
        self.services.kill()
        self.target.restart(kill=True)
        self.services.start()
        self.cinder = self.services.client()
        self.check_back(before)


class NativeThreadsTest(RestartTestCase):
    """Without eventlet."""

    native_threads: ClassVar[bool] = True

    def test_it_is_killed(self) -> None:
        self.attached(4)
        before = self.target.dump()
        self.target.restart(kill=True)
        self.check_back(before)


class GuestTest(guest_case.GuestHttpTestCase):
    """A guest whose disk connects again, and nobody who helps."""

    def setUp(self) -> None:
        super().setUp()
        if not self.target.restartable:
            self.skipTest('a real target is not ours to restart')

    def test_it_goes_on(self) -> None:
        limited = self.type({'total_iops_sec': '3000'}).id
        volume = self.volume(volume_type=limited)
        _, info = self.attach(volume)
        guest = self.guest()
        disk = self.plug(info['vhost']['socket'], guest)
        writer = self.start_writer(guest, disk)
        first = guest_case.WRITER_FIRST
        writer.wait_line(f'done {first + 7}')
        limits = self.target.limits(self.alias(volume))
        for kill in (True, False):
            self.target.restart(kill=kill)
            count = guest_case.written(writer.lines[-1])
            writer.wait_line(f'done {first + count + 20}')
            self.assertEqual(1, self.sessions(info['vhost']['socket']))
            self.assertEqual(limits, self.target.limits(self.alias(volume)))
        self.assertLess(48, self.end_writer(writer, guest, disk))
