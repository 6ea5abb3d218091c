/* A stand-in for a Deno that has been taken over down to native code: raw system calls, no libc checks between.
 * Arguments: pid of the server, a TCP port of the host, a folder anyone may write to, one to be seen read-only. Prints JSON as attacker.js. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int first = 1;
static void report(const char *name, long result) {
  int error = errno;
  printf("%s\"%s\":", first ? "{" : ",", name);
  if (result >= 0) printf("true"); else printf("\"%s\"", strerror(error));
  first = 0;
}
#define TRY(name, ...) do { errno = 0; report(name, (long)(__VA_ARGS__)); } while (0)

static long reap(long pid) {
  if (pid == 0) syscall(SYS_exit_group, 0);
  if (pid > 0) waitpid((pid_t)pid, NULL, __WALL);
  return pid;
}
static void *thread(void *argument) { return argument; }
static int in_clone(void *argument) { (void)argument; return 0; }

int main(int argc, char **argv) {
  if (argc < 5) return 2;
#ifdef __x86_64__
  if (!strcmp(argv[1], "compat")) {
    /* A 32-bit system call from a 64-bit program: number 20 is getpid there and writev here. */
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
    printf("{\"compat\":%s}\n", result > 0 ? "true" : "\"refused\"");
    return 0;
  }
#endif
  if (!strcmp(argv[1], "linger")) {
    /* Does all it can to outlive its wrapper, then says so and stays. */
    for (int s = 1; s < 65; s++) signal(s, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, 0);
    setsid();
    pid_t child = fork();
    if (child > 0) { waitpid(child, NULL, 0); return 0; }
    prctl(PR_SET_PDEATHSIG, 0);
    setsid();
    write(1, "lingering\n", 10);
    for (;;) sleep(1000000);
  }
  pid_t server = atoi(argv[1]);
  int port = atoi(argv[2]);
  char path[4096], byte;

  /* files */
  TRY("openPasswd", syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY));
  snprintf(path, sizeof path, "/proc/%d/mem", server);
  TRY("openServerMemory", open(path, O_RDWR));
  snprintf(path, sizeof path, "/proc/%d/fd", server);
  TRY("openServerDescriptors", open(path, O_RDONLY));
  snprintf(path, sizeof path, "%s/from-native", argv[3]);
  TRY("createFile", open(path, O_WRONLY | O_CREAT, 0600));
  snprintf(path, sizeof path, "%s/from-native", argv[4]);
  TRY("createVisibleFile", open(path, O_WRONLY | O_CREAT, 0600));
  TRY("changeVisibleMode", chmod(argv[4], 0755));
  TRY("createFileInRoot", open("/isolation-attack", O_WRONLY | O_CREAT, 0600));
  unlink("/isolation-attack");
  TRY("memoryFile", syscall(SYS_memfd_create, "x", 0));

  TRY("openOwnMemory", open("/proc/self/mem", O_RDWR));
  /* The page map tells what of its memory a process has written to. Where that lies in the machine it must not tell. */
  unsigned long long entry = 0;
  int pagemap = open("/proc/self/pagemap", O_RDONLY);
  long told = pread(pagemap, &entry, sizeof entry, (long)&entry / sysconf(_SC_PAGESIZE) * sizeof entry);
  TRY("physicalAddress", told == sizeof entry && entry << 9 ? 0 : (errno = EPERM, -1));

  /* network */
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int tcp = socket(AF_INET, SOCK_STREAM, 0);
  TRY("socketTcp", tcp);
  TRY("connectServer", connect(tcp, (struct sockaddr *)&address, sizeof address));
  TRY("socketUdp", socket(AF_INET, SOCK_DGRAM, 0));
  TRY("socketIpv6", socket(AF_INET6, SOCK_STREAM, 0));
  TRY("socketNetlink", socket(AF_NETLINK, SOCK_RAW, 0));
  TRY("socketUnix", socket(AF_UNIX, SOCK_STREAM, 0));
  TRY("socketVsock", socket(40, SOCK_STREAM, 0));
  TRY("socketRaw", socket(AF_INET, SOCK_RAW, 1));
  int pair[2];
  TRY("datagramPair", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));

  /* processes */
  static char stack[65536] __attribute__((aligned(16)));
  TRY("fork", reap(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)));
#ifdef SYS_fork
  TRY("forkOld", reap(syscall(SYS_fork)));
#endif
  struct { unsigned long long flags, rest[10]; } clone3 = {0};
  clone3.rest[3] = SIGCHLD;
  TRY("clone3", reap(syscall(SYS_clone3, &clone3, sizeof clone3)));
  TRY("cloneUserNamespace", reap(clone(in_clone, stack + sizeof stack, CLONE_NEWUSER | SIGCHLD, NULL)));
  TRY("signalServer", kill(server, SIGUSR2));
  TRY("signalServerThread", syscall(SYS_tgkill, server, server, SIGUSR2));
  TRY("signalByDescriptor", syscall(SYS_pidfd_open, server, 0));
  TRY("attachServer", ptrace(PTRACE_SEIZE, server, 0, 0));
  struct iovec mine = {&byte, 1}, theirs = {(void *)0x400000, 1};
  errno = 0;
  long got = process_vm_readv(server, &mine, 1, &theirs, 1, 0);
  /* EFAULT: it was let in, and only the address was wrong. */
  report("readServerMemory", got < 0 && errno == EFAULT ? 0 : got);
  struct rlimit limit;
  TRY("limitServer", prlimit(server, RLIMIT_NOFILE, NULL, &limit));
  TRY("raiseLimit", ({ getrlimit(RLIMIT_FSIZE, &limit); limit.rlim_max == RLIM_INFINITY ? 0 : (limit.rlim_cur = limit.rlim_max = RLIM_INFINITY, setrlimit(RLIMIT_FSIZE, &limit)); }));
  TRY("clearDeathSignal", prctl(PR_SET_PDEATHSIG, 0));
  TRY("becomeRoot", setresuid(0, 0, 0) == 0 && syscall(SYS_chroot, "/") == 0 ? 0 : -1);

  /* the kernel */
  TRY("unshareUser", reap(({ long p = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); if (p == 0) syscall(SYS_exit_group, unshare(CLONE_NEWUSER) ? 1 : 0); int s = 1; if (p > 0) { waitpid(p, &s, 0); if (s) { errno = EPERM; p = -1; } else p = 1; } p; })));
  TRY("keyring", syscall(SYS_add_key, "user", "x", "y", 1, -3));
  char ring[256] = {0};
  TRY("ioUring", syscall(SYS_io_uring_setup, 1, ring));
  unsigned map[18] = {2, 4, 4, 1};
  TRY("bpf", syscall(SYS_bpf, 0, map, sizeof map));
  TRY("userfaultfd", syscall(SYS_userfaultfd, 1));
  TRY("personality", syscall(SYS_personality, 0x0040000));
  TRY("inotify", syscall(SYS_inotify_init1, 0));
  TRY("sharedMemory", syscall(SYS_shmget, 0, 4096, 01600));
  TRY("messageQueue", syscall(SYS_msgget, 0, 01600));
  pthread_t id;
  int started = pthread_create(&id, NULL, thread, NULL);
  if (!started) pthread_join(id, NULL);
  report("thread", -started);
  printf("}\n");
  return 0;
}
