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

"""Connections that break, at every point of a call."""

import os
import threading

import ddt

from cinder_spdk_vhost import rpc
from tests.unit.rpc import base, fake


def after_nothing(peer):
    """Hang up on whoever connects."""


def after_the_request(peer):
    peer.read()


def in_the_answer(peer):
    peer.send(fake.reply(peer.read(), 'x' * 100)[:50])


def in_a_string(peer):
    peer.send(b'{"id": %d, "result": "\\' % peer.read()['id'])


def garbage(peer):
    peer.read()
    peer.send(b'not JSON')
    peer.read()


def broken_json(peer):
    peer.read()
    peer.send(b'{"id": 1, "result": nil}')
    peer.read()


def not_utf8(peer):
    peer.read()
    peer.send(b'{"id": 1, "result": "\xff\xff"}')
    peer.read()


def too_deep(peer):
    peer.read()
    peer.send(b'[' * 100_000 + b']' * 100_000)
    peer.read()


LOSSES = (after_the_request, in_the_answer, in_a_string)
GARBAGE = (garbage, broken_json, not_utf8, too_deep)


@ddt.ddt
class LossTest(base.TestCase):
    @ddt.data(*LOSSES, *GARBAGE)
    def test_a_mutation(self, loss):
        target = self.target(loss, fake.Peer.echo)
        client = self.client_of(target)
        error = self.assertRaises(
            rpc.OutcomeUnknown, client.call, base.write('bdev_lvol_create')
        )
        self.assertIn(target.url, str(error))
        self.assertIn('bdev_lvol_create', str(error))
        # Nothing was sent again, and the next call has a new connection.
        self.assertEqual(1, target.connections)
        self.assertEqual({'a': 1}, client.call(base.write('m', {'a': 1})))
        self.assertEqual(2, target.connections)

    def test_somebody_is_told_at_once(self):
        """Nobody needs to ask for anything."""
        go = threading.Event()

        def script(peer):
            peer.answer(peer.read())
            go.wait(fake.PATIENCE)

        client = self.client(script)
        told = threading.Event()
        client.when_lost(told.set)
        client.call(base.read())
        self.assertFalse(told.is_set())
        go.set()
        self.assertTrue(told.wait(fake.PATIENCE))

    def test_nobody_is_told_of_the_client_s_own_end(self):
        client = self.client(fake.Peer.echo)
        told = threading.Event()
        client.when_lost(told.set)
        client.call(base.read())
        client.close()
        self.assertFalse(told.is_set())

    @ddt.data(*LOSSES)
    def test_a_read_is_asked_again(self, loss):
        target = self.target(loss, fake.Peer.echo)
        client = self.client_of(target)
        self.assertEqual({'a': 1}, client.call(base.read('m', {'a': 1})))
        self.assertEqual(2, target.connections)

    @ddt.data(*LOSSES)
    def test_a_read_is_asked_again_once(self, loss):
        target = self.target(loss, loss, fake.Peer.echo)
        client = self.client_of(target)
        self.assertRaises(rpc.ConnectionLost, client.call, base.read())
        self.assertEqual(2, target.connections)

    @ddt.data(*GARBAGE)
    def test_garbage_for_a_read(self, loss):
        target = self.target(loss, fake.Peer.echo)
        client = self.client_of(target)
        error = self.assertRaises(rpc.ProtocolError, client.call, base.read())
        self.assertIn('JSON', str(error))
        self.assertEqual(1, target.connections)
        self.assertEqual({}, client.call(base.read('m', {})))

    def test_a_read_whose_target_went_away(self):
        target = self.target(lambda peer: peer.read() and target.refuse())
        client = self.client_of(target)
        self.assertRaises(rpc.ConnectionLost, client.call, base.read())

    def test_all_who_wait(self):
        def script(peer):
            first, *_ = peer.read_some(4)
            peer.send(fake.reply(first, 'answered') + b'{"id":')

        target = self.target(script, fake.Peer.echo)
        outcomes = self.client_of(target).gather(
            base.write(), base.write(), base.read('m', {}), base.write()
        )
        self.assertEqual('answered', outcomes[0])
        self.assertIsInstance(outcomes[1], rpc.OutcomeUnknown)
        self.assertEqual({}, outcomes[2])
        self.assertIsInstance(outcomes[3], rpc.OutcomeUnknown)

    def test_a_good_answer_before_garbage(self):
        def script(peer):
            first, _ = peer.read_some(2)
            peer.send(fake.reply(first, 'good') + b'garbage')
            peer.read()

        good, lost = self.client(script).gather(base.write(), base.write())
        self.assertEqual('good', good)
        self.assertIsInstance(lost, rpc.OutcomeUnknown)

    def test_what_had_no_place_yet_goes_elsewhere(self):
        def script(peer):
            for request in peer.read_some(64)[:10]:
                peer.answer(request, 'first')
            peer.read_some(10)

        target = self.target(script, fake.Peer.echo)
        outcomes = self.client_of(target).gather(*[base.write('m', {})] * 100)
        self.assertEqual(['first'] * 10, outcomes[:10])
        self.assertEqual({rpc.OutcomeUnknown}, set(map(type, outcomes[10:74])))
        self.assertEqual([{}] * 26, outcomes[74:])

    def test_a_mutation_after_a_restart(self):
        # The reader has seen the end: nothing may go to the dead connection.
        target = self.target(
            lambda peer: peer.answer(peer.read()), fake.Peer.echo
        )
        client = self.client_of(target)
        client.call(base.read())
        for thread in threading.enumerate():
            if thread.name == f'spdk-rpc {target.url}':
                thread.join(fake.PATIENCE)
        self.assertEqual({'a': 1}, client.call(base.write('m', {'a': 1})))
        self.assertEqual(2, target.connections)

    def test_a_mutation_right_after_a_restart(self):
        # Whether the reader has seen the end or not.
        target = self.target(*[lambda peer: peer.answer(peer.read(), {})] * 50)
        client = self.client_of(target)
        peers = target._peers
        for turn in range(50):
            self.assertEqual({}, client.call(base.write('m', {})))
            self.assertEqual(turn + 1, target.connections)
            self.wait_until(lambda: peers[-1]._sock.fileno() < 0)

    def test_a_target_that_hangs_up_on_everybody(self):
        target = self.target(after_nothing)
        client = self.client_of(target)
        for request in (base.read(), base.write()):
            self.assertRaises(rpc.TransportError, client.call, request)
        self.assertLessEqual(target.connections, 6)


