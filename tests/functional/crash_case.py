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

"""What tests need that kill things under a guest."""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import time
from typing import Any

from testtools import content

from tests.fixtures import guest as guests
from tests.fixtures import target as targets
from tests.fixtures.guest import writers as guest_writers

#: Kill points of each of the tests that have them on their own target.
POINTS = int(os.environ.get('CRASH_POINTS', '24')) // 2
MIB = 1024**2


def seed() -> int:
    """What the kill points are drawn from; the environment can say it."""
    return int(os.environ.get('CRASH_SEED') or random.randrange(1 << 32))


def daemon_pid(target: targets.EmbeddedTarget) -> int | None:
    """The process of the target's that has the data, None without one."""
    path = pathlib.Path(f'/proc/{target.pid}/task/{target.pid}/children')
    for child in path.read_text().split():
        with contextlib.suppress(OSError):
            name = pathlib.Path(f'/proc/{child}/comm').read_text()
            if name.startswith('qemu-storage'):
                return int(child)
    return None


def wait_daemon(
    target: targets.EmbeddedTarget, other: int | None = None
) -> int:
    """Wait until there is a daemon, and another one than that."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        pid = daemon_pid(target)
        if pid is not None and pid != other:
            return pid
        time.sleep(0.01)
    raise TimeoutError('the storage daemon does not come back')


def kill(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def send(target: targets.Target, method: str, **params: Any) -> socket.socket:
    """Ask and don't wait; close what is returned."""
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(target.url.removeprefix('unix://'))
    request = {'jsonrpc': '2.0', 'id': 1, 'method': method, 'params': params}
    stream.sendall(json.dumps(request).encode())
    return stream


def host_disks_unavailable() -> str | None:
    """Why a target here can show no bdev to the host, None if it can."""
    if os.geteuid():
        return 'block devices of the host take root'
    for path in ('/dev/fuse', '/dev/loop-control'):
        if not os.path.exists(path):
            return f'no block devices of the host without {path}'
    return None


@contextlib.contextmanager
def host_disk(target: targets.Target, bdev: str) -> Any:
    """A block device of this host that shows a bdev."""
    device = target.rpc.call('nbd_start_disk', bdev_name=bdev)
    try:
        yield device
    finally:
        target.rpc.call('nbd_stop_disk', nbd_device=device)


def read_bdev(target: targets.Target, bdev: str, size: int) -> bytes:
    """The beginning of a bdev, as a program of this host reads it."""
    with host_disk(target, bdev) as device, open(device, 'rb') as file:
        return file.read(size)


def attach_story(test: Any, story: list[str]) -> None:
    """Show with a failure what was killed before."""
    test.addDetail('kills', content.text_content('\n'.join(story)))


def attach_details(test: Any, target: Any, story: list[str]) -> None:
    """Have a failure show what was killed and what the target said."""

    def attach(_: object) -> None:
        attach_story(test, story)
        log = target.log.read_text(errors='replace')
        test.addDetail('target.log', content.text_content(log[-6000:]))

    test.addOnException(attach)


class Victim:
    """A guest with writers, whose disk's servers are killed.

    :param restore: makes the target's controllers again after its start
    """

    def __init__(
        self,
        target: targets.EmbeddedTarget,
        guest: guests.Guest,
        restore: Any,
    ) -> None:
        self.target = target
        self.guest = guest
        self.writers = guest_writers.Writers(guest)
        self._restore = restore

    def kill(self, kind: str) -> None:
        """Kill what there is to kill, and bring it back.

        :param kind: ``target``, ``daemon``, ``both``, ``term``
        """
        daemon = daemon_pid(self.target)
        if kind == 'daemon':
            kill(daemon)
            wait_daemon(self.target, daemon)
            return
        if kind == 'both':
            kill(daemon)
        self.target.restart(kill=kind != 'term')
        self._restore()

    def check(self, bdev: str) -> list[str]:
        """What is wrong now, in the guest or on the disk, if anything."""
        writers = self.writers
        rounds = writers.pause()
        try:
            if host_disks_unavailable():
                data = writers.read()
            else:
                data = read_bdev(self.target, bdev, writers.size)
            found = writers.wrong(data, rounds, rounds)
            return found[:5] + writers.complaints().splitlines()
        finally:
            writers.resume()
