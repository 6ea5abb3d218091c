import { each, fails, type Technique } from "../attack.ts";

const ASK = `import os, json
def ask(operation, argument):
  os.write(4000, json.dumps([operation, argument]).encode())
  answer = b""
  while chunk := os.read(4000, 1 << 20): answer += chunk
  print(answer.decode("latin1"))
`;

export const FILES: Technique = {
  title: "files of the host",
  attacks: [
    ...each(
      [
        "print(open(secret_file).read())",
        "open(marker, 'w').write('x')",
        "print(open('/etc/passwd').read())",
        "print(open('/proc/self/environ').read())",
        "print(open('/proc/self/cmdline').read())",
        "print(open('/proc/self/mem', 'rb').read(1))",
        "print(open(f'/proc/{pid}/environ').read())",
        "print(open('/proc/self/root' + secret_file).read())",
        "print(open('/dev/sda', 'rb').read(1))",
        "print(open('/dev/mem', 'rb').read(1))",
        "print(open('/dev/fd/3').read())",
        "print(open('/var/run/docker.sock').read())",
        "print(open('/var/run/secrets/kubernetes.io/serviceaccount/token').read())",
        "print(open('/home/pyodide/../../' + secret_file).read())",
        "import os\nos.symlink(secret_file, '/tmp/link'); print(open('/tmp/link').read())",
        "import os\nos.symlink('/', '/tmp/root'); print(open('/tmp/root' + secret_file).read())",
        "import os\nos.link(secret_file, '/tmp/hard'); print(open('/tmp/hard').read())",
        "import os\nos.mknod('/tmp/null', 0o20666, os.makedev(1, 1)); print(open('/tmp/null', 'rb').read(10)); 1 / 0",
        "import os\nos.chroot('/')",
        "import urllib.request\nprint(urllib.request.urlopen('file://' + secret_file).read())",
        "import importlib.util\nspec = importlib.util.spec_from_file_location('x', secret_file); spec.loader.exec_module(importlib.util.module_from_spec(spec))",
        "exec(open(secret_file).read())",
        "import sqlite3\nsqlite3.connect(secret_file).execute('select * from x')",
        "import zipfile\nzipfile.ZipFile(secret_file)",
        "import linecache\nprint(linecache.getlines(secret_file)); 1 / 0",
        "import shutil\nshutil.copy(secret_file, '/tmp/copy'); print(open('/tmp/copy').read())",
        "import mmap, os\nprint(mmap.mmap(os.open(secret_file, os.O_RDONLY), 0).read())",
      ],
      { reply: fails },
    ),
    ...each([
      "import os\nprint(os.environ)",
      "import sys, os\nprint(sys.argv, sys.orig_argv, sys.executable, sys.prefix, os.getcwd(), sys._framework if hasattr(sys, '_framework') else '')",
      "import os\nfor folder, _, names in os.walk('/'):\n  for name in names:\n    p = os.path.join(folder, name)\n    if 'secret' in p or 'marker' in p: print(won, p)",
      "import glob\nprint(glob.glob('/etc/*'), glob.glob('/root/*'), glob.glob('/work/**'), glob.glob('/home/*'))",
      "import os\nfor fd in range(3, 4096):\n  try: print(os.read(fd, 100))\n  except OSError: pass",
      "import getpass, pwd, os\nprint(os.getlogin() if hasattr(os, 'getlogin') else '', os.getuid(), os.uname())",
    ]),
    ...each(
      [
        "ask('read-file', secret_file)",
        "ask('read-file', '/home/pyodide/../..' + secret_file)",
        "ask('read-file', 'file://' + secret_file)",
        "ask('read-file', ['/etc/passwd'])",
        "ask('read-file', {'__proto__': {'path': secret_file}})",
        "ask('read-package', {'sha256': '../../../..' + secret_file, 'offset': 0, 'length': 100})",
        "ask('read-package', {'sha256': '__proto__', 'offset': -1, 'length': 1e9})",
        "ask('read-package', None)",
        "ask('__proto__', 'constructor')",
        "ask('constructor', [write] if 'write' in globals() else [])",
        "ask('fetch', f'http://127.0.0.1:{port}/')",
        "ask('install-packages', ['file://' + secret_file])",
        "ask('install-packages', [f'http://127.0.0.1:{port}/x.whl'])",
        "ask('install-packages', ['../' * 20 + secret_file])",
        "ask('install-packages', ['x' * 10 ** 6] * 100)",
        "ask('eval', 'process.exit()')",
        "ask('x' * 10 ** 6, 'y' * 10 ** 6)",
      ],
      {},
      ASK,
    ),
  ],
};
