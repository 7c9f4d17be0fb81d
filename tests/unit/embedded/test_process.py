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

"""The target as a process: start, stop, kill, sockets, guests."""

import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from typing import Any
import unittest

from tests.conformance import process

_POOL = 'P=1G'


class ProcessTest(unittest.TestCase):
    """Base: a target in a directory of its own."""

    options: tuple[str, ...] = ('--poll-ms', '0', '--pool', _POOL)

    def setUp(self) -> None:
        self.directory = process.temporary_directory()
        self.addCleanup(shutil.rmtree, self.directory)
        self.target = process.TargetProcess(self.directory, *self.options)
        self.addCleanup(self.target.kill_if_running)

    def start(self) -> process.Client:
        """Start the target; returns a connection."""
        self.target.start()
        return self.connect()

    def connect(self) -> process.Client:
        """One more connection."""
        client = self.target.client()
        self.addCleanup(client.close)
        return client

    def refused(self, *options: str) -> tuple[int, str]:
        """The exit code and words of a target that does not start."""
        done = subprocess.run(
            self.target.command(*options),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return done.returncode, done.stderr


class StartTest(ProcessTest):
    """Options, and who else is there."""

    def test_bad_options_are_named(self) -> None:
        for options, named in (
            (('--pool', 'P=10X'), "'10X'"),
            (('--pool', 'P'), 'NAME=SIZE'),
            (('--pool', 'P=1G', '--pool', 'P=2G'), 'given twice'),
            (('--core-mask', 'zz'), "'zz'"),
            (('--core-mask', '0'), "'0'"),
            (('--poll-ms', '-1'), "'-1'"),
            (('--poll-ms', 'x'), "'x'"),
            (('--frobnicate',), '--frobnicate'),
        ):
            with self.subTest(options=options):
                code, text = self.refused(*options)
                self.assertEqual(2, code, text)
                self.assertIn(named, text)

    def test_a_pool_that_is_too_small(self) -> None:
        code, text = self.refused('--pool', 'tiny=1M')
        self.assertEqual(1, code)
        self.assertIn("'tiny'", text)
        self.assertNotIn('Traceback', text)

    def test_a_second_target_is_refused(self) -> None:
        client = self.start()
        other = process.TargetProcess(self.directory, *self.options)
        other.socket = os.path.join(self.directory, 'other.sock')
        self.target, first = other, self.target
        code, text = self.refused()
        self.assertEqual(1, code)
        self.assertIn('state directory', text)
        self.target = first
        command = first.command()
        command[command.index('--state-dir') + 1] += '2'
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=False
        )
        self.assertEqual(1, done.returncode)
        self.assertIn(first.socket, done.stderr)
        self.assertTrue(client.call('spdk_get_version'))

    def test_somebody_else_on_the_socket(self) -> None:
        with socket.socket(socket.AF_UNIX) as somebody:
            somebody.bind(self.target.socket)
            somebody.listen()
            code, text = self.refused()
        self.assertEqual(1, code)
        self.assertIn('in use', text)
        self.start()  # now it is stale, and replaced

    def test_something_else_in_its_place(self) -> None:
        with open(self.target.socket, 'wb'):
            pass
        code, text = self.refused()
        self.assertEqual(1, code)
        self.assertIn('not a socket', text)

    def test_owner_only_and_a_clean_stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            client = self.start()
            client.call('bdev_malloc_create', num_blocks=8, block_size=512)
            client.call(
                'vhost_create_blk_controller', ctrlr='v', dev_name='Malloc0'
            )
            for path, mode in (
                (self.target.socket, 0o600),
                (os.path.join(self.directory, 'state'), 0o700),
                (os.path.join(self.directory, 'state/state.sqlite'), 0o600),
                (self.target.vhost_dir, 0o700),
            ):
                found = stat.S_IMODE(os.stat(path).st_mode)
                self.assertEqual(mode, found, path)
            self.assertEqual(0, self.target.stop(number))
            self.assertEqual(
                ['state', 'vhost'], sorted(os.listdir(self.directory))
            )
            self.assertEqual([], os.listdir(self.target.vhost_dir))


