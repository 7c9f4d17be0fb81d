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

"""What can go wrong between a caller and an SPDK application.

SPDK's errors carry little: often code -32602 with the text of an errno,
sometimes the negative errno itself as the code, sometimes -32603. Both are
mapped here, once, to types that callers can act on.
"""

import errno
import re
from typing import Any, ClassVar


class RPCError(Exception):
    """Base of all errors of the client."""

    def __init__(self, method: str, message: str) -> None:
        self.method = method
        super().__init__(f'{method}: {message}')


class TargetError(RPCError):
    """The target answered with an error: it runs, and said no.

    :ivar code: the JSON-RPC error code
    :ivar message: the target's own text
    """

    def __init__(self, method: str, code: int, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(method, f'{message} (code {code})')


class NotFound(TargetError):
    """No such bdev, lvstore, controller, subsystem."""


class Exists(TargetError):
    """The name is taken."""


class Busy(TargetError):
    """In use."""


class NoSpace(TargetError):
    """The lvstore is full."""


class NotPermitted(TargetError):
    """Claimed by somebody, or a snapshot with several clones."""


class TryAgain(TargetError):
    """Not now: a limit on an idle bdev, a pool that is still loading."""


class InvalidParams(TargetError):
    """The parameters were refused."""


class MethodNotFound(TargetError):
    """This SPDK does not know the method."""


class TransportError(RPCError):
    """No answer came; :attr:`sent` says whether the target may have it."""

    sent: ClassVar[bool] = True


class ConnectionFailed(TransportError):
    """The request never left: nobody listens, or it waited too long."""

    sent = False


class Unauthorized(ConnectionFailed):
    """The proxy refused the user name or password; nothing was asked."""


class ConnectionLost(TransportError):
    """The connection broke before a read was answered."""


class CallTimeout(TransportError):
    """A read was not answered within its deadline."""


class OutcomeUnknown(TransportError):
    """A mutation was sent and its answer lost: done or not, look first."""


class ProtocolError(TransportError):
    """What came back is not JSON-RPC."""


_BY_ERRNO: dict[int, type[TargetError]] = {
    errno.ENODEV: NotFound,
    errno.ENOENT: NotFound,
    errno.ENXIO: NotFound,
    errno.ENOKEY: NotFound,
    errno.EEXIST: Exists,
    errno.EALREADY: Exists,
    errno.EBUSY: Busy,
    errno.ENOSPC: NoSpace,
    errno.EPERM: NotPermitted,
    errno.EACCES: NotPermitted,
    errno.EAGAIN: TryAgain,
    errno.EINVAL: InvalidParams,
    errno.EISDIR: InvalidParams,
    errno.ENAMETOOLONG: InvalidParams,
}
# The target's texts, spelled out: os.strerror() would give them in this
# process's language. Those without a type of their own are here because
# SPDK says them under -32602 too, where they have nothing to do with the
# parameters ("Input/output error": no more vhost sockets).
_BY_TEXT: dict[str, type[TargetError]] = {
    'No such device': NotFound,
    'No such file or directory': NotFound,
    'No such device or address': NotFound,
    'Required key not available': NotFound,
    'File exists': Exists,
    'Operation already in progress': Exists,
    'Device or resource busy': Busy,
    'No space left on device': NoSpace,
    'Operation not permitted': NotPermitted,
    'Permission denied': NotPermitted,
    'Resource temporarily unavailable': TryAgain,
    'Invalid argument': InvalidParams,
    'Is a directory': InvalidParams,
    'File name too long': InvalidParams,
    'Input/output error': TargetError,
    'Cannot allocate memory': TargetError,
    'Connection timed out': TargetError,
    'spdk_json_decode_object failed': InvalidParams,
}
_BY_PHRASE: list[tuple[re.Pattern[str], type[TargetError]]] = [
    (re.compile(r'\bmay only be called after framework is init'), TryAgain),
    (re.compile(r'\b(does not exist|not found|Unable to find)\b'), NotFound),
    (re.compile(r'\balready exists\b'), Exists),
]
_BY_CODE: dict[int, type[TargetError]] = {
    -32601: MethodNotFound,
    -32602: InvalidParams,
}
# "Unknown error -22", "error setting ANA state: -22"
_ERRNO_AT_END = re.compile(r'(?:: |Unknown error )-(\d{1,3})\Z')


def _kind(code: int, message: str) -> type[TargetError]:
    if code == -32601:  # "Method not found" is no thing that wasn't found
        return MethodNotFound
    kind = _BY_TEXT.get(message.rpartition(': ')[2])
    if kind is not None:
        return kind
    for phrase, kind in _BY_PHRASE:
        if phrase.search(message):
            return kind
    number = _ERRNO_AT_END.search(message)
    if number:
        return _BY_ERRNO.get(int(number[1]), TargetError)
    return _BY_ERRNO.get(-code) or _BY_CODE.get(code) or TargetError


def from_answer(method: str, error: Any) -> TargetError:
    """The typed error for an answer's ``error`` member.

    The text is looked at first: SPDK says "File exists" under -32602 and
    under -17, and only the text tells them apart from a bad parameter. It
    may stand at the end of a longer sentence ("Failed to configure rate
    limit: Resource temporarily unavailable").
    """
    if not isinstance(error, dict):
        error = {}
    code = error.get('code')
    code = code if isinstance(code, int) else 0
    message = str(error.get('message', ''))
    return _kind(code, message)(method, code, message)
