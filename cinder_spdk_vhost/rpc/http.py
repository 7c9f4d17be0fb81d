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

"""JSON-RPC over HTTP: SPDK's ``rpc_http_proxy.py`` and what is like it.

What that script does (scripts/rpc_http_proxy.py in SPDK), and so decides
how it is used:

- A batch never gets an answer: it looks for an ``id`` in the array, finds
  none and hangs up after having passed the batch on. So requests travel
  one a POST.
- It serves one connection at a time and lets about five wait: a few POSTs
  at once keep it busy, more would only queue in the kernel.
- RPC errors come with status 200. So does an empty body, when the target
  hung up on the proxy.
- 500 may come before or after the target had the request.
"""

from collections import deque
from collections.abc import Callable, Sequence
import json
import ssl
import threading
import time
from typing import Any

import requests
from requests import adapters, auth
from urllib3 import exceptions as urllib3_errors

from cinder_spdk_vhost.rpc import errors
from cinder_spdk_vhost.rpc.endpoint import Endpoint
from cinder_spdk_vhost.rpc.framing import MAX_VALUE
from cinder_spdk_vhost.rpc.pending import Call, Fault, why

# POSTs under way at once.
CONCURRENT = 4

_CHUNK = 64 * 1024
_HEADERS = {
    'Content-Type': 'application/json',
    'Accept': 'application/json',
    'Accept-Encoding': 'identity',
}
# Answers that say that nobody passed the request on.
_REFUSED = {
    403: 'the server forbids it',
    404: 'the server has no JSON-RPC there',
    405: 'the server takes no POST there',
}
# TLS failures that can only come from the handshake, before the request.
_HANDSHAKE = {
    'CERTIFICATE_VERIFY_FAILED',
    'WRONG_VERSION_NUMBER',
    'UNSUPPORTED_PROTOCOL',
    'NO_PROTOCOLS_AVAILABLE',
    'HTTP_REQUEST',
    'TLSV1_ALERT_PROTOCOL_VERSION',
    'SSLV3_ALERT_HANDSHAKE_FAILURE',
}