class PoolTest(ProcessTest):
    """Pools from start to start."""

    def _restart(self, *options: str) -> process.Client:
        self.target.stop()
        self.target = process.TargetProcess(self.directory, *options)
        self.addCleanup(self.target.kill_if_running)
        return self.start()

    def test_idempotent_and_growing(self) -> None:
        client = self.start()
        uuid = client.call(
            'bdev_lvol_create', lvs_name='P', lvol_name='v', size_in_mib=8
        )
        (before,) = client.call('bdev_lvol_get_lvstores')
        client = self._restart(*self.options)
        self.assertEqual([before], client.call('bdev_lvol_get_lvstores'))
        client = self._restart('--pool', 'P=2G')
        (after,) = client.call('bdev_lvol_get_lvstores')
        self.assertEqual(before['uuid'], after['uuid'])
        self.assertEqual(
            before['total_data_clusters'] + 256, after['total_data_clusters']
        )
        (bdev,) = client.call('bdev_get_bdevs', name='P/v')
        self.assertEqual(uuid, bdev['name'])
        self.target.stop()
        code, text = self.refused('--pool', 'P=1G')
        self.assertEqual(1, code)
        self.assertIn('smaller', text)

    def test_malloc_is_lost(self) -> None:
        options = ('--pool', 'P=1G:malloc')
        self.target = process.TargetProcess(self.directory, *options)
        self.addCleanup(self.target.kill_if_running)
        client = self.start()
        client.call(
            'bdev_lvol_create', lvs_name='P', lvol_name='v', size_in_mib=8
        )
        (before,) = client.call('bdev_lvol_get_lvstores')
        client = self._restart(*options)
        (after,) = client.call('bdev_lvol_get_lvstores')
        self.assertNotEqual(before['uuid'], after['uuid'])
        self.assertEqual([], client.call('bdev_lvol_get_lvols'))

    def test_a_deleted_file_takes_its_store_along(self) -> None:
        client = self.start()
        (before,) = client.call('bdev_lvol_get_lvstores')
        self.target.stop()
        os.unlink(os.path.join(self.directory, 'state', 'aio_P.img'))
        client = self.start()
        (after,) = client.call('bdev_lvol_get_lvstores')
        self.assertNotEqual(before['uuid'], after['uuid'])


