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

from oslotest import base

from cinder_spdk_vhost.volume import pools, stats
from tests.unit import scripted

SETTINGS = {
    'reserved': 5,
    'over_subscription': 20.0,
    'filter_function': 'f',
    'goodness_function': None,
}
COMMON = {
    'reserved_percentage': 5,
    'max_over_subscription_ratio': 20.0,
    'filter_function': 'f',
    'goodness_function': None,
    'multiattach': True,
    'QoS_support': True,
    'online_extend_support': True,
}


def known(*wanted: str, product: str = 'AIO disk', **store) -> pools.Pools:
    target = scripted.target(
        scripted.Script(
            bdev_lvol_get_lvstores=[scripted.store('P', **store)],
            bdev_get_bdevs=scripted.bdev('base-of-P', product, numa_id=1),
        )
    )
    result = pools.Pools(target, wanted)
    result.refresh()
    return result


class Stats(base.BaseTestCase):
    def test_up(self) -> None:
        [report] = stats.report(
            known(free_clusters=12800), thin=True, **SETTINGS
        )
        self.assertEqual(
            {
                **COMMON,
                'pool_name': 'P',
                'backend_state': 'up',
                'total_capacity_gb': 100,
                'free_capacity_gb': 50,
                'thin_provisioning_support': False,
                'thick_provisioning_support': True,
                'numa_node': 1,
                'cluster_size_mib': 4,
                'lvstore_uuid': 'uuid-of-P',
            },
            report,
        )

    def test_thin_where_it_is_safe(self) -> None:
        [report] = stats.report(
            known(product='Malloc disk'), thin=True, **SETTINGS
        )
        self.assertTrue(report['thin_provisioning_support'])
        self.assertTrue(report['thick_provisioning_support'])

    def test_thick_by_default(self) -> None:
        """Then the scheduler must not promise more than there is."""
        pools = known(product='Malloc disk')
        [report] = stats.report(pools, thin=False, **SETTINGS)
        self.assertFalse(report['thin_provisioning_support'])

    def test_down(self) -> None:
        up, down = stats.report(known('P', 'Q'), thin=True, **SETTINGS)
        self.assertEqual(('P', 'up'), (up['pool_name'], up['backend_state']))
        self.assertIn('no such lvstore', down.pop('down_reason'))
        self.assertEqual(
            {
                **COMMON,
                'pool_name': 'Q',
                'backend_state': 'down',
                'total_capacity_gb': 0,
                'free_capacity_gb': 0,
                'thin_provisioning_support': False,
                'thick_provisioning_support': False,
            },
            down,
        )

    def test_full(self) -> None:
        [report] = stats.report(known(free_clusters=0), thin=True, **SETTINGS)
        self.assertEqual(0, report['free_capacity_gb'])
        self.assertEqual('up', report['backend_state'])

    def test_the_scheduler_adds_up_what_was_promised(self) -> None:
        for report in stats.report(known('P', 'Q'), thin=True, **SETTINGS):
            self.assertNotIn('provisioned_capacity_gb', report)

    def test_room_for_exports(self) -> None:
        for free in (0, 7):
            up, down = stats.report(
                known('P', 'Q'), thin=True, free_exports=free, **SETTINGS
            )
            self.assertEqual(free, up['spdk_free_exports'])
            self.assertNotIn('spdk_free_exports', down)
