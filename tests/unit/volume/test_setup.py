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

import logging
import os
import tempfile
import traceback
import types
from typing import Any
from unittest import mock

import ddt
import fixtures
from oslotest import base

from cinder_spdk_vhost.volume import setup
from tests.unit import scripted

HUSH = 'hush-hush'


def options(**values: Any) -> Any:
    defaults = {
        'spdk_rpc_url': 'unix:///spdk.sock',
        'spdk_rpc_username': None,
        'spdk_rpc_password': None,
        'spdk_rpc_password_file': None,
        'spdk_rpc_ca_file': None,
        'spdk_rpc_verify': True,
        'spdk_rpc_allow_remote_tcp': False,
        'spdk_rpc_timeout': 30.0,
    }
    return types.SimpleNamespace(**{**defaults, **values})


@ddt.ddt
class OpenTarget(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.logged = self.useFixture(scripted.Logged())
        self.directory = self.useFixture(fixtures.TempDir()).path

    def _refused(self, **values: Any) -> str:
        error = self.assertRaises(
            setup.BadConfiguration, setup.open_target, options(**values)
        )
        self.assertNotIn(HUSH, str(error))
        shown = ''.join(traceback.format_exception(error))
        self.assertNotIn(HUSH, shown)
        self.assertNotIn('UnicodeDecodeError', shown)
        return str(error)

    def _file(self, content: bytes, mode: int = 0o600) -> str:
        handle, path = tempfile.mkstemp(dir=self.directory)
        with os.fdopen(handle, 'wb') as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def _password(self, **values: Any) -> str | None:
        target = setup.open_target(
            options(
                spdk_rpc_url='https://h:1', spdk_rpc_username='u', **values
            )
        )
        return target._client.endpoint.password

    def test_connects_to_nothing_yet(self) -> None:
        target = setup.open_target(options(spdk_rpc_timeout=7.5))
        self.assertEqual('unix:///spdk.sock', target.url)
        self.assertEqual(7.5, target._client.timeout)

    @ddt.data(
        '',
        'spdk.sock',
        '/var/tmp/spdk.sock',
        'unix://spdk.sock',
        'unix:///',
        f'unix:///{"x" * 200}',
        'ftp://h:1',
        'http://h',
        'http://h:0',
        'http://h:65536',
        'http://h:port',
        'http://:1',
        'http://h:1/path',
        'http://h:1?q',
        'tcp://10.0.0.1:5260',
        'unix:///a b',
    )
    def test_malformed_url(self, url: str) -> None:
        said = self._refused(spdk_rpc_url=url)
        self.assertTrue(said.startswith('spdk_rpc_url: '), said)
        for part in ('unix:///', 'http://', 'https://', 'tcp://'):
            self.assertIn(part, said)

    def test_secret_in_the_url(self) -> None:
        self._refused(spdk_rpc_url=f'http://u:{HUSH}@h:1')

    def test_remote_tcp_for_who_knows(self) -> None:
        setup.open_target(
            options(
                spdk_rpc_url='tcp://10.0.0.1:5260',
                spdk_rpc_allow_remote_tcp=True,
            )
        )

    @ddt.data(
        {'spdk_rpc_username': 'u'},
        {'spdk_rpc_password': HUSH},
    )
    def test_half_of_the_credentials(self, values) -> None:
        self._refused(spdk_rpc_url='https://h:1', **values)

    def test_credentials_for_a_socket(self) -> None:
        self._refused(spdk_rpc_username='u', spdk_rpc_password=HUSH)

    def test_no_ca_file(self) -> None:
        said = self._refused(
            spdk_rpc_url='https://h:1', spdk_rpc_ca_file='/nowhere/ca.pem'
        )
        self.assertIn('/nowhere/ca.pem', said)

    def test_password(self) -> None:
        self.assertEqual(HUSH, self._password(spdk_rpc_password=HUSH))

    @ddt.data(
        (b'hush-hush', HUSH),
        (b'hush-hush\n', HUSH),
        (b'hush-hush\r\n', HUSH),
        (b' hush-hush \n', f' {HUSH} '),
        ('gehe\u00efm'.encode(), 'gehe\u00efm'),
    )
    @ddt.unpack
    def test_password_file(self, content: bytes, password: str) -> None:
        path = self._file(content)
        self.assertEqual(password, self._password(spdk_rpc_password_file=path))

    @ddt.data(0o400, 0o600)
    def test_mode_of_the_password_file(self, mode: int) -> None:
        path = self._file(HUSH.encode(), mode)
        self.assertEqual(HUSH, self._password(spdk_rpc_password_file=path))

    @ddt.data(0o604, 0o640, 0o644, 0o610, 0o601, 0o620, 0o666, 0o777, 0o660)
    def test_others_can_get_at_the_password_file(self, mode: int) -> None:
        path = self._file(HUSH.encode(), mode)
        said = self._refused(spdk_rpc_password_file=path)
        for part in (path, f'{mode:04o}', '0400', '0600'):
            self.assertIn(part, said)

    def test_password_file_is_not_there(self) -> None:
        said = self._refused(spdk_rpc_password_file='/nowhere/password')
        self.assertIn('spdk_rpc_password_file /nowhere/password', said)
        self.assertIn('No such file', said)

    def test_password_file_is_a_directory(self) -> None:
        os.chmod(self.directory, 0o700)
        said = self._refused(spdk_rpc_password_file=self.directory)
        self.assertIn(self.directory, said)

    def test_password_file_is_no_text(self) -> None:
        path = self._file(b'hush\xf7hush')
        said = self._refused(spdk_rpc_password_file=path)
        self.assertIn(path, said)
        self.assertIn('UTF-8', said)
        self.assertNotIn('f7', said.replace(path, ''))

    @ddt.data(b'', b'\n')
    def test_password_file_is_empty(self, content: bytes) -> None:
        path = self._file(content)
        said = self._refused(spdk_rpc_password_file=path)
        self.assertIn(path, said)
        self.assertIn('empty', said)

    def test_password_twice(self) -> None:
        path = self._file(HUSH.encode())
        said = self._refused(
            spdk_rpc_password=HUSH, spdk_rpc_password_file=path
        )
        self.assertIn('spdk_rpc_password and spdk_rpc_password_file', said)

    @ddt.data(
        ('http://10.0.0.1:9009', True),
        ('http://spdk.example.org:9009', True),
        ('http://127.0.0.1:9009', False),
        ('http://[::1]:9009', False),
        ('http://localhost:9009', False),
        ('https://10.0.0.1:9009', False),
    )
    @ddt.unpack
    def test_warns_of_cleartext(self, url: str, warns: bool) -> None:
        setup.open_target(
            options(
                spdk_rpc_url=url, spdk_rpc_username='u', spdk_rpc_password=HUSH
            )
        )
        warnings = self.logged.at('WARNING')
        self.assertEqual(int(warns), len(warnings))
        for text in warnings:
            self.assertIn(url, text)
            self.assertIn('https://', text)
        for _, text in self.logged.records:
            self.assertNotIn(HUSH, text)

    def test_nothing_to_warn_of_without_a_password(self) -> None:
        setup.open_target(options(spdk_rpc_url='http://10.0.0.1:9009'))
        self.assertEqual([], self.logged.at(logging.getLevelName(30)))


@ddt.ddt
class CheckMethods(base.BaseTestCase):
    def _check(
        self, major: int, minor: int, methods: Any, nvmeof: bool = False
    ) -> None:
        setup.check_methods(
            scripted.target(
                scripted.Script(
                    spdk_get_version={
                        'version': f'SPDK v{major}.{minor:02}',
                        'fields': {'major': major, 'minor': minor},
                    },
                    rpc_get_methods=[*methods, 'something_else'],
                )
            ),
            nvmeof=nvmeof,
        )

    def _refused(self, *args: Any) -> str:
        return str(
            self.assertRaises(setup.BadConfiguration, self._check, *args)
        )

    @ddt.data((24, 5), (24, 9), (25, 1), (26, 5))
    @ddt.unpack
    def test_new_enough(self, major: int, minor: int) -> None:
        self._check(major, minor, setup.REQUIRED_METHODS)

    @ddt.data((24, 1), (23, 9), (9, 11))
    @ddt.unpack
    def test_too_old(self, major: int, minor: int) -> None:
        said = self._refused(major, minor, setup.REQUIRED_METHODS)
        for part in (f'v{major}.{minor:02}', 'old', '24.05', scripted.URL):
            self.assertIn(part, said)

    @ddt.data(*sorted(setup.REQUIRED_METHODS))
    def test_missing_method_is_named(self, method: str) -> None:
        said = self._refused(26, 5, setup.REQUIRED_METHODS - {method})
        self.assertIn(f'does not have {method};', said)

    def test_all_missing_methods_are_named(self) -> None:
        said = self._refused(26, 5, [])
        for method in setup.REQUIRED_METHODS:
            self.assertIn(method, said)

    @ddt.data(*sorted(setup.NVMEOF_METHODS))
    def test_methods_that_portals_take(self, method: str) -> None:
        methods = setup.REQUIRED_METHODS | setup.NVMEOF_METHODS - {method}
        self._check(26, 5, methods)
        error = self.assertRaises(
            setup.BadConfiguration, self._check, 26, 5, methods, nvmeof=True
        )
        for part in ('spdk_nvmf_portals', method, 'spdk_tgt'):
            self.assertIn(part, str(error))
        self._check(26, 5, methods | {method}, nvmeof=True)

    def test_warns_of_limits_without_nvmeof(self) -> None:
        logged = self.useFixture(scripted.Logged())
        self._check(26, 5, setup.REQUIRED_METHODS)
        self.assertIn('limits', ''.join(logged.at('WARNING')))
        logged.records.clear()
        self._check(26, 5, setup.REQUIRED_METHODS | setup.LIMITING_METHODS)
        self.assertEqual([], logged.at('WARNING'))

    def test_portals(self) -> None:
        conf = mock.Mock(spdk_nvmf_portals=['tcp://192.0.2.5:4420'])
        [portal] = setup.nvmf_portals(conf)
        self.assertEqual(4420, portal.port)
        conf.spdk_nvmf_portals.append('tcp://storage-1:4420')
        error = self.assertRaises(
            setup.BadConfiguration, setup.nvmf_portals, conf
        )
        for part in ('spdk_nvmf_portals', 'storage-1', 'tcp://ADDRESS:PORT'):
            self.assertIn(part, str(error))

    def test_one_round_trip(self) -> None:
        script = scripted.Script(
            spdk_get_version={
                'version': 'SPDK v26.05',
                'fields': {'major': 26, 'minor': 5},
            },
            rpc_get_methods=sorted(setup.REQUIRED_METHODS),
        )
        setup.check_methods(scripted.target(script))
        self.assertEqual(1, len(script.trips))