class KillTest(ProcessTest):
    """What was answered is there, whenever the target is killed."""

    _ROUNDS = 12

    def test_killed_at_any_moment(self) -> None:
        chance = random.Random(4)
        answered: dict[str, str | None] = {}
        for number in range(self._ROUNDS):
            client = self.start()
            killer = threading.Timer(
                chance.uniform(0.005, 0.15), self._kill, ()
            )
            killer.start()
            doubtful = self._work(client, chance, answered, number)
            killer.join()
            self.target.stop(signal.SIGKILL)
            client = self.start()
            self._check(client, answered, doubtful)
            self.target.stop(signal.SIGKILL)
        self.assertGreater(len(answered), self._ROUNDS)

    def _kill(self) -> None:
        os.kill(self.target.pid, signal.SIGKILL)

    def _work(
        self,
        client: process.Client,
        chance: random.Random,
        answered: dict[str, str | None],
        number: int,
    ) -> set[str]:
        """Work until killed; returns the names of what is in doubt."""
        pending: dict[int, tuple[str, bool]] = {}
        serial = 0
        try:
            while True:
                while len(pending) < 16:
                    serial += 1
                    self._one(
                        client, chance, answered, pending, f'{number}-{serial}'
                    )
                answer = client.receive(20)
                name, made = pending.pop(answer['id'])
                if 'result' in answer:
                    answered[name] = answer['result'] if made else None
        except ConnectionError:
            return {name for name, _ in pending.values()}

    @staticmethod
    def _one(
        client: process.Client,
        chance: random.Random,
        answered: dict[str, str | None],
        pending: dict[int, tuple[str, bool]],
        serial: str,
    ) -> None:
        busy = {name for name, _ in pending.values()}
        there = [
            name
            for name, uuid in answered.items()
            if uuid and name not in busy
        ]
        kind = chance.random()
        if kind < 0.5 or not there:
            name = f'v{serial}'
            pending[
                client.start(
                    'bdev_lvol_create',
                    {
                        'lvs_name': 'P',
                        'lvol_name': name,
                        'size_in_mib': chance.choice((0, 4, 8)),
                        'thin_provision': chance.random() < 0.5,
                    },
                )
            ] = (name, True)
            return
        name = chance.choice(there)
        if kind < 0.75:
            pending[
                client.start('bdev_lvol_delete', {'name': f'P/{name}'})
            ] = (
                name,
                False,
            )
        else:
            # The origin is in doubt no more than before.
            snapshot = f's{serial}'
            pending[
                client.start(
                    'bdev_lvol_snapshot',
                    {'lvol_name': f'P/{name}', 'snapshot_name': snapshot},
                )
            ] = (snapshot, True)

    def _check(
        self,
        client: process.Client,
        answered: dict[str, str | None],
        doubtful: set[str],
    ) -> None:
        (store,) = client.call('bdev_lvol_get_lvstores')
        lvols = {
            lvol['name']: lvol for lvol in client.call('bdev_lvol_get_lvols')
        }
        used = sum(lvol['num_allocated_clusters'] for lvol in lvols.values())
        self.assertEqual(
            store['total_data_clusters'], store['free_clusters'] + used
        )
        for name, uuid in answered.items():
            if name not in doubtful:
                found = lvols[name]['uuid'] if name in lvols else None
                self.assertEqual(uuid, found, name)
        for name in lvols:
            self.assertTrue(name in doubtful or answered.get(name), name)
        for name in doubtful:
            lvol = lvols.get(name)
            answered[name] = lvol['uuid'] if lvol else None


class GuestTest(ProcessTest):
    """Sessions, and what waits for them."""

    def _sessions(self, client: process.Client) -> list[dict[str, Any]]:
        (controller,) = client.call('vhost_get_controllers', name='v')
        sessions: list[dict[str, Any]] = controller['sessions']
        return sessions

    def _until(self, client: process.Client, states: list[bool]) -> float:
        begin = time.monotonic()
        while time.monotonic() < begin + 10:
            found = [session['started'] for session in self._sessions(client)]
            if found == states:
                return time.monotonic() - begin
            time.sleep(0.001)
        raise AssertionError(f'not {states} in time')

    def _guest(self) -> socket.socket:
        guest = socket.socket(socket.AF_UNIX)
        self.addCleanup(guest.close)
        guest.connect(os.path.join(self.target.vhost_dir, 'v'))
        return guest

    def _controller(self) -> process.Client:
        client = self.start()
        client.call(
            'bdev_lvol_create', lvs_name='P', lvol_name='v', size_in_mib=8
        )
        client.call('vhost_create_blk_controller', ctrlr='v', dev_name='P/v')
        return client

    def test_a_guest_comes_and_goes(self) -> None:
        client = self._controller()
        self.assertEqual([], self._sessions(client))
        guest = self._guest()
        self._until(client, [False])
        self._until(client, [True])
        self.assertEqual('vs0', self._sessions(client)[0]['name'])
        guest.close()
        # Not gone at once: it takes a moment, as on the real one.
        self.assertGreater(self._until(client, []), 0.05)

    def test_limits_under_a_guest(self) -> None:
        client = self._controller()

        def limit(value: int) -> Any:
            return client.request(
                'bdev_set_qos_limit',
                {'name': 'P/v', 'rw_ios_per_sec': value},
            ).get('result')

        self.assertTrue(limit(1000))
        self.assertIsNone(limit(2000))
        guest = self._guest()
        self._until(client, [True])
        self.assertTrue(limit(2000))
        guest.close()
        self._until(client, [])
        self.assertTrue(limit(3000))  # the controller still has it open
        client.call('vhost_delete_controller', ctrlr='v')
        self.assertIsNone(limit(4000))

    def test_delete_waits_for_the_guest(self) -> None:
        client = self._controller()
        guest = self._guest()
        self._until(client, [True])
        deleting, again = self.connect(), self.connect()
        deleting.start('vhost_delete_controller', {'ctrlr': 'v'})
        time.sleep(0.1)
        again.start('vhost_delete_controller', {'ctrlr': 'v'})
        with self.assertRaises(TimeoutError):
            deleting.receive(0.3)
        self.assertTrue(client.call('bdev_lvol_delete', name='P/v'))
        (controller,) = client.call('vhost_get_controllers', name='v')
        self.assertIsNone(controller['backend_specific']['block']['bdev'])
        guest.close()
        self.assertTrue(deleting.receive(10)['result'])
        self.assertEqual(
            'No such device', again.receive(10)['error']['message']
        )
        self.assertEqual([], os.listdir(self.target.vhost_dir))

    def test_the_target_stops_under_a_guest(self) -> None:
        self._controller()
        guest = self._guest()
        self.assertEqual(0, self.target.stop())
        self.assertEqual(b'', guest.recv(1))


