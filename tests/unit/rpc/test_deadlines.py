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

"""Answers that come late or never, and the 64 places in flight."""

import threading

from cinder_spdk_vhost import rpc
from cinder_spdk_vhost.rpc import window
from tests.unit.rpc import base, fake

# A deadline that passes, whether the request was sent or not.
SHORT = 0.05
# One that passes after the request was sent, on a busy machine too.
SENT = 0.5


class DeadlinesTest(base.TestCase):
    def test_never(self):
        client = self.client(lambda peer: peer.read_some(2) and peer.read())
        read, write = client.gather(
            base.read('r', timeout=SENT), base.write('w', timeout=SENT)
        )
        self.assertIsInstance(read, rpc.CallTimeout)
        self.assertIn('0.5 s', str(read))
        self.assertIsInstance(write, rpc.OutcomeUnknown)
        self.assertIn('unknown', str(write))

    def test_the_clients_deadline(self):
        target = self.target(lambda peer: peer.read() and peer.read())
        client = rpc.open_client(rpc.Endpoint.parse(target.url), SENT)
        self.addCleanup(client.close)
        self.assertRaises(rpc.CallTimeout, client.call, base.read())

    def test_a_deadline_that_has_passed(self):
        client = self.client(fake.Peer.echo)
        for timeout in (0, -1):
            self.assertRaises(
                rpc.ConnectionFailed,
                client.call,
                base.write(timeout=timeout),
            )
        self.assertEqual({}, client.call(base.write('m', {})))

    def test_late_answers_reach_nobody(self):
        def script(peer):
            late = peer.read_some(3)
            request = peer.read()
            peer.send(b''.join(fake.reply(r, 'late') for r in late))
            peer.answer(request, 'mine')
            peer.answer(request, 'again')
            peer.echo()

        target = self.target(script)
        client = self.client_of(target)
        late = client.gather(*[base.read(timeout=SENT)] * 3)
        self.assertEqual([rpc.CallTimeout] * 3, list(map(type, late)))
        self.assertEqual('mine', client.call(base.read()))
        self.assertEqual({'a': 1}, client.call(base.read('m', {'a': 1})))
        self.assertEqual(1, target.connections)

    def test_one_deadline_does_not_hold_the_others(self):
        def script(peer):
            never, slow, quick = peer.read_some(3)
            peer.answer(quick, 'quick')
            assert peer.silent()
            peer.answer(slow, 'slow')
            peer.read()

        client = self.client(script)
        never, slow, quick = client.gather(
            base.read(timeout=SENT), base.read(), base.read()
        )
        self.assertIsInstance(never, rpc.CallTimeout)
        self.assertEqual(['slow', 'quick'], [slow, quick])


