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

"""The sample of the options is what the options say."""

import io
import pathlib

from oslo_config import cfg, generator
from oslotest import base

from cinder_spdk_vhost import opts

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'etc' / 'oslo-config-generator' / 'cinder-spdk-vhost.conf'


class Sample(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.conf = cfg.ConfigOpts()
        generator.register_cli_opts(self.conf)
        self.conf(
            args=['--config-file', str(CONFIG)],
            default_config_files=[],
            default_config_dirs=[],
        )
        self.sample = (ROOT / self.conf.output_file).read_text()

    def test_is_up_to_date(self) -> None:
        new = io.StringIO()
        generator.generate(self.conf, output_file=new)
        self.assertEqual(
            new.getvalue(),
            self.sample,
            f'run oslo-config-generator --config-file '
            f'{CONFIG.relative_to(ROOT)}',
        )

    def test_has_every_option_with_its_help(self) -> None:
        lines = self.sample.splitlines()
        self.assertIn(f'[{opts.SAMPLE_BACKEND}]', lines)
        for option in opts.volume_opts:
            [at] = [
                number
                for number, line in enumerate(lines)
                if line.startswith(f'#{option.name} =')
            ]
            self.assertTrue(lines[at - 1].startswith('# '), option.name)

    def test_sets_nothing(self) -> None:
        for line in self.sample.splitlines():
            self.assertTrue(not line or line[0] in '#[', line)