class SocketTest(ProcessTest):
    """Connections and their limits."""

    def test_64_connections(self) -> None:
        first = self.start()
        others = [self.connect() for _ in range(63)]
        for client in others:
            client.call('spdk_get_version')
        late = self.connect()
        late.start('spdk_get_version')
        with self.assertRaises(TimeoutError):
            late.receive(0.3)
        first.close()
        self.assertIn('result', late.receive(10))

    def test_answers_of_any_size_to_a_slow_reader(self) -> None:
        client = self.start()
        for number in range(500):
            client.start(
                'bdev_null_create',
                {
                    'name': f'{number}{"n" * 400}',
                    'num_blocks': 1,
                    'block_size': 512,
                },
            )
        for _ in range(500):
            client.receive(10)
        for _ in range(4):
            client.start('bdev_get_bdevs')
        time.sleep(0.2)
        for _ in range(4):
            self.assertEqual(501, len(client.receive(20)['result']))

    def test_a_half_closed_connection_is_answered(self) -> None:
        self.start()
        with socket.socket(socket.AF_UNIX) as half:
            half.connect(self.target.socket)
            request = {'id': 1, 'method': 'spdk_get_version'}
            half.sendall(json.dumps(request).encode())
            half.shutdown(socket.SHUT_WR)
            self.assertIn('result', json.loads(half.recv(65536)))
            self.assertEqual(b'', half.recv(1))

    def test_a_lost_connection_does_not_undo(self) -> None:
        client = self.start()
        other = self.connect()
        other.start(
            'bdev_lvol_create',
            {'lvs_name': 'P', 'lvol_name': 'v', 'size_in_mib': 4},
        )
        other.send('garbage')
        with self.assertRaises(ConnectionError):
            other.receive(10)
        self.assertTrue(client.call('bdev_get_bdevs', name='P/v'))

    def test_too_much_at_once(self) -> None:
        client = self.start()
        batch = [
            {
                'id': number,
                'method': 'bdev_lvol_create',
                'params': {
                    'lvs_name': 'P',
                    'lvol_name': f'v{number}',
                    'size_in_mib': 4,
                    'thin_provision': True,
                },
            }
            for number in range(400)
        ]
        client.send(json.dumps(batch))
        failed = [
            answer['error']['message']
            for answer in client.receive(20)
            if 'error' in answer
        ]
        self.assertEqual(['Cannot allocate memory'] * 145, failed)


class PollTest(ProcessTest):
    """The poll: what arrives together is answered together."""

    options = ('--poll-ms', '250', '--pool', _POOL)

    def test_requests_share_a_poll(self) -> None:
        client = self.start()
        client.call('spdk_get_version')
        begin = time.monotonic()
        for _ in range(20):
            client.start('spdk_get_version')
        for _ in range(20):
            client.receive(10)
        together = time.monotonic() - begin
        # 20 polls would take 5 s; how long one takes is not the point.
        self.assertLess(together, 4)
