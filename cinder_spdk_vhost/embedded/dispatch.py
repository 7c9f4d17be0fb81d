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

"""From JSON values to answers: requests, batches, notifications.

A request ends at once or is put off to the end of the poll. What ends first
is answered first. The elements of a batch run as if they had come alone and
share one answer.
"""

import asyncio
from collections.abc import Callable
import contextlib
from json import JSONEncoder
import logging
from typing import Any, Protocol

from cinder_spdk_vhost.embedded import errors, outcome, rpc

LOG = logging.getLogger(__name__)

_encode = JSONEncoder(separators=(',', ':')).encode

_MEMBERS = frozenset(('jsonrpc', 'id', 'method', 'params'))


class Peer(Protocol):
    """Who asked."""

    #: answers that are due
    outstanding: int

    def answer(self, text: str) -> None:
        """Send a line, once what it tells is saved."""


class Batch:
    """Answers that travel together."""

    __slots__ = ('_answers', '_open', '_peer')

    def __init__(self, peer: Peer, count: int) -> None:
        self._peer = peer
        self._open = count
        self._answers: list[str] = []

    def ended(self, answer: str | None) -> None:
        """One element has ended."""
        if answer is not None:
            self._answers.append(answer)
        self._open -= 1
        if not self._open and self._answers:
            self._peer.answer(f'[{",".join(self._answers)}]')


class Call:
    """One request on its way."""

    __slots__ = ('_batch', '_id', '_peer')

    def __init__(self, peer: Peer, batch: Batch | None) -> None:
        self._peer = peer
        self._batch = batch
        self._id = 'null'
        peer.outstanding += 1

    def identify(self, request_id: Any) -> None:
        """What the answer is to carry."""
        self._id = (
            str(request_id)
            if request_id.__class__ is int
            else _encode(request_id)
        )

    def succeed(self, result: Any) -> None:
        """Answer, unless nobody wants to know."""
        if self._id == 'null':
            self._end(None)
        else:
            self._end(
                f'{{"jsonrpc":"2.0","id":{self._id},'
                f'"result":{_encode(result)}}}'
            )

    def fail(self, code: int, message: str) -> None:
        """Answer with an error, even to a notification."""
        self._end(
            f'{{"jsonrpc":"2.0","id":{self._id},"error":'
            f'{{"code":{code},"message":{_encode(message)}}}}}'
        )

    def _end(self, answer: str | None) -> None:
        self._peer.outstanding -= 1
        if self._batch is not None:
            self._batch.ended(answer)
        elif answer is not None:
            self._peer.answer(answer)


def _later(deferred: tuple[Call, rpc.Method, outcome.Deferred]) -> bool:
    return not deferred[2].soon


class Dispatcher:
    """Runs requests on a target.

    :param target: what the methods work on
    :param flush: saves and sends what ended outside of a poll
    """

    def __init__(self, target: Any, flush: Callable[[], None]) -> None:
        self._target = target
        self._flush = flush
        self._deferred: list[tuple[Call, rpc.Method, outcome.Deferred]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, peer: Peer, value: Any) -> None:
        """Begin what a JSON value asks for."""
        if value.__class__ is list and value:
            batch = Batch(peer, len(value))
            for element in value:
                self._begin(Call(peer, batch), element)
        else:
            self._begin(Call(peer, None), value)

    def _begin(self, call: Call, request: Any) -> None:
        # A dict of another class named a member twice.
        if request.__class__ is not dict or not _MEMBERS.issuperset(request):
            call.fail(errors.INVALID_REQUEST, 'Invalid request')
            return
        name = request.get('method')
        request_id = request.get('id')
        if (
            request.get('jsonrpc', '2.0') != '2.0'
            or name.__class__ is not str
            or request_id.__class__ not in (str, int, float, type(None))
        ):
            call.fail(errors.INVALID_REQUEST, 'Invalid request')
            return
        call.identify(request_id)
        params = request.get('params')
        if params is not None and not isinstance(params, dict | list):
            call.fail(errors.INVALID_REQUEST, 'Invalid request')
            return
        method = rpc.METHODS.get(name)
        if method is None:
            call.fail(errors.METHOD_NOT_FOUND, 'Method not found')
            return
        self._run(call, method, lambda: method.run(self._target, params))

    def _run(
        self, call: Call, method: rpc.Method, step: Callable[[], Any]
    ) -> None:
        try:
            result = step()
        except errors.RpcError as error:
            call.fail(error.code, error.message)
        except Exception:
            LOG.exception('%s failed', method.name)
            call.fail(errors.INTERNAL_ERROR, 'Internal error')
        else:
            if result.__class__ is outcome.Deferred:
                self._deferred.append((call, method, result))
            elif result.__class__ is outcome.Waiting:
                self._wait(call, method, result)
            else:
                call.succeed(result)

    def _wait(
        self, call: Call, method: rpc.Method, waiting: outcome.Waiting
    ) -> None:
        def answer(result: Any, error: Exception | None) -> None:
            def step() -> Any:
                if error is not None:
                    raise method.late(error)
                return result

            self._run(call, method, step)
            self._flush()

        waiting.on_answer(answer)

    def end_poll(self) -> None:
        """Finish what was put off."""
        while self._deferred:
            deferred, self._deferred = self._deferred, []
            deferred.sort(key=_later)
            for call, method, job in deferred:
                if job.wait is None and job.around is None:
                    self._finish(call, method, job)
                else:
                    task = asyncio.ensure_future(
                        self._finish_later(call, method, job)
                    )
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    def _finish(
        self, call: Call, method: rpc.Method, job: outcome.Deferred
    ) -> None:
        self._run(call, method, lambda: method.finish(job.finish))

    async def _finish_later(
        self, call: Call, method: rpc.Method, job: outcome.Deferred
    ) -> None:
        finished = False

        def finish() -> Any:
            nonlocal finished
            finished = True
            return method.finish(job.finish)

        try:
            if job.wait is not None:
                await job.wait
            async with job.around or contextlib.nullcontext():
                result = finish()
                # What is undone outside the books comes after them.
                self._save()
                self._flush()
        except errors.Errno as error:
            if job.undo is not None and not finished:
                job.undo()
            refusal: Exception = method.late(error)
            self._run(call, method, lambda: _raise(refusal))
        except Exception as error:
            if job.undo is not None and not finished:
                job.undo()
            refusal = error
            self._run(call, method, lambda: _raise(refusal))
        else:
            self._run(call, method, lambda: result)
        self._flush()

    def _save(self) -> None:
        try:
            self._target.save()
        except Exception as error:
            # Nobody waits for this task: the loop's owner is to know.
            asyncio.get_running_loop().call_exception_handler(
                {'message': 'not saved', 'exception': error}
            )
            raise


def _raise(error: Exception) -> None:
    raise error
