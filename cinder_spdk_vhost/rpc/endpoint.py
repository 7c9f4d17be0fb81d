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

"""Where a target answers, and with what one gets in."""

import dataclasses
import ipaddress
import os
import re
from typing import NoReturn
from urllib import parse as urlparse

# sun_path has 108 bytes, one for the closing NUL (unix(7)).
MAX_UNIX_PATH = 107

ACCEPTED = (
    'unix:///absolute/path, http://host:port, https://host:port or '
    'tcp://host:port on the loopback interface'
)


class InvalidEndpoint(ValueError):
    """The URL or what goes with it can't be used.

    The message names the URL without its secrets, the fault, and what would
    be accepted.
    """


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An SPDK application's JSON-RPC, as configured.

    Made with :meth:`parse`. Neither its repr nor its str shows the password.

    :ivar scheme: ``unix``, ``tcp``, ``http`` or ``https``
    :ivar path: the socket's path for ``unix``, else ''
    :ivar host: name or address without brackets, '' for ``unix``
    :ivar port: 1 to 65535, 0 for ``unix``
    :ivar ca_file: PEM file of the authorities to trust; None: the system's
    :ivar verify: whether an https server must show a trusted certificate
    """

    scheme: str
    path: str = ''
    host: str = ''
    port: int = 0
    username: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    ca_file: str | None = None
    verify: bool = True

    @classmethod
    def parse(
        cls,
        url: str,
        username: str | None = None,
        password: str | None = None,
        *,
        ca_file: str | None = None,
        verify: bool = True,
        allow_remote_tcp: bool = False,
    ) -> 'Endpoint':
        """Read a URL and what belongs to it.

        :param username: for HTTP basic auth; goes with a password
        :param allow_remote_tcp: the admin knows that whoever reaches a
            ``tcp://`` port owns the target: SPDK asks for no password
        :raises InvalidEndpoint: on anything that can't work
        """
        place = _place(url)
        if place.scheme == 'tcp' and not (place.loopback or allow_remote_tcp):
            _refuse(
                url,
                'SPDK asks for no password on TCP, so only loopback '
                'addresses are accepted, unless remote TCP is allowed '
                'explicitly',
            )
        _check_credentials(url, place.scheme, username, password)
        _check_ca_file(url, ca_file)
        return dataclasses.replace(
            place,
            username=username,
            password=password,
            ca_file=ca_file,
            verify=verify,
        )

    @property
    def url(self) -> str:
        """The URL in canonical form; it never holds credentials."""
        if self.scheme == 'unix':
            return f'unix://{self.path}'
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'{self.scheme}://{host}:{self.port}'

    @property
    def loopback(self) -> bool:
        """Whether the target is on this host for certain."""
        if self.scheme == 'unix' or self.host.lower() == 'localhost':
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def cleartext_credentials(self) -> bool:
        """Whether the password crosses a network unencrypted."""
        return (
            self.scheme == 'http'
            and self.password is not None
            and not self.loopback
        )

    def __str__(self) -> str:
        return self.url


def _place(url: str) -> Endpoint:
    """Scheme and address of a URL."""
    if not isinstance(url, str) or not url:
        _refuse(url, 'it is empty')
    if re.search(r'[\x00-\x20\x7f]', url):
        _refuse(url, 'it has white space or control characters in it')
    scheme, separator, rest = url.partition('://')
    if not separator:
        _refuse(url, 'it has no scheme')
    scheme = scheme.lower()
    if scheme == 'unix':
        return Endpoint('unix', path=_unix_path(url, rest))
    if scheme not in ('tcp', 'http', 'https'):
        _refuse(url, 'the scheme is not known')
    host, port = _host_and_port(url)
    return Endpoint(scheme, host=host, port=port)


def _unix_path(url: str, path: str) -> str:
    if not path.startswith('/'):
        _refuse(url, 'the path of a unix socket has to be absolute')
    if path.endswith('/'):
        _refuse(url, 'it names a directory, not a socket')
    size = len(os.fsencode(path))
    if size > MAX_UNIX_PATH:
        _refuse(
            url,
            f"the path has {size} bytes, a unix socket's at most "
            f'{MAX_UNIX_PATH}',
        )
    return path


def _host_and_port(url: str) -> tuple[str, int]:
    parts, fault = None, ''
    # The library's own messages quote what may be a password: they must not
    # even be the context of ours.
    try:
        parts = urlparse.urlsplit(url)
        port = parts.port
    except ValueError:
        fault = 'its host or port is malformed'
    if '@' in url:
        fault = 'credentials do not belong in a URL: give them apart from it'
    if parts is None or fault:
        _refuse(url, fault)
    if parts.query or parts.fragment or parts.path not in ('', '/'):
        _refuse(url, 'nothing may follow the port')
    host = parts.hostname or ''
    if not host or not port:
        _refuse(url, 'it needs a host and a port (1 to 65535)')
    if not re.fullmatch(r'[\w.:%-]+', host):
        _refuse(url, 'its host is malformed')
    return host, port


def _check_credentials(
    url: str, scheme: str, username: str | None, password: str | None
) -> None:
    if username is None and password is None:
        return
    if username is None or password is None:
        given, missing = 'username', 'password'
        if username is None:
            given, missing = missing, given
        _refuse(url, f'a {given} is given without a {missing}: give both')
    if scheme not in ('http', 'https'):
        _refuse(
            url,
            f'a username and password are given, but {scheme} has no '
            f'authentication: leave them out, or use https',
        )
    if not username or ':' in username:
        _refuse(
            url,
            'the username has to be non-empty and without a colon (RFC 7617)',
        )


def _check_ca_file(url: str, ca_file: str | None) -> None:
    if ca_file is None:
        return
    fault = ''
    try:
        with open(ca_file, 'rb') as stream:
            stream.read(1)
    except (OSError, ValueError) as error:
        fault = getattr(error, 'strerror', None) or 'not a path'
    if fault:
        _refuse(
            url,
            f'the CA file {ca_file!r} has to be a readable PEM file: {fault}',
        )


def _refuse(url: object, fault: str) -> NoReturn:
    raise InvalidEndpoint(
        f'{_without_secrets(url)!r} is not usable as the URL of an SPDK '
        f'target: {fault}. Accepted: {ACCEPTED}.'
    )


def _without_secrets(url: object) -> object:
    """The URL as given, with stars where somebody may have put a password."""
    if not isinstance(url, str) or url.startswith('unix:///'):
        return url
    before, at, after = url.rpartition('@')
    if at:
        scheme, separator, _ = before.partition('://')
        url = f'{scheme}://***@{after}' if separator else f'***@{after}'
    return re.sub(r'([?#]).*', r'\1***', url, flags=re.DOTALL)
