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

"""The HTTP transport, with a server like SPDK's rpc_http_proxy.py."""

import json
import socket
import threading
import time
from unittest import mock

import ddt
import fixtures

from cinder_spdk_vhost import rpc
from cinder_spdk_vhost.rpc import http
from tests.unit.rpc import base, fake, fake_http

# A deadline that passes after the request was sent, on a busy machine too.
SENT = 0.5


def status(code, body=b'', **headers):
    return lambda handler, request: handler.reply(code, body, **headers)


def hang_up(handler, request):
    """What the proxy does when the target is not there."""


def cut_off(handler, request):
    handler.send_response(200)
    handler.send_header('Content-Length', '1000')
    handler.end_headers()
    handler.wfile.write(b'{"jsonrpc"')


class HTTPTestCase(base.TestCase):
    def proxy(self, *args, **kwargs):
        return self.useFixture(fake_http.FakeProxy(*args, **kwargs))

    def client_of(
        self,
        proxy,
        username=fake_http.USERNAME,
        password=fake_http.PASSWORD,
        **kwargs,
    ):
        endpoint = rpc.Endpoint.parse(proxy.url, username, password, **kwargs)
        client = rpc.open_client(endpoint, timeout=fake.PATIENCE)
        self.addCleanup(client.close)
        return client


@ddt.ddt
class HTTPTest(HTTPTestCase):
    @ddt.data('HTTP/1.0', 'HTTP/1.1')
    def test_calls(self, version):
        proxy = self.proxy(version=version)
        client = self.client_of(proxy)
        for n in range(3):
            asked = {'n': n, 'text': 'é'}
            self.assertEqual(asked, client.call(base.write('m', asked)))
        self.assertEqual(
            {
                'jsonrpc': '2.0',
                'id': 1,
                'method': 'm',
                'params': {'n': 0, 'text': 'é'},
            },
            proxy.requests[0],
        )
        self.assertEqual(3, client.round_trips)

    def test_an_error_comes_with_status_200(self):
        def behave(handler, request):
            error = {'code': -19, 'message': 'No such device'}
            body = json.dumps({'id': request['id'], 'error': error})
            handler.reply(200, body.encode())

        client = self.client_of(self.proxy(behave))
        self.assertRaises(rpc.NotFound, client.call, base.write())

    @ddt.data((None, None), ('admin', 'wrong'), ('root', fake_http.PASSWORD))
    def test_wrong_credentials(self, credentials):
        proxy = self.proxy()
        client = self.client_of(proxy, *credentials)
        for request in (base.read(), base.write()):
            error = self.assertRaises(rpc.Unauthorized, client.call, request)
            self.assertIsInstance(error, rpc.ConnectionFailed)
            self.assertIn('401', str(error))
            self.assertIn(proxy.url, str(error))
        self.assertEqual(2, proxy.unauthorized)
        self.assertEqual([], proxy.requests)

    @ddt.data(403, 404, 405)
    def test_refused(self, code):
        client = self.client_of(self.proxy(status(code)))
        for request in (base.read(), base.write()):
            error = self.assertRaises(
                rpc.ConnectionFailed, client.call, request
            )
            self.assertIn(str(code), str(error))

    @ddt.data(301, 302, 307, 308)
    def test_redirects_are_not_followed(self, code):
        other = self.proxy()
        client = self.client_of(self.proxy(status(code, Location=other.url)))
        error = self.assertRaises(
            rpc.ConnectionFailed, client.call, base.write()
        )
        self.assertIn(str(code), str(error))
        self.assertEqual([], other.requests)

    @ddt.data(
        status(500),
        status(502, b'<html>'),
        status(504),
        status(400),
        status(200),
        hang_up,
        cut_off,
    )
    def test_lost(self, behave):
        proxy = self.proxy(behave)
        client = self.client_of(proxy)
        self.assertRaises(rpc.OutcomeUnknown, client.call, base.write())
        self.assertEqual(1, len(proxy.requests))
        self.assertRaises(rpc.ConnectionLost, client.call, base.read())

    def test_a_read_is_asked_again(self):
        def behave(handler, request):
            if len(proxy.requests) > 1:
                fake_http.echo(handler, request)

        proxy = self.proxy(behave)
        client = self.client_of(proxy)
        self.assertEqual({}, client.call(base.read('m', {})))
        self.assertEqual(2, len(proxy.requests))

    @ddt.data(
        b'<html>',
        b'[]',
        b'"text"',
        b'{"id": 99, "result": 1}',
        b'{"result": 1}',
        b'{"id": 1, "result"',
        b'\xff',
        b'[' * 100_000,
    )
    def test_not_an_answer(self, body):
        client = self.client_of(self.proxy(status(200, body)))
        self.assertRaises(rpc.OutcomeUnknown, client.call, base.write())
        self.assertRaises(rpc.ProtocolError, client.call, base.read())

    def test_never(self):
        stop = threading.Event()
        self.addCleanup(stop.set)
        client = self.client_of(
            self.proxy(lambda *_: stop.wait(fake.PATIENCE))
        )
        read, write = client.gather(
            base.read(timeout=SENT), base.write(timeout=SENT)
        )
        self.assertIsInstance(read, rpc.CallTimeout)
        self.assertIsInstance(write, rpc.OutcomeUnknown)

    def test_in_drops(self):
        # Each drop is in time, all of them are not.
        def behave(handler, request):
            handler.reply()
            while True:
                handler.wfile.write(b' ')
                time.sleep(SENT / 50)

        client = self.client_of(self.proxy(behave))
        self.assertRaises(
            rpc.CallTimeout, client.call, base.read(timeout=SENT)
        )

    def test_nobody_there(self):
        with fake_http.FakeProxy() as proxy:
            client = self.client_of(proxy)
        for request in (base.read(), base.write()):
            error = self.assertRaises(
                rpc.ConnectionFailed, client.call, request
            )
            self.assertIn('refused', str(error))

    def test_a_host_without_an_address(self):
        endpoint = rpc.Endpoint.parse('http://nowhere.invalid:80')
        client = rpc.open_client(endpoint)
        self.addCleanup(client.close)
        error = socket.gaierror(socket.EAI_NONAME, 'Name or service not known')
        with mock.patch.object(socket, 'getaddrinfo', side_effect=error):
            error = self.assertRaises(
                rpc.ConnectionFailed, client.call, base.write()
            )
        self.assertIn('not known', str(error))

    def test_what_the_environment_says_does_not_count(self):
        other = self.proxy(status(500))
        for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy'):
            self.useFixture(fixtures.EnvironmentVariable(name, other.url))
        client = self.client_of(self.proxy())
        self.assertEqual({}, client.call(base.write('m', {})))

    def test_after_close(self):
        proxy = self.proxy()
        client = self.client_of(proxy)
        client.call(base.write())
        client.close()
        self.assertRaises(rpc.ConnectionFailed, client.call, base.write())
        self.assertEqual(1, len(proxy.requests))


