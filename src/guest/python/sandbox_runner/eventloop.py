"""An asyncio event loop that blocks, so that an execution begins and ends as one call.

Pyodide's own loop schedules callbacks on JavaScript's, which would run them after the execution, in the memory of the next
one. Here nothing is ever pending outside Python: waiting is sleeping on the device, and the rewind takes the rest.
"""

import asyncio
import time
from asyncio import base_events, events

from . import network


class _Selector:
    def select(self, timeout):
        if network.are_awaited():
            network.wake_waiting(timeout)
        elif timeout is None:
            # Nothing is scheduled and nothing outside can wake us: a deadlock, not a wait.
            raise RuntimeError("the event loop waits for something that can never happen (deadlock)")
        elif timeout > 0:
            time.sleep(timeout)
        return []

    def close(self):
        pass


class BlockingEventLoop(base_events.BaseEventLoop):
    def __init__(self):
        super().__init__()
        self._selector = _Selector()

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        pass

    def run_in_executor(self, executor, func, *args):
        """There are no threads: the call runs here and now, which is what `asyncio.to_thread` then awaits."""
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


class _Policy(events._BaseDefaultEventLoopPolicy):
    _loop_factory = BlockingEventLoop


def install():
    """Make `asyncio` use this loop everywhere, and give the main thread one."""
    events._set_event_loop_policy(_Policy())
    asyncio.DefaultEventLoopPolicy = _Policy
    # Pyodide has its own loop running at all times, and an `asyncio.run` that hands over to it.
    events._set_running_loop(None)
    asyncio.run = asyncio.runners.run
    asyncio.SelectorEventLoop = BlockingEventLoop
    asyncio.EventLoop = BlockingEventLoop
    loop = BlockingEventLoop()
    events.set_event_loop(loop)
    return loop
