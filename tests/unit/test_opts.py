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

import importlib.metadata
import subprocess
import sys
import textwrap

from cinder.volume import configuration
from cinder.volume import driver as cinder_driver
from cinder.volume.targets import spdknvmf
import ddt
from oslo_config import cfg
from oslotest import base

from cinder_spdk_vhost import opts
from cinder_spdk_vhost.volume import driver

CINDERS_OWN = {'max_over_subscription_ratio', 'reserved_percentage'}

BY_NAME = {option.name: option for option in opts.volume_opts}

# What the two drivers do when they are loaded, without the time that it takes
# to load ours.
OURS = """
from cinder_spdk_vhost import opts
from cinder.volume import configuration
configuration.Configuration(opts.volume_opts, config_group='one')
"""
THEIRS = """
from cinder.volume.targets import spdknvmf
from cinder.volume import configuration
configuration.Configuration(spdknvmf.spdk_opts, config_group='one')
"""


def run(program: str) -> None:
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(program)],
        check=True,
        timeout=60,
    )


@ddt.ddt
class Options(base.BaseTestCase):
    def test_entry_point(self) -> None:
        [point] = importlib.metadata.entry_points(
            group='oslo.config.opts', name='cinder_spdk_vhost.volume'
        )
        self.assertEqual(
            [(opts.SAMPLE_BACKEND, opts.volume_opts)], point.load()()
        )

    def test_driver_returns_all_of_them(self) -> None:
        returned = driver.SPDKVhostDriver.get_driver_options()
        self.assertEqual(
            sorted([*BY_NAME, *CINDERS_OWN]), sorted(o.name for o in returned)
        )
        for option in returned:
            if option.name in BY_NAME:
                self.assertIs(BY_NAME[option.name], option)
            else:
                self.assertIn(option, cinder_driver.volume_opts)

    def test_registered_in_the_section_of_the_back_end(self) -> None:
        conf = configuration.Configuration(
            cinder_driver.volume_opts, config_group='one-of-a-kind'
        )
        driver.SPDKVhostDriver(configuration=conf)
        for name in (*BY_NAME, *CINDERS_OWN):
            self.assertIn(name, cfg.CONF['one-of-a-kind'])

    @ddt.data(*BY_NAME)
    def test_named_and_explained(self, name: str) -> None:
        option = BY_NAME[name]
        self.assertTrue(name.startswith('spdk_'))
        self.assertEqual(name, option.dest)
        self.assertRegex(option.help, r'^[A-Z].*\.\Z')

    @ddt.data(*BY_NAME)
    def test_what_is_a_secret(self, name: str) -> None:
        secret = 'password' in name and not name.endswith('_file')
        self.assertEqual(secret, BY_NAME[name].secret)

    def test_secret_is_not_logged(self) -> None:
        conf = cfg.ConfigOpts()
        conf.register_opts(opts.volume_opts, 'b')
        conf([], default_config_files=[], default_config_dirs=[])
        conf.set_override('spdk_rpc_password', 'hush', 'b')
        lines = []

        class Logger:
            def log(self, level: int, text: str, *args: object) -> None:
                lines.append(text % args)

        conf.log_opt_values(Logger(), 10)
        self.assertTrue(any('spdk_rpc_password ' in line for line in lines))
        self.assertEqual([], [line for line in lines if 'hush' in line])

    def test_defaults_can_be_used(self) -> None:
        conf = cfg.ConfigOpts()
        conf.register_opts(opts.volume_opts, 'b')
        conf([], default_config_files=[], default_config_dirs=[])
        for name in BY_NAME:
            getattr(conf.b, name)

    @ddt.data(
        ('spdk_rpc_timeout', 0),
        ('spdk_rpc_timeout', -1),
        ('spdk_rpc_timeout', 'soon'),
        ('spdk_provisioning', 'Thin'),
        ('spdk_provisioning', ''),
        ('spdk_clear_method', 'none'),
        ('spdk_max_chain_depth', 0),
        ('spdk_max_chain_depth', 65),
        ('spdk_sweep_interval', 0),
        ('spdk_rpc_verify', 'perhaps'),
    )
    @ddt.unpack
    def test_bad_value(self, name: str, value: object) -> None:
        conf = cfg.ConfigOpts()
        conf.register_opts(opts.volume_opts, 'b')
        error = self.assertRaises(
            ValueError, conf.set_override, name, value, 'b'
        )
        self.assertTrue(str(error))


class BesideCindersOwn(base.BaseTestCase):
    """oslo.config refuses one name with two definitions."""

    def test_shared_names_have_one_definition(self) -> None:
        theirs = {option.name: option for option in spdknvmf.spdk_opts}
        shared = set(theirs) & set(BY_NAME)
        self.assertEqual({'spdk_rpc_username', 'spdk_rpc_password'}, shared)
        for name in shared:
            self.assertEqual(theirs[name], BY_NAME[name])

    def test_another_definition_would_be_refused(self) -> None:
        conf = cfg.ConfigOpts()
        conf.register_opts(spdknvmf.spdk_opts, 'b')
        self.assertRaises(
            cfg.DuplicateOptError,
            conf.register_opt,
            cfg.StrOpt('spdk_rpc_username', help='Another.'),
            'b',
        )

    def test_names_of_none_of_cinders_other_options(self) -> None:
        self.assertEqual(
            set(), {o.name for o in cinder_driver.volume_opts} & set(BY_NAME)
        )

    def test_registered_together_ours_first(self) -> None:
        run(OURS + THEIRS)

    def test_registered_together_theirs_first(self) -> None:
        run(THEIRS + OURS)
