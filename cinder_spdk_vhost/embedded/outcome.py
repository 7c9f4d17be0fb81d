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

"""Answers that come later than the request.

Most of what changes something answers after the requests that arrived with
it: SPDK starts it, looks at the next request, and finishes when its device
has answered. Some wait for somebody else, as for a guest to leave.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any


class Deferred:
    """What is under way until the poll ends.

    :param finish: completes it and returns the result
    :param wait: what must come true before, if anything
    :param undo: gives up instead, when that can't come true
    :param soon: end before those that write something
    :param around: what is entered before it is completed, and left when
        that has been saved, before it is answered
    """

    __slots__ = ('around', 'finish', 'soon', 'undo', 'wait')

    def __init__(
        self,
        finish: Callable[[], Any],
        wait: Awaitable[None] | None = None,
        undo: Callable[[], None] | None = None,
        *,
        soon: bool = False,
        around: AbstractAsyncContextManager[None] | None = None,
    ) -> None:
        self.around = around
        self.finish = finish
        self.wait = wait
        self.undo = undo
        self.soon = soon


def soon(result: Any) -> Deferred:
    """A result that is known, and answered a little later."""
    return Deferred(lambda: result, soon=True)


class Waiting:
    """What answers when somebody calls :meth:`resolve` or :meth:`fail`."""

    __slots__ = ('_answer', 'done')

    def __init__(self) -> None:
        self.done = False
        self._answer: Callable[[Any, Exception | None], None] | None = None

    def on_answer(
        self, answer: Callable[[Any, Exception | None], None]
    ) -> None:
        """Who is to be told."""
        self._answer = answer

    def resolve(self, result: Any) -> None:
        """Answer with a result."""
        self._tell(result, None)

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        self._tell(None, error)

    def _tell(self, result: Any, error: Exception | None) -> None:
        if not self.done:
            self.done = True
            if self._answer is not None:
                self._answer(result, error)
