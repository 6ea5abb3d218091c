import { each, REACHED, type Technique } from "../attack.ts";

const ASK = `import os, json
def ask(operation, argument):
  os.write(4000, json.dumps([operation, argument]).encode())
  answer = b""
  while chunk := os.read(4000, 1 << 20): answer += chunk
  print(answer.decode("latin1"))
`;

export const FILES: Technique = {
  title: "files of the host",
  controls: ["native", ["workspace-files"]],
  attacks: [
    ...each(
      [
        "print(open(secret_file).read())",
        "open(marker, 'w').write('x')",
        "print(open('/etc/passwd').read())",
        "print(open('/proc/self/environ').read())",
        "print(open('/proc/self/cmdline').read())",
        "open('/proc/self/mem', 'rb')",
        "print(open(f'/proc/{pid}/environ').read())",
        "print(open('/proc/self/root' + secret_file).read())",
        "print(open('/tmp/../../' + secret_file).read())",
        "print(open('/dev/full', 'rb').read(1))",
        "print(open('/dev/shm/../../' + secret_file).read())",
        "print(open('/proc/self/cwd/../../../../../..' + secret_file).read())",
        "print(open('/proc/1/root' + secret_file).read())",
        "print(open('/proc/self/maps').read())",
        "print(open('/proc/self/status').read())",
        "print(open('/proc/net/tcp').read())",
        "print(open('/sys/kernel/mm/transparent_hugepage/enabled').read())",
        "import os\nos.symlink(secret_file, '/tmp/link'); print(open('/tmp/link').read())",
        "import os\nos.symlink('/', '/tmp/root'); print(open('/tmp/root' + secret_file).read())",
        "import os\nos.link(secret_file, secret_file + '-hard'); print(open(secret_file + '-hard').read())",
        "import os\nos.chroot('/')",
        "import urllib.request\nprint(urllib.request.urlopen('file://' + secret_file).read())",
        "import importlib.machinery\nprint(importlib.machinery.SourceFileLoader('x', secret_file).get_data(secret_file))",
        "try: exec(open(secret_file).read())\nexcept (NameError, SyntaxError): pass",
        "import sqlite3\ntry: sqlite3.connect(secret_file).execute('select * from x')\nexcept sqlite3.DatabaseError as e: assert 'not a database' in str(e)",
        "import zipfile\ntry: zipfile.ZipFile(secret_file)\nexcept zipfile.BadZipFile: pass",
        "import linecache\nprint(linecache.getlines(secret_file)); 1 / 0",
        "import shutil\nshutil.copy(secret_file, '/tmp/copy'); print(open('/tmp/copy').read())",
        "import mmap, os\nprint(mmap.mmap(os.open(secret_file, os.O_RDONLY), 0, prot=mmap.PROT_READ).read())",
      ],
      {},
      { after: REACHED },
    ),
    ...each([
      "import os\nprint(os.environ)",
      "import os\nfor folder, _, names in os.walk('/tmp'):\n  for name in names:\n    p = os.path.join(folder, name)\n    if name == 'secret': print(won, p)",
      "import glob\nif glob.glob('/etc/*') or glob.glob('/root/*') or glob.glob('/usr/*'): print(won)",
    ]),
    ...each(
      [
        "ask('read-file', secret_file)",
        "ask('read-file', '/tmp/../..' + secret_file)",
        "ask('read-file', 'file://' + secret_file)",
        "ask('read-file', [secret_file])",
      ],
      {},
      { before: ASK },
    ),
    ...each(
      [
        "ask('read-file', {'__proto__': {'path': secret_file}})",
        "ask('read-package', {'sha256': '../../../../..' + secret_file, 'offset': 0, 'length': 100})",
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
      { noControl: "there is nothing on the host that would act on it" },
      { before: ASK },
    ),
    ...each(
      [
        "print(open('/dev/sda', 'rb').read(1))",
        "print(open('/dev/mem', 'rb').read(1))",
        "print(open('/dev/fd/3').read())",
        "print(open('/var/run/docker.sock').read())",
        "print(open('/var/run/secrets/kubernetes.io/serviceaccount/token').read())",
        "import os\nos.mknod('/tmp/null', 0o20666, os.makedev(1, 1)); print(open('/tmp/null', 'rb').read(10))",
      ],
      { noControl: "not every machine has such a file" },
      { after: REACHED },
    ),
    ...each(
      [
        "import sys, os\nprint(sys.argv, sys.orig_argv, sys.executable, sys.prefix, os.getcwd(), sys._framework if hasattr(sys, '_framework') else '')",
        "import os\nfor fd in range(3, 4096):\n  try: print(os.read(fd, 100))\n  except OSError: pass",
        "import getpass, pwd, os\nprint(os.getlogin() if hasattr(os, 'getlogin') else '', os.getuid(), os.uname())",
      ],
      { noControl: "it asks what there is; no secret and no path of the host may be in the answer" },
    ),
  ],
};
