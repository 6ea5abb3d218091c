"""Pools of threads without threads: a task runs where it is handed in, so that all run one after another, in order.

Adapts `concurrent.futures` and `multiprocessing`, whose own code does all else: futures, callbacks, errors, chunks.
"""

import itertools

_INSTEAD = "call the functions one after another, or use concurrent.futures.ThreadPoolExecutor, which does that here"
_numbers = itertools.count()


def adapt_futures(module):
    """Have `as_completed` yield tasks in the order in which they were done, and not in that of a set."""
    in_any_order = module.as_completed

    def as_completed(fs, timeout=None):
        fs = list(dict.fromkeys(fs))
        if not all(hasattr(future, "_number") for future in fs):
            return in_any_order(fs, timeout)
        return iter(sorted(fs, key=lambda future: future._number))

    as_completed.__doc__ = in_any_order.__doc__
    import concurrent.futures

    module.as_completed = concurrent.futures.as_completed = as_completed


def adapt_thread_pool(module):
    pool = module.ThreadPoolExecutor
    enqueue = pool.submit

    def submit(self, fn, /, *args, **kwargs):
        future = enqueue(self, fn, *args, **kwargs)
        run_queue(self)
        return future

    def run_queue(self):
        context = self.__dict__.get("_context")
        if context is None:
            context = self._context = self._create_worker_context()
            try:
                context.initialize()
            except KeyboardInterrupt:  # a timeout
                raise
            except BaseException:
                module._base.LOGGER.critical("Exception in initializer:", exc_info=True)
                self._initializer_failed()
        while not self._work_queue.empty():
            item = self._work_queue.get_nowait()
            if item is None:
                continue
            item.run(context)
            item.future._number = next(_numbers)
            if not item.future.cancelled() and isinstance(error := item.future.exception(), KeyboardInterrupt):
                raise error

    submit.__doc__ = enqueue.__doc__
    pool.submit = submit
    pool._adjust_thread_count = lambda self: None


def adapt_pool(module):
    """`multiprocessing.pool`."""

    class Worker:
        """What the pool takes for its threads and queues. A task that is put into it is done."""

        def __init__(self, pool=None):
            self._cache = pool and pool._cache

        def put(self, item):
            if item is None:
                return
            tasks, set_length = item
            index = -1
            for job, index, function, args, options in tasks:
                try:
                    result = (True, function(*args, **options))
                except Exception as error:
                    result = (False, error)
                if job in self._cache:
                    self._cache[job]._set(index, result)
            if set_length is not None:
                set_length(index + 1)

        def join(self):
            pass

    def start(self, processes=None, initializer=None, initargs=()):
        self._state = module.RUN
        if processes is None:
            processes = 1
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._cache = {}
        self._processes = processes
        self._initializer = initializer
        self._initargs = initargs
        self._pool = [Worker() for _ in range(processes)]
        self._taskqueue = Worker(self)
        self._change_notifier = self._worker_handler = self._task_handler = self._result_handler = Worker()
        self._terminate = lambda: None
        if initializer is not None:
            initializer(*initargs)

    module.ThreadPool.__init__ = start
    refuse = _refusal("multiprocessing.Pool", "use multiprocessing.pool.ThreadPool, whose tasks run one after another")

    def start_processes(self, *_args, **_options):
        self._state = module.TERMINATE
        refuse()

    module.Pool.__init__ = start_processes


def adapt_processes(module):
    """`multiprocessing.context`: what makes processes, and what only processes share."""
    base = module.BaseContext
    for name, instead in {
        "Manager": "use plain objects",
        "Pipe": "use collections.deque",
        "Lock": "use threading.Lock",
        "RLock": "use threading.RLock",
        "Condition": "use threading.Condition",
        "Semaphore": "use threading.Semaphore",
        "BoundedSemaphore": "use threading.BoundedSemaphore",
        "Event": "use threading.Event",
        "Barrier": "use threading.Barrier",
        "Queue": "use queue.Queue",
        "JoinableQueue": "use queue.Queue",
        "SimpleQueue": "use queue.SimpleQueue",
        "Value": "use a plain variable",
        "Array": "use array.array",
    }.items():
        setattr(base, name, _refusal(f"multiprocessing.{name}", instead))
    module.process.BaseProcess.start = _refusal("multiprocessing.Process", _INSTEAD)


def adapt_process_pool(module):
    # The class of the error that it raises itself where a platform has no processes.
    module.ProcessPoolExecutor.__init__ = _refusal("ProcessPoolExecutor", _INSTEAD, NotImplementedError)


def _refusal(name, instead, kind=ImportError):
    """By default the class that `multiprocessing` itself raises without its library: code such as tqdm's goes on without."""

    def refuse(*_args, **_kwargs):
        raise kind(f"{name}: the sandbox has one process, and no others can be started; {instead}")

    return refuse
