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

import ddt
from oslotest import base

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.volume import provisioning

# option, extra spec, base reads zeros -> thin; None is refused
THIN = (
    ('auto', None, True, True),
    ('auto', None, False, False),
    ('thin', None, True, True),
    ('thin', None, False, None),
    ('thick', None, True, False),
    ('thick', None, False, False),
    ('auto', 'thin', True, True),
    ('auto', 'thin', False, None),
    ('auto', 'thick', True, False),
    ('auto', 'thick', False, False),
    ('thin', 'thick', False, False),
    ('thick', 'thin', True, True),
    ('thick', 'thin', False, None),
)

# option, base reads zeros -> clear method
CLEAR = (
    ('auto', True, 'unmap'),
    ('auto', False, 'write_zeroes'),
    ('unmap', True, 'unmap'),
    ('unmap', False, 'unmap'),
    ('write_zeroes', True, 'write_zeroes'),
    ('write_zeroes', False, 'write_zeroes'),
)


@ddt.ddt
class Provisioning(base.BaseTestCase):
    @ddt.data(*THIN)
    @ddt.unpack
    def test_thin(self, option, spec, reads_zeros, thin) -> None:
        policy = provisioning.Policy(default=option)
        specs = {'volume_backend_name': 'x'}
        if spec is not None:
            specs[provisioning.SPEC] = spec
        if thin is None:
            error = self.assertRaises(
                exceptions.InvalidSpec,
                provisioning.choose,
                policy,
                'P',
                reads_zeros,
                specs,
            )
            source = 'provisioning:type' if spec else 'spdk_provisioning'
            for part in (source, '"P"', 'use thick', 'spdk_zeroing_pools'):
                self.assertIn(part, str(error))
        else:
            how = provisioning.choose(policy, 'P', reads_zeros, specs)
            self.assertEqual(thin, how.thin)

    @ddt.data('Thin', '', 'auto', '<is> thin', 'sparse')
    def test_bad_spec(self, value: str) -> None:
        for reads_zeros in (True, False):
            error = self.assertRaises(
                exceptions.InvalidSpec,
                provisioning.choose,
                provisioning.Policy(),
                'P',
                reads_zeros,
                {provisioning.SPEC: value},
            )
            self.assertIn(f'{provisioning.SPEC} is "{value}"', str(error))
            self.assertIn('thin and thick', str(error))

    @ddt.data(*CLEAR)
    @ddt.unpack
    def test_clear_method(self, option, reads_zeros, method) -> None:
        policy = provisioning.Policy(clear_method=option)
        self.assertEqual(
            method, provisioning.clear_method(policy, reads_zeros)
        )
        how = provisioning.choose(policy, 'P', reads_zeros, {})
        self.assertEqual(method, how.clear_method)

    def test_by_default_nobody_reads_old_data(self) -> None:
        policy = provisioning.Policy()
        safe = provisioning.choose(policy, 'P', False, {})
        self.assertEqual(
            provisioning.Provisioning(False, 'write_zeroes'), safe
        )
