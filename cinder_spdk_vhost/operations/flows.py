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

"""Operations of several steps that undo themselves.

A step that failed changed nothing and needs no undoing, with one exception:
where the answer was lost, it may have been done, and is undone as well. An
undoing that fails is handed on to be tried again later; it does not keep
the steps before it from being undone.

A stack of callbacks is all it takes. taskflow's engine did the same and took
3 ms of CPU time for an operation and as much for each few steps (measured),
more than what is sent to the target; and no flow is ever taken up again by
another process, which is what its engine is for: truth is on the target.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import types
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost import rpc
from cinder_spdk_vhost.operations import target as spdk_target

LOG = logging.getLogger(__name__)

Action = Callable[[], Any]
# Takes what is to be undone, in words, and the action that does it.
Later = Callable[[str, Action], None]


@dataclasses.dataclass(frozen=True)
class Step:
    """One action and what takes it back.

    :ivar name: what the action does, in words
    :ivar undo: must succeed where there is nothing to undo
    """

    name: str
    do: Action
    undo: Action

    def perform(self) -> None:
        try:
            self.do()
        except Exception as e:
            e.add_note(self.name)
            raise

    def take_back(self, later: Later) -> None:
        LOG.info('Undoing: %s', self.name)
        try:
            self.undo()
        except Exception as e:
            LOG.warning(
                'Could not undo "%(step)s", will try again: %(error)s',
                {'step': self.name, 'error': e},
            )
            later(self.name, self.undo)


@dataclasses.dataclass(frozen=True)
class Sent:
    """A step that is one request, and can travel with others.

    :ivar name: what it does, in words
    :ivar mutation: the request, and the look whether it was done
    :ivar undo: must succeed where there is nothing to undo
    :ivar later: takes over the undoing that cannot be done now; None is
        what the flow has
    """

    name: str
    mutation: spdk_target.Mutation
    undo: Action
    later: Later | None = None


class Flow:
    """Steps of which some are only known when those before are done.

    A context manager: an exception takes back what was done in it, in the
    opposite order.

    :param later: takes over what could not be undone now
    """

    def __init__(self, later: Later) -> None:
        self._later = later
        self._undoing = contextlib.ExitStack()

    def __enter__(self) -> 'Flow':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if kind is None:
            self._undoing.pop_all()
        else:
            self._undoing.close()

    def perform(self, step: Step) -> None:
        """Do one step.

        :raises: what its action raised
        """
        try:
            step.perform()
        except rpc.OutcomeUnknown:
            self._undoing.callback(step.take_back, self._later)
            raise
        self._undoing.callback(step.take_back, self._later)

    def together(
        self, target: spdk_target.Target, steps: Sequence[Sent]
    ) -> None:
        """Do several steps, in one round trip and in this order.

        :raises rpc.RPCError: the first failure
        """
        errors = target.settle_each(*(step.mutation for step in steps))
        for step, error in zip(steps, errors, strict=True):
            if error is None or isinstance(error, rpc.OutcomeUnknown):
                back = Step(step.name, _done, step.undo)
                self._undoing.callback(
                    back.take_back, step.later or self._later
                )
        for step, error in zip(steps, errors, strict=True):
            if error is not None:
                error.add_note(step.name)
                raise error


def _done() -> None:
    """It was, with others."""


def run(later: Later, *steps: Step) -> None:
    """Run the steps in order; on failure undo in the opposite order.

    :param later: takes over what could not be undone now
    :raises: the error of the step that failed
    """
    with Flow(later) as flow:
        for step in steps:
            flow.perform(step)
