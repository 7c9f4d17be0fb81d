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

"""The volumes that are in the pool while something else is measured."""

import time
import uuid

from progress import say

from cinder_spdk_vhost import names, rpc
from cinder_spdk_vhost.spdk import lvol

# So many go to the client at a time; it keeps 64 of them in flight.
_CHUNK = 500
_SAY_SECONDS = 5
_MIB = 1024


def create(pool: str, name: str) -> rpc.Request[str]:
    """What the driver sends for an empty thin volume of 1 GiB."""
    return lvol.create(pool, name, _MIB, thin=True, clear_method='unmap')


def new_name() -> str:
    return names.volume(str(uuid.uuid4()))


class Population:
    """Thin volumes of 1 GiB, named as the driver names its own."""

    def __init__(self, client: rpc.Client, pool: str) -> None:
        self._client = client
        self._pool = pool
        self._names: list[str] = []

    def grow_to(self, count: int) -> None:
        begin = time.monotonic()
        made = [new_name() for _ in range(count - len(self._names))]
        self._send([create(self._pool, name) for name in made], 'created')
        self._names += made
        took = time.monotonic() - begin
        if made:
            say(f'{count} volumes in the pool ({len(made)} in {took:.1f} s)')

    def clear(self) -> None:
        self.remove(self._names)
        self._names = []

    def remove(self, volumes: list[str]) -> None:
        """Delete volumes of the pool by their lvols' names."""
        self._send(
            [lvol.delete(names.path(self._pool, v), 0) for v in volumes],
            'deleted',
        )

    def _send(self, requests: list[rpc.Request], what: str) -> None:
        said = time.monotonic()
        for start in range(0, len(requests), _CHUNK):
            answers = self._client.gather(*requests[start : start + _CHUNK])
            for answer in answers:
                if isinstance(answer, rpc.RPCError):
                    raise answer
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                say(f'{start + len(answers)} of {len(requests)} {what}')
