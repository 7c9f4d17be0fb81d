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

"""Answers, however they come."""

import itertools
import json

import ddt

from cinder_spdk_vhost import rpc
from tests.unit.rpc import base, fake

VALUE = {'name': 'a "quoted" {name]', 'é€😀': [1, {'x': None}]}


@ddt.ddt
class AnswersTest(base.TestCase):
    def test_a_call(self):
        requests = []

        def script(peer):
            requests.extend(peer.read_some(2))
            for request in requests:
                peer.answer(request, VALUE)

        client = self.client(script)
        both = client.gather(
            base.read('m', {'a': 'é', 'b': [1]}), base.write('n')
        )
        self.assertEqual([VALUE, VALUE], both)
        for request in requests:
            self.assertIsInstance(request.pop('id'), int)
        self.assertEqual(
            [
                {
                    'jsonrpc': '2.0',
                    'method': 'm',
                    'params': {'a': 'é', 'b': [1]},
                },
                # Methods without parameters refuse even an empty member.
                {'jsonrpc': '2.0', 'method': 'n'},
            ],
            requests,
        )

    def test_parsed(self):
        client = self.client(fake.Peer.echo)
        request = base.read('m', {'n': 20}, parse=lambda r: r['n'] + 1)
        self.assertEqual(21, client.call(request))
        self.assertEqual([21], client.gather(request))

    def test_parser_meets_the_unexpected(self):
        client = self.client(fake.Peer.echo)
        request = base.read('m', {}, parse=lambda result: result['n'])
        error = self.assertRaises(rpc.ProtocolError, client.call, request)
        self.assertIsInstance(error.__cause__, KeyError)
        self.assertIsInstance(client.gather(request)[0], rpc.ProtocolError)

    def test_parser_raises_an_error_of_ours(self):
        def parse(result):
            raise rpc.NotFound('m', -19, 'not in the list')

        client = self.client(fake.Peer.echo)
        request = base.read('m', {}, parse=parse)
        self.assertRaises(rpc.NotFound, client.call, request)
        self.assertIsInstance(client.gather(request)[0], rpc.NotFound)

    def test_parameters_that_are_not_json(self):
        client = self.client(fake.Peer.echo)
        for params in ({'a': object()}, {'a': float('nan')}):
            self.assertRaises(
                (TypeError, ValueError), client.call, base.read('m', params)
            )
        self.assertEqual({}, client.call(base.read('m', {})))

    @ddt.data(None, False, 0, '', [], {})
    def test_empty_results(self, value):
        client = self.client(lambda peer: peer.answer(peer.read(), value))
        self.assertEqual(value, client.call(base.read()))

    def test_an_error(self):
        def script(peer):
            request = peer.read()
            error = {'code': -19, 'message': 'No such device'}
            answer = {'jsonrpc': '2.0', 'id': request['id'], 'error': error}
            peer.send(json.dumps(answer).encode())
            peer.echo()

        client = self.client(script)
        error = self.assertRaises(
            rpc.NotFound, client.call, base.write('bdev_lvol_delete')
        )
        self.assertEqual('bdev_lvol_delete', error.method)
        self.assertEqual(1, client.call(base.write('m', {'a': 1}))['a'])

    @ddt.data({}, {'error': None}, {'answer': 42})
    def test_neither_result_nor_error(self, rest):
        def script(peer):
            request = peer.read()
            peer.send(json.dumps({'id': request['id'], **rest}).encode())
            peer.echo()

        client = self.client(script)
        self.assertRaises(rpc.ProtocolError, client.call, base.write())
        self.assertEqual({}, client.call(base.write('m', {})))

    def test_split_at_every_byte(self):
        def script(peer):
            while request := peer.read():
                data = fake.reply(request, VALUE)
                at = request['params']['at'] % len(data)
                peer.send(data[:at])
                peer.send(data[at:])

        client = self.client(script)
        size = len(fake.reply({'id': 100}, VALUE))
        for at in range(size):
            got = client.call(base.read('m', {'at': at}))
            self.assertEqual(VALUE, got)

    def test_byte_by_byte(self):
        def script(peer):
            requests = peer.read_some(3)
            for byte in b' \n'.join(
                fake.reply(request, VALUE) for request in requests
            ):
                peer.send(bytes([byte]))

        client = self.client(script)
        got = client.gather(*[base.read()] * 3)
        self.assertEqual([VALUE] * 3, got)

    def test_several_in_one_read_in_every_order(self):
        orders = list(itertools.permutations(range(4)))

        def script(peer):
            for order in orders:
                requests = peer.read_some(4)
                peer.send(
                    b''.join(
                        fake.reply(requests[i], requests[i]['params'])
                        for i in order
                    )
                )

        client = self.client(script)
        asked = [{'n': n} for n in range(4)]
        for _ in orders:
            got = client.gather(*[base.read('m', params) for params in asked])
            self.assertEqual(asked, got)

    def test_as_a_batch(self):
        def script(peer):
            requests = peer.read_some(3)
            answers = [
                json.loads(fake.reply(request, request['params']))
                for request in reversed(requests)
            ]
            peer.send(json.dumps(answers).encode())

        client = self.client(script)
        asked = [{'n': n} for n in range(3)]
        got = client.gather(*[base.read('m', params) for params in asked])
        self.assertEqual(asked, got)

    def test_32_mib(self):
        item = {'name': 'lvol]}"\\', 'aliases': ['x' * 1000], 'n': 1}
        text = json.dumps(item)
        count = 32 * 1024 * 1024 // len(text) + 1

        def script(peer):
            request = peer.read()
            data = b'{"id": %d, "result": [%s]}' % (
                request['id'],
                ','.join([text] * count).encode(),
            )
            assert len(data) >= 32 * 1024 * 1024
            peer.send(data)
            peer.echo()

        client = self.client(script)
        got = client.call(base.read())
        self.assertTrue(got == [item] * count)  # a failure must not print it
        self.assertEqual({}, client.call(base.read('m', {})))

    @ddt.data('null', '"1"', '1.0', 'true', '-1', '[1]', '99')
    def test_ids_of_nobody(self, ident):
        # The first request's id is 1: 1.0 and true are equal to it in Python.
        def script(peer):
            request = peer.read()
            peer.send(b'{"id": %s, "result": "wrong"}' % ident.encode())
            peer.send(b'[] [1, "x"]')
            peer.answer(request, 'right')

        self.assertEqual('right', self.client(script).call(base.read()))

    def test_gather_mixes_outcomes(self):
        def script(peer):
            good, bad, never = peer.read_some(3)
            error = {'code': -17, 'message': 'File exists'}
            peer.send(json.dumps({'id': bad['id'], 'error': error}).encode())
            peer.answer(good, 'good')
            assert peer.read() is None

        client = self.client(script)
        good, bad, never = client.gather(
            base.read(), base.write(), base.write(timeout=0.5)
        )
        self.assertEqual('good', good)
        self.assertIsInstance(bad, rpc.Exists)
        self.assertIsInstance(never, rpc.OutcomeUnknown)

    def test_a_gather_travels_in_one_piece(self):
        # The first read of the target gets all of it.
        def script(peer):
            first = peer.read()
            assert peer._text.count('"id"') == 49, peer._text
            peer.answer(first)
            peer.echo()

        client = self.client(script)
        client.gather(*[base.read()] * 50)

    def test_round_trips(self):
        client = self.client(fake.Peer.echo)
        self.assertEqual(0, client.round_trips)
        self.assertEqual([], client.gather())
        self.assertEqual(0, client.round_trips)
        client.call(base.read())
        client.gather(*[base.read()] * 200)
        self.assertEqual(2, client.round_trips)

    def test_too_large_a_request(self):
        # SPDK would close the connection, on everybody.
        client = self.client(fake.Peer.echo)
        large = base.write('m', {'x': 'y' * 256 * 1024})
        error, good = client.gather(large, base.read('m', {}))
        self.assertIsInstance(error, rpc.ConnectionFailed)
        self.assertIn('262144', str(error))
        self.assertEqual({}, good)

    def test_large_requests(self):
        client = self.client(fake.Peer.echo)
        params = {'x': 'y' * 250 * 1024}
        got = client.gather(*[base.write('m', params)] * 9)
        self.assertTrue(got == [params] * 9)

    def test_over_tcp(self):
        client = self.client(fake.Peer.echo, tcp=True)
        self.assertEqual({'a': 1}, client.call(base.read('m', {'a': 1})))
