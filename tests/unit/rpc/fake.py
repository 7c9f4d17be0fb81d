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

"""A target that does what a test tells it, on a unix or TCP socket."""

from collections.abc import Callable
import contextlib
import json
import socket
import tempfile
import threading
from typing import Any

import fixtures

Script = Callable[['Peer'], None]

# Bounds a test that hangs; no result depends on it.
PATIENCE = 20.0
# How long nothing has to come for "nothing comes".
SILENCE = 0.1


class Peer:
    """The target's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(PATIENCE)
        self._decoder = json.JSONDecoder()
        self._text = ''
        self._sending = threading.Lock()

    def read(self) -> dict[str, Any] | None:
        """The next request; None when the client has hung up."""
        while True:
            with contextlib.suppress(ValueError):
                value, end = self._decoder.raw_decode(self._text)
                self._text = self._text[end:]
                return value
            chunk = self._sock.recv(1 << 16)
            if not chunk:
                return None
            self._text += chunk.decode()

    def read_some(self, count: int) -> list[dict[str, Any]]:
        requests = [self.read() for _ in range(count)]
        assert None not in requests, 'the client hung up'
        return requests

    def silent(self) -> bool:
        """Whether no request comes for a while."""
        self._sock.settimeout(SILENCE)
        try:
            return self.read() is None
        except TimeoutError:
            return True
        finally:
            self._sock.settimeout(PATIENCE)

    def send(self, data: bytes) -> None:
        with self._sending:
            self._sock.sendall(data)

    def answer(self, request: dict[str, Any], result: Any = True) -> None:
        self.send(reply(request, result))

    def echo(self) -> None:
        """Answer each request with its own parameters, for ever."""
        while request := self.read():
            self.answer(request, request.get('params'))

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def reply(request: dict[str, Any], result: Any = True) -> bytes:
    return json.dumps(
        {'jsonrpc': '2.0', 'id': request['id'], 'result': result}
    ).encode()


class FakeTarget(fixtures.Fixture):
    """Listens; the scripts are run one a connection, the last for the rest.

    A connection is closed when its script returns. What a script raises
    fails the test.
    """

    def __init__(self, *scripts: Script, tcp: bool = False) -> None:
        super().__init__()
        self._scripts = list(scripts)
        self._tcp = tcp
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._peers: list[Peer] = []
        self._refusing = False
        self.connections = 0

    def _setUp(self) -> None:
        if self._tcp:
            self._listener = socket.create_server(('127.0.0.1', 0))
            self.url = f'tcp://127.0.0.1:{self._listener.getsockname()[1]}'
        else:
            # The fixtures' TempDir may be too deep for a socket's path.
            where = tempfile.TemporaryDirectory(prefix='rpc-', dir='/tmp')
            self.addCleanup(where.cleanup)
            self.path = f'{where.name}/s'
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(self.path)
            self._listener.listen(128)
            self.url = f'unix://{self.path}'
        self.addCleanup(self._stop)
        self._start(self._accept)

    def refuse(self) -> None:
        """Stop listening; the connections stay."""
        # Nothing wakes both a native and a green thread from accept().
        self._refusing = True
        self._threads[0].join(PATIENCE)

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self._listener.settimeout(0.01)
        while not self._refusing:
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            script = self._scripts[
                min(self.connections, len(self._scripts) - 1)
            ]
            self.connections += 1
            peer = Peer(sock)
            self._peers.append(peer)
            self._start(self._run, script, peer)
        self._listener.close()

    def _run(self, script: Script, peer: Peer) -> None:
        try:
            script(peer)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client hung up
        except BaseException as error:
            self._failures.append(error)
        finally:
            peer.hang_up()

    def _stop(self) -> None:
        self.refuse()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), 'a script does not end'
        if self._failures:
            raise self._failures[0]
