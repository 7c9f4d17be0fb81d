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

from typing import Any

import ddt
from oslotest import base

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.volume import pools
from tests.unit import scripted


class TestCase(base.BaseTestCase):
    """A target whose stores a test can change.

    :ivar stores: what it has now; or an exception of the script
    :ivar bases: its other bdevs, by name
    """

    def setUp(self) -> None:
        super().setUp()
        self.logged = self.useFixture(scripted.Logged())
        self.stores: Any = []
        self.bases: dict[str, Any] = {}
        self.script = scripted.Script(
            bdev_lvol_get_lvstores=lambda _: self.stores,
            bdev_get_bdevs=scripted.named(self.bases),
        )

    def add(self, *names: str, product: str = 'AIO disk', **values) -> None:
        for name in names:
            self.stores = [*self.stores, scripted.store(name)]
            self.bases[f'base-of-{name}'] = scripted.bdev(
                f'base-of-{name}', product, **values
            )

    def known(self, *wanted: str, zeroing: Any = ()) -> pools.Pools:
        target = scripted.target(self.script)
        return pools.Pools(target, wanted, zeroing)

    def refreshed(self, *wanted: str, zeroing: Any = ()) -> pools.Pools:
        known = self.known(*wanted, zeroing=zeroing)
        known.refresh()
        return known

    def names(self, known: pools.Pools) -> list[str]:
        return [pool.name for pool in known.up()]

    def said(self) -> list[str]:
        """What an admin reads, since last asked."""
        texts = self.logged.at('INFO', 'WARNING', 'ERROR')
        self.logged.records.clear()
        return texts


class Refreshing(TestCase):
    def test_every_store_in_order(self) -> None:
        self.add('b', 'a', 'c')
        known = self.refreshed()
        self.assertEqual(['a', 'b', 'c'], self.names(known))
        self.assertEqual({}, known.down())
        self.assertEqual(
            [f'Pool "{name}" is up' for name in 'abc'], self.said()
        )

    def test_only_those_that_are_listed(self) -> None:
        self.add('a', 'b')
        known = self.refreshed('b')
        self.assertEqual(['b'], self.names(known))
        self.assertEqual({}, known.down())

    def test_a_base_is_read_once(self) -> None:
        self.add('a', 'b')
        known = self.refreshed()
        self.assertEqual(2, len(self.script.trips))
        self.assertEqual(
            [{'name': 'base-of-a'}, {'name': 'base-of-b'}],
            [params for _, params in self.script.trips[1]],
        )
        known.refresh()
        self.assertEqual(3, len(self.script.trips))
        self.add('c')
        known.refresh()
        self.assertEqual(
            [('bdev_get_bdevs', {'name': 'base-of-c'})], self.script.trips[-1]
        )
        self.assertEqual(['a', 'b', 'c'], self.names(known))

    def test_another_store_of_the_same_name(self) -> None:
        self.add('a')
        known = self.refreshed()
        self.stores = [scripted.store('a', uuid='new', base_bdev='other')]
        self.bases['other'] = scripted.bdev('other', 'Malloc disk')
        known.refresh()
        [pool] = known.up()
        self.assertEqual('new', pool.store.uuid)
        self.assertTrue(pool.base.reads_zeros)

    def test_free_space_is_what_it_is_now(self) -> None:
        self.add('a')
        known = self.refreshed()
        self.stores[0]['free_clusters'] = 7
        known.refresh()
        self.assertEqual(7, known.up()[0].store.free_clusters)

    def test_base_that_is_not_there_yet(self) -> None:
        self.add('a', 'b')
        base = self.bases.pop('base-of-a')
        known = self.refreshed()
        self.assertEqual(['b'], self.names(known))
        self.bases['base-of-a'] = base
        known.refresh()
        self.assertEqual(['a', 'b'], self.names(known))


