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

"""What is attached: as the database says it, and what it says too late."""

import collections
from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import json
import threading
from typing import Any

from cinder import context, objects
from cinder.db import api as db
from cinder.db import models
from cinder.volume import volume_utils
import sqlalchemy as sa

from cinder_spdk_vhost import exceptions, names
from cinder_spdk_vhost.reconcile import restore

# Rows that are read at a time.
PAGE = 1000
# Attachments that were detached and whose rows are not gone, at most. A row
# goes within moments, or its detaching failed in Cinder and is repeated.
_REMEMBERED = 10_000


@dataclasses.dataclass(frozen=True)
class Attachment:
    """A row of the database: who has a volume."""

    id: str
    connector: Mapping[str, Any]


class Database:
    """Attachments of one back end's volumes.

    The rows are read as such. Cinder's objects ask for deprecated connector
    specs once a row: with 1,000 attachments, 1,000 queries more.

    :param host: ``HOST@BACKEND``
    """

    def __init__(self, host: str) -> None:
        self._host = host

    def volumes(self) -> Iterator[restore.Item]:
        """Those that somebody may have attached; one query a page."""
        attachment, volume = models.VolumeAttachment, models.Volume
        columns = volume.id, volume._name_id, volume.host
        query = (
            sa.select(*columns)
            .join(attachment, attachment.volume_id == volume.id)
            .where(
                ~volume.deleted,
                ~attachment.deleted,
                attachment.connector.is_not(None),
                sa.or_(
                    volume.host == self._host,
                    volume.host.startswith(f'{self._host}#', autoescape=True),
                ),
            )
            .distinct()
            .order_by(volume.id)
            .limit(PAGE)
        )
        last = ''
        while True:
            admin = context.get_admin_context()
            with db.main_context_manager.reader.using(admin) as session:
                rows = session.execute(query.where(volume.id > last)).all()
            for volume_id, name_id, host in rows:
                yield restore.Item(
                    volume=volume_id,
                    pool=volume_utils.extract_host(host, 'pool') or '',
                    lvol=names.volume(name_id or volume_id),
                )
            if len(rows) < PAGE:
                return
            last = rows[-1][0]

    def read(self, volume_id: str) -> tuple[Any, list[Attachment]]:
        """A volume, and its attachments as of now; one query.

        :returns: None in the place of the volume if nobody has it attached
        """
        admin = context.get_admin_context()
        rows = db.volume_attachment_get_all_by_volume_id(admin, volume_id)
        found = [
            Attachment(row.id, json.loads(row.connector))
            for row in rows
            if row.connector
        ]
        if not found or rows[0].volume is None:
            return None, []
        volume = objects.Volume._from_db_object(
            admin, objects.Volume(), rows[0].volume
        )
        # Put there, or it would be asked for.
        volume.volume_attachment = objects.VolumeAttachmentList(
            objects=[
                objects.VolumeAttachment(
                    id=row.id,
                    connector=json.loads(row.connector or 'null'),
                )
                for row in rows
            ]
        )
        return volume, found


class Leaving:
    """Attachments that are being detached, or were a moment ago.

    Their rows go after the driver's call has returned, so for that long the
    database still says that they are attached.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: collections.Counter[str] = collections.Counter()
        self._gone: dict[str, None] = {}

    @contextlib.contextmanager
    def detaching(self, volume: Any, connector: Any) -> Iterator[None]:
        """While a detach is under way.

        Where several attachments have that same connector it can't be told
        which one goes; what is left needs the same export, so none is
        noted.

        :param connector: None for all of them
        """
        rows = [
            row.id
            for row in volume.volume_attachment
            if connector is None or row.connector == connector
        ]
        if connector is not None and len(rows) > 1:
            rows = []
        with self._lock:
            self._under_way.update(rows)
        done: list[str] = []
        try:
            yield
            done = rows
        finally:
            with self._lock:
                self._under_way.subtract(rows)
                self._under_way += collections.Counter()
                self._gone.update(dict.fromkeys(done))
                while len(self._gone) > _REMEMBERED:
                    del self._gone[next(iter(self._gone))]

    def staying(self, attachments: list[Attachment]) -> list[Attachment]:
        """Those of them that are not detached.

        :raises Postponed: one of them is just being detached
        """
        with self._lock:
            for attachment in attachments:
                if self._under_way[attachment.id]:
                    raise exceptions.Postponed(
                        f'attachment {attachment.id} is being detached'
                    )
            return [a for a in attachments if a.id not in self._gone]
