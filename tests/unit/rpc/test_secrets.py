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

"""What must not be told: the password, and what requests carry."""

import base64
import logging
import threading
import traceback

import ddt
import fixtures

from cinder_spdk_vhost import rpc
from tests.unit.rpc import base, fake, fake_http, test_http

KEY = 'DHHC-1:00:c2VjcmV0'
SECRETS = (
    fake_http.PASSWORD,
    base64.b64encode(
        f'{fake_http.USERNAME}:{fake_http.PASSWORD}'.encode()
    ).decode(),
    'wröng',
    KEY,
    '€',
)


@ddt.ddt
class SecretsTest(test_http.HTTPTestCase):
    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))

    def check(self, client, *outcomes):
        told = [self.log.output, repr(client), repr(client.endpoint)]
        told += [str(client.endpoint), str(vars(client))]
        for outcome in outcomes:
            told += [str(outcome), repr(outcome)]
            if isinstance(outcome, Exception):
                told += traceback.format_exception(outcome)
                told += map(str, outcome.args)
        for secret in SECRETS:
            self.assertNotIn(secret, '\n'.join(told))

    def both(self, client, **kwargs):
        params = {'name': 'key0', 'key': KEY}
        return client.gather(
            base.read('keyring_file_add_key', params, **kwargs),
            base.write('keyring_file_add_key', params, **kwargs),
        )

    @ddt.data(
        lambda handler, request: handler.answer(request),
        test_http.status(401),
        test_http.status(403),
        test_http.status(302, Location='http://127.0.0.1:9/'),
        test_http.status(500, KEY.encode()),
        test_http.status(200, KEY.encode()),
        test_http.status(200, b'{"id": 0, "' + KEY.encode()),
        test_http.hang_up,
        test_http.cut_off,
    )
    def test_http(self, behave):
        client = self.client_of(self.proxy(behave))
        self.check(client, *self.both(client))
        self.assertIn('keyring_file_add_key', self.log.output)

    def test_http_wrong_password(self):
        client = self.client_of(self.proxy(), password='wröng')
        self.check(client, *self.both(client))

    def test_http_timeout(self):
        stop = threading.Event()
        self.addCleanup(stop.set)
        client = self.client_of(
            self.proxy(lambda *_: stop.wait(fake.PATIENCE))
        )
        self.check(client, *self.both(client, timeout=0.1))

    def test_http_refused(self):
        with fake_http.FakeProxy() as proxy:
            client = self.client_of(proxy)
        self.check(client, *self.both(client))

    def test_tls(self):
        authority = self.useFixture(fake_http.Authority())
        client = self.client_of(self.proxy(tls=authority))
        self.check(client, *self.both(client))

    @ddt.data(
        lambda peer: peer.read(),
        lambda peer: [peer.answer(r) for r in peer.read_some(2)],
        lambda peer: peer.send(b'[' + KEY.encode()),
        lambda peer: peer.send(KEY.encode()),
        lambda peer: peer.send(b'["' + KEY.encode() + b'" x]'),
        lambda peer: None,
    )
    def test_stream(self, script):
        target = self.target(script)
        endpoint = rpc.Endpoint.parse(target.url)
        client = rpc.open_client(endpoint, timeout=fake.PATIENCE)
        self.addCleanup(client.close)
        self.check(client, *self.both(client))
