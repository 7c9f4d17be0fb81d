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

"""Keys by name: files that the target reads when it needs them."""

import errno
import os
from typing import Any

from cinder_spdk_vhost.embedded import errors

_MODULE = 'keyring_file'


def _check(path: str) -> None:
    if not path.startswith('/'):
        raise errors.Errno(errno.EPERM)
    try:
        status = os.stat(path)
    except OSError as error:
        raise errors.Errno(error.errno or errno.EIO) from error
    if status.st_mode & 0o077 or status.st_uid != os.getuid():
        raise errors.Errno(errno.EPERM)


def _bare(name: str) -> str:
    """A name without its keyring, which can only be the one there is."""
    return name.partition(':')[2] if ':' in name else name


class Key:
    """One key.

    :ivar users: who holds it; a removed key stays until the last let go
    """

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self._path = path
        self.removed = False
        self.users = 0

    def read(self, limit: int) -> str:
        """Its content, of at most so many bytes."""
        _check(self._path)
        try:
            with open(self._path, encoding='latin-1') as file:
                text = file.read(limit + 1)
        except OSError as error:
            raise errors.Errno(error.errno or errno.EIO) from error
        if len(text) > limit:
            raise errors.Errno(errno.ENOBUFS)
        return text

    def describe(self) -> dict[str, Any]:
        """As ``keyring_get_keys`` shows it: where it is, not what."""
        about: dict[str, Any] = {
            'name': self.name,
            'module': _MODULE,
            'removed': self.removed,
            'probed': False,
            'refcnt': self.users + (not self.removed),
        }
        if not self.removed:
            about['path'] = self._path
        return about


class Keyring:
    """All keys."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._removed: list[Key] = []

    def __contains__(self, name: str) -> bool:
        return _bare(name) in self._keys

    def add(self, name: str, path: str) -> None:
        """Name a file that only the target's user can read."""
        if name.find(':') > 0:
            raise errors.Errno(errno.EINVAL)
        if name in self:
            raise errors.Errno(errno.EEXIST)
        _check(path)
        self._keys[_bare(name)] = Key(name, path)

    def remove(self, name: str) -> None:
        """Forget a name; who holds the key keeps it."""
        key = self._keys.pop(_bare(name), None)
        if key is None:
            raise errors.Errno(errno.ENOKEY)
        key.removed = True
        if key.users:
            self._removed.append(key)

    def hold(self, name: str) -> Key:
        """Get a key, to be released."""
        key = self._keys.get(_bare(name))
        if key is None:
            raise errors.Errno(errno.ENOKEY)
        key.users += 1
        return key

    def release(self, key: Key) -> None:
        """Let go of a key."""
        key.users -= 1
        if key.removed and not key.users:
            self._removed.remove(key)

    def describe(self) -> list[dict[str, Any]]:
        """As ``keyring_get_keys`` shows them."""
        return [
            key.describe() for key in (*self._keys.values(), *self._removed)
        ]
