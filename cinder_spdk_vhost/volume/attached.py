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


_VOLUME = models.Volume
_ROW = models.VolumeAttachment
_ATTACHED = (
    sa.select(
        _VOLUME.id,
        _VOLUME._name_id,
        _VOLUME.host,
    )
    .join(_ROW, _ROW.volume_id == _VOLUME.id)
    .where(~_VOLUME.deleted, ~_ROW.deleted, _ROW.connector.is_not(None))
    .distinct()
    .order_by(_VOLUME.id)
)

# What is needed of a volume; the rest its object asks for if need be.
_NEEDED = (
    'id',
    '_name_id',
    'encryption_key_id',
    'host',
    'multiattach',
    'size',
    'status',
    'volume_type_id',
)
_OF_ONE = (
    sa.select(
        _ROW.id,
        _ROW.connector,
        *(getattr(_VOLUME, name) for name in _NEEDED),
    )
    .join(_VOLUME, _ROW.volume_id == _VOLUME.id)
    .where(
        _VOLUME.id == sa.bindparam('volume'), ~_VOLUME.deleted, ~_ROW.deleted
    )
    .order_by(_ROW.id)
)


class Database:
    """Attachments of one back end's volumes.

    The rows are read as such. Cinder's objects take 4 ms of CPU time a
    volume, and a query more for each attachment's deprecated specs.

    :param host: ``HOST@BACKEND``
    """

    def __init__(self, host: str) -> None:
        self._attached = _ATTACHED.where(
            sa.or_(
                _VOLUME.host == host,
                _VOLUME.host.startswith(f'{host}#', autoescape=True),
            )
        )

    def volumes(self) -> Iterator[restore.Item]:
        """Those that somebody may have attached; one query a page."""
        query = self._attached.limit(PAGE)
        last = ''
        while True:
            rows = _rows(query.where(_VOLUME.id > last))
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
        rows = _rows(_OF_ONE, volume=volume_id)
        known = [
            Attachment(row_id, json.loads(connector or 'null'))
            for row_id, connector, *_ in rows
        ]
        found = [attachment for attachment in known if attachment.connector]
        if not found:
            return None, []
        admin = context.get_admin_context()
        volume = objects.Volume(
            admin, **dict(zip(_NEEDED, rows[0][2:], strict=True))
        )
        volume.volume_attachment = objects.VolumeAttachmentList(
            objects=[
                objects.VolumeAttachment(
                    admin, id=attachment.id, connector=attachment.connector
                )
                for attachment in known
            ]
        )
        return volume, found


def _rows(query: Any, **parameters: Any) -> Any:
    admin = context.get_admin_context()
    with db.main_context_manager.reader.connection.using(admin) as connection:
        return connection.execute(query, parameters).all()


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
