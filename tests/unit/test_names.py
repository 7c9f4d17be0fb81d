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
from hypothesis import given
from hypothesis import strategies as st
from oslotest import base

from cinder_spdk_vhost import exceptions, names

UUID = '6c2a3e58-5d0e-4a43-9a3c-0a6a8f4f9f10'

BAD = (
    '',
    '/',
    'a/b',
    '..',
    '../../etc',
    'a..b',
    '.',
    '.hidden',
    '-x',
    'a b',
    'a\n',
    '\n',
    'a\0',
    'é',
    '１２',
    'a\u2028',
    'x' * 200,
    '*',
    '?',
)

GOOD_IDS = st.from_regex(r'[0-9A-Za-z][0-9A-Za-z_-]{0,35}', fullmatch=True)


@ddt.ddt
class Names(base.BaseTestCase):
    def test_of_cinder_objects(self) -> None:
        self.assertEqual(f'volume-{UUID}', names.volume(UUID))
        self.assertEqual(f'snapshot-{UUID}', names.snapshot(UUID))
        self.assertEqual('P/volume-1', names.path('P', names.volume('1')))

    @ddt.data(*BAD)
    def test_bad_ids(self, bad: str) -> None:
        for build in (names.volume, names.snapshot, names.clone_base):
            error = self.assertRaises(exceptions.InvalidName, build, bad)
            self.assertIn(f'"{bad}', str(error))
            self.assertIn(str(names.MAX_LVOL), str(error))

    @ddt.data(names.volume, names.snapshot)
    def test_longest(self, build) -> None:
        kind = build('x').removesuffix('x')
        longest = 'x' * (names.MAX_LVOL - len(kind))
        self.assertEqual(names.MAX_LVOL, len(build(longest)))
        self.assertRaises(exceptions.InvalidName, build, longest + 'x')

    def test_clone_base_is_never_the_same(self) -> None:
        made = {names.clone_base(UUID) for _ in range(50)}
        self.assertEqual(50, len(made))
        for name in made:
            self.assertIn(UUID, name)
            self.assertLessEqual(len(name), names.MAX_LVOL)

    def test_clone_base_of_an_id_that_only_a_volume_has_room_for(self) -> None:
        longest = 'x' * (names.MAX_LVOL - len('volume-'))
        names.volume(longest)
        self.assertRaises(exceptions.InvalidName, names.clone_base, longest)

    def test_kinds_are_told_apart(self) -> None:
        made = {
            'volume': names.volume(UUID),
            'snapshot': names.snapshot(UUID),
            'clone base': names.clone_base(UUID),
            'tombstone': names.tombstone(names.snapshot(UUID)),
            'reverted': names.incoming(names.volume(UUID)),
        }
        tests = {
            'volume': names.is_volume,
            'snapshot': names.is_snapshot,
            'clone base': names.is_clone_base,
            'tombstone': names.is_tombstone,
            'reverted': names.reverted,
        }
        for kind, name in made.items():
            self.assertEqual(
                [kind], [k for k, test in tests.items() if test(name)]
            )

    def test_reverting(self) -> None:
        volume = names.volume(UUID)
        made = {names.incoming(volume), names.outgoing(volume)}
        self.assertEqual(2, len(made))
        for name in made:
            self.assertEqual(volume, names.reverted(name))
            self.assertEqual(len(volume), len(name))

    @ddt.data('before-upgrade', 'revert-1', 'before-', 'revert', f'x-{UUID}')
    def test_what_was_not_reverted_by_us(self, name: str) -> None:
        self.assertIsNone(names.reverted(name))

    @ddt.data('lvol0', 'xvolume-1', 'my-snapshot-1', '', 'Volume-1', 'trash')
    def test_what_is_not_ours(self, name: str) -> None:
        for test in (
            names.is_volume,
            names.is_snapshot,
            names.is_clone_base,
            names.is_tombstone,
        ):
            self.assertFalse(test(name))

    @ddt.data(('rw', 'volume-1-rw'), ('ro', 'volume-1-ro'))
    @ddt.unpack
    def test_controller(self, mode: str, name: str) -> None:
        self.assertEqual(name, names.controller(names.volume('1'), mode))
        self.assertIn(name, names.controllers(names.volume('1')))

    @ddt.data('', 'RW', 'w', 'rw\n', '../rw', None)
    def test_mode_that_is_none(self, mode) -> None:
        error = self.assertRaises(
            exceptions.InvalidName, names.controller, 'volume-1', mode
        )
        self.assertIn('rw and ro', str(error))

    def test_socket_fits_into_a_usual_vhost_directory(self) -> None:
        longest = names.volume('x' * (names.MAX_LVOL - len('volume-')))
        for name in names.controllers(longest):
            self.assertLessEqual(
                len(f'/var/run/spdk/vhost/{name}'), names.MAX_SOCKET_PATH
            )

    def test_scratch_subsystem(self) -> None:
        longest = names.volume('x' * (names.MAX_LVOL - len('volume-')))
        nqn = names.scratch_subsystem(longest)
        self.assertTrue(nqn.endswith(longest))
        self.assertRegex(nqn, r'^nqn\.\d{4}-\d\d\.[a-z.-]+:')
        self.assertLessEqual(len(nqn), 223)

    def test_of_an_export(self) -> None:
        for name in (names.volume(UUID), names.snapshot(UUID)):
            self.assertTrue(names.subsystem(name).endswith(f':{name}'))
            self.assertEqual(
                names.subsystem(name), names.host_nqn(names.subsystem(name))
            )
            self.assertNotEqual(
                names.subsystem(name), names.scratch_subsystem(name)
            )
            self.assertEqual(UUID, names.namespace_uuid(name))
            self.assertEqual(UUID[:20], names.serial(name))
        self.assertLessEqual(len(names.MODEL), 40)

    def test_placeholder(self) -> None:
        for name, mode in (
            (names.volume(UUID), 'rw'),
            (names.snapshot(UUID), 'ro'),
        ):
            self.assertEqual(
                names.controller(name, mode), names.placeholder(name)
            )

    @ddt.data('1', UUID.upper(), UUID.replace('-', ''), f'{UUID}0', 'x' * 36)
    def test_namespace_of_what_has_no_uuid(self, identifier: str) -> None:
        error = self.assertRaises(
            exceptions.InvalidName,
            names.namespace_uuid,
            names.volume(identifier),
        )
        self.assertIn(f'"{identifier}"', str(error))

    @ddt.data(
        f'nqn.2014-08.org.nvmexpress:uuid:{UUID}',
        f'nqn.2014-08.org.nvmexpress:uuid:{UUID.upper()}',
        'nqn.2019-12.com.example:host-1',
        'nqn.1988-11.com.dell:powerstore:00:a/b_c',
        'nqn.2019-01.org:x',
        'nqn.2019-01.org:' + 'x' * 207,
    )
    def test_nqn_of_a_host(self, nqn: str) -> None:
        self.assertEqual(nqn, names.host_nqn(nqn))

    @ddt.data(
        '',
        None,
        3,
        ['nqn.2019-01.org:x'],
        'nqn',
        'iqn.2019-01.org:x',
        'nqn.2014-08.org.nvmexpress.discovery',
        'nqn.2014-08.org.nvmexpress:uuid:',
        f'nqn.2014-08.org.nvmexpress:uuid:{UUID[:-1]}',
        f'nqn.2014-08.org.nvmexpress:uuid:{UUID}\n',
        f'nqn.2014-08.org.nvmexpress:uuid:{{{UUID}}}',
        f'NQN.2014-08.org.nvmexpress:uuid:{UUID}',
        'nqn.2019-13.org:x',
        'nqn.19-01.org:x',
        'nqn.2019-01.org',
        'nqn.2019-01.org:',
        'nqn.2019-01.:x',
        'nqn.2019-01.org.:x',
        'nqn.2019-01.org..a:x',
        'nqn.2019-01.1org:x',
        'nqn.2019-01.org-:x',
        'nqn.2019-01.org:../../x',
        'nqn.2019-01.org:a b',
        'nqn.2019-01.org:a\n',
        'nqn.2019-01.org:a\0',
        'nqn.2019-01.org:é',
        'nqn.2019-01.org:\udc80',
        'nqn.2019-01.org:' + 'x' * 208,
        'nqn.2019-01.' + 'x' * 64 + ':x',
    )
    def test_what_is_no_nqn_of_a_host(self, nqn) -> None:
        error = self.assertRaises(exceptions.InvalidName, names.host_nqn, nqn)
        self.assertIn('is no NQN', str(error))
        self.assertIn('nqn.YYYY-MM', str(error))

    @given(st.text() | st.from_regex(r'nqn\.2019-01\.[a-z.]*:.*'))
    def test_nqn_that_is_let_through(self, text: str) -> None:
        try:
            nqn = names.host_nqn(text)
        except exceptions.InvalidName:
            return
        self.assertTrue(nqn.isascii() and nqn.isprintable())
        self.assertNotIn('..', nqn)
        self.assertNotIn(' ', nqn)
        self.assertLessEqual(len(nqn), names.MAX_NQN)

    @given(GOOD_IDS)
    def test_burying_goes_and_comes_back(self, snapshot_id: str) -> None:
        name = names.snapshot(snapshot_id)
        stone = names.tombstone(name)
        self.assertTrue(names.is_tombstone(stone))
        self.assertFalse(names.is_snapshot(stone))
        self.assertEqual(name, names.buried(stone))
        self.assertLessEqual(len(stone), names.MAX_LVOL)

    @given(st.text())
    def test_what_is_built_is_safe(self, identifier: str) -> None:
        for build in (names.volume, names.snapshot, names.clone_base):
            try:
                name = build(identifier)
            except exceptions.InvalidName:
                continue
            self.assertIn(identifier, name)
            self.assertTrue(name.isascii())
            self.assertTrue(name.isprintable())
            self.assertNotIn('/', name)
            self.assertNotIn('..', name)
            self.assertLessEqual(len(name), names.MAX_LVOL)

    @given(GOOD_IDS, GOOD_IDS)
    def test_different_ids_have_different_names(self, a: str, b: str) -> None:
        built = [
            [
                names.volume(i),
                names.snapshot(i),
                names.tombstone(names.snapshot(i)),
                *names.controllers(names.volume(i)),
                names.scratch_subsystem(names.volume(i)),
            ]
            for i in (a, b)
        ]
        self.assertEqual(a == b, bool(set(built[0]) & set(built[1])))
