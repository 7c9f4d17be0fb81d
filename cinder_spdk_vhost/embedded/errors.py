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

"""How a request fails: the codes and texts of an SPDK application."""

import os

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603


class RpcError(Exception):
    """Ends a request with this error."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f'{message} ({code})')


class Errno(Exception):
    """What the layers below say: an errno, positive.

    A method decides under which JSON-RPC code its text goes out.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(os.strerror(number))

    def as_code(self) -> RpcError:
        """The errno itself is the code, as most checks do it."""
        return RpcError(-self.number, os.strerror(self.number))

    def under(self, code: int) -> RpcError:
        """Only the errno's text goes out, as most completions do it."""
        return RpcError(code, os.strerror(self.number))


class StartError(Exception):
    """The target can't start; the text is for the person who started it."""
