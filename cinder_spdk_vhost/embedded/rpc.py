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

"""The methods by name, and how their errors go out."""

from collections.abc import Callable
from typing import Any

from cinder_spdk_vhost.embedded import decode, errors

Handler = Callable[[Any, dict[str, Any]], Any]

METHODS: dict[str, 'Method'] = {}


class Method:
    """One method.

    :param params: what it takes; None: nothing, not even an empty object
    :param code: the code for an errno of a check at the beginning; None:
        the errno itself
    :param late_code: the same for one that ends what was put off
    """

    __slots__ = ('_code', '_handler', '_late_code', '_params', 'name')

    def __init__(
        self,
        name: str,
        handler: Handler,
        params: decode.Params | None,
        code: int | None,
        late_code: int | None,
    ) -> None:
        self.name = name
        self._handler = handler
        self._params = params
        self._code = code
        self._late_code = late_code

    def run(self, target: Any, params: Any) -> Any:
        """Decode the parameters and begin."""
        if self._params is not None:
            decoded = self._params.decode(params)
        elif params is None:
            decoded = {}
        else:
            raise errors.RpcError(
                errors.INVALID_PARAMS,
                f'{self.name} method requires no parameters',
            )
        try:
            return self._handler(target, decoded)
        except errors.Errno as error:
            raise _outgoing(error, self._code) from error

    def finish(self, step: Callable[[], Any]) -> Any:
        """End what was put off."""
        try:
            return step()
        except errors.Errno as error:
            raise self.late(error) from error

    def late(self, error: Exception) -> Exception:
        """How an error at the end goes out."""
        if isinstance(error, errors.Errno):
            return _outgoing(error, self._late_code)
        return error


def _outgoing(error: errors.Errno, code: int | None) -> errors.RpcError:
    return error.as_code() if code is None else error.under(code)


def method(
    name: str,
    params: decode.Params | None = None,
    *,
    code: int | None = None,
    late_code: int | None = errors.INVALID_PARAMS,
) -> Callable[[Handler], Handler]:
    """Make a function a method of the target."""

    def register(handler: Handler) -> Handler:
        METHODS[name] = Method(name, handler, params, code, late_code)
        return handler

    return register
