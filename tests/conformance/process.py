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

"""An embedded target as a process, for tests."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any


def temporary_directory() -> str:
    """A directory for a target; in memory, if there is such a place."""
    memory = '/dev/shm' if os.path.isdir('/dev/shm') else None
    return tempfile.mkdtemp(prefix='spdk-', dir=memory)


class Client:
    """One plain connection to an RPC socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._text = ''
        self._last = 0

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def send(self, text: str) -> None:
        """Send some text as it is."""
        try:
            self._socket.settimeout(10)
            self._socket.sendall(text.encode())
        except (BrokenPipeError, ConnectionResetError):
            pass  # what the other side does is seen when receiving

    def receive(self, timeout: float) -> Any:
        """One JSON value.

        :raises TimeoutError: nothing came
        :raises ConnectionError: the other side hung up
        """
        deadline = time.monotonic() + timeout
        while True:
            text = self._text.lstrip()
            try:
                value, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                pass
            else:
                self._text = text[end:]
                return value
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(1 << 20)
            if not data:
                raise ConnectionAbortedError
            self._text += data.decode()

    def start(self, method: str, params: Any = None) -> int:
        """Send one request; returns its id."""
        self._last += 1
        request = {'jsonrpc': '2.0', 'id': self._last, 'method': method}
        if params is not None:
            request['params'] = params
        self.send(json.dumps(request))
        return self._last

    def request(self, method: str, params: Any = None) -> Any:
        """The whole answer to one request."""
        self.start(method, params)
        return self.receive(30)

    def call(self, method: str, /, **params: Any) -> Any:
        """The result of one request."""
        answer = self.request(method, params or None)
        if 'error' in answer:
            raise AssertionError(f'{method}: {answer["error"]}')
        return answer['result']


class TargetProcess:
    """A target in a process of its own.

    :param directory: where its socket and its state are
    """

    def __init__(self, directory: str, *options: str) -> None:
        self.directory = directory
        self.socket = os.path.join(directory, 'rpc.sock')
        self.vhost_dir = os.path.join(directory, 'vhost')
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def command(self, *options: str) -> list[str]:
        """How it is started."""
        return [
            sys.executable,
            '-m',
            'cinder_spdk_vhost.cmd.target',
            # Its guests are connections that speak no vhost-user.
            '--data=none',
            '--socket',
            self.socket,
            '--state-dir',
            os.path.join(self.directory, 'state'),
            '--vhost-dir',
            self.vhost_dir,
            *(options or self._options),
        ]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            self.command(), stderr=subprocess.PIPE
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if b'listening' in line:
                return
        raise AssertionError('the target did not start')

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait; returns its exit code."""
        assert self._process is not None
        assert self._process.stderr is not None
        self._process.send_signal(number)
        code = self._process.wait(20)
        self._process.stderr.close()
        self._process = None
        return code

    def kill_if_running(self) -> None:
        """For cleaning up."""
        if self._process is not None:
            self.stop(signal.SIGKILL)

    def client(self) -> Client:
        """A connection to it."""
        return Client(self.socket)
