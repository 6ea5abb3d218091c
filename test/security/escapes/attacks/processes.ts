import { each, REACHED, type Technique } from "../attack.ts";

const PRELUDE = `import os, sys
command = "touch " + marker + "; cat " + secret_file
argv = ["/bin/sh", "-c", command]
`;

export const PROCESSES: Technique = {
  title: "processes",
  controls: ["native", "stock"],
  attacks: [
    ...each(
      [
        "os.system(command)",
        "print(os.popen(command).read())",
        "if os.fork() == 0: os.execv('/bin/sh', argv)\nelse: os.wait()",
        "pid, fd = os.forkpty()\nif pid == 0: os.execv('/bin/sh', argv)\nos.waitpid(pid, 0)",
        "import pty\npid, fd = pty.fork()\nif pid == 0: os.execv('/bin/sh', argv)\nos.waitpid(pid, 0)",
        "import subprocess\nprint(subprocess.check_output(['/bin/cat', secret_file]))",
        "os.execv('/bin/sh', argv)",
        "os.execve('/bin/sh', argv, {})",
        "os.execvp('sh', argv)",
        "os.execvpe('sh', argv, os.environ)",
        "os.execl('/bin/sh', *argv)",
        "os.spawnv(os.P_WAIT, '/bin/sh', argv)",
        "os.spawnlp(os.P_WAIT, 'sh', *argv)",
        "os.spawnl(os.P_WAIT, '/bin/sh', *argv)",
        "os.spawnle(os.P_WAIT, '/bin/sh', *argv, {})",
        "os.spawnlpe(os.P_WAIT, 'sh', *argv, os.environ)",
        "os.spawnve(os.P_WAIT, '/bin/sh', argv, {})",
        "os.spawnvp(os.P_WAIT, 'sh', argv)",
        "os.spawnvpe(os.P_WAIT, 'sh', argv, os.environ)",
        "os.execle('/bin/sh', *argv, {})",
        "os.execlp('sh', *argv)",
        "os.execlpe('sh', *argv, os.environ)",
        "os.posix_spawn('/bin/sh', argv, {})",
        "os.posix_spawnp('sh', argv, {})",
        "os.fork() or print(won)",
        "os.forkpty()",
        "os.kill(pid, 9)",
        "import subprocess\nprint(subprocess.run(argv, capture_output=True).stdout)",
        "import subprocess\nsubprocess.Popen(command, shell=True).wait()",
        "import subprocess\nprint(subprocess.check_output(command, shell=True))",
        "import pty\npty.spawn(argv)",
        "import pty\nprint(pty.openpty(), won)",
        "import multiprocessing\np = multiprocessing.Process(target=os.system, args=(command,)); p.start(); p.join(); assert False",
        "import asyncio\np = await asyncio.create_subprocess_exec(*argv)\nawait p.wait()",
        "import asyncio\np = await asyncio.create_subprocess_shell(command)\nawait p.wait()",
        "from concurrent.futures import ProcessPoolExecutor\nProcessPoolExecutor().submit(os.system, command).result()",
      ],
      {},
      { before: PRELUDE, after: REACHED },
    ),
    ...each(
      [
        "import subprocess\nprint(subprocess.getoutput(command))",
        "import ctypes.util\nif ctypes.util.find_library('c'): print(won)",
        "import webbrowser\nwebbrowser.GenericBrowser(argv).open('x')",
        "import pydoc\npydoc.pipepager(command, command)",
        // What the runner patched, got anew from where it came from.
        "import importlib\nimportlib.reload(sys.modules['posix'])\nsys.modules['posix'].system(command)",
        "import _imp, importlib.util\nfresh = _imp.create_builtin(importlib.util.spec_from_loader('posix', importlib.machinery.BuiltinImporter))\n_imp.exec_builtin(fresh)\nfresh.system(command)",
        "del sys.modules['posix'], sys.modules['os']\nimport posix\nposix.system(command)",
        "import gc\nfor f in gc.get_objects():\n  if type(f).__name__ == 'builtin_function_or_method' and f.__name__ == 'system': f(command)",
        "import gc, itertools\nfor f in itertools.chain(gc.get_objects(), *(gc.get_referents(o) for o in gc.get_objects()[:20000])):\n  if callable(f) and getattr(f, '__name__', '') in ('system', 'popen'): f(command)",
        "class E:\n  def __reduce__(self): return os.system, (command,)\nimport pickle\npickle.loads(pickle.dumps(E()))",
        "eval(compile('__import__(\"posix\").system(command)', 'x', 'eval'))",
        "(lambda: 0).__class__.__base__.__subclasses__()[-1]\n[c for c in object.__subclasses__() if c.__name__ == 'Popen'] and 0\n[c.__init__.__globals__['sys'].modules['os'].system(command) for c in object.__subclasses__() if hasattr(getattr(c.__init__, '__globals__', None), 'get') and 'sys' in c.__init__.__globals__]",
      ],
      {},
      { before: PRELUDE },
    ),
    ...each(
      ["os.kill(os.getppid(), 9)", "os.killpg(0, 9)", "os.kill(os.getpid(), 11)"],
      { denial: true },
      { before: PRELUDE, after: REACHED },
    ),
    ...each(
      [
        "import _posixsubprocess\n_posixsubprocess.fork_exec(argv, [b'/bin/sh'], True, (), None, None, -1, -1, -1, -1, -1, -1, 0, 1, False, -1, None, None, None, -1, None, False)",
      ],
      { noControl: "its parameters are those of Python 3.14, which the machine need not have" },
      { before: PRELUDE, after: REACHED },
    ),
    ...each(
      ["import platform\nprint(platform.processor(), platform.libc_ver(), platform.uname())"],
      { noControl: "it prints what Emscripten makes up; no path of the host may be in it" },
      { before: PRELUDE },
    ),
  ],
};