@ddt.ddt
class ConnectTest(base.TestCase):
    @ddt.data(base.read(), base.write())
    def test_nobody_there(self, request):
        target = self.target(fake.Peer.echo)
        client = self.client_of(target)
        target.refuse()
        error = self.assertRaises(rpc.ConnectionFailed, client.call, request)
        self.assertIn(target.url, str(error))
        self.assertIn('refused', str(error))
        os.unlink(target.path)
        error = self.assertRaises(rpc.ConnectionFailed, client.call, request)
        self.assertIn('No such file', str(error))

    def test_tcp_refused(self):
        target = self.target(fake.Peer.echo, tcp=True)
        client = self.client_of(target)
        target.refuse()
        outcomes = client.gather(base.read(), base.write())
        self.assertEqual([rpc.ConnectionFailed] * 2, list(map(type, outcomes)))

    def test_a_full_queue(self):
        # Listens and never accepts: the connection is bounded too.
        target = self.target(fake.Peer.echo)
        target._listener.listen(0)
        clients = [self.client_of(target) for _ in range(3)]
        outcomes = [
            self.start(lambda c=c: c.call(base.write('m', {})))
            for c in clients
        ]
        self.assertEqual([{}] * 3, [task.result() for task in outcomes])

    def test_late_start(self):
        target = self.target(fake.Peer.echo)
        hidden = target.path + '-hidden'
        os.rename(target.path, hidden)
        client = self.client_of(target)
        self.assertRaises(rpc.ConnectionFailed, client.call, base.write())
        os.rename(hidden, target.path)
        self.assertEqual({}, client.call(base.write('m', {})))


class StalledTest(base.TestCase):
    """A target that reads nothing any more."""

    def test_in_the_middle_of_a_request(self):
        stop = threading.Event()
        target = self.target(
            lambda peer: stop.wait(fake.PATIENCE), fake.Peer.echo
        )
        client = self.client_of(target)
        self.addCleanup(stop.set)
        large = base.write('m', {'x': 'y' * 200_000}, timeout=1.0)
        outcomes = client.gather(*[large] * 20)
        kinds = list(map(type, outcomes))
        sent = kinds.count(rpc.OutcomeUnknown)
        self.assertGreater(sent, 0)
        self.assertEqual(
            [rpc.OutcomeUnknown] * sent + [rpc.ConnectionFailed] * (20 - sent),
            kinds,
        )
        # Half a request can't be taken back: a new connection.
        self.assertEqual({}, client.call(base.write('m', {})))
