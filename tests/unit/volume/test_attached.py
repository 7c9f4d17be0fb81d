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

import json
import pathlib
import shutil
import sqlite3
import threading
from typing import Any
from unittest import mock
import uuid

from cinder.db import api as db
import fixtures
from oslo_config import cfg
from oslotest import base

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.volume import attached
from tests.fixtures import cinder_services
from tests.fixtures import driver as fixture

CONF = cfg.CONF
HOST = 'h@spdk'
OURS = fixture.connector(['uuid-of-P'])
OTHER = fixture.connector(['uuid-of-P'], 'ro')


class Rows(base.BaseTestCase):
    """Cinder's own database, with what tests put there."""

    def setUp(self) -> None:
        super().setUp()
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'db')
        shutil.copy(cinder_services.database_template(), path)
        CONF.set_override('connection', f'sqlite:///{path}', group='database')
        self.addCleanup(CONF.clear_override, 'connection', group='database')
        # Engines are kept; this one is the test's own.
        manager = db.main_context_manager.make_new_manager()
        manager.configure(connection=f'sqlite:///{path}')
        patch = mock.patch.object(db, 'main_context_manager', manager)
        patch.start()
        self.addCleanup(patch.stop)
        self.sqlite = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(self.sqlite.close)
        self.database = attached.Database(HOST)

    def insert(self, table: str, **values: Any) -> None:
        places = ', '.join('?' * len(values))
        self.sqlite.execute(
            f'INSERT INTO {table} ({", ".join(values)}) '  # noqa: S608
            f'VALUES ({places})',
            tuple(values.values()),
        )

    def volume(
        self, *connectors: Any, host: str = f'{HOST}#P', **values: Any
    ) -> str:
        """A volume with attachments; gives its id."""
        volume_id = str(uuid.uuid4())
        self.insert(
            'volumes',
            **{
                'id': volume_id,
                'host': host,
                'size': 1,
                'status': 'in-use',
                'volume_type_id': str(uuid.uuid4()),
                'use_quota': 1,
                'deleted': 0,
                **values,
            },
        )
        for connector in connectors:
            self.attachment(volume_id, connector)
        return volume_id

    def attachment(
        self, volume_id: str, connector: Any, deleted: int = 0
    ) -> str:
        row_id = str(uuid.uuid4())
        self.insert(
            'volume_attachment',
            id=row_id,
            volume_id=volume_id,
            connector=json.dumps(connector) if connector else None,
            attach_status='attached',
            deleted=deleted,
        )
        return row_id

    def found(self) -> list[str]:
        return sorted(item.volume for item in self.database.volumes())

    def test_who_is_attached(self) -> None:
        one, two = self.volume(OURS), self.volume(OURS, OTHER, None)
        self.volume()
        self.volume(None)
        self.volume(OURS, deleted=1)
        self.attachment(self.volume(), OURS, deleted=1)
        self.assertEqual(sorted([one, two]), self.found())

    def test_whatever_their_status_is(self) -> None:
        made = [
            self.volume(OURS, status=status)
            for status in ('attaching', 'error_detaching', 'backing-up')
        ]
        self.assertEqual(sorted(made), self.found())

    def test_only_this_back_end_s(self) -> None:
        here = [self.volume(OURS), self.volume(OURS, host=HOST)]
        for host in ('h@spdk2#P', 'h@spd', 'x@spdk#P', 'h@spdkx', 'H%#P'):
            self.volume(OURS, host=host)
        self.assertEqual(sorted(here), self.found())

    def test_a_name_is_no_pattern(self) -> None:
        self.volume(OURS, host='hx@spdk#P')
        self.assertEqual([], list(attached.Database('h_@spdk').volumes()))
        self.assertEqual([], list(attached.Database('h%').volumes()))

    def test_what_is_told_of_each(self) -> None:
        name_id = str(uuid.uuid4())
        volume_id = self.volume(OURS, _name_id=name_id)
        [item] = self.database.volumes()
        self.assertEqual(
            (volume_id, 'P', f'volume-{name_id}'),
            (item.volume, item.pool, item.lvol),
        )

    def test_pages(self) -> None:
        made = [self.volume(OURS) for _ in range(7)]
        for page in (1, 3, 7, 8):
            with mock.patch.object(attached, 'PAGE', page):
                self.assertEqual(sorted(made), self.found())

    def test_one(self) -> None:
        volume_id = self.volume(OURS, OTHER, None)
        volume, rows = self.database.read(volume_id)
        self.assertEqual(volume_id, volume.id)
        self.assertEqual(volume_id, volume.name_id)
        self.assertEqual(f'{HOST}#P', volume.host)
        self.assertCountEqual([OURS, OTHER], [r.connector for r in rows])
        self.assertEqual(3, len(volume.volume_attachment))

    def test_one_that_is_detached(self) -> None:
        for volume_id in (
            self.volume(),
            self.volume(None),
            self.volume(OURS, deleted=1),
            str(uuid.uuid4()),
        ):
            self.assertEqual((None, []), self.database.read(volume_id))


class Leaving(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.leaving = attached.Leaving()
        self.volume = fixture.volume('P')

    def row(self, connector: Any) -> attached.Attachment:
        row = fixture.attach(self.volume, connector)
        return attached.Attachment(row.id, connector)

    def test_nobody_leaves(self) -> None:
        rows = [self.row(OURS), self.row(OTHER)]
        self.assertEqual(rows, self.leaving.staying(rows))

    def test_while_and_after(self) -> None:
        ours, other = self.row(OURS), self.row(OTHER)
        with self.leaving.detaching(self.volume, OURS):
            self.assertRaises(
                exceptions.Postponed, self.leaving.staying, [other, ours]
            )
            self.assertEqual([other], self.leaving.staying([other]))
        self.assertEqual([other], self.leaving.staying([other, ours]))

    def test_one_that_was_refused(self) -> None:
        ours = self.row(OURS)
        try:
            with self.leaving.detaching(self.volume, OURS):
                raise exceptions.InUse('a guest')
        except exceptions.InUse:
            pass
        self.assertEqual([ours], self.leaving.staying([ours]))

    def test_one_of_two_that_are_alike(self) -> None:
        """What is left needs the same export."""
        rows = [self.row(OURS), self.row(OURS)]
        with self.leaving.detaching(self.volume, OURS):
            self.assertEqual(rows, self.leaving.staying(rows))
        self.assertEqual(rows, self.leaving.staying(rows))

    def test_all(self) -> None:
        rows = [self.row(OURS), self.row(OURS), self.row(OTHER)]
        with self.leaving.detaching(self.volume, None):
            pass
        self.assertEqual([], self.leaving.staying(rows))

    def test_twice_at_a_time(self) -> None:
        ours = self.row(OURS)
        inside, go_on = threading.Event(), threading.Event()

        def detach() -> None:
            with self.leaving.detaching(self.volume, OURS):
                inside.set()
                go_on.wait(20)

        thread = threading.Thread(target=detach)
        thread.start()
        self.assertTrue(inside.wait(20))
        with self.leaving.detaching(self.volume, OURS):
            pass
        self.assertRaises(exceptions.Postponed, self.leaving.staying, [ours])
        go_on.set()
        thread.join()
        self.assertEqual([], self.leaving.staying([ours]))

    def test_it_forgets_in_the_end(self) -> None:
        with mock.patch.object(attached, '_REMEMBERED', 2):
            rows = []
            for _ in range(3):
                self.volume.volume_attachment.objects.clear()
                rows.append(self.row(OURS))
                with self.leaving.detaching(self.volume, OURS):
                    pass
        self.assertEqual(rows[:1], self.leaving.staying(rows))
