"""An asyncio event loop that blocks, so that an execution begins and ends as one call.

Pyodide's own loop schedules callbacks on JavaScript's, which would run them after the execution, in the memory of the next
one. Here nothing is ever pending outside Python: waiting is sleeping on the device, and the rewind takes the rest.

Code that awaits at its top level runs as a task of the loop. Its top level may do all the same what it could if it awaited
nothing: `asyncio.run` there leaves the task and the loop, and comes back to them.
"""

import _signal
import asyncio
import contextvars
import functools
import sys
from asyncio import base_events, events, exceptions, futures, runners, tasks
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR

from . import device, network, restrictions, tool_calls, tracebacks

_MISSING = object()

_session_loop = None
_top_level = (None, None)
"""The task that the top level of the execution is, and its code; None where it awaits nothing."""


class _Woken(BaseException):
    """Ends the wait of a loop for which an interrupt has scheduled work."""


class _Selector:
    def __init__(self, loop):
        self._loop = loop
        self.is_waiting = False

    def select(self, timeout):
        try:
            self.is_waiting = True
            # Do not wait if an interrupt scheduled work just before `is_waiting` was set.
            if not self._loop._ready:
                self._wait(timeout)
        except _Woken:
            pass
        finally:
            self.is_waiting = False
        return []

    def _wait(self, timeout):
        if tool_calls.are_awaited():
            tool_calls.wake_waiting(timeout)
        elif network.are_awaited():
            network.wake_waiting(timeout)
        elif timeout is None:
            # Nothing is scheduled and nothing outside can wake the loop: a deadlock, not a wait.
            raise RuntimeError("the event loop waits for something that can never happen (deadlock)")
        else:
            # Not `time.sleep`, which code may replace, and which sleeps on after an interrupt. The loop looks at its clock anyway.
            restrictions.sleep_once(max(timeout, 0))

    def close(self):
        pass


class BlockingEventLoop(base_events.BaseEventLoop):
    def __init__(self):
        super().__init__()
        self._selector = _Selector(self)

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        pass

    def run_in_executor(self, executor, func, *args):
        """Run the call at once, since there are no threads. `asyncio.to_thread` awaits its result."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            future.set_exception(error)
        return future

    async def shutdown_default_executor(self, timeout=None):
        pass

    def run_forever(self):
        with _OutsideTopLevel():
            super().run_forever()

    def run_until_complete(self, future):
        with _OutsideTopLevel():
            self._check_closed()
            self._check_running()
            is_new = not futures.isfuture(future)
            future = tasks.ensure_future(future, loop=self)
            if is_new:
                future._log_destroy_pending = False
            handler = _signal.getsignal(_signal.SIGINT)
            if handler is not _signal.default_int_handler and not _is_runners(handler):
                return super().run_until_complete(future)
            interrupt = _Interrupt(self, future)
            _signal.signal(_signal.SIGINT, interrupt)
            try:
                return super().run_until_complete(future)
            except exceptions.CancelledError as cancelled:
                if not interrupt.has_cancelled or _is_cancelled_again(future):
                    raise
                # Show the line that waited, as an interrupted `time.sleep` does.
                raise KeyboardInterrupt().with_traceback(cancelled.__traceback__) from None
            except (KeyboardInterrupt, SystemExit):
                self._end(future)
                if is_new and future.done() and not future.cancelled():
                    future.exception()  # or it is logged as one that nothing has asked for
                raise
            finally:
                if _signal.getsignal(_signal.SIGINT) is interrupt:
                    _signal.signal(_signal.SIGINT, handler)
                if interrupt.is_late:
                    raise KeyboardInterrupt

    def _end(self, future):
        """Run the `finally` blocks of a future that still waits when the loop is ended."""
        if future.done() or self.is_closed():
            return
        future.cancel()
        try:
            super().run_until_complete(future)
        except BaseException:
            pass


class _Interrupt:
    """Handles SIGINT while a loop runs until `future` is done.

    The handler of `asyncio.Runner` cancels its task, and raises KeyboardInterrupt at the second interrupt. Here there is one: what
    computes is interrupted where it is, as outside asyncio; what waits is cancelled.
    """

    def __init__(self, loop, future):
        self._loop = loop
        self._future = future
        self.has_cancelled = False
        self.is_late = False

    def __call__(self, number, frame):
        if not _is_of_loop(frame):
            raise KeyboardInterrupt
        is_waiting = self._loop._selector.is_waiting
        if self.has_cancelled and is_waiting:
            raise KeyboardInterrupt
        # Anywhere else in the loop an exception would leave it half set up, or lose a task that is about to be scheduled.
        if self.has_cancelled or self._future.done():
            self.is_late = True
            return
        self.has_cancelled = True
        self._future.cancel()
        if is_waiting:
            raise _Woken


def _is_runners(handler):
    return type(handler) is functools.partial and getattr(handler.func, "__func__", None) is runners.Runner._on_sigint


def _is_of_loop(frame):
    """Whether `frame` is of a loop's own: not of a task's code or a callback, where an exception would be theirs."""
    while frame is not None and frame.f_code not in _LOOP_CODES:
        code = frame.f_code
        # Not `current_task()`: a task that gives way is scheduled by the loop's own code.
        if code.co_flags & _RESUMABLE or not tracebacks.is_system_code(code):
            return False
        frame = frame.f_back
    return frame is not None


def _is_cancelled_again(future):
    """Whether it was also cancelled by something other than the interrupt."""
    uncancel = getattr(future, "uncancel", None)
    return uncancel is not None and uncancel() > 0


_RESUMABLE = CO_COROUTINE | CO_ASYNC_GENERATOR | CO_GENERATOR
_LOOP_CODES = (base_events.BaseEventLoop._run_once.__code__, BlockingEventLoop.run_until_complete.__code__)


class _OutsideTopLevel:
    """Leaves the running loop and task, where these are the top level's and only plain functions lie in between."""

    def __enter__(self):
        self._loop = loop = events._get_running_loop()
        if loop is None:
            return
        self._task = task = tasks.current_task(loop)
        if task is None or not _is_called_by_top_level(task):
            self._loop = None
            return
        self._left = (loop._thread_id, loop._stopping, loop._old_agen_hooks)
        self._ready_count = len(loop._ready)
        self._handler = _signal.getsignal(_signal.SIGINT)
        if type(self._handler) is _Interrupt:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        loop._thread_id = None
        tasks._leave_task(loop, task)
        events._set_running_loop(None)

    def __exit__(self, *_):
        loop = self._loop
        if loop is None:
            return
        events._set_running_loop(loop)
        tasks._enter_task(loop, self._task)
        loop._thread_id, loop._stopping, loop._old_agen_hooks = self._left
        # The loop has counted its ready handles and takes that many: replace those that have run meanwhile.
        for _ in range(self._ready_count - len(loop._ready)):
            done = events.Handle(lambda: None, (), loop)
            done.cancel()
            loop._ready.appendleft(done)
        if type(self._handler) is _Interrupt:
            _signal.signal(_signal.SIGINT, self._handler)


