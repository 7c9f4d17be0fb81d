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

"""The HTTP transport with TLS."""

import warnings

from cinder_spdk_vhost import rpc
from tests.unit.rpc import base, fake_http, test_http


class TLSTest(test_http.HTTPTestCase):
    def setUp(self):
        super().setUp()
        self.authority = self.useFixture(fake_http.Authority())

    def test_the_authority_is_trusted(self):
        client = self.client_of(
            self.proxy(tls=self.authority), ca_file=self.authority.ca_file
        )
        self.assertEqual({}, client.call(base.write('m', {})))

    def test_verification_is_on_by_default(self):
        proxy = self.proxy(tls=self.authority)
        client = self.client_of(proxy)
        for request in (base.read(), base.write()):
            error = self.assertRaises(
                rpc.ConnectionFailed, client.call, request
            )
            self.assertIn('CERTIFICATE_VERIFY_FAILED', str(error))
        self.assertEqual([], proxy.requests)
        self.assertEqual(0, proxy.unauthorized)

    def test_another_authority(self):
        other = self.useFixture(fake_http.Authority())
        client = self.client_of(
            self.proxy(tls=self.authority), ca_file=other.ca_file
        )
        self.assertRaises(rpc.ConnectionFailed, client.call, base.write())

    def test_another_name(self):
        proxy = self.proxy(tls=self.authority)
        proxy.url = proxy.url.replace('127.0.0.1', 'localhost')
        client = self.client_of(proxy, ca_file=self.authority.ca_file)
        self.assertRaises(rpc.ConnectionFailed, client.call, base.write())

    def test_verification_off(self):
        client = self.client_of(self.proxy(tls=self.authority), verify=False)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            self.assertEqual({}, client.call(base.write('m', {})))

    def test_a_server_without_tls(self):
        proxy = self.proxy()
        proxy.url = proxy.url.replace('http:', 'https:')
        error = self.assertRaises(
            rpc.ConnectionFailed, self.client_of(proxy).call, base.write()
        )
        self.assertIn('TLS', str(error))