class HTTPTransport:
    """A bounded number of POSTs over a session's persistent connections.

    :ivar when_lost: called when a request got no answer of the target's
    """

    when_lost: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, endpoint: Endpoint) -> None:
        self._where = str(endpoint)
        self._url = endpoint.url + '/'
        self._closed = False
        self._places = threading.Semaphore(CONCURRENT)
        self._session = session = requests.Session()
        # Proxies, .netrc and CA bundles of whoever started the process have
        # no say in where the password goes.
        session.trust_env = False
        session.headers.update(_HEADERS)
        adapter = adapters.HTTPAdapter(pool_maxsize=CONCURRENT, max_retries=0)
        session.mount(f'{endpoint.scheme}://', adapter)
        if endpoint.username is not None and endpoint.password is not None:
            # As bytes: requests would encode to latin-1 and name the
            # character that doesn't fit.
            session.auth = auth.HTTPBasicAuth(
                endpoint.username.encode(), endpoint.password.encode()
            )
        self._verify: bool | str = endpoint.verify
        if endpoint.verify and endpoint.ca_file is not None:
            self._verify = endpoint.ca_file

    def exchange(self, calls: Sequence[Call]) -> None:
        """Post the calls, a few at once; settle each of them."""
        if len(calls) == 1:
            self._carry(calls[0])
            return
        queue = deque(calls)

        def work() -> None:
            while True:
                try:
                    call = queue.popleft()
                except IndexError:
                    return
                self._carry(call)

        helpers = [
            threading.Thread(target=work, name='spdk-rpc-http', daemon=True)
            for _ in range(min(CONCURRENT, len(calls)) - 1)
        ]
        for helper in helpers:
            helper.start()
        work()
        for helper in helpers:
            helper.join()

    def close(self) -> None:
        """Close the idle connections; later calls fail."""
        self._closed = True
        self._session.close()

    def _carry(self, call: Call) -> None:
        if not self._places.acquire(timeout=_left(call)):
            call.never_left(
                self._where,
                f'not sent within {call.timeout:g} s: the {CONCURRENT} '
                'requests before it are not answered',
            )
            return
        try:
            while not self._post(call):
                pass
        except Exception as error:  # a thread must settle what it took
            call.lost(self._where, Fault(repr(error)))
        finally:
            self._places.release()
        if isinstance(call.outcome, errors.TransportError):
            self.when_lost()

    def _post(self, call: Call) -> bool:
        """Post a call; False if it should be posted again."""
        left = _left(call)
        if self._closed or not left:
            call.never_left(
                self._where,
                'the client is closed' if self._closed else 'no time is left',
            )
            return True
        call.sent = True
        try:
            with self._session.post(
                self._url,
                data=call.body,
                timeout=(left, left),
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            ) as response:
                self._answer(call, response)
            return True
        except (requests.RequestException, urllib3_errors.HTTPError) as error:
            return self._failed(call, error)

    def _answer(self, call: Call, response: requests.Response) -> None:
        status = response.status_code
        if status == 401:
            call.never_left(
                self._where,
                'the server refuses the username or password (HTTP 401)',
                errors.Unauthorized,
            )
        elif status in _REFUSED or 300 <= status < 400:
            why = _REFUSED.get(status, 'it points elsewhere (not followed)')
            call.never_left(self._where, f'{why} (HTTP {status})')
        elif status != 200:
            call.lost(self._where, Fault(f'the server failed (HTTP {status})'))
        else:
            body = self._body(call, response)
            if body is not None:
                self._read(call, body)

    def _body(self, call: Call, response: requests.Response) -> bytes | None:
        """The body within the deadline and size; None: call is settled."""
        # What has come, not what fills a buffer, so that the deadline is
        # looked at however slowly it trickles in (urllib3 before 2: read).
        read = getattr(response.raw, 'read1', response.raw.read)
        parts, size = [], 0
        while part := read(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > MAX_VALUE:
                fault = Fault(f'the answer has over {MAX_VALUE} bytes', True)
                call.lost(self._where, fault)
                return None
            if not _left(call):
                call.overdue(self._where)
                return None
        return b''.join(parts)

    def _read(self, call: Call, body: bytes) -> None:
        if not body.strip():
            fault = Fault('the proxy lost the target before the answer')
            call.lost(self._where, fault)
            return
        try:
            reply: Any = json.loads(body)
        except (ValueError, RecursionError) as error:
            reply = str(error)
        if not isinstance(reply, dict):
            fault = Fault('what came back is not JSON-RPC', True)
            call.lost(self._where, fault)
        elif reply.get('id') != call.ident:
            fault = Fault('the answer belongs to another request', True)
            call.lost(self._where, fault)
        else:
            call.answered(reply)

    def _failed(self, call: Call, error: Exception) -> bool:
        """Settle after an exception; False if it should be posted again."""
        root = _root(error)
        text = type(root).__name__
        if isinstance(root, ssl.SSLError):
            text = f'TLS: {root.reason or text}'
        elif isinstance(root, OSError):
            text = why(root)
        if _before_sending(error, root):
            call.never_left(self._where, text)
        elif _timed_out(error, root):
            call.overdue(self._where)
        elif call.again(Fault(text)):
            return False
        else:
            call.lost(self._where, call.first_fault or Fault(text))
        return True


def _left(call: Call) -> float:
    return max(call.deadline - time.monotonic(), 0)


def _root(error: BaseException) -> BaseException:
    """The exception at the bottom; those above wrap it in prose."""
    seen = {id(error)}
    while True:
        below = [
            *(part for part in error.args if isinstance(part, BaseException)),
            getattr(error, 'reason', None),
            error.__cause__,
            error.__context__,
        ]
        for part in below:
            if isinstance(part, BaseException) and id(part) not in seen:
                error = part
                seen.add(id(part))
                break
        else:
            return error


def _before_sending(error: Exception, root: BaseException) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    if isinstance(root, ssl.SSLError):
        return root.reason in _HANDSHAKE
    reason = getattr(error.args[0] if error.args else None, 'reason', None)
    return isinstance(reason, urllib3_errors.NewConnectionError)


def _timed_out(error: Exception, root: BaseException) -> bool:
    return isinstance(error, requests.Timeout) or isinstance(
        root, TimeoutError | urllib3_errors.ReadTimeoutError
    )
