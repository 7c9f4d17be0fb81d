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

"""The mark on a file that says which lvstore lives on it.

The books are in the state directory; the mark ties them to the file, so
that an lvstore goes where its file goes and is gone when the file is.
"""

import contextlib
import os
import uuid as uuids

_MAGIC = b'cinder-spdk-target lvstore '
_LENGTH = 512


def write(filename: str, uuid: str) -> None:
    """Mark a file as the home of an lvstore."""
    _put(filename, (_MAGIC + uuid.encode()).ljust(_LENGTH, b'\0'))


def erase(filename: str) -> None:
    """Take the mark off."""
    with contextlib.suppress(FileNotFoundError):
        _put(filename, bytes(_LENGTH))


def read(filename: str) -> str | None:
    """The UUID of the lvstore that lives on a file."""
    with open(filename, 'rb') as file:
        mark = file.read(_LENGTH)
    if not mark.startswith(_MAGIC):
        return None
    text = mark[len(_MAGIC) :].rstrip(b'\0').decode('ascii', 'replace')
    try:
        return str(uuids.UUID(text))
    except ValueError:
        return None


def _put(filename: str, mark: bytes) -> None:
    fd = os.open(filename, os.O_WRONLY)
    try:
        os.pwrite(fd, mark, 0)
    finally:
        os.close(fd)
