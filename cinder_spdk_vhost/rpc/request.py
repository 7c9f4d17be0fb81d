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

"""What is asked of a target: one JSON-RPC request, as a value."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, Generic, TypeVar

T = TypeVar('T')


def _as_is(result: Any) -> Any:
    return result


@dataclasses.dataclass(frozen=True)
class Request(Generic[T]):
    """A request and the way to read its answer.

    :ivar method: the RPC's name
    :ivar params: its parameters; None sends no ``params`` member at all,
        which is what methods without parameters insist on
    :ivar mutates: whether the target may hold something else afterwards.
        Decides what a lost answer means: a read may simply be asked again,
        a mutation's outcome is unknown until somebody looks.
    :ivar timeout: seconds this answer may take; None is the client's
        default. Long work (inflate, clearing deletes) answers only when it
        is done, so the deadline belongs to the request.
    :ivar optional: whether a target may well lack the method, and then has
        nothing that a look-up could find
    :ivar absent: types of the errors, beside NotFound, that mean of a
        look-up that there is nothing of that name
    :ivar parse: turns the ``result`` member into the caller's value
    """

    method: str
    params: Mapping[str, Any] | None = None
    mutates: bool = True
    timeout: float | None = None
    optional: bool = False
    absent: tuple[type[Exception], ...] = ()
    parse: Callable[[Any], T] = dataclasses.field(
        default=_as_is, repr=False, compare=False
    )