@ddt.ddt
class UpAndDown(TestCase):
    def test_lacking_one_is_said_once(self) -> None:
        self.add('a')
        known = self.refreshed('a', 'b')
        up, down = self.said()
        self.assertEqual('Pool "a" is up', up)
        for part in ('"b" is down', scripted.URL, 'no such lvstore'):
            self.assertIn(part, down)
        known.refresh()
        self.assertEqual([], self.said())
        self.assertEqual(['b'], list(known.down()))
        self.add('b')
        known.refresh()
        known.refresh()
        self.assertEqual(['Pool "b" is up'], self.said())
        self.assertEqual({}, known.down())

    @ddt.data(
        scripted.Away(), scripted.Lost(), scripted.Refused('whatever', -32603)
    )
    def test_target_away_and_back(self, away: Exception) -> None:
        self.add('a', 'b')
        known = self.refreshed()
        self.said()
        stores, self.stores = self.stores, away
        known.refresh()
        self.assertEqual([], known.up())
        self.assertEqual(['a', 'b'], sorted(known.down()))
        said = self.said()
        self.assertEqual(2, len(said))
        for text in said:
            self.assertIn('does not answer', text)
            self.assertIn(scripted.URL, text)
        known.refresh()
        self.assertEqual([], self.said())
        self.stores = stores
        known.refresh()
        self.assertEqual(['a', 'b'], self.names(known))
        self.assertEqual({}, known.down())
        self.assertEqual(['Pool "a" is up', 'Pool "b" is up'], self.said())

    def test_base_cannot_be_asked_for(self) -> None:
        self.add('a')
        self.script.answers['bdev_get_bdevs'] = scripted.Lost()
        known = self.refreshed('a')
        self.assertEqual([], known.up())
        self.assertIn('does not answer', known.down()['a'])

    def test_away_from_the_start(self) -> None:
        self.stores = scripted.Away()
        known = self.refreshed('a')
        self.assertEqual(['a'], list(known.down()))
        self.assertEqual(1, len(self.said()))

    def test_away_from_the_start_and_none_listed(self) -> None:
        self.stores = scripted.Away()
        known = self.refreshed()
        known.refresh()
        [said] = self.said()
        self.assertIn('There are no pools', said)
        self.assertIn('does not answer', said)
        self.stores = []
        self.add('a')
        known.refresh()
        self.assertEqual(['a'], self.names(known))
        self.assertEqual(['Pool "a" is up'], self.said())

    def test_a_store_that_goes_is_down(self) -> None:
        self.add('a', 'b')
        known = self.refreshed()
        self.stores = self.stores[:1]
        known.refresh()
        self.assertEqual(['a'], self.names(known))
        self.assertIn('no such lvstore', known.down()['b'])


@ddt.ddt
class Names(TestCase):
    @ddt.data('a b', 'a#b', 'a/b', 'a@b', '', 'a\n', 'é')
    def test_unusable_name(self, name: str) -> None:
        """Cinder could not name it, or an lvol's name would not be one."""
        self.add(name, 'good')
        known = self.refreshed()
        self.assertEqual(['good'], self.names(known))
        self.assertEqual({}, known.down())

    @ddt.data('a', 'lvs_1', 'NVMe-0.1', 'a:b')
    def test_usable_name(self, name: str) -> None:
        self.add(name)
        self.assertEqual([name], self.names(self.refreshed()))


@ddt.ddt
class ReadsZeros(TestCase):
    @ddt.data(
        ('AIO disk', (), False),
        ('NVMe disk', (), False),
        ('URING bdev', (), False),
        ('Malloc disk', (), True),
        ('NVMe disk', ('a',), True),
        ('AIO disk', ('a', 'b'), True),
        ('AIO disk', ('A', 'aa'), False),
    )
    @ddt.unpack
    def test_by_product_and_by_option(self, product, zeroing, reads) -> None:
        self.add('a', product=product)
        [pool] = self.refreshed(zeroing=zeroing).up()
        self.assertEqual(reads, pool.base.reads_zeros)

    @ddt.data((-1, None), (0, 0), (1, 1))
    @ddt.unpack
    def test_numa_node(self, numa_id, node) -> None:
        self.add('a', numa_id=numa_id)
        [pool] = self.refreshed().up()
        self.assertEqual(node, pool.base.numa_node)


class Getting(TestCase):
    def test_known(self) -> None:
        self.add('a', 'b')
        known = self.refreshed()
        trips = len(self.script.trips)
        self.assertEqual('b', known.get('b').name)
        self.assertEqual(trips, len(self.script.trips))

    def test_looks_once_more(self) -> None:
        known = self.refreshed()
        self.add('a')
        self.assertEqual('a', known.get('a').name)

    def test_once_only(self) -> None:
        self.add('a')
        known = self.refreshed()
        trips = len(self.script.trips)
        error = self.assertRaises(exceptions.PoolDown, known.get, 'b')
        self.assertEqual(trips + 1, len(self.script.trips))
        for part in ('"b"', scripted.URL, 'available: a'):
            self.assertIn(part, str(error))

    def test_of_a_target_that_is_away(self) -> None:
        self.add('a')
        known = self.refreshed()
        self.stores = scripted.Away()
        known.refresh()
        error = self.assertRaises(exceptions.PoolDown, known.get, 'a')
        for part in ('"a"', 'does not answer', 'available: none'):
            self.assertIn(part, str(error))

    def test_not_listed(self) -> None:
        self.add('a', 'b')
        known = self.refreshed('a')
        error = self.assertRaises(exceptions.PoolDown, known.get, 'b')
        self.assertIn('spdk_pools does not list it (a)', str(error))

    def test_the_only_one_needs_no_name(self) -> None:
        self.add('a')
        self.assertEqual('a', self.refreshed().get(None).name)

    def test_one_of_several_does(self) -> None:
        self.add('a', 'b')
        error = self.assertRaises(
            exceptions.PoolDown, self.refreshed().get, None
        )
        self.assertIn('a, b', str(error))