def _is_called_by_top_level(task):
    top_task, top_code = _top_level
    if task is not top_task:
        return False
    frame = sys._getframe(2)
    while frame is not None and frame.f_code is not top_code:
        if frame.f_code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):
            return False
        frame = frame.f_back
    return frame is not None


def run_top_level(coroutine):
    """Run the top level of an execution that awaits something. Returns its value."""
    global _top_level
    loop = _usable_loop()
    events.set_event_loop(loop)
    context = contextvars.copy_context()
    task = loop.create_task(coroutine, context=context)
    _top_level = (task, coroutine.cr_code)
    try:
        return loop.run_until_complete(task)
    finally:
        _top_level = (None, None)
        # A task has a context of its own; a top level that awaits nothing has the interpreter's.
        for variable, value in context.items():
            if variable.get(_MISSING) is not value:
                variable.set(value)


def _usable_loop():
    """The loop that is set, if it can run; else the session's, or a new one where user code has closed that."""
    global _session_loop
    try:
        loop = events._get_event_loop_policy().get_event_loop()
        if isinstance(loop, BlockingEventLoop) and not loop.is_closed() and not loop.is_running():
            return loop
    except Exception:
        pass
    # A loop that claims to run was interrupted while it began or ended: nothing runs here.
    if _session_loop.is_closed() or _session_loop.is_running():
        _session_loop = BlockingEventLoop()
    return _session_loop


def _outside_top_level(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        with _OutsideTopLevel():
            return function(*args, **kwargs)

    return call


def _scheduling_at_top_level(create_task):
    @functools.wraps(create_task)
    def call(coro, **kwargs):
        if events._get_running_loop() is not None:
            return create_task(coro, **kwargs)
        # As in a notebook, where a loop runs at all times: at the next `await` this one does.
        loop = _usable_loop()
        events.set_event_loop(loop)
        return loop.create_task(coro, **kwargs)

    return call


class _Policy(events._BaseDefaultEventLoopPolicy):
    _loop_factory = BlockingEventLoop


def install():
    """Make `asyncio` use this loop everywhere, and give the main thread one."""
    global _session_loop
    events._set_event_loop_policy(_Policy())
    asyncio.DefaultEventLoopPolicy = _Policy
    # Pyodide has its own loop running at all times, and an `asyncio.run` that hands over to it.
    events._set_running_loop(None)
    runners.Runner.run = _outside_top_level(runners.Runner.run)
    asyncio.run = runners.run = _outside_top_level(runners.run)
    asyncio.create_task = tasks.create_task = _scheduling_at_top_level(tasks.create_task)
    asyncio.SelectorEventLoop = BlockingEventLoop
    asyncio.EventLoop = BlockingEventLoop
    _session_loop = BlockingEventLoop()
    events.set_event_loop(_session_loop)
    sys.unraisablehook = _keep_interrupt


def _keep_interrupt(unraisable):
    """Repeat an interrupt that hit a `__del__` or a callback, where Python ignores exceptions."""
    try:
        sys.__unraisablehook__(unraisable)
        if unraisable.exc_type is KeyboardInterrupt:
            device.tell("repeat-interrupt")
    except KeyboardInterrupt:
        # Python checks for interrupts only now and then: the next check is after this call.
        device.tell("repeat-interrupt")
