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

from collections.abc import Callable
import threading
import time
from typing import Any

from oslotest import base

from cinder_spdk_vhost import rpc
from tests.unit.rpc import fake


def read(method: str = 'get', params: Any = None, **kwargs: Any) -> Any:
    return rpc.Request(method, params, mutates=False, **kwargs)


def write(method: str = 'create', params: Any = None, **kwargs: Any) -> Any:
    return rpc.Request(method, params, mutates=True, **kwargs)


class TestCase(base.BaseTestCase):
    def target(self, *scripts: fake.Script, **kwargs: Any) -> fake.FakeTarget:
        return self.useFixture(fake.FakeTarget(*scripts, **kwargs))

    def client(self, *scripts: fake.Script, **kwargs: Any) -> rpc.Client:
        """A client of a target that runs the scripts."""
        return self.client_of(self.target(*scripts, **kwargs))

    def client_of(self, target: fake.FakeTarget) -> rpc.Client:
        client = rpc.open_client(
            rpc.Endpoint.parse(target.url), timeout=fake.PATIENCE
        )
        # The client goes first, so that the scripts see the end.
        self.addCleanup(client.close)
        return client

    def wait_until(self, seen: Callable[[], Any]) -> None:
        end = time.monotonic() + fake.PATIENCE
        while not seen():
            assert time.monotonic() < end, 'it does not happen'
            time.sleep(0.001)

    def start(self, work: Callable[[], Any]) -> 'Task':
        return Task(work)


class Task:
    """Something that runs beside the test."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome: Any = self._work()
        except Exception as error:
            self._outcome = error

    def result(self) -> Any:
        """What it returned or raised."""
        self._thread.join(fake.PATIENCE)
        assert not self._thread.is_alive(), 'it does not end'
        return self._outcome
