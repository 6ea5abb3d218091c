import { each, excuse, REACHED, type Technique } from "../attack.ts";
import { HOSTS, METADATA, reach } from "./network.ts";

/** What user code can say by itself to the device under `urllib` and its like. */
const ASK = `import base64, json
from sandbox_runner import device
def start(url, method="GET", headers=(), **more):
  request = {"method": method, "url": url, "headers": list(headers), "body": "", "timeoutMs": 3000, **more}
  [answer] = device.ask("http-wait", {"ids": [device.ask("http-start", request)], "timeoutMs": None})
  assert "head" in answer, answer
  print(answer, won)
`;

/** Names that `dns.js` answers for. */
const NAMES = ["private.example", "loopback.example", "mapped.example", "both.example", "metadata.example"];

const REBINDING = [
  "import urllib.request\nfor _ in range(6):\n  try: print(urllib.request.urlopen(f'http://rebind.example:{port}/', timeout=2).read())\n  except OSError: pass",
  "import http.client\nfor i in range(6):\n  try:\n    c = http.client.HTTPConnection(f'{i}.rebind.example', port, timeout=2); c.request('GET', '/'); print(c.getresponse().read())\n  except OSError: pass",
  // Checked once, used later: the answer may have changed in between.
  "from sandbox_runner import device\nimport time\nfor _ in range(4):\n  device.ask('http-check', {'url': f'http://rebind.example:{port}/'}); time.sleep(0.05)\n  try: start(f'http://rebind.example:{port}/')\n  except AssertionError: pass",
  "from sandbox_runner import device\nids = [device.ask('http-start', {'method': 'GET', 'url': f'http://rebind.example:{port}/', 'headers': [], 'body': '', 'timeoutMs': 2000}) for _ in range(8)]\nfor _ in ids:\n  for answer in device.ask('http-wait', {'ids': ids, 'timeoutMs': 3000}):\n    ids = [i for i in ids if i != answer['id']]\n    if 'head' in answer: print(won)",
  "import urllib.request\nfor name in ('REBIND.example', 'rebind.example.', 'r%65bind.example', 'ｒebind.example'):\n  for _ in range(3):\n    try: print(urllib.request.urlopen(f'http://{name}:{port}/', timeout=2).read())\n    except (OSError, ValueError): pass",
];

/** Every public host may be reached, on the usual ports and on the bait's: the address alone says no. */
export const NETWORK_ANYWHERE: Technique = {
  title: "network, every public host allowed",
  settings: { NETWORK_ALLOW: "*,*:PORT", NETWORK_TIMEOUT_MS: "3000" },
  controls: [["addresses"], ["pinning"]],
  attacks: excuse(
    [
      ...HOSTS.map((host) => ({ name: `urlopen http://${host}:PORT/`, code: reach(`f"http://${host}:{port}/"`) })),
      ...METADATA.map((url) => ({ name: `urlopen ${url}`, code: reach(JSON.stringify(url)) })),
      ...NAMES.map((host) => ({ name: `urlopen http://${host}:PORT/`, code: reach(`f"http://${host}:{port}/"`) })),
      ...each(
        [
          ...NAMES.map((host) => `start(f"http://${host}:{port}/")`),
          "start(f'http://127.0.0.1:{port}/')",
          "start(f'http://127.0.0.1:{port}/', headers=[['Host', 'public.example']])",
          "start(f'http://public.example:80@127.0.0.1:{port}/')",
          "start(f'http://127.0.0.1:{port}\\\\@public.example/')",
          "start(f'http:/\\\\127.0.0.1:{port}/')",
          "start(f'http://127。0。0。1:{port}/')",
          "start(f'http://[::ffff:127.0.0.1]:{port}/')",
          "start(f'http://[0:0:0:0:0:ffff:7f00:0001]:{port}/')",
          "start(f'http://[::127.0.0.1]:{port}/')",
          "start(f'http://[2002:7f00:1::]:{port}/')",
          "start(f'http://[fe80::1%25lo]:{port}/')",
          "start(f'http://127.0.0.1:0{port}/')",
          "start(f'\\thttp://127.0.0.1:{port}/\\n')",
          "start(f'HTTP://LOOPBACK.EXAMPLE.:{port}/')",
          "start('http://2d00::1/')",
          "start(f'ws://127.0.0.1:{port}/')",
          "start('file://' + secret_file)",
          "start(f'https://127.0.0.1:{port}/')",
          "start(f'http://127.0.0.1:{port}/', method='CONNECT')",
        ],
        {},
        { before: ASK },
      ),
      ...each(REBINDING, { timeoutMs: 30_000 }, { before: ASK }),
    ],
    {
      "neither the library nor the server reads it as a host's URL, so there is no check to take away": [
        "%00.example",
        "１２７",
        "[fe80",
        "http://2d00::1",
        "start(f'ws",
        "file://",
        "method='CONNECT'",
      ],
    },
  ),
};

/** Private hosts may be reached where they are named, and the bait is not. */
export const NETWORK_NAMED: Technique = {
  title: "network, some private hosts allowed",
  settings: {
    NETWORK_ALLOW:
      "127.0.0.1:REDIRECT_PORT,*.allowed.example,169.254.169.254,metadata.google.internal,metadata.example",
    NETWORK_ALLOW_PRIVATE: "true",
    NETWORK_TIMEOUT_MS: "3000",
  },
  controls: [["allow-list"], ["addresses"], ["allow-list", "addresses"]],
  attacks: excuse(
    [
      ...METADATA.map((url) => ({ name: `urlopen ${url}`, code: reach(JSON.stringify(url)) })),
      { name: "urlopen http://metadata.example/", code: reach("'http://metadata.example/'") },
      { name: "urlopen http://127.0.0.1:PORT/", code: reach("f'http://127.0.0.1:{port}/'") },
      {
        name: "urlopen http://localhost:REDIRECT_PORT/",
        code: reach("f'http://localhost:{redirect_port}/'") + REACHED,
      },
      ...each(
        [
          "import urllib.request\nprint(urllib.request.urlopen(f'http://127.0.0.1:{redirect_port}/').read())",
          "import urllib.request\nclass To(urllib.request.HTTPRedirectHandler):\n  def redirect_request(self, q, *a): return urllib.request.Request(f'http://localhost:{port}/')\nprint(urllib.request.build_opener(To()).open(f'http://127.0.0.1:{redirect_port}/').read())",
          "start(f'http://127.0.0.1:{redirect_port}@127.0.0.1:{port}/')",
          "start(f'http://127.0.0.1:{port}/#@127.0.0.1:{redirect_port}/')",
          "start(f'http://127.0.0.1:{port}/', headers=[['Host', f'127.0.0.1:{redirect_port}']])",
          "start(f'http://evil-allowed.example:{port}/')",
          "start(f'http://allowed.example.loopback.example:{port}/')",
          "start(f'http://loopback.example:{port}/?x.allowed.example')",
          "start(f'http://loopback.example:{port}/', headers=[['Host', 'x.allowed.example']])",
          "start(f'http://127.0.0.1:{port}/', method='GET / HTTP/1.1\\r\\nX: y')",
          "start(f'http://127.0.0.1:{redirect_port}/ HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n') if port < 0 else start(f'http://127.0.0.1:{port}/\\r\\nX: y')",
        ],
        {},
        { before: ASK },
      ),
    ],
    {
      "it is no method, and nothing would send it": ["method='GET / HTTP"],
    },
  ),
};