class WindowTest(base.TestCase):
    def test_64_in_flight(self):
        seen = []

        def script(peer):
            for _ in range(3):
                requests = peer.read_some(64)
                seen.append(peer.silent())
                peer.send(b''.join(map(fake.reply, reversed(requests))))
            for request in peer.read_some(8):
                peer.answer(request)

        client = self.client(script)
        self.assertEqual([True] * 200, client.gather(*[base.write()] * 200))
        self.assertEqual([True] * 3, seen)

    def test_each_answer_makes_room_for_one(self):
        def script(peer):
            requests = peer.read_some(64)
            for _ in range(36):
                peer.answer(requests.pop())
                requests += peer.read_some(1)
            assert peer.silent()
            for request in requests:
                peer.answer(request)

        client = self.client(script)
        self.assertEqual([True] * 100, client.gather(*[base.write()] * 100))

    def test_no_room_within_the_deadline(self):
        full, go = threading.Event(), threading.Event()

        def script(peer):
            requests = peer.read_some(64)
            full.set()
            assert go.wait(fake.PATIENCE)
            for request in requests:
                peer.answer(request)
            peer.echo()

        client = self.client(script)
        first = self.start(lambda: client.gather(*[base.write()] * 64))
        full.wait(fake.PATIENCE)
        error = self.assertRaises(
            rpc.ConnectionFailed, client.call, base.write(timeout=SHORT)
        )
        self.assertIn('64 places', str(error))
        results = client.gather(*[base.write(timeout=SHORT)] * 3)
        self.assertEqual([rpc.ConnectionFailed] * 3, list(map(type, results)))
        go.set()
        self.assertEqual([True] * 64, first.result())
        self.assertEqual({}, client.call(base.write('m', {})))

    def test_those_who_wait_are_served(self):
        full, go = threading.Event(), threading.Event()

        def script(peer):
            requests = peer.read_some(64)
            full.set()
            assert go.wait(fake.PATIENCE)
            for request in requests:
                peer.answer(request)
            peer.echo()

        client = self.client(script)
        first = self.start(lambda: client.gather(*[base.write()] * 64))
        full.wait(fake.PATIENCE)
        # Some of them give up; that must not cost the others their turn.
        tasks = [
            self.start(
                lambda n=n: client.gather(
                    *[
                        base.write(
                            'm',
                            {'n': n},
                            timeout=SHORT if n % 3 == 0 else None,
                        )
                    ]
                    * (n % 5 + 1)
                )
            )
            for n in range(40)
        ]
        for n in range(0, 40, 3):
            for outcome in tasks[n].result():
                self.assertIsInstance(outcome, rpc.ConnectionFailed)
        go.set()
        self.assertEqual([True] * 64, first.result())
        for n, task in enumerate(tasks):
            if n % 3:
                self.assertEqual([{'n': n}] * (n % 5 + 1), task.result())

    def test_all_the_room_is_used(self):
        # Many answers in one piece wake everybody who then has room.
        full, go = threading.Event(), threading.Event()

        def script(peer):
            requests = peer.read_some(64)
            full.set()
            assert go.wait(fake.PATIENCE)
            peer.send(b''.join(map(fake.reply, requests)))
            requests = peer.read_some(20)
            peer.send(b''.join(map(fake.reply, requests)))

        client = self.client(script)
        first = self.start(lambda: client.gather(*[base.write()] * 64))
        full.wait(fake.PATIENCE)
        tasks = [
            self.start(lambda: client.call(base.write())) for _ in range(20)
        ]
        waiting = client._transport._current._window
        self.wait_until(lambda: waiting._waiting == 20)
        go.set()
        self.assertEqual([True] * 64, first.result())
        self.assertEqual([True] * 20, [task.result() for task in tasks])

    def test_the_overdue_keep_their_places(self):
        gone = window.MAX_ABANDONED - 1

        def script(peer):
            late = peer.read_some(gone)
            requests = peer.read_some(64 - gone)
            assert peer.silent()
            peer.send(b''.join(map(fake.reply, late)))
            requests += peer.read_some(gone)
            for request in requests:
                peer.answer(request, 'mine')
            peer.read()

        target = self.target(script)
        client = self.client_of(target)
        late = client.gather(*[base.read(timeout=SENT)] * gone)
        self.assertEqual([rpc.CallTimeout] * gone, list(map(type, late)))
        self.assertEqual(['mine'] * 64, client.gather(*[base.write()] * 64))
        self.assertEqual(1, target.connections)

    def test_too_many_overdue(self):
        # Requests that are never answered must not use the window up.
        ended = threading.Event()

        def stuck(peer):
            others = peer.read_some(1)
            peer.read_some(window.MAX_ABANDONED)
            # The one that somebody still waits for is not given up.
            assert peer.silent()
            peer.answer(others[0], 'patience')
            assert peer.read() is None
            ended.set()

        target = self.target(stuck, fake.Peer.echo)
        client = self.client_of(target)
        patient = self.start(lambda: client.call(base.write()))
        self.wait_until(lambda: target.connections)
        late = client.gather(
            *[base.write(timeout=SENT)] * window.MAX_ABANDONED
        )
        self.assertEqual({rpc.OutcomeUnknown}, set(map(type, late)))
        self.assertEqual({'a': 1}, client.call(base.write('m', {'a': 1})))
        self.assertEqual('patience', patient.result())
        self.assertTrue(ended.wait(fake.PATIENCE))
        self.assertEqual(2, target.connections)
