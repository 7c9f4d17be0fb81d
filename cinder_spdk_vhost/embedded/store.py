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

"""What survives the target: lvstores and their lvols, in SQLite.

One transaction gathers what one poll changed and is committed before any of
its answers leave, so an answered request is never forgotten, whenever the
process is killed.
"""

from collections.abc import Iterator
import logging
import os
import sqlite3
from typing import Any

LOG = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lvstore (
    uuid TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    cluster_size INTEGER NOT NULL,
    block_size INTEGER NOT NULL,
    total_clusters INTEGER NOT NULL,
    metadata_clusters INTEGER NOT NULL,
    metadata_pages INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS lvol (
    uuid TEXT PRIMARY KEY,
    lvstore TEXT NOT NULL,
    blob INTEGER NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    thin INTEGER NOT NULL,
    read_only INTEGER NOT NULL,
    parent TEXT,
    clusters TEXT NOT NULL,
    clear_method TEXT NOT NULL,
    image TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lvol_of_lvstore ON lvol (lvstore, blob);
CREATE TABLE IF NOT EXISTS reserve (bytes BLOB);
"""
_VERSION = 2
#: What brings a file of an older version up to the next.
_UPGRADES = {1: 'ALTER TABLE lvol ADD COLUMN image TEXT'}

#: Room that is kept in the file and in its log: guests fill the disk.
_RESERVE = 1 << 20
_PAGE = 4096

_LVSTORE = (
    'uuid, name, cluster_size, block_size, total_clusters, '
    'metadata_clusters, metadata_pages'
)
_LVOL = (
    'uuid, lvstore, blob, name, size, thin, read_only, parent, '
    'clusters, clear_method, image'
)


class Store:
    """The state file.

    :param path: the SQLite file, made if it is not there
    """

    def __init__(self, path: str) -> None:
        # The file says which volumes there are: nobody else's business.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute('PRAGMA journal_mode = WAL')
        # Enough for a killed process; a power cut may lose the last
        # commits, never the file.
        self._db.execute('PRAGMA synchronous = NORMAL')
        # As soon as there is more in the log than the reserve.
        self._db.execute(f'PRAGMA wal_autocheckpoint = {_RESERVE // _PAGE}')
        self._open = False
        self._failure: sqlite3.Error | None = None
        self._upgrade()
        self._reserve()

    def _upgrade(self) -> None:
        (version,) = self._db.execute('PRAGMA user_version').fetchone()
        for old in range(version or _VERSION, _VERSION):
            # Both or none: the same step twice would fail.
            self._db.executescript(
                f'BEGIN; {_UPGRADES[old]}; '
                f'PRAGMA user_version = {old + 1}; COMMIT;'
            )
        self._db.executescript(_SCHEMA)
        self._db.execute(f'PRAGMA user_version = {_VERSION}')

    def _reserve(self) -> None:
        """Have room for what is to be said when the disk is full.

        Pages that were filled and emptied stay in the file, and its log is
        written from the beginning again and again.
        """
        try:
            self._db.execute(
                'INSERT INTO reserve VALUES (zeroblob(?))', (_RESERVE,)
            )
            self._db.execute('DELETE FROM reserve')
        except sqlite3.OperationalError as error:
            LOG.warning('no room is kept for the state: %s', error)

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            if not self._open:
                self._db.execute('BEGIN IMMEDIATE')
                self._open = True
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            # Half of a change is none.
            self._failure = error
            raise

    def commit(self) -> None:
        """Make everything written since the last commit last."""
        if self._failure is not None:
            raise self._failure
        if self._open:
            try:
                self._db.execute('COMMIT')
            except sqlite3.Error as error:
                self._failure = error
                raise
            self._open = False

    def close(self) -> None:
        """Commit, if nothing has failed yet, and close."""
        try:
            if self._failure is None:
                self.commit()
        finally:
            self._db.close()

    def save_lvstore(self, row: tuple[Any, ...]) -> None:
        """Add an lvstore, or replace what is known of it."""
        self._write(
            f'INSERT OR REPLACE INTO lvstore ({_LVSTORE}) '  # noqa: S608
            'VALUES (?, ?, ?, ?, ?, ?, ?)',
            row,
        )

    def delete_lvstore(self, uuid: str) -> None:
        """Forget an lvstore and all its lvols."""
        self._write('DELETE FROM lvol WHERE lvstore = ?', (uuid,))
        self._write('DELETE FROM lvstore WHERE uuid = ?', (uuid,))

    def save_lvol(self, row: tuple[Any, ...]) -> None:
        """Add an lvol, or replace what is known of it."""
        self._write(
            f'INSERT OR REPLACE INTO lvol ({_LVOL}) '  # noqa: S608
            'VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
            row,
        )

    def delete_lvol(self, uuid: str) -> None:
        """Forget one lvol."""
        self._write('DELETE FROM lvol WHERE uuid = ?', (uuid,))

    def lvstore(self, uuid: str) -> tuple[Any, ...] | None:
        """One lvstore's row."""
        return self._db.execute(
            f'SELECT {_LVSTORE} FROM lvstore WHERE uuid = ?',  # noqa: S608
            (uuid,),
        ).fetchone()

    def lvols(self, lvstore: str) -> Iterator[tuple[Any, ...]]:
        """The rows of an lvstore's lvols, oldest blob first."""
        return self._db.execute(
            f'SELECT {_LVOL} FROM lvol WHERE lvstore = ? '  # noqa: S608
            'ORDER BY blob',
            (lvstore,),
        )