class GatherTest(HTTPTestCase):
    def test_each_in_its_own_post(self):
        # The proxy never answers a batch.
        def behave(handler, request):
            time.sleep(0.001 * (request['id'] % 3))
            fake_http.echo(handler, request)

        proxy = self.proxy(behave)
        client = self.client_of(proxy)
        asked = [{'n': n} for n in range(50)]
        got = client.gather(*[base.write('m', params) for params in asked])
        self.assertEqual(asked, got)
        self.assertEqual(50, len(proxy.requests))
        self.assertTrue(all(isinstance(r, dict) for r in proxy.requests))
        self.assertLessEqual(proxy.most, http.CONCURRENT)
        self.assertEqual(1, client.round_trips)
        self.assertEqual([], client.gather())

    def test_outcomes_are_apart(self):
        def behave(handler, request):
            method = request['method']
            if method == 'good':
                handler.answer(request)
            elif method == 'bad':
                error = {'code': -17, 'message': 'File exists'}
                body = json.dumps({'id': request['id'], 'error': error})
                handler.reply(200, body.encode())

        client = self.client_of(self.proxy(behave))
        good, bad, lost, again = client.gather(
            base.write('good'),
            base.write('bad'),
            base.write('lost'),
            base.write('good'),
        )
        self.assertEqual([True, True], [good, again])
        self.assertIsInstance(bad, rpc.Exists)
        self.assertIsInstance(lost, rpc.OutcomeUnknown)

    def test_threads_share_the_places(self):
        full, go = threading.Event(), threading.Event()

        def behave(handler, request):
            if proxy.under_way == http.CONCURRENT:
                full.set()
            go.wait(fake.PATIENCE)
            fake_http.echo(handler, request)

        proxy = self.proxy(behave)
        client = self.client_of(proxy)
        tasks = [
            self.start(
                lambda n=n: client.gather(*[base.write('m', {'n': n})] * 2)
            )
            for n in range(8)
        ]
        full.wait(fake.PATIENCE)
        self.assertRaises(
            rpc.ConnectionFailed, client.call, base.write(timeout=SENT)
        )
        go.set()
        for n, task in enumerate(tasks):
            self.assertEqual([{'n': n}] * 2, task.result())
        self.assertEqual(http.CONCURRENT, proxy.most)
