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

"""The embedded target where its storage daemon is not what it should be."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

from tests.fixtures import target as targets
from tests.functional import data_case
from tests.functional.data_case import DAEMON, ROOT


class NoDaemon(data_case.DataTestCase):
    """The daemon is missing, or not what it should be."""

    def fake(self, script: str | None) -> dict[str, str]:
        """An environment in which the daemon is that script, or missing."""
        programs = self.directory / 'bin'
        programs.mkdir(exist_ok=True)
        for name in ('setpriv', 'sh', 'sleep', 'losetup', 'umount'):
            path = shutil.which(name)
            with contextlib.suppress(FileExistsError):
                os.symlink(str(path), programs / name)
        (programs / DAEMON).unlink(missing_ok=True)
        if script is not None:
            (programs / DAEMON).write_text(f'#!/bin/sh\n{script}\n')
            (programs / DAEMON).chmod(0o755)
        return {**os.environ, 'PATH': str(programs)}

    def begin(self, script: str | None, *arguments: str) -> Any:
        return subprocess.Popen(
            [
                *(sys.executable, '-m', 'cinder_spdk_vhost.cmd.target'),
                *('--socket', str(self.directory / 'other.sock')),
                *('--state-dir', str(self.directory / 'other')),
                *arguments,
            ],
            cwd=ROOT,
            env=self.fake(script),
            stderr=subprocess.PIPE,
            text=True,
        )

    def refuses(
        self, script: str | None, *arguments: str, seconds: float = 10
    ) -> str:
        """What a target that does not start has to say."""
        process = self.begin(script, *arguments)
        try:
            _, said = process.communicate(timeout=seconds + 30)
        finally:
            process.kill()
            process.wait()
        self.assertEqual(1, process.returncode, said)
        self.assertNotIn('Traceback', said)
        return said

    def old(self) -> str:
        """What answers as an old one does."""
        program = self.directory / 'old.py'
        program.write_text(
            'import json, re, socket, sys\n'
            'fd = int(re.search(r"fd=(\\d+)", " ".join(sys.argv))[1])\n'
            'with socket.socket(fileno=fd) as s:\n'
            '    version = {"major": 5, "minor": 2, "micro": 0}\n'
            '    about = {"version": {"qemu": version, "package": ""},\n'
            '             "capabilities": []}\n'
            '    s.sendall(json.dumps({"QMP": about}).encode() + b"\\n")\n'
            '    s.recv(1000)\n'
            '    s.sendall(b\'{"return": {}}\\n\')\n'
            '    s.recv(1000)\n'
        )
        return f'exec {sys.executable} {program} "$@"'

    def test_refused(self) -> None:
        qsd = ('--data', 'qsd')
        self.assertIn(f'{DAEMON} is not installed', self.refuses(None, *qsd))
        self.assertIn(
            f'{DAEMON} is 5.2.0, needed is 7.2 or later',
            self.refuses(self.old(), *qsd),
        )
        said = self.refuses('echo bad option >&2; exit 1', *qsd)
        self.assertIn(f'{DAEMON} does not answer', said)
        self.assertIn('bad option', said)
        begin = time.monotonic()
        said = self.refuses('exec sleep 987', *qsd)
        self.assertIn(f'{DAEMON} does not answer', said)
        self.assertLess(time.monotonic() - begin, 40)

    def test_books_alone(self) -> None:
        for script in (None, self.old(), 'exit 1'):
            process = self.begin(script)
            socket = self.directory / 'other.sock'
            rpc = targets.Rpc(f'unix://{socket}')
            deadline = time.monotonic() + 20
            while not rpc_answers(rpc):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
            self.assertEqual(0, process.returncode, said)
            self.assertEqual(1, said.count('no data is kept'), said)

    def test_images_without_it(self) -> None:
        self.need_host_disks()
        self.write(self.volume('volume'), b'data')
        self.target.stop()
        state = ('--state-dir', str(self.directory / 'state'))
        said = self.refuses(None, *state)
        self.assertIn('have data, and nobody to keep it', said)
        self.assertIn(f'{DAEMON} is not installed', said)
        self.target.start()
        self.assertEqual(b'data', self.read('pool/volume', 4))


def rpc_answers(rpc: targets.Rpc) -> bool:
    with contextlib.suppress(OSError):
        return bool(rpc.call('spdk_get_version'))
    return False
