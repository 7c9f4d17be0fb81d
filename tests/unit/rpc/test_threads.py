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

"""One client, many threads."""

import gc
import random
import threading

from cinder_spdk_vhost import rpc
from tests.unit.rpc import base, fake

THREADS = 64
CALLS = 12


class ThreadsTest(base.TestCase):
    def test_every_answer_belongs_to_its_call(self):
        most = 0

        def script(peer):
            nonlocal most
            pending, lock = [], threading.Lock()
            done = threading.Event()

            def answer():
                # In no order, a few at once, after a random while.
                rng = random.Random(1)
                while not done.wait(rng.random() / 500):
                    with lock:
                        rng.shuffle(pending)
                        count = rng.randrange(len(pending) + 1)
                        batch = [pending.pop() for _ in range(count)]
                    peer.send(
                        b''.join(fake.reply(r, r['params']) for r in batch)
                    )

            thread = threading.Thread(target=answer)
            thread.start()
            try:
                while request := peer.read():
                    with lock:
                        pending.append(request)
                        most = max(most, len(pending))
            finally:
                done.set()
                thread.join()

        target = self.target(script)
        client = self.client_of(target)
        failures = []

        def work(number):
            rng = random.Random(number)
            for turn in range(CALLS):
                asked = [
                    {'thread': number, 'turn': turn, 'place': place}
                    for place in range(rng.choice((1, 1, 2, 7)))
                ]
                got = client.gather(*[base.write('m', a) for a in asked])
                if got != asked:
                    failures.append((asked, got))

        tasks = [
            self.start(lambda number=number: work(number))
            for number in range(THREADS)
        ]
        for task in tasks:
            self.assertIsNone(task.result())
        self.assertEqual([], failures)
        self.assertLessEqual(most, 64)
        self.assertGreater(most, 32)
        self.assertEqual(THREADS * CALLS, client.round_trips)
        self.assertEqual(1, target.connections)

    def test_ids_are_never_used_again(self):
        idents = []

        def script(peer):
            for _ in range(50):
                request = peer.read()
                idents.append(request['id'])
                peer.answer(request)

        client = self.client(script)
        for _ in range(150):
            client.call(base.read())
        self.assertEqual(150, len(set(idents)))

    def test_one_connection_for_all_who_come_first(self):
        target = self.target(fake.Peer.echo)
        client = self.client_of(target)
        tasks = [
            self.start(lambda: client.call(base.read('m', {})))
            for _ in range(32)
        ]
        self.assertEqual([{}] * 32, [task.result() for task in tasks])
        self.assertEqual(1, target.connections)


class CloseTest(base.TestCase):
    def readers(self):
        return [
            thread
            for thread in threading.enumerate()
            if thread.name.startswith('spdk-rpc')
        ]

    def test_no_thread_outlives_it(self):
        before = len(self.readers())
        client = self.client(fake.Peer.echo)
        client.call(base.read())
        self.assertEqual(before + 1, len(self.readers()))
        for thread in self.readers():
            self.assertTrue(thread.daemon)
        client.close()
        self.assertEqual(before, len(self.readers()))
        client.close()

    def test_calls_under_way_fail(self):
        got = threading.Event()

        def script(peer):
            peer.read_some(2)
            got.set()
            assert peer.read() is None

        target = self.target(script)
        client = self.client_of(target)
        task = self.start(lambda: client.gather(base.read(), base.write()))
        got.wait(fake.PATIENCE)
        client.close()
        lost, unknown = task.result()
        self.assertIsInstance(lost, rpc.ConnectionLost)
        self.assertIsInstance(unknown, rpc.OutcomeUnknown)
        self.assertEqual(1, target.connections)

    def test_later_calls_fail(self):
        target = self.target(fake.Peer.echo)
        with self.client_of(target) as client:
            client.call(base.read())
        error = self.assertRaises(
            rpc.ConnectionFailed, client.call, base.write()
        )
        self.assertIn('closed', str(error))
        self.assertEqual(1, target.connections)

    def test_unused(self):
        target = self.target(fake.Peer.echo)
        self.client_of(target).close()
        gc.collect()
        self.assertEqual(0, target.connections)
