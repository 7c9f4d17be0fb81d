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

"""Tests of throw-away guests, on disks that QEMU's storage daemon serves."""

from concurrent import futures
import contextlib
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import ClassVar

from oslotest import base

from tests.fixtures import process
from tests.fixtures.guest import (
    CommandError,
    Disk,
    Guest,
    GuestDied,
    GuestError,
    GuestTimeout,
    Unavailable,
    boot_image,
    load,
    pattern,
    unavailable,
)

MIB = 1024**2
ROOT = pathlib.Path(__file__).parents[2]


class Disks(process.Process):
    """Images in a directory, each served on a socket of its name."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self._exports: list[str] = []

    def add(self, name: str, mib: int, writable: bool = True) -> None:
        image = self.image(name)
        with image.open('ab') as file:
            file.truncate(mib * MIB)
        mode = 'on' if writable else 'off'
        self._exports += [
            '--blockdev',
            f'file,node-name={name},filename={image}',
            '--export',
            f'vhost-user-blk,id=e-{name},node-name={name},addr.type=unix,'
            f'addr.path={self.socket(name)},writable={mode},writethrough=on',
        ]

    def image(self, name: str) -> pathlib.Path:
        return self.directory / name

    def socket(self, name: str) -> pathlib.Path:
        return self.directory / f'{name}.sock'

    def start(self) -> None:
        pid_file = self.directory / 'pid'
        pid_file.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            ['qemu-storage-daemon', '--pidfile', pid_file, *self._exports]
        )
        while not pid_file.exists():
            assert self._process.poll() is None
            time.sleep(0.01)


class GuestTestCase(base.BaseTestCase):
    """Disks for the class."""

    disks: ClassVar[Disks]
    _stack: ClassVar[contextlib.ExitStack]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if reason := unavailable():
            raise Unavailable(reason)
        with contextlib.ExitStack() as stack:
            directory = tempfile.mkdtemp(prefix='disks-')
            stack.callback(shutil.rmtree, directory)
            cls.disks = Disks(pathlib.Path(directory))
            stack.callback(cls.disks.stop)
            cls.start(stack)
            cls._stack = stack.pop_all()

    @classmethod
    def start(cls, stack: contextlib.ExitStack) -> None:
        raise NotImplementedError

    @classmethod
    def tearDownClass(cls) -> None:
        cls._stack.close()
        super().tearDownClass()


class OneBoot(GuestTestCase):
    """Whatever one guest can show."""

    guest: ClassVar[Guest]

    @classmethod
    def start(cls, stack: contextlib.ExitStack) -> None:
        cls.disks.add('first', 64)
        cls.disks.add('second', 32)
        cls.disks.add('fixed', 16, writable=False)
        cls.disks.start()
        cls.guest = stack.enter_context(
            Guest(
                Disk(cls.disks.socket(name))
                for name in ('first', 'second', 'fixed')
            )
        )

    def test_output(self) -> None:
        self.assertEqual('', self.guest.run('true'))
        self.assertEqual('a\n\nb', self.guest.run('echo a; echo; printf b'))
        self.assertEqual('ä', self.guest.run('printf ä; echo x >&2'))
        long = self.guest.run('seq 20000')
        self.assertEqual(''.join(f'{n}\n' for n in range(1, 20001)), long)

    def test_failure(self) -> None:
        error = self.assertRaises(
            CommandError, self.guest.run, 'echo out; ls /nowhere | cat; echo'
        )
        self.assertEqual((1, 'out\n'), (error.status, error.output))
        self.assertIn('/nowhere: No such file', error.errors)
        self.assertIn('/nowhere: No such file', str(error))

    def test_timeout(self) -> None:
        error = self.assertRaises(
            GuestTimeout, self.guest.run, 'echo far; sleep 987', timeout=5
        )
        self.assertIn('far', str(error))
        self.assertNotIn('sleep 987', self.guest.run('ps'))

    def test_disks(self) -> None:
        facts = [self.guest.disk(name) for name in ('vda', 'vdb', 'vdc')]
        self.assertEqual(
            [(64 * MIB, False), (32 * MIB, False), (16 * MIB, True)],
            [(fact.size, fact.read_only) for fact in facts],
        )
        # What the daemon says of all its disks.
        self.assertEqual({'vhost_user_blk'}, {f.serial for f in facts})

    def test_patterns(self) -> None:
        pattern.write(self.guest, 'vda', 'one', 3, 4)
        pattern.write(self.guest, 'vda', 'two', 5)
        pattern.write(self.guest, 'vda', 'three', 6 * 256 + 1, size=4096)
        self.assertEqual(
            [
                *(pattern.ZEROS, 'one', 'one', 'two'),
                *(pattern.DAMAGED, pattern.ZEROS),
            ],
            pattern.read(self.guest, 'vda', 2, 6),
        )
        self.assertEqual(
            [pattern.DAMAGED, 'three'],
            pattern.read(self.guest, 'vda', 6 * 256, 2, size=4096),
        )
        self.assertEqual(
            pattern.digest('one', 3, 2),
            pattern.read_digest(self.guest, 'vda', 3, 2),
        )
        with self.disks.image('first').open('rb') as image:
            image.seek(5 * MIB)
            self.assertEqual(pattern.content('two', 5), image.read(MIB))

    def test_read_only(self) -> None:
        error = self.assertRaises(
            CommandError, pattern.write, self.guest, 'vdc', 'x', 0
        )
        self.assertIn('Operation not permitted', error.errors)
        self.assertEqual([pattern.ZEROS], pattern.read(self.guest, 'vdc', 15))

    def test_jobs_beside_each_other(self) -> None:
        job = self.guest.start_job('seq 3; sleep 987')
        self.assertEqual('2', job.wait_line('2'))
        self.assertEqual('3', job.next_line())
        with futures.ThreadPoolExecutor(4) as pool:
            scripts = [f'sleep 0.2; echo {n}' for n in range(4)]
            self.assertEqual(
                ['0\n', '1\n', '2\n', '3\n'],
                list(pool.map(self.guest.run, scripts)),
            )
        self.assertRaises(GuestTimeout, job.next_line, timeout=0.1)
        self.assertTrue(job.running)
        self.guest.end_job(job)
        self.assertFalse(job.running)
        self.assertEqual(['1', '2', '3'], job.lines)
        self.assertEqual(137, self.assertRaises(CommandError, job.wait).status)
        self.assertIsNone(job.next_line())
        self.assertRaises(LookupError, job.wait_line, '4')

    def test_too_many_jobs(self) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                job = self.guest.start_job('sleep 987')
                stack.callback(self.guest.end_job, job)
            self.assertRaises(GuestError, self.guest.run, 'true')
        self.assertEqual('', self.guest.run('true'))

    def test_load(self) -> None:
        for mode in ('read', 'write'):
            rate = load.run(
                self.guest, 'vdb', mode, 1, count=8192, warm_up=0.2
            )
            # A busy host takes the second look later.
            self.assertLess(0.9, rate.seconds)
            self.assertLess(rate.seconds, 10)
            other = 'writes' if mode == 'read' else 'reads'
            self.assertEqual(0, getattr(rate, other))
            self.assertGreater(rate.iops, 10)
            # Both are counted, a moment apart.
            self.assertAlmostEqual(
                rate.iops, rate.bytes_per_second / 4096, delta=10
            )
        self.assertNotIn(' dd ', self.guest.run('ps'))

    def test_daemon_killed_under_a_writer(self) -> None:
        job = pattern.start_writer(self.guest, 'vdb', 'w', 0, 4096)
        job.wait_line('done 3')
        self.disks.restart(kill=True)
        known = len(job.lines)
        job.wait_line(f'done {known + 3}')
        self.guest.end_job(job)
        count = len(job.lines)
        self.assertEqual([f'done {n}' for n in range(count)], job.lines)
        self.assertEqual(
            pattern.digest('w', 0, count, 4096),
            pattern.read_digest(self.guest, 'vdb', 0, count, 4096),
        )

    def test_qmp(self) -> None:
        self.guest.qmp('stop')
        self.assertEqual('paused', self.guest.qmp('query-status')['status'])
        job = self.guest.start_job('echo on')
        self.assertRaises(GuestTimeout, job.wait, timeout=0.2)
        self.guest.qmp('cont')
        self.assertEqual('on\n', job.wait())
        self.assertIn(
            'device_del',
            str(self.assertRaises(GuestError, self.guest.qmp, 'device_del')),
        )

    def test_modules(self) -> None:
        self.guest.run('modprobe nvme-tcp')
        self.assertIn('nvme_fabrics', self.guest.run('cat /proc/modules'))


class BootFromDisk(GuestTestCase):
    @classmethod
    def start(cls, stack: contextlib.ExitStack) -> None:
        boot_image.build(cls.disks.image('system'))
        cls.disks.add('data', 16)
        cls.disks.add('system', 64)
        cls.disks.start()

    def test_life(self) -> None:
        guest = Guest(
            [
                Disk(self.disks.socket('data')),
                Disk(self.disks.socket('system'), boot_index=1),
            ]
        )
        with guest:
            line = guest.run('cat /proc/cmdline')
            self.assertIn('BOOT_IMAGE=', line)
            guest.run('dd if=/dev/zero of=/dev/vdb bs=1M seek=40 count=1')
            guest.run('echo cached | dd of=/dev/vda')
            pid = guest.pid
            guest.power_off()
            self.assertFalse(guest.running)
            self.assertRaises(GuestDied, guest.run, 'true')
        self.assertFalse(pathlib.Path(f'/proc/{pid}').exists())
        with self.disks.image('data').open('rb') as image:
            self.assertEqual(b'cached\n', image.read(7))


class Ends(base.BaseTestCase):
    """How guests don't start, or end."""

    def setUp(self) -> None:
        super().setUp()
        if reason := unavailable():
            self.skipTest(reason)

    def assert_nothing_left(self) -> None:
        # A test has a directory for temporary files of its own.
        left = pathlib.Path(tempfile.gettempdir()).glob('guest-*')
        self.assertEqual([], list(left))

    def test_panic(self) -> None:
        with Guest() as guest:
            job = guest.start_job('echo last words; sleep 987')
            job.wait_line('last words')
            error = self.assertRaises(
                GuestDied, guest.run, 'echo c >/proc/sysrq-trigger'
            )
            self.assertIn('Kernel panic', str(error))
            self.assertRaises(GuestDied, job.wait)
            self.assertRaises(GuestDied, guest.run, 'true')
            self.assertEqual(['last words'], job.lines)
        self.assertIn('Kernel panic', guest.console())
        self.assertRaises(GuestDied, guest.qmp, 'query-status')
        self.assert_nothing_left()

    def test_no_disk(self) -> None:
        guest = Guest([Disk('/nowhere/at.all')])
        error = self.assertRaises(GuestError, guest.start)
        self.assertIn('/nowhere/at.all', str(error))

    def test_qemu_refuses(self) -> None:
        guest = Guest(args=['-device', 'no-such'])
        error = self.assertRaises(GuestDied, guest.start)
        self.assertIn("'no-such' is not a valid", str(error))
        self.assert_nothing_left()

    def test_slow_boot(self) -> None:
        guest = Guest(boot_seconds=0.2, acceleration='tcg')
        self.assertRaises(GuestTimeout, guest.start)
        self.assertFalse(guest.running)
        self.assert_nothing_left()

    def test_death_of_who_started_it(self) -> None:
        program = (
            'import sys, threading\n'
            'from tests.fixtures.guest import Guest\n'
            'guest = Guest(incoming="defer", acceleration="tcg")\n'
            'starter = threading.Thread(target=guest.start)\n'
            'starter.start()\n'
            'starter.join()\n'
            'print(guest.qmp("query-status")["status"], guest.pid)\n'
            'sys.stdout.flush()\n'
            'sys.stdin.read()\n'
        )
        with (
            tempfile.TemporaryDirectory() as scratch,
            subprocess.Popen(
                [sys.executable, '-c', program],
                cwd=ROOT,
                env={'PATH': '/usr/bin:/bin:/usr/sbin', 'TMPDIR': scratch},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as parent,
        ):
            assert parent.stdout is not None
            status, pid = parent.stdout.readline().split()
            self.assertEqual('inmigrate', status)
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            deadline = time.monotonic() + 10
            while pathlib.Path(f'/proc/{pid}').exists():
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
