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

"""Replays recordings of a real SPDK target against the embedded one.

A recording is a list of cases (request and answer), which depend on order
and on the state that a target was in. What was done beside the requests (a
guest came, the target was restarted, a file grew) is in
:mod:`tests.conformance.scenarios`.
"""

from collections.abc import Callable, Iterator
import json
import os
import signal
import socket
import time
from typing import Any

from tests.conformance import compare, process

_DATA = os.path.join(os.path.dirname(__file__), 'data')

_OPEN = '<<nothing more; connection left open>>'
_CLOSED = '<<connection closed>>'
_RESET = '<<connection reset>>'
_SILENCE = '<<no response within 3s>>'
#: How long nothing must come until nothing is thought to come.
_QUIET = 0.15

Step = Callable[['Replay'], None]


class Scenario:
    """What a recording assumes and what happened beside it.

    :param after: the recordings that were made before on the same target
    :param prologue: makes what else there was
    :param before: what happened just before the case of that number
    """

    def __init__(
        self,
        after: tuple[str, ...] = (),
        prologue: Step | None = None,
        before: dict[int, Step] | None = None,
    ) -> None:
        self.after = after
        self.prologue = prologue
        self.before = before or {}


def load(recording: str) -> Iterator[dict[str, Any]]:
    """The cases of a recording."""
    path = os.path.join(_DATA, f'{recording}.jsonl')
    with open(path, encoding='utf-8') as file:
        for line in file:
            yield json.loads(line)


class Replay:
    """One run of a recording."""

    def __init__(self, directory: str) -> None:
        self._files = os.path.join(directory, 'files')
        os.mkdir(self._files)
        self.target = process.TargetProcess(directory, '--poll-ms', '0')
        self.names = compare.Names()
        self._paths = compare.Paths(self._files, self.target.vhost_dir)
        self._guests: dict[str, socket.socket] = {}
        self._background: list[process.Client] = []
        self._client: process.Client | None = None

    def start(self) -> None:
        """Start the target."""
        self.target.start()

    def close(self) -> None:
        """Leave nothing behind."""
        for guest in self._guests.values():
            guest.close()
        for client in self._background:
            client.close()
        self._hang_up()
        self.target.kill_if_running()

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # What scenarios are made of.

    def file(self, name: str, size: int) -> None:
        """Have a file of that size where the recording has its files."""
        path = os.path.join(self._files, name)
        with open(path, 'ab') as file:
            file.truncate(size)

    def key(self, name: str, text: str = '', mode: int = 0o600) -> None:
        """Have a key file there."""
        path = os.path.join(self._files, name)
        with open(path, 'w', encoding='ascii') as file:
            file.write(text)
        os.chmod(path, mode)

    def vhost_file(self, name: str) -> None:
        """Have a plain file among the vhost sockets."""
        path = os.path.join(self.target.vhost_dir, name)
        with open(path, 'wb'):
            pass

    def restart(self, number: int = signal.SIGKILL) -> None:
        """Stop the target and start it again."""
        self._hang_up()
        self.target.stop(number)
        self.target.start()

    def connect(self, controller: str) -> None:
        """A guest comes, and is given the time to start."""
        guest = socket.socket(socket.AF_UNIX)
        guest.connect(os.path.join(self.target.vhost_dir, controller))
        self._guests[controller] = guest
        self._until_sessions(controller, started=True)

    def disconnect(self, controller: str) -> None:
        """A guest leaves; its session is gone when this returns."""
        self._guests.pop(controller).close()
        self._until_sessions(controller, started=False)

    def _until_sessions(self, controller: str, *, started: bool) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            answer = self.ask('vhost_get_controllers', {'name': controller})
            if 'error' in answer:
                return  # its deletion was waiting for this
            sessions = answer['result'][0]['sessions']
            if [session['started'] for session in sessions] == [True] * (
                started
            ):
                return
            time.sleep(0.01)
        raise AssertionError(f'the session of {controller} did not change')

    def background(self, method: str, /, **params: Any) -> process.Client:
        """Send a request that won't be answered now."""
        client = self.target.client()
        client.start(method, params)
        self._background.append(client)
        time.sleep(_QUIET)
        return client

    def call(self, method: str, /, **params: Any) -> Any:
        """A request that the recording doesn't show; it must succeed."""
        answer = self.ask(method, params or None)
        assert 'result' in answer, (method, params, answer)
        return answer['result']

    def lvol(self, theirs: str, **params: Any) -> None:
        """A volume that the recording knows by its UUID."""
        assert self.names.bind(theirs, self.call('bdev_lvol_create', **params))

    def ask(self, method: str, params: Any, timeout: float = 30) -> Any:
        """The answer to a request, in the recording's words."""
        if self._client is None:
            self._client = self.target.client()
        if params is not None:
            params = json.loads(self._ours(json.dumps(params)))
        self._client.start(method, params)
        return self._client.receive(timeout)

    # How cases are replayed.

    def run(
        self, recording: str, scenario: Scenario
    ) -> Iterator[tuple[int, str, str | None]]:
        """Replay all cases: number, name, and where the answer differs."""
        if scenario.prologue is not None:
            scenario.prologue(self)
        steps = dict(scenario.before)
        for case in load(recording):
            for number in sorted(steps):
                if number <= case['n']:
                    steps.pop(number)(self)
            ours = self._replay(case['request'], case['response'])
            yield (
                case['n'],
                case['case'],
                compare.difference(
                    _without_id(case['request'], case['response']),
                    _without_id(case['request'], ours),
                    self.names,
                    self._paths,
                ),
            )

    def _ours(self, text: str) -> str:
        return self._paths.to_ours(self.names.translate(text))

    def _replay(self, request: Any, expected: Any) -> Any:
        if isinstance(request, list):
            return self._raw(self._ours(json.dumps(request)))
        if 'raw' in request:
            return self._raw(
                ''.join(text * times for text, times in request['raw'])
            )
        if expected == _SILENCE:
            client = self.background(request['method'], **request['params'])
            try:
                return client.receive(_QUIET)
            except TimeoutError:
                return _SILENCE
        return self.ask(request['method'], request.get('params'))

    def _raw(self, text: str) -> Any:
        client = self.target.client()
        answers: list[Any] = []
        try:
            client.send(text)
            while True:
                answers.append(client.receive(_QUIET))
        except TimeoutError:
            end = _OPEN
        except ConnectionResetError:
            end = _RESET
        except ConnectionError:
            end = _CLOSED
        finally:
            client.close()
        if end == _OPEN and len(answers) == 1:
            return {'reply': answers[0], 'then': end}
        return [*answers, end]


def _without_id(request: Any, answer: Any) -> Any:
    """Ids count where the recording made them up, not where it counted."""
    if isinstance(request, dict) and 'method' in request:
        if isinstance(answer, dict) and 'reply' in answer:
            answer = answer['reply']
        if isinstance(answer, dict):
            return {
                name: value for name, value in answer.items() if name != 'id'
            }
    return answer
