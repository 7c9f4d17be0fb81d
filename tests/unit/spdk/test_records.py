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

"""Records, read from answers that a real SPDK v26.05 gave.

``recorded.json`` holds requests and answers as they were on the wire.
"""

import copy
import json
import pathlib
from typing import Any

import ddt
from oslotest import base

from cinder_spdk_vhost import rpc
from cinder_spdk_vhost.spdk import app, bdev, lvol, qos, vhost
from tests.unit import scripted

RECORDED = json.loads(
    (pathlib.Path(__file__).parent / 'recorded.json').read_text()
)
MIB = 1024**2


def result(case: str) -> Any:
    return copy.deepcopy(RECORDED[case]['response']['result'])


class Version(base.BaseTestCase):
    def test_version(self) -> None:
        version = app.get_version().parse(result('version'))
        self.assertEqual((26, 5), version.number)
        self.assertEqual('SPDK v26.05.1-pre git sha1 bb2b757acd', version.text)

    def test_process(self) -> None:
        process = app.get_process().parse(result('reactors'))
        self.assertEqual(8543, process.pid)
        self.assertEqual(267910641 / 2445400000, process.uptime)

    def test_the_application_thread_may_be_on_any_core(self) -> None:
        data = result('reactors')
        data['reactors'].insert(0, {**data['reactors'][0], 'lw_threads': []})
        process = app.get_process().parse(data)
        self.assertEqual(267910641 / 2445400000, process.uptime)

    def test_versions_compare(self) -> None:
        old = result('version')
        old['fields'] |= {'major': 9, 'minor': 11}
        self.assertLess(
            app.get_version().parse(old).number,
            app.get_version().parse(result('version')).number,
        )

    def test_methods(self) -> None:
        self.assertEqual(
            frozenset({'a', 'b'}), app.get_methods().parse(['a', 'b'])
        )


class Stores(base.BaseTestCase):
    def test_all(self) -> None:
        stores = lvol.get_lvstores().parse(result('stores'))
        self.assertEqual(['lvs0', 'lvs1', 'lvsu'], [s.name for s in stores])
        self.assertEqual(
            lvol.Lvstore(
                uuid='a963502d-4d99-42de-b181-e5fff23b244e',
                name='lvs0',
                base_bdev='A0',
                cluster_size=4 * MIB,
                total_clusters=511,
                free_clusters=511,
            ),
            stores[0],
        )
        self.assertEqual(2039 * MIB, stores[1].total)
        self.assertEqual(2039 * MIB, stores[1].free)

    def test_none(self) -> None:
        self.assertEqual([], lvol.get_lvstores().parse([]))

    def test_one(self) -> None:
        store = lvol.get_lvstore('lvs0').parse(result('one store'))
        self.assertEqual('lvs0', store.name)

    def test_names(self) -> None:
        self.assertEqual(
            ['thin1'], lvol.get_names('lvs1b').parse(result('lvols'))
        )


