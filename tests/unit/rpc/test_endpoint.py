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

import os
import tempfile
import traceback

import ddt
from oslotest import base

from cinder_spdk_vhost.rpc import Endpoint, InvalidEndpoint


@ddt.ddt
class ParseTest(base.BaseTestCase):
    @ddt.data(
        ('unix:///var/tmp/spdk.sock', ('unix', '/var/tmp/spdk.sock', '', 0)),
        ('UNIX:///s', ('unix', '/s', '', 0)),
        ('unix:///a@b?c#d%20', ('unix', '/a@b?c#d%20', '', 0)),
        ('tcp://127.0.0.1:5260', ('tcp', '', '127.0.0.1', 5260)),
        ('tcp://localhost:1', ('tcp', '', 'localhost', 1)),
        ('tcp://[::1]:65535', ('tcp', '', '::1', 65535)),
        ('http://store-1.example:8000', ('http', '', 'store-1.example', 8000)),
        ('https://[fd00::1]:8443/', ('https', '', 'fd00::1', 8443)),
    )
    @ddt.unpack
    def test_accepted(self, url, expected):
        endpoint = Endpoint.parse(url)
        self.assertEqual(
            expected,
            (endpoint.scheme, endpoint.path, endpoint.host, endpoint.port),
        )
        self.assertEqual(endpoint, Endpoint.parse(str(endpoint)))

    @ddt.data(
        '',
        'spdk.sock',
        '/var/tmp/spdk.sock',
        'unix:/var/tmp/spdk.sock',
        'unix://',
        'unix://relative/s',
        'unix:///dir/',
        'unix:///a b',
        'unix:///a\0b',
        'unix:///a\n',
        'ftp://host:1',
        '://host:1',
        'tcp://127.0.0.1',
        'tcp://:5260',
        'tcp://127.0.0.1:0',
        'tcp://127.0.0.1:65536',
        'tcp://127.0.0.1:port',
        'tcp://[::1:5260',
        'tcp://::1:5260',
        'http://',
        'http://host',
        'http://host:80/path',
        'http://host:80/?query',
        'http://host:80#part',
        'http://h;st:80',
        'https://host:-1',
        'unix:///' + 'x' * 107,
        'unix:///' + 'é' * 54,
    )
    def test_malformed(self, url):
        error = self.assertRaises(InvalidEndpoint, Endpoint.parse, url)
        self.assertIsInstance(error, ValueError)
        text = str(error)
        self.assertIn('unix:///absolute/path', text)
        if '?' not in url and '#' not in url:
            self.assertIn(repr(url), text)

    def test_longest_unix_path(self):
        Endpoint.parse('unix:///' + 'x' * 106)
        Endpoint.parse('unix:///' + 'é' * 53)

    @ddt.data(
        'tcp://10.0.0.1:5260',
        'tcp://0.0.0.0:5260',
        'tcp://host:5260',
        'tcp://[fd00::1]:5260',
        'tcp://localhost.example:5260',
        'tcp://127.0.0.1.example:5260',
    )
    def test_tcp_stays_on_loopback(self, url):
        error = self.assertRaises(InvalidEndpoint, Endpoint.parse, url)
        self.assertIn('loopback', str(error))
        self.assertEqual(url, Endpoint.parse(url, allow_remote_tcp=True).url)

    @ddt.data(
        'http://admin:s3cret@host:8000',
        'https://admin:s3cret@host:8000',
        'tcp://admin:s3cret@127.0.0.1:5260',
        'unix://admin:s3cret@/path',
        'http://admin:s3/cret@host:80',
        'http://admin:s3cret@x@host:80',
        'admin:s3cret@host:80',
        'http:admin:s3cret@host',
        's3cret@x://h:1',
        'http://admin:s3cret@',
        'http://admin@s3cret@[::1',
        '@s3cret@',
        'http://host:80/?password=s3cret',
        'http://host:80/#s3cret',
        'http://admin:s3 cret@host:80',
        'ftp://admin:s3cret@host:80',
    )
    def test_credentials_in_the_url(self, url):
        try:
            Endpoint.parse(url)
        except InvalidEndpoint as error:
            told = ''.join(traceback.format_exception(error, chain=True))
            self.assertNotIn('cret', told.replace(repr(url), ''), told)
            self.assertNotIn('cret', str(error))
            self.assertIsNone(error.__context__)
        else:
            self.fail('it was accepted')

    @ddt.data(
        ('http://h:1', 'admin', None, 'without a password'),
        ('http://h:1', None, 's3cret', 'without a username'),
        ('http://h:1', '', 's3cret', 'non-empty'),
        ('http://h:1', 'ad:min', 's3cret', 'colon'),
        ('unix:///s', 'admin', 's3cret', 'no authentication'),
        ('tcp://127.0.0.1:1', 'admin', 's3cret', 'no authentication'),
    )
    @ddt.unpack
    def test_credentials(self, url, username, password, fault):
        error = self.assertRaises(
            InvalidEndpoint, Endpoint.parse, url, username, password
        )
        self.assertIn(fault, str(error))
        self.assertNotIn('s3cret', str(error))

    @ddt.data(
        ('http://host:1', 's3cret', True),
        ('http://host:1', None, False),
        ('http://127.0.0.1:1', 's3cret', False),
        ('http://localhost:1', 's3cret', False),
        ('https://host:1', 's3cret', False),
    )
    @ddt.unpack
    def test_cleartext_credentials(self, url, password, expected):
        username = 'admin' if password else None
        endpoint = Endpoint.parse(url, username, password)
        self.assertIs(expected, endpoint.cleartext_credentials)

    def test_the_password_is_not_shown(self):
        endpoint = Endpoint.parse('https://host:1', 'admin', 's3cret')
        self.assertEqual('s3cret', endpoint.password)
        for shown in (repr(endpoint), str(endpoint), endpoint.url):
            self.assertNotIn('s3cret', shown)
            self.assertIn('host', shown)

    def test_ca_file(self):
        with tempfile.NamedTemporaryFile() as file:
            endpoint = Endpoint.parse('https://h:1', ca_file=file.name)
            self.assertEqual(file.name, endpoint.ca_file)
            name = file.name
        for missing in (name, os.path.dirname(name), ''):
            error = self.assertRaises(
                InvalidEndpoint,
                Endpoint.parse,
                'https://h:1',
                ca_file=missing,
            )
            self.assertIn(repr(missing), str(error))

    def test_frozen_and_hashable(self):
        endpoint = Endpoint.parse('unix:///s')
        self.assertRaises(AttributeError, setattr, endpoint, 'path', '/t')
        self.assertEqual({endpoint}, {Endpoint.parse('unix:///s')})
