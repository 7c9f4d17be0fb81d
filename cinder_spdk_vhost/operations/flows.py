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

from collections.abc import Callable
import contextlib
import dataclasses
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost import rpc

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


def run(later: Later, *steps: Step) -> None:
    """Run the steps in order; on failure undo in the opposite order.

    :param later: takes over what could not be undone now
    :raises: the error of the step that failed
    """
    with contextlib.ExitStack() as undoing:
        for step in steps:
            try:
                step.perform()
            except rpc.OutcomeUnknown:
                undoing.callback(step.take_back, later)
                raise
            undoing.callback(step.take_back, later)
        undoing.pop_all()