@ddt.ddt
class Bdevs(base.BaseTestCase):
    @ddt.data(
        ('malloc', 'M0', 'Malloc disk', 64 * MIB, None),
        ('claimed aio', 'A0', 'AIO disk', 2048 * MIB, 'read_many_write_one'),
        ('nvme', 'NV0n1', 'NVMe disk', 8 * MIB, None),
    )
    @ddt.unpack
    def test_bdev(self, case, name, product, size, claim) -> None:
        found = bdev.get(name).parse(result(case))
        self.assertEqual(
            (name, product, size, claim, None),
            (
                found.name,
                found.product,
                found.size,
                found.claim,
                found.numa_node,
            ),
        )
        self.assertFalse(found.limits)

    @ddt.data((-1, None), (0, 0), (1, 1))
    @ddt.unpack
    def test_numa_node(self, numa_id, node) -> None:
        data = result('nvme')
        data[0]['numa_id'] = numa_id
        self.assertEqual(node, bdev.get('NV0n1').parse(data).numa_node)

    def test_older_spdk_says_no_type_of_a_claim(self) -> None:
        data = result('claimed aio')
        del data[0]['claim_type']
        self.assertEqual('unknown', bdev.get('A0').parse(data).claim)

    @ddt.data(
        ('thin', True, 0, False, None, ()),
        ('thick', False, 25, False, None, ()),
        ('clone', True, 0, False, 'snap1', ()),
        ('snapshot', True, 0, True, None, ('lvs0/snapP', 'c1', 'c2')),
    )
    @ddt.unpack
    def test_lvol(self, case, thin, own, snapshot, parent, clones) -> None:
        data = result(case)
        found = bdev.get_lvol(data[0]['aliases'][0]).parse(data)
        self.assertEqual(
            bdev.Lvol(
                lvstore_uuid='a963502d-4d99-42de-b181-e5fff23b244e',
                thin=thin,
                allocated_clusters=own,
                snapshot=snapshot,
                parent=parent,
                clones=clones,
            ),
            found.lvol,
        )
        self.assertEqual(100 * MIB, found.size)
        self.assertEqual('Logical Volume', found.product)
        self.assertIsNone(found.numa_node)

    def test_namespace_of_a_subsystem(self) -> None:
        found = bdev.get_lvol('L/v1').parse(result('exported'))
        self.assertEqual('exclusive_write', found.claim)
        self.assertEqual(('L/v1',), found.aliases)

    def test_limits(self) -> None:
        found = bdev.get_lvol('clvs/v1').parse(result('limited'))
        self.assertEqual(
            qos.RateLimits(rw_ios_per_sec=2000, r_mbytes_per_sec=5),
            found.limits,
        )
        self.assertTrue(found.limits)

    def test_limits_have_every_name_that_spdk_has(self) -> None:
        recorded = result('limited')[0]['assigned_rate_limits']
        self.assertEqual(recorded, qos.RateLimits.parse(recorded).as_dict())

    def test_what_is_no_lvol_is_no_answer_to_a_look_for_one(self) -> None:
        script = scripted.Script(bdev_get_bdevs=result('malloc'))
        self.assertRaises(
            rpc.ProtocolError,
            scripted.target(script).find,
            bdev.get_lvol('P/volume-1'),
        )


class Controllers(base.BaseTestCase):
    def test_idle(self) -> None:
        self.assertEqual(
            vhost.Controller(
                name='vb0',
                socket='/run/spdk/t1.vhost/vb0',
                bdev='VH0',
                readonly=False,
                sessions=0,
            ),
            vhost.get('vb0').parse(result('controller')),
        )

    def test_readonly(self) -> None:
        _, recorded = result('readonly controller')
        self.assertTrue(vhost.get('cv2').parse([recorded]).readonly)

    def test_with_a_guest(self) -> None:
        self.assertEqual(1, vhost.get('gl').parse(result('guest')).sessions)

    def test_whose_bdev_was_deleted(self) -> None:
        found = vhost.get('hr').parse(result('bdev gone'))
        self.assertIsNone(found.bdev)
        self.assertEqual(1, found.sessions)

    def test_of_another_kind(self) -> None:
        found = vhost.get('vs0').parse(result('scsi'))
        self.assertIsNone(found.bdev)
        self.assertFalse(found.readonly)


@ddt.ddt
class Errors(base.BaseTestCase):
    """The recorded refusals that callers tell apart."""

    @ddt.data(
        ('no bdev', bdev.get('nope'), rpc.NotFound),
        ('no controller', vhost.get('nope'), rpc.NotFound),
        ('no store', lvol.get_lvstore('nope'), rpc.NotFound),
        (
            'idle and limited',
            qos.set_limits('P/x', qos.RateLimits()),
            rpc.TryAgain,
        ),
        ('store full', lvol.resize('P/x', 1), rpc.NoSpace),
        ('lvol exists', lvol.snapshot('P/x', 'y'), rpc.Exists),
        ('snapshot with clones', lvol.delete('P/x', 1), rpc.NotPermitted),
        (
            'claimed bdev',
            vhost.create_blk('c', 'b', readonly=False),
            rpc.NotPermitted,
        ),
    )
    @ddt.unpack
    def test_refusal(self, case, request, kind) -> None:
        error = RECORDED[case]['response']['error']
        refused = scripted.Refused(error['message'], error['code'])
        script = scripted.Script(**{request.method: refused})
        raised = self.assertRaises(
            rpc.TargetError, scripted.target(script).ask, request
        )
        self.assertIs(kind, type(raised))
