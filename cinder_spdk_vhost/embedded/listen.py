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

"""The RPC socket's place in the file system, and the state directory's.

Whoever can open the socket can do anything to the volumes: it is its
owner's alone, as are the directories that are made for it.
"""

import contextlib
import fcntl
import os
import socket
import stat

from cinder_spdk_vhost.embedded import errors

_BACKLOG = 512


def make_private_directory(path: str) -> None:
    """Make a directory for its owner alone, if it is not there."""
    try:
        if not os.path.isdir(path):
            os.makedirs(path, mode=0o700)
    except OSError as error:
        raise errors.StartError(
            f'the directory {path} can not be made: {error.strerror}'
        ) from error


def lock(path: str, what: str) -> int:
    """Be the only one to have a file; says what it is for if not.

    :return: a descriptor that holds the lock while it is open
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise errors.StartError(
            f'{path} can not be opened: {error.strerror}'
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise errors.StartError(
            f'{what} is in use by another target'
        ) from error
    return fd


class RpcSocket:
    """The listening socket; a stale one in its place is replaced."""

    def __init__(self, path: str) -> None:
        self._path = path
        make_private_directory(os.path.dirname(os.path.abspath(path)))
        # The same lock that a real target takes.
        self._lock_path = f'{path}.lock'
        self._lock = lock(self._lock_path, f'the socket {path}')
        try:
            self._remove_stale()
            self.socket = self._bind()
        except errors.StartError:
            self._unlock()
            raise

    def _remove_stale(self) -> None:
        try:
            mode = os.lstat(self._path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise errors.StartError(
                f'{self._path} is there and is not a socket'
            )
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self._path)
            except ConnectionRefusedError:
                os.unlink(self._path)
                return
            except OSError as error:
                raise errors.StartError(
                    f'{self._path}: {error.strerror}'
                ) from error
        raise errors.StartError(
            f'the socket {self._path} is in use: somebody answers there'
        )

    def _bind(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        before = os.umask(0o177)
        try:
            listener.bind(self._path)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise errors.StartError(
                f'the socket {self._path} can not be made: '
                f'{error.strerror or error}'
            ) from error
        finally:
            os.umask(before)
        return listener

    def _unlock(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._lock_path)
        os.close(self._lock)

    def close(self) -> None:
        """Take the socket away."""
        self.socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        self._unlock()
