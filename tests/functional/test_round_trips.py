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

"""What the driver's operations cost, however many volumes there are.

Counted on the wire; no test here looks at a clock.
"""

import contextlib
import pathlib
import tempfile
import uuid

from oslotest import base

from cinder_spdk_vhost import names, rpc
from cinder_spdk_vhost.spdk import lvol, nvmf
from tests.fixtures import driver as driver_fixture
from tests.fixtures import operations
from tests.fixtures import target as target_fixture
from tests.fixtures.tap import Tap

FEW, MANY = 10, 300

ROUND_TRIPS = {
    'create': 1,
    'delete': 2,
    'extend': 2,
    'create snapshot': 1,
    'revert to snapshot': 5,
    'delete snapshot': 3,
    'delete snapshot with dependents': 2,
    'create from snapshot': 1,
    'create from snapshot, larger': 2,
    'clone': 2,
    'clone, larger': 3,
    'attach': 3,
    'detach': 2,
    'attach remotely': 4,
    'attach remotely, second host': 3,
    'detach remotely, one of two': 2,
    'detach remotely': 3,
    # One more than without portals.
    'stats': 2,
}


class RoundTripsTestCase(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        driver_fixture.start_coordination(stack)
        directory = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix='spdk-'))
        )
        self.target = target_fixture.start(
            directory / 'spdk', {'pool': '100G'}
        )
        stack.callback(self.target.stop)
        self.pool = self.target.pools[0]
        self.tap = stack.enter_context(
            Tap(str(directory / 'tap.sock'), self.target.url)
        )
        self.client = stack.enter_context(
            rpc.open_client(rpc.Endpoint.parse(self.target.url))
        )
        self.driver = driver_fixture.make_driver(
            self.tap.url,
            spdk_pools=[self.pool],
            spdk_zeroing_pools=[self.pool],
            spdk_nvmf_portals=['tcp://127.0.0.1:4420', 'tcp://[::1]:4420'],
        )
        driver_fixture.set_up(self.driver)
        stack.callback(self.driver._janitor.stop)

        # The first of all attachments would make it, at a price.
        with contextlib.suppress(rpc.Exists):
            self.client.call(nvmf.create_transport('tcp'))

    def _fill(self, count: int) -> None:
        answers = self.client.gather(
            *(
                lvol.create(
                    self.pool,
                    names.volume(str(uuid.uuid4())),
                    1024,
                    thin=True,
                    clear_method='unmap',
                )
                for _ in range(count)
            )
        )
        self.assertEqual(
            [], [a for a in answers if isinstance(a, rpc.RPCError)]
        )

    def _count(self) -> dict[str, list[operations.Count]]:
        counter = operations.Counter(self.tap, self.driver._janitor)
        operations.volume_life(self.driver, self.pool, counter)
        operations.revert_life(self.driver, self.pool, counter)
        operations.attachment_life(
            self.driver, self.pool, self.target.lvstore_uuids(), counter
        )
        operations.remote_life(self.driver, self.pool, counter)
        return counter.counts

    def test_few_and_many_volumes(self) -> None:
        self._fill(FEW)
        few = self._count()
        self.assertEqual(
            ROUND_TRIPS,
            {name: counts[0].round_trips for name, counts in few.items()},
        )
        self._fill(MANY - FEW)
        # In the background, too.
        self.assertEqual(few, self._count())
        self.assertEqual(
            MANY, len(self.client.call(lvol.get_names(self.pool)))
        )
